/* The allocator as each writing process has it: see ring.h. */
#include "ring.h"

#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"
#include "flush.h"
#include "lease.h"

#include <inttypes.h>

/*
 * From the file.  First the tip becomes D: then no page that a flush under way makes part of a durable root can pass for
 * free, and nobody but readers needs what the tip does not reach.
 */
static enum bts_err ring_rebuild(struct bts *db, struct bts_error *error)
{
	bts_pgno mark = db->replica ? db->space.high_water : 0;
	enum bts_err err =
		SABOTAGE(FAULT_REBUILD_ON_TIP) ? BTS_OK : flush_to(db, db->tip.txid, NULL, NULL, NULL, error);

	db->replica = false;
	space_fini(&db->space);
	atomic_store(&db->pager.mapped, 0); /* a reader that comes too late may name pages that were cut off since */
	if (err == BTS_OK)
		err = db_load_allocator(db, &db->tip, error);
	if (err == BTS_OK) {
		err = lease_restore(db);
		if (err)
			error_set(error, err, 0, "%s: pages that a transaction is writing are not free", db->path);
	}
	if (err) {
		space_fini(&db->space);
		return err;
	}
	if (mark > db->space.high_water)
		space_heads_quiet(&db->space);
	db->ring = db->tip_ring;
	db->replica = true;
	return BTS_OK;
}

/* Pages that another process gave to a batch: ready there, so no reader needs them, whatever this replica still waits for. */
static enum bts_err ring_take(struct bts *db, const struct shared_change *change)
{
	struct space *space = &db->space;
	struct space_run run = { change->pgno, change->count };

	if (run.pgno + run.count > space->high_water) {
		bts_pgno mark = space->high_water;
		enum bts_err err;

		if (run.pgno > mark)
			return BTS_CORRUPT;
		err = space_raise(space, run.pgno + run.count); /* what is raised is live */
		if (err)
			return err;
		run.count = mark - run.pgno;
	}
	if (run.count == 0 || SABOTAGE(FAULT_RING_NO_TAKE) || space_take(space, run))
		return BTS_OK;
	return space_claim(space, run) ? BTS_OK : BTS_CORRUPT;
}

/* Pages that are ready again, or new at the end. */
static enum bts_err ring_give(struct bts *db, const struct shared_change *change)
{
	struct space *space = &db->space;
	struct space_run run = { change->pgno, change->count };

	if (run.pgno + run.count > space->high_water) {
		enum bts_err err = run.pgno > space->high_water ? BTS_CORRUPT : space_raise(space, run.pgno + run.count);

		if (err)
			return err;
	}
	return space_is_live(space, run) ? space_give(space, run) : BTS_CORRUPT;
}

static enum bts_err ring_apply(struct bts *db, const struct shared_change *change)
{
	struct space_pending entry = { change->pgno, change->count, change->birth, change->freed };

	if (SABOTAGE(FAULT_RING_NO_RETIRE) && change->kind == SHARED_RETIRE)
		return BTS_OK;
	if (change->kind == SHARED_TAKE || change->kind == SHARED_LEASE)
		return ring_take(db, change);
	if (change->kind == SHARED_GIVE)
		return ring_give(db, change);
	if (change->kind == SHARED_UNFLUSHED)
		return BTS_OK;
	if (change->kind == SHARED_LOWER)
		return change->pgno > db->space.high_water ? BTS_CORRUPT : space_set_mark(&db->space, change->pgno);
	if (change->kind != SHARED_RETIRE || !space_is_live(&db->space, (struct space_run){ entry.pgno, entry.count }))
		return BTS_CORRUPT;
	return space_retire(&db->space, entry);
}

enum bts_err ring_follow(struct bts *db, struct bts_error *error)
{
	enum bts_err err = BTS_OK;

	if (!db->replica || db->tip_ring - db->ring > SHARED_RING_REACH)
		return ring_rebuild(db, error);
	for (; err == BTS_OK && db->ring < db->tip_ring; db->ring++) {
		struct shared_change change;

		shared_ring_get(db->shared, db->ring, &change);
		err = ring_apply(db, &change);
	}
	if (err == BTS_OK && db->space.high_water == db->tip.high_water)
		return BTS_OK;
	/* No memory, or a replica that is not what the others have: the file knows. */
	return ring_rebuild(db, error);
}

void ring_publish(struct bts *db, const struct seal *seal)
{
	uint64_t ring = db->tip_ring;

	if (seal->run_count + seal->retired_count + 3 > SHARED_RING_REACH) {
		ring += SHARED_RING_ENTRIES; /* too much to tell: the others rebuild */
	} else {
		if (seal->lowered > 0)
			shared_ring_put(db->shared, ring++,
				&(struct shared_change){ SHARED_LOWER, seal->old_high_water, 0, 0, 0 });
		for (size_t i = 0; i < seal->run_count; i++)
			shared_ring_put(db->shared, ring++,
				&(struct shared_change){ SHARED_TAKE, seal->runs[i].pgno, seal->runs[i].count, 0, 0 });
		for (size_t i = 0; i < seal->retired_count; i++)
			shared_ring_put(db->shared, ring++,
				&(struct shared_change){ SHARED_RETIRE, seal->retired[i].pgno, seal->retired[i].count,
					seal->retired[i].birth, seal->retired[i].freed });
		if (seal->raised.count > 0)
			shared_ring_put(db->shared, ring++,
				&(struct shared_change){ SHARED_GIVE, seal->raised.pgno, seal->raised.count, 0, 0 });
		if (seal->leased_count > 0)
			shared_ring_put(db->shared, ring++, &(struct shared_change){ .kind = SHARED_UNFLUSHED });
	}
	for (size_t i = 0; i < seal->retired_count; i++) {
		enum bts_err err = SABOTAGE(FAULT_I1_FREE_EARLY) ?
			space_give(&db->space, (struct space_run){ seal->retired[i].pgno, seal->retired[i].count }) :
			space_retire(&db->space, seal->retired[i]);

		ENSURE(err == BTS_OK); /* the seal made room */
	}
	if (seal->raised.count > 0) {
		enum bts_err err = space_give(&db->space, seal->raised);

		ENSURE(err == BTS_OK);
	}
	db->tip = seal->state->record;
	db->ring = db->tip_ring = ring;
	shared_publish_tip(db->shared, &db->tip, ring);
	for (size_t i = 0; i < seal->leased_count; i++)
		lease_commit(seal->leased[i]);
}
