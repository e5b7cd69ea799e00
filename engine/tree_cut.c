/*
 * Ranges of keys: deleting one, and whether one has changed.
 *
 * A cut goes down both edges of the range at once. What lies between them is released as whole subtrees,
 * read once to count entries and to find large values; the edges lose entries, and a node that would be
 * left empty goes too. That leaves a sound order but thin nodes along the edges, even branches of one
 * child: tree_cut_repair then merges them by the rules of tree_shift.c, from the root down, so that each
 * finds its parent with a neighbour for it.
 *
 * Many pages change before the tree is whole again, so it is done in a level of its own of the private
 * pages (dirty_begin): on a failure that is rolled back and the tree is what it was.
 */
#include "node_cell.h"
#include "tree_path.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"

struct tree_cut {
	struct tree_ctx *ctx;
	struct tree *tree;
	uint64_t entries, bytes, pages; /* released */
};

/* The edges of the range that cross a node; NULL: all on that side is in the range. */
struct tree_edges {
	const struct bts_slice *from, *to;
};

static enum bts_err tree_cut_cells(struct tree_cut *cut, const uint8_t *leaf, unsigned from, unsigned to)
{
	uint32_t page_size = cut->ctx->pager->page_size;

	for (unsigned i = from; i < to; i++) {
		struct node_cell cell;
		enum bts_err err;

		node_cell(leaf, i, &cell);
		cut->entries++;
		cut->bytes += cell.key.size + (cell.extent ? cell.size : cell.value.size);
		if (!cell.extent)
			continue;
		err = dirty_release(cut->ctx, &cell.ptr, layout_extent_pages(cell.size, page_size));
		if (err)
			return err;
	}
	return BTS_OK;
}

static enum bts_err tree_cut_page(struct tree_cut *cut, const struct page_ptr *ptr)
{
	if (++cut->pages > cut->tree->pages) /* a page reached twice could make the walk endless */
		return error_set(cut->ctx->error, BTS_CORRUPT, 0,
			"page %llu: tree %u has more nodes than it counts", (unsigned long long)ptr->pgno,
			cut->tree->id);
	return dirty_release(cut->ctx, ptr, 1);
}

/* Recursion is as deep as the level, which the accessor compares with the page. */
static enum bts_err tree_cut_whole(struct tree_cut *cut, struct page_ptr ptr, unsigned level)
{
	const uint8_t *image;
	enum bts_err err = pager_node(cut->ctx, &ptr, cut->tree->id, (int)level, &image);

	if (err)
		return err;
	if (level == 0)
		err = tree_cut_cells(cut, image, 0, layout_count(image));
	for (unsigned i = 0; level > 0 && err == BTS_OK && i < layout_count(image); i++)
		err = tree_cut_whole(cut, node_child(image, i), level - 1);
	return err ? err : tree_cut_page(cut, &ptr);
}

/* Take slots [low, high) out of a node; *empty: they are all it has, and it is released. */
static enum bts_err tree_cut_slots(struct tree_cut *cut, struct page_ptr *ptr, const uint8_t *image,
	unsigned low, unsigned high, uint8_t **page, bool *empty)
{
	uint32_t page_size = cut->ctx->pager->page_size;
	unsigned count = layout_count(image);
	enum bts_err err;

	*empty = low == 0 && high == count;
	if (*empty)
		return tree_cut_page(cut, ptr);
	err = dirty_cow(cut->ctx, ptr, image, page);
	if (err)
		return err;
	if (high == count && low < high)
		node_truncate(*page, page_size, low);
	else
		while (high > low)
			node_remove(*page, page_size, --high);
	return BTS_OK;
}

static enum bts_err tree_cut_leaf(struct tree_cut *cut, struct page_ptr *ptr, const uint8_t *image,
	const struct tree_edges *edges, bool *empty)
{
	unsigned low, high;
	uint8_t *page;
	bool exact;
	enum bts_err err;

	low = edges->from ? node_search(image, *edges->from, &exact) : 0;
	high = edges->to ? node_search(image, *edges->to, &exact) : layout_count(image);
	*empty = false;
	if (low >= high)
		return BTS_OK;
	err = tree_cut_cells(cut, image, low, high);
	return err ? err : tree_cut_slots(cut, ptr, image, low, high, &page, empty);
}

/* The children of a branch that a range touches, and what becomes of them. */
struct tree_span {
	unsigned left, right;	     /* those the edges cross, when there are edges */
	unsigned low, high;	     /* slots that go */
	struct page_ptr first, last; /* what left and right have become */
};

