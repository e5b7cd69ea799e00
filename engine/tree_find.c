/* Look a key up. */
#include "tree.h"
#include "node_search.h"
#include "tree_path.h"

#define TREE_EXPECTED 16u /* keys at most */

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

enum bts_err tree_peek(struct tree_ctx *ctx, const struct tree *tree, struct bts_slice key, struct tree_hit *hit)
{
	struct tree_way *way = ctx->way;
	const struct tree_step *leaf;
	bool exact;
	enum bts_err err;

	if (way == NULL || tree->depth == 0)
		return tree_get(ctx, tree, key, hit);
	err = tree_sound(ctx, tree);
	if (err == BTS_OK)
		err = tree_path_find(ctx, tree, key, &way->path, &exact);
	if (err) {
		way->path.depth = 0;
		return err;
	}
	way->changes = ctx->changes;
	way->tree = tree->id;
	leaf = &way->path.at[way->path.depth - 1];
	hit->last_delete = layout_last_delete(leaf->image);
	if (!exact)
		return BTS_NOT_FOUND;
	node_cell(leaf->image, leaf->index, &hit->cell);
	return BTS_OK;
}

/* The node when that takes no more than a look, a private one included; NULL: no matter. */
static const uint8_t *tree_look(const struct tree_ctx *ctx, const struct page_ptr *ptr, uint32_t tree, unsigned level)
{
	const uint8_t *image;

	if (!layout_is_dirty(ptr)) /* none (0) is no node */
		return pager_near(ctx, ptr, tree, (int)level);
	image = ctx->dirty != NULL ? dirty_image(ctx->dirty, ptr) : NULL;
	return image != NULL && layout_level(image) == level && layout_tree(image) == tree ? image : NULL;
}

void tree_expect(struct tree_ctx *ctx, const struct tree *tree, const struct bts_slice *keys, size_t count)
{
	struct page_ptr at[TREE_EXPECTED];

	if (tree->depth == 0 || tree->depth > TREE_DEPTH_MAX)
		return;
	if (count > TREE_EXPECTED)
		count = TREE_EXPECTED;
	for (size_t i = 0; i < count; i++)
		at[i] = tree->root;
	for (unsigned level = tree->depth - 1; level > 0; level--) {
		for (size_t i = 0; i < count; i++) {
			const uint8_t *image = tree_look(ctx, &at[i], tree->id, level);
			unsigned slot;

			at[i] = image != NULL ? node_branch_child(image, keys[i], &slot) : (struct page_ptr){ 0, 0, 0 };
			if (ctx->dirty == NULL || image == NULL)
				pager_expect(ctx, &at[i], level > 1);
			else /* a write copies it */
				pager_prefetch(ctx, &at[i], 0, TREE_LINES);
		}
	}
}

enum bts_err tree_value(struct tree_ctx *ctx, const struct node_cell *cell, struct bts_slice *value)
{
	if (cell->extent)
		return pager_extent(ctx, &cell->ptr, cell->size, value);
	*value = cell->value;
	return BTS_OK;
}
