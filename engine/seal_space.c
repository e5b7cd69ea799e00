/*
 * The free log of a commit being sealed: which pages it takes and frees, and where that is written down.
 *
 * What the batch released is freed, except what a named snapshot that stays reaches: of catalog, buckets and values the
 * pages with birth <= the number of the newest of those (snapshot.h).  Which of them count, when the batch also creates and
 * deletes some?  One created now does not: it names the state of this very batch, which reaches nothing that the batch
 * released.  One deleted now does not either; what it alone held of pages released *earlier* is found by walking it
 * (snapshot_orphans) against the head *before* the batch, so that what the batch itself released, which that head still
 * reaches, is left to the rule above and nothing is freed twice.
 */
#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"
#include "lease.h"
#include "seal_internal.h"
#include "snapshot.h"

#include <string.h>

#define SEAL_LOG_SLACK 80u /* entries that placing the log pages themselves may add */

static enum bts_err seal_retire(struct seal *seal, const struct page_ptr *ptr, uint64_t pages)
{
	if (!seal_grow(seal, (void **)&seal->retired, &seal->retired_cap, seal->retired_count, sizeof(*seal->retired)))
		return BTS_MEMORY;
	seal->retired[seal->retired_count++] = (struct space_pending){ ptr->pgno, pages, ptr->birth, seal->txid };
	return BTS_OK;
}

static enum bts_err seal_retire_log_page(void *arg, const struct page_ptr *ptr)
{
	return seal_retire(arg, ptr, 1);
}

static enum bts_err seal_retire_orphan(void *arg, const struct page_ptr *ptr, uint64_t pages)
{
	return seal_retire(arg, ptr, pages);
}

/* What the batch released and no named snapshot up to number `held` reaches. */
static enum bts_err seal_retire_freed(struct seal *seal, bts_txid held)
{
	size_t count;
	const struct dirty_freed *freed = dirty_freed(seal->state->dirty, &count);
	enum bts_err err = BTS_OK;

	for (size_t i = 0; i < count && err == BTS_OK; i++)
		if (freed[i].aside || freed[i].ptr.birth > held || SABOTAGE(FAULT_G2_FREE_HELD))
			err = seal_retire(seal, &freed[i].ptr, freed[i].pages);
	return err;
}

/* Of the newest named snapshot before the batch; looked up once for as long as the tree of them stays the same. */
static enum bts_err seal_newest(struct seal *seal, bts_txid *newest)
{
	struct state *state = seal->state;
	struct bts *db = seal->db;
	struct snapshot_list list;
	enum bts_err err = BTS_OK;

	if (!layout_ptr_equal(&db->named_root, &state->base_snapshots.root)) {
		err = snapshot_list_load(&state->ctx, &state->record, &state->base_snapshots, &list);
		if (err == BTS_OK) {
			db->named_root = state->base_snapshots.root;
			db->named_newest = snapshot_newest(&list);
		}
		snapshot_list_fini(&list);
	}
	*newest = db->named_newest;
	return err;
}

enum bts_err seal_release(struct seal *seal)
{
	struct state *state = seal->state;
	struct snapshot_list before = { 0 }, after = { 0 };
	struct snapshot_orphans orphans = { &state->record, &state->base_catalog, &before, &after,
		seal_retire_orphan, seal };
	bts_txid held;
	enum bts_err err;

	if (state->base_snapshots.entries == 0)
		return seal_retire_freed(seal, 0);
	if (layout_ptr_equal(&state->base_snapshots.root, &state->record.snapshots.root)) {
		err = seal_newest(seal, &held);
		return err ? err : seal_retire_freed(seal, held);
	}
	err = snapshot_list_load(&state->ctx, &state->record, &state->base_snapshots, &before);
	if (err == BTS_OK)
		err = snapshot_list_load(&state->ctx, &state->record, &state->record.snapshots, &after);
	if (err == BTS_OK)
		err = seal_retire_freed(seal, snapshot_newest(&after));
	if (err == BTS_OK && !SABOTAGE(FAULT_G3_NO_ORPHANS))
		err = snapshot_orphans(&state->ctx, &orphans);
	snapshot_list_fini(&before);
	snapshot_list_fini(&after);
	return err;
}

/* Behind all that the commit itself has taken: what is missing at the end, free from now on. */
static enum bts_err seal_raise(struct seal *seal)
{
	struct space *space = &seal->db->space;
	uint64_t ready = space_tail(space, seal->state->raise);
	struct space_run run = { space->high_water, seal->state->raise - ready };
	enum bts_err err;

	if (run.count == 0)
		return BTS_OK;
	if (run.count > seal_page_limit(seal) - run.pgno)
		return BTS_FULL;
	err = space_raise(space, run.pgno + run.count);
	if (err == BTS_OK)
		seal->raised = run;
	return err;
}

struct order_key *seal_keys(struct seal *seal, size_t count)
{
	if (!seal_grow(seal, (void **)&seal->keys, &seal->key_cap, 2 * count, sizeof(*seal->keys)))
		return NULL;
	return seal->keys;
}

static enum bts_err seal_delta_retired(struct seal *seal)
{
	struct order_key *keys = seal_keys(seal, seal->retired_count);
	enum bts_err err = BTS_OK;

	if (keys == NULL)
		return BTS_MEMORY;
	for (size_t i = 0; i < seal->retired_count; i++)
		keys[i] = (struct order_key){ seal->retired[i].pgno, i };
	order_keys(keys, keys + seal->retired_count, seal->retired_count);
	for (size_t i = 0; i < seal->retired_count && err == BTS_OK; i++)
		err = freelog_delta_add(&seal->delta,
			(struct space_run){ keys[i].number, seal->retired[keys[i].place].count }, true);
	return err;
}