static enum bts_err tree_cut_node(struct tree_cut *cut, struct page_ptr *ptr, unsigned level,
	const struct tree_edges *edges, bool *empty);

/* Cut into the child that both edges cross. */
static enum bts_err tree_cut_one(struct tree_cut *cut, const uint8_t *image, unsigned level,
	const struct tree_edges *edges, struct tree_span *span)
{
	bool gone;
	enum bts_err err;

	span->first = node_child(image, span->left);
	err = tree_cut_node(cut, &span->first, level - 1, edges, &gone);
	span->low = span->left + !gone;
	span->high = span->left + 1;
	span->last = span->first;
	return err;
}

/* Cut into the children at the edges, release those between. */
static enum bts_err tree_cut_many(struct tree_cut *cut, const uint8_t *image, unsigned level,
	const struct tree_edges *edges, struct tree_span *span)
{
	unsigned whole = edges->from ? span->left + 1 : 0,
		 end = edges->to ? span->right : layout_count(image);
	bool gone;
	enum bts_err err = BTS_OK;

	span->low = whole;
	span->high = end;
	if (edges->from) {
		span->first = node_child(image, span->left);
		err = tree_cut_node(
			cut, &span->first, level - 1, &(struct tree_edges){edges->from, NULL}, &gone);
		if (err)
			return err;
		span->low = whole - gone;
	}
	if (edges->to) {
		span->last = node_child(image, span->right);
		err = tree_cut_node(
			cut, &span->last, level - 1, &(struct tree_edges){NULL, edges->to}, &gone);
		if (err)
			return err;
		span->high = end + gone;
	}
	for (unsigned i = whole; i < end && err == BTS_OK; i++)
		err = tree_cut_whole(cut, node_child(image, i), level - 1);
	return err;
}

static enum bts_err tree_cut_branch(struct tree_cut *cut, struct page_ptr *ptr, unsigned level,
	const uint8_t *image, const struct tree_edges *edges, bool *empty)
{
	struct tree_span span = {.left = edges->from ? node_child_index(image, *edges->from) : 0,
		.right = edges->to ? node_child_index(image, *edges->to) : 0};
	unsigned slot;
	uint8_t *page;
	enum bts_err err;

	if (edges->from && edges->to && span.left == span.right)
		err = tree_cut_one(cut, image, level, edges, &span);
	else
		err = tree_cut_many(cut, image, level, edges, &span);
	if (err)
		return err;
	*empty = span.low == 0 && span.high == layout_count(image);
	if (*empty)
		return tree_cut_page(cut, ptr);
	err = dirty_cow(cut->ctx, ptr, image, &page);
	if (err)
		return err;
	if (edges->from && span.low > span.left)
		node_set_child(page, span.left, &span.first);
	if (edges->to && span.high <= span.right)
		node_set_child(page, span.right, &span.last);
	for (slot = span.high; slot > span.low; slot--)
		node_remove(page, cut->ctx->pager->page_size, slot - 1);
	return BTS_OK;
}

/* Cut the range out of a subtree; *ptr becomes its copy's, or *empty. */
static enum bts_err tree_cut_node(struct tree_cut *cut, struct page_ptr *ptr, unsigned level,
	const struct tree_edges *edges, bool *empty)
{
	const uint8_t *image;
	enum bts_err err = pager_node(cut->ctx, ptr, cut->tree->id, (int)level, &image);

	*empty = false;
	if (err)
		return err;
	if (level == 0)
		return tree_cut_leaf(cut, ptr, image, edges, empty);
	return tree_cut_branch(cut, ptr, level, image, edges, empty);
}

/* Nothing is left: a root leaf to remember the deletion. */
static enum bts_err tree_cut_bare(struct tree_cut *cut)
{
	struct tree *tree = cut->tree;
	uint8_t *page;
	enum bts_err err = dirty_node(cut->ctx, &tree->root, &page);

	if (err)
		return err;
	node_init(page, cut->ctx->pager->page_size, tree->id, 0);
	layout_set_last_delete(page, cut->ctx->stamp);
	tree->depth = 1;
	tree->pages = 1;
	return BTS_OK;
}

/* The separator behind the leaf that a path leads to; false: it is the last leaf. */
static bool tree_path_end(const struct tree_path *path, struct bts_slice *end)
{
	for (unsigned at = path->depth - 1; at > 0; at--) {
		const struct tree_step *step = &path->at[at - 1];

		if (step->index + 1 < layout_count(step->image)) {
			*end = node_key(step->image, step->index + 1);
			return true;
		}
	}
	return false;
}

