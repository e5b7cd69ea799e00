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

#include <inttypes.h>
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

/* Printable form of a key or name for an error text. */
static const char *queue_print(struct bts_slice bytes, char *out, size_t cap)
{
	const uint8_t *p = bytes.data;
	size_t at = 0;

	for (size_t i = 0; i < bytes.size && at + 8 < cap; i++) {
		if (p[i] > 0x20 && p[i] < 0x7f && p[i] != '\\')
			out[at++] = (char)p[i];
		else
			at += (size_t)snprintf(out + at, cap - at, "\\x%02x", p[i]);
	}
	if (bytes.size > at)
		memcpy(out + at, "..", 2), at += 2;
	out[at] = '\0';
	return out;
}

static enum bts_err queue_conflict(struct bts_txn *txn, const struct oplog_op *op, bts_txid winner, const char *what)
{
	char name[80], key[80];

	atomic_fetch_add(&txn->db->conflicts, 1);
	return error_set(&txn->error, BTS_CONFLICT, 0,
		"bucket \"%s\"%s%s: %s by transaction %" PRIu64 " after snapshot %" PRIu64,
		queue_print(op->bucket, name, sizeof(name)), op->key.size ? " key " : "",
		op->key.size ? queue_print(op->key, key, sizeof(key)) : "", what, winner, txn->own.record.txid);
}

/* C1, C2 for one operation against the group's state. */
static enum bts_err queue_validate_op(struct bts_group *group, struct bts_txn *txn, const struct oplog_op *op)
{
	bts_txid snapshot = txn->own.record.txid;
	struct bucket_state *bucket;
	struct tree_hit hit;
	enum bts_err err;

	err = state_bucket(&group->state, op->bucket, false, &bucket);
	if (err && err != BTS_NOT_FOUND)
		return err;
	if (op->tree == 0) { /* made by txn: at its snapshot the name was free, or dropped by txn itself */
		if (err == BTS_OK && bucket->version > snapshot)
			return queue_conflict(txn, op, bucket->version, "created");
		return BTS_OK;
	}
	if (err == BTS_NOT_FOUND || bucket->tree.id != op->tree)
		return queue_conflict(txn, op, group->last, "dropped");
	if (op->kind == OPLOG_META && bucket->version > snapshot)
		return queue_conflict(txn, op, bucket->version, "changed");
	if (op->kind == OPLOG_DROP) { /* the whole range: any change of the bucket since the snapshot */
		struct bucket_state then;

		err = state_bucket_at(&txn->own, op->bucket, &then);
		if (err && err != BTS_NOT_FOUND)
			return err;
		if (err == BTS_NOT_FOUND || bucket->version > snapshot ||
			!layout_ptr_equal(&then.tree.root, &bucket->tree.root))
			return queue_conflict(txn, op, group->last, "changed");
		return BTS_OK;
	}
	if (op->kind != OPLOG_PUT && op->kind != OPLOG_DEL)
		return BTS_OK;
	err = tree_get(&group->state.ctx, &bucket->tree, op->key, &hit);
	if (err == BTS_OK && hit.cell.version > snapshot)
		return queue_conflict(txn, op, hit.cell.version, "written");
	if (err == BTS_NOT_FOUND && hit.last_delete > snapshot)
		return queue_conflict(txn, op, hit.last_delete, "deleted");
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err queue_validate(struct bts_group *group, struct bts_txn *txn)
{
	struct oplog_op op;
	size_t at = 0;
	enum bts_err err;

	if ((txn->flags & BTS_CONFLICT_DATABASE) && group_newest(group) > txn->own.record.txid) {
		atomic_fetch_add(&txn->db->conflicts, 1);
		return error_set(&txn->error, BTS_CONFLICT, 0,
			"database: transaction %" PRIu64 " committed after snapshot %" PRIu64, group_newest(group),
			txn->own.record.txid);
	}
	while (oplog_next(&txn->log, &at, &op)) {
		err = queue_validate_op(group, txn, &op);
		if (err)
			return err;
	}
	return BTS_OK;
}

static enum bts_err queue_replay_op(struct bts_group *group, const struct oplog_op *op)
{
	struct state *state = &group->state;
	struct bucket_state *bucket;
	enum bts_err err;

	if (op->kind == OPLOG_DROP)
		return state_bucket_drop(state, op->bucket, &bucket);
	err = state_bucket(state, op->bucket, op->kind == OPLOG_CREATE, &bucket);
	if (err == BTS_OK)
		err = state_touch(state, bucket);
	if (err)
		return err;
	if (op->kind == OPLOG_PUT)
		err = tree_put(&state->ctx, &bucket->tree, op->key, op->value, state->ctx.stamp);
	else if (op->kind == OPLOG_DEL)
		err = tree_del(&state->ctx, &bucket->tree, op->key);
	if (op->kind == OPLOG_META) {
		bucket->meta_size = (uint8_t)op->value.size;
		memcpy(bucket->meta, op->value.data, op->value.size);
		bucket->version = state->ctx.stamp;
	}
	if (err == BTS_OK)
		bucket->changed = state->changed = true;
	return err;
}

static enum bts_err queue_replay(struct bts_group *group, struct bts_txn *txn)
{
	struct oplog_op op;
	size_t at = 0;
	enum bts_err err = state_begin_nested(&group->state, group->last + 1);

	while (err == BTS_OK && oplog_next(&txn->log, &at, &op))
		err = queue_replay_op(group, &op);
	if (err) {
		state_rollback_nested(&group->state);
		return err;
	}
	state_keep_nested(&group->state);
	return BTS_OK;
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
		err = queue_validate(group, txn);
		if (err == BTS_OK)
			err = queue_replay(group, txn);
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
