/*
 * Validation and replay (C1, C2): may a private transaction whose snapshot is no longer the newest state be committed on
 * that state, and its log of operations done again there.
 */
#include "txn.h"

#include "error.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Printable form of a key or name for an error text. */
static const char *validate_print(struct bts_slice bytes, char *out, size_t cap)
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

static enum bts_err validate_conflict(struct bts_txn *txn, const struct oplog_op *op, bts_txid winner, const char *what)
{
	char name[80], key[80];

	atomic_fetch_add(&txn->db->conflicts, 1);
	return error_set(&txn->error, BTS_CONFLICT, 0,
		"bucket \"%s\"%s%s: %s by transaction %" PRIu64 " after snapshot %" PRIu64,
		validate_print(op->bucket, name, sizeof(name)), op->key.size ? " key " : "",
		op->key.size ? validate_print(op->key, key, sizeof(key)) : "", what, winner, txn->own.record.txid);
}

/* C1, C2 for one operation against the group's state. */
static enum bts_err validate_op(struct bts_group *group, struct bts_txn *txn, const struct oplog_op *op)
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
			return validate_conflict(txn, op, bucket->version, "created");
		return BTS_OK;
	}
	if (err == BTS_NOT_FOUND || bucket->tree.id != op->tree)
		return validate_conflict(txn, op, group->last, "dropped");
	if (op->kind == OPLOG_META && bucket->version > snapshot)
		return validate_conflict(txn, op, bucket->version, "changed");
	if (op->kind == OPLOG_DROP) { /* the whole range: any change of the bucket since the snapshot */
		struct bucket_state then;

		err = state_bucket_at(&txn->own, op->bucket, &then);
		if (err && err != BTS_NOT_FOUND)
			return err;
		if (err == BTS_NOT_FOUND || bucket->version > snapshot ||
			!layout_ptr_equal(&then.tree.root, &bucket->tree.root))
			return validate_conflict(txn, op, group->last, "changed");
		return BTS_OK;
	}
	if (op->kind != OPLOG_PUT && op->kind != OPLOG_DEL)
		return BTS_OK;
	err = tree_get(&group->state.ctx, &bucket->tree, op->key, &hit);
	if (err == BTS_OK && hit.cell.version > snapshot)
		return validate_conflict(txn, op, hit.cell.version, "written");
	if (err == BTS_NOT_FOUND && hit.last_delete > snapshot)
		return validate_conflict(txn, op, hit.last_delete, "deleted");
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

enum bts_err validate_txn(struct bts_group *group, struct bts_txn *txn)
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
		err = validate_op(group, txn, &op);
		if (err)
			return err;
	}
	return BTS_OK;
}

static enum bts_err validate_replay_op(struct bts_group *group, const struct oplog_op *op)
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

enum bts_err validate_replay(struct bts_group *group, struct bts_txn *txn)
{
	struct oplog_op op;
	size_t at = 0;
	enum bts_err err = state_begin_nested(&group->state, group->last + 1);

	while (err == BTS_OK && oplog_next(&txn->log, &at, &op))
		err = validate_replay_op(group, &op);
	if (err) {
		state_rollback_nested(&group->state);
		return err;
	}
	state_keep_nested(&group->state);
	return BTS_OK;
}
