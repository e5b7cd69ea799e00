/*
 * Named snapshots in transactions: made, deleted, listed, read.
 *
 * Creating one enters a name with an empty record, so that conflicts, rollbacks and replays are those of any
 * other key; what it names is the state of the whole batch, known only at the seal, which completes the
 * record (snapshot_settle).
 */
#include "snapshot.h"

#include "base/ensure.h"
#include "error.h"
#include "ops.h"

#include <string.h>

static enum bts_err snapshot_put(
	struct state *state, struct bts_slice name, const struct snapshot *snapshot, bts_txid version)
{
	uint8_t bytes[SNAPSHOT_RECORD_MAX];
	struct bts_slice value = {bytes, snapshot_encode(snapshot, bytes)};
	enum bts_err err;

	state->ctx.aside = true;
	err = tree_put(&state->ctx, &state->record.snapshots, name, value, version);
	state->ctx.aside = false;
	return err;
}

enum bts_err snapshot_create(struct state *state, struct bts_slice name)
{
	struct snapshot built = {.high_water = state->record.first, .catalog = {.id = LAYOUT_TREE_CATALOG}};
	struct tree_hit hit;
	enum bts_err err = tree_get(&state->ctx, &state->record.snapshots, name, &hit);

	if (err == BTS_OK)
		return error_set(state->ctx.error, BTS_EXISTS, 0, "a snapshot has this name already");
	if (err != BTS_NOT_FOUND)
		return err;
	if (state->record.snapshots.entries >= BTS_SNAPSHOTS_MAX)
		return error_set(state->ctx.error, BTS_LIMIT, 0,
			"there are %d named snapshots, no more are possible", BTS_SNAPSHOTS_MAX);
	err = snapshot_put(state, name, &built, state->ctx.stamp);
	if (err == BTS_OK)
		state->changed = true;
	return err;
}

enum bts_err snapshot_delete(struct state *state, struct bts_slice name)
{
	enum bts_err err;

	state->ctx.aside = true;
	err = tree_del(&state->ctx, &state->record.snapshots, name);
	state->ctx.aside = false;
	if (err == BTS_NOT_FOUND)
		return error_set(state->ctx.error, err, 0, "no snapshot has this name");
	if (err == BTS_OK)
		state->changed = true;
	return err;
}

enum bts_err snapshot_settle(struct state *state, const struct snapshot *built)
{
	struct tree *tree = &state->record.snapshots;
	struct page_ptr before = tree->root;
	struct tree_cursor cursor;
	struct snapshot snapshot;
	struct node_cell cell;
	const char *wrong;
	enum bts_err err;

	if (!layout_is_dirty(&tree->root) || tree->entries == 0)
		return BTS_OK;
	tree_cursor_init(&cursor, &state->ctx, tree);
	for (err = tree_cursor_first(&cursor, &cell); !err; err = tree_cursor_next(&cursor, &cell)) {
		wrong = snapshot_decode(&cell, &state->record, true, &snapshot);
		if (wrong)
			return error_set(state->ctx.error, BTS_CORRUPT, 0, "snapshots: %s", wrong);
		if (snapshot.txid == 0)
			err = snapshot_put(state, cell.key, built, cell.version);
		if (err)
			return err;
	}
	ENSURE(built->txid == 0 || layout_ptr_equal(&before, &tree->root));
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err snapshot_name(struct bts_slice name, struct bts_error *error)
{
	if (name.size >= 1 && name.size <= BTS_SNAPSHOT_NAME_MAX)
		return BTS_OK;
	return error_set(error, BTS_INVALID, 0, "snapshot name of %zu bytes (1 to %d are allowed)", name.size,
		BTS_SNAPSHOT_NAME_MAX);
}

/* tree of the logged operation: 0 when what it deletes is this transaction's own. */
static enum bts_err snapshot_seen(struct bts_txn *txn, struct oplog_op *op)
{
	struct state *state = txn->state;
	struct snapshot snapshot;
	struct tree_hit hit;
	const char *wrong;
	enum bts_err err;

	if (op->kind == OPLOG_SNAPSHOT)
		return BTS_OK;
	err = tree_get(&state->ctx, &state->record.snapshots, op->bucket, &hit);
	if (err == BTS_NOT_FOUND)
		return error_set(&txn->error, err, 0, "no snapshot has this name");
	if (err)
		return err;
	wrong = snapshot_decode(&hit.cell, &state->record, true, &snapshot);
	if (wrong)
		return error_set(&txn->error, BTS_CORRUPT, 0, "snapshots: %s", wrong);
	op->tree = snapshot.txid != 0;
	return BTS_OK;
}

static enum bts_err snapshot_write(
	struct bts_txn *txn, enum oplog_kind kind, struct bts_slice name, struct bts_error *error)
{
	struct oplog_op op = {.kind = kind, .bucket = name};
	size_t from = txn->log.size;
	enum bts_err err = ops_check_write(txn);

