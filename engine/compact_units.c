/* The units at the end of the file: what they are, who points to them, how they are taken away.  See compact.h. */
#include "compact.h"

#include "base/ensure.h"
#include "error.h"
#include "freelog.h"
#include "tree_path.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COMPACT_EXTENTS 4096u /* remembered at most */

static enum bts_err compact_grow(
	struct compact *compact, void **items, size_t *cap, size_t count, size_t size)
{
	struct bts_env *env = compact->db->env;
	size_t want = *cap == 0 ? 64 : *cap * 2;
	void *fresh;

	if (count < *cap)
		return BTS_OK;
	fresh = env->ops->memory(env, *items, want * size);
	if (fresh == NULL)
		return error_set(compact->base.error, BTS_MEMORY, 0, "no memory to compact");
	*items = fresh;
	*cap = want;
	return BTS_OK;
}

/* Something is read that is not going to move. */
static enum bts_err compact_spend(struct compact *compact)
{
	struct compact_bounds *bounds = compact->bounds;

	if (bounds == NULL)
		return BTS_OK;
	if (bounds->looks == 0)
		return error_set(compact->base.error, BTS_LIMIT, 0, "too much would have to be read");
	bounds->looks--;
	return BTS_OK;
}

/* Every bucket of the commit that the step began at. */
typedef enum bts_err compact_bucket_fn(struct compact *, const struct bucket_state *);

static enum bts_err compact_buckets(struct compact *compact, compact_bucket_fn *each)
{
	struct tree catalog = compact->state->base_catalog;
	struct tree_cursor cursor;
	struct bucket_state bucket;
	struct node_cell cell;
	const char *wrong;
	enum bts_err err;

