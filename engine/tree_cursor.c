/* Cursors: paths that move, and that find their place again when the tree has changed under them. */
#include "tree_path.h"
#include "node_search.h"
#include "base/ensure.h"
#include "error.h"

/* Cache lines asked for of the leaf a scan comes to next. */
#define TREE_CURSOR_HEAD 5u
#define TREE_CURSOR_TAIL 4u

void tree_cursor_init(struct tree_cursor *cursor, struct tree_ctx *ctx, struct tree *tree)
{
	cursor->ctx = ctx;
	cursor->tree = tree;
	cursor->changes = 0;
	cursor->depth = 0;
	cursor->before = false;
	cursor->key_size = 0;
}

/* On a failure half-way the path is of no use. */
static enum bts_err tree_cursor_lose(struct tree_cursor *cursor, enum bts_err err)
{
	cursor->depth = 0;
	return err;
}

enum tree_cursor_end { TREE_CURSOR_FIRST, TREE_CURSOR_LAST };

/* From the child that step `at` names down to the first or last entry below it. */
static enum bts_err tree_cursor_descend(
	struct tree_cursor *cursor, struct page_ptr ptr, unsigned at, enum tree_cursor_end end)
{
	unsigned last = cursor->depth - 1;

	for (;; at++) {
		const uint8_t *page;
		unsigned index;
		enum bts_err err = pager_node(cursor->ctx, &ptr, cursor->tree->id, (int)(last - at), &page);

		if (err)
			return tree_cursor_lose(cursor, err);
		if (at > 0 && layout_count(page) == 0) /* only a root may be */
			return tree_cursor_lose(cursor, error_set(cursor->ctx->error, BTS_CORRUPT, 0,
								"page %llu: an empty node below a branch",
								(unsigned long long)ptr.pgno));
		index = end == TREE_CURSOR_LAST && layout_count(page) ? layout_count(page) - 1 : 0;
		cursor->path[at].page = page;
		cursor->path[at].index = index;
		if (at == last)
			return BTS_OK;
		ptr = node_child(page, index);
	}
}

static void tree_cursor_remember(struct tree_cursor *cursor, struct bts_slice key)
{
	if (cursor->ctx->dirty == NULL)
		return;
	ENSURE(key.size <= sizeof(cursor->key));
	memmove(cursor->key, key.data, key.size); /* key may be the cursor's own */
	cursor->key_size = (uint32_t)key.size;
}

/* Stand on the entry that the path names. */
static enum bts_err tree_cursor_settle(struct tree_cursor *cursor, struct node_cell *cell)
{
	unsigned leaf = cursor->depth - 1;

	cursor->before = false;
	node_cell(cursor->path[leaf].page, cursor->path[leaf].index, cell);
	tree_cursor_remember(cursor, cell->key);
	return BTS_OK;
}

/* Forget the place; BTS_NOT_FOUND in a tree without entries. */
static enum bts_err tree_cursor_start(struct tree_cursor *cursor)
{
	enum bts_err err = tree_sound(cursor->ctx, cursor->tree);

	cursor->depth = 0;
	if (err)
		return err;
	if (cursor->tree->depth == 0)
		return BTS_NOT_FOUND;
	cursor->depth = cursor->tree->depth;
	cursor->changes = cursor->ctx->changes;
	return BTS_OK;
}

static enum bts_err tree_cursor_end(
	struct tree_cursor *cursor, enum tree_cursor_end end, struct node_cell *cell)
{
	enum bts_err err = tree_cursor_start(cursor);

	if (!err)
		err = tree_cursor_descend(cursor, cursor->tree->root, 0, end);
	if (err)
		return err;
	if (layout_count(cursor->path[cursor->depth - 1].page) == 0)
		return tree_cursor_lose(cursor, BTS_NOT_FOUND);
	return tree_cursor_settle(cursor, cell);
}

enum bts_err tree_cursor_first(struct tree_cursor *cursor, struct node_cell *cell)
{
	return tree_cursor_end(cursor, TREE_CURSOR_FIRST, cell);
}

enum bts_err tree_cursor_last(struct tree_cursor *cursor, struct node_cell *cell)
{
	return tree_cursor_end(cursor, TREE_CURSOR_LAST, cell);
}

/* The path to the first key >= key of the leaf that holds or would hold it; `before` unless it is there. */
static enum bts_err tree_cursor_find(struct tree_cursor *cursor, struct bts_slice key)
{
	struct page_ptr ptr;
	bool exact = false;
	enum bts_err err = tree_cursor_start(cursor);

