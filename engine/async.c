/* Durability with a maximum delay: see async.h. */
#include "async.h"

#include "error.h"
#include "flush.h"

#include <signal.h>
#include <string.h>
#include <time.h>

struct async {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	unsigned delay_ms;
	bool running, stopping;
	bool owed;             /* something was shown since the last flush began */
	uint64_t pages;        /* of it: written, and none of those they replace can be used again before a flush (I1) */
	struct timespec due;
};

enum bts_err async_new(struct bts *db, unsigned delay_ms)
{
	struct async *async = db->env->ops->memory(db->env, NULL, sizeof(*async));
	pthread_condattr_t attributes;

	if (async == NULL)
		return BTS_MEMORY;
	memset(async, 0, sizeof(*async));
	async->delay_ms = delay_ms == 0 ? ASYNC_DELAY_MS : delay_ms;
	pthread_mutex_init(&async->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&async->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	db->async = async;
	return BTS_OK;
}

static void async_plan(struct async *async)
{
	clock_gettime(CLOCK_MONOTONIC, &async->due);
	async->due.tv_sec += async->delay_ms / 1000;
	async->due.tv_nsec += (long)(async->delay_ms % 1000) * 1000000;
	if (async->due.tv_nsec >= 1000000000) {
		async->due.tv_sec++;
		async->due.tv_nsec -= 1000000000;
	}
	async->owed = true;
	pthread_cond_signal(&async->changed);
}

static void *async_run(void *arg)
{
	struct bts *db = arg;
	struct async *async = db->async;
	enum bts_err err;

	pthread_mutex_lock(&async->lock);
	while (async->owed || !async->stopping) {
		if (!async->owed) {
			pthread_cond_wait(&async->changed, &async->lock);
			continue;
		}
		if (!async->stopping && pthread_cond_timedwait(&async->changed, &async->lock, &async->due) == 0)
			continue;
		async->owed = false;
		async->pages = 0;
		pthread_mutex_unlock(&async->lock);
		/* A failure poisons, which every later call says. */
		err = flush_to(db, shared_tip_txid(db->shared), NULL, NULL, NULL, NULL);
		if (err && err != BTS_BUSY && err != BTS_FENCED)
			db_poison(db, NULL, 0, "flushing in the background");
		pthread_mutex_lock(&async->lock);
		if (err == BTS_BUSY)
			async->owed = true;
		else if (err == BTS_FENCED && !async->stopping) /* the deadline: another one may come */
			async_plan(async);
	}
	pthread_mutex_unlock(&async->lock);
	return NULL;
}

/* No signal is meant for a thread that the program does not know of. */
static int async_start(struct bts *db)
{
	sigset_t all, before;
	int os;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	os = pthread_create(&db->async->thread, NULL, async_run, db);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return os;
}

bool async_shown(struct bts *db, uint64_t pages)
{
	struct async *async = db->async;
	bool running;

	pthread_mutex_lock(&async->lock);
	if (!async->running && !async->stopping)
		async->running = async_start(db) == 0;
	running = async->running;
	if (running && async->pages > ASYNC_PAGES_MOST)
		running = false;
	if (running && !async->owed)
		async_plan(async);
	if (running && (async->pages += pages) > ASYNC_PAGES) {
		clock_gettime(CLOCK_MONOTONIC, &async->due);
		pthread_cond_signal(&async->changed);
	}
	pthread_mutex_unlock(&async->lock);
	return running;
}

void async_free(struct bts *db)
{
	struct async *async = db->async;
	bool running;

	if (async == NULL)
		return;
	if (db->shared == NULL || !shared_foreign(db->shared)) { /* in the child of a fork there is no such thread, and the lock may be held */
		pthread_mutex_lock(&async->lock);
		running = async->running;
		async->stopping = true;
		pthread_cond_signal(&async->changed);
		pthread_mutex_unlock(&async->lock);
		if (running)
			pthread_join(async->thread, NULL);
		pthread_mutex_destroy(&async->lock);
		pthread_cond_destroy(&async->changed);
	}
	db->env->ops->memory(db->env, async, 0);
	db->async = NULL;
}
