/*
 * Committing private transactions: a queue whose first arrival leads.
 *
 * The leader takes all that is queued and forms one batch of it, and takes what comes meanwhile, until there is no more: the
 * later a batch closes the more share its flush.  For the same reason the next batch is led, by whoever is first in the
 * queue then, when this one is durable and its members have been told, who may well come again at once; a batch built during
 * the flush would close without them.  Only who has much to write goes on building meanwhile: QUEUE_LARGE.
 *
 * Each member sleeps on a word of its own and is woken once: to lead, or when all is done.  Nothing is locked on the way out.
 *
 * A transaction whose snapshot is still the newest state is adopted as it is; any other is validated key by key (C1, C2)
 * against the group's state and its log replayed there.
 */
#include "txn.h"

#include "base/ensure.h"
#include "base/fault.h"
#include "async.h"
#include "deadline.h"
#include "error.h"
#include "flush.h"

#include <limits.h>
#include <string.h>

#define QUEUE_LARGE ((size_t)256 << 10) /* of private pages: building them takes as long as a flush */

struct commit_queue {
	pthread_mutex_t lock; /* for a few instructions */
	struct bts_txn *first, **last;
	bool leading; /* somebody does, or has been told to */
};

enum bts_err queue_new(struct bts *db)
{
	struct commit_queue *queue = db->env->ops->memory(db->env, NULL, sizeof(*queue));

	if (queue == NULL)
		return BTS_MEMORY;
	memset(queue, 0, sizeof(*queue));
	pthread_mutex_init(&queue->lock, NULL);
	queue->last = &queue->first;
	db->queue = queue;
	return BTS_OK;
}

void queue_free(struct bts *db)
{
	if (db->queue == NULL)
		return;
	pthread_mutex_destroy(&db->queue->lock);
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
	group->state.ctx.way = NULL; /* which the transaction takes with it */
	txn->own.buckets = NULL;
	txn->own.index = NULL;
	txn->own.marks = NULL;
	txn->own.undo = NULL;
	txn->own.dirty = NULL;
	txn->own.bucket_count = 0;
	return true;
}

/*
 * The file was fenced since the transaction began, and has been promoted again: what it read may have been taken back, and no
 * version of a key would tell.
 */
static enum bts_err queue_fenced(struct bts_txn *txn)
{
	return error_set(&txn->error, BTS_FENCED, 0, "%s was fenced after this transaction began", txn->db->path);
}

static enum bts_err queue_join(struct bts_group *group, struct bts_txn *txn)
{
	enum bts_err err;

	if (txn->fences != shared_fences(group->db->shared))
		return queue_fenced(txn);
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

/* What a batch still needs when the build lock has been left. */
struct queue_batch {
	struct bts *db;
	struct bts_txn *list;
	uint64_t count; /* transactions built */
	bool shown;	/* readers see it already, nobody waits for its flush */
	bool handed_on; /* somebody else leads the next one already */
	struct commit_built built;
};

/* Nothing was built. */
static void queue_refuse(struct queue_batch *batch, enum bts_err err, const struct bts_error *error)
{
	for (struct bts_txn *txn = batch->list; txn != NULL; txn = txn->queue_next) {
		txn->result = err;
		txn->error = *error;
	}
}

static bool queue_all_async(const struct bts_txn *list)
{
	while (list != NULL && list->flags & BTS_ASYNC)
		list = list->queue_next;
	return list == NULL;
}

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

static struct bts_txn *queue_take(struct commit_queue *queue)
{
	struct bts_txn *list;

