/*
 * Bulk load: entries in ascending order appended to a tree from the bottom up.
 *
 * Only the right spine is open: the last node of every level.  A load into a tree that has entries begins with private
 * copies of its spine, not yet linked, so the tree is as before until tree_load_end puts the new root in its place.
 * Nodes are filled up to a limit and left; no descents.  Between the calls nobody else may change the tree.
 */
#ifndef TREE_LOAD_H
#define TREE_LOAD_H

#include "tree.h"

struct tree_load_node {
	struct page_ptr ptr;
	uint8_t *page;
};

struct tree_load {
	struct tree_ctx *ctx;
	struct tree *tree;			     /* live, untouched until the end */
	struct tree grown;			     /* what it becomes */
	uint32_t fill;				     /* bytes of slots and cells after which a node is left */
	struct tree_load_node spine[TREE_DEPTH_MAX]; /* [0] leaf .. [grown.depth - 1] root */
	struct page_ptr before[TREE_DEPTH_MAX];	     /* the tree's own spine, which copies stand in for */
	struct page_ptr *made;			     /* pages and values, to be given back by an abort */
	size_t made_count, made_cap;
};

/* fill: percent of a node, 50 to 100.  On failure nothing has changed; else it ends with _end or _abort. */
enum bts_err tree_load_begin(struct tree_load *, struct tree_ctx *, struct tree *, unsigned fill);
/*
 * value.size bytes, or the private value *made (NULL: none), which is given back when this fails or when the load is aborted.
 * BTS_INVALID: the key is not above the last one.  On failure the load is as before.
 */
enum bts_err tree_load_add(struct tree_load *, struct bts_slice key, struct bts_slice value,
	const struct page_ptr *made, bts_txid version);
/* Ends the load either way; on failure the tree is as before. */
enum bts_err tree_load_end(struct tree_load *);
void tree_load_abort(struct tree_load *);

#endif
