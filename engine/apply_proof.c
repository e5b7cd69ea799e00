/*
 * The proof of a frame (R1, R4), by reading alone.
 *
 * 1. Closure.  From every root of the new record, along edges with birth > base: each leads to a unit of the
 * frame that is what the edge says, and every unit is reached exactly once.  The other edges, with birth <=
 * base, are kept: the frame claims that what they lead to is in this file.
 * 2. Graft.  From every root of the old record, turning back at kept pointers.  Every kept pointer must be
 * met, equal in all its parts: then it is live here, whole.  What else is met is what the new state does not
 * reach: released.
 * 3. Free set.  The new record's must be exactly the old one, plus the raised range, plus what was released,
 * minus the pages of the frame, none of which may be kept.  So reachable and free are a partition again (G2).
 */
#include "apply.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/ensure.h"
#include "error.h"
#include "node.h"

static enum bts_err proof_refuse(struct bts_apply *apply, bts_pgno pgno, const char *what)
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
			return proof_refuse(apply, unit->pgno, "beyond the high-water mark");
		if (i > 0 && unit[-1].pgno + unit[-1].count > unit->pgno)
			return proof_refuse(apply, unit->pgno, "brought twice");
	}
	return BTS_OK;
}

static struct apply_unit *proof_find(const struct bts_apply *apply, bts_pgno pgno)
{
	struct apply_unit key = {.pgno = pgno};

	return apply->unit_count
		       ? bsearch(&key, apply->units, apply->unit_count, sizeof(key), proof_compare_units)
		       : NULL;
}

static const uint8_t *proof_image(const struct bts_apply *apply, const struct apply_unit *unit)
{
	if (unit->where)
		return apply->pending.map + unit->where;
	return pager_raw(&apply->db->pager, unit->pgno, unit->count);
}

/* The pager's view of the new state before it is home. */
static const uint8_t *proof_redirect(void *arg, const struct page_ptr *ptr, uint64_t count)
{
	struct bts_apply *apply = arg;
	const struct apply_unit *unit = proof_find(apply, ptr->pgno);

	if (unit && unit->where && count <= unit->count)
		return proof_image(apply, unit);
	return pager_raw(&apply->db->pager, ptr->pgno, count);
}

static struct tree_ctx proof_new_state(struct bts_apply *apply)
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
	if (record->high_water < old->high_water || record->next_tree < old->next_tree)
		return error_set(&apply->error, BTS_CORRUPT, 0, "frame refused: its counters go backwards");
	if (record->high_water > apply->db->pager.map_bytes >> apply->db->pager.page_shift)
		return error_set(&apply->error, BTS_LIMIT, 0,
			"a file of %" PRIu64 " pages is more than can be mapped", record->high_water);
	return BTS_OK;
}

/* The unit that edge names, as it says. */
static enum bts_err proof_match(
	struct bts_apply *apply, const struct traverse_edge *edge, struct apply_unit **out)
{
	struct apply_unit *unit = proof_find(apply, edge->ptr.pgno);

	if (!unit)
		return proof_refuse(apply, edge->ptr.pgno, "missing");
	if (unit->birth != edge->ptr.birth || unit->crc != edge->ptr.crc || unit->count != edge->pages ||
		unit->kind != edge->kind)
		return proof_refuse(apply, edge->ptr.pgno, "not what the pointer to it says");
	if (unit->reached)
		return proof_refuse(apply, edge->ptr.pgno, "reached twice");
	if (edge->ptr.birth > edge->parent_birth)
		return proof_refuse(apply, edge->ptr.pgno, "born after the page that points to it");
	unit->reached = true;
	*out = unit;
	return BTS_OK;
}

/* Bytes of a unit against the pointer; the tags of verified pages are not asked, a peer may have aimed at
 * them. */
static enum bts_err proof_bytes(
	struct bts_apply *apply, const struct traverse_edge *edge, const uint8_t *image, uint64_t crc_bytes)
{
	if (!image)
		return error_set(&apply->error, BTS_IO, 0, "page %" PRIu64 ": cannot read back what was received",
			edge->ptr.pgno);
	if (layout_pgno(image) != edge->ptr.pgno || layout_birth(image) != edge->ptr.birth ||
		layout_crc(image) != edge->ptr.crc)
		return proof_refuse(apply, edge->ptr.pgno, "its header is of another page");
	if (pager_crc(image, crc_bytes) != edge->ptr.crc)
		return proof_refuse(apply, edge->ptr.pgno, "checksum mismatch");
	if (layout_pages(image) != edge->pages)
		return proof_refuse(apply, edge->ptr.pgno, "its header counts other pages");
	return BTS_OK;
}

static enum bts_err proof_node(
	struct bts_apply *apply, const struct traverse_edge *edge, const uint8_t *image)
{
	uint32_t page_size = apply->record.page_size;
	enum bts_err err = proof_bytes(apply, edge, image, page_size);
	const char *wrong;

