/*
 * Compaction (G4): what lies at the end of the file moves into free space lower down, then the file ends earlier.
 *
 * A step is one ordinary commit.  From the high-water mark downwards each unit (node, large value, page of the free log)
 * is made private together with its path, as if it had been written; the seal then places all of it in the lowest free
 * pages, below everything that was moved (state.below), and raises nothing.  What is moved away becomes ready once the commit is
 * durable and no snapshot needs it, and the next step gives that tail up: the mark falls (state.lower).
 *
 * The mark only falls over ready pages.  So nobody reaches what lies behind it: no live snapshot (G1), nor the commit that a
 * crash may return to (I1); a later commit may raise the mark again and write there at once.
 *
 * Truncation is apart from that: the accessor trusts a snapshot's own mark, so the file is cut only to the highest
 * mark of the newest commit, of D and of every live reader.  What the next commits would grow the file by is left (commit_grow).
 *
 * Keys keep their versions and leaves their last deletes; births change.
 */
#include "compact.h"

#include "base/ensure.h"
#include "error.h"
#include "snapshot.h"

#include <inttypes.h>
#include <string.h>

#define COMPACT_LEAST 16u  /* free pages that are not worth a step */
#define COMPACT_RESERVE 8u /* pages a commit needs beyond those that move: log, history */
#define COMPACT_TRIES 64u  /* steps spent on one large value, and one more for each of its pages */
#define COMPACT_REFUSED 32u

struct compact_refused { /* units that a search for a window shall avoid */
	struct space_run runs[COMPACT_REFUSED];
	unsigned count;
};

/* Free pages that the commit itself may need, whatever moves. */
static uint64_t compact_reserve(const struct compact *compact)
{
	const struct commit_record *record = &compact->state->record;
	uint64_t pages = COMPACT_RESERVE + record->catalog.depth + record->history.depth;

	/* One path of the catalog for each bucket that changes. */
	pages += compact->state->bucket_count * record->catalog.depth;
	if (compact->state->condense)
		pages += freelog_set_entries(&compact->db->space) * 8 / record->page_size +
			 compact->placed * 16 / record->page_size + 2;
	return pages;
}

/* Is there room below the unit for it and all that must be written with it?  Within the budget, but for the first of a call. */
static bool compact_room(const struct compact *compact, const struct compact_unit *unit)
{
	uint64_t pages = compact->placed + unit->pages + compact_reserve(compact);

	if (unit->kind == COMPACT_GONE)
		return true;
	if (unit->kind == COMPACT_NODE || unit->kind == COMPACT_EXTENT)
		pages += unit->tree->depth + compact->state->record.catalog.depth;
	if (unit->kind == COMPACT_LOG && !compact->state->condense)
		pages += freelog_set_entries(&compact->db->space) * 8 / compact->db->pager.page_size + 2;
	if (pages > compact->ready ||
		((compact->moved > 0 || compact->bounds != NULL) && compact->placed + unit->pages > compact->budget))
		return false;
	return unit->kind != COMPACT_EXTENT || space_fits(&compact->db->space, unit->pages, unit->pgno);
}

/* From top down to bottom until the budget is spent or something has no room.  The state's bound follows. */
static enum bts_err compact_range(
	struct compact *compact, bts_pgno top, bts_pgno bottom, struct compact_unit *refused)
{
	const struct space *space = &compact->db->space;
	bts_pgno at = top;
	enum bts_err err = BTS_OK;

	*refused = (struct compact_unit){.kind = COMPACT_GONE};
	while (err == BTS_OK && at > bottom && compact->placed < compact->budget) {
		struct compact_unit unit;

		if (space_is_ready(space, at - 1)) {
			at--;
			compact->ready--;
			continue;
		}
		if (!space_is_live(space, (struct space_run){at - 1, 1})) {
			if (compact->waiting == 0)
				compact->waiting = at - 1;
			at--;
			continue;
		}
		err = compact_look(compact, at - 1, &unit);
		if (err)
			break;
		if (unit.kind == COMPACT_STUCK || !compact_room(compact, &unit)) {
			*refused = unit;
			break;
		}
		err = compact_move(compact, &unit);
		at = unit.pgno;
		compact->moved += unit.pages;
		compact->state->below = at;
	}
	return err;
}

static bool compact_overlaps(const struct compact_refused *refused, bts_pgno pgno, uint64_t pages)
{
	for (unsigned i = 0; i < refused->count; i++)
		if (pgno < refused->runs[i].pgno + refused->runs[i].count &&
			refused->runs[i].pgno < pgno + pages)
			return true;
	return false;
}

/*
 * The window below a large value, as long as it is, that is ready but for the fewest pages, of those whose other pages
 * find room below it; false: none.  Pages that wait for somebody will not become ready soon, and what was refused will be again.
 */
