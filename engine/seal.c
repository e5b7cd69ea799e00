/* Sealing a state's private pages: see seal.h.  Free space for it and its log are in seal_space.c. */
#include "seal.h"

#include "base/crc32c.h"
#include "base/ensure.h"
#include "error.h"
#include "node_cell.h"
#include "lease.h"
#include "seal_internal.h"
#include "snapshot.h"

#include <string.h>

#define SEAL_APART 64u /* nodes: from so many on leaves and branches are placed apart */
#define SEAL_LINES 64u /* of 64 bytes: a page of the least size */
#define SEAL_SLOTS 5u /* of them hold the header and most slots of a leaf */
#define SEAL_RUNS 64u /* room for this many runs in any request; a large one may lie in as many as it has pages */

bool seal_grow(struct seal *seal, void **items, size_t *cap, size_t count, size_t size)
{
	size_t want = *cap == 0 ? 16 : *cap * 2;
	void *fresh;

	if (count < *cap)
		return true;
	while (want <= count)
		want *= 2;
	fresh = seal->db->env->ops->memory(seal->db->env, *items, want * size);
	if (fresh == NULL)
		return false;
	*items = fresh;
	*cap = want;
	return true;
}

static enum bts_err seal_add(struct seal *seal, const struct seal_item *item)
{
	if (!seal_grow(seal, (void **)&seal->items, &seal->cap, seal->count, sizeof(*seal->items)))
		return BTS_MEMORY;
	seal->items[seal->count++] = *item;
	return BTS_OK;
}

/* Private pages are this commit's alone by now, so they are changed where they stand. */
static uint8_t *seal_image(const struct seal *seal, const struct page_ptr *ptr)
{
	return (uint8_t *)(uintptr_t)dirty_image(seal->state->dirty, ptr);
}

/* There are more private pages than the caches hold: ask for the next one's lines while this one is at work. */
__attribute__((always_inline)) static inline void seal_expect(const uint8_t *image, unsigned lines)
{
	for (unsigned i = 0; i < lines; i++)
		__builtin_prefetch(image + 64 * i);
}

static enum bts_err seal_collect_leaf(struct seal *seal, uint8_t *image)
{
	unsigned count = layout_count(image), extents = 0;

	for (unsigned i = 0; i < count; i++)
		extents |= node_slot_length(image, i) & NODE_EXTENT_BIT;
	for (unsigned i = 0; extents != 0 && i < count; i++) {
		struct node_cell cell;
		enum bts_err err;

		if (!(node_slot_length(image, i) & NODE_EXTENT_BIT))
			continue;
		node_cell(image, i, &cell);
		if (!layout_is_dirty(&cell.ptr))
			continue;
		err = seal_add(seal, &(struct seal_item){ .dirty = cell.ptr,
					     .extent_size = cell.size,
					     .pages = layout_extent_pages(cell.size, seal->db->pager.page_size),
					     .holder = { .node = image, .slot = i } });
		if (err)
			return err;
	}
	return BTS_OK;
}

/* The first slot of a branch from `from` on that points to a private page; else count. */
static unsigned seal_next_child(const uint8_t *image, unsigned from, unsigned count)
{
	for (; from < count; from++) {
		struct page_ptr child = layout_get_ptr(image + node_slot_offset(image, from));

		if (layout_is_dirty(&child))
			break;
	}
	return from;
}

/* Children first; depth is bounded by the level, which falls by one. */
static enum bts_err seal_collect(struct seal *seal, const struct page_ptr *ptr, const struct seal_holder *holder)
{
	uint8_t *image = seal_image(seal, ptr);
	unsigned count, next;
	enum bts_err err = BTS_OK;
	bool branch;

