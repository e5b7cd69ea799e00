/* The thread that removes expired keys. */
#include "ttl_sweep.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "log.h"
#include "role.h"
#include "ttl.h"
#include "writer.h"

#define TTL_SWEEP_PAUSE_S 1

struct ttl_sweep {
	struct role *role;
	struct writer *writer;
	pthread_t thread;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t moved;
	int stopping, queued;
	struct ttl_sweep_stat stat;
	/* the writer's while queued */
	struct writer_op op;
	struct ttl_swept swept;
};

static enum bts_err ttl_sweep_call(struct writer_op *op, struct bts_txn *txn, int *changed)
{
	struct ttl_sweep *s = op->arg;
	enum bts_err err = ttl_sweep_batch(txn, ttl_now_ms(), &s->swept);

	*changed = s->swept.rows != 0;
	op->result = *changed ? WRITER_DONE : WRITER_UNCHANGED;
	return err;
}

static void ttl_sweep_done(struct writer_op *op)
{
	struct ttl_sweep *s = op->arg;

	pthread_mutex_lock(&s->lock);
	s->queued = 0;
	pthread_cond_signal(&s->moved);
	pthread_mutex_unlock(&s->lock);
}

/* Removes a batch; 1 when there is more to do at once.  With the lock. */
static int ttl_sweep_once(struct ttl_sweep *s)
{
	s->op = (struct writer_op){
		.kind = WRITER_CALL, .call = ttl_sweep_call, .arg = s, .done = ttl_sweep_done};
	s->queued = 1;
	pthread_mutex_unlock(&s->lock);
	if (writer_queue(s->writer, &s->op)) {
		pthread_mutex_lock(&s->lock);
		s->queued = 0;
		return 0;
	}
	pthread_mutex_lock(&s->lock);
	while (s->queued)
		pthread_cond_wait(&s->moved, &s->lock);
	if (s->op.result != WRITER_DONE)
		return 0;
	s->stat.expired += s->swept.entries;
	s->stat.stale += s->swept.rows - s->swept.entries;
	return s->swept.more;
}

static int ttl_sweep_look(struct ttl_sweep *s, uint64_t *pending)
{
	struct bts *db = role_follows(s->role) || role_late(s->role) ? NULL : role_db(s->role);
	struct bts_txn *txn;
	int due = 0;

	*pending = 0;
	if (!db || bts_begin(db, BTS_READ, &txn, NULL))
		return 0;
	if (ttl_sweep_due(txn, ttl_now_ms(), &due, pending))
		due = 0;
	bts_abort(txn);
	return due;
}

static void ttl_sweep_note_clock(void)
{
	int64_t by = ttl_stepped_ms();
	char text[32];

	snprintf(text, sizeof(text), "%" PRId64, by);
	if (by)
		log_event("warn", "clock-stepped",
			LOG_FIELDS(LOG_TEXT("by_ms", text),
				LOG_TEXT("detail",
					by > 0 ? "the machine's clock was set on: keys expire by it"
					       : "the machine's clock was set back: times to live run at "
						 "half the rate until it has caught up")));
}

static void *ttl_sweep_main(void *arg)
{
	struct ttl_sweep *s = arg;
	struct timespec until;
	uint64_t pending;
	int due, more = 0;

	pthread_setname_np(pthread_self(), "ttl");
	pthread_mutex_lock(&s->lock);
	while (!s->stopping) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += TTL_SWEEP_PAUSE_S;
		while (!more && !s->stopping && !pthread_cond_timedwait(&s->moved, &s->lock, &until))
			;
		pthread_mutex_unlock(&s->lock);
		due = ttl_sweep_look(s, &pending);
		ttl_sweep_note_clock();
		pthread_mutex_lock(&s->lock);
		s->stat.pending = pending;
		more = due && !s->stopping && ttl_sweep_once(s);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int ttl_sweep_start(struct role *role, struct writer *writer, struct ttl_sweep **out)
{
	struct ttl_sweep *s = calloc(1, sizeof(*s));
	pthread_condattr_t monotonic;

	if (!s)
		return -1;
	s->role = role;
	s->writer = writer;
	(void)ttl_now_ms(); /* steps are told from here on */
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&s->moved, &monotonic);
	pthread_condattr_destroy(&monotonic);
	if (pthread_create(&s->thread, NULL, ttl_sweep_main, s)) {
		free(s);
		return -1;
	}
	*out = s;
	return 0;
}

void ttl_sweep_stop(struct ttl_sweep *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stopping = 1;
	pthread_cond_signal(&s->moved);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->moved);
	free(s);
}

void ttl_sweep_stat(struct ttl_sweep *s, struct ttl_sweep_stat *stat)
{
	pthread_mutex_lock(&s->lock);
	*stat = s->stat;
	pthread_mutex_unlock(&s->lock);
}
