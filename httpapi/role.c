/* What this process is: a primary with its open file, or a follower with its replication. */
#include "role.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "role_internal.h"

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

enum bts_err role_record_primary(struct role *r, struct bts_error *error)
{
	struct bts_upstream up = {.fresh_ms = 0};

	snprintf(up.node, sizeof(up.node), "%s", r->name);
	return bts_upstream_record(atomic_load(&r->db), &up, error);
}

static enum bts_err role_open_primary(struct role *r, struct bts_error *error)
{
	struct bts_options options;
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts *db = NULL;
	enum bts_err err;

	bts_options_init(&options);
	err = bts_open(r->config->data, &options, &db, error);
	if (err)
		return err;
	atomic_store(&r->db, db);
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
	err = role_record_primary(r, error);
	return err ? err : bts_ship_position(r->db, &r->position, error);
}

const char *role_keep_text(struct role *r, const char *text)
{
	size_t size = strlen(text) + 1;
	struct role_text *kept = malloc(sizeof(*kept) + size);

	if (!kept)
		return "";
	memcpy(kept->text, text, size);
	pthread_mutex_lock(&r->lock);
	kept->next = r->texts;
	r->texts = kept;
	pthread_mutex_unlock(&r->lock);
	return kept->text;
}

enum bts_err role_start_follow(struct role *r, const char *source, struct bts_error *error)
{
	struct follow_options options = {
		.path = r->config->data,
		.upstream = source,
		.node = r->name,
		.url = r->url,
		.max_rate = r->config->max_rate,
		.zstd = r->config->zstd,
		.events = {role_event, r},
		.rejoin = r->config->rejoin,
		.db = r->applier,
	};
	struct follow *follow;
	enum bts_err err = follow_start(&options, &follow, error);

	if (err)
		return err;
	pthread_rwlock_wrlock(&r->switching);
	r->follow = follow;
	pthread_rwlock_unlock(&r->switching);
	return BTS_OK;
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
	pthread_mutex_init(&r->changing, NULL);
	pthread_rwlock_init(&r->switching, NULL);
	pthread_mutex_init(&r->scrubbing, NULL);
	snprintf(r->url, sizeof(r->url), "%s", own_url);
	atomic_init(&r->source, config->from ? config->from : "");
	atomic_init(&r->primary_url, config->primary_url ? config->primary_url : "");
	atomic_init(&r->kind, config->follower ? BTS_ROLE_FOLLOWER : BTS_ROLE_PRIMARY);
	if (config->name) {
		snprintf(r->name, sizeof(r->name), "%s", config->name);
	} else {
		gethostname(host, sizeof(host) - 1);
		snprintf(r->name, sizeof(r->name), "%s-%s", host, strrchr(own_url, ':') + 1);
	}
	err = config->follower ? role_start_follow(r, config->from, &error) : role_open_primary(r, &error);
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
	repair_stop(r->repair);
	follow_stop(r->follow);
	if (r->applier != atomic_load(&r->db))
		bts_close(r->applier);
	bts_close(atomic_load(&r->db));
	while (r->texts) {
		struct role_text *next = r->texts->next;

		free(r->texts);
		r->texts = next;
	}
	pthread_mutex_destroy(&r->lock);
	pthread_mutex_destroy(&r->changing);
	pthread_rwlock_destroy(&r->switching);
	pthread_mutex_destroy(&r->scrubbing);
	free(r);
}

int role_follows(const struct role *r)
{
	return atomic_load(&r->kind) != BTS_ROLE_PRIMARY;
}

const char *role_word(const struct role *r)
{
	int kind = atomic_load(&r->kind);

	return kind == BTS_ROLE_PRIMARY ? "primary" : kind == BTS_ROLE_FENCED ? "fenced" : "follower";
}

const char *role_name(const struct role *r)
{
	return r->name;
}

const char *role_primary_url(const struct role *r)
{
	return atomic_load(&r->primary_url);
}

