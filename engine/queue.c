/*
 * Committing private transactions: a queue whose first arrival leads.
 *
 * The leader takes all that is queued and forms one batch of it.  When its flush begins the next one may lead, so one batch is
 * built while another is flushed, and what queues meanwhile shares a flush; not earlier, since many small batches cost
 * more than one.  A transaction whose snapshot is still the newest state is adopted as it
 * is; any other is validated key by key (C1, C2) against the group's state and its log replayed there.
 */
#include "txn.h"

#include "base/ensure.h"
#include "base/fault.h"
#include "async.h"
#include "error.h"
#include "flush.h"

#include <string.h>

struct commit_queue {
	pthread_mutex_t lock;
	pthread_cond_t done;
	struct bts_txn *first, **last;
	bool leading;
};

enum bts_err queue_new(struct bts *db)
{
	struct commit_queue *queue = db->env->ops->memory(db->env, NULL, sizeof(*queue));

	if (queue == NULL)
		return BTS_MEMORY;
	memset(queue, 0, sizeof(*queue));
	pthread_mutex_init(&queue->lock, NULL);
	pthread_cond_init(&queue->done, NULL);
	queue->last = &queue->first;
	db->queue = queue;
	return BTS_OK;
}

void queue_free(struct bts *db)
{
	if (db->queue == NULL)
		return;
	pthread_mutex_destroy(&db->queue->lock);
	pthread_cond_destroy(&db->queue->done);
	db->env->ops->memory(db->env, db->queue, 0);
	db->queue = NULL;
}

/* Nobody committed since its snapshot and its stamp is the next number: its tree is the group's state. */
static bool queue_adopt(struct bts_group *group, struct bts_txn *txn)
{
	if (group->count > 0 || txn->own.record.txid != group->state.record.txid ||
		txn->own.ctx.stamp != group->last + 1)
		return false;
	state_fini(&group->state);
	group->state = txn->own;
	txn->own.buckets = NULL;
	txn->own.index = NULL;
	txn->own.marks = NULL;
	txn->own.undo = NULL;
	txn->own.dirty = NULL;
	txn->own.bucket_count = 0;
	return true;
}

static enum bts_err queue_join(struct bts_group *group, struct bts_txn *txn)
{
	enum bts_err err;

	if (!queue_adopt(group, txn)) {
		group->state.ctx.error = &txn->error;
		err = validate_txn(group, txn);
		if (err == BTS_OK)
			err = validate_replay(group, txn);
		group->state.ctx.error = &group->error;
		if (err)
			return err;
	}
	group->state.ctx.error = &group->error;
	txn->txid = ++group->last;
	group->count++;
	return BTS_OK;
}

/* A conflict with a transaction of a group that did not come about names nobody. */
static void queue_fail(struct bts_txn *list, bts_txid base, enum bts_err err, const struct bts_error *error)
{
	for (struct bts_txn *txn = list; txn != NULL; txn = txn->queue_next) {
		if (txn->result == BTS_OK) {
			txn->result = err;
			txn->error = *error;
		} else if (txn->winner > base) {
			txn->winner = 0;
		}
	}
}

static bool queue_all_async(const struct bts_txn *list)
{
	while (list != NULL && list->flags & BTS_ASYNC)
		list = list->queue_next;
	return list == NULL;
}

/* What a batch still needs when the build lock has been left. */
struct queue_batch {
	struct bts_txn *list;
	uint64_t count;  /* transactions built */
	bool shown;      /* readers see it already, nobody waits for its flush */
	struct commit_built built;
};

/*
 * While the seal of a clean exit stands a crash looks like that exit, and the numbers given since are given again (I4): what
 * somebody is told the number of is not among them.
 */
static bool queue_sealed(struct bts *db)
{
	struct shared_durable durable;

	shared_durable(db->shared, NULL, &durable);
	return db->slot.mode == META_SEAL && db->slot.sequence == durable.sequence;
}

/* build held.  Every transaction of the list gets its result, as far as it is known before the flush. */
static void queue_build(struct bts *db, struct queue_batch *batch)
{
	struct bts_error error = { 0 };
	bts_txid base = db->tip.txid;
	struct bts_group group;
	enum bts_err err = group_open(&group, db, &error);

	batch->count = 0;
	batch->shown = false;
	for (struct bts_txn *txn = batch->list; txn != NULL; txn = txn->queue_next) {
		if (err)
			txn->error = error;
		txn->result = err ? err : queue_join(&group, txn);
	}
	if (err)
		return;
	batch->count = group.count;
	if (group.count > 0)
		err = group_build(&group, &batch->built, &error);
	if (err) {
		batch->count = 0;
		queue_fail(batch->list, base, err, &error);
	} else if (batch->count > 0 &&
		   (base == shared_head_txid(db->shared) || SABOTAGE(FAULT_I8_SHOW_WAITING)) && queue_all_async(batch->list) &&
		!queue_sealed(db)) {
		/* Shown before it is durable, unless that would show somebody's who waits for his flush (I8). */
		batch->shown = async_shown(db, batch->built.pages) && flush_show(db, &error) == BTS_OK;
	}
	group_close(&group);
}

