/* Look a key up. */
#include "tree.h"
#include "tree_path.h"

/* The header and first slots of the page a pointer names: asked for together, they arrive together. */
static inline void tree_prefetch(const struct tree_ctx *ctx, const struct page_ptr *ptr)
{
	uintptr_t at = (uintptr_t)ctx->pager->base + (ptr->pgno << ctx->pager->page_shift);

	for (unsigned line = 0; line < 5; line++)
		__builtin_prefetch((const void *)(at + line * 64));
}

enum bts_err tree_get(struct tree_ctx *ctx, const struct tree *tree, struct bts_slice key, struct tree_hit *hit)
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
		tree_prefetch(ctx, &ptr);
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