	ENSURE(image != NULL);
	branch = layout_type(image) == LAYOUT_BRANCH;
	if (!branch)
		err = seal_collect_leaf(seal, image);
	count = branch ? layout_count(image) : 0;
	next = seal_next_child(image, 0, count);
	while (next < count && err == BTS_OK) {
		struct page_ptr child = node_child(image, next), later;
		unsigned slot = next;

		next = seal_next_child(image, slot + 1, count);
		if (next < count) {
			later = node_child(image, next);
			seal_expect(dirty_image(seal->state->dirty, &later), SEAL_SLOTS);
		}
		err = seal_collect(seal, &child, &(struct seal_holder){ .node = image, .slot = slot });
	}
	if (err)
		return err;
	return seal_add(seal, &(struct seal_item){ .dirty = *ptr, .pages = 1, .image = image, .branch = branch,
					.holder = *holder });
}

static enum bts_err seal_collect_tree(struct seal *seal, struct tree *tree)
{
	if (!layout_is_dirty(&tree->root))
		return BTS_OK;
	return seal_collect(seal, &tree->root, &(struct seal_holder){ .tree = tree });
}

/*
 * Order of placement: bucket trees, then the catalog that names them, then the history, then the named snapshots, whose
 * records of this batch hold the catalog's final root (B2).
 */
static enum bts_err seal_gather(struct seal *seal)
{
	struct state *state = seal->state;
	struct snapshot built = { .high_water = state->record.first, .catalog = { .id = LAYOUT_TREE_CATALOG } };
	enum bts_err err;

	state->ctx.aside = true;
	err = history_make_room(&state->ctx, &state->record);
	state->ctx.aside = false;
	if (err == BTS_OK)
		err = snapshot_settle(state, &built);
	if (err == BTS_OK)
		err = state_settle(state);
	for (size_t i = 0; err == BTS_OK && i < state->bucket_count; i++)
		if (!state->buckets[i]->dropped)
			err = seal_collect_tree(seal, &state->buckets[i]->tree);
	seal->catalog_from = seal->count;
	if (err == BTS_OK)
		err = seal_collect_tree(seal, &state->record.catalog);
	seal->history_from = seal->count;
	if (err == BTS_OK)
		err = seal_collect_tree(seal, &state->record.history);
	seal->snapshots_from = seal->count;
	if (err == BTS_OK)
		err = seal_collect_tree(seal, &state->record.snapshots);
	if (err == BTS_OK)
		err = seal_release(seal);
	return err;
}

bts_pgno seal_page_limit(const struct seal *seal)
{
	bts_pgno limit = seal->db->pager.map_bytes >> seal->db->pager.page_shift;

	return limit < LAYOUT_PGNO_LIMIT ? limit : LAYOUT_PGNO_LIMIT;
}

static enum bts_err seal_take(struct seal *seal, uint64_t pages, bool join, enum space_kind kind, size_t cap, size_t *first)
{
	struct space_request request = { pages, join, seal_page_limit(seal), seal->state->below, kind };
	size_t count = 0;
	enum bts_err err;

	*first = seal->run_count;
	if (pages == 0)
		return BTS_OK;
	if (!seal_grow(seal, (void **)&seal->runs, &seal->run_cap, seal->run_count + cap, sizeof(*seal->runs)))
		return BTS_MEMORY;
	err = space_alloc(&seal->db->space, &request, seal->runs + seal->run_count, cap, &count);
	if (err == BTS_LIMIT && !join) {
		request.must_join = true;
		err = space_alloc(&seal->db->space, &request, seal->runs + seal->run_count, cap, &count);
	}
	if (err == BTS_OK)
		seal->run_count += count;
	return err;
}

enum bts_err seal_take_pages(struct seal *seal, bts_pgno *numbers, size_t pages)
{
	size_t first;
	size_t cap = seal->state->below == 0 || pages < SEAL_RUNS ? SEAL_RUNS : pages;
	enum bts_err err = seal_take(seal, pages, false, seal->heads ? SPACE_BRIEF : SPACE_ANY, cap, &first);