	if (err == BTS_OK)
		err = snapshot_name(name, &txn->error);
	if (err == BTS_OK)
		err = snapshot_seen(txn, &op);
	if (err == BTS_OK)
		err = ops_log_op(txn, &op);
	if (err == BTS_OK)
		err = kind == OPLOG_SNAPSHOT ? snapshot_create(txn->state, name)
					     : snapshot_delete(txn->state, name);
	if (err == BTS_OK) {
		txn->changed = true;
		return BTS_OK;
	}
	txn->log.size = from;
	if (error != NULL)
		*error = txn->error;
	return err;
}

enum bts_err bts_snapshot_create(struct bts_txn *txn, struct bts_slice name, struct bts_error *error)
{
	return snapshot_write(txn, OPLOG_SNAPSHOT, name, error);
}

enum bts_err bts_snapshot_delete(struct bts_txn *txn, struct bts_slice name, struct bts_error *error)
{
	return snapshot_write(txn, OPLOG_UNSNAPSHOT, name, error);
}

enum bts_err bts_snapshot_next(struct bts_txn *txn, struct bts_slice after, struct bts_snapshot_info *info)
{
	struct state *state = txn->state;
	struct tree_cursor cursor;
	struct snapshot snapshot;
	struct node_cell cell;
	const char *wrong;
	enum bts_err err = txn_live(txn);

	if (err)
		return err;
	if (after.size > BTS_SNAPSHOT_NAME_MAX)
		return snapshot_name(after, &txn->error);
	tree_cursor_init(&cursor, &state->ctx, &state->record.snapshots);
	err = after.size == 0 ? tree_cursor_first(&cursor, &cell) : tree_cursor_seek(&cursor, after, &cell);
	if (err == BTS_OK && after.size != 0 && cell.key.size == after.size &&
		memcmp(cell.key.data, after.data, after.size) == 0)
		err = tree_cursor_next(&cursor, &cell);
	if (err == BTS_NOT_FOUND)
		return error_set(&txn->error, err, 0, "no further snapshot");
	if (err)
		return err;
	wrong = snapshot_decode(&cell, &state->record, txn->writing, &snapshot);
	if (wrong)
		return error_set(&txn->error, BTS_CORRUPT, 0, "snapshots: %s", wrong);
	*info = (struct bts_snapshot_info){
		.name = cell.key,
		.txid = snapshot.txid,
		.time_ms = snapshot.time_ms,
		.buckets = snapshot.buckets,
	};
	return BTS_OK;
}

/* The transaction, registered at the head that lists the snapshot, reads the snapshot from here on. */
static void snapshot_enter(struct state *state, const struct snapshot *snapshot)
{
	struct commit_record *record = &state->record;

	record->txid = snapshot->txid;
	record->time_ms = snapshot->time_ms;
	record->buckets = snapshot->buckets;
	record->catalog = snapshot->catalog;
	record->snapshots = (struct tree){.id = LAYOUT_TREE_SNAPSHOTS};
	if (record->high_water > snapshot->high_water)
		record->high_water = snapshot->high_water;
	state_again(state);
}

enum bts_err bts_begin_at(
	struct bts *db, struct bts_slice name, struct bts_txn **out, struct bts_error *error)
{
	struct snapshot snapshot;
	struct bts_txn *txn;
	struct tree_hit hit;
	const char *wrong;
	enum bts_err err = snapshot_name(name, error);

	if (err)
		return err;
	/*
	 * G1: the head that lists it is held from here on, so a deletion from now on frees its pages above
	 * that, while their births are at or below the snapshot: pending until this reader has gone.
	 */
	err = bts_begin(db, BTS_READ, &txn, error);
	if (err)
		return err;
	err = tree_get(&txn->state->ctx, &txn->state->record.snapshots, name, &hit);
	if (err == BTS_NOT_FOUND) {
		error_set(&txn->error, err, 0, "no snapshot has this name");
	} else if (err == BTS_OK) {
		wrong = snapshot_decode(&hit.cell, &txn->state->record, false, &snapshot);
		if (wrong)
			err = error_set(&txn->error, BTS_CORRUPT, 0, "snapshots: %s", wrong);
	}
	if (err) {
		if (error != NULL)
			*error = txn->error;
		bts_abort(txn);
		return err;
	}
	snapshot_enter(txn->state, &snapshot);
	shared_reader_spoil(&txn->reader);
	*out = txn;
	return BTS_OK;
}
