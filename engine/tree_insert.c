/*
 * Put, and the splits it sets off.
 *
 * A change is planned upwards from the leaf, every page it needs is made, and only then it is carried out,
 * from the highest node down: a separator points into the node below it until that is divided in its turn.
 */
#include "tree_path.h"
#include "node_cell.h"
#include "base/ensure.h"
#include "error.h"

#define TREE_RUN_MIN 8u /* entries a node must have before a run inside it is believed */

/* Which entry of the node a row is; not for the row of the new entry. */
static unsigned tree_row_source(const struct tree_entry *entry, unsigned row)
{
	return row > entry->index && !entry->replaces ? row - 1 : row;
}

static struct bts_slice tree_row_key(const uint8_t *page, const struct tree_entry *entry, unsigned row)
{
	return row == entry->index ? entry->key : node_key(page, tree_row_source(entry, row));
}

static uint32_t tree_row_need(const uint8_t *page, const struct tree_entry *entry, unsigned row)
{
	return row == entry->index ? entry->need : node_need(page, tree_row_source(entry, row));
}

static bool tree_entry_fits(const uint8_t *page, uint32_t page_size, const struct tree_entry *entry)
{
	uint32_t had = entry->replaces ? node_need(page, entry->index) : 0;

	return entry->need <= node_room(page, page_size) + had;
}

/* The shortest key above the last of the left rows and not above the first of the right ones. */
static struct bts_slice tree_separator(const uint8_t *page, const struct tree_entry *entry, unsigned point)
{
	struct bts_slice key = tree_row_key(page, entry, point);

	if (node_is_leaf(page))
		key.size = node_common(tree_row_key(page, entry, point - 1), key) + 1;
	return key;
}

struct tree_rows { /* measures of the rows a split divides */
	const uint8_t *page;
	const struct tree_entry *entry;
	uint32_t page_size;
	uint32_t total; /* bytes */
	unsigned count;
	unsigned least; /* rows either side must have */
};

/* Can the rows be divided at point, with `left` bytes before it? */
static bool tree_point_fits(const struct tree_rows *rows, unsigned point, uint32_t left)
{
	uint32_t capacity = node_capacity(rows->page_size), right = rows->total - left;

	if (point < rows->least || point > rows->count - rows->least)
		return false;
	if (!node_is_leaf(rows->page)) /* the key that moves up */
		right -= (uint32_t)tree_row_key(rows->page, rows->entry, point).size;
	return left <= capacity && right <= capacity;
}

/*
 * Runs: when the entry comes beside the last one inserted, divide there, so that the pages a run leaves
 * behind are full.  0: not a run.
 */
static unsigned tree_run_point(const struct tree_rows *rows)
{
	unsigned index = rows->entry->index, hint = layout_hint(rows->page);
	bool up = index == hint + 1, down = index == hint;
	uint32_t left = 0;

	if (rows->entry->replaces || (!up && !down))
		return 0;
	if (up && index == rows->count - 1)
		return rows->count - rows->least;
	if (down && index < rows->least)
		return rows->least;
	if (rows->count <= TREE_RUN_MIN)
		return 0;
	for (unsigned row = 0; row < index; row++)
		left += tree_row_need(rows->page, rows->entry, row);
	if (tree_point_fits(rows, index + 1, left + rows->entry->need))
		return index + 1;
	return tree_point_fits(rows, index, left) ? index : 0;
}

/* The shortest separator within a sixteenth of the middle, else what is nearest to the middle. */
static unsigned tree_middle_point(const struct tree_rows *rows)
{
	uint64_t best = UINT64_MAX;
	uint32_t left = 0;
	unsigned point = 0;

	for (unsigned row = 1; row < rows->count; row++) {
		uint64_t rank = BTS_KEY_MAX + 1;
		uint32_t off;

		left += tree_row_need(rows->page, rows->entry, row - 1);
		if (!tree_point_fits(rows, row, left))
			continue;
		off = 2 * left > rows->total ? 2 * left - rows->total : rows->total - 2 * left;
		if (off <= rows->total / 8)
			rank = tree_separator(rows->page, rows->entry, row).size;
		rank = rank << 32 | off;
		if (rank < best) {
			best = rank;
			point = row;
		}
	}
	ENSURE(point > 0); /* no cell is over half a page */
	return point;
}

