/*
 * The copy-on-write B+tree, by verb: tree_find.c, tree_insert.c, tree_remove.c, tree_cut.c (ranges), tree_check.c,
 * tree_cursor.c; tree.c has the way from root to leaf, and tree_drop; tree_shift.c shares, splits and merges.
 * A tree is its root pointer and counters; changes copy the path into private pages (dirty.h).
 *
 * Invariants, executed by tree_check():
 *  - all leaves at level 0, the root at level depth-1, levels fall by one; depth 0 = empty tree, root.pgno 0;
 *  - a branch has at least two children and a leaf at least one entry, except a leaf that is the root: a tree emptied by
 *    tree_del keeps it (depth 1, 0 entries), so that its last_delete is not lost;
 *  - keys of a node ascend strictly and lie within the separators above it: [separator i, separator i+1);
 *  - child birth <= parent's birth (dirty parents excepted); one tree id throughout;
 *  - last_delete of a leaf covers every key range it inherited (C1): nodes made of several have the maximum of theirs, a
 *    removed leaf leaves it to the leaf that inherits its range.
 */
#ifndef TREE_H
#define TREE_H

#include "node.h"
#include "pager.h"

#define TREE_DEPTH_MAX 32u

struct tree {
	struct page_ptr root;
	uint32_t id;
	uint32_t depth;   /* levels */
	uint64_t entries;
	uint64_t bytes;   /* of keys and values */
	uint64_t pages;   /* nodes; extents not counted */
};

/* A leaf cell found, and what conflict detection needs of its leaf. */
struct tree_hit {
	struct node_cell cell;       /* borrowed like the page */
	bts_txid last_delete;        /* of the leaf that holds or would hold the key (0 in an empty tree) */
};

/* BTS_NOT_FOUND also fills hit->last_delete. */
enum bts_err tree_get(struct tree_ctx *, const struct tree *, struct bts_slice key, struct tree_hit *hit);
/* The same of a key that is likely to be put next: a tree_put of it then needs no way down. */
enum bts_err tree_peek(struct tree_ctx *, const struct tree *, struct bts_slice key, struct tree_hit *hit);
/*
 * A hint: these keys will be looked for soon.  The ways down to them are taken side by side, as far as their pages were verified
 * before, and the caches asked for the leaves: so they wait for memory together instead of one after the other.
 */
void tree_expect(struct tree_ctx *, const struct tree *, const struct bts_slice *keys, size_t count);
/* The bytes of a found cell's value, extent or not. */
enum bts_err tree_value(struct tree_ctx *, const struct node_cell *cell, struct bts_slice *value);

/*
 * Put: value inline or, when it does not fit inline, as an extent (dirty_extent copies it).  version: stored in the cell.
 * An overwritten extent is released.  On failure the tree is unchanged as seen through *tree (private pages may
 * have been left behind for the transaction's end).  Key and value may be what the tree has just given out.
 */
enum bts_err tree_put(struct tree_ctx *, struct tree *, struct bts_slice key, struct bts_slice value, bts_txid version);
/* The same with a private value that is there already (dirty_extent_open): the tree's on success. */
enum bts_err tree_put_made(struct tree_ctx *, struct tree *, struct bts_slice key, const struct page_ptr *made, uint64_t size,
	bts_txid version);
/* BTS_NOT_FOUND changes nothing.  Sets last_delete of the leaf to max(own, ctx->stamp).  On failure like tree_put. */
enum bts_err tree_del(struct tree_ctx *, struct tree *, struct bts_slice key);
/*
 * Ranges (tree_cut.c): the keys from .. below to; a slice of size 0 is no bound.
 * Delete them, *count of them.  The leaves that inherit the range get last_delete as by tree_del; a tree left without
 * entries keeps a root leaf.  No key there: nothing changes.  On failure nothing has changed.
 */
struct tree_range {
	struct bts_slice from, to;
};
enum bts_err tree_cut(struct tree_ctx *, struct tree *, const struct tree_range *, uint64_t *count);
/* *newest: of all transactions after `since` that changed something in the range (C2), as far as looked; 0: none. */
enum bts_err tree_range_changed(struct tree_ctx *, const struct tree *, const struct tree_range *, bts_txid since,
	bts_txid *newest);
/* Release every page of the tree, extents included; the tree is then empty.  On failure nothing has changed. */
enum bts_err tree_drop(struct tree_ctx *, struct tree *);

/*
 * Paths.  No allocation; key is kept only by cursors in a writing context (they find their place again by it).  Who
 * changes a tree otherwise than by the calls above (rolling back, say) adds one to ctx->changes.
 * A cursor that is not placed takes _next as _first and _prev as _last.  A seek that finds nothing stands behind the
 * last entry: _prev gives that.  After an error other than BTS_NOT_FOUND the cursor is not placed.
 */
struct tree_cursor {
	struct tree_ctx *ctx;
	struct tree *tree;       /* the live tree of the transaction, which may change under the cursor */
	uint64_t changes;        /* ctx->changes when the path was made */
	uint32_t depth;          /* levels in path; 0: not placed */
	bool before;             /* the entry it stood on is gone: the path names the following one, or the leaf's end */
	struct {
		const uint8_t *page;
		unsigned index;
	} path[TREE_DEPTH_MAX]; /* [0] root .. [depth-1] leaf */
	uint32_t key_size;
	uint8_t key[BTS_KEY_MAX];
};
void tree_cursor_init(struct tree_cursor *, struct tree_ctx *, struct tree *);
enum bts_err tree_cursor_first(struct tree_cursor *, struct node_cell *cell); /* BTS_NOT_FOUND: empty */
enum bts_err tree_cursor_last(struct tree_cursor *, struct node_cell *cell);
enum bts_err tree_cursor_seek(struct tree_cursor *, struct bts_slice at, struct node_cell *cell); /* first key >= at */
enum bts_err tree_cursor_next(struct tree_cursor *, struct node_cell *cell); /* BTS_NOT_FOUND at the end, stays there */
enum bts_err tree_cursor_prev(struct tree_cursor *, struct node_cell *cell);

/*
 * Walk the whole tree and verify the invariants above and the counters.  visit is called for every node (pages 1)
 * and extent; report for every finding (the walk goes on where it can).  BTS_CORRUPT when there was one.
 */
struct tree_check {
	void (*visit)(void *arg, const struct page_ptr *ptr, uint64_t pages);
	void (*report)(void *arg, bts_pgno page, const char *text);
	void *arg;
	bool extents; /* verify the payload of extents too */
};
enum bts_err tree_check(struct tree_ctx *, const struct tree *, const struct tree_check *);

#endif