const char *role_source_url(const struct role *r)
{
	return atomic_load(&r->source);
}

const char *role_path(const struct role *r)
{
	return r->config->data;
}

uint64_t role_uptime_ms(const struct role *r)
{
	return role_clock_ms() - r->started_ms;
}

/* False, and *status as it was, when nothing is followed. */
static int role_follow_status(struct role *r, struct follow_status *status, struct bts **db)
{
	int follows;

	pthread_rwlock_rdlock(&r->switching);
	follows = r->follow != NULL;
	if (follows)
		follow_status(r->follow, status);
	if (follows && db)
		*db = follow_db(r->follow);
	pthread_rwlock_unlock(&r->switching);
	return follows;
}

struct bts *role_db(struct role *r)
{
	struct follow_status status = {0};
	struct bts *db = atomic_load(&r->db);

	if (db)
		return db;
	/* The file exists from the first frame's header on, but holds nothing before its end. */
	if (!role_follow_status(r, &status, &db))
		return atomic_load(&r->db);
	if (status.txid)
		atomic_store(&r->synced, 1);
	return atomic_load(&r->synced) ? db : NULL;
}

bts_txid role_txid(struct role *r)
{
	struct follow_status status;

	if (atomic_load(&r->kind) == BTS_ROLE_PRIMARY || !role_follow_status(r, &status, NULL))
		return atomic_load(&r->txid);
	return status.txid;
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

enum bts_err role_scrub(struct role *r, const char *peers, uint64_t rate, struct bts_error *error)
{
	struct repair_options options = {.db = role_db(r), .peers = peers, .rate = rate, .events = {role_event, r}};
	struct repair_status *last = calloc(1, sizeof(*last));
	enum bts_err err = BTS_OK;

	pthread_mutex_lock(&r->scrubbing);
	if (r->repair && last)
		repair_status(r->repair, last);
	if (!last || !options.db)
		err = fail_set(error, BTS_NOT_FOUND, "there is nothing to scrub yet");
	else if (last->running)
		err = fail_set(error, BTS_BUSY, "a scrub is running");
	if (!err) {
		repair_stop(r->repair);
		r->repair = NULL;
		err = repair_start(&options, &r->repair, error);
	}
	pthread_mutex_unlock(&r->scrubbing);
	free(last);
	return err;
}

int role_scrub_status(struct role *r, struct repair_status *status)
{
	int there;

	pthread_mutex_lock(&r->scrubbing);
	there = r->repair != NULL;
	if (there)
		repair_status(r->repair, status);
	pthread_mutex_unlock(&r->scrubbing);
	return there;
}

void role_upstream(struct role *r, struct role_upstream *up)
{
	struct follow_status status;

	memset(up, 0, sizeof(*up));
	up->mode = "streaming";
	if (!role_follow_status(r, &status, NULL)) {
		if (!role_follows(r))
			return;
		snprintf(up->state, sizeof(up->state), "%s", !strcmp(role_word(r), "fenced") ? "fenced" : "stopped");
		up->txid = role_txid(r);
		up->contact_ms = up->lag_ms = role_clock_ms() - r->changed_ms;
		return;
	}
	snprintf(up->state, sizeof(up->state), "%s", status.state);
	snprintf(up->error, sizeof(up->error), "%s", status.error);
	up->txid = status.txid;
	up->mode = !strcmp(status.state, "grafting") ? "graft" : status.txid ? "streaming" : "first-sync";
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
	up->grafts = status.grafts;
	up->graft_pages = status.graft_pages;
	up->digest_mismatches = status.digest_mismatches;
	snprintf(up->orphans, sizeof(up->orphans), "%s", status.orphans);
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

uint64_t role_expired(const struct role *r)
{
	return atomic_load(&r->expired);
}

void role_note(struct role *r, enum bts_err err)
{
	if (err == BTS_EXPIRED)
		atomic_fetch_add(&r->expired, 1);
	if (err == BTS_FENCED) /* by another process, perhaps */
		role_look(r);
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
