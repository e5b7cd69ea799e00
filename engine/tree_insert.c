/* Put.  What it sets off when the leaf is full stands in tree_shift.c. */
#include "tree_path.h"
#include "node_cell.h"
#include "base/ensure.h"
#include "error.h"

/* The first entry of an empty tree. */
static enum bts_err tree_plant(struct tree_ctx *ctx, struct tree *tree, const struct node_cell *cell)
{
	struct page_ptr ptr;
	uint8_t *page;
	bool done;
	enum bts_err err = dirty_node(ctx, &ptr, &page);

	if (err)
		return err;
	node_init(page, ctx->pager->page_size, tree->id, 0);
	done = node_leaf_insert(page, ctx->pager->page_size, 0, cell);
	ENSURE(done);
	ctx->changes++;
	tree->root = ptr;
	tree->depth = 1;
	tree->pages = 1;
	return BTS_OK;
}

struct tree_aside {
	uint8_t key[BTS_KEY_MAX];
	uint8_t value[BTS_PAGE_SIZE_MAX / 4];
};

static struct bts_slice tree_slice_aside(struct bts_slice slice, struct bts_slice memory, uint8_t *copy)
{
	uintptr_t at = (uintptr_t)slice.data, start = (uintptr_t)memory.data;

	if (slice.size == 0 || at < start || at >= start + memory.size)
		return slice;
	memcpy(copy, slice.data, slice.size);
	return (struct bts_slice){copy, slice.size};
}

/* A caller may put what it just got: copy key and value when they lie in memory that is about to change. */
static void tree_cell_aside(struct node_cell *cell, struct bts_slice memory, struct tree_aside *aside)
{
	cell->key = tree_slice_aside(cell->key, memory, aside->key);
	if (!cell->extent)
		cell->value = tree_slice_aside(cell->value, memory, aside->value);
}

/*
 * An entry that goes right behind the last one put, in a leaf with room for it: most of a run, in any part of the
 * tree.  Nothing has changed since, so leaf and separator are as they were.
 */
static bool tree_put_behind(struct tree_ctx *ctx, struct tree *tree, struct node_cell *cell)
{
	uint32_t page_size = ctx->pager->page_size;
	const struct tree_run *run = &ctx->run;
	struct tree_aside aside;
	uint8_t *page;
	unsigned count;
	bool done;

	if (run->changes != ctx->changes || run->tree != tree->id)
		return false;
	page = dirty_own(ctx->dirty, &run->leaf);
	if (page == NULL || node_used(page, page_size) + node_leaf_need(cell) > node_capacity(page_size))
		return false;
	count = layout_count(page);
	if (node_compare(cell->key, node_key(page, count - 1), 0) <= 0 ||
		(run->behind.data != NULL && node_compare(cell->key, run->behind, 0) >= 0))
		return false;
	tree_cell_aside(cell, (struct bts_slice){page, page_size}, &aside);
	done = node_leaf_insert(page, page_size, count, cell);
	ENSURE(done);
	tree_paranoid(ctx, page);
	ctx->run.changes = ++ctx->changes;
	return true;
}

/* Put a cell into the leaf the path names.  On failure nothing of the tree's content has changed. */
static enum bts_err tree_put_cell(
	struct tree_ctx *ctx, struct tree *tree, struct tree_path *path, bool exact, struct node_cell *cell)
{
	struct tree_step *leaf = &path->at[path->depth - 1];
	struct tree_edit edit = {.from = leaf->index, .to = leaf->index + exact, .count = 1};
	struct tree_change change;
	struct tree_aside aside;
	struct node_cell old = {0};
	enum bts_err err;

	if (exact)
		node_cell(leaf->image, leaf->index, &old);
	edit.rows[0].key = cell->key;
	edit.rows[0].cell = cell;
	edit.rows[0].need = node_leaf_need(cell);
	err = tree_change_plan(ctx, tree, path, path->depth - 1, &edit, &change);
	if (err)
		return err;
	if (leaf->page)
		tree_cell_aside(cell, (struct bts_slice){leaf->page, ctx->pager->page_size}, &aside);
	tree_change_do(ctx, tree, path, &change);
	if (change.first > change.bottom && leaf->index + 1 == layout_count(leaf->page))
		ctx->run = (struct tree_run){
			.changes = ctx->changes,
			.leaf = leaf->ptr,
			.behind = leaf > path->at ? tree_path_bound(path, path->depth - 2, leaf[-1].index, true) :
						    (struct bts_slice){NULL, 0},
			.tree = tree->id,
		};
	if (exact) {
		tree->bytes -= old.key.size + (old.extent ? old.size : old.value.size);
		tree->entries--;
	}
	if (old.extent) /* last, since it may be what was put; there is room for that */
		(void)dirty_release(ctx, &old.ptr, layout_extent_pages(old.size, ctx->pager->page_size));
	return BTS_OK;
}

static enum bts_err tree_put_any(struct tree_ctx *ctx, struct tree *tree, struct node_cell *cell)
{
	uint64_t size = cell->extent ? cell->size : cell->value.size;
	struct bts_slice key = cell->key;
	struct tree_path fresh, *path;
	bool exact = false;
	enum bts_err err;

	ENSURE(ctx->dirty && key.size > 0 && key.size <= BTS_KEY_MAX && size <= BTS_VALUE_MAX);
	err = tree_sound(ctx, tree);
	if (err)
		return err;
	if (tree->depth == 0) {
		err = tree_plant(ctx, tree, cell);
	} else if (!tree_put_behind(ctx, tree, cell)) {
		path = tree_way_take(ctx, tree, key, &exact);
		if (path == NULL) {
			path = &fresh;
			err = tree_path_find(ctx, tree, key, path, &exact);
		}
		if (err == BTS_OK)
			err = tree_put_cell(ctx, tree, path, exact, cell);
	}
	if (err)
		return err;
	tree->entries++;
	tree->bytes += key.size + size;
	return BTS_OK;
}

enum bts_err tree_put_made(struct tree_ctx *ctx, struct tree *tree, struct bts_slice key,
	const struct page_ptr *made, uint64_t size, bts_txid version)
{
	struct node_cell cell = {.key = key, .version = version, .extent = true, .size = size, .ptr = *made};

	return tree_put_any(ctx, tree, &cell);
}

enum bts_err tree_put(struct tree_ctx *ctx, struct tree *tree, struct bts_slice key, struct bts_slice value,
	bts_txid version)
{
	struct node_cell cell = {.key = key, .version = version, .value = value};
	struct page_ptr made;
	enum bts_err err;

	if (node_fits_inline(ctx->pager->page_size, key.size, value.size))
		return tree_put_any(ctx, tree, &cell);
	err = dirty_extent(ctx, value, &made);
	if (err)
		return err;
	err = tree_put_made(ctx, tree, key, &made, value.size, version);
	if (err)
		(void)dirty_release(ctx, &made, 1); /* made above: cannot fail */
	return err;
}
