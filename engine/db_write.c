/* What a process does before it may write its first page: the opening commit (I4), a new epoch for a copied file (R3), the allocator (G5). */
#include "db.h"

#include "base/fault.h"
#include "deadline.h"
#include "error.h"
#include "flush.h"
#include "recover.h"
#include "redirect.h"

#include <inttypes.h>
#include <string.h>

/* R3: a file that is not where its slot was written is a copy; writing it under the same epoch would make two histories of one name. */
static enum bts_err db_new_epoch(struct bts *db, struct recover_state *state, const struct bts_file_identity *id,
	struct bts_error *error)
{
	struct meta_slot *slot = &state->slot;
	struct recover_epoch epoch = {
		.number = (slot->promised > slot->record.epoch ? slot->promised : slot->record.epoch) + 1,
		.inode = id->inode, .birth_ns = id->birth_ns };
	int os = db->env->ops->random(db->env, &epoch.random, sizeof(epoch.random));

	if (os)
		return error_os(error, os, "no random numbers for a new epoch");
	return recover_new_epoch(db->env, db->file, state, &epoch, error);
}

static enum bts_err db_opening(struct bts *db, struct bts_error *error)
{
	struct bts_file_identity id;
	struct recover_state *state;
	bool unclean, fell_back, copied;
	bts_txid highest;
	enum bts_err err = BTS_OK;
	int os = db->env->ops->file_identity(db->file, &id);

	if (os)
		return error_os(error, os, "cannot stat %s", db->path);
	shared_unclean(db->shared, &unclean, &fell_back, &highest);
	copied = db->slot.inode != id.inode || db->slot.birth_ns != id.birth_ns;
	if (!unclean && !copied)
		return BTS_OK;
	state = db->env->ops->memory(db->env, NULL, sizeof(*state));
	if (state == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory to open %s", db->path);
	memset(state, 0, sizeof(*state));
	state->slot = db->slot;
	state->index = db->slot_index;
	if (!db->follower) { /* the flush lock is held, and the tip is D */
		struct shared_durable durable;

		shared_durable(db->shared, &state->slot.record, &durable);
		state->slot.sequence = durable.sequence;
		state->index = durable.index;
	}
	state->sequence = state->slot.sequence;
	state->highest = highest > state->slot.record.txid ? highest : state->slot.record.txid;
	if (db->follower) {
		state->slot.inode = id.inode;
		state->slot.birth_ns = id.birth_ns;
		err = recover_envelope(db->env, db->file, state, META_TWO_FLUSH, error);
	} else if (copied) {
		err = db_new_epoch(db, state, &id, error);
	} else {
		err = recover_opening_commit(db->env, db->file, state, error);
	}
	if (err == BTS_OK) {
		db->slot = state->slot;
		db->slot_index = state->index;
		shared_assign(db->shared, db->slot.record.txid);
		shared_set_slot(db->shared, db->slot_index, db->slot.sequence);
		shared_publish(db->shared, &db->slot.record);
		shared_clear_unclean(db->shared);
	}
	db->env->ops->memory(db->env, state, 0);
	return err;
}

/* The free set that a record describes, as a space of its own. */
enum bts_err db_load_space(struct bts *db, struct redirect *table, const struct commit_record *record, struct space *space,
	struct bts_error *error)
{
	struct bts_error why = { 0 };
	struct tree_ctx ctx = { .pager = &db->pager, .limit = record->high_water, .newest = record->txid, .error = &why };
	enum bts_err err = space_init(space, db->env, record->first, record->high_water);

	if (err)
		return error_set(error, err, 0, "no memory for the free map");
	redirect_use(&ctx, table);
	err = freelog_load(&ctx, &record->free, space);
	if (err) {
		space_fini(space);
		return error_set(error, err, why.os, "%s", why.text);
	}
	return BTS_OK;
}

enum bts_err db_hold_snapshot(struct bts *db, struct redirect *table, const struct commit_record *then, bts_txid freed,
	struct bts_error *error)
{
	struct space free_then;
	struct space_run run;
	bts_pgno at = 0, from = then->first, mark = db->space.high_water;
	enum bts_err err = db_load_space(db, table, then, &free_then, error);
	bool more = true;

	/* A follower's reader may have its free set in a log that only it can read still: it reaches everything then. */
	if (err == BTS_CORRUPT && db->follower)
		err = space_init(&free_then, db->env, then->first, then->high_water);

	if (err == BTS_OK && db->follower) {
		err = space_reach(&db->space, then->high_water);
		mark = db->space.high_water;
		if (err) {
			space_fini(&free_then);
			return error_set(error, err, 0, "no memory for the free map");
		}
	}
	if (err)
		return err;
	if (then->high_water < mark)
		mark = then->high_water;
	while (err == BTS_OK && more) { /* the gaps between its free runs are what it reaches */
		more = space_next_free(&free_then, &at, &run) && run.pgno < mark;
		if (!more)
			run = (struct space_run){ mark, 0 };
		if (run.pgno > from)
			err = space_hold(&db->space, (struct space_run){ from, run.pgno - from }, then->txid, freed);
		from = run.pgno + run.count;
	}
	space_fini(&free_then);
	return err ? error_set(error, err, 0, "no memory for the free map") : BTS_OK;
}

/*
 * The oldest reader first: a page that several of them reach waits for the oldest, and then for whichever of the others still
 * live, whether they reach it or not.
 */
enum bts_err db_load_allocator(struct bts *db, const struct commit_record *record, struct bts_error *error)
{
	struct redirect *table = NULL;
	struct commit_record *then;
	size_t count;
	enum bts_err err = BTS_OK;