	for (size_t i = first, n = 0; err == BTS_OK && i < seal->run_count; i++)
		for (uint64_t k = 0; k < seal->runs[i].count; k++)
			numbers[n++] = seal->runs[i].pgno + k;
	return err;
}

static enum bts_err seal_add_lease(struct seal *seal, struct seal_item *item)
{
	if (!seal_grow(seal, (void **)&seal->leased, &seal->leased_cap, seal->leased_count, sizeof(*seal->leased)))
		return BTS_MEMORY;
	ENSURE(item->lease->run.count == item->pages);
	item->final.pgno = item->lease->run.pgno;
	seal->leased[seal->leased_count++] = item->lease;
	return BTS_OK;
}

static enum bts_err seal_place_extents(struct seal *seal)
{
	enum bts_err err = BTS_OK;
	size_t first;

	for (size_t i = 0; i < seal->count && err == BTS_OK; i++) {
		struct seal_item *item = &seal->items[i];

		if (item->extent_size == 0)
			continue;
		item->lease = dirty_lease(seal->state->dirty, &item->dirty);
		if (item->lease != NULL) {
			err = seal_add_lease(seal, item);
			continue;
		}
		err = seal_take(seal, item->pages, true, SPACE_ANY, 1, &first);
		if (err == BTS_OK)
			item->final.pgno = seal->runs[first].pgno;
	}
	return err;
}

struct seal_kinds {
	bool leaves, branches;
};

static bool seal_is_kind(const struct seal_item *item, struct seal_kinds kinds)
{
	return item->extent_size == 0 && (item->branch ? kinds.branches : kinds.leaves);
}

/* The nodes of these kinds among items [from, to). */
static enum bts_err seal_place_kinds(struct seal *seal, size_t from, size_t to, struct seal_kinds kinds)
{
	size_t run, nodes = 0;
	uint64_t used = 0;
	enum space_kind kind = SPACE_ANY;
	enum bts_err err;

	if (seal->heads)
		kind = kinds.leaves ? SPACE_LASTING : SPACE_BRIEF;
	for (size_t i = from; i < to; i++)
		nodes += seal_is_kind(&seal->items[i], kinds);
	err = seal_take(seal, nodes, false, kind, nodes < SEAL_RUNS ? SEAL_RUNS : nodes, &run);
	for (size_t i = from; i < to && err == BTS_OK; i++) {
		if (!seal_is_kind(&seal->items[i], kinds))
			continue;
		if (used == seal->runs[run].count) {
			run++;
			used = 0;
		}
		seal->items[i].final.pgno = seal->runs[run].pgno + used++;
	}
	return err;
}

/*
 * The nodes among items [from, to).  Of many the leaves and the branches lie apart: the next large batch replaces most of the
 * branches, few of the leaves, and so leaves one long hole instead of many short ones.
 */
static enum bts_err seal_place_nodes(struct seal *seal, size_t from, size_t to)
{
	enum bts_err err;

	if (to - from < SEAL_APART && !seal->heads)
		return seal_place_kinds(seal, from, to, (struct seal_kinds){ true, true });
	err = seal_place_kinds(seal, from, to, (struct seal_kinds){ .leaves = true });
	return err ? err : seal_place_kinds(seal, from, to, (struct seal_kinds){ .branches = true });
}

/*
 * Pages of the history stay for good.  Among the others, wherever the search has come to, each would be a wall that keeps the free
 * runs around it short, until no extent finds one and the file grows: so they go to the lowest free pages.
 */
static enum bts_err seal_place_trees(struct seal *seal)
{
	struct space *space = &seal->db->space;
	size_t history = seal->history_from, snapshots = seal->snapshots_from;
	bts_pgno hint = space->hint;
	enum bts_err err;

