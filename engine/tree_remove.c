/* Delete.  What it sets off when the leaf is left thin stands in tree_shift.c. */
#include "tree_path.h"
#include "base/ensure.h"

enum bts_err tree_del(struct tree_ctx *ctx, struct tree *tree, struct bts_slice key)
{
	struct tree_path path;
	struct tree_step *leaf;
	struct tree_edit edit = {.deleted = ctx->stamp, .shrinks = true};
	struct tree_change change;
	struct node_cell cell;
	bool exact;
	enum bts_err err = tree_sound(ctx, tree);

	ENSURE(ctx->dirty != NULL);
	if (err)
		return err;
	if (tree->depth == 0)
		return BTS_NOT_FOUND;
	err = tree_path_find(ctx, tree, key, &path, &exact);
	if (err)
		return err;
	if (!exact)
		return BTS_NOT_FOUND;
	leaf = &path.at[path.depth - 1];
	node_cell(leaf->image, leaf->index, &cell);
	edit.from = leaf->index;
	edit.to = leaf->index + 1;
	err = tree_change_plan(ctx, tree, &path, path.depth - 1, &edit, &change);
	if (err)
		return err;
	tree->entries--;
	tree->bytes -= cell.key.size + (cell.extent ? cell.size : cell.value.size);
	tree_change_do(ctx, tree, &path, &change);
	if (cell.extent) /* there is room for that */
		(void)dirty_release(ctx, &cell.ptr, layout_extent_pages(cell.size, ctx->pager->page_size));
	return BTS_OK;
}