/* No key is less or equal. */
static struct bts_slice tree_least(void)
{
	return (struct bts_slice){"", 1};
}

/* The range has no key any more: at most two leaves cover it, since none is empty.  Both inherit it. */
static enum bts_err tree_cut_inherit(struct tree_cut *cut, const struct tree_range *range)
{
	struct bts_slice key = range->from.size ? range->from : tree_least(), end;
	uint8_t copy[BTS_KEY_MAX];
	struct tree_path path;
	bool exact;

	for (;;) {
		enum bts_err err = tree_path_find(cut->ctx, cut->tree, key, &path, &exact);

		if (err == BTS_OK)
			err = tree_path_own(cut->ctx, cut->tree, &path);
		if (err)
			return err;
		if (!SABOTAGE(FAULT_C1_NO_LAST_DELETE))
			layout_set_last_delete(path.at[path.depth - 1].page, cut->ctx->stamp);
		if (!tree_path_end(&path, &end) || (range->to.size && node_compare(end, range->to, 0) >= 0))
			return BTS_OK;
		memcpy(copy, end.data, end.size);
		key = (struct bts_slice){copy, end.size};
	}
}

static enum bts_err tree_cut_collapse(struct tree_ctx *ctx, struct tree *tree)
{
	while (tree->depth > 1) {
		struct page_ptr root = tree->root;
		const uint8_t *image;
		enum bts_err err = pager_node(ctx, &root, tree->id, (int)tree->depth - 1, &image);

		if (err || layout_count(image) > 1)
			return err;
		tree->root = node_child(image, 0);
		tree->depth--;
		tree->pages--;
		err = dirty_release(ctx, &root, 1);
		if (err)
			return err;
	}
	return BTS_OK;
}

/* The first thin node on the path is merged, or gets a child; *done: there was none that could be helped. */
static enum bts_err tree_cut_thin(struct tree_ctx *ctx, struct tree *tree, struct tree_path *path, bool *done)
{
	uint32_t page_size = ctx->pager->page_size;

	for (unsigned step = 1; step < path->depth; step++) {
		const struct tree_edit edit = {.shrinks = true};
		const uint8_t *page = path->at[step].image;
		bool least = !node_is_leaf(page) && layout_count(page) < 2;
		struct tree_change change;
		enum bts_err err;

		if (!least && !tree_is_thin(node_used(page, page_size), page_size))
			continue;
		err = tree_change_plan(ctx, tree, path, step, &edit, &change);
		if (err == BTS_OK && change.first > step)
			continue;
		if (err == BTS_OK)
			tree_change_do(ctx, tree, path, &change);
		*done = false;
		return err;
	}
	*done = true;
	return BTS_OK;
}

/* Merge what is thin on the way to key.  Each round takes a page or gives a branch its second child. */
static enum bts_err tree_cut_repair(struct tree_ctx *ctx, struct tree *tree, struct bts_slice key)
{
	struct tree_path path;
	bool exact, done = false;

	while (!done) {
		enum bts_err err = tree_cut_collapse(ctx, tree);

		if (err == BTS_OK)
			err = tree_path_find(ctx, tree, key, &path, &exact);
		if (err == BTS_OK)
			err = tree_path_own(ctx, tree, &path);
		if (err == BTS_OK)
			err = tree_cut_thin(ctx, tree, &path, &done);
		if (err)
			return err;
	}
	return BTS_OK;
}

static enum bts_err tree_cut_do(struct tree_cut *cut, const struct tree_range *range)
{
	struct tree_edges edges = {
		range->from.size ? &range->from : NULL, range->to.size ? &range->to : NULL};
	struct tree *tree = cut->tree;
	struct page_ptr root = tree->root;
	bool empty = edges.from == NULL && edges.to == NULL;
	enum bts_err err;

	if (empty)
		err = tree_cut_whole(cut, root, tree->depth - 1);
	else
		err = tree_cut_node(cut, &root, tree->depth - 1, &edges, &empty);
	if (err)
		return err;
	if (cut->entries > tree->entries || cut->bytes > tree->bytes)
		return error_set(
			cut->ctx->error, BTS_CORRUPT, 0, "tree %u has more entries than it counts", tree->id);
	tree->entries -= cut->entries;
	tree->bytes -= cut->bytes;
	tree->pages -= cut->pages;
	if (empty)
		return tree_cut_bare(cut);
	tree->root = root;
	err = tree_cut_inherit(cut, range);
	if (err == BTS_OK && edges.from)
		err = tree_cut_repair(cut->ctx, tree, range->from);
	if (err == BTS_OK)
		err = tree_cut_repair(cut->ctx, tree, edges.to ? range->to : tree_least());
	return err;
}

