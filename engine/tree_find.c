/* Look a key up. */
#include "tree.h"
#include "node_search.h"
#include "tree_path.h"

enum bts_err tree_get(
	struct tree_ctx *ctx, const struct tree *tree, struct bts_slice key, struct tree_hit *hit)
{
	struct page_ptr ptr = tree->root;
	unsigned at;
	const uint8_t *page;
	enum bts_err err;
	int found;

	err = tree_sound(ctx, tree);
	if (err)
		return err;
	hit->last_delete = 0;
	if (tree->depth == 0)
		return BTS_NOT_FOUND;
	for (unsigned level = tree->depth - 1; level > 0; level--) {
		pager_expect(ctx, &ptr, true);
		err = pager_node(ctx, &ptr, tree->id, (int)level, &page);
		if (err)
			return err;
		ptr = node_branch_child(page, key, &at);
	}
	pager_expect(ctx, &ptr, false);
	err = pager_node(ctx, &ptr, tree->id, 0, &page);
	if (err)
		return err;
	hit->last_delete = layout_last_delete(page);
	found = node_find(page, key);
	if (found < 0)
		return BTS_NOT_FOUND;
	node_cell(page, (unsigned)found, &hit->cell);
	return BTS_OK;
}

enum bts_err tree_value(struct tree_ctx *ctx, const struct node_cell *cell, struct bts_slice *value)
{
	if (cell->extent)
		return pager_extent(ctx, &cell->ptr, cell->size, value);
	*value = cell->value;
	return BTS_OK;
}