	if (err)
		return err;
	if (edge->kind == BTS_KIND_FREE_LOG) /* its entries are checked when the free set is loaded */
		return layout_type(image) == LAYOUT_FREE_LOG && layout_tree(image) == LAYOUT_TREE_FREE_LOG
			       ? BTS_OK
			       : proof_refuse(apply, edge->ptr.pgno, "not a page of the free log");
	wrong = node_check(image, page_size, apply->record.high_water, edge->ptr.birth);
	if (!wrong && (layout_tree(image) != edge->tree || layout_level(image) != edge->level))
		wrong = "a node of another tree or level";
	return wrong ? proof_refuse(apply, edge->ptr.pgno, wrong) : BTS_OK;
}

static bool proof_zero(const uint8_t *bytes, uint64_t size)
{
	return size == 0 || (bytes[0] == 0 && !memcmp(bytes, bytes + 1, size - 1));
}

static enum bts_err proof_extent(
	struct bts_apply *apply, const struct traverse_edge *edge, const uint8_t *image)
{
	uint32_t page_size = apply->record.page_size;
	uint64_t headers = layout_extent_header_pages(edge->size, page_size) * page_size;
	uint64_t table = LAYOUT_EXTENT_TABLE_AT + 4 * layout_extent_chunks(edge->size);
	const uint8_t *payload = image + headers;
	enum bts_err err = proof_bytes(apply, edge, image, headers);

	if (err)
		return err;
	if (layout_type(image) != LAYOUT_EXTENT ||
		bytes_get_u64(image + LAYOUT_EXTENT_SIZE_AT) != edge->size ||
		bytes_get_u32(image + LAYOUT_EXTENT_HEADERS_AT) != headers / page_size)
		return proof_refuse(apply, edge->ptr.pgno, "not the large value that belongs here");
	for (uint64_t at = 0, i = 0; at < edge->size; at += LAYOUT_CHUNK, i++) {
		uint64_t part = edge->size - at < LAYOUT_CHUNK ? edge->size - at : LAYOUT_CHUNK;

		if (crc32c(0, payload + at, part) != bytes_get_u32(image + LAYOUT_EXTENT_TABLE_AT + 4 * i))
			return proof_refuse(apply, edge->ptr.pgno, "checksum mismatch in a large value");
	}
	if (!proof_zero(image + table, headers - table) ||
		!proof_zero(payload + edge->size, edge->pages * page_size - headers - edge->size))
		return proof_refuse(apply, edge->ptr.pgno, "bytes behind the end of a large value");
	return BTS_OK;
}