/* BTS_NOT_FOUND when no key is in the range. */
static enum bts_err tree_cut_any(struct tree_ctx *ctx, struct tree *tree, const struct tree_range *range)
{
	struct tree_cursor cursor;
	struct node_cell cell;
	enum bts_err err;

	tree_cursor_init(&cursor, ctx, tree);
	err = tree_cursor_seek(&cursor, range->from.size ? range->from : tree_least(), &cell);
	if (err == BTS_OK && range->to.size && node_compare(cell.key, range->to, 0) >= 0)
		err = BTS_NOT_FOUND;
	return err;
}

static struct bts_slice tree_cut_aside(struct bts_slice key, uint8_t copy[BTS_KEY_MAX])
{
	if (key.size)
		memcpy(copy, key.data, key.size);
	return (struct bts_slice){copy, key.size};
}

enum bts_err tree_cut(
	struct tree_ctx *ctx, struct tree *tree, const struct tree_range *given, uint64_t *count)
{
	struct tree_cut cut = {.ctx = ctx, .tree = tree};
	struct tree before = *tree;
	uint8_t from[BTS_KEY_MAX], to[BTS_KEY_MAX]; /* what was passed may lie in a page that is about to change */
	struct tree_range aside = {tree_cut_aside(given->from, from), tree_cut_aside(given->to, to)}, *range = &aside;
	enum bts_err err = tree_cut_any(ctx, tree, range);

	ENSURE(ctx->dirty != NULL);
	if (err == BTS_NOT_FOUND)
		*count = 0;
	if (err)
		return err == BTS_NOT_FOUND ? BTS_OK : err;
	err = dirty_begin(ctx->dirty);
	if (err)
		return error_set(ctx->error, err, 0, "no memory to delete a range");
	ctx->changes++;
	err = tree_cut_do(&cut, range);
	if (err) {
		dirty_rollback(ctx->dirty);
		*tree = before;
		return err;
	}
	dirty_keep(ctx->dirty);
	*count = cut.entries;
	return BTS_OK;
}

struct tree_changed {
	struct tree_ctx *ctx;
	const struct tree *tree;
	bts_txid since, newest;
};

static void tree_changed_by(struct tree_changed *look, bts_txid txid)
{
	if (txid > look->since && txid > look->newest)
		look->newest = txid;
}

/* Down to what was born after `since`; edges as in a cut. */
static enum bts_err tree_changed_node(
	struct tree_changed *look, struct page_ptr ptr, unsigned level, const struct tree_edges *edges)
{
	unsigned low, high;
	const uint8_t *image;
	enum bts_err err;
	bool exact;

	if (!layout_is_dirty(&ptr) && ptr.birth <= look->since)
		return BTS_OK;
	err = pager_node(look->ctx, &ptr, look->tree->id, (int)level, &image);
	if (err)
		return err;
	if (level == 0) {
		tree_changed_by(look, layout_last_delete(image));
		low = edges->from ? node_search(image, *edges->from, &exact) : 0;
		high = edges->to ? node_search(image, *edges->to, &exact) : layout_count(image);
		for (unsigned i = low; i < high; i++) {
			struct node_cell cell;

			node_cell(image, i, &cell);
			tree_changed_by(look, cell.version);
		}
		return BTS_OK;
	}
	low = edges->from ? node_child_index(image, *edges->from) : 0;
	high = edges->to ? node_child_index(image, *edges->to) : layout_count(image) - 1u;
	for (unsigned i = low; i <= high && look->newest == 0 && err == BTS_OK; i++) {
		struct tree_edges below = {i == low ? edges->from : NULL, i == high ? edges->to : NULL};

		err = tree_changed_node(look, node_child(image, i), level - 1, &below);
	}
	return err;
}

enum bts_err tree_range_changed(struct tree_ctx *ctx, const struct tree *tree, const struct tree_range *range,
	bts_txid since, bts_txid *newest)
{
	struct tree_edges edges = {
		range->from.size ? &range->from : NULL, range->to.size ? &range->to : NULL};
	struct tree_changed look = {ctx, tree, since, 0};
	enum bts_err err = tree_sound(ctx, tree);

	if (err == BTS_OK && tree->depth > 0)
		err = tree_changed_node(&look, tree->root, tree->depth - 1, &edges);
	if (err == BTS_OK)
		*newest = look.newest;
	return err;
}
