/*
 * The proof of a graft (R1, R4), by reading alone: no state before it vouches for anything, so everything that the target
 * reaches is walked, and the free set is its full complement.
 *
 * States oldest first: what only the head holds, then each named snapshot, then the head's catalog.  An edge born after the
 * state before is met once, and its pages are marked; one born earlier leads to what that state has too: it must be marked,
 * and is turned back at (snapshot.h).  A page of what was received is judged byte for byte.  Any other is *kept*: not
 * free in the durable state of this file (an intact page that is free does not count, R4), born within what is believed, and as
 * its pointer says; of a large value only the header is read, a touch verifies the rest as ever.
 *
 * Counters: those of the first catalog walked, of history and snapshots, which are walked whole.  A later catalog
 * shares pages that are not counted again.
 */
#include "apply.h"

#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "live.h"
#include "node.h"

struct whole {
	struct bts_apply *apply;
	struct tree_ctx ctx;
	uint64_t *live; /* a bit a page from record.first on */
	bts_txid floor; /* number of the state before */
	bts_txid trust;
};

static bool whole_bit(const uint64_t *bits, uint64_t at)
{
	return (bits[at / 64] >> at % 64 & 1) != 0;
}

static enum bts_err whole_bounds(struct whole *w, const struct traverse_edge *edge)
{
	const struct commit_record *record = &w->apply->record;

	if (edge->ptr.pgno < record->first || edge->ptr.pgno >= record->high_water || edge->pages < 1 ||
		edge->pages > record->high_water - edge->ptr.pgno)
		return apply_refuse_page(w->apply, edge->ptr.pgno, "a pointer outside the file");
	if (edge->ptr.birth < 1 || edge->ptr.birth > edge->parent_birth)
		return apply_refuse_page(w->apply, edge->ptr.pgno, "born after the page that points to it");
	return BTS_OK;
}

static enum bts_err whole_mark(struct whole *w, const struct traverse_edge *edge)
{
	uint64_t at = edge->ptr.pgno - w->apply->record.first;

	for (uint64_t i = at; i < at + edge->pages; i++) {
		if (whole_bit(w->live, i))
			return apply_refuse_page(w->apply, edge->ptr.pgno, "reached twice");
		w->live[i / 64] |= UINT64_C(1) << i % 64;
	}
	return BTS_OK;
}

/* Of a page that was received. */
static enum bts_err whole_brought(
	struct whole *w, const struct traverse_edge *edge, struct apply_unit *unit, const uint8_t **image)
{
	const struct bts_page_id id = {unit->pgno, unit->birth, unit->crc, unit->count, unit->kind};
	const struct commit_record *record = &w->apply->record;
	const char *wrong;

	if (unit->birth != edge->ptr.birth || unit->crc != edge->ptr.crc || unit->count != edge->pages ||
		unit->kind != edge->kind)
		return apply_refuse_page(w->apply, edge->ptr.pgno, "not what the pointer to it says");
	*image = apply_unit_image(w->apply, unit);
	if (!*image)
		return error_set(&w->apply->error, BTS_IO, 0,
			"page %" PRIu64 ": cannot read back what was received", edge->ptr.pgno);
	wrong = live_check(*image, &id, record->page_size, record->high_water);
	if (!wrong && edge->kind == BTS_KIND_NODE &&
		(layout_tree(*image) != edge->tree || layout_level(*image) != edge->level))
		wrong = "a node of another tree or level";
	if (!wrong && edge->kind == BTS_KIND_EXTENT &&
		live_extent_size(*image, edge->pages, record->page_size) != edge->size)
		wrong = "not the large value that belongs here";
	if (wrong)
		return apply_refuse_page(w->apply, edge->ptr.pgno, wrong);
	w->apply->reached += !unit->reached;
	unit->reached = true;
	return BTS_OK;
}

static enum bts_err whole_kept_extent(struct whole *w, const struct traverse_edge *edge)
{
	uint32_t page_size = w->apply->record.page_size;
	uint64_t headers = layout_extent_header_pages(edge->size, page_size) * page_size;
	const uint8_t *image = pager_image(&w->ctx, &edge->ptr, edge->pages);

	if (!image || !live_same(image, &edge->ptr) ||
		live_extent_size(image, edge->pages, page_size) != edge->size || pager_crc(image, headers) != edge->ptr.crc)
		return apply_refuse_page(w->apply, edge->ptr.pgno, "kept, but not the large value that belongs here");
	return BTS_OK;
}

/* Of a page that is said to be here. */
static enum bts_err whole_kept(struct whole *w, const struct traverse_edge *edge, const uint8_t **image)
{
	if (edge->ptr.birth > w->trust ||
		!space_is_live(&w->apply->db->space, (struct space_run){edge->ptr.pgno, edge->pages}))
		return apply_refuse_page(w->apply, edge->ptr.pgno, "kept, but not live in this file");
	switch (edge->kind) {
	case BTS_KIND_NODE:
		return pager_node(&w->ctx, &edge->ptr, edge->tree, edge->level, image);
	case BTS_KIND_FREE_LOG:
		return pager_free_log(&w->ctx, &edge->ptr, image);
	case BTS_KIND_EXTENT:
		break;
	}
	return whole_kept_extent(w, edge);
}