static unsigned tree_split_point(const uint8_t *page, uint32_t page_size, const struct tree_entry *entry)
{
	struct tree_rows rows = {
		.page = page,
		.entry = entry,
		.page_size = page_size,
		.total = node_used(page, page_size) + entry->need -
			 (entry->replaces ? node_need(page, entry->index) : 0),
		.count = layout_count(page) + !entry->replaces,
		.least = node_is_leaf(page) ? 1 : 2,
	};
	unsigned point = tree_run_point(&rows);

	return point ? point : tree_middle_point(&rows);
}

enum bts_err tree_growth_plan(struct tree_ctx *ctx, const struct tree *tree, const struct tree_path *path,
	unsigned step, const struct tree_entry *entry, struct tree_growth *growth)
{
	uint32_t page_size = ctx->pager->page_size;
	struct tree_entry next = *entry;
	enum bts_err err;

	growth->bottom = step;
	growth->root_splits = false;
	for (;; step--) {
		const uint8_t *page = path->at[step].page;
		struct tree_split *split = &growth->at[step];

		split->entry = next;
		split->point = 0;
		growth->top = step;
		if (tree_entry_fits(page, page_size, &next))
			return BTS_OK;
		split->point = tree_split_point(page, page_size, &split->entry);
		err = dirty_node(ctx, &split->right, &split->right_page);
		if (err) {
			split->point = 0;
			goto fail;
		}
		next = (struct tree_entry){
			.key = tree_separator(page, &split->entry, split->point), .child = split->right};
		next.need = node_branch_need(next.key);
		if (step == 0)
			break;
		next.index = path->at[step - 1].index + 1;
	}
	if (tree->depth == TREE_DEPTH_MAX)
		err = error_set(ctx->error, BTS_LIMIT, 0, "tree %u is %u levels deep", tree->id, tree->depth);
	else
		err = dirty_node(ctx, &growth->root, &growth->root_page);
	if (err)
		goto fail;
	growth->root_splits = true;
	return BTS_OK;
fail:
	tree_growth_cancel(ctx, growth);
	return err;
}

/* Giving back a page that was just made cannot fail. */
void tree_growth_cancel(struct tree_ctx *ctx, struct tree_growth *growth)
{
	for (unsigned i = growth->top; i <= growth->bottom; i++)
		if (growth->at[i].point)
			(void)dirty_release(ctx, &growth->at[i].right, 1);
	if (growth->root_splits)
		(void)dirty_release(ctx, &growth->root, 1);
}

static void tree_enter(uint8_t *page, uint32_t page_size, unsigned index, const struct tree_entry *entry)
{
	bool done;

	if (!node_is_leaf(page)) {
		if (entry->replaces)
			node_remove(page, page_size, index);
		done = node_branch_insert(page, page_size, index,
			index ? entry->key : (struct bts_slice){NULL, 0}, &entry->child);
	} else if (entry->replaces) {
		done = node_leaf_replace(page, page_size, index, entry->cell);
	} else {
		done = node_leaf_insert(page, page_size, index, entry->cell);
	}
	ENSURE(done);
}

/* Divide a node's rows between it and a new right neighbour. */
static void tree_divide(uint8_t *page, uint32_t page_size, const struct tree_split *split)
{
	const struct tree_entry *entry = &split->entry;
	struct tree_entry fresh = *entry;
	unsigned count = layout_count(page), keep = split->point;
	unsigned after = entry->index + entry->replaces; /* the first old entry behind the new one */
	uint8_t *right = split->right_page;
	bool done;

	fresh.replaces = false;
	node_init(right, page_size, layout_tree(page), layout_level(page));
	layout_set_last_delete(right, layout_last_delete(page));
	if (entry->index < split->point) {
		keep = tree_row_source(entry, split->point);
		done = node_append(right, page, page_size, keep, count);
		node_truncate(page, page_size, keep);
		if (entry->replaces)
			node_remove(page, page_size, entry->index);
		node_tidy(page, page_size);
		tree_enter(page, page_size, entry->index, &fresh);
	} else {
		done = node_append(right, page, page_size, keep, entry->index);
		ENSURE(done);
		tree_enter(right, page_size, entry->index - split->point, &fresh);
		done = node_append(right, page, page_size, after, count);
		node_truncate(page, page_size, keep);
		node_tidy(page, page_size);
	}
	ENSURE(done);
}

