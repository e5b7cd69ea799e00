/* The way from the root to a leaf, and the end of a whole tree. */
#include "tree_path.h"
#include "node_search.h"
#include "base/ensure.h"
#include "error.h"

enum bts_err tree_sound(struct tree_ctx *ctx, const struct tree *tree)
{
	if (tree->depth > TREE_DEPTH_MAX || (tree->depth == 0) != (tree->root.pgno == 0))
		return error_set(ctx->error, BTS_CORRUPT, 0, "tree %u: depth %u with its root at page %llu",
			tree->id, tree->depth, (unsigned long long)tree->root.pgno);
	return BTS_OK;
}

enum bts_err tree_path_find(struct tree_ctx *ctx, const struct tree *tree, struct bts_slice key,
	struct tree_path *path, bool *exact)
{
	struct page_ptr ptr = tree->root;
	unsigned last = tree->depth - 1;
	enum bts_err err;

	path->depth = tree->depth;
	for (unsigned i = 0;; i++) {
		struct tree_step *step = &path->at[i];

		step->ptr = ptr;
		step->page = NULL;
		if (i < last)
			pager_expect(ctx, &ptr, true);
		else
			pager_prefetch(ctx, &ptr, 0, TREE_LINES);
		err = pager_node(ctx, &ptr, tree->id, (int)(last - i), &step->image);
		if (err)
			return err;
		if (i == last)
			break;
		ptr = node_branch_child(step->image, key, &step->index);
	}
	path->at[last].index = node_search_from(path->at[last].image, 0, key, exact);
	return BTS_OK;
}

/* Is the leaf the key's by the separators above it, too?  A damaged leaf may hold keys that are not. */
static bool tree_way_holds(const struct tree_path *path, struct bts_slice key)
{
	unsigned above = path->depth - 2;
	struct bts_slice low, high;

	if (path->depth < 2)
		return true;
	low = tree_path_bound(path, above, path->at[above].index, false);
	high = tree_path_bound(path, above, path->at[above].index, true);
	return (low.data == NULL || node_compare(key, low, 0) >= 0) && (high.data == NULL || node_compare(key, high, 0) < 0);
}

struct tree_path *tree_way_take(struct tree_ctx *ctx, const struct tree *tree, struct bts_slice key, bool *exact)
{
	struct tree_way *way = ctx->way;
	const struct tree_step *leaf;
	int order;

	if (way == NULL || way->path.depth == 0 || way->changes != ctx->changes || way->tree != tree->id ||
		way->path.depth != tree->depth || !layout_ptr_equal(&way->path.at[0].ptr, &tree->root))
		return NULL;
	for (unsigned i = 0; i < tree->depth; i++) { /* P1: every touch compares, this one too */
		const struct tree_step *step = &way->path.at[i];

		if (!layout_is_dirty(&step->ptr) && pager_near(ctx, &step->ptr, tree->id, (int)(tree->depth - 1 - i)) != step->image)
			return NULL;
	}
	leaf = &way->path.at[tree->depth - 1];
	if (leaf->index >= layout_count(leaf->image) || !tree_way_holds(&way->path, key))
		return NULL;
	order = node_compare(key, node_key(leaf->image, leaf->index), 0);
	if (order > 0 || (order < 0 && (leaf->index == 0 || node_compare(key, node_key(leaf->image, leaf->index - 1), 0) <= 0)))
		return NULL;
	*exact = order == 0;
	return &way->path;
}

enum bts_err tree_path_own(struct tree_ctx *ctx, struct tree *tree, struct tree_path *path)
{
	return tree_path_own_to(ctx, tree, path, path->depth - 1);
}

enum bts_err tree_path_own_to(struct tree_ctx *ctx, struct tree *tree, struct tree_path *path, unsigned last)
{
	enum bts_err err;

	ctx->changes++;
	for (unsigned i = 0; i <= last; i++) {
		struct tree_step *step = &path->at[i];
		struct page_ptr before = step->ptr;

		if (i < last && layout_is_dirty(&step[1].ptr)) /* which stays: so does this page */
			continue;
		err = i < last && layout_is_dirty(&before) ? dirty_point(ctx, &before, step->index, &step->page) :
							     dirty_cow(ctx, &step->ptr, step->image, &step->page);
		if (err)
			return err;
		step->image = step->page;
		if (layout_ptr_equal(&before, &step->ptr))
			continue;
		if (i == 0)
			tree->root = step->ptr;
		else
			node_set_child(path->at[i - 1].page, path->at[i - 1].index, &step->ptr);
	}
	return BTS_OK;
}