static struct bts_txn *queue_take(struct commit_queue *queue)
{
	struct bts_txn *list = queue->first;

	for (struct bts_txn *txn = list; txn != NULL; txn = txn->queue_next)
		txn->place = QUEUE_TAKEN;
	queue->first = NULL;
	queue->last = &queue->first;
	return list;
}

/* The flush has begun, or needs none: who comes now may lead the next batch. */
static void queue_release(void *arg)
{
	struct commit_queue *queue = arg;

	pthread_mutex_lock(&queue->lock);
	queue->leading = false;
	if (queue->first != NULL)
		pthread_cond_broadcast(&queue->done);
	pthread_mutex_unlock(&queue->lock);
}

static void queue_finish(struct bts *db, struct queue_batch *batch)
{
	struct bts_error error = { 0 };
	enum bts_err err = BTS_OK;

	if (batch->count == 0 || batch->shown)
		queue_release(db->queue);
	else
		err = flush_to(db, batch->built.txid, &batch->built, queue_release, db->queue, &error);
	if (err)
		queue_fail(batch->list, batch->built.base, err, &error);
	else
		atomic_fetch_add(&db->commits, batch->count);
}

/* queue->lock is not held.  Builds what is queued by the time it gets the build lock. */
static void queue_lead(struct bts *db, struct queue_batch *batch)
{
	struct commit_queue *queue = db->queue;
	struct bts_error error = { 0 };
	enum bts_err err = db_build_enter(db, &error);

	pthread_mutex_lock(&queue->lock);
	batch->list = queue_take(queue);
	pthread_mutex_unlock(&queue->lock);
	if (err) {
		batch->count = 0;
		for (struct bts_txn *txn = batch->list; txn != NULL; txn = txn->queue_next) {
			txn->result = err;
			txn->error = error;
		}
	} else {
		queue_build(db, batch);
		db_build_leave(db);
	}
	queue_finish(db, batch);
}

enum bts_err queue_commit(struct bts_txn *txn, bts_txid *txid, struct bts_error *error)
{
	struct commit_queue *queue = txn->db->queue;
	struct queue_batch batch;
	struct bts_txn *next;

	if (shared_foreign(txn->db->shared)) /* a child of fork: the lock may be held by a thread that is not there */
		return db_may_write(txn->db, error);
	txn->queue_next = NULL;
	txn->place = QUEUE_WAITING;
	pthread_mutex_lock(&queue->lock);
	*queue->last = txn;
	queue->last = &txn->queue_next;
	while (txn->place != QUEUE_DONE && (txn->place == QUEUE_TAKEN || queue->leading))
		pthread_cond_wait(&queue->done, &queue->lock);
	if (txn->place != QUEUE_DONE) {
		queue->leading = true;
		pthread_mutex_unlock(&queue->lock);
		queue_lead(txn->db, &batch);
		pthread_mutex_lock(&queue->lock);
		for (; batch.list != NULL; batch.list = next) {
			next = batch.list->queue_next;
			batch.list->place = QUEUE_DONE; /* from here on it belongs to its thread again */
		}
		pthread_cond_broadcast(&queue->done);
	}
	pthread_mutex_unlock(&queue->lock);
	*txid = txn->txid;
	if (txn->result && error != NULL)
		*error = txn->error;
	return txn->result;
}

enum bts_err queue_commit_exclusive(struct bts_txn *txn, bts_txid *txid, struct bts_error *error)
{
	struct bts *db = txn->db;
	struct queue_batch batch = { .list = txn };
	struct bts_error why = { 0 };
	enum bts_err err = BTS_OK;

	txn->queue_next = NULL;
	queue_build(db, &batch);
	txn->exclusive = false;
	db_build_leave(db);
	if (batch.count > 0 && !batch.shown)
		err = flush_to(db, batch.built.txid, &batch.built, NULL, NULL, &why);
	if (err) {
		txn->result = err;
		txn->error = why;
	} else {
		atomic_fetch_add(&db->commits, batch.count);
	}
	*txid = txn->txid;
	if (txn->result && error != NULL)
		*error = txn->error;
	return txn->result;
}