	if (db->follower && db->slot.pending_count)
		err = redirect_open(db, db->slot.pending_salt, db->slot.pending_count, &table, error);
	if (err == BTS_OK)
		err = db_load_space(db, table, record, &db->space, error);
	if (err) {
		redirect_drop(db, table);
		return err;
	}
	then = db->env->ops->memory(db->env, NULL, sizeof(*then));
	if (then == NULL) {
		redirect_drop(db, table);
		return error_set(error, BTS_MEMORY, 0, "no memory to open %s", db->path);
	}
	count = SABOTAGE(FAULT_G5_NO_READERS) ? 0 : db_snapshots(db);
	for (size_t i = 0; i < count && err == BTS_OK; i++) {
		if (db->snapshots[i] >= record->txid ||
			shared_reader_record(db->shared, db->snapshots[i], then) != BTS_OK)
			continue;
		err = db_hold_snapshot(db, table, then, record->txid, error);
		if (err == BTS_CORRUPT && !shared_reader_settled(db->shared, db->snapshots[i]))
			err = BTS_OK;
	}
	redirect_drop(db, table);
	db->env->ops->memory(db->env, then, 0);
	return err;
}

static enum bts_err db_start_follower(struct bts *db, struct bts_error *error)
{
	enum bts_err err = db_opening(db, error);

	db->first = db->slot.first;
	if (err == BTS_OK)
		err = db_load_allocator(db, &db->slot.record, error);
	if (err == BTS_OK && shared_assigned(db->shared) < db->slot.record.txid)
		shared_assign(db->shared, db->slot.record.txid);
	return err;
}

/* Is an opening commit or a new epoch owed, or was a lock left by a writer that died? */
static bool db_owes_opening(struct bts *db)
{
	struct bts_file_identity id;
	bool unclean, fell_back;
	bts_txid highest;

	shared_unclean(db->shared, &unclean, &fell_back, &highest);
	return unclean || db->env->ops->file_identity(db->file, &id) || db->slot.inode != id.inode ||
		db->slot.birth_ns != id.birth_ns || shared_lock_orphaned(db->shared, SHARED_LOCK_BUILD);
}

/*
 * No deadline lies ahead, so nothing is written.  Slots of later commits by others, which this handle may flush, are of the file
 * as it is: whether it is a copy is asked of the disk then.
 */
static enum bts_err db_put_off(struct bts *db, struct bts_error *error)
{
	struct bts_file_identity id;
	int os = db->env->ops->file_identity(db->file, &id);

	if (os)
		return error_os(error, os, "cannot stat %s", db->path);
	db->slot.inode = id.inode;
	db->slot.birth_ns = id.birth_ns;
	db->late = true;
	return BTS_OK;
}

/*
 * A primary: what a writer that died had built becomes durable; then the opening commit, if one is owed, with both locks:
 * nobody else builds or flushes.  Nothing owed: opening waits for no batch that somebody is forming.
 */
static enum bts_err db_start_primary(struct bts *db, struct bts_error *error)
{
	enum bts_err err = BTS_OK;

	if (deadline_check(db, NULL))
		return db_put_off(db, error);
	if (shared_tip_txid(db->shared) > shared_durable_txid(db->shared) ||
		shared_lock_orphaned(db->shared, SHARED_LOCK_FLUSH))
		err = flush_settle(db, error);
	if (err || !db_owes_opening(db))
		return err;
	err = db_build_lock(db, error);
	if (err)
		return err;
	err = flush_settle(db, error);
	if (err == BTS_OK)
		err = flush_hold(db, db_opening, error);
	db_build_leave(db);
	return err;
}

/* A flush that failed may have dropped values that transactions of this handle have written already (lease.h): I7. */
static enum bts_err db_opening_now(struct bts *db, struct bts_error *error)
{
	struct bts_error why = { 0 };
	enum bts_err err = db_opening(db, &why);

	if (err && why.os != 0)
		return db_poison(db, error, why.os, "an opening commit");
	if (err && error != NULL)
		*error = why;
	return err;
}

enum bts_err db_jump(struct bts *db, struct bts_error *error)
{
	enum bts_err err;

	shared_set_unclean(db->shared, true, false, shared_assigned(db->shared));
	err = flush_hold(db, db_opening_now, error);
	if (err == BTS_OK)
		shared_tip(db->shared, &db->tip, &db->tip_ring);
	return err;
}

static enum bts_err db_opening_late(struct bts *db, struct bts_error *error)
{
	enum bts_err err = db_learn_slot(db, error);

	return err == BTS_OK ? db_opening_now(db, error) : err;
}

enum bts_err db_start_late(struct bts *db, struct bts_error *error)
{
	enum bts_err err = flush_settle(db, error);

	if (err == BTS_OK)
		err = flush_hold(db, db_opening_late, error);
	if (err == BTS_OK)
		db->late = false;
	return err;
}

enum bts_err db_start_writing(struct bts *db, struct bts_error *error)
{
	return db->follower ? db_start_follower(db, error) : db_start_primary(db, error);
}
