/*
 * Making a proven frame the state of the file.  The crash cases are argued in DESIGN.md, section "Apply".
 *
 * Nothing redirected: flush, write the other slot, flush, publish.  The first flush makes every page of the
 * new root durable before a slot names it; the second is the commit.
 *
 * With redirected units the slot names path.pending as part of the state.  Its homes are still needed by the
 * durable root until that slot is durable, and by readers until they have gone; so: wait for those, let no
 * reader in, flush both files, write the slot with the salt, flush (the commit), copy home, flush, write the
 * slot again without, flush, cut.
 */
#include "apply.h"

#include <errno.h>
#include <string.h>

#include "base/ensure.h"
#include "base/fault.h"
#include "compact.h"
#include "error.h"
#include "recover.h"
#include "role.h"

ENSURE_STATIC(PENDING_CHUNK <= APPLY_SINK_BYTES); /* one buffer serves both */

/*
 * How long to wait for readers while others may begin, and while nobody may.  Both double: readers that come
 * and go are outlasted by the shortest closure; one that stays hardly keeps the others out, and a thread that
 * holds one snapshot may always begin another.
 */
#define INSTALL_FIRST_MS 20u
#define INSTALL_OPEN_MS 2000u
#define INSTALL_CLOSED_MS 500u
#define INSTALL_POLL_MS 10u

/* Does a live reader, or one that can still begin, need a page that has to be overwritten? */
static bool install_needed(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	size_t count = shared_readers(db->shared, db->snapshots, SHARED_READERS_MAX, NULL);

	for (size_t i = 0; i < apply->need_count; i++) {
		size_t low = 0, high = count;

		while (low < high) { /* the first snapshot >= birth */
			size_t middle = (low + high) / 2;

			if (db->snapshots[middle] >= apply->needs[i].birth)
				high = middle;
			else
				low = middle + 1;
		}
		if (low < count && db->snapshots[low] < apply->needs[i].freed)
			return true;
	}
	return false;
}

static enum bts_err install_wait(struct bts_apply *apply, unsigned for_ms, uint32_t wakes)
{
	struct bts *db = apply->db;
	uint64_t deadline = db->env->ops->clock_ms(db->env) + for_ms;

	while (install_needed(apply) && db->env->ops->clock_ms(db->env) < deadline) {
		enum bts_err err = apply_fault(apply, "apply.wait");

		if (err)
			return err;
		if (shared_poisoned(db->shared))
			return db_may_write(db, &apply->error);
		if (shared_wakes(db->shared) != wakes)
			return error_set(&apply->error, BTS_TIMEOUT, 0,
				"%s: woken while readers still needed pages that the frame overwrites",
				db->path);
		shared_wait_reader(db->shared, INSTALL_POLL_MS);
	}
	return BTS_OK;
}

/* On success the gate is closed and no reader needs a page that will be overwritten. */
static enum bts_err install_wait_readers(struct bts_apply *apply)
{
	struct shared *shared = apply->db->shared;
	uint32_t wakes = shared_wakes(shared);
	unsigned ms = INSTALL_FIRST_MS;
	enum bts_err err;

	for (;; ms *= 2) {
		if (ms > INSTALL_OPEN_MS)
			ms = INSTALL_OPEN_MS;
		err = install_wait(apply, ms, wakes);
		if (err)
			return err;
		shared_gate_close(shared);
		apply->gate_closed = true;
		err = install_wait(apply, ms < INSTALL_CLOSED_MS ? ms : INSTALL_CLOSED_MS, wakes);
		if (err || !install_needed(apply))
			return err;
		shared_gate_open(shared);
		apply->gate_closed = false;
	}
}

static enum bts_err install_sync(struct bts_apply *apply, struct bts_file *file, const char *what)
{
	int os = apply->db->env->ops->file_sync(file);

	atomic_fetch_add(&apply->db->flushes, 1);
	return os ? db_poison(apply->db, &apply->error, os, what) : BTS_OK;
}

/* All pages durable, where they are now.  The file is as long as the new high-water mark, whoever wrote
 * there. */