static void tree_new_root(
	struct tree_ctx *ctx, struct tree *tree, const struct tree_growth *growth, struct bts_slice separator)
{
	uint32_t page_size = ctx->pager->page_size;
	bool done;

	node_init(growth->root_page, page_size, tree->id, tree->depth);
	done = node_branch_insert(
		       growth->root_page, page_size, 0, (struct bts_slice){NULL, 0}, &tree->root) &&
	       node_branch_insert(growth->root_page, page_size, 1, separator, &growth->at[0].right);
	ENSURE(done);
	tree_paranoid(ctx, growth->root_page);
	tree->root = growth->root;
	tree->depth++;
	tree->pages++;
}

void tree_growth_do(
	struct tree_ctx *ctx, struct tree *tree, struct tree_path *path, const struct tree_growth *growth)
{
	uint32_t page_size = ctx->pager->page_size;

	if (growth->root_splits) {
		const struct tree_split *split = &growth->at[0];

		tree_new_root(
			ctx, tree, growth, tree_separator(path->at[0].page, &split->entry, split->point));
	}
	for (unsigned step = growth->top; step <= growth->bottom; step++) {
		const struct tree_split *split = &growth->at[step];
		uint8_t *page = path->at[step].page;

		if (split->point) {
			tree_divide(page, page_size, split);
			tree_paranoid(ctx, split->right_page);
			tree->pages++;
		} else {
			tree_enter(page, page_size, split->entry.index, &split->entry);
		}
		tree_paranoid(ctx, page);
	}
}

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

static enum bts_err tree_forget_value(struct tree_ctx *ctx, const struct node_cell *old)
{
	if (!old->extent)
		return BTS_OK;
	return dirty_release(ctx, &old->ptr, layout_extent_pages(old->size, ctx->pager->page_size));
}

/* Put a cell into the leaf the path names.  On failure nothing of the tree's content has changed. */
static enum bts_err tree_put_cell(
	struct tree_ctx *ctx, struct tree *tree, struct tree_path *path, bool exact, struct node_cell *cell)
{
	struct tree_step *leaf = &path->at[path->depth - 1];
	struct tree_entry entry = {.index = leaf->index, .replaces = exact, .cell = cell};
	struct tree_growth growth;
	struct tree_aside aside;
	struct node_cell old = {0};
	struct bts_slice value;
	enum bts_err err = tree_path_own(ctx, tree, path);

	if (err)
		return err;
	tree_cell_aside(cell, (struct bts_slice){leaf->page, ctx->pager->page_size}, &aside);
	if (exact)
		node_cell(leaf->page, leaf->index, &old);
	if (old.extent && dirty_value(ctx->dirty, &old.ptr, &value))
		tree_cell_aside(cell, value, &aside);
	entry.key = cell->key;
	entry.need = node_leaf_need(cell);
	err = tree_growth_plan(ctx, tree, path, path->depth - 1, &entry, &growth);
	if (err)
		return err;
	err = tree_forget_value(ctx, &old);
	if (err) {
		tree_growth_cancel(ctx, &growth);
		return err;
	}
	if (exact) {
		tree->bytes -= old.key.size + (old.extent ? old.size : old.value.size);
		tree->entries--;
	}
	tree_growth_do(ctx, tree, path, &growth);
	return BTS_OK;
}

static enum bts_err tree_put_any(struct tree_ctx *ctx, struct tree *tree, struct node_cell *cell)
{
	uint64_t size = cell->extent ? cell->size : cell->value.size;
	struct bts_slice key = cell->key;
	struct tree_path path;
	bool exact = false;
	enum bts_err err;

	ENSURE(ctx->dirty && key.size > 0 && key.size <= BTS_KEY_MAX && size <= BTS_VALUE_MAX);
	err = tree_sound(ctx, tree);
	if (!err && tree->depth)
		err = tree_path_find(ctx, tree, key, &path, &exact);
	if (err)
		return err;
	if (tree->depth)
		err = tree_put_cell(ctx, tree, &path, exact, cell);
	else
		err = tree_plant(ctx, tree, cell);
	if (err)
		return err;
	tree->entries++;
	tree->bytes += key.size + size;
	return BTS_OK;
}

enum bts_err tree_put_made(struct tree_ctx *ctx, struct tree *tree, struct bts_slice key, const struct page_ptr *made,
	uint64_t size, bts_txid version)
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