struct bts_slice tree_path_bound(const struct tree_path *path, unsigned step, unsigned slot, bool behind)
{
	for (;; slot = path->at[--step].index) {
		const uint8_t *page = path->at[step].image;

		if (behind ? slot + 1 < layout_count(page) : slot > 0)
			return node_key(page, slot + behind);
		if (step == 0)
			return (struct bts_slice){NULL, 0};
	}
}

/* All pages and extents of a tree about to end. */
struct tree_end {
	struct dirty_freed *items;
	size_t count, cap;
};

static enum bts_err tree_end_add(
	struct tree_ctx *ctx, struct tree_end *end, const struct page_ptr *ptr, uint64_t pages)
{
	struct bts_env *env = ctx->pager->env;

	if (end->count == end->cap) {
		size_t cap = end->cap ? end->cap * 2 : 64;
		void *fresh = env->ops->memory(env, end->items, cap * sizeof(*end->items));

		if (fresh == NULL)
			return error_set(
				ctx->error, BTS_MEMORY, 0, "no memory to release a tree of %zu pages", cap);
		end->items = fresh;
		end->cap = cap;
	}
	end->items[end->count++] = (struct dirty_freed){.ptr = *ptr, .pages = pages};
	return BTS_OK;
}

static enum bts_err tree_end_values(struct tree_ctx *ctx, struct tree_end *end, const uint8_t *leaf)
{
	uint32_t page_size = ctx->pager->page_size;
	unsigned count = layout_count(leaf);

	for (unsigned i = 0; i < count; i++) {
		struct node_cell cell;
		enum bts_err err;

		node_cell(leaf, i, &cell);
		if (!cell.extent)
			continue;
		err = tree_end_add(ctx, end, &cell.ptr, layout_extent_pages(cell.size, page_size));
		if (err)
			return err;
	}
	return BTS_OK;
}

static enum bts_err tree_end_walk(struct tree_ctx *ctx, const struct tree *tree, struct tree_end *end)
{
	struct tree_path path = {.depth = tree->depth};
	struct page_ptr ptr = tree->root;
	uint64_t nodes = 0;
	unsigned at = 0;
	enum bts_err err;

	for (;;) {
		struct tree_step *step = &path.at[at];

		step->index = 0;
		err = pager_node(ctx, &ptr, tree->id, (int)(tree->depth - 1 - at), &step->image);
		if (err)
			return err;
		if (++nodes > tree->pages)
			return error_set(ctx->error, BTS_CORRUPT, 0,
				"page %llu: tree %u has more nodes than it counts",
				(unsigned long long)ptr.pgno, tree->id);
		err = tree_end_add(ctx, end, &ptr, 1);
		if (err == BTS_OK && at + 1 == tree->depth)
			err = tree_end_values(ctx, end, step->image);
		if (err)
			return err;
		while (at + 1 == tree->depth || path.at[at].index == layout_count(path.at[at].image)) {
			if (at == 0)
				return BTS_OK;
			path.at[--at].index++;
		}
		ptr = node_child(path.at[at].image, path.at[at].index);
		at++;
	}
}

/* All is read and room is made first: what releases cannot fail. */
enum bts_err tree_drop(struct tree_ctx *ctx, struct tree *tree)
{
	struct tree_end end = {0};
	enum bts_err err = tree_sound(ctx, tree);

	if (err || tree->depth == 0)
		return err;
	err = tree_end_walk(ctx, tree, &end);
	if (err == BTS_OK)
		err = dirty_reserve(ctx, end.count);
	if (err)
		goto done;
	for (size_t i = 0; i < end.count; i++)
		(void)dirty_release(ctx, &end.items[i].ptr, end.items[i].pages); /* room was made */
	ctx->changes++;
	*tree = (struct tree){.id = tree->id};
done:
	ctx->pager->env->ops->memory(ctx->pager->env, end.items, 0);
	return err;
}

#ifdef BTS_PARANOID
void tree_paranoid(const struct tree_ctx *ctx, const uint8_t *page)
{
	const char *wrong = node_check_private(page, ctx->pager->page_size, ctx->limit, LAYOUT_TXID_LIMIT);

	if (wrong)
		fprintf(stderr, "private node of tree %u level %u: %s\n", layout_tree(page),
			layout_level(page), wrong);
	ENSURE(wrong == NULL);
}
#endif
