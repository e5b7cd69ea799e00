/*
 * Going back: levels of a state, which are the transactions of a group and, within a transaction,
 * savepoints.
 *
 * Private pages go back by themselves (dirty.h). What remains is small: the record's trees and counters,
 * copied when a level begins, and the buckets opened, each saved by state_touch before its first change in
 * a level.
 */
#include "ops.h"

#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"

static void *savepoint_memory(struct state *state, void *old, size_t size)
{
	return state->db->env->ops->memory(state->db->env, old, size);
}

/* Room for one more in a vector that doubles. */
static enum bts_err savepoint_grow(struct state *state, void **items, size_t *cap, size_t count, size_t size)
{
	size_t want = *cap == 0 ? 8 : *cap * 2;
	void *fresh;

	if (count < *cap)
		return BTS_OK;
	fresh = savepoint_memory(state, *items, want * size);
	if (fresh == NULL)
		return error_set(state->ctx.error, BTS_MEMORY, 0, "no memory for a transaction");
	*items = fresh;
	*cap = want;
	return BTS_OK;
}

static uint32_t savepoint_level(const struct state *state)
{
	return state->mark_count > 0 ? state->marks[state->mark_count - 1].level : 0;
}

enum bts_err state_touch(struct state *state, struct bucket_state *bucket)
{
	uint32_t level = savepoint_level(state);
	enum bts_err err;

	if (level == 0 || bucket->saved_by == level)
		return BTS_OK;
	err = savepoint_grow(
		state, (void **)&state->undo, &state->undo_cap, state->undo_count, sizeof(*state->undo));
	if (err)
		return err;
	state->undo[state->undo_count++] = (struct bucket_undo){bucket, *bucket};
	bucket->saved_by = level;
	return BTS_OK;
}

enum bts_err state_begin_nested(struct state *state, bts_txid stamp)
{
	enum bts_err err;

	if (state->levels == UINT32_MAX)
		return error_set(state->ctx.error, BTS_LIMIT, 0, "no more savepoints");
	err = savepoint_grow(
		state, (void **)&state->marks, &state->mark_cap, state->mark_count, sizeof(*state->marks));
	if (err)
		return err;
	err = dirty_begin(state->dirty);
	if (err)
		return error_set(state->ctx.error, err, 0, "no memory for a transaction");
	state->ctx.stamp = stamp;
	state->marks[state->mark_count++] = (struct state_mark){
		.level = ++state->levels,
		.catalog = state->record.catalog,
		.history = state->record.history,
		.snapshots = state->record.snapshots,
		.next_tree = state->record.next_tree,
		.buckets = state->record.buckets,
		.bucket_count = state->bucket_count,
		.undo_count = state->undo_count,
		.changed = state->changed,
	};
	return BTS_OK;
}

/* What the level saved is the outer level's, unless that has saved the bucket itself. */
void state_keep_nested(struct state *state)
{
	struct state_mark mark;
	uint32_t outer;
	size_t left;

	ENSURE(state->mark_count > 0);
	mark = state->marks[--state->mark_count];
	outer = savepoint_level(state);
	left = mark.undo_count;
	for (size_t i = left; i < state->undo_count; i++) {
		struct bucket_undo *undo = &state->undo[i];

		undo->bucket->saved_by = outer;
		if (outer != 0 && undo->before.saved_by != outer)
			state->undo[left++] = *undo;
	}
	state->undo_count = left;
	dirty_keep(state->dirty);
}

void state_rollback_nested(struct state *state)
{
	struct state_mark mark;

	ENSURE(state->mark_count > 0);
	mark = state->marks[--state->mark_count];
	dirty_rollback(state->dirty);
	while (state->undo_count > mark.undo_count) {
		struct bucket_undo *undo = &state->undo[--state->undo_count];

		*undo->bucket = undo->before;
	}
	for (size_t i = 0; i < state->bucket_count; i++) {
		struct bucket_state *bucket = state->buckets[i];

		bucket->unsettled = bucket->changed; /* the catalog is the former one again */
		if (i < mark.bucket_count || !bucket->created)
			continue;
		bucket->tree = (struct tree){.id = bucket->tree.id};
		bucket->dropped = true;
		bucket->changed = bucket->unsettled = false;
	}
	state->record.catalog = mark.catalog;
	state->record.history = mark.history;
	state->record.snapshots = mark.snapshots;
	state->record.next_tree = mark.next_tree;
	state->record.buckets = mark.buckets;
	state->changed = mark.changed;
	state->index_stale = true;
	state->ctx.changes++;
}

/* Savepoints of a transaction lie behind the mark of the transaction itself, when it is a group's. */
static size_t savepoint_first(const struct bts_txn *txn)
{
	return txn->group != NULL ? 1 : 0;
}

void savepoint_end(struct bts_txn *txn)
{
	while (txn->state->mark_count > savepoint_first(txn))
		state_keep_nested(txn->state);
}

static enum bts_err savepoint_fail(struct bts_txn *txn, struct bts_error *error)
{
	if (error != NULL)
		*error = txn->error;
	return txn->error.code;
}

static enum bts_err savepoint_find(struct bts_txn *txn, uint32_t id, size_t *at, struct bts_error *error)
{
	for (size_t i = txn->state->mark_count; i > savepoint_first(txn); i--) {
		if (txn->state->marks[i - 1].level == id) {
			*at = i - 1;
			return BTS_OK;
		}
	}
	error_set(&txn->error, BTS_INVALID, 0, "no savepoint %u in this transaction", id);
	return savepoint_fail(txn, error);
}

enum bts_err bts_savepoint(struct bts_txn *txn, uint32_t *id, struct bts_error *error)
{
	struct state *state = txn->state;
	struct state_mark *mark;
	enum bts_err err = BTS_OK;

	if (!txn->writing)
		err = error_set(&txn->error, BTS_INVALID, 0, "a savepoint in a read transaction");
	if (err == BTS_OK)
		err = ops_check_write(txn);
	if (err == BTS_OK)
		err = state_begin_nested(state, state->ctx.stamp);
	if (err)
		return savepoint_fail(txn, error);
	mark = &state->marks[state->mark_count - 1];
	mark->log_size = txn->log.size;
	mark->txn_changed = txn->changed;
	*id = mark->level;
	return BTS_OK;
}

enum bts_err bts_savepoint_release(struct bts_txn *txn, uint32_t id, struct bts_error *error)
{
	size_t at = 0;
	enum bts_err err = savepoint_find(txn, id, &at, error);

	while (err == BTS_OK && txn->state->mark_count > at)
		state_keep_nested(txn->state);
	return err;
}

/* Ends the level and begins it again under its number: there is room for it. */
enum bts_err bts_savepoint_rollback(struct bts_txn *txn, uint32_t id, struct bts_error *error)
{
	struct state *state = txn->state;
	struct state_mark mark, *fresh;
	size_t at = 0;
	enum bts_err err = savepoint_find(txn, id, &at, error);

	if (err)
		return err;
	load_drop(txn);
	mark = state->marks[at];
	while (state->mark_count > at)
		state_rollback_nested(state);
	state->levels--; /* the number below is not new */
	err = state_begin_nested(state, state->ctx.stamp);
	ENSURE(err == BTS_OK);
	fresh = &state->marks[at];
	fresh->level = mark.level;
	fresh->log_size = mark.log_size;
	if (!SABOTAGE(FAULT_SAVEPOINT_LOG))
		txn->log.size = mark.log_size;
	fresh->txn_changed = txn->changed = mark.txn_changed;
	return BTS_OK;
}
