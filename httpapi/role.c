/* What this process is: a primary with its open file, or a follower with its replication. */
#include "role.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ages.h"
#include "log.h"

#define ROLE_DAMAGE_MS 1000 /* between lines about damage */

struct role {
	const struct config *config;
	struct node *node;
	char name[64];
	uint64_t started_ms;
	atomic_int poisoned, draining;
	atomic_uint epochs; /* that began here: role_epochs */
	atomic_uint_least64_t expired;
	atomic_uint_least64_t damage, damage_told_ms; /* how often damage was met, and when that was logged last (0: never) */
	pthread_mutex_t lock;	      /* what follows */
	struct bts_position position; /* epoch_txid's */
	bts_txid position_txid;
	struct bts_position seen; /* the newest that role_epoch_of has looked at */
	bts_txid seen_since;	  /* its epoch is that of all from here on */
	struct ages ages;
	void (*held)(void *arg);
	void *held_arg;
};

uint64_t role_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t role_realtime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void role_event(void *arg, const struct repl_event *event)
{
	static const char *const levels[] = {"info", "warn", "error"};

	(void)arg;
	log_event(levels[event->level], event->name, LOG_FIELDS(LOG_TEXT("detail", event->text)));
}

struct repl_events role_events(struct role *r)
{
	return (struct repl_events){role_event, r};
}

/* Before anybody sees it: the handle's own epoch would be the last one's. */
static void role_promoted(void *arg, const struct bts_position *position)
{
	struct role *r = arg;

	pthread_mutex_lock(&r->lock);
	r->position = *position;
	r->position_txid = 0;
	pthread_mutex_unlock(&r->lock);
	atomic_fetch_add(&r->epochs, 1);
}

static void role_held(void *arg)
{
	struct role *r = arg;

	if (r->held)
		r->held(r->held_arg);
}

void role_on_held(struct role *r, void (*held)(void *arg), void *arg)
{
	r->held = held;
	r->held_arg = arg;
}

static void role_set_name(struct role *r, const char *own_url)
{
	char host[40] = "";

	if (r->config->name) {
		snprintf(r->name, sizeof(r->name), "%s", r->config->name);
	} else {
		gethostname(host, sizeof(host) - 1);
		snprintf(r->name, sizeof(r->name), "%s-%s", host, strrchr(own_url, ':') + 1);
	}
}

int role_open(const struct config *config, const char *own_url, struct role **out)
{
	struct role *r = calloc(1, sizeof(*r));
	struct node_options options = {.kind = config->failover.place ? NODE_ANY : config->follower ? NODE_FOLLOWER : NODE_PRIMARY,
		.deadline = config->failover.place != NULL,
		.make = config->failover.place && !config->follower,
		.awaits = true,
		.path = config->data,
		.url = own_url,
		.source = config->from,
		.max_rate = config->max_rate,
		.zstd = config->zstd,
		.rejoin = config->rejoin,
		.promoted = role_promoted,
		.promoted_arg = r,
		.held = role_held,
		.held_arg = r};
	struct bts_error error = {0};
	enum bts_err err;

	if (!r)
		return -1;
	r->config = config;
	r->started_ms = r->ages.since_ms = role_clock_ms();
	pthread_mutex_init(&r->lock, NULL);
	role_set_name(r, own_url);
	options.name = r->name;
	options.primary_url = config->primary_url;
	options.events = role_events(r);
	err = node_open(&options, &r->node, &error);
	if (!err && !node_follows(r->node))
		err = bts_ship_position(node_db(r->node), &r->position, &error);
	if (err) {
		log_event("error", "open-failed",
			LOG_FIELDS(LOG_TEXT("data", config->data), LOG_TEXT("code", bts_err_name(err)),
				LOG_TEXT("detail", error.text)));
		role_close(r);
		return -1;
	}
	*out = r;
	return 0;
}