static enum bts_err install_flush(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	uint64_t size = apply->record.high_water * apply->record.page_size;
	struct bts_file_identity identity;
	enum bts_err err = apply_fault(apply, "apply.flush");
	int os;

	if (err)
		return err;
	os = db->env->ops->file_identity(db->file, &identity);
	if (!os && identity.size < size)
		os = db->env->ops->file_truncate(db->file, size);
	if (!os && apply->pending.file) {
		/* Homes may be holes, of pages that came and went between two frames: no room must be said now. */
		os = db->env->ops->file_reserve(db->file, size);
		os = os == ENOTSUP || os == EOPNOTSUPP ? 0 : os;
	}
	if (os)
		return error_os(&apply->error, os, "cannot extend %s", db->path);
	if (apply->pending.file) {
		err = SABOTAGE(FAULT_R5_NO_FLUSH) ? BTS_OK :
						    install_sync(apply, apply->pending.file, "flushing path.pending");
		os = err ? 0 : db->env->ops->path_sync_dir(db->env, apply->pending.path);
		if (os)
			err = error_os(
				&apply->error, os, "cannot flush the directory of %s", apply->pending.path);
	}
	if (SABOTAGE(FAULT_R1_NO_FLUSH))
		return err;
	return err ? err : install_sync(apply, db->file, "flushing the pages of a frame");
}

/* The new record into the slot that does not hold D. */
static enum bts_err install_slot(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	struct meta_slot *slot = &apply->slot;
	enum bts_err err = apply_fault(apply, "apply.slot");

	if (err)
		return err;
	*slot = db->slot;
	slot->sequence++;
	slot->mode = META_TWO_FLUSH;
	slot->role = META_FOLLOWER;
	slot->durable = db->slot.record.txid;
	slot->durable_sequence = db->slot.sequence;
	slot->manifest_count = 0;
	slot->record = apply->record;
	slot->pending_salt = apply->pending.file ? apply->pending.salt : 0;
	slot->pending_count = apply->pending.count;
	if (apply->pending.file)
		shared_gate_hold(db->shared);
	apply->committed = true;
	err = recover_write_slot(db->env, db->file, !db->slot_index, slot, &apply->error);
	if (!err)
		err = apply_fault(apply, "apply.slot_flush");
	if (err)
		return db_poison(db, &apply->error, apply->error.os, "writing the meta page of a frame");
	err = SABOTAGE(FAULT_R7_NO_FLUSH) ? BTS_OK :
					    install_sync(apply, db->file, "flushing the meta page of a frame");
	if (err)
		return err;
	err = apply_fault(apply, "apply.publish");
	if (err)
		return db_poison(db, &apply->error, apply->error.os, "publishing a frame");
	db->slot = *slot;
	db->slot_index = !db->slot_index;
	return BTS_OK;
}

static void install_publish(struct bts_apply *apply)
{
	struct bts *db = apply->db;

	shared_set_slot(db->shared, db->slot_index, db->slot.sequence);
	shared_publish(db->shared, &db->slot.record);
}

/* The slot is durable: bring redirected pages home, and write the slot again without them. */
static enum bts_err install_homes(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	struct recover_state *state = &apply->state;
	enum bts_err err = apply_fault(apply, "apply.copy");

	if (!err)
		err = pending_copy_home(db, apply->pending.file, &db->slot, apply->log.bytes, &apply->error);
	if (!err)
		err = apply_fault(apply, "apply.checkpoint");
	if (!err) {
		memset(state, 0, sizeof(*state));
		state->slot = db->slot;
		state->slot.pending_count = 0;
		state->slot.pending_salt = 0;
		state->index = db->slot_index;
		err = recover_envelope(db->env, db->file, state, META_TWO_FLUSH, &apply->error);
	}
	if (!err) {
		db->slot = state->slot;
		db->slot_index = state->index;
		err = apply_fault(apply, "apply.truncate");
	}
	if (err)
		return db_poison(db, &apply->error, apply->error.os, "bringing the pages of a frame home");
	/* When it can not be cut now, the next open does it. */
	db->env->ops->file_truncate(apply->pending.file, 0);
	return BTS_OK;
}

enum bts_err apply_install(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	struct bts_compact_info cut = {.size = sizeof(cut)};
	enum bts_err err = role_admits(db, &apply->target, &apply->error); /* a promise was made meanwhile? */

	if (!err && apply->pending.file)
		err = install_wait_readers(apply);
	if (!err)
		err = install_flush(apply);
	if (!err)
		err = install_slot(apply);
	if (err)
		return err;
	/*
	 * Published before the homes are written, for an heir to find the slot that counts; nobody passes the
	 * gate until they are.
	 */
	install_publish(apply);
	if (apply->pending.file) {
		err = install_homes(apply);
		if (err)
			return err;
		install_publish(apply);
		shared_gate_open(db->shared);
		apply->gate_closed = false;
	}
	space_fini(&db->space);
	db->space = apply->space;
	apply->space_there = false;
	/* A mark that fell: the file becomes shorter, now or when readers have gone and the next frame comes. */
	apply_trim(db);
	err = compact_truncate(db, true, &cut, NULL);
	(void)err;
	return BTS_OK;
}
