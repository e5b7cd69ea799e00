/*
 * The proof of a frame (R1, R4), by reading alone.
 *
 * 1. Closure.  From every root of the new record, along edges with birth > base: each leads to a unit of the
 * frame that is what the edge says, and every unit is reached exactly once.  The other edges, with birth <=
 * base, are kept: the frame claims that what they lead to is in this file.
 * 2. Graft.  From every root of the old record, turning back at kept pointers.  Every kept pointer must be
 * met, equal in all its parts: then it is live here, whole.  What else is met is what the new state does not
 * reach: released.  Named snapshots make a chain of states, each proven so against the one before (apply_states.c).
 * 3. Free set.  The new record's must be exactly the old one, plus the raised range, plus what was released,
 * minus the pages of the frame, none of which may be kept.  So reachable and free are a partition again (G2).
 */
#include "apply.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"
#include "homes.h"

enum bts_err apply_refuse_page(struct bts_apply *apply, bts_pgno pgno, const char *what)
{
	return error_set(&apply->error, BTS_CORRUPT, 0, "frame refused: page %" PRIu64 ": %s", pgno, what);
}

static int proof_compare_units(const void *a, const void *b)
{
	const struct apply_unit *x = a, *y = b;

	return (x->pgno > y->pgno) - (x->pgno < y->pgno);
}

static enum bts_err proof_sort(struct bts_apply *apply)
{
	if (apply->unit_count)
		qsort(apply->units, apply->unit_count, sizeof(*apply->units), proof_compare_units);
	for (size_t i = 0; i < apply->unit_count; i++) {
		const struct apply_unit *unit = &apply->units[i];

		if (unit->pgno + unit->count > apply->record.high_water)
			return apply_refuse_page(apply, unit->pgno, "beyond the high-water mark");
		if (i > 0 && unit[-1].pgno + unit[-1].count > unit->pgno)
			return apply_refuse_page(apply, unit->pgno, "brought twice");
	}
	return BTS_OK;
}

struct apply_unit *apply_unit_find(const struct bts_apply *apply, bts_pgno pgno)
{
	struct apply_unit key = {.pgno = pgno};

	return apply->unit_count
		       ? bsearch(&key, apply->units, apply->unit_count, sizeof(key), proof_compare_units)
		       : NULL;
}

const uint8_t *apply_unit_image(const struct bts_apply *apply, const struct apply_unit *unit)
{
	if (unit->where)
		return apply->log_map + unit->where;
	return pager_raw(&apply->db->pager, unit->pgno, unit->count);
}

/* The pager's view of the new state before it is home. */
static const uint8_t *proof_redirect(void *arg, const struct page_ptr *ptr, uint64_t count, _Atomic bool **verified)
{
	struct bts_apply *apply = arg;
	const struct apply_unit *unit = apply_unit_find(apply, ptr->pgno);

	if (unit && unit->where && count <= unit->count) {
		*verified = apply_unverified(apply);
		return apply_unit_image(apply, unit);
	}
	return apply->redirect ? redirect_find(apply->redirect, ptr, count, verified) : NULL;
}

struct tree_ctx apply_old_ctx(struct bts_apply *apply)
{
	const struct commit_record *old = &apply->db->slot.record;
	struct tree_ctx ctx = {.pager = &apply->db->pager,
		.limit = old->high_water,
		.newest = old->txid,
		.error = &apply->error};

	redirect_use(&ctx, apply->redirect);
	return ctx;
}

struct tree_ctx apply_new_ctx(struct bts_apply *apply)
{
	struct tree_ctx ctx = {
		.pager = &apply->db->pager,
		.limit = apply->record.high_water,
		.newest = apply->record.txid,
		.error = &apply->error,
		.redirect = proof_redirect,
		.redirect_arg = apply,
	};

	return ctx;
}

static enum bts_err proof_record(struct bts_apply *apply, struct bts_slice bytes)
{
	const struct commit_record *old = &apply->db->slot.record;
	struct commit_record *record = &apply->record;
	struct bts_position position;
	enum bts_err err = meta_record_decode(bytes.data, bytes.size, record, &apply->error);

	if (err)
		return err;
	meta_position(record, &position);
	if (memcmp(position.database, apply->target.database, 16) || position.epoch != apply->target.epoch ||
		position.epoch_random != apply->target.epoch_random || position.txid != apply->target.txid ||
		memcmp(position.chain, apply->target.chain, 16))
		return error_set(&apply->error, BTS_CORRUPT, 0,
			"frame refused: its record is of transaction %" PRIu64 ", not of %" PRIu64
			" as announced, or another "
			"history",
			position.txid, apply->target.txid);
	if (record->page_size != old->page_size || record->first != old->first)
		return error_set(&apply->error, BTS_CORRUPT, 0, "frame refused: pages of %" PRIu32 " bytes",
			record->page_size);
	if (!apply->fetch && record->next_tree < old->next_tree)
		return error_set(&apply->error, BTS_CORRUPT, 0, "frame refused: its counters go backwards");
	if (record->high_water > apply->db->pager.map_bytes >> apply->db->pager.page_shift)
		return error_set(&apply->error, BTS_LIMIT, 0,
			"a file of %" PRIu64 " pages is more than can be mapped", record->high_water);
	return BTS_OK;
}

