/*
 * The slack of a file goes back when it is closed.
 *
 * Random batches let a file grow to twice what lives in it and more (clean.c, space_head.c), as that is what makes them
 * fast.  The last one to close takes some steps of compaction and cuts the end off, in front of the seal.  Each step is an
 * ordinary commit, safe beside anybody: that nobody else is there is asked for because others would pay for it and write on into the slack; who opens
 * meanwhile does not wait, and ends it.  So does any failure, and what is durable stays so.
 *
 * Who closes often shall not pay often.  Only a large file is looked at, with slack of more than a quarter of what lives in it;
 * afterwards it has next to none.  So as much was written since the last time as is moved now, if not by this handle then by others.
 * That is not so of a file that has more slack than may be moved at once: there a handle must have written as much itself.
 * And none that made a few small commits moves anything.
 */
#include "compact.h"

#include "base/ensure.h"

#define COMPACT_CLOSE_FILE (UINT64_C(16) << 20)  /* bytes: smaller files are let be */
#define COMPACT_CLOSE_WROTE (UINT64_C(1) << 20)  /* bytes written by the handle, at least */
#define COMPACT_CLOSE_STEP (UINT64_C(16) << 20)  /* bytes placed by a commit */
#define COMPACT_CLOSE_STEPS 64u
#define COMPACT_CLOSE_WAIT_MS 100u /* for somebody who came */

/* Is there enough to be had, for moving at most so many pages, by a handle that wrote so many? */
static bool compact_close_sparse(struct bts *db, uint64_t most, uint64_t wrote)
{
	const struct space *space = &db->space;
	struct bts_file_identity id;
	uint64_t live, pages, tail;
	int os;

	if (db_build_enter(db, NULL))
		return false;
	os = db->env->ops->file_identity(db->file, &id);
	live = space->high_water - space->first - space_free_pages(space);
	db_build_leave(db);
	if (os || id.size < COMPACT_CLOSE_FILE)
		return false;
	pages = (id.size >> db->pager.page_shift) - space->first;
	if (pages - live <= live / 4)
		return false;
	/* What lives in the part to be cut off, if it is as sparse as the rest. */
	tail = (uint64_t)((double)(pages - live) * (double)live / (double)pages);
	return tail <= most || wrote >= most;
}

/* Pages of a step: its private pages stay in ordinary memory. */
static uint64_t compact_close_step(const struct bts *db)
{
	uint64_t bytes = db->txn_memory / 2 < COMPACT_CLOSE_STEP ? db->txn_memory / 2 : COMPACT_CLOSE_STEP;

	return bytes >> db->pager.page_shift;
}

static void compact_close_steps(struct bts *db, uint64_t pages, uint64_t wrote)
{
	/* A page read costs a fraction of one moved, and who points to values must be looked for again when some have moved. */
	struct compact_bounds bounds = {.pages = pages, .looks = 4 * wrote < pages ? 4 * wrote : pages};
	struct bts_compact_info info = {.size = sizeof(info), .pages_moved = 1};
	uint64_t most = compact_close_step(db);
	bool done;
	enum bts_err err = BTS_OK;

	/* The last one moves nothing, and gives up the tail that the one before has freed. */
	for (unsigned i = 0; err == BTS_OK && info.pages_moved > 0; i++) {
		uint64_t budget = bounds.pages < most ? bounds.pages : most;

		if (!shared_without_others(db->shared))
			return;
		if (i == COMPACT_CLOSE_STEPS)
			budget = 0;
		err = compact_step(db, budget, &bounds, &info, &done, NULL);
	}
	/* Whatever ended it: what was given up is cut. */
	err = compact_cut(db, false, &info, NULL);
	(void)err;
}

void compact_close(struct bts *db)
{
	uint64_t wrote = atomic_load(&db->pages_written), pages = db->limits.close_compact >> db->pager.page_shift;

	ENSURE(atomic_load(&db->transactions) == 0);
	if (pages == 0 || wrote < COMPACT_CLOSE_WROTE >> db->pager.page_shift || !shared_without_others(db->shared))
		return;
	/* Nobody is asked about readers who may come now, and nobody is waited for long. */
	db->limits.reader_pages_max = db->limits.reader_age_max_ms = 0;
	if (db->lock_timeout_ms == 0 || db->lock_timeout_ms > COMPACT_CLOSE_WAIT_MS)
		db->lock_timeout_ms = COMPACT_CLOSE_WAIT_MS;
	if (compact_close_sparse(db, pages, wrote))
		compact_close_steps(db, pages, wrote);
}
