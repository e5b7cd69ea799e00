/*
 * Making the tip durable (I2, I3, I6, I7, I8): the slot that does not hold D, one flush, D and head.
 *
 * Commits are built one upon the other by whoever holds the build lock; whoever gets the flush lock makes the newest of them
 * durable, all others with it, while the next batch is built.  So processes share flushes without knowing of each other.
 *
 * The slot's manifest must name exactly the pages that the tip reaches and D does not: a page that one waiting commit wrote
 * and a later one retired may be written again as soon as the tip is D, and a manifest that names it would then reject a
 * good slot.  One commit upon D brings its own manifest.  Of several the ring tells what they took and retired.  Values that
 * were written before their commit (lease.h) are in no manifest: two flushes.
 *
 * Failure modes: a failed slot write or flush poisons (I7).  When the holder of the flush lock dies, the next one judges the slot it
 * may have written: whole, then its commit is made durable again and becomes D (I6); else it is written over.
 */
#include "flush.h"

#include "base/crc32c.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "deadline.h"
#include "error.h"
#include "recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLUSH_AGAIN_BYTES (UINT64_C(1) << 20)
#define FLUSH_CHANGES_MAX 1024u /* of the ring: beyond, two flushes are cheaper than a manifest */

static enum bts_err flush_sync(struct bts *db, struct bts_error *error, const char *what)
{
	int os;

	atomic_fetch_add(&db->flushes, 1);
	os = db->env->ops->file_sync(db->file);
	if (os == 0 || SABOTAGE(FAULT_I7_IGNORE_FLUSH))
		return BTS_OK;
	return db_poison(db, error, os, what);
}

/* Paranoid builds: the slot about to be written can be read, or two such commits would lose the database. */
static void flush_paranoid(const struct meta_slot *slot)
{
#ifdef BTS_PARANOID
	struct meta_slot again;
	uint8_t bytes[LAYOUT_META_SIZE];
	struct bts_error error = { 0 };

	meta_slot_encode(slot, bytes);
	if (meta_slot_decode(bytes, &again, &error))
		fprintf(stderr, "slot of transaction %" PRIu64 ": %s\n", slot->record.txid, error.text);
	ENSURE(error.code == BTS_OK);
#else
	(void)slot;
#endif
}

static int flush_run_order(const void *a, const void *b)
{
	const struct space_run *x = a, *y = b;

	return x->pgno < y->pgno ? -1 : x->pgno > y->pgno;
}

/* One piece of a taken run that was not retired again; false when the manifest is full. */
static bool flush_manifest_add(struct bts *db, struct meta_slot *slot, struct space_run piece, uint64_t *pages)
{
	struct meta_run *run = slot->manifest_count > 0 ? &slot->manifest[slot->manifest_count - 1] : NULL;
	const uint8_t *bytes;

	*pages += piece.count;
	if (*pages << db->pager.page_shift > META_MANIFEST_BYTES)
		return false;
	if (run == NULL || run->pgno + run->count != piece.pgno) {
		if (slot->manifest_count == META_MANIFEST_MAX)
			return false;
		run = &slot->manifest[slot->manifest_count++];
		*run = (struct meta_run){ piece.pgno, 0, 0 };
	}
	bytes = pager_raw(&db->pager, piece.pgno, piece.count);
	if (bytes == NULL)
		return false;
	run->crc = crc32c(run->crc, bytes, (size_t)(piece.count << db->pager.page_shift));
	run->count += (uint32_t)piece.count;
	return true;
}

/* taken minus retired, both ascending and without overlaps of their own. */
static bool flush_manifest_fill(struct bts *db, struct meta_slot *slot, const struct space_run *taken, size_t taken_count,
	const struct space_run *retired, size_t retired_count)
{
	uint64_t pages = 0;
	size_t r = 0;

	for (size_t t = 0; t < taken_count; t++) {
		bts_pgno at = taken[t].pgno, end = at + taken[t].count;

		while (at < end) {
			bts_pgno stop = end;

			while (r < retired_count && retired[r].pgno + retired[r].count <= at)
				r++;
			if (r < retired_count && retired[r].pgno < end)
				stop = retired[r].pgno > at ? retired[r].pgno : at;
			if (stop > at && !flush_manifest_add(db, slot, (struct space_run){ at, stop - at }, &pages))
				return false;
			at = stop;
			if (r < retired_count && retired[r].pgno <= at)
				at = retired[r].pgno + retired[r].count;
		}
	}
	return true;
}

