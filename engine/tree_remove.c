/*
 * Delete, and the merges it sets off.
 *
 * Like insertion in two passes: upwards from the leaf it is decided who merges with which neighbour, and
 * these neighbours are made private; then all is carried out, and nothing can fail any more.  A node below a
 * third full merges when both fit in one.  No leaf but the root is ever left empty (an empty one always
 * fits), and no branch with one child: if that would come, and no neighbour can take it in, it first borrows
 * a child, and the deletion starts over.
 */
#include "tree_path.h"
#include "node_cell.h"
#include "base/ensure.h"
#include "error.h"

struct tree_shrink {
	unsigned top;			      /* the highest step whose node loses an entry */
	bool borrow;			      /* the node at `top` has to get a child first */
	struct tree_merge at[TREE_DEPTH_MAX]; /* of steps top+1 .. leaf */
};

/* The neighbour of a step's node on one side.  false: there is none on this side. */
static bool tree_side(const struct tree_path *path, unsigned step, int side, unsigned *slot)
{
	const struct tree_step *parent = &path->at[step - 1];

	if (side < 0 ? parent->index == 0 : parent->index + 1 == layout_count(parent->page))
		return false;
	*slot = parent->index + side;
	return true;
}

/* Make the child at a slot of a step's private node private too. */
static enum bts_err tree_own_child(struct tree_ctx *ctx, struct tree_step *parent, unsigned slot,
	const uint8_t *image, struct page_ptr *ptr, uint8_t **page)
{
	enum bts_err err;

	*ptr = node_child(parent->page, slot);
	err = dirty_cow(ctx, ptr, image, page);
	if (err)
		return err;
	node_set_child(parent->page, slot, ptr);
	return BTS_OK;
}

static enum bts_err tree_neighbour(struct tree_ctx *ctx, const struct tree *tree,
	const struct tree_path *path, unsigned step, unsigned slot, const uint8_t **image)
{
	struct page_ptr ptr = node_child(path->at[step - 1].page, slot);

	return pager_node(ctx, &ptr, tree->id, (int)(path->depth - 1 - step), image);
}

enum bts_err tree_merge_plan(struct tree_ctx *ctx, const struct tree *tree, struct tree_path *path,
	unsigned step, uint32_t used, struct tree_merge *merge, bool *found)
{
	uint32_t page_size = ctx->pager->page_size;
	struct tree_step *parent = &path->at[step - 1], *node = &path->at[step];
	unsigned slot;

	*found = false;
	for (int side = -1; side <= 1; side += 2) {
		unsigned right = parent->index + (side > 0);
		const uint8_t *image;
		uint32_t joined;
		enum bts_err err;

		if (!tree_side(path, step, side, &slot))
			continue;
		err = tree_neighbour(ctx, tree, path, step, slot, &image);
		if (err)
			return err;
		joined = used + node_used(image, page_size);
		if (!node_is_leaf(image)) /* the separator comes down */
			joined += (uint32_t)node_key(parent->page, right).size;
		if (joined > node_capacity(page_size))
			continue;
		*found = true;
		merge->right = right;
		merge->right_ptr = node->ptr;
		merge->pages[side < 0] = node->page;
		return tree_own_child(ctx, parent, slot, image, side < 0 ? &node->ptr : &merge->right_ptr,
			&merge->pages[side > 0]);
	}
	return BTS_OK;
}

/* What removing the path's entry sets off. */
static enum bts_err tree_shrink_plan(
	struct tree_ctx *ctx, const struct tree *tree, struct tree_path *path, struct tree_shrink *shrink)
{
	uint32_t page_size = ctx->pager->page_size;
	unsigned step = path->depth - 1, slot = path->at[step].index;

	shrink->borrow = false;
	for (;; step--) {
		const uint8_t *page = path->at[step].page;
		uint32_t used = node_used(page, page_size) - node_need(page, slot);
		bool least = layout_count(page) == (node_is_leaf(page) ? 1 : 2), found;
		enum bts_err err;

		shrink->top = step;
		if (step == 0 || (!least && used >= node_capacity(page_size) / 3))
			return BTS_OK;
		err = tree_merge_plan(ctx, tree, path, step, used, &shrink->at[step], &found);
		if (err)
			return err;
		if (!found) {
			shrink->borrow = least;
			return BTS_OK;
		}
		slot = shrink->at[step].right;
	}
}

void tree_merge_do(
	struct tree_ctx *ctx, struct tree *tree, uint8_t *parent, const struct tree_merge *merge)
{
	uint32_t page_size = ctx->pager->page_size;
	uint8_t *left = merge->pages[0], *right = merge->pages[1];
	unsigned count = layout_count(right), from = 0;
	bool done = true;

	if (node_is_leaf(left)) {
		if (layout_last_delete(right) > layout_last_delete(left))
			layout_set_last_delete(left, layout_last_delete(right));
	} else {
		struct page_ptr child = node_child(right, 0);

		done = node_branch_insert(
			left, page_size, layout_count(left), node_key(parent, merge->right), &child);
		from = 1;
	}
	done = done && node_append(left, right, page_size, from, count);
	ENSURE(done);
	node_remove(parent, page_size, merge->right);
	(void)dirty_release(ctx, &merge->right_ptr, 1); /* own: cannot fail */
	tree->pages--;
	tree_paranoid(ctx, left);
}