	pthread_mutex_lock(&queue->lock);
	list = queue->first;
	queue->first = NULL;
	queue->last = &queue->first;
	pthread_mutex_unlock(&queue->lock);
	return list;
}

/* The list, and what comes into the queue (NULL: alone) meanwhile: each thread once, so there is an end. */
static void queue_gather(struct bts_group *group, struct queue_batch *batch, struct commit_queue *queue)
{
	struct bts_txn **end = &batch->list;

	do {
		for (; *end != NULL; end = &(*end)->queue_next)
			(*end)->result = queue_join(group, *end);
		if (queue != NULL)
			*end = queue_take(queue);
	} while (*end != NULL);
}

/* build held.  Every transaction of the batch gets its result, as far as it is known before the flush. */
static void queue_build(struct bts *db, struct queue_batch *batch, struct commit_queue *queue)
{
	struct bts_error error = {0};
	bts_txid base = db->tip.txid;
	struct bts_group group;
	enum bts_err err = group_open(&group, db, &error);

	batch->count = 0;
	batch->shown = false;
	if (err) {
		queue_refuse(batch, err, &error);
		return;
	}
	queue_gather(&group, batch, queue);
	batch->count = group.count;
	if (group.count > 0)
		err = group_build(&group, &batch->built, &error);
	if (err) {
		batch->count = 0;
		queue_fail(batch->list, base, err, &error);
	} else if (batch->count > 0 &&
		   (base == shared_head_txid(db->shared) || SABOTAGE(FAULT_I8_SHOW_WAITING)) &&
		   queue_all_async(batch->list) && !queue_sealed(db)) {
		/* Shown before it is durable, unless that would show somebody's who waits for his flush (I8). */
		batch->shown = async_shown(db, batch->built.pages) && flush_show(db, &error) == BTS_OK;
	}
	group_close(&group);
}

static void queue_tell(struct bts *db, struct bts_txn *txn, enum queue_place place)
{
	atomic_store(&txn->place,
		place); /* done: from here on it belongs to its thread again, only its address is used */
	db->env->ops->wake(db->env, (const uint32_t *)&txn->place);
}

static void queue_hand_on(struct bts *db)
{
	struct commit_queue *queue = db->queue;
	struct bts_txn *heir;

	pthread_mutex_lock(&queue->lock);
	heir = queue->first;
	queue->leading = heir != NULL;
	pthread_mutex_unlock(&queue->lock);
	if (heir != NULL) /* it stays where it is until it takes the queue itself */
		queue_tell(db, heir, QUEUE_LEADS);
}

/* The flush is about to begin. */
static void queue_begun(void *arg)
{
	struct queue_batch *batch = arg;
	struct commit_queue *queue = batch->db->queue;

	pthread_mutex_lock(&queue->lock);
	for (struct bts_txn *txn = queue->first; txn != NULL && !batch->handed_on; txn = txn->queue_next)
		batch->handed_on = dirty_bytes(txn->own.dirty) >= QUEUE_LARGE;
	pthread_mutex_unlock(&queue->lock);
	if (batch->handed_on)
		queue_hand_on(batch->db);
}

/* Takes what is queued when it gets the build lock: the caller's transaction is the first. */
static void queue_lead(struct bts *db, struct queue_batch *batch)
{
	struct bts_error error = {0};
	enum bts_err err = db_build_enter(db, &error);

	*batch = (struct queue_batch){.db = db, .list = queue_take(db->queue)};
	if (err) {
		queue_refuse(batch, err, &error);
		return;
	}
	queue_build(db, batch, db->queue);
	db_build_leave(db);
	if (batch->count == 0)
		return;
	if (batch->shown)
		err = deadline_shown(db, batch->built.term, batch->built.txid, &error);
	else
		err = flush_to(db, batch->built.txid, &batch->built, queue_begun, batch, &error);
	if (err)
		queue_fail(batch->list, batch->built.base, err, &error);
	else
		atomic_fetch_add(&db->commits, batch->count);
}

/* Everybody is told before somebody is told to lead: they may be back when he gets the build lock. */
static void queue_part(struct bts *db, struct queue_batch *batch, const struct bts_txn *own)
{
	struct bts_txn *next;

	for (struct bts_txn *txn = batch->list; txn != NULL; txn = next) {
		next = txn->queue_next;
		if (txn != own)
			queue_tell(db, txn, QUEUE_DONE);
	}
	if (!batch->handed_on)
		queue_hand_on(db);
}

/* True: the caller is to lead. */
static bool queue_enter(struct commit_queue *queue, struct bts_txn *txn)
{
	bool leads;

	txn->queue_next = NULL;
	atomic_store(&txn->place, QUEUE_WAITING);
	pthread_mutex_lock(&queue->lock);
	*queue->last = txn;
	queue->last = &txn->queue_next;
	leads = !queue->leading;
	queue->leading = true;
	pthread_mutex_unlock(&queue->lock);
	return leads;
}

enum bts_err queue_commit(struct bts_txn *txn, bts_txid *txid, struct bts_error *error)
{
	struct bts *db = txn->db;
	struct queue_batch batch;

	if (shared_foreign(
		    db->shared)) /* a child of fork: the lock may be held by a thread that is not there */
		return db_may_write(db, error);
	if (queue_enter(db->queue, txn))
		atomic_store(&txn->place, QUEUE_LEADS);
	while (atomic_load(&txn->place) == QUEUE_WAITING)
		db->env->ops->wait(db->env, (const uint32_t *)&txn->place, QUEUE_WAITING, UINT_MAX);
	if (atomic_load(&txn->place) == QUEUE_LEADS) {
		queue_lead(db, &batch);
		queue_part(db, &batch, txn);
	}
	*txid = txn->txid;
	if (txn->result && error != NULL)
		*error = txn->error;
	return txn->result;
}

enum bts_err queue_commit_exclusive(struct bts_txn *txn, bts_txid *txid, struct bts_error *error)
{
	struct bts *db = txn->db;
	struct queue_batch batch = {.list = txn};
	struct bts_error why = {0};
	enum bts_err err = BTS_OK;

	txn->queue_next = NULL;
	queue_build(db, &batch, NULL);
	txn->exclusive = false;
	db_build_leave(db);
	if (batch.shown)
		err = deadline_shown(db, batch.built.term, batch.built.txid, &why);
	else if (batch.count > 0)
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
