/*
 * The proof of a frame: its states (B3, R1, R4).
 *
 * Named snapshots above the base are states between the base's head and the target's head.  They are proven
 * as a chain, each against the one before, so that each page of the frame is reached once, in the oldest
 * state that has it, and what a state has in common with the one before is met there.  Named snapshots up to
 * the base must be the base's own.
 *
 * Free after the frame is what was released between the base's head and the first state of the chain, unless
 * a named snapshot that stays holds it (birth <= its number; snapshot.h), and what only those reach that are
 * gone.  What is released further up the chain is still reached from the state before.
 */
#include "apply.h"

#include <inttypes.h>
#include <string.h>

#include "error.h"

static bool states_same_tree(const struct tree *a, const struct tree *b)
{
	uint8_t x[META_TREE_SIZE], y[META_TREE_SIZE];

	meta_put_tree(x, a);
	meta_put_tree(y, b);
	return memcmp(x, y, sizeof(x)) == 0;
}

static bool states_same(const struct snapshot *a, const struct snapshot *b)
{
	uint8_t x[SNAPSHOT_RECORD_MAX], y[SNAPSHOT_RECORD_MAX];

	return snapshot_encode(a, x) == snapshot_encode(b, y) && memcmp(x, y, sizeof(x)) == 0;
}

static enum bts_err states_refuse(struct bts_apply *apply, const struct snapshot *snapshot, const char *what)
{
	return error_set(&apply->error, BTS_CORRUPT, 0,
		"frame refused: named snapshot of transaction %" PRIu64 ": %s", snapshot->txid, what);
}

/* Both lists, and what they share. */
static enum bts_err states_load(struct bts_apply *apply, struct tree_ctx *old_ctx)
{
	struct commit_record *old = &apply->db->slot.record;
	struct tree_ctx ctx = apply_new_ctx(apply);
	struct snapshot_list *kept = &apply->named_kept;
	struct bts_env *env = apply->db->env;
	enum bts_err err;

	err = snapshot_list_load(old_ctx, old, &old->snapshots, &apply->named_before);
	if (!err)
		err = snapshot_list_load(&ctx, &apply->record, &apply->record.snapshots, &apply->named);
	if (err)
		return err;
	*kept = (struct snapshot_list){.env = env};
	kept->items = env->ops->memory(env, NULL, (apply->named.count + 1) * sizeof(*kept->items));
	if (!kept->items)
		return error_set(&apply->error, BTS_MEMORY, 0, "no memory for %zu named snapshots",
			apply->named.count);
	for (size_t i = 0; i < apply->named.count && apply->named.items[i].txid <= apply->base.txid; i++) {
		const struct snapshot *now = &apply->named.items[i];
		const struct snapshot *before = snapshot_find(&apply->named_before, now->txid);

		if (!before || !states_same(before, now))
			return states_refuse(apply, now, "not one of this file");
		kept->items[kept->count++] = *now;
	}
	return BTS_OK;
}

static enum bts_err states_release(void *arg, const struct page_ptr *ptr, uint64_t pages)
{
	struct bts_apply *apply = arg;
	enum bts_err err = apply_grow(apply, (void **)&apply->released, apply->released_count,
		&apply->released_cap, sizeof(*apply->released));

	if (!err)
		apply->released[apply->released_count++] =
			(struct apply_released){ptr->pgno, pages, ptr->birth};
	return err;
}

static enum bts_err states_chain(struct bts_apply *apply)
{
	const struct commit_record *old = &apply->db->slot.record, *now = &apply->record;
	struct apply_state before = {apply->base.txid, old->high_water, old->catalog}, state;
	enum bts_err err = BTS_OK;
	bool first = true;

	for (size_t i = apply->named_kept.count; i <= apply->named.count && !err; i++) {
		const struct snapshot *snapshot = i < apply->named.count ? &apply->named.items[i] : NULL;

		if (snapshot)
			state = (struct apply_state){snapshot->txid, snapshot->high_water, snapshot->catalog};
		else
			state = (struct apply_state){now->txid, now->high_water, now->catalog};
		if (snapshot && snapshot->high_water > now->high_water)
			state.limit = now->high_water;
		if (snapshot && snapshot->txid == now->txid &&
			!states_same_tree(&snapshot->catalog, &now->catalog))
			return states_refuse(apply, snapshot, "not the state it names");
		err = apply_graft_state(apply, &before, &state, first);
		before = state;
		first = false;
	}
	return err;
}

enum bts_err apply_states(struct bts_apply *apply)
{
	const struct commit_record *old = &apply->db->slot.record, *now = &apply->record;
	struct tree_ctx ctx = {.pager = &apply->db->pager,
		.limit = old->high_water,
		.newest = old->txid,
		.error = &apply->error};
	struct snapshot_orphans orphans = {
		old, &old->catalog, &apply->named_before, &apply->named_kept, states_release, apply};
	enum bts_err err;

	redirect_use(&ctx, apply->redirect);
	err = states_load(apply, &ctx);
	if (!err)
		err = states_chain(apply);
	if (!err)
		err = snapshot_orphans(&ctx, &orphans);
	if (!err && now->buckets != now->catalog.entries)
		err = error_set(&apply->error, BTS_CORRUPT, 0,
			"frame refused: %" PRIu64 " buckets, and %" PRIu64 " in the catalog", now->buckets,
			now->catalog.entries);
	return err;
}