static size_t proof_hash(const struct bts_apply *apply, bts_pgno pgno)
{
	return (size_t)(pgno * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (apply->kept_cap - 1);
}

/* The place of a kept pointer to pgno: its entry, or the free one where it would be. */
static struct apply_kept *proof_kept(const struct bts_apply *apply, bts_pgno pgno)
{
	size_t i = proof_hash(apply, pgno);

	while (apply->kept[i].edge.ptr.pgno && apply->kept[i].edge.ptr.pgno != pgno)
		i = (i + 1) & (apply->kept_cap - 1);
	return &apply->kept[i];
}

static enum bts_err proof_kept_room(struct bts_apply *apply)
{
	struct bts_env *env = apply->db->env;
	struct apply_kept *old = apply->kept;
	size_t cap = apply->kept_cap;

	if (cap && (apply->kept_count + 1) * 4 <= cap * 3)
		return BTS_OK;
	apply->kept_cap = cap ? cap * 2 : 256;
	apply->kept = env->ops->memory(env, NULL, apply->kept_cap * sizeof(*old));
	if (!apply->kept) {
		apply->kept = old;
		apply->kept_cap = cap;
		return error_set(&apply->error, BTS_MEMORY, 0, "no memory for a frame with %zu edges",
			apply->kept_count);
	}
	memset(apply->kept, 0, apply->kept_cap * sizeof(*old));
	for (size_t i = 0; i < cap; i++)
		if (old[i].edge.ptr.pgno)
			*proof_kept(apply, old[i].edge.ptr.pgno) = old[i];
	env->ops->memory(env, old, 0);
	return BTS_OK;
}

static enum bts_err proof_keep(struct bts_apply *apply, const struct traverse_edge *edge)
{
	const struct commit_record *old = &apply->db->slot.record;
	struct apply_kept *kept;
	enum bts_err err;

	if (edge->ptr.birth == 0 || edge->ptr.pgno < old->first || edge->ptr.pgno >= old->high_water ||
		edge->pages > old->high_water - edge->ptr.pgno)
		return proof_refuse(apply, edge->ptr.pgno, "kept, but not of the state before");
	err = proof_kept_room(apply);
	if (err)
		return err;
	kept = proof_kept(apply, edge->ptr.pgno);
	if (kept->edge.ptr.pgno)
		return proof_refuse(apply, edge->ptr.pgno, "kept twice");
	kept->edge = *edge;
	apply->kept_count++;
	return BTS_OK;
}

static enum bts_err proof_closure(struct bts_apply *apply)
{
	struct traverse *t = &apply->traverse;
	const struct traverse_edge *edge;
	struct apply_unit *unit = NULL;
	const uint8_t *image;
	size_t reached = 0;
	enum bts_err err;

	traverse_init(t, &apply->record, &apply->error);
	while ((err = traverse_next(t, &edge)) == BTS_OK) {
		if (edge->ptr.birth <= apply->base.txid) {
			err = proof_keep(apply, edge);
			if (err)
				return err;
			continue;
		}
		err = proof_match(apply, edge, &unit);
		if (err)
			return err;
		reached++;
		image = proof_image(apply, unit);
		if (!image)
			return error_set(&apply->error, BTS_IO, 0,
				"page %" PRIu64 " of a frame cannot be read back", edge->ptr.pgno);
		err = edge->kind == BTS_KIND_EXTENT ? proof_extent(apply, edge, image)
						    : proof_node(apply, edge, image);
		if (!err && edge->kind == BTS_KIND_NODE)
			err = apply_tally_node(apply, edge, image, true);
		if (!err && edge->kind != BTS_KIND_EXTENT)
			err = traverse_descend(t, image);
		if (err)
			return err;
	}
	if (err != BTS_NOT_FOUND)
		return err;
	for (size_t i = 0; reached < apply->unit_count; i++)
		if (!apply->units[i].reached)
			return proof_refuse(apply, apply->units[i].pgno, "reached from no root");
	return BTS_OK;
}

static int proof_compare_keys(struct bts_slice a, struct bts_slice b)
{
	int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

/*
 * A kept subtree lies within its new separators: surely when these are no narrower than the old ones, else
 * when its first and last key do.
 */
static enum bts_err proof_kept_keys(struct bts_apply *apply, struct tree_ctx *ctx,
	const struct traverse_edge *now, const struct traverse_edge *old)
{
	bool low = proof_compare_keys(now->low, old->low) <= 0;
	bool high = !now->high.data || (old->high.data && proof_compare_keys(old->high, now->high) <= 0);

	for (int last = low ? 1 : 0; last < (high ? 1 : 2); last++) {
		struct page_ptr ptr = old->ptr;
		const uint8_t *image = NULL;

		for (int level = old->level; level >= 0; level--) {
			enum bts_err err = pager_node(ctx, &ptr, old->tree, level, &image);

			if (err)
				return err;
			if (layout_count(image) == 0)
				return proof_refuse(apply, ptr.pgno, "an empty node below a branch");
			if (level > 0)
				ptr = node_child(image, last ? layout_count(image) - 1u : 0);
		}
		if (last ? proof_compare_keys(node_key(image, layout_count(image) - 1u), now->high) >= 0
			 : proof_compare_keys(node_key(image, 0), now->low) < 0)
			return proof_refuse(
				apply, old->ptr.pgno, "kept under separators that its keys are not within");
	}
	return BTS_OK;
}

/* An edge of the old state: *kept says that the new state has it too. */
static enum bts_err proof_meet(
	struct bts_apply *apply, struct tree_ctx *ctx, const struct traverse_edge *edge, bool *is_kept)
{
	struct apply_kept *kept = apply->kept_cap ? proof_kept(apply, edge->ptr.pgno) : NULL;

	*is_kept = kept && layout_ptr_equal(&kept->edge.ptr, &edge->ptr);
	if (!*is_kept)
		return BTS_OK;
	if (kept->met || kept->edge.kind != edge->kind || kept->edge.tree != edge->tree ||
		kept->edge.level != edge->level || kept->edge.size != edge->size)
		return proof_refuse(apply, edge->ptr.pgno, "kept as something else than it is");
	kept->met = true;
	return edge->kind == BTS_KIND_NODE ? proof_kept_keys(apply, ctx, &kept->edge, edge) : BTS_OK;
}

static enum bts_err proof_release(struct bts_apply *apply, const struct traverse_edge *edge)
{
	enum bts_err err = apply_grow(apply, (void **)&apply->released, apply->released_count,
		&apply->released_cap, sizeof(*apply->released));

	if (!err)
		apply->released[apply->released_count++] =
			(struct apply_released){edge->ptr.pgno, edge->pages, edge->ptr.birth};
	return err;
}

static enum bts_err proof_graft(struct bts_apply *apply)
{
	const struct commit_record *old = &apply->db->slot.record;
	struct traverse *t = &apply->traverse;
	struct tree_ctx ctx = {.pager = &apply->db->pager,
		.limit = old->high_water,
		.newest = old->txid,
		.error = &apply->error};
	const struct traverse_edge *edge;
	const uint8_t *image;
	size_t met = 0;
	enum bts_err err;
	bool kept;

	traverse_init(t, old, &apply->error);
	while ((err = traverse_next(t, &edge)) == BTS_OK) {
		err = proof_meet(apply, &ctx, edge, &kept);
		met += kept;
		if (!err && !kept)
			err = proof_release(apply, edge);
		if (!err && !kept && edge->kind == BTS_KIND_NODE)
			err = pager_node(&ctx, &edge->ptr, edge->tree, edge->level, &image);
		else if (!err && !kept && edge->kind == BTS_KIND_FREE_LOG)
			err = pager_free_log(&ctx, &edge->ptr, &image);
		if (!err && !kept && edge->kind == BTS_KIND_NODE)
			err = apply_tally_node(apply, edge, image, false);
		if (!err && !kept && edge->kind != BTS_KIND_EXTENT)
			err = traverse_descend(t, image);
		if (err)
			return err;
	}
	if (err != BTS_NOT_FOUND)
		return err;
	for (size_t i = 0; met < apply->kept_count; i++)
		if (apply->kept[i].edge.ptr.pgno && !apply->kept[i].met)
			return proof_refuse(
				apply, apply->kept[i].edge.ptr.pgno, "kept, but not live in this file");
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
	if (!proof_bits(bits, old->high_water - first, apply->record.high_water - old->high_water, true))
		return proof_refuse(apply, old->high_water, "free beyond the high-water mark of this file");
	for (size_t i = 0; i < apply->released_count; i++) {
		const struct apply_released *r = &apply->released[i];

		if (!proof_bits(bits, r->pgno - first, r->pages, true))
			return proof_refuse(apply, r->pgno, "free and in use at once in this file");
	}
	for (size_t i = 0; i < apply->unit_count; i++) {
		const struct apply_unit *unit = &apply->units[i];

		if (!proof_bits(bits, unit->pgno - first, unit->count, false))
			return proof_refuse(apply, unit->pgno, "brought, but the state before is kept there");
	}
	return BTS_OK;
}

/* Load the new free set, compare it with what it must be. */
static enum bts_err proof_free_set(struct bts_apply *apply)
{
	struct bts_env *env = apply->db->env;
	uint64_t pages = apply->record.high_water - apply->record.first, words = (pages + 63) / 64;
	struct tree_ctx ctx = proof_new_state(apply);
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
	for (uint64_t i = 0; !err && i < words; i++)
		if (bits[i] != apply->space.bits[i])
			err = proof_refuse(apply,
				apply->record.first + i * 64 +
					(uint64_t)__builtin_ctzll(bits[i] ^ apply->space.bits[i]),
				"in the free set and should not be, or the reverse");
	env->ops->memory(env, bits, 0);
	return err;
}

/* Does a redirected unit lie on any of these pages? */
static bool proof_redirected(const struct bts_apply *apply, bts_pgno pgno, uint64_t pages)
{
	size_t low = 0, high = apply->unit_count;

	while (low < high) { /* the first unit that ends behind pgno */
		size_t middle = (low + high) / 2;

		if (apply->units[middle].pgno + apply->units[middle].count > pgno)
			high = middle;
		else
			low = middle + 1;
	}
	for (; low < apply->unit_count && apply->units[low].pgno < pgno + pages; low++)
		if (apply->units[low].where)
			return true;
	return false;
}

/* Pages that were needed in [birth, freed): those the frame takes make a need, the others wait for their
 * readers. */
static enum bts_err proof_hold(struct bts_apply *apply, const struct space_pending *entry)
{
	enum bts_err err;

	if (proof_redirected(apply, entry->pgno, entry->count)) {
		err = apply_grow(apply, (void **)&apply->needs, apply->need_count, &apply->need_cap,
			sizeof(*apply->needs));
		if (err)
			return err;
		apply->needs[apply->need_count++] = (struct apply_need){entry->birth, entry->freed};
	}
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
	struct tree_ctx ctx = proof_new_state(apply);
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

enum bts_err apply_prove(struct bts_apply *apply, struct bts_slice record)
{
	enum bts_err err = proof_record(apply, record);

	if (!err && apply->pending.file)
		err = pending_map(apply->db, &apply->pending, &apply->error);
	if (!err)
		err = proof_sort(apply);
	if (!err)
		err = proof_closure(apply);
	if (!err)
		err = proof_graft(apply);
	if (!err)
		err = apply_tally_close(apply);
	if (!err)
		err = proof_free_set(apply);
	if (!err)
		err = proof_history(apply);
	if (!err)
		err = proof_hold_all(apply);
	return err ? err : apply_fault(apply, "apply.proven");
}