static bool compact_find_window(struct compact *compact, const struct compact_unit *value,
	const struct compact_refused *refused, bts_pgno *window)
{
	const struct space *space = &compact->db->space;
	uint64_t reserve = compact_reserve(compact) + 2 * value->tree->depth, pages = value->pages;
	uint64_t below = 0, ready = 0, waiting = 0, best = 0;

	for (uint64_t to = 0; to < value->pgno - space->first; to++) {
		uint64_t from = to + 1 - pages;

		ready += space->bits[to / 64] >> to % 64 & 1;
		waiting += space->waiting[to / 64] >> to % 64 & 1;
		if (to + 1 < pages)
			continue;
		/* A path beside each few pages that move. */
		if (waiting == 0 && ready > best && below >= (pages - ready) * 5 / 4 + reserve &&
			!compact_overlaps(refused, space->first + from, pages)) {
			best = ready;
			*window = space->first + from;
			compact->ready = below + ready;
		}
		below += space->bits[from / 64] >> from % 64 & 1;
		ready -= space->bits[from / 64] >> from % 64 & 1;
		waiting -= space->waiting[from / 64] >> from % 64 & 1;
	}
	return best > 0;
}

/*
 * A large value at the end finds enough free pages but no run of them: make one, by moving what lies in between.  That takes
 * several steps, each of which finds the same window again, the fullest with ready pages; the value follows then.
 */
static enum bts_err compact_evacuate(struct compact *compact, const struct compact_unit *value)
{
	struct compact_refused refused = {.count = 0};
	struct compact_memo *memo = compact->db->compact;
	struct compact_unit unit;
	bts_pgno window;
	enum bts_err err = BTS_OK;

	if (memo->stuck != value->pgno)
		memo->tries = 0;
	memo->stuck = value->pgno;
	if (memo->tries++ > COMPACT_TRIES + value->pages)
		return BTS_OK;
	while (err == BTS_OK && compact->moved == 0 && refused.count < COMPACT_REFUSED &&
		compact_find_window(compact, value, &refused, &window)) {
		err = compact_range(compact, window + value->pages, window, &unit);
		if (unit.pages == 0)
			break;
		refused.runs[refused.count++] = (struct space_run){unit.pgno, unit.pages};
	}
	return err;
}

/* Which named snapshot's number holds a page of this birth, and the newest. */
static enum bts_err compact_named(struct compact *compact, bts_txid birth, bts_txid *holder)
{
	struct tree snapshots = compact->state->base_snapshots;
	struct snapshot_list list;
	enum bts_err err = snapshot_list_load(&compact->base, &compact->state->record, &snapshots, &list);

	*holder = 0;
	compact->named = snapshot_newest(&list);
	for (size_t i = list.count; i-- > 0 && list.items[i].txid >= birth;)
		*holder = list.items[i].txid;
	snapshot_list_fini(&list);
	return err;
}

static enum bts_err compact_gain(struct compact *compact, struct bts_compact_info *info)
{
	const struct space *space = &compact->db->space;
	struct compact_unit unit;
	bts_txid newest;
	enum bts_err err = compact_named(compact, 0, &newest);

	if (err)
		return err;

	compact->ready = space->ready;
	err = compact_range(compact, space->high_water, space->first, &unit);
	info->stuck = unit.kind == COMPACT_STUCK && unit.pages > 0 ? unit.pgno : 0;
	if (err == BTS_OK && info->stuck != 0 && compact->named != 0)
		err = compact_named(compact, unit.birth, &info->snapshot);
	/* In its way at the end of the file, or where it would go. */
	if (compact->waiting != 0 || unit.pages > 0)
		info->reader = space_holder(space, compact->waiting);
	if (err == BTS_OK && compact->moved == 0 && unit.pages > 0 && unit.kind == COMPACT_EXTENT &&
		(compact->bounds == NULL || unit.pages <= compact->budget))
		err = compact_evacuate(compact, &unit);
	return err;
}

/* One commit with at most budget pages placed.  BTS_FULL: there was no room for it after all. */
static enum bts_err compact_commit(struct bts *db, uint64_t budget, struct compact_bounds *bounds,
	struct bts_compact_info *info, bool *done, struct bts_error *error)
{
	struct compact compact = {.db = db, .bounds = bounds, .budget = budget};
	struct bts_error why = {0};
	struct bts_group *group;
	uint64_t tail;
	enum bts_err err = bts_group_begin(db, &group, error);