/* The manifest of all that was built upon D; false: make it without one. */
static bool flush_manifest(struct bts *db, struct meta_slot *slot, uint64_t from, uint64_t to)
{
	struct bts_env *env = db->env;
	size_t changes = to - from, taken_count = 0, retired_count = 0;
	struct space_run *taken, *retired;
	bool fits, leased = false;

	if (from == SHARED_RING_UNKNOWN || to - from > FLUSH_CHANGES_MAX)
		return false;
	taken = env->ops->memory(env, NULL, (2 * changes + 1) * sizeof(*taken));
	if (taken == NULL)
		return false;
	retired = taken + changes;
	for (uint64_t at = from; at < to; at++) {
		struct shared_change change;

		shared_ring_get(db->shared, at, &change);
		if (change.kind == SHARED_UNFLUSHED)
			leased = true;
		else if (change.kind == SHARED_TAKE)
			taken[taken_count++] = (struct space_run){ change.pgno, change.count };
		else if (change.kind == SHARED_RETIRE && change.birth > slot->durable &&
			 !SABOTAGE(FAULT_MANIFEST_RETIRED))
			retired[retired_count++] = (struct space_run){ change.pgno, change.count };
	}
	/* Builders go on meanwhile, and may have come around to what was read. */
	shared_tip(db->shared, NULL, &to);
	qsort(taken, taken_count, sizeof(*taken), flush_run_order);
	qsort(retired, retired_count, sizeof(*retired), flush_run_order);
	fits = !leased && to - from <= SHARED_RING_REACH &&
		flush_manifest_fill(db, slot, taken, taken_count, retired, retired_count);
	env->ops->memory(env, taken, 0);
	return fits;
}

static void flush_envelope(struct bts *db, struct meta_slot *slot, const struct commit_built *own, struct shared_durable *d)
{
	struct commit_record *record = &slot->record;
	bool one_flush;
	uint64_t ring;

	*slot = db->slot;
	shared_durable(db->shared, NULL, d); /* it can not move: the flush lock is held */
	slot->durable = shared_durable_txid(db->shared);
	slot->durable_sequence = d->sequence;
	slot->sequence = d->sequence + 1;
	slot->manifest_count = 0;
	slot->role = META_PRIMARY; /* whatever it was when the handle was opened */
	slot->promised = shared_promised(db->shared, &slot->promised_random);
	shared_tip(db->shared, record, &ring);
	if (own != NULL && own->txid == record->txid &&
		(own->base == slot->durable || SABOTAGE(FAULT_MANIFEST_OWN))) {
		one_flush = own->one_flush;
		slot->manifest_count = own->manifest_count;
		memcpy(slot->manifest, own->manifest, own->manifest_count * sizeof(*own->manifest));
	} else {
		one_flush = flush_manifest(db, slot, d->ring, ring);
	}
	slot->mode = one_flush ? META_ONE_FLUSH : META_TWO_FLUSH;
	if (!one_flush || SABOTAGE(FAULT_I3_NO_MANIFEST))
		slot->manifest_count = 0;
	d->ring = ring;
}

static enum bts_err flush_fault(struct bts *db, const char *point, struct bts_error *error)
{
	int os = db->env->ops->fault(db->env, point);

	return os == 0 ? BTS_OK : db_poison(db, error, os, point);
}

/* late: the deadline does not matter. */
static enum bts_err flush_slot(struct bts *db, const struct meta_slot *slot, unsigned index, bool late, struct bts_error *error)
{
	struct bts_error why = { 0 };
	enum bts_err err = BTS_OK;

	if (slot->mode == META_TWO_FLUSH && !SABOTAGE(FAULT_I3_NO_PREFLUSH))
		err = flush_sync(db, error, "flushing pages");
	if (err == BTS_OK && !late)
		err = deadline_check(db, error);
	if (err == BTS_OK)
		err = flush_fault(db, "commit.slot", error);
	if (err)
		return err;
	if (recover_write_slot(db->env, db->file, index, slot, &why))
		return db_poison(db, error, why.os, "writing the meta page");
	if (SABOTAGE(FAULT_I8_PUBLISH_EARLY))
		return BTS_OK;
	err = flush_sync(db, error, "flushing a commit");
	return err ? err : flush_fault(db, "commit.flushed", error);
}

static enum bts_err flush_publish_enter(struct bts *db, struct bts_error *error)
{
	bool orphaned;
	enum bts_err err;

	pthread_mutex_lock(&db->publish);
	err = shared_lock(db->shared, SHARED_LOCK_PUBLISH, 0, &orphaned, error);
	if (err)
		pthread_mutex_unlock(&db->publish);
	else if (orphaned) /* what it had half written nobody reads */
		shared_lock_settled(db->shared, SHARED_LOCK_PUBLISH);
	return err;
}

static void flush_publish_leave(struct bts *db)
{
	shared_unlock(db->shared, SHARED_LOCK_PUBLISH);
	pthread_mutex_unlock(&db->publish);
}