	seal->heads = seal->state->below == 0 && space_has_heads(space, seal->count);
	if (seal->state->below != 0 || snapshots == history || space->ready < snapshots - history)
		return seal_place_nodes(seal, 0, seal->count);
	seal->state->below = space->high_water;
	err = seal_place_nodes(seal, history, snapshots);
	seal->state->below = 0;
	space->hint = hint;
	if (err == BTS_OK)
		err = seal_place_nodes(seal, 0, history);
	return err ? err : seal_place_nodes(seal, snapshots, seal->count);
}

/* Page numbers for all items: the nodes together, each extent contiguous.  Where space is tight, extents choose first. */
static enum bts_err seal_place(struct seal *seal)
{
	bool tight = seal->state->below != 0;
	enum bts_err err = tight ? seal_place_extents(seal) : seal_place_trees(seal);

	if (err)
		return err;
	return tight ? seal_place_trees(seal) : seal_place_extents(seal);
}

static enum bts_err seal_extent(struct seal *seal, struct seal_item *item)
{
	uint32_t page_size = seal->db->pager.page_size;
	uint64_t headers = layout_extent_header_pages(item->extent_size, page_size);
	size_t bytes = (size_t)headers * page_size;
	const uint8_t *sums = dirty_sums(seal->state->dirty, &item->dirty);
	struct bts_slice value;
	uint8_t *image;

	if (!dirty_value(seal->state->dirty, &item->dirty, &value) || value.size != item->extent_size)
		ENSURE(!"a private extent has its value");
	image = item->header = seal->db->env->ops->memory(seal->db->env, NULL, bytes);
	if (image == NULL)
		return BTS_MEMORY;
	memset(image, 0, bytes);
	image[4] = LAYOUT_EXTENT;
	layout_set_pgno(image, item->final.pgno);
	layout_set_birth(image, seal->txid);
	layout_set_pages(image, (uint32_t)item->pages);
	bytes_put_u64(image + LAYOUT_EXTENT_SIZE_AT, value.size);
	bytes_put_u32(image + LAYOUT_EXTENT_HEADERS_AT, (uint32_t)headers);
	/* A value that moves keeps its sums, so that damage since it was verified stays visible. */
	if (sums != NULL)
		memcpy(image + LAYOUT_EXTENT_TABLE_AT, sums, 4 * layout_extent_chunks(value.size));
	for (uint64_t i = 0, at = 0; sums == NULL && at < value.size; i++, at += LAYOUT_CHUNK) {
		uint64_t part = value.size - at < LAYOUT_CHUNK ? value.size - at : LAYOUT_CHUNK;

		bytes_put_u32(image + LAYOUT_EXTENT_TABLE_AT + 4 * i,
			crc32c(0, (const uint8_t *)value.data + at, part));
	}
	item->final.crc = pager_crc(image, bytes);
	layout_set_crc(image, item->final.crc);
	return BTS_OK;
}

/* Paranoid builds: nothing on the way to the disk points to a private page. */
static void seal_paranoid(const uint8_t *image)
{
#ifdef BTS_PARANOID
	struct node_cell cell = { .extent = false };
	struct page_ptr child = { 0 };

	for (unsigned i = 0; i < layout_count(image); i++) {
		if (layout_type(image) == LAYOUT_LEAF)
			node_cell(image, i, &cell);
		else
			child = node_child(image, i);
		ENSURE(!layout_is_dirty(&child) && !(cell.extent && layout_is_dirty(&cell.ptr)));
	}
#else
	(void)image;
#endif
}

static void seal_node(struct seal *seal, struct seal_item *item)
{
	uint32_t page_size = seal->db->pager.page_size;
	uint8_t *image = item->image;

	ENSURE(layout_birth(image) < seal->txid); /* a page has one parent */
	seal_paranoid(image);
	node_tidy(image, page_size);
	layout_set_pgno(image, item->final.pgno);
	layout_set_birth(image, seal->txid);
	layout_set_pages(image, 1);
	item->final.crc = pager_crc(image, page_size);
	layout_set_crc(image, item->final.crc);
}