/* Remove the path's entry and merge as planned. */
static void tree_shrink_do(
	struct tree_ctx *ctx, struct tree *tree, struct tree_path *path, const struct tree_shrink *shrink)
{
	struct tree_step *leaf = &path->at[path->depth - 1];
	struct page_ptr child;

	node_remove(leaf->page, ctx->pager->page_size, leaf->index);
	if (ctx->stamp > layout_last_delete(leaf->page))
		layout_set_last_delete(leaf->page, ctx->stamp);
	for (unsigned step = path->depth - 1; step > shrink->top; step--)
		tree_merge_do(ctx, tree, path->at[step - 1].page, &shrink->at[step]);
	tree_paranoid(ctx, path->at[shrink->top].page);
	if (shrink->top > 0 || path->depth == 1 || layout_count(path->at[0].page) > 1)
		return;
	child = node_child(path->at[0].page, 0);
	(void)dirty_release(ctx, &tree->root, 1); /* own: cannot fail */
	tree->root = child;
	tree->depth--;
	tree->pages--;
}

/* Move one child from the neighbour at the other end of the pair to the poor node. */
static void tree_borrow_do(
	uint32_t page_size, uint8_t *poor, uint8_t *rich, bool rich_is_right, struct bts_slice separator)
{
	unsigned last = layout_count(rich) - 1;
	struct page_ptr child = node_child(rich, rich_is_right ? 0 : last), first;
	bool done;

	if (rich_is_right) {
		done = node_branch_insert(poor, page_size, layout_count(poor), separator, &child);
		node_remove(rich, page_size, 0);
	} else {
		first = node_child(poor, 0);
		done = node_branch_insert(poor, page_size, 1, separator, &first);
		node_set_child(poor, 0, &child);
		node_remove(rich, page_size, last);
	}
	ENSURE(done);
}

/* The separator between them changes, and when it grows, their parent may have to split. */
enum bts_err tree_borrow(
	struct tree_ctx *ctx, struct tree *tree, struct tree_path *path, unsigned step)
{
	uint32_t page_size = ctx->pager->page_size;
	struct tree_step *parent = &path->at[step - 1];
	bool rich_is_right = parent->index == 0;
	unsigned slot = rich_is_right ? 1 : parent->index - 1, right = parent->index + rich_is_right;
	struct tree_entry entry = {.index = right, .replaces = true};
	struct tree_growth growth;
	struct bts_slice separator = node_key(parent->page, right);
	uint8_t copy[BTS_KEY_MAX];
	const uint8_t *image;
	uint8_t *rich;
	struct page_ptr ptr;
	enum bts_err err;

	err = tree_neighbour(ctx, tree, path, step, slot, &image);
	if (!err)
		err = tree_own_child(ctx, parent, slot, image, &ptr, &rich);
	if (err)
		return err;
	memcpy(copy, separator.data, separator.size);
	separator.data = copy;
	entry.key = node_key(rich, rich_is_right ? 1 : layout_count(rich) - 1);
	entry.child = node_child(parent->page, right);
	entry.need = node_branch_need(entry.key);
	err = tree_growth_plan(ctx, tree, path, step - 1, &entry, &growth);
	if (err)
		return err;
	tree_growth_do(ctx, tree, path, &growth);
	tree_borrow_do(page_size, path->at[step].page, rich, rich_is_right, separator);
	tree_paranoid(ctx, path->at[step].page);
	tree_paranoid(ctx, rich);
	return BTS_OK;
}

/* Find key and make its path private, each branch on it with a child to spare. */
static enum bts_err tree_del_plan(struct tree_ctx *ctx, struct tree *tree, struct bts_slice key,
	struct tree_path *path, struct tree_shrink *shrink)
{
	for (;;) {
		bool exact;
		enum bts_err err = tree_path_find(ctx, tree, key, path, &exact);

		if (!err && !exact)
			return BTS_NOT_FOUND;
		if (!err)
			err = tree_path_own(ctx, tree, path);
		if (!err)
			err = tree_shrink_plan(ctx, tree, path, shrink);
		if (err || !shrink->borrow)
			return err;
		err = tree_borrow(ctx, tree, path, shrink->top);
		if (err)
			return err;
	}
}

enum bts_err tree_del(struct tree_ctx *ctx, struct tree *tree, struct bts_slice key)
{
	struct tree_path path;
	struct tree_shrink shrink;
	struct node_cell cell;
	enum bts_err err = tree_sound(ctx, tree);

	ENSURE(ctx->dirty != NULL);
	if (err)
		return err;
	if (tree->depth == 0)
		return BTS_NOT_FOUND;
	err = tree_del_plan(ctx, tree, key, &path, &shrink);
	if (err)
		return err;
	node_cell(path.at[path.depth - 1].page, path.at[path.depth - 1].index, &cell);
	if (cell.extent)
		err = dirty_release(ctx, &cell.ptr, layout_extent_pages(cell.size, ctx->pager->page_size));
	if (err)
		return err;
	tree->entries--;
	tree->bytes -= cell.key.size + (cell.extent ? cell.size : cell.value.size);
	tree_shrink_do(ctx, tree, &path, &shrink);
	return BTS_OK;
}
