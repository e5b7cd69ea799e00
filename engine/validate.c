/*
 * Validation and replay (C1, C2, C3): may a private transaction whose snapshot is no longer the newest state be committed on
 * that state, and its log of operations done again there.
 */
#include "txn.h"

#include "error.h"
#include "lease.h"
#include "snapshot.h"

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

/* Who came first, as far as it is known. */
static bts_txid validate_winner(struct bts_group *group, struct bts_txn *txn, bts_txid winner)
{
	if (winner == 0 || winner > group_newest(group))
		winner = group_newest(group);
	txn->winner = winner;
	atomic_fetch_add(&txn->db->conflicts, 1);
	return winner;
}

enum bts_err validate_conflict(struct bts_group *group, struct bts_txn *txn, struct bts_slice bucket,
	struct bts_slice key, bts_txid winner, const char *what)
{
	char name[80], text[80];

	winner = validate_winner(group, txn, winner);
	return error_set(&txn->error, BTS_CONFLICT, 0,
		"bucket \"%s\"%s%s: %s by transaction %" PRIu64 " after snapshot %" PRIu64,
		validate_print(bucket, name, sizeof(name)), key.size ? " key " : "",
		key.size ? validate_print(key, text, sizeof(text)) : "", what, winner, txn->own.record.txid);
}

/* Where an operation's bucket was at the snapshot, which is where the group's state has it as long as nobody moved it. */
static struct bts_slice validate_name(const struct oplog_op *op)
{
	return op->base.size > 0 ? op->base : op->bucket;
}

/* C2: a name that was free, or that txn itself has left, must not have been taken since. */
static enum bts_err validate_free(struct bts_group *group, struct bts_txn *txn, struct bts_slice name)
{
	struct bucket_state *bucket;
	enum bts_err err = state_bucket(&group->state, name, false, &bucket);

	if (err)
		return err == BTS_NOT_FOUND ? BTS_OK : err;
	if (bucket->version <= txn->own.record.txid)
		return BTS_OK;
	return validate_conflict(group, txn, name, (struct bts_slice){ 0 }, bucket->version, "created");
}

/* C2: the name must mean the tree it meant. */
static enum bts_err validate_bucket(struct bts_group *group, struct bts_txn *txn, const struct oplog_op *op,
	struct bucket_state **bucket)
{
	struct bts_slice name = validate_name(op);
	struct tree_hit hit;
	enum bts_err err = state_bucket(&group->state, name, false, bucket);

	if (err == BTS_OK && (*bucket)->tree.id == op->tree)
		return BTS_OK;
	if (err == BTS_OK)
		return validate_conflict(group, txn, name, (struct bts_slice){ 0 }, (*bucket)->version, "replaced");
	if (err != BTS_NOT_FOUND)
		return err;
	err = tree_get(&group->state.ctx, &group->state.record.catalog, name, &hit);
	if (err && err != BTS_NOT_FOUND)
		return err;
	return validate_conflict(group, txn, name, (struct bts_slice){ 0 }, hit.last_delete, "dropped or renamed");
}

/* C2 for a drop: the whole range, any change of the bucket since the snapshot. */
static enum bts_err validate_drop(struct bts_group *group, struct bts_txn *txn, const struct oplog_op *op,
	const struct bucket_state *bucket)
{
	const struct page_ptr *root = &bucket->tree.root;
	struct bts_slice name = validate_name(op);
	bts_txid winner = bucket->version;
	struct bucket_state then;
	enum bts_err err = state_bucket_at(&txn->own, name, &then);

	if (err && err != BTS_NOT_FOUND)
		return err;
	if (err == BTS_OK && bucket->version <= txn->own.record.txid && layout_ptr_equal(&then.tree.root, root))
		return BTS_OK;
	if (layout_is_dirty(root))
		winner = 0;
	else if (root->birth > winner)
		winner = root->birth;
	return validate_conflict(group, txn, name, (struct bts_slice){ 0 }, winner, "changed");
}

/* C1 with BTS_CONFLICT_STATE: whether the snapshot has the key; also where it has not this bucket under this name, as then nobody knows. */
static enum bts_err validate_was_there(
	struct bts_txn *txn, const struct oplog_op *op, const struct bucket_state *bucket, bool *was)
{
	struct bucket_state then;
	struct tree_hit hit;
	enum bts_err err = state_bucket_at(&txn->own, validate_name(op), &then);