static enum bts_err flush_publish(struct bts *db, const struct commit_record *record, const struct shared_durable *durable,
	struct bts_error *error)
{
	enum bts_err err = flush_publish_enter(db, error);

	if (err)
		return err;
	shared_publish_durable(db->shared, record, durable);
	flush_publish_leave(db);
	return BTS_OK;
}

/* Flush lock held. */
static enum bts_err flush_tip(struct bts *db, const struct commit_built *own, bool late, struct bts_error *error)
{
	struct meta_slot *slot = db->envelope;
	struct shared_durable durable;
	enum bts_err err;

	flush_envelope(db, slot, own, &durable);
	flush_paranoid(slot);
	if (!SABOTAGE(FAULT_I2_SLOT_OF_D))
		durable.index = !durable.index;
	durable.sequence = slot->sequence;
	err = flush_slot(db, slot, durable.index, late, error);
	if (err == BTS_OK && flush_publish(db, &slot->record, &durable, error)) /* D has moved, and must not be forgotten */
		err = db_poison(db, error, error == NULL ? EIO : error->os, "publishing a commit");
	return err;
}

/* The pages of one run once more, as they are. */
static int flush_again(struct bts *db, struct space_run run, uint8_t *buffer)
{
	const struct bts_env_ops *ops = db->env->ops;
	uint64_t at = run.pgno << db->pager.page_shift, end = (run.pgno + run.count) << db->pager.page_shift;
	size_t got;

	while (at < end) {
		size_t size = end - at < FLUSH_AGAIN_BYTES ? (size_t)(end - at) : FLUSH_AGAIN_BYTES;
		struct iovec iov = { buffer, size };
		int os = ops->file_pread(db->file, buffer, size, at, &got);

		if (os == 0 && got == size)
			os = ops->file_pwritev(db->file, &iov, 1, at);
		if (os || got < size)
			return os ? os : EIO;
		at += size;
	}
	return 0;
}

/*
 * I6.  The flush that the dead one had begun may have failed, and who opened the file since is not told of it: pages that were
 * built upon D count as written and are not.  Written again they are flushed again.  Where the ring no longer knows them,
 * their checksums in pointers are what remains.
 */
static int flush_again_built(struct bts *db, uint64_t from)
{
	uint8_t *buffer = NULL;
	uint64_t to;
	int os = 0;

	shared_tip(db->shared, NULL, &to);
	if (from == to || from == SHARED_RING_UNKNOWN || to - from > SHARED_RING_REACH)
		return 0;
	buffer = db->env->ops->memory(db->env, NULL, FLUSH_AGAIN_BYTES);
	if (buffer == NULL)
		return ENOMEM;
	for (uint64_t at = from; at < to && os == 0; at++) {
		struct shared_change change;

		shared_ring_get(db->shared, at, &change);
		if (change.kind == SHARED_TAKE)
			os = flush_again(db, (struct space_run){ change.pgno, change.count }, buffer);
	}
	db->env->ops->memory(db->env, buffer, 0);
	return os;
}

/* The last holder of the flush lock died (M2): is what it wrote into the other slot a commit? */
static enum bts_err flush_inherit(struct bts *db, struct bts_error *error)
{
	struct recover_state *state = db->env->ops->memory(db->env, NULL, sizeof(*state));
	struct shared_durable durable;
	bts_txid txid = shared_durable_txid(db->shared);
	enum bts_err err;
	int os;

	if (state == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory to go on after the death of a writer of %s", db->path);
	shared_durable(db->shared, NULL, &durable);
	os = SABOTAGE(FAULT_I6_NO_REWRITE) ? 0 : flush_again_built(db, durable.ring);
	err = os ? error_os(error, os, "%s: writing again what a writer that died had built", db->path) : BTS_OK;
	if (err == BTS_OK)
		err = recover_inherit(db->env, db->file, durable.index, txid, state, error);
	if (err == BTS_OK)
		err = recover_rewrite(db->env, db->file, state, error);
	if (err == BTS_OK && state->index != durable.index) { /* a commit, or the same one in another role */
		durable.index = state->index;
		durable.sequence = state->slot.sequence;
		if (state->slot.record.txid != txid)
			durable.ring = SHARED_RING_UNKNOWN;
		err = flush_publish(db, &state->slot.record, &durable, error);
	}
	if (err == BTS_OK) {
		shared_set_promised(db->shared, state->slot.promised, state->slot.promised_random);
		shared_set_role(db->shared, state->slot.role);
	}
	if (err == BTS_OK)
		shared_lock_settled(db->shared, SHARED_LOCK_FLUSH);
	db->env->ops->memory(db->env, state, 0);
	return err;
}

/*
 * BTS_NOT_FOUND, not entered, when D reaches `done` meanwhile.  Who waits for a flush must not queue for the lock only to see
 * that it is done: the next flush would begin with whoever gets through first instead of with all.
 */
static enum bts_err flush_enter_until(struct bts *db, unsigned timeout_ms, bts_txid done, struct bts_error *error)
{
	bool orphaned;
	enum bts_err err;