static enum bts_err seal_delta(struct seal *seal)
{
	enum bts_err err = BTS_OK;

	for (size_t i = 0; i < seal->run_count && err == BTS_OK; i++) {
		/* Numbers above the old mark come from nowhere: only what was free before is an entry. */
		struct space_run run = seal->runs[i];

		if (run.pgno >= seal->old_high_water)
			continue;
		if (run.pgno + run.count > seal->old_high_water)
			run.count = seal->old_high_water - run.pgno;
		err = freelog_delta_add(&seal->delta, run, false);
	}
	for (size_t i = 0; i < seal->leased_count && err == BTS_OK; i++)
		err = freelog_delta_add(&seal->delta, seal->leased[i]->run, false);
	if (seal->lowered > 0 && err == BTS_OK)
		err = freelog_delta_add(&seal->delta, (struct space_run){ seal->old_high_water, seal->lowered }, false);
	if (err == BTS_OK)
		err = freelog_delta_add(&seal->delta, seal->raised, true);
	return err ? err : seal_delta_retired(seal);
}

/* The free set after the commit: what space has now, what is retired, raised, and leased to transactions in progress. */
struct seal_set {
	struct seal *seal;
	bts_pgno state;
	size_t retired;
	bool raised;
	uint32_t lease;
};

static bool seal_uses_lease(const struct seal *seal, uint32_t index)
{
	for (size_t i = 0; i < seal->leased_count; i++)
		if (seal->leased[i]->index == index)
			return true;
	return false;
}

static bool seal_set_lease(struct seal_set *set, struct space_run *run)
{
	struct shared *shared = set->seal->db->shared;

	while (shared_leases(shared) > 0 && set->lease < SHARED_LEASES) {
		uint32_t index = set->lease++;

		if (shared_lease_get(shared, index, &run->pgno, &run->count) != SHARED_LEASE_NONE &&
			!seal_uses_lease(set->seal, index))
			return true;
	}
	return false;
}

static bool seal_set_next(void *arg, struct space_run *run)
{
	struct seal_set *set = arg;

	if (space_next_free(&set->seal->db->space, &set->state, run))
		return true;
	if (set->retired < set->seal->retired_count) {
		*run = (struct space_run){ set->seal->retired[set->retired].pgno, set->seal->retired[set->retired].count };
		set->retired++;
		return true;
	}
	if (!set->raised && set->seal->raised.count > 0) {
		*run = set->seal->raised;
		set->raised = true;
		return true;
	}
	return seal_set_lease(set, run);
}

static enum bts_err seal_log_memory(struct seal *seal, size_t pages)
{
	struct bts_env *env = seal->db->env;
	size_t bytes = pages * seal->db->pager.page_size;

	seal->log_pages = pages;
	if (pages == 0)
		return BTS_OK;
	seal->log_images = env->ops->memory(env, NULL, bytes);
	seal->log_numbers = env->ops->memory(env, NULL, pages * sizeof(*seal->log_numbers));
	if (seal->log_images == NULL || seal->log_numbers == NULL)
		return BTS_MEMORY;
	memset(seal->log_images, 0, bytes);
	return seal_take_pages(seal, seal->log_numbers, pages);
}

static enum bts_err seal_log_condense(struct seal *seal)
{
	struct freelog *log = &seal->state->record.free;
	struct seal_set set = { .seal = seal };
	uint32_t page_size = seal->db->pager.page_size;
	struct space_run run;
	uint64_t runs = 1 + seal->state->raise / 32767;
	enum bts_err err;
	bool condense = true;
	size_t pages;

	err = freelog_pages(&seal->state->ctx, log, seal_retire_log_page, seal);
	if (err)
		return err;
	while (seal_set_next(&set, &run))
		runs += run.count / 32767 + 1;
	pages = freelog_plan(log, 0, runs + SEAL_LOG_SLACK, page_size, &condense);
	err = seal_log_memory(seal, pages);
	if (err == BTS_OK)
		err = seal_raise(seal);
	if (err)
		return err;
	set = (struct seal_set){ .seal = seal };
	freelog_condense(log, seal_set_next, &set, seal->log_images, seal->log_numbers, seal->log_pages, seal->txid,
		page_size);
	return BTS_OK;
}

enum bts_err seal_log(struct seal *seal)
{
	struct freelog *log = &seal->state->record.free;
	uint32_t page_size = seal->db->pager.page_size;
	uint64_t runs = freelog_set_entries(&seal->db->space);
	bool condense = seal->state->condense;
	size_t bound, pages;
	enum bts_err err;

	/* Each run taken or freed is one entry and one more for every 32767 pages of it. */
	bound = seal->run_count + seal->retired_count + 1 + seal->lowered / 32767;
	for (size_t i = 0; i < seal->retired_count; i++)
		bound += seal->retired[i].count / 32767;
	for (size_t i = 0; i < seal->run_count; i++)
		bound += seal->runs[i].count / 32767;
	for (size_t i = 0; i < seal->leased_count; i++)
		bound += 1 + seal->leased[i]->run.count / 32767;
	bound += 1 + seal->state->raise / 32767;
	pages = freelog_plan(log, bound, runs, page_size, &condense);
	if (condense)
		return seal_log_condense(seal);
	if (pages > 0) {
		pages = freelog_plan(log, bound + SEAL_LOG_SLACK, runs, page_size, &condense);
		if (condense)
			return seal_log_condense(seal);
	}
	err = seal_log_memory(seal, pages);
	if (err == BTS_OK)
		err = seal_raise(seal);
	if (err == BTS_OK)
		err = seal_delta(seal);
	if (err)
		return err;
	freelog_append(log, &seal->delta, seal->log_images, seal->log_numbers, pages, seal->txid, page_size);
	return BTS_OK;
}