	*was = true;
	if (err || then.tree.id != bucket->tree.id)
		return err == BTS_NOT_FOUND ? BTS_OK : err;
	err = tree_peek(&txn->own.ctx, &then.tree, op->key, &hit);
	*was = err != BTS_NOT_FOUND;
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

/* C1 */
static enum bts_err validate_key(struct bts_group *group, struct bts_txn *txn, const struct oplog_op *op,
	const struct bucket_state *bucket)
{
	bts_txid snapshot = txn->own.record.txid;
	struct tree_hit hit;
	enum bts_err err = tree_get(&group->state.ctx, &bucket->tree, op->key, &hit);

	if (err == BTS_OK && hit.cell.version > snapshot)
		return validate_conflict(group, txn, validate_name(op), op->key, hit.cell.version, "written");
	if (err != BTS_NOT_FOUND)
		return err;
	if (hit.last_delete > snapshot) {
		bool was = true;

		err = txn->flags & BTS_CONFLICT_STATE ? validate_was_there(txn, op, bucket, &was) : BTS_OK;
		if (err)
			return err;
		if (was)
			return validate_conflict(group, txn, validate_name(op), op->key, hit.last_delete, "deleted");
	}
	return BTS_OK;
}

/* C2 */
static enum bts_err validate_range(struct bts_group *group, struct bts_txn *txn, const struct oplog_op *op,
	const struct bucket_state *bucket)
{
	struct tree_range range = { op->key, op->value };
	bts_txid newest;
	enum bts_err err = tree_range_changed(&group->state.ctx, &bucket->tree, &range, txn->own.record.txid, &newest);

	if (err || newest == 0)
		return err;
	return validate_conflict(group, txn, validate_name(op), op->key, newest, "range changed");
}

/* A name of a snapshot was free or given at the transaction's snapshot, and must be so still. */
static enum bts_err validate_snapshot(struct bts_group *group, struct bts_txn *txn, const struct oplog_op *op)
{
	bts_txid snapshot = txn->own.record.txid, winner = 0;
	const char *what = NULL;
	char name[80];
	struct tree_hit hit;
	enum bts_err err = tree_get(&group->state.ctx, &group->state.record.snapshots, op->bucket, &hit);

	if (err == BTS_OK && hit.cell.version > snapshot) {
		winner = hit.cell.version;
		what = "created";
	} else if (err == BTS_NOT_FOUND && (op->kind == OPLOG_SNAPSHOT ? hit.last_delete > snapshot : op->tree != 0)) {
		winner = hit.last_delete;
		what = "deleted";
	}
	/* Found and no newer: this transaction has deleted it before. */
	if (what == NULL)
		return err == BTS_NOT_FOUND ? BTS_OK : err;
	return error_set(&txn->error, BTS_CONFLICT, 0, "snapshot \"%s\": %s by transaction %" PRIu64 " after snapshot %" PRIu64,
		validate_print(op->bucket, name, sizeof(name)), what, validate_winner(group, txn, winner), snapshot);
}

/* C1, C2 for one operation against the group's state. */
static enum bts_err validate_op(struct bts_group *group, struct bts_txn *txn, const struct oplog_op *op)
{
	struct bts_slice name = validate_name(op);
	struct bucket_state *bucket;
	enum bts_err err = BTS_OK;

	if (op->kind == OPLOG_SNAPSHOT || op->kind == OPLOG_UNSNAPSHOT)
		return validate_snapshot(group, txn, op);
	if (op->kind == OPLOG_RENAME)
		err = validate_free(group, txn, op->value);
	if (err == BTS_OK && op->tree == 0) /* made by txn */
		return validate_free(group, txn, op->bucket);
	if (err == BTS_OK)
		err = validate_bucket(group, txn, op, &bucket);
	if (err)
		return err;
	switch (op->kind) {
	case OPLOG_PUT:
	case OPLOG_DEL:
		return validate_key(group, txn, op, bucket);
	case OPLOG_DEL_RANGE:
		return validate_range(group, txn, op, bucket);
	case OPLOG_DROP:
		return validate_drop(group, txn, op, bucket);
	case OPLOG_META:
	case OPLOG_RENAME:
		if (bucket->version > txn->own.record.txid)
			return validate_conflict(group, txn, name, (struct bts_slice){ 0 }, bucket->version, "changed");
		return BTS_OK;
	case OPLOG_CREATE:
	case OPLOG_SNAPSHOT:
	case OPLOG_UNSNAPSHOT:
		return BTS_OK;
	}
	return BTS_OK;
}

enum bts_err validate_txn(struct bts_group *group, struct bts_txn *txn)
{
	struct oplog_op op;
	size_t at = 0;
	enum bts_err err;