	*done = false;
	if (err)
		return err;
	db_reclaim(db);
	compact.state = &group->state;
	compact.base = (struct tree_ctx){.pager = &db->pager,
		.limit = group->state.record.high_water,
		.newest = group->state.record.txid,
		.error = &why};
	group->state.ctx.error = &why;
	tail = space_tail(&db->space, UINT64_MAX);
	if (budget > 0 && space_free_pages(&db->space) >= COMPACT_LEAST)
		err = compact_gain(&compact, info);
	compact_units_fini(&compact);
	if (err || (compact.moved == 0 && tail < COMPACT_LEAST)) {
		bts_group_abort(group);
		return err ? error_set(error, err, why.os, "compact: %s", why.text) : BTS_OK;
	}
	if (compact.moved == 0)
		group->state.below = db->space.high_water - tail;
	group->state.lower = true;
	group->last++;
	group->count = 1;
	err = bts_group_commit(group, error);
	*done = err == BTS_OK;
	if (err)
		return err;
	info->pages_moved += compact.moved;
	if (bounds != NULL)
		bounds->pages -= compact.moved < bounds->pages ? compact.moved : bounds->pages;
	return BTS_OK;
}

/* The highest mark that anybody may still go by; *reader: the snapshot it is of, 0 when of head, tip or D. */
static bts_pgno compact_mark(struct bts *db, bts_txid *reader)
{
	bts_pgno mark = db->space.high_water;
	struct shared_durable durable;
	struct commit_record *record = db->env->ops->memory(db->env, NULL, sizeof(*record));
	size_t count;

	*reader = 0;
	if (record == NULL)
		return LAYOUT_PGNO_LIMIT;
	shared_durable(db->shared, record, &durable);
	if (record->high_water > mark)
		mark = record->high_water;
	shared_head(db->shared, record); /* where a reader may be registering */
	if (record->high_water > mark)
		mark = record->high_water;
	count = db_snapshots(db);
	for (size_t i = 0; i < count; i++) {
		if (shared_reader_record(db->shared, db->snapshots[i], record) != BTS_OK ||
			record->high_water <= mark)
			continue;
		mark = record->high_water;
		*reader = db->snapshots[i];
	}
	db->env->ops->memory(db->env, record, 0);
	return mark;
}

enum bts_err compact_truncate(struct bts *db, bool room, struct bts_compact_info *info, struct bts_error *error)
{
	struct bts_file_identity id;
	bts_txid reader;
	uint64_t size = compact_mark(db, &reader) << db->pager.page_shift;
	int os = db->env->ops->file_identity(db->file, &id);

	if (room)
		size += commit_step(size);
	if (os == 0 && id.size > size) {
		os = db->env->ops->fault(db->env, "compact.truncate");
		if (os == 0)
			os = db->env->ops->file_truncate(db->file, size);
		if (os == 0) {
			info->pages_truncated = (id.size - size) >> db->pager.page_shift;
			id.size = size;
			atomic_store(&db->pager.mapped, 0); /* to be asked for again */
		}
	}
	if (os)
		return error_os(error, os, "cannot truncate %s", db->path);
	info->file_bytes = id.size;
	if (info->reader == 0)
		info->reader = reader;
	return BTS_OK;
}

enum bts_err compact_step(struct bts *db, uint64_t budget, struct compact_bounds *bounds, struct bts_compact_info *info,
	bool *done, struct bts_error *error)
{
	struct bts_error why = {0};
	enum bts_err err;

	/* The pages that a commit needs for itself are an estimate: try with less when it was too low, at last with none. */
	for (;; budget /= 2) {
		*info = (struct bts_compact_info){.size = sizeof(*info)};
		err = compact_commit(db, budget, bounds, info, done, &why);
		if (err != BTS_FULL || why.os != 0 || budget == 0)
			break;
	}
	return err && (err != BTS_FULL || why.os != 0) ? error_set(error, err, why.os, "%s", why.text) : BTS_OK;
}

enum bts_err compact_cut(struct bts *db, bool room, struct bts_compact_info *info, struct bts_error *error)
{
	struct bts_group *group;
	enum bts_err err = bts_group_begin(db, &group, error);

	if (err)
		return err;
	err = compact_truncate(db, room, info, error);
	info->pages = db->space.high_water;
	bts_group_abort(group);
	return err;
}

enum bts_err bts_compact_step(
	struct bts *db, uint64_t budget, struct bts_compact_info *info, struct bts_error *error)
{
	struct bts_compact_info ignored = {.size = sizeof(ignored)};
	enum bts_err err;
	bool done = false;

	if (info == NULL)
		info = &ignored;
	if (info->size != sizeof(*info) || budget == 0)
		return error_set(error, BTS_INVALID, 0,
			"bts_compact_step: a budget of %" PRIu64 " pages, an info of %zu bytes", budget,
			info->size);
	err = compact_step(db, budget, NULL, info, &done, error);
	if (err == BTS_OK)
		err = compact_cut(db, true, info, error);
	info->more = done || info->pages_truncated > 0;
	return err;
}
