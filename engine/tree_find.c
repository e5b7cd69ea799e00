/* Look a key up. */
#include "tree.h"
#include "tree_path.h"

enum bts_err tree_get(
	struct tree_ctx *ctx, const struct tree *tree, struct bts_slice key, struct tree_hit *hit)
{
	struct page_ptr ptr = tree->root;
	unsigned level, at;
	const uint8_t *page;
	enum bts_err err;
	bool exact;

	err = tree_sound(ctx, tree);
	if (err)
		return err;
	hit->last_delete = 0;
	if (tree->depth == 0)
		return BTS_NOT_FOUND;
	for (level = tree->depth - 1; level > 0; level--) {
		err = pager_node(ctx, &ptr, tree->id, (int)level, &page);
		if (err)
			return err;
		ptr = node_child(page, node_child_index(page, key));
	}
	err = pager_node(ctx, &ptr, tree->id, 0, &page);
	if (err)
		return err;
	hit->last_delete = layout_last_delete(page);
	at = node_search(page, key, &exact);
	if (!exact)
		return BTS_NOT_FOUND;
	node_cell(page, at, &hit->cell);
	return BTS_OK;
}

enum bts_err tree_value(struct tree_ctx *ctx, const struct node_cell *cell, struct bts_slice *value)
{
	if (cell->extent)
		return pager_extent(ctx, &cell->ptr, cell->size, value);
	*value = cell->value;
	return BTS_OK;
}
