/*
 * The proof of one state of a frame against the state before it (R1, R4): see apply_proof.c.
 *
 * Closure: from the state's roots along edges with birth > floor, the number of the state before, each leads
 * to a unit of the frame.  The other edges are kept.  Graft: from the roots of the state before, turning back
 * at kept pointers; each must be met.
 */
#include "apply.h"

#include <inttypes.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/fault.h"
#include "error.h"
#include "node.h"

/* The unit that edge names, as it says. */
static enum bts_err graft_match(
	struct bts_apply *apply, const struct traverse_edge *edge, struct apply_unit **out)
{
	struct apply_unit *unit;

	if (apply->first.on)
		return apply_first_match(apply, edge, out);
	unit = apply_unit_find(apply, edge->ptr.pgno);
	if (!unit)
		return apply_refuse_page(apply, edge->ptr.pgno, "missing");
	if (unit->birth != edge->ptr.birth || unit->crc != edge->ptr.crc || unit->count != edge->pages ||
		unit->kind != edge->kind)
		return apply_refuse_page(apply, edge->ptr.pgno, "not what the pointer to it says");
	if (unit->reached)
		return apply_refuse_page(apply, edge->ptr.pgno, "reached twice");
	if (edge->ptr.birth > edge->parent_birth)
		return apply_refuse_page(apply, edge->ptr.pgno, "born after the page that points to it");
	unit->reached = true;
	*out = unit;
	return BTS_OK;
}

/* Bytes of a unit against the pointer; the tags of verified pages are not asked, a peer may have aimed at
 * them. */
static enum bts_err graft_bytes(
	struct bts_apply *apply, const struct traverse_edge *edge, const uint8_t *image, uint64_t crc_bytes)
{
	if (!image)
		return error_set(&apply->error, BTS_IO, 0,
			"page %" PRIu64 ": cannot read back what was received", edge->ptr.pgno);
	if (SABOTAGE(FAULT_R1_NO_SUMS))
		return BTS_OK;
	if (layout_pgno(image) != edge->ptr.pgno || layout_birth(image) != edge->ptr.birth ||
		layout_crc(image) != edge->ptr.crc)
		return apply_refuse_page(apply, edge->ptr.pgno, "its header is of another page");
	if (pager_crc(image, crc_bytes) != edge->ptr.crc)
		return apply_refuse_page(apply, edge->ptr.pgno, "checksum mismatch");
	if (layout_pages(image) != edge->pages)
		return apply_refuse_page(apply, edge->ptr.pgno, "its header counts other pages");
	return BTS_OK;
}

static enum bts_err graft_node(
	struct bts_apply *apply, const struct traverse_edge *edge, const uint8_t *image)
{
	uint32_t page_size = apply->record.page_size;
	enum bts_err err = graft_bytes(apply, edge, image, page_size);
	const char *wrong;

	if (err)
		return err;
	if (edge->kind == BTS_KIND_FREE_LOG) /* its entries are checked when the free set is loaded */
		return layout_type(image) == LAYOUT_FREE_LOG && layout_tree(image) == LAYOUT_TREE_FREE_LOG
			       ? BTS_OK
			       : apply_refuse_page(apply, edge->ptr.pgno, "not a page of the free log");
	wrong = node_check(image, page_size, apply->record.high_water, edge->ptr.birth);
	if (!wrong && (layout_tree(image) != edge->tree || layout_level(image) != edge->level))
		wrong = "a node of another tree or level";
	return wrong ? apply_refuse_page(apply, edge->ptr.pgno, wrong) : BTS_OK;
}

static bool graft_zero(const uint8_t *bytes, uint64_t size)
{
	return size == 0 || (bytes[0] == 0 && !memcmp(bytes, bytes + 1, size - 1));
}