/* Set or clear the bits of a run; false when one of them was so already. */
static bool proof_bits(uint64_t *bits, bts_pgno at, uint64_t count, bool set)
{
	while (count > 0) {
		uint64_t part = 64 - at % 64 < count ? 64 - at % 64 : count;
		uint64_t mask = (part == 64 ? UINT64_MAX : (UINT64_C(1) << part) - 1) << at % 64;

		if (set ? (bits[at / 64] & mask) != 0 : (bits[at / 64] & mask) != mask)
			return false;
		bits[at / 64] ^= mask;
		at += part;
		count -= part;
	}
	return true;
}

static enum bts_err proof_expected(struct bts_apply *apply, uint64_t *bits)
{
	const struct space *old = &apply->db->space;
	bts_pgno first = old->first;

	for (bts_pgno i = 0; i < (old->high_water - first + 63) / 64; i++)
		bits[i] = old->bits[i] | old->waiting[i];
	/* What lies behind the mark of the state before is free here already, as far as this map reaches. */
	if (apply->record.high_water > old->high_water &&
		!proof_bits(bits, old->high_water - first, apply->record.high_water - old->high_water, true))
		return apply_refuse_page(apply, old->high_water, "free beyond the high-water mark of this file");
	for (size_t i = 0; i < apply->released_count; i++) {
		const struct apply_released *r = &apply->released[i];

		if (!proof_bits(bits, r->pgno - first, r->pages, true))
			return apply_refuse_page(apply, r->pgno, "free and in use at once in this file");
	}
	for (size_t i = 0; i < apply->unit_count; i++) {
		const struct apply_unit *unit = &apply->units[i];

		if (!proof_bits(bits, unit->pgno - first, unit->count, false) && !SABOTAGE(FAULT_R1_NO_CLOSURE))
			return apply_refuse_page(apply, unit->pgno, "brought, but the state before is kept there");
	}
	return apply->first.on ? apply_first_live(apply, bits) : BTS_OK;
}

/* Below the mark what the record says, and behind it, where a mark that fell leaves pages, all free. */
static enum bts_err proof_compare(struct bts_apply *apply, const uint64_t *bits, uint64_t pages)
{
	uint64_t below = apply->record.high_water - apply->record.first;

	for (uint64_t i = 0; i < (pages + 63) / 64; i++) {
		uint64_t word = i < (below + 63) / 64 ? apply->space.bits[i] : 0;
		uint64_t behind = i * 64 >= below ? UINT64_MAX : below - i * 64 >= 64 ? 0 : UINT64_MAX << (below - i * 64);

		word |= behind;
		if (pages - i * 64 < 64)
			word &= (UINT64_C(1) << (pages - i * 64)) - 1;
		if (bits[i] != word && !SABOTAGE(FAULT_R1_NO_CLOSURE))
			return apply_refuse_page(apply,
				apply->record.first + i * 64 + (uint64_t)__builtin_ctzll(bits[i] ^ word),
				"in the free set and should not be, or the reverse");
	}
	return BTS_OK;
}

/* Load the new free set, compare it with what it must be. */
static enum bts_err proof_free_set(struct bts_apply *apply)
{
	struct bts_env *env = apply->db->env;
	bts_pgno reach = apply->record.high_water > apply->db->space.high_water ? apply->record.high_water
										: apply->db->space.high_water;
	uint64_t pages = reach - apply->record.first, words = (pages + 63) / 64;
	struct tree_ctx ctx = apply_new_ctx(apply);
	uint64_t *bits = env->ops->memory(env, NULL, (words + 1) * sizeof(*bits));
	enum bts_err err;

	if (!bits)
		return error_set(&apply->error, BTS_MEMORY, 0, "no memory for the free map");
	memset(bits, 0, (words + 1) * sizeof(*bits));
	err = proof_expected(apply, bits);
	if (!err && space_init(&apply->space, env, apply->record.first, apply->record.high_water))
		err = error_set(&apply->error, BTS_MEMORY, 0, "no memory for the free map");
	else if (!err)
		apply->space_there = true;
	if (!err)
		err = freelog_load(&ctx, &apply->record.free, &apply->space);
	if (!err)
		err = proof_compare(apply, bits, pages);
	env->ops->memory(env, bits, 0);
	return err;
}