	if ((txn->flags & BTS_CONFLICT_DATABASE) && group_newest(group) > txn->own.record.txid) {
		atomic_fetch_add(&txn->db->conflicts, 1);
		txn->winner = group_newest(group);
		return error_set(&txn->error, BTS_CONFLICT, 0,
			"database: transaction %" PRIu64 " committed after snapshot %" PRIu64, group_newest(group),
			txn->own.record.txid);
	}
	while (oplog_next(&txn->log, &at, &op)) {
		err = validate_op(group, txn, &op);
		if (err)
			return err;
	}
	return reads_validate(group, txn);
}

/* A value that is in its final place stays there: the group's state takes it over from the transaction. */
static enum bts_err validate_replay_put(
	struct state *state, struct bucket_state *bucket, const struct bts_txn *txn, const struct oplog_op *op)
{
	struct lease *lease = NULL;
	struct page_ptr made;
	enum bts_err err;

	if (op->serial != 0 && dirty_serial(txn->own.dirty, &op->made) == op->serial)
		lease = dirty_lease(txn->own.dirty, &op->made);
	if (lease == NULL)
		return tree_put(&state->ctx, &bucket->tree, op->key, op->value, state->ctx.stamp);
	err = dirty_leased(&state->ctx, op->value, lease->sums, lease, &made);
	if (err)
		return err;
	return tree_put_made(&state->ctx, &bucket->tree, op->key, &made, op->value.size, state->ctx.stamp);
}

static enum bts_err validate_replay_op(struct bts_group *group, const struct bts_txn *txn, const struct oplog_op *op)
{
	struct state *state = &group->state;
	struct tree_range range = { op->key, op->value };
	struct bucket_state *bucket;
	uint64_t count;
	enum bts_err err;

	if (op->kind == OPLOG_DROP)
		return state_bucket_drop(state, op->bucket, &bucket);
	if (op->kind == OPLOG_SNAPSHOT)
		return snapshot_create(state, op->bucket);
	if (op->kind == OPLOG_UNSNAPSHOT)
		return snapshot_delete(state, op->bucket);
	err = state_bucket(state, op->bucket, op->kind == OPLOG_CREATE, &bucket);
	if (err == BTS_OK)
		err = state_touch(state, bucket);
	if (err)
		return err;
	if (op->kind == OPLOG_PUT)
		err = validate_replay_put(state, bucket, txn, op);
	else if (op->kind == OPLOG_DEL)
		err = tree_del(&state->ctx, &bucket->tree, op->key);
	else if (op->kind == OPLOG_DEL_RANGE)
		err = tree_cut(&state->ctx, &bucket->tree, &range, &count);
	else if (op->kind == OPLOG_RENAME)
		err = state_bucket_rename(state, bucket, op->value);
	if (op->kind == OPLOG_META) {
		bucket->meta_size = (uint8_t)op->value.size;
		memcpy(bucket->meta, op->value.data, op->value.size);
		bucket->version = state->ctx.stamp;
	}
	if (err == BTS_OK)
		state_bucket_changed(state, bucket);
	return err;
}

enum bts_err validate_replay(struct bts_group *group, struct bts_txn *txn)
{
	struct oplog_op op;
	size_t at = 0;
	enum bts_err err = state_begin_nested(&group->state, group->last + 1);

	if (err)
		return err;
	while (err == BTS_OK && oplog_next(&txn->log, &at, &op)) {
		oplog_value(txn->own.dirty, &op);
		err = validate_replay_op(group, txn, &op);
	}
	if (err) {
		state_rollback_nested(&group->state);
		return err;
	}
	state_keep_nested(&group->state);
	return BTS_OK;
}