	tree_cursor_init(&cursor, &compact->base, &catalog);
	for (err = tree_cursor_first(&cursor, &cell); err == BTS_OK; err = tree_cursor_next(&cursor, &cell)) {
		wrong = cell.extent ? "bucket record outside its leaf"
				    : bucket_record_decode(cell.key, cell.value, cell.version, &bucket);
		if (wrong != NULL)
			return error_set(compact->base.error, BTS_CORRUPT, 0, "catalog: %s", wrong);
		err = compact_spend(compact);
		if (err == BTS_OK)
			err = each(compact, &bucket);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err compact_add_name(struct compact *compact, const struct bucket_state *bucket)
{
	struct compact_name *name;
	enum bts_err err = compact_grow(compact, (void **)&compact->names, &compact->name_cap,
		compact->name_count, sizeof(*compact->names));

	if (err)
		return err;
	name = &compact->names[compact->name_count++];
	name->tree = bucket->tree.id;
	name->size = bucket->name_size;
	memcpy(name->name, bucket->name, bucket->name_size);
	return BTS_OK;
}

static int compact_name_order(const void *a, const void *b)
{
	const struct compact_name *x = a, *y = b;

	return x->tree < y->tree ? -1 : x->tree > y->tree;
}

/* The live tree of this id, in the state that will be committed; BTS_NOT_FOUND. */
static enum bts_err compact_tree(
	struct compact *compact, uint32_t id, struct tree **tree, struct bucket_state **bucket)
{
	struct commit_record *record = &compact->state->record;
	struct compact_name key = {.tree = id}, *name;
	enum bts_err err;

	*bucket = NULL;
	*tree = id == LAYOUT_TREE_CATALOG   ? &record->catalog
		: id == LAYOUT_TREE_HISTORY ? &record->history
					    : &record->snapshots;
	if (id == LAYOUT_TREE_CATALOG || id == LAYOUT_TREE_HISTORY || id == LAYOUT_TREE_SNAPSHOTS)
		return BTS_OK;
	if (!compact->names_there) {
		err = compact_buckets(compact, compact_add_name);
		if (err)
			return err;
		if (compact->name_count > 1)
			qsort(compact->names, compact->name_count, sizeof(key), compact_name_order);
		compact->names_there = true;
	}
	name = compact->name_count == 0
		       ? NULL
		       : bsearch(&key, compact->names, compact->name_count, sizeof(key), compact_name_order);
	if (name == NULL)
		return BTS_NOT_FOUND;
	err = state_bucket(compact->state, (struct bts_slice){name->name, name->size}, false, bucket);
	if (err == BTS_OK)
		*tree = &(*bucket)->tree;
	return err;
}

/*
 * Gathering large values: a heap would do, but so does an array of twice the number wanted that is sorted and halved when
 * it is full.
 */
static int compact_extent_order(const void *a, const void *b)
{
	const struct compact_extent *x = a, *y = b;

	return x->pgno < y->pgno ? -1 : x->pgno > y->pgno;
}

static void compact_memo_drop(struct bts *db, struct compact_memo *memo, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		db->env->ops->memory(db->env, memo->extents[i].key, 0);
}

/* Keep the highest. */
static void compact_memo_halve(struct bts *db, struct compact_memo *memo)
{
	size_t drop;

	if (memo->count > 1)
		qsort(memo->extents, memo->count, sizeof(*memo->extents), compact_extent_order);
	if (memo->count <= COMPACT_EXTENTS)
		return;
	drop = memo->count - COMPACT_EXTENTS;
	memo->floor = memo->extents[drop].pgno;
	compact_memo_drop(db, memo, 0, drop);
	memmove(memo->extents, memo->extents + drop, COMPACT_EXTENTS * sizeof(*memo->extents));
	memo->count = COMPACT_EXTENTS;
}

static enum bts_err compact_add_extent(struct compact *compact, uint32_t tree, const struct node_cell *cell)
{
	struct compact_memo *memo = compact->db->compact;
	struct compact_extent *extent;
	struct bts_env *env = compact->db->env;
	uint8_t *key;
	enum bts_err err;

	if (cell->ptr.pgno < memo->floor)
		return BTS_OK;
	if (memo->count == 2 * COMPACT_EXTENTS)
		compact_memo_halve(compact->db, memo);
	err = compact_grow(compact, (void **)&memo->extents, &memo->cap, memo->count, sizeof(*memo->extents));
	if (err)
		return err;
	key = env->ops->memory(env, NULL, cell->key.size);
	if (key == NULL)
		return error_set(compact->base.error, BTS_MEMORY, 0, "no memory to compact");
	memcpy(key, cell->key.data, cell->key.size);
	extent = &memo->extents[memo->count++];
	*extent = (struct compact_extent){.pgno = cell->ptr.pgno,
		.pages = layout_extent_pages(cell->size, compact->db->pager.page_size),
		.tree = tree,
		.key_size = (uint32_t)cell->key.size,
		.key = key};
	return BTS_OK;
}

/* Levels fall by one: recursion is bounded by the depth of the tree. */
static enum bts_err compact_leaves(
	struct compact *compact, uint32_t tree, const struct page_ptr *ptr, int level)
{
	const uint8_t *image;
	enum bts_err err = compact_spend(compact);

	if (err == BTS_OK)
		err = pager_node(&compact->base, ptr, tree, level, &image);
	for (unsigned i = 0; err == BTS_OK && i < layout_count(image); i++) {
		struct node_cell cell;
		struct page_ptr child;

		if (level > 0) {
			child = node_child(image, i);
			err = compact_leaves(compact, tree, &child, level - 1);
			continue;
		}
		node_cell(image, i, &cell);
		if (cell.extent && cell.size <= BTS_VALUE_MAX)
			err = compact_add_extent(compact, tree, &cell);
	}
	return err;
}

static enum bts_err compact_gather_bucket(struct compact *compact, const struct bucket_state *bucket)
{
	const struct tree *tree = &bucket->tree;

	if (tree->depth == 0)
		return BTS_OK;
	return compact_leaves(compact, tree->id, &tree->root, (int)tree->depth - 1);
}

void compact_forget(struct bts *db)
{
	struct compact_memo *memo = db->compact;

	if (memo == NULL)
		return;
	compact_memo_drop(db, memo, 0, memo->count);
	db->env->ops->memory(db->env, memo->extents, 0);
	db->env->ops->memory(db->env, memo, 0);
	db->compact = NULL;
}

static enum bts_err compact_gather(struct compact *compact)
{
	struct bts *db = compact->db;
	struct compact_memo *memo = db->env->ops->memory(db->env, NULL, sizeof(*memo));
	enum bts_err err;

	if (memo == NULL)
		return error_set(compact->base.error, BTS_MEMORY, 0, "no memory to compact");
	*memo = (struct compact_memo){.txid = compact->base.newest};
	if (db->compact != NULL) {
		memo->stuck = db->compact->stuck;
		memo->tries = db->compact->tries;
	}
	compact_forget(db);
	db->compact = memo;
	err = compact_buckets(compact, compact_gather_bucket);
	if (err)
		compact_forget(db);
	else
		compact_memo_halve(db, db->compact);
	return err;
}

/* The remembered extent that covers the page, or NULL. */
static const struct compact_extent *compact_covering(const struct compact_memo *memo, bts_pgno pgno)
{
	size_t low = 0, high = memo == NULL ? 0 : memo->count;

	while (low < high) { /* the first that begins behind pgno */
		size_t middle = low + (high - low) / 2;

		if (memo->extents[middle].pgno > pgno)
			high = middle;
		else
			low = middle + 1;
	}
	if (low == 0 || pgno - memo->extents[low - 1].pgno >= memo->extents[low - 1].pages)
		return NULL;
	return &memo->extents[low - 1];
}

/* Does the way down the live tree end at this extent?  Then it is the unit. */
static enum bts_err compact_is_extent(
	struct compact *compact, const struct compact_extent *extent, struct compact_unit *unit)
{
	struct bts_slice key = {extent->key, extent->key_size};
	struct tree_hit hit;
	enum bts_err err = compact_tree(compact, extent->tree, &unit->tree, &unit->bucket);

	if (err == BTS_OK)
		err = tree_get(&compact->state->ctx, unit->tree, key, &hit);
	if (err)
		return err;
	if (!hit.cell.extent || hit.cell.ptr.pgno != extent->pgno ||
		layout_extent_pages(hit.cell.size, compact->db->pager.page_size) != extent->pages)
		return BTS_NOT_FOUND;
	unit->kind = COMPACT_EXTENT;
	unit->pgno = extent->pgno;
	unit->pages = extent->pages;
	unit->birth = hit.cell.ptr.birth;
	unit->key = key;
	return BTS_OK;
}

static enum bts_err compact_look_extent(struct compact *compact, bts_pgno pgno, struct compact_unit *unit)
{
	enum bts_err err = BTS_NOT_FOUND;

	for (int tries = 0; tries < 2; tries++) {
		const struct compact_memo *memo = compact->db->compact;
		const struct compact_extent *extent = compact_covering(memo, pgno);

		if (extent != NULL)
			err = compact_is_extent(compact, extent, unit);
		if (err != BTS_NOT_FOUND ||
			(memo != NULL && memo->txid == compact->base.newest && pgno >= memo->floor))
			return err;
		err = compact_gather(compact);
		if (err)
			return err == BTS_LIMIT ? BTS_NOT_FOUND : err;
		err = BTS_NOT_FOUND;
	}
	return err;
}

static enum bts_err compact_add_log(void *arg, const struct page_ptr *ptr)
{
	struct compact *compact = arg;
	enum bts_err err = compact_grow(compact, (void **)&compact->log, &compact->log_cap,
		compact->log_count, sizeof(*compact->log));

	if (err == BTS_OK)
		compact->log[compact->log_count++] = ptr->pgno;
	return err;
}

static int compact_pgno_order(const void *a, const void *b)
{
	const bts_pgno *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static enum bts_err compact_look_log(struct compact *compact, bts_pgno pgno, struct compact_unit *unit)
{
	enum bts_err err;

	if (!compact->log_there) {
		err = freelog_pages(&compact->base, &compact->state->record.free, compact_add_log, compact);
		if (err)
			return err;
		if (compact->log_count > 1)
			qsort(compact->log, compact->log_count, sizeof(pgno), compact_pgno_order);
		compact->log_there = true;
	}
	if (compact->log_count == 0 ||
		bsearch(&pgno, compact->log, compact->log_count, sizeof(pgno), compact_pgno_order) == NULL)
		return BTS_NOT_FOUND;
	unit->kind = COMPACT_LOG;
	return BTS_OK;
}

/*
 * The bytes of a sound node: does the live tree hold it?  A node that it no longer holds, but a private one in its place,
 * was on the way to something moved before.
 */
static enum bts_err compact_look_node(
	struct compact *compact, const uint8_t *image, struct compact_unit *unit)
{
	struct tree_path path;
	enum bts_err err;
	bool exact;

	unit->level = layout_level(image);
	unit->key = (struct bts_slice){"", 0};
	if (layout_count(image) > (unit->level > 0))
		unit->key = node_key(image, unit->level > 0);
	err = compact_tree(compact, layout_tree(image), &unit->tree, &unit->bucket);
	if (err)
		return err;
	if (unit->tree->depth <= unit->level)
		return BTS_NOT_FOUND;
	err = tree_path_find(&compact->state->ctx, unit->tree, unit->key, &path, &exact);
	if (err)
		return err;
	unit->kind = COMPACT_NODE;
	if (layout_is_dirty(&path.at[path.depth - 1 - unit->level].ptr))
		unit->kind = COMPACT_GONE;
	else if (path.at[path.depth - 1 - unit->level].ptr.pgno != unit->pgno)
		return BTS_NOT_FOUND;
	return BTS_OK;
}

/*
 * The page as a node or a page of the free log, by its own word: a payload page may say so too.  Its sum is computed in
 * any case: what moves gets a new one, which must not cover damage.
 */
static enum bts_err compact_look_page(struct compact *compact, bts_pgno pgno, struct compact_unit *unit)
{
	uint32_t page_size = compact->db->pager.page_size;
	const uint8_t *image = pager_raw(&compact->db->pager, pgno, 1);

	if (image == NULL || layout_pgno(image) != pgno || layout_pages(image) != 1 ||
		pager_crc(image, page_size) != layout_crc(image))
		return BTS_NOT_FOUND;
	unit->birth = layout_birth(image);
	if (layout_type(image) == LAYOUT_FREE_LOG)
		return compact_look_log(compact, pgno, unit);
	if (layout_type(image) > LAYOUT_BRANCH ||
		node_check(image, page_size, compact->base.limit, layout_birth(image)) != NULL)
		return BTS_NOT_FOUND;
	return compact_look_node(compact, image, unit);
}

/* What named snapshots do not reach. */
static bool compact_is_aside(const struct compact *compact, const struct compact_unit *unit)
{
	const struct commit_record *record = &compact->state->record;

	return unit->kind == COMPACT_LOG || unit->tree == &record->history ||
	       unit->tree == &record->snapshots;
}

enum bts_err compact_look(struct compact *compact, bts_pgno pgno, struct compact_unit *unit)
{
	enum bts_err err;

	*unit = (struct compact_unit){.pgno = pgno, .pages = 1};
	err = compact_look_page(compact, pgno, unit);
	if (err == BTS_NOT_FOUND)
		err = compact_look_extent(compact, pgno, unit);
	if (err == BTS_NOT_FOUND ||
		(err == BTS_OK && unit->birth <= compact->named && !compact_is_aside(compact, unit))) {
		unit->kind = COMPACT_STUCK;
		return BTS_OK;
	}
	return err;
}

static enum bts_err compact_own(
	struct compact *compact, const struct compact_unit *unit, struct tree_path *path)
{
	enum bts_err err;

	for (unsigned i = 0; i < path->depth; i++)
		compact->placed += !layout_is_dirty(&path->at[i].ptr);
	compact->state->ctx.aside = compact_is_aside(compact, unit);
	err = tree_path_own(&compact->state->ctx, unit->tree, path);
	compact->state->ctx.aside = false;
	if (err)
		return err;
	compact->state->changed = true;
	if (unit->bucket != NULL)
		unit->bucket->changed = true;
	return BTS_OK;
}

static enum bts_err compact_move_extent(
	struct compact *compact, const struct compact_unit *unit, struct tree_path *path)
{
	struct tree_ctx *ctx = &compact->state->ctx;
	struct tree_step *leaf = &path->at[path->depth - 1];
	uint32_t page_size = compact->db->pager.page_size;
	struct bts_slice value;
	struct node_cell cell;
	struct page_ptr fresh;
	const uint8_t *header;
	enum bts_err err;

	node_cell(leaf->image, leaf->index, &cell);
	err = pager_extent(ctx, &cell.ptr, cell.size, &value);
	if (err)
		return err;
	header = (const uint8_t *)value.data - layout_extent_header_pages(cell.size, page_size) * page_size;
	if (pager_crc(header, (size_t)((const uint8_t *)value.data - header)) != cell.ptr.crc)
		return error_set(ctx->error, BTS_CORRUPT, 0,
			"page %" PRIu64 ": checksum mismatch in the header of a "
			"large value",
			cell.ptr.pgno);
	err = compact_own(compact, unit, path);
	if (err == BTS_OK)
		err = dirty_borrow(ctx, value, header + LAYOUT_EXTENT_TABLE_AT, &fresh);
	if (err == BTS_OK)
		err = dirty_release(ctx, &cell.ptr, unit->pages);
	if (err)
		return err;
	node_set_child(leaf->page, leaf->index, &fresh);
	compact->placed += unit->pages;
	return BTS_OK;
}

enum bts_err compact_move(struct compact *compact, const struct compact_unit *unit)
{
	struct tree_path path;
	enum bts_err err;
	bool exact;

	if (unit->kind == COMPACT_GONE)
		return BTS_OK;
	if (unit->kind == COMPACT_LOG) {
		compact->state->condense = true;
		return BTS_OK;
	}
	err = tree_path_find(&compact->state->ctx, unit->tree, unit->key, &path, &exact);
	if (err)
		return err;
	if (unit->kind == COMPACT_EXTENT)
		return compact_move_extent(compact, unit, &path);
	path.depth -= unit->level;
	return compact_own(compact, unit, &path);
}

void compact_units_fini(struct compact *compact)
{
	struct bts_env *env = compact->db->env;

	env->ops->memory(env, compact->names, 0);
	env->ops->memory(env, compact->log, 0);
}