static enum bts_err graft_extent(
	struct bts_apply *apply, const struct traverse_edge *edge, const uint8_t *image)
{
	uint32_t page_size = apply->record.page_size;
	uint64_t headers = layout_extent_header_pages(edge->size, page_size) * page_size;
	uint64_t table = LAYOUT_EXTENT_TABLE_AT + 4 * layout_extent_chunks(edge->size);
	const uint8_t *payload = image + headers;
	enum bts_err err = graft_bytes(apply, edge, image, headers);

	if (err)
		return err;
	if (layout_type(image) != LAYOUT_EXTENT ||
		bytes_get_u64(image + LAYOUT_EXTENT_SIZE_AT) != edge->size ||
		bytes_get_u32(image + LAYOUT_EXTENT_HEADERS_AT) != headers / page_size ||
		!layout_extent_plain(image))
		return apply_refuse_page(apply, edge->ptr.pgno, "not the large value that belongs here");
	for (uint64_t at = 0, i = 0; at < edge->size; at += LAYOUT_CHUNK, i++) {
		uint64_t part = edge->size - at < LAYOUT_CHUNK ? edge->size - at : LAYOUT_CHUNK;

		if (crc32c(0, payload + at, part) != bytes_get_u32(image + LAYOUT_EXTENT_TABLE_AT + 4 * i))
			return apply_refuse_page(apply, edge->ptr.pgno, "checksum mismatch in a large value");
	}
	if (!graft_zero(image + table, headers - table) ||
		!graft_zero(payload + edge->size, edge->pages * page_size - headers - edge->size))
		return apply_refuse_page(apply, edge->ptr.pgno, "bytes behind the end of a large value");
	return BTS_OK;
}

static size_t graft_hash(const struct bts_apply *apply, bts_pgno pgno)
{
	return (size_t)(pgno * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (apply->kept_cap - 1);
}

/* The place of a kept pointer to pgno: its entry, or the free one where it would be. */
static struct apply_kept *graft_kept(const struct bts_apply *apply, bts_pgno pgno)
{
	size_t i = graft_hash(apply, pgno);

	while (apply->kept[i].edge.ptr.pgno && apply->kept[i].edge.ptr.pgno != pgno)
		i = (i + 1) & (apply->kept_cap - 1);
	return &apply->kept[i];
}

static enum bts_err graft_kept_room(struct bts_apply *apply)
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
			*graft_kept(apply, old[i].edge.ptr.pgno) = old[i];
	env->ops->memory(env, old, 0);
	return BTS_OK;
}

static enum bts_err graft_keep(struct bts_apply *apply, const struct traverse_edge *edge, bts_pgno limit)
{
	struct apply_kept *kept;
	enum bts_err err;

	if (edge->ptr.birth == 0 || edge->ptr.pgno < apply->record.first || edge->ptr.pgno >= limit ||
		edge->pages > limit - edge->ptr.pgno)
		return apply_refuse_page(apply, edge->ptr.pgno, "kept, but not of the state before");
	err = graft_kept_room(apply);
	if (err)
		return err;
	kept = graft_kept(apply, edge->ptr.pgno);
	if (kept->edge.ptr.pgno)
		return apply_refuse_page(apply, edge->ptr.pgno, "kept twice");
	kept->edge = *edge;
	apply->kept_count++;
	return BTS_OK;
}

/* An edge to what the frame brings. */
static enum bts_err graft_brought(struct bts_apply *apply, const struct traverse_edge *edge, bts_pgno limit)
{
	struct apply_unit *unit = NULL;
	const uint8_t *image;
	enum bts_err err = graft_match(apply, edge, &unit);

	if (err)
		return err;
	if (edge->ptr.pgno + edge->pages > limit)
		return apply_refuse_page(apply, edge->ptr.pgno, "beyond the high-water mark");
	apply->reached++;
	image = apply_unit_image(apply, unit);
	if (!image)
		return error_set(&apply->error, BTS_IO, 0, "page %" PRIu64 " of a frame cannot be read back",
			edge->ptr.pgno);
	err = edge->kind == BTS_KIND_EXTENT ? graft_extent(apply, edge, image)
					    : graft_node(apply, edge, image);
	if (!err && edge->kind == BTS_KIND_NODE)
		err = apply_tally_node(apply, edge, image, true);
	if (!err && edge->kind != BTS_KIND_EXTENT)
		err = traverse_descend(&apply->traverse, image);
	return err;
}