/* What pointed to the private page. */
static void seal_point(const struct seal_item *item)
{
	if (item->holder.tree != NULL)
		item->holder.tree->root = item->final;
	else
		node_set_child(item->holder.node, item->holder.slot, &item->final);
}

static enum bts_err seal_finalise(struct seal *seal, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) {
		struct seal_item *item = &seal->items[i];

		item->final.birth = seal->txid;
		if (item->extent_size > 0) {
			enum bts_err err = seal_extent(seal, item);

			if (err)
				return err;
		} else {
			if (to - from >= SEAL_APART && i + 1 < to && item[1].image != NULL)
				seal_expect(item[1].image, SEAL_LINES);
			seal_node(seal, item);
		}
		seal_point(item);
	}
	return BTS_OK;
}

/* The records of the named snapshots that this batch creates. */
static enum bts_err seal_snapshots(struct seal *seal)
{
	struct commit_record *record = &seal->state->record;
	struct snapshot built = {
		.txid = seal->txid,
		.time_ms = record->time_ms,
		.high_water = seal->db->space.high_water,
		.buckets = record->buckets,
		.catalog = record->catalog,
	};

	return snapshot_settle(seal->state, &built);
}

/*
 * The catalog was settled with private roots to know its pages; settled again with final ones it only replaces records
 * by others of the same size in its own pages.
 */
static enum bts_err seal_checksums(struct seal *seal)
{
	struct state *state = seal->state;
	struct page_ptr before = state->record.catalog.root;
	enum bts_err err = seal_finalise(seal, 0, seal->catalog_from);

	if (err)
		return err;
	err = state_settle(state);
	if (err)
		return err;
	ENSURE(layout_ptr_equal(&before, &state->record.catalog.root));
	err = seal_finalise(seal, seal->catalog_from, seal->snapshots_from);
	if (err)
		return err;
	err = seal_snapshots(seal);
	return err ? err : seal_finalise(seal, seal->snapshots_from, seal->count);
}

static struct seal_segment seal_segment(const struct seal *seal, const struct seal_item *item)
{
	uint32_t page_size = seal->db->pager.page_size;
	struct seal_segment segment = { item->final.pgno, item->pages, item->image, page_size, NULL, 0 };
	struct bts_slice value;

	if (item->extent_size > 0 && dirty_value(seal->state->dirty, &item->dirty, &value)) {
		segment.head = item->header;
		segment.head_size = layout_extent_header_pages(item->extent_size, page_size) * page_size;
		segment.body = value.data;
		segment.body_size = value.size;
	}
	if (item->lease != NULL) { /* the header alone is to be written */
		segment.pages = segment.head_size / page_size;
		segment.body_size = 0;
	}
	return segment;
}

/* Of the items, and behind them in place of the log's pages. */
static enum bts_err seal_segments(struct seal *seal)
{
	uint32_t page_size = seal->db->pager.page_size;
	size_t total = seal->count + seal->log_pages;
	struct order_key *keys = seal_keys(seal, total);

	seal->segments = seal->db->env->ops->memory(seal->db->env, NULL, (total + 1) * sizeof(*seal->segments));
	if (keys == NULL || seal->segments == NULL)
		return BTS_MEMORY;
	for (size_t i = 0; i < seal->count; i++)
		keys[i] = (struct order_key){ seal->items[i].final.pgno, i };
	for (size_t i = 0; i < seal->log_pages; i++)
		keys[seal->count + i] = (struct order_key){ seal->log_numbers[i], seal->count + i };
	order_keys(keys, keys + total, total);
	for (size_t i = 0; i < total; i++) {
		size_t place = keys[i].place;
		struct seal_segment *segment = &seal->segments[i];

		if (place < seal->count)
			*segment = seal_segment(seal, &seal->items[place]);
		else
			*segment = (struct seal_segment){ keys[i].number, 1,
				seal->log_images + (place - seal->count) * page_size, page_size, NULL, 0 };
		seal->pages += segment->pages;
	}
	seal->segment_count = total;
	return BTS_OK;
}