	pthread_mutex_lock(&db->flush);
	err = shared_lock_until(db->shared, SHARED_LOCK_FLUSH, timeout_ms, done, &orphaned, error);
	if (err) {
		pthread_mutex_unlock(&db->flush);
		return err;
	}
	/* Fenced or not: what was built before is made durable.  Of a follower's file nothing was left (role.c). */
	err = db_usable(db, error);
	if (err == BTS_OK && orphaned && (SABOTAGE(FAULT_M2_NO_INHERIT) || shared_role(db->shared) == META_FOLLOWER)) {
		shared_lock_settled(db->shared, SHARED_LOCK_FLUSH);
	} else if (err == BTS_OK && orphaned) {
		err = flush_inherit(db, error);
		if (err) /* commits that are built wait for this flush, and can not be taken back */
			err = db_poison(db, error, error == NULL ? EIO : error->os, "taking over from a writer that died");
	}
	if (err) {
		shared_unlock(db->shared, SHARED_LOCK_FLUSH);
		pthread_mutex_unlock(&db->flush);
	}
	return err;
}

static enum bts_err flush_enter(struct bts *db, unsigned timeout_ms, struct bts_error *error)
{
	return flush_enter_until(db, timeout_ms, LAYOUT_TXID_LIMIT, error);
}

enum bts_err flush_lock(struct bts *db, struct bts_error *error)
{
	return flush_enter(db, db->lock_timeout_ms, error);
}

void flush_leave(struct bts *db)
{
	shared_unlock(db->shared, SHARED_LOCK_FLUSH);
	pthread_mutex_unlock(&db->flush);
}

enum bts_err flush_to(struct bts *db, bts_txid txid, const struct commit_built *own, void (*begun)(void *arg), void *arg,
	struct bts_error *error)
{
	enum bts_err err = BTS_OK;

	if (txid > shared_durable_txid(db->shared)) {
		/* What the caller has built has happened unless the environment is poisoned: no time limit then. */
		err = flush_enter_until(db, own == NULL ? db->lock_timeout_ms : 0, txid, error);
		if (begun != NULL)
			begun(arg);
		if (err == BTS_NOT_FOUND)
			return own == NULL ? BTS_OK : deadline_told(db, own->term, error);
		if (err)
			return own == NULL || shared_poisoned(db->shared) ?
				err : db_poison(db, error, error == NULL ? EIO : error->os, "locking to flush a commit");
		/* Somebody else may have done it, and a batch that failed for want of space leaves numbers that never come. */
		if (txid > shared_durable_txid(db->shared) && shared_tip_txid(db->shared) > shared_durable_txid(db->shared))
			err = flush_tip(db, own, false, error);
		flush_leave(db);
	} else if (begun != NULL) {
		begun(arg);
	}
	if (own == NULL)
		return err;
	if (err == BTS_FENCED)
		return deadline_unknown(db, own->txid, error);
	return err ? err : deadline_told(db, own->term, error);
}

static enum bts_err flush_settle_within(struct bts *db, bool late, struct bts_error *error)
{
	enum bts_err err = flush_enter(db, db->lock_timeout_ms, error);

	if (err)
		return err;
	if (shared_tip_txid(db->shared) > shared_durable_txid(db->shared))
		err = flush_tip(db, NULL, late, error);
	flush_leave(db);
	return err == BTS_FENCED ? BTS_OK : err;
}

enum bts_err flush_settle(struct bts *db, struct bts_error *error)
{
	return flush_settle_within(db, false, error);
}

enum bts_err flush_settle_all(struct bts *db, struct bts_error *error)
{
	return flush_settle_within(db, true, error);
}

enum bts_err flush_hold(struct bts *db, enum bts_err (*work)(struct bts *, struct bts_error *), struct bts_error *error)
{
	enum bts_err err = flush_enter(db, db->lock_timeout_ms, error);

	if (err)
		return err;
	err = work(db, error);
	flush_leave(db);
	return err;
}

enum bts_err flush_show(struct bts *db, struct bts_error *error)
{
	enum bts_err err = flush_publish_enter(db, error);

	if (err)
		return err;
	if (shared_head_txid(db->shared) < db->tip.txid)
		shared_publish_head(db->shared, &db->tip);
	flush_publish_leave(db);
	return BTS_OK;
}
