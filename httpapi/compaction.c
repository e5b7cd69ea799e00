/* Making the file smaller in the background. */
#include "compaction.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "btree_store/ship.h"
#include "log.h"
#include "role.h"

#define COMPACTION_STEP_BYTES (UINT64_C(8) << 20) /* moved in a commit, at most */
#define COMPACTION_STEPS_A_SECOND 10

struct compaction {
	struct role *role;
	struct bts *db;
	uint64_t rate;
	pthread_t thread;
	pthread_mutex_t changing; /* starting and stopping */
	int joinable;		  /* with changing */
	pthread_mutex_t lock;	  /* what follows */
	pthread_cond_t changed;
	int stopping;
	struct compaction_status status;
};

struct compaction *compaction_new(struct role *role)
{
	struct compaction *c = calloc(1, sizeof(*c));
	pthread_condattr_t clock;

	if (!c)
		return NULL;
	c->role = role;
	pthread_mutex_init(&c->changing, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &clock);
	pthread_condattr_destroy(&clock);
	return c;
}

/* Until then, or until it is to stop: which is told. */
static int compaction_pause(struct compaction *c, uint64_t until_ms)
{
	struct timespec at = {.tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};
	int stopping;

	pthread_mutex_lock(&c->lock);
	while (!c->stopping && pthread_cond_timedwait(&c->changed, &c->lock, &at) != ETIMEDOUT)
		;
	stopping = c->stopping;
	pthread_mutex_unlock(&c->lock);
	return stopping;
}

static enum bts_err compaction_step(struct compaction *c, uint64_t pages, struct bts_compact_info *info, struct bts_error *error)
{
	struct bts_position position;
	enum bts_err err;

	*info = (struct bts_compact_info){.size = sizeof(*info)};
	err = bts_compact_step(c->db, pages, info, error);
	if (err)
		return err;
	if (!bts_ship_position(c->db, &position, NULL))
		role_committed(c->role, position.txid);
	pthread_mutex_lock(&c->lock);
	c->status.steps++;
	c->status.pages_moved += info->pages_moved;
	c->status.pages_truncated += info->pages_truncated;
	c->status.last = *info;
	pthread_mutex_unlock(&c->lock);
	return BTS_OK;
}

static void compaction_end(struct compaction *c, enum bts_err err, int stopped, const struct bts_error *error)
{
	struct compaction_status now;

	pthread_mutex_lock(&c->lock);
	c->status.running = 0;
	c->status.ended = !err && !stopped;
	if (err)
		c->status.error = *error;
	now = c->status;
	pthread_mutex_unlock(&c->lock);
	role_met(c->role, err, error);
	log_event(err ? "error" : "info", "compaction-ended",
		LOG_FIELDS(LOG_U64("pages_moved", now.pages_moved), LOG_U64("bytes_before", now.bytes_before),
			LOG_U64("bytes", now.last.file_bytes), LOG_TEXT("detail", err ? error->text : stopped ? "stopped" : "")));
}

static void *compaction_main(void *arg)
{
	struct compaction *c = arg;
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_compact_info info = {.more = 1};
	struct bts_error error = {0};
	uint64_t step = c->rate / COMPACTION_STEPS_A_SECOND, began;
	enum bts_err err = bts_stat(c->db, &stat, &error);
	int stopped = 0;

	pthread_setname_np(pthread_self(), "compaction");
	pthread_mutex_lock(&c->lock);
	c->status.bytes_before = stat.file_bytes;
	pthread_mutex_unlock(&c->lock);
	step = step < COMPACTION_STEP_BYTES ? step : COMPACTION_STEP_BYTES;
	while (!err && !stopped && info.more) {
		began = role_clock_ms();
		err = compaction_step(c, step / stat.page_size ? step / stat.page_size : 1, &info, &error);
		if (!err)
			stopped = compaction_pause(c, began + info.pages_moved * stat.page_size * 1000 / c->rate);
	}
	compaction_end(c, err, stopped, &error);
	return NULL;
}

/* With changing. */
static void compaction_join(struct compaction *c)
{
	if (c->joinable)
		pthread_join(c->thread, NULL);
	c->joinable = 0;
}

static int compaction_runs(struct compaction *c)
{
	struct compaction_status now;

	compaction_status(c, &now);
	return now.running;
}

static void compaction_begin(struct compaction *c, int begun)
{
	pthread_mutex_lock(&c->lock);
	c->stopping = 0;
	c->status = (struct compaction_status){.begun = begun, .running = begun};
	pthread_mutex_unlock(&c->lock);
}

enum bts_err compaction_start(struct compaction *c, uint64_t rate, struct bts_error *error)
{
	struct bts *db = role_db(c->role);
	enum bts_err err = BTS_OK;

	/* Who stops one has it until the step under way has ended: the caller is not to wait for that. */
	if (pthread_mutex_trylock(&c->changing)) {
		if (error)
			*error = (struct bts_error){BTS_BUSY, 0, ""};
		return BTS_BUSY;
	}
	if (!db || compaction_runs(c)) {
		err = db ? BTS_BUSY : BTS_NOT_FOUND;
	} else {
		compaction_join(c);
		c->db = db;
		c->rate = rate;
		compaction_begin(c, 1);
		c->joinable = !pthread_create(&c->thread, NULL, compaction_main, c);
		if (!c->joinable) {
			compaction_begin(c, 0);
			err = BTS_MEMORY;
		}
	}
	pthread_mutex_unlock(&c->changing);
	if (err && error)
		*error = (struct bts_error){err, 0, ""};
	return err;
}

int compaction_stop(struct compaction *c)
{
	int ran;

	pthread_mutex_lock(&c->changing);
	pthread_mutex_lock(&c->lock);
	ran = c->status.running;
	c->stopping = 1;
	pthread_cond_signal(&c->changed);
	pthread_mutex_unlock(&c->lock);
	compaction_join(c);
	pthread_mutex_unlock(&c->changing);
	return ran;
}

void compaction_status(struct compaction *c, struct compaction_status *status)
{
	pthread_mutex_lock(&c->lock);
	*status = c->status;
	pthread_mutex_unlock(&c->lock);
}

void compaction_free(struct compaction *c)
{
	if (!c)
		return;
	compaction_stop(c);
	pthread_mutex_destroy(&c->changing);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->changed);
	free(c);
}
