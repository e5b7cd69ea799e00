/*
 * Committing private transactions: a queue whose first arrival leads.
 *
 * The leader takes all that is queued and forms one group of it, while later arrivals wait for the next round, so what
 * queues during a flush shares the following one.  A transaction whose snapshot is still the newest state is adopted as it
 * is; any other is validated key by key (C1, C2) against the group's state and its log replayed there.
 */
#include "txn.h"

#include "base/ensure.h"
#include "error.h"

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

/* build held.  Every transaction of the list gets its result. */
static void queue_lead(struct bts *db, struct bts_txn *list)
{
	struct bts_error error = { 0 };
	struct bts_group group;
	enum bts_err err = group_open(&group, db, &error);

	for (struct bts_txn *txn = list; txn != NULL; txn = txn->queue_next) {
		if (err)
			txn->error = error;
		txn->result = err ? err : queue_join(&group, txn);
	}
	if (err)
		return;
	err = group_finish(&group, &error);
	for (struct bts_txn *txn = list; txn != NULL; txn = txn->queue_next) {
		if (txn->result == BTS_OK && err) {
			txn->result = err;
			txn->error = error;
		}
	}
	group_close(&group);
}

static struct bts_txn *queue_take(struct commit_queue *queue)
{
	struct bts_txn *list = queue->first;

	queue->first = NULL;
	queue->last = &queue->first;
	return list;
}

enum bts_err queue_commit(struct bts_txn *txn, bts_txid *txid, struct bts_error *error)
{
	struct bts *db = txn->db;
	struct commit_queue *queue = db->queue;
	struct bts_txn *list, *next;

	txn->queue_next = NULL;
	txn->done = false;
	pthread_mutex_lock(&queue->lock);
	*queue->last = txn;
	queue->last = &txn->queue_next;
	while (!txn->done && queue->leading)
		pthread_cond_wait(&queue->done, &queue->lock);
	if (!txn->done) {
		queue->leading = true;
		pthread_mutex_unlock(&queue->lock);
		pthread_mutex_lock(&db->build);
		pthread_mutex_lock(&queue->lock);
		list = queue_take(queue);
		pthread_mutex_unlock(&queue->lock);
		queue_lead(db, list);
		pthread_mutex_unlock(&db->build);
		pthread_mutex_lock(&queue->lock);
		for (; list != NULL; list = next) {
			next = list->queue_next;
			list->done = true; /* from here on it belongs to its thread again */
		}
		queue->leading = false;
		pthread_cond_broadcast(&queue->done);
	}
	pthread_mutex_unlock(&queue->lock);
	*txid = txn->txid;
	if (txn->result && error != NULL)
		*error = txn->error;
	return txn->result;
}