/* Of a redirected unit's pages in [from, end) those whose homes are not taken yet: what stands there is needed in an interval. */
static enum bts_err proof_needs(struct bts_apply *apply, bts_pgno from, bts_pgno end, const struct space_pending *entry)
{
	while (from < end) {
		bts_pgno to = from;
		enum bts_err err;

		while (to < end && !homes_taken(apply->db, to))
			to++;
		if (to == from) {
			from++;
			continue;
		}
		err = apply_grow(apply, (void **)&apply->needs, apply->need_count, &apply->need_cap, sizeof(*apply->needs));
		if (err)
			return err;
		apply->needs[apply->need_count++] = (struct apply_need){from, to - from, entry->birth, entry->freed};
		from = to;
	}
	return BTS_OK;
}

/* The redirected units that lie on an entry's pages. */
static enum bts_err proof_redirected(struct bts_apply *apply, const struct space_pending *entry)
{
	size_t low = 0, high = apply->unit_count;
	bts_pgno end = entry->pgno + entry->count;
	enum bts_err err = BTS_OK;

	while (low < high) { /* the first unit that ends behind its first page */
		size_t middle = (low + high) / 2;

		if (apply->units[middle].pgno + apply->units[middle].count > entry->pgno)
			high = middle;
		else
			low = middle + 1;
	}
	for (; !err && low < apply->unit_count && apply->units[low].pgno < end; low++) {
		const struct apply_unit *unit = &apply->units[low];

		if (unit->where)
			err = proof_needs(apply, unit->pgno > entry->pgno ? unit->pgno : entry->pgno,
				unit->pgno + unit->count < end ? unit->pgno + unit->count : end, entry);
	}
	return err;
}

/* Pages that were needed in [birth, freed): homes of what the frame takes (homes.h), the others wait for their readers. */
static enum bts_err proof_hold(struct bts_apply *apply, const struct space_pending *entry)
{
	enum bts_err err = proof_redirected(apply, entry);

	if (err)
		return err;
	err = space_reach(&apply->space, entry->pgno + entry->count);
	if (!err)
		err = space_hold(
			&apply->space, (struct space_run){entry->pgno, entry->count}, entry->birth, entry->freed);
	return err ? error_set(&apply->error, err, 0, "no memory for the free map") : BTS_OK;
}

static enum bts_err proof_hold_all(struct bts_apply *apply)
{
	const struct space *old = &apply->db->space;
	enum bts_err err = BTS_OK;

	for (size_t i = 0; !err && i < old->pending_count; i++)
		err = proof_hold(apply, &old->pending[i]);
	for (size_t s = 0; s < old->shelf_count; s++)
		for (size_t i = 0; !err && i < old->shelves[s]->count; i++)
			err = proof_hold(apply, &old->shelves[s]->entries[i]);
	for (size_t i = 0; !err && i < apply->released_count; i++) {
		const struct apply_released *r = &apply->released[i];
		struct space_pending entry = {r->pgno, r->pages, r->birth, apply->target.txid};

		err = proof_hold(apply, &entry);
	}
	return err;
}

/* The new history knows the commit that this file stands on. */
static enum bts_err proof_history(struct bts_apply *apply)
{
	struct tree_ctx ctx = apply_new_ctx(apply);
	enum bts_standing standing;
	enum bts_err err;

	if (!apply->base.txid)
		return BTS_OK;
	err = history_standing(&ctx, &apply->record, &apply->base, &standing);
	if (!err && standing != BTS_STANDING_KNOWN)
		err = error_set(&apply->error, BTS_DIVERGED, 0,
			"frame refused: transaction %" PRIu64 " of this file is not in its history",
			apply->base.txid);
	return err;
}

static enum bts_err proof_reached(struct bts_apply *apply)
{
	if (apply->first.on)
		return apply_first_reached(apply);
	for (size_t i = 0; apply->reached < apply->unit_count && !SABOTAGE(FAULT_R1_NO_CLOSURE); i++)
		if (!apply->units[i].reached)
			return apply_refuse_page(apply, apply->units[i].pgno, "reached from no root");
	return BTS_OK;
}

/* A graft: nothing is taken over from the state before unseen. */
static enum bts_err proof_whole(struct bts_apply *apply)
{
	enum bts_err err = apply_whole(apply);

	if (!err)
		err = proof_reached(apply);
	if (!err)
		err = proof_hold_all(apply);
	return err ? err : apply_fault(apply, "apply.proven");
}

enum bts_err apply_prove(struct bts_apply *apply, struct bts_slice record)
{
	enum bts_err err = proof_record(apply, record);

	if (!err && apply->redirected)
		err = apply_map_log(apply);
	if (!err)
		err = apply->first.on ? apply_first_prove(apply) : proof_sort(apply);
	if (!err && apply->fetch)
		return proof_whole(apply);
	if (!err)
		err = apply_graft_aside(apply);
	if (!err)
		err = apply_states(apply);
	if (!err)
		err = proof_reached(apply);
	if (!err)
		err = proof_free_set(apply);
	if (!err)
		err = proof_history(apply);
	if (!err)
		err = proof_hold_all(apply);
	return err ? err : apply_fault(apply, "apply.proven");
}