	if (err)
		return err;
	ptr = cursor->tree->root;
	for (unsigned at = 0; at < cursor->depth; at++) {
		bool leaf = at + 1 == cursor->depth;
		const uint8_t *page;

		pager_expect(cursor->ctx, &ptr, !leaf);
		err = pager_node(cursor->ctx, &ptr, cursor->tree->id, (int)(cursor->depth - 1 - at), &page);
		if (err)
			return tree_cursor_lose(cursor, err);
		cursor->path[at].page = page;
		if (leaf)
			cursor->path[at].index = node_search_from(page, 0, key, &exact);
		else
			ptr = node_branch_child(page, key, &cursor->path[at].index);
	}
	cursor->before = !exact;
	return BTS_OK;
}

/* The tree has changed since the path was made: look for the key again. */
static enum bts_err tree_cursor_refresh(struct tree_cursor *cursor)
{
	struct bts_slice key = {cursor->key, cursor->key_size};

	if (cursor->changes == cursor->ctx->changes)
		return BTS_OK;
	ENSURE(cursor->ctx->dirty != NULL);
	if (cursor->tree->depth == 0) /* keep the key for when there are entries again */
		return BTS_NOT_FOUND;
	return tree_cursor_find(cursor, key);
}

/*
 * Ask for the leaf that the scan comes to after this one, while there is this one to read: its header and slots, and the
 * end of the page, where the first cells are.
 */
PAGER_INLINE void tree_cursor_expect(const struct tree_cursor *cursor, const uint8_t *parent, unsigned index)
{
	struct page_ptr ptr;

	if (index >= layout_count(parent))
		return;
	ptr = node_child(parent, index);
	pager_prefetch(cursor->ctx, &ptr, 0, TREE_CURSOR_HEAD);
	pager_prefetch(cursor->ctx, &ptr, cursor->ctx->pager->page_size / 64 - TREE_CURSOR_TAIL, TREE_CURSOR_TAIL);
}

/* Move to the leaf after this one; BTS_NOT_FOUND and nothing moved when it is the last. */
static enum bts_err tree_cursor_next_leaf(struct tree_cursor *cursor)
{
	for (unsigned at = cursor->depth - 1; at > 0; at--) {
		const uint8_t *page = cursor->path[at - 1].page;
		unsigned index = cursor->path[at - 1].index + 1;

		if (index >= layout_count(page))
			continue;
		cursor->path[at - 1].index = index;
		if (at + 1 == cursor->depth)
			tree_cursor_expect(cursor, page, index + 1);
		return tree_cursor_descend(cursor, node_child(page, index), at, TREE_CURSOR_FIRST);
	}
	return BTS_NOT_FOUND;
}

static enum bts_err tree_cursor_prev_leaf(struct tree_cursor *cursor)
{
	for (unsigned at = cursor->depth - 1; at > 0; at--) {
		const uint8_t *page = cursor->path[at - 1].page;
		unsigned index = cursor->path[at - 1].index;

		if (index == 0)
			continue;
		cursor->path[at - 1].index = index - 1;
		if (at + 1 == cursor->depth)
			tree_cursor_expect(cursor, page, index - 2); /* wraps at the first: none */
		return tree_cursor_descend(cursor, node_child(page, index - 1), at, TREE_CURSOR_LAST);
	}
	return BTS_NOT_FOUND;
}

enum bts_err tree_cursor_seek(struct tree_cursor *cursor, struct bts_slice at, struct node_cell *cell)
{
	enum bts_err err = tree_cursor_find(cursor, at);
	unsigned leaf = cursor->depth - 1;

	if (err)
		return err;
	if (cursor->path[leaf].index == layout_count(cursor->path[leaf].page))
		err = tree_cursor_next_leaf(cursor);
	if (err == BTS_NOT_FOUND) /* stand behind the last entry */
		tree_cursor_remember(cursor, at);
	return err ? err : tree_cursor_settle(cursor, cell);
}

enum bts_err tree_cursor_next(struct tree_cursor *cursor, struct node_cell *cell)
{
	enum bts_err err;
	unsigned leaf, index;

	if (cursor->depth == 0)
		return tree_cursor_first(cursor, cell);
	err = tree_cursor_refresh(cursor);
	if (err)
		return err;
	leaf = cursor->depth - 1;
	index = cursor->path[leaf].index + !cursor->before;
	if (index < layout_count(cursor->path[leaf].page)) {
		cursor->path[leaf].index = index;
		return tree_cursor_settle(cursor, cell);
	}
	err = tree_cursor_next_leaf(cursor);
	return err ? err : tree_cursor_settle(cursor, cell);
}

enum bts_err tree_cursor_prev(struct tree_cursor *cursor, struct node_cell *cell)
{
	enum bts_err err;
	unsigned leaf;

	if (cursor->depth == 0)
		return tree_cursor_last(cursor, cell);
	err = tree_cursor_refresh(cursor);
	if (err)
		return err;
	leaf = cursor->depth - 1;
	if (cursor->path[leaf].index > 0) {
		cursor->path[leaf].index--;
		return tree_cursor_settle(cursor, cell);
	}
	err = tree_cursor_prev_leaf(cursor);
	return err ? err : tree_cursor_settle(cursor, cell);
}