static enum bts_err whole_image(struct whole *w, const struct traverse_edge *edge, const uint8_t **image)
{
	struct apply_unit *unit = apply_unit_find(w->apply, edge->ptr.pgno);

	return unit ? whole_brought(w, edge, unit, image) : whole_kept(w, edge, image);
}

static int whole_compare(struct bts_slice a, struct bts_slice b)
{
	int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

/* A shared subtree's first and last key lie within the separators that this state has above it. */
static enum bts_err whole_shared_keys(struct whole *w, const struct traverse_edge *edge)
{
	struct traverse_edge at = *edge;
	const uint8_t *image;
	enum bts_err err;

	for (int last = 0; last < 2; last++) {
		for (at.ptr = edge->ptr, at.level = edge->level;; at.level--) {
			err = whole_image(w, &at, &image);
			if (err)
				return err;
			if (layout_count(image) == 0)
				return at.level == edge->level
					       ? BTS_OK
					       : apply_refuse_page(w->apply, at.ptr.pgno, "an empty node below a branch");
			if (at.level == 0)
				break;
			at.ptr = node_child(image, last ? layout_count(image) - 1u : 0);
		}
		if (last ? edge->high.data && whole_compare(
						      node_key(image, layout_count(image) - 1u), edge->high) >= 0
			 : whole_compare(node_key(image, 0), edge->low) < 0)
			return apply_refuse_page(
				w->apply, edge->ptr.pgno, "shared under separators that its keys are not within");
	}
	return BTS_OK;
}

/* Born before the state before ended: that one has it too. */
static enum bts_err whole_shared(struct whole *w, const struct traverse_edge *edge)
{
	const uint8_t *image = NULL;
	enum bts_err err;

	if (!whole_bit(w->live, edge->ptr.pgno - w->apply->record.first))
		return apply_refuse_page(w->apply, edge->ptr.pgno, "older than the state before, which does not have it");
	err = whole_image(w, edge, &image);
	return err || edge->kind != BTS_KIND_NODE ? err : whole_shared_keys(w, edge);
}

static enum bts_err whole_edge(struct whole *w, const struct traverse_edge *edge)
{
	const uint8_t *image = NULL;
	enum bts_err err = whole_bounds(w, edge);

	if (err)
		return err;
	if (edge->ptr.birth <= w->floor)
		return whole_shared(w, edge);
	err = whole_mark(w, edge);
	if (!err)
		err = whole_image(w, edge, &image);
	if (!err && edge->kind == BTS_KIND_NODE)
		err = apply_tally_node(w->apply, edge, image, true);
	if (!err && edge->kind != BTS_KIND_EXTENT)
		err = traverse_descend(&w->apply->traverse, image);
	return err;
}

/* The traversal of apply is at the roots. */
static enum bts_err whole_walk(struct whole *w)
{
	const struct traverse_edge *edge;
	enum bts_err err;

	while ((err = traverse_next(&w->apply->traverse, &edge)) == BTS_OK) {
		err = whole_edge(w, edge);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err whole_claim(struct bts_apply *apply, const struct tree *tree)
{
	const struct tree nothing = {.id = tree->id};

	return apply_tally_claim(apply, tree, &nothing);
}

static enum bts_err whole_aside(struct whole *w)
{
	struct bts_apply *apply = w->apply;
	enum bts_err err;

	traverse_init(&apply->traverse, &apply->record, TRAVERSE_ASIDE, &apply->error);
	err = whole_walk(w);
	if (!err)
		err = whole_claim(apply, &apply->record.history);
	if (!err)
		err = whole_claim(apply, &apply->record.snapshots);
	return err ? err : apply_tally_close(apply);
}

static enum bts_err whole_catalog(struct whole *w, const struct tree *catalog, bts_txid txid)
{
	struct bts_apply *apply = w->apply;
	enum bts_err err;

	traverse_init_catalog(&apply->traverse, &apply->record, catalog, txid, &apply->error);
	err = whole_walk(w);
	if (err)
		return err;
	if (w->floor == 0) {
		err = whole_claim(apply, catalog);
		if (!err)
			err = apply_tally_close(apply);
	} else if (apply->sum_cap) {
		memset(apply->sums, 0, apply->sum_cap * sizeof(*apply->sums));
		apply->sum_count = 0;
	}
	w->floor = txid;
	return err;
}

static enum bts_err whole_states(struct whole *w)
{
	struct bts_apply *apply = w->apply;
	struct commit_record *record = &apply->record;
	const struct snapshot *named;
	enum bts_err err = snapshot_list_load(&w->ctx, record, &record->snapshots, &apply->named);

	for (size_t i = 0; !err && i < apply->named.count; i++) {
		named = &apply->named.items[i];
		if (named->txid < record->txid)
			err = whole_catalog(w, &named->catalog, named->txid);
		else if (!layout_ptr_equal(&named->catalog.root, &record->catalog.root) ||
			 named->catalog.depth != record->catalog.depth)
			return error_set(&apply->error, BTS_CORRUPT, 0,
				"graft refused: the named snapshot of its own commit is another state");
	}
	if (!err)
		err = whole_catalog(w, &record->catalog, record->txid);
	if (!err && record->buckets != record->catalog.entries)
		err = error_set(&apply->error, BTS_CORRUPT, 0,
			"graft refused: %" PRIu64 " buckets, and %" PRIu64 " in the catalog", record->buckets,
			record->catalog.entries);
	return err;
}

/* Reachable or free, each page one of them (G2). */
static enum bts_err whole_free_set(struct whole *w)
{
	struct bts_apply *apply = w->apply;
	const struct commit_record *record = &apply->record;
	uint64_t pages = record->high_water - record->first;
	enum bts_err err;

	if (space_init(&apply->space, apply->db->env, record->first, record->high_water))
		return error_set(&apply->error, BTS_MEMORY, 0, "no memory for the free map");
	apply->space_there = true;
	err = freelog_load(&w->ctx, &record->free, &apply->space);
	for (uint64_t at = 0; !err && at < pages; at += 64) {
		uint64_t all = pages - at >= 64 ? UINT64_MAX : (UINT64_C(1) << (pages - at)) - 1;
		uint64_t differs = (apply->space.bits[at / 64] ^ ~w->live[at / 64]) & all;

		if (differs)
			err = apply_refuse_page(apply, record->first + at + (uint64_t)__builtin_ctzll(differs),
				"in the free set and reachable, or neither");
	}
	return err;
}

static bool whole_is_brought(const struct whole *w, bts_pgno page)
{
	const struct bts_apply *apply = w->apply;
	size_t low = 0, high = apply->unit_count;

	while (low < high) { /* behind the last unit that begins at or before page */
		size_t middle = (low + high) / 2;

		if (apply->units[middle].pgno > page)
			high = middle;
		else
			low = middle + 1;
	}
	return low > 0 && apply->units[low - 1].pgno + apply->units[low - 1].count > page;
}

/*
 * What this file's state had and the target frees or overwrites: readers here may still need it.  Its births are not looked up,
 * so it waits for all readers of an older state.
 */
static enum bts_err whole_released(struct whole *w)
{
	struct bts_apply *apply = w->apply;
	const struct space *old = &apply->db->space;
	const struct commit_record *record = &apply->record;
	struct apply_released *last = NULL;

	for (bts_pgno page = old->first; page < old->high_water; page++) {
		uint64_t at = page - old->first;
		enum bts_err err;

		if (whole_bit(old->bits, at) || whole_bit(old->waiting, at) ||
			(page < record->high_water && whole_bit(w->live, at) && !whole_is_brought(w, page)))
			continue;
		if (last && last->pgno + last->pages == page) {
			last->pages++;
			continue;
		}
		err = apply_grow(apply, (void **)&apply->released, apply->released_count, &apply->released_cap,
			sizeof(*apply->released));
		if (err)
			return err;
		last = &apply->released[apply->released_count++];
		*last = (struct apply_released){page, 1, 1};
	}
	return BTS_OK;
}

/* The fork is a commit of the target's history too. */
static enum bts_err whole_fork(struct whole *w)
{
	struct bts_apply *apply = w->apply;
	const struct bts_position *fork = apply_fetch_fork(apply, &w->trust);
	enum bts_standing standing;
	enum bts_err err;

	if (!fork || !fork->txid)
		return BTS_OK;
	err = history_standing(&w->ctx, &apply->record, fork, &standing);
	if (!err && standing != BTS_STANDING_KNOWN)
		err = error_set(&apply->error, BTS_DIVERGED, 0,
			"graft refused: transaction %" PRIu64 ", named as the fork, is not in its history", fork->txid);
	return err;
}

enum bts_err apply_whole(struct bts_apply *apply)
{
	const struct commit_record *record = &apply->record;
	struct bts_env *env = apply->db->env;
	size_t bytes = ((record->high_water - record->first) / 64 + 1) * sizeof(uint64_t);
	struct whole w = {.apply = apply, .ctx = apply_new_ctx(apply), .live = env->ops->memory(env, NULL, bytes)};
	enum bts_err err;

	if (!w.live)
		return error_set(&apply->error, BTS_MEMORY, 0, "no memory to prove a graft");
	memset(w.live, 0, bytes);
	apply_fetch_fork(apply, &w.trust);
	err = whole_aside(&w);
	if (!err)
		err = whole_states(&w);
	if (!err)
		err = whole_free_set(&w);
	if (!err)
		err = whole_released(&w);
	if (!err)
		err = whole_fork(&w);
	env->ops->memory(env, w.live, 0);
	return err;
}
