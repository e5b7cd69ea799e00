/*
 * Walk a whole tree and execute the invariants of tree.h.
 *
 * One pass in key order with the path on the stack.  A subtree that cannot be read is reported and skipped;
 * then the counters cannot be compared.
 */
#include "tree_path.h"
#include "node_cell.h"
#include "error.h"
#include <stdio.h>

struct tree_level { /* a node on the path of the walk */
	struct page_ptr ptr;
	const uint8_t *page;
	unsigned index;	       /* of the child being looked at */
	struct bts_slice low;  /* keys are >= low; data NULL: no bound */
	struct bts_slice high; /* keys are < high; data NULL: no bound */
};

struct tree_walk {
	struct tree_ctx *ctx;
	const struct tree *tree;
	const struct tree_check *check;
	uint64_t entries, bytes, pages;
	bool skipped, wrong;
	struct tree_level at[TREE_DEPTH_MAX];
};

static void tree_report(struct tree_walk *walk, const struct page_ptr *ptr, const char *text)
{
	walk->wrong = true;
	if (walk->check->report)
		walk->check->report(walk->check->arg, ptr->pgno, text);
}

/* Nothing below can be read: report what the accessor said. */
static void tree_skip(struct tree_walk *walk, const struct page_ptr *ptr)
{
	walk->skipped = true;
	tree_report(walk, ptr, walk->ctx->error->text);
}

static void tree_visit(struct tree_walk *walk, const struct page_ptr *ptr, uint64_t pages)
{
	if (walk->check->visit)
		walk->check->visit(walk->check->arg, ptr, pages);
}

static void tree_check_bounds(struct tree_walk *walk, const struct tree_level *level)
{
	unsigned first = node_first(level->page), count = layout_count(level->page);

	if (count <= first)
		return;
	if (level->low.data) {
		int order = node_compare(node_key(level->page, first), level->low, 0);

		if (order < 0 || (order == 0 && first > 0))
			tree_report(walk, &level->ptr, "a key below the separator above it");
	}
	if (level->high.data && node_compare(node_key(level->page, count - 1), level->high, 0) >= 0)
		tree_report(walk, &level->ptr, "a key above the separator above it");
}

static void tree_check_leaf(struct tree_walk *walk, const struct tree_level *level)
{
	struct tree_ctx *ctx = walk->ctx;
	unsigned count = layout_count(level->page);

	walk->entries += count;
	for (unsigned i = 0; i < count; i++) {
		struct node_cell cell;
		struct bts_slice value;

		node_cell(level->page, i, &cell);
		walk->bytes += cell.key.size + (cell.extent ? cell.size : cell.value.size);
		if (!cell.extent)
			continue;
		if (!layout_is_dirty(&level->ptr) && cell.ptr.birth > level->ptr.birth)
			tree_report(walk, &level->ptr, "a value born after its leaf");
		tree_visit(walk, &cell.ptr, layout_extent_pages(cell.size, ctx->pager->page_size));
		if (walk->check->extents && pager_extent(ctx, &cell.ptr, cell.size, &value) != BTS_OK)
			tree_report(walk, &cell.ptr, ctx->error->text);
	}
}

/* A node that could be read: its own soundness, its bounds, its entries. */
static void tree_check_node(struct tree_walk *walk, unsigned at)
{
	const struct tree_level *level = &walk->at[at];
	const struct tree_ctx *ctx = walk->ctx;
	uint32_t page_size = ctx->pager->page_size;
	const char *wrong;

	if (layout_is_dirty(&level->ptr))
		wrong = node_check_private(level->page, page_size, ctx->limit, LAYOUT_TXID_LIMIT);
	else
		wrong = node_check(level->page, page_size, ctx->limit, ctx->newest);
	if (wrong)
		tree_report(walk, &level->ptr, wrong);
	if (at > 0 && !layout_is_dirty(&walk->at[at - 1].ptr) &&
		level->ptr.birth > walk->at[at - 1].ptr.birth)
		tree_report(walk, &level->ptr, "a node born after its parent");
	if (at > 0 && layout_count(level->page) < (node_is_leaf(level->page) ? 1 : 2))
		tree_report(walk, &level->ptr, "a node with too few entries");
	tree_check_bounds(walk, level);
	if (node_is_leaf(level->page))
		tree_check_leaf(walk, level);
}

/* Read the node of a level and look at it; false: it is to be skipped. */
static bool tree_check_enter(struct tree_walk *walk, unsigned at)
{
	struct tree_level *level = &walk->at[at];

	if (pager_node(walk->ctx, &level->ptr, walk->tree->id, (int)(walk->tree->depth - 1 - at),
		    &level->page)) {
		tree_skip(walk, &level->ptr);
		return false;
	}
	level->index = 0;
	walk->pages++;
	tree_visit(walk, &level->ptr, 1);
	tree_check_node(walk, at);
	return true;
}

/* Set the level below up for the child that a branch's index names. */
static void tree_check_child(struct tree_walk *walk, unsigned at)
{
	const struct tree_level *level = &walk->at[at];
	struct tree_level *below = &walk->at[at + 1];
	unsigned index = level->index;

	below->ptr = node_child(level->page, index);
	below->low = index > 0 ? node_key(level->page, index) : level->low;
	below->high = index + 1 < layout_count(level->page) ? node_key(level->page, index + 1) : level->high;
}

static void tree_check_walk(struct tree_walk *walk)
{
	unsigned at = 0, leaf = walk->tree->depth - 1;
	bool entered;

	walk->at[0].ptr = walk->tree->root;
	walk->at[0].low = walk->at[0].high = (struct bts_slice){NULL, 0};
	entered = tree_check_enter(walk, 0);
	for (;;) {
		while (!entered || at == leaf || walk->at[at].index == layout_count(walk->at[at].page)) {
			if (at == 0)
				return;
			walk->at[--at].index++;
			entered = true;
		}
		if (walk->pages > walk->tree->pages) { /* a page reached twice could make the walk endless */
			walk->skipped = true;
			tree_report(walk, &walk->at[at].ptr, "the tree has more nodes than it counts");
			return;
		}
		tree_check_child(walk, at);
		entered = tree_check_enter(walk, ++at);
	}
}

static void tree_check_counters(struct tree_walk *walk)
{
	const struct tree *tree = walk->tree;
	char text[200];

	if (walk->skipped)
		return;
	if (walk->entries == tree->entries && walk->bytes == tree->bytes && walk->pages == tree->pages)
		return;
	snprintf(text, sizeof(text),
		"tree %u counts %llu entries, %llu bytes, %llu nodes; found %llu, %llu, %llu", tree->id,
		(unsigned long long)tree->entries, (unsigned long long)tree->bytes,
		(unsigned long long)tree->pages, (unsigned long long)walk->entries,
		(unsigned long long)walk->bytes, (unsigned long long)walk->pages);
	tree_report(walk, &tree->root, text);
}

enum bts_err tree_check(struct tree_ctx *ctx, const struct tree *tree, const struct tree_check *check)
{
	struct tree_walk walk = {.ctx = ctx, .tree = tree, .check = check};

	if (tree_sound(ctx, tree) != BTS_OK)
		tree_skip(&walk, &tree->root);
	else if (tree->depth)
		tree_check_walk(&walk);
	tree_check_counters(&walk);
	if (!walk.wrong)
		return BTS_OK;
	return error_set(ctx->error, BTS_CORRUPT, 0, "tree %u is damaged", tree->id);
}