/* apply->traverse is at the roots of the state being proven.  floor: number of the state before. */
static enum bts_err graft_closure(struct bts_apply *apply, bts_txid floor, bts_pgno old_limit, bts_pgno limit)
{
	const struct traverse_edge *edge;
	enum bts_err err;

	apply->kept_count = 0;
	if (apply->kept_cap)
		memset(apply->kept, 0, apply->kept_cap * sizeof(*apply->kept));
	while ((err = traverse_next(&apply->traverse, &edge)) == BTS_OK) {
		if (edge->ptr.birth <= floor)
			err = graft_keep(apply, edge, old_limit < limit ? old_limit : limit);
		else
			err = graft_brought(apply, edge, limit);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static int graft_compare_keys(struct bts_slice a, struct bts_slice b)
{
	int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

/*
 * A kept subtree lies within its new separators: surely when these are no narrower than the old ones, else
 * when its first and last key do.
 */
static enum bts_err graft_kept_keys(struct bts_apply *apply, struct tree_ctx *ctx,
	const struct traverse_edge *now, const struct traverse_edge *old)
{
	bool low = graft_compare_keys(now->low, old->low) <= 0;
	bool high = !now->high.data || (old->high.data && graft_compare_keys(old->high, now->high) <= 0);

	for (int last = low ? 1 : 0; last < (high ? 1 : 2); last++) {
		struct page_ptr ptr = old->ptr;
		const uint8_t *image = NULL;

		for (int level = old->level; level >= 0; level--) {
			enum bts_err err = pager_node(ctx, &ptr, old->tree, level, &image);

			if (err)
				return err;
			if (layout_count(image) == 0)
				return apply_refuse_page(apply, ptr.pgno, "an empty node below a branch");
			if (level > 0)
				ptr = node_child(image, last ? layout_count(image) - 1u : 0);
		}
		if (last ? graft_compare_keys(node_key(image, layout_count(image) - 1u), now->high) >= 0
			 : graft_compare_keys(node_key(image, 0), now->low) < 0)
			return apply_refuse_page(
				apply, old->ptr.pgno, "kept under separators that its keys are not within");
	}
	return BTS_OK;
}

/* An edge of the old state: *kept says that the new state has it too. */
static enum bts_err graft_meet(
	struct bts_apply *apply, struct tree_ctx *ctx, const struct traverse_edge *edge, bool *is_kept)
{
	struct apply_kept *kept = apply->kept_cap ? graft_kept(apply, edge->ptr.pgno) : NULL;

	*is_kept = kept && layout_ptr_equal(&kept->edge.ptr, &edge->ptr);
	if (!*is_kept)
		return BTS_OK;
	if (kept->met || kept->edge.kind != edge->kind || kept->edge.tree != edge->tree ||
		kept->edge.level != edge->level || kept->edge.size != edge->size)
		return apply_refuse_page(apply, edge->ptr.pgno, "kept as something else than it is");
	kept->met = true;
	return edge->kind == BTS_KIND_NODE ? graft_kept_keys(apply, ctx, &kept->edge, edge) : BTS_OK;
}

static enum bts_err graft_release(
	struct bts_apply *apply, const struct traverse_edge *edge, enum apply_releases releases)
{
	enum bts_err err;

	if (releases == APPLY_RELEASE_NONE ||
		(releases == APPLY_RELEASE_UNHELD && edge->ptr.birth <= snapshot_newest(&apply->named_kept)))
		return BTS_OK;
	err = apply_grow(apply, (void **)&apply->released, apply->released_count, &apply->released_cap,
		sizeof(*apply->released));
	if (!err)
		apply->released[apply->released_count++] =
			(struct apply_released){edge->ptr.pgno, edge->pages, edge->ptr.birth};
	return err;
}

/* An edge of the state before that the one being proven does not have. */
static enum bts_err graft_left(struct bts_apply *apply, struct tree_ctx *ctx,
	const struct traverse_edge *edge, enum apply_releases releases)
{
	const uint8_t *image = NULL;
	enum bts_err err = graft_release(apply, edge, releases);

	if (err || edge->kind == BTS_KIND_EXTENT)
		return err;
	if (edge->kind == BTS_KIND_FREE_LOG) {
		err = pager_free_log(ctx, &edge->ptr, &image);
	} else {
		err = pager_node(ctx, &edge->ptr, edge->tree, edge->level, &image);
		if (!err)
			err = apply_tally_node(apply, edge, image, false);
	}
	return err ? err : traverse_descend(&apply->traverse, image);
}

/* apply->traverse is at the roots of the state before, which ctx reads. */
static enum bts_err graft_meet_all(
	struct bts_apply *apply, struct tree_ctx *ctx, enum apply_releases releases)
{
	const struct traverse_edge *edge;
	size_t met = 0;
	enum bts_err err;
	bool kept;

	while ((err = traverse_next(&apply->traverse, &edge)) == BTS_OK) {
		err = graft_meet(apply, ctx, edge, &kept);
		met += kept;
		if (!err && !kept)
			err = graft_left(apply, ctx, edge, releases);
		if (err)
			return err;
	}
	if (err != BTS_NOT_FOUND)
		return err;
	for (size_t i = 0; met < apply->kept_count && !SABOTAGE(FAULT_R4_NO_GRAFT); i++)
		if (apply->kept[i].edge.ptr.pgno && !apply->kept[i].met)
			return apply_refuse_page(
				apply, apply->kept[i].edge.ptr.pgno, "kept, but not live in this file");
	return BTS_OK;
}

enum bts_err apply_graft_aside(struct bts_apply *apply)
{
	const struct commit_record *old = &apply->db->slot.record, *now = &apply->record;
	struct tree_ctx ctx = apply_old_ctx(apply);
	enum bts_err err;

	traverse_init(&apply->traverse, now, TRAVERSE_ASIDE, &apply->error);
	err = graft_closure(apply, apply->base.txid, old->high_water, now->high_water);
	if (err)
		return err;
	traverse_init(&apply->traverse, old, TRAVERSE_ASIDE, &apply->error);
	err = graft_meet_all(apply, &ctx, APPLY_RELEASE_ALL);
	if (!err)
		err = apply_tally_claim(apply, &now->history, &old->history);
	if (!err)
		err = apply_tally_claim(apply, &now->snapshots, &old->snapshots);
	return err ? err : apply_tally_close(apply);
}

enum bts_err apply_graft_state(
	struct bts_apply *apply, const struct apply_state *before, const struct apply_state *now, bool first)
{
	const struct commit_record *old = first ? &apply->db->slot.record : &apply->record;
	struct tree_ctx ctx = first ? apply_old_ctx(apply) : apply_new_ctx(apply);
	enum bts_err err;

	ctx.newest = before->txid;
	traverse_init_catalog(&apply->traverse, &apply->record, &now->catalog, now->txid, &apply->error);
	err = graft_closure(apply, before->txid, before->limit, now->limit);
	if (err)
		return err;
	traverse_init_catalog(&apply->traverse, old, &before->catalog, before->txid, &apply->error);
	err = graft_meet_all(apply, &ctx, first ? APPLY_RELEASE_UNHELD : APPLY_RELEASE_NONE);
	if (!err)
		err = apply_tally_claim(apply, &now->catalog, &before->catalog);
	return err ? err : apply_tally_close(apply);
}