/* The chain covers the new pages in ascending order. */
static enum bts_err seal_record(struct seal *seal)
{
	struct bts_env *env = seal->db->env;
	struct commit_record *record = &seal->state->record;
	struct history_page *pages = env->ops->memory(env, NULL, (seal->segment_count + 1) * sizeof(*pages));

	if (pages == NULL)
		return BTS_MEMORY;
	for (size_t i = 0; i < seal->segment_count; i++)
		pages[i] = (struct history_page){ seal->segments[i].pgno, layout_crc(seal->segments[i].head) };
	record->txid = seal->txid;
	record->high_water = seal->db->space.high_water;
	history_chain(record, pages, seal->segment_count);
	history_append(record);
	env->ops->memory(env, pages, 0);
	return BTS_OK;
}

enum bts_err seal_state(struct seal *seal, struct bts *db, struct state *state, bts_txid txid, struct bts_error *error)
{
	enum bts_err err;

	memset(seal, 0, sizeof(*seal));
	seal->db = db;
	seal->state = state;
	seal->txid = txid;
	if (state->lower)
		seal->lowered = space_tail(&db->space, UINT64_MAX);
	space_lower(&db->space, db->space.high_water - seal->lowered);
	seal->old_high_water = db->space.high_water;
	state->record.time_ms = db->env->ops->realtime_ms(db->env);
	state->ctx.stamp = txid; /* a rolled back transaction of a group leaves a later one */
	freelog_delta_init(&seal->delta, db->env);
	err = seal_gather(seal);
	if (err == BTS_OK)
		err = seal_place(seal);
	if (err == BTS_OK)
		err = seal_checksums(seal);
	if (err == BTS_OK)
		err = seal_log(seal);
	if (err == BTS_OK)
		err = seal_segments(seal);
	if (err == BTS_OK)
		err = seal_record(seal);
	if (err == BTS_OK)
		err = space_make_room(&db->space, seal->retired_count); /* a durable commit must not fail for memory */
	if (err == BTS_OK)
		return BTS_OK;
	seal_undo(seal);
	if (state->ctx.error->code == err)
		return error_set(error, err, state->ctx.error->os, "%s", state->ctx.error->text);
	return error_set(error, err, 0, err == BTS_FULL ? "no room in the file's address range" : "no memory to commit");
}

void seal_undo(struct seal *seal)
{
	while (seal->run_count > 0) {
		enum bts_err err = space_give(&seal->db->space, seal->runs[--seal->run_count]);

		ENSURE(err == BTS_OK);
	}
	if (seal->raised.count > 0) {
		enum bts_err err = space_give(&seal->db->space, seal->raised);

		ENSURE(err == BTS_OK);
	}
	space_lower(&seal->db->space, seal->old_high_water);
	if (seal->lowered > 0) {
		struct space_run tail = { seal->old_high_water, seal->lowered };
		enum bts_err err = space_raise(&seal->db->space, tail.pgno + tail.count);

		ENSURE(err == BTS_OK); /* the map has room from before */
		err = space_give(&seal->db->space, tail);
		ENSURE(err == BTS_OK);
	}
}

void seal_fini(struct seal *seal)
{
	struct bts_env *env = seal->db->env;

	for (size_t i = 0; i < seal->count; i++)
		env->ops->memory(env, seal->items[i].header, 0);
	env->ops->memory(env, seal->items, 0);
	env->ops->memory(env, seal->runs, 0);
	env->ops->memory(env, (void *)seal->leased, 0);
	env->ops->memory(env, seal->retired, 0);
	env->ops->memory(env, seal->log_images, 0);
	env->ops->memory(env, seal->log_numbers, 0);
	env->ops->memory(env, seal->segments, 0);
	env->ops->memory(env, seal->keys, 0);
	freelog_delta_fini(&seal->delta);
}