void role_close(struct role *r)
{
	if (!r)
		return;
	node_close(r->node);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

struct node *role_node(struct role *r)
{
	return r->node;
}

int role_follows(const struct role *r)
{
	return node_follows(r->node);
}

const char *role_word(const struct role *r)
{
	return node_word(r->node);
}

const char *role_name(const struct role *r)
{
	return r->name;
}

const char *role_primary_url(const struct role *r)
{
	return node_primary_url(r->node);
}

const char *role_source_url(const struct role *r)
{
	return node_source_url(r->node);
}

const char *role_path(const struct role *r)
{
	return r->config->data;
}

uint64_t role_uptime_ms(const struct role *r)
{
	return role_clock_ms() - r->started_ms;
}

struct bts *role_db(struct role *r)
{
	return node_db(r->node);
}

bts_txid role_txid(struct role *r)
{
	return node_txid(r->node);
}

unsigned role_epochs(struct role *r)
{
	return role_follows(r) ? 0 : 1 + atomic_load(&r->epochs);
}

void role_epoch(struct role *r, uint32_t *number, uint64_t *random)
{
	bts_txid txid = role_follows(r) ? role_txid(r) : 0;

	pthread_mutex_lock(&r->lock);
	if (txid != r->position_txid) {
		struct bts *db = role_db(r);
		struct bts_position position;

		if (db && !bts_ship_position(db, &position, NULL)) {
			r->position = position;
			r->position_txid = txid;
		}
	}
	*number = r->position.epoch;
	*random = r->position.epoch_random;
	pthread_mutex_unlock(&r->lock);
}

int role_epoch_of(struct role *r, bts_txid txid, uint32_t *number, uint64_t *random)
{
	enum bts_standing standing = BTS_STANDING_KNOWN;
	struct bts *db = role_db(r);
	struct bts_position now;

	if (!role_follows(r)) {
		role_epoch(r, number, random);
		return 0;
	}
	if (!db)
		return -1;
	pthread_mutex_lock(&r->lock);
	if (txid > r->seen.txid && !bts_ship_position(db, &now, NULL)) {
		if (now.epoch != r->seen.epoch || now.epoch_random != r->seen.epoch_random || !r->seen_since)
			r->seen_since = now.txid;
		r->seen = now;
	}
	now = r->seen;
	if (txid < r->seen_since || txid > now.txid)
		standing = BTS_STANDING_AHEAD;
	pthread_mutex_unlock(&r->lock);
	/* From before the epoch was seen first: the table of epochs tells. */
	if (standing && (bts_ship_reached(db, now.epoch, now.epoch_random, txid, &standing, NULL) || standing))
		return -1;
	*number = now.epoch;
	*random = now.epoch_random;
	return 0;
}

void role_committed(struct role *r, bts_txid txid)
{
	uint64_t now = role_clock_ms();

	node_committed(r->node, txid);
	pthread_mutex_lock(&r->lock);
	ages_note(&r->ages, txid, now);
	pthread_mutex_unlock(&r->lock);
}

void role_saw(struct role *r, bts_txid txid)
{
	if (!role_follows(r))
		role_committed(r, txid);
	else
		node_committed(r->node, txid); /* counts where nothing is followed */
}

uint64_t role_commit_age_ms(struct role *r, bts_txid txid)
{
	uint64_t now = role_clock_ms(), age;

	if (txid >= role_txid(r))
		return 0;
	pthread_mutex_lock(&r->lock);
	age = ages_after(&r->ages, txid, now);
	pthread_mutex_unlock(&r->lock);
	return age;
}

uint64_t role_lag_ms(struct role *r)
{
	struct node_upstream up;

	node_upstream(r->node, &up);
	return up.lag_ms;
}

int role_late(struct role *r)
{
	struct bts *db = role_db(r);

	return db && bts_deadline(db, NULL, NULL) == BTS_FENCED;
}

int role_may_tell(struct role *r, unsigned epochs)
{
	struct bts *db = role_db(r);
	enum bts_err ahead = db ? bts_deadline(db, NULL, NULL) : BTS_NOT_FOUND;

	return ahead == BTS_NOT_FOUND || (!ahead && (!epochs || epochs == role_epochs(r)));
}

int64_t role_deadline_ms(struct role *r)
{
	struct bts *db = role_db(r);
	uint64_t left = 0;

	if (!db || bts_deadline(db, NULL, &left) == BTS_NOT_FOUND)
		return -1;
	return (int64_t)left;
}

uint64_t role_expired(const struct role *r)
{
	return atomic_load(&r->expired);
}

void role_note(struct role *r, enum bts_err err)
{
	if (err == BTS_EXPIRED)
		atomic_fetch_add(&r->expired, 1);
	if (err == BTS_FENCED) /* by another process, perhaps */
		node_look(r->node);
	if (err == BTS_POISONED && !atomic_exchange(&r->poisoned, 1))
		log_event("error", "poisoned",
			LOG_FIELDS(LOG_TEXT("detail",
				"a flush failed: nothing more can be committed, restart to recover")));
}

void role_met(struct role *r, enum bts_err err, const struct bts_error *error)
{
	uint64_t now = role_clock_ms(), told, met;

	role_note(r, err);
	if (err != BTS_CORRUPT)
		return;
	met = atomic_fetch_add(&r->damage, 1) + 1;
	told = atomic_load(&r->damage_told_ms);
	/* A damaged page that many ask for must not fill the log. */
	if ((told && now < told + ROLE_DAMAGE_MS) || !atomic_compare_exchange_strong(&r->damage_told_ms, &told, now))
		return;
	log_event("error", "damaged",
		LOG_FIELDS(LOG_TEXT("data", r->config->data),
			LOG_TEXT("detail", error && error->text[0] ? error->text : bts_err_name(err)), LOG_U64("met", met)));
}

uint64_t role_damage(const struct role *r)
{
	return atomic_load(&r->damage);
}

int role_poisoned(const struct role *r)
{
	return atomic_load(&r->poisoned);
}

void role_drain(struct role *r)
{
	atomic_store(&r->draining, 1);
	node_cancel(r->node);
}

int role_draining(const struct role *r)
{
	return atomic_load(&r->draining);
}
