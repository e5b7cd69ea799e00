/* What this process is: a primary with its open file, or a follower with its replication. */
#include "role.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "follow.h"
#include "log.h"

/* When commits were made, for the age of what a follower lacks: at most one entry in ROLE_AGE_STEP_MS. */
#define ROLE_AGES 8192
#define ROLE_AGE_STEP_MS 50

struct role_age {
	bts_txid txid;
	uint64_t ms;
};

struct role {
	const struct config *config;
	char name[64];
	uint64_t started_ms;
	struct bts *db;	       /* of a primary */
	struct follow *follow; /* of a follower */
	atomic_uint_least64_t txid;
	atomic_int poisoned, draining, synced;
	pthread_mutex_t lock;	      /* what follows */
	struct bts_position position; /* epoch_txid's */
	bts_txid position_txid;
	struct role_age ages[ROLE_AGES];
	size_t age_first, age_count;
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

static enum bts_err role_open_primary(struct role *r, struct bts_error *error)
{
	struct bts_options options;
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_upstream up = {.fresh_ms = 0};
	enum bts_err err;

	bts_options_init(&options);
	err = bts_open(r->config->data, &options, &r->db, error);
	if (err)
		return err;
	err = bts_stat(r->db, &stat, error);
	if (err)
		return err;
	if (stat.follower) {
		snprintf(error->text, sizeof(error->text), "%.200s is a follower's file", r->config->data);
		return error->code = BTS_READ_ONLY;
	}
	atomic_store(&r->txid, stat.durable_txid);
	if (stat.fell_back)
		log_event("warn", "fell-back",
			LOG_FIELDS(LOG_TEXT("detail",
					   "the newest meta page was not valid; the commit before is served"),
				LOG_U64("txid", stat.durable_txid)));
	else if (!stat.clean_open)
		log_event("info", "recovered", LOG_FIELDS(LOG_U64("txid", stat.durable_txid)));
	/* For a bts-replicator beside this process, which tells it to those who follow. */
	snprintf(up.node, sizeof(up.node), "%s", r->name);
	err = bts_upstream_record(r->db, &up, error);
	return err ? err : bts_ship_position(r->db, &r->position, error);
}

static enum bts_err role_open_follower(struct role *r, const char *own_url, struct bts_error *error)
{
	struct follow_options options = {
		.path = r->config->data,
		.upstream = r->config->from,
		.node = r->name,
		.url = own_url,
		.events = {role_event, r},
	};

	return follow_start(&options, &r->follow, error);
}

int role_open(const struct config *config, const char *own_url, struct role **out)
{
	struct role *r = calloc(1, sizeof(*r));
	struct bts_error error = {0};
	char host[40] = "";
	enum bts_err err;

	if (!r)
		return -1;
	r->config = config;
	r->started_ms = role_clock_ms();
	pthread_mutex_init(&r->lock, NULL);
	if (config->name) {
		snprintf(r->name, sizeof(r->name), "%s", config->name);
	} else {
		gethostname(host, sizeof(host) - 1);
		snprintf(r->name, sizeof(r->name), "%s-%s", host, strrchr(own_url, ':') + 1);
	}
	err = config->follower ? role_open_follower(r, own_url, &error) : role_open_primary(r, &error);
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
	follow_stop(r->follow);
	bts_close(r->db);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

int role_follows(const struct role *r)
{
	return r->config->follower;
}

const char *role_word(const struct role *r)
{
	return r->config->follower ? "follower" : "primary";
}

const char *role_name(const struct role *r)
{
	return r->name;
}

const char *role_primary_url(const struct role *r)
{
	return r->config->primary_url ? r->config->primary_url : "";
}

const char *role_source_url(const struct role *r)
{
	return r->config->from ? r->config->from : "";
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
	struct follow_status status;

	if (r->db)
		return r->db;
	/* The file exists from the first frame's header on, but holds nothing before its end. */
	if (!atomic_load(&r->synced)) {
		follow_status(r->follow, &status);
		if (!status.txid)
			return NULL;
		atomic_store(&r->synced, 1);
	}
	return follow_db(r->follow);
}

bts_txid role_txid(struct role *r)
{
	struct follow_status status;

	if (!r->follow)
		return atomic_load(&r->txid);
	follow_status(r->follow, &status);
	return status.txid;
}

void role_epoch(struct role *r, uint32_t *number, uint64_t *random)
{
	bts_txid txid = r->follow ? role_txid(r) : 0;

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

void role_committed(struct role *r, bts_txid txid)
{
	uint64_t now = role_clock_ms();
	struct role_age *last;

	atomic_store(&r->txid, txid);
	pthread_mutex_lock(&r->lock);
	last = &r->ages[(r->age_first + r->age_count - 1) % ROLE_AGES];
	if (!r->age_count || (last->txid < txid && now - last->ms >= ROLE_AGE_STEP_MS)) {
		if (r->age_count == ROLE_AGES)
			r->age_first++;
		else
			r->age_count++;
		r->ages[(r->age_first + r->age_count - 1) % ROLE_AGES] = (struct role_age){txid, now};
	}
	pthread_mutex_unlock(&r->lock);
}

uint64_t role_commit_age_ms(struct role *r, bts_txid txid)
{
	uint64_t now = role_clock_ms(), since = r->started_ms;
	size_t i;

	if (txid >= role_txid(r))
		return 0;
	pthread_mutex_lock(&r->lock);
	for (i = 0; i < r->age_count; i++) {
		const struct role_age *age = &r->ages[(r->age_first + i) % ROLE_AGES];

		since = age->ms;
		if (age->txid > txid)
			break;
	}
	pthread_mutex_unlock(&r->lock);
	return now - since;
}

void role_upstream(struct role *r, struct role_upstream *up)
{
	struct follow_status status;

	memset(up, 0, sizeof(*up));
	if (!r->follow)
		return;
	follow_status(r->follow, &status);
	snprintf(up->state, sizeof(up->state), "%s", status.state);
	snprintf(up->error, sizeof(up->error), "%s", status.error);
	up->txid = status.txid;
	up->head = status.upstream_txid;
	up->heard = status.heard;
	up->stopped = !strcmp(status.state, "stopped");
	up->contact_ms = status.heard ? status.contact_ms : role_uptime_ms(r);
	up->lag_ms = status.lag_ms;
	/* The source may have committed since its last answer, and may hang without ending the connection. */
	if (up->lag_ms < up->contact_ms)
		up->lag_ms = up->contact_ms;
	up->lag_ms += status.source_lag_ms;
	snprintf(up->url, sizeof(up->url), "%s", status.upstream);
	snprintf(up->via, sizeof(up->via), "%s", status.via);
	up->switches = status.switches;
	up->frames = status.frames;
	up->bytes = status.bytes;
	up->pages = status.pages;
	up->retries = status.retries;
}

uint64_t role_lag_ms(struct role *r)
{
	struct role_upstream up;

	role_upstream(r, &up);
	return up.lag_ms;
}

void role_note(struct role *r, enum bts_err err)
{
	if (err == BTS_POISONED && !atomic_exchange(&r->poisoned, 1))
		log_event("error", "poisoned",
			LOG_FIELDS(LOG_TEXT("detail",
				"a flush failed: nothing more can be committed, restart to recover")));
}

int role_poisoned(const struct role *r)
{
	return atomic_load(&r->poisoned);
}

void role_drain(struct role *r)
{
	atomic_store(&r->draining, 1);
}

int role_draining(const struct role *r)
{
	return atomic_load(&r->draining);
}
