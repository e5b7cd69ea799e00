/* The way from the root to a leaf, shared by the files that change a tree. */
#ifndef TREE_PATH_H
#define TREE_PATH_H

#include "dirty.h"
#include "tree.h"

struct tree_step {
	struct page_ptr ptr;
	const uint8_t *image;
	uint8_t *page;	/* the same, writable, after tree_path_own */
	unsigned index; /* of the child taken; in the leaf, of the first key >= the one looked for */
};

struct tree_path {
	unsigned depth;
	struct tree_step at[TREE_DEPTH_MAX]; /* [0] root .. [depth-1] leaf */
};

/* Depth and root fit each other and the bounds of this code, else BTS_CORRUPT. */
enum bts_err tree_sound(struct tree_ctx *, const struct tree *);
/* Find key in a tree that is not empty; *exact: it is there. */
enum bts_err tree_path_find(
	struct tree_ctx *, const struct tree *, struct bts_slice key, struct tree_path *, bool *exact);
/* Make every page of the path private.  On failure the tree is sound and its content the same. */
enum bts_err tree_path_own(struct tree_ctx *, struct tree *, struct tree_path *);

/* An entry about to enter a node: a cell into a leaf, a separator and child into a branch. */
struct tree_entry {
	unsigned index;
	bool replaces; /* the entry at index, else it is put before that */
	struct bts_slice key;
	const struct node_cell *cell;
	struct page_ptr child;
	uint32_t need; /* bytes of slot and cell */
};

/* A node that the entry divides: rows are its entries with the new one in place. */
struct tree_split {
	struct tree_entry entry;
	unsigned point; /* first row of the right node; 0: the entry fits, no split */
	struct page_ptr right;
	uint8_t *right_page;
};

/*
 * All that one entry sets off on its way up: planned first, with every page it needs, so that what changes
 * the tree cannot fail.
 */
struct tree_growth {
	unsigned top;	 /* the highest step that changes */
	unsigned bottom; /* the step the entry goes into */
	bool root_splits;
	struct page_ptr root; /* the new root */
	uint8_t *root_page;
	struct tree_split at[TREE_DEPTH_MAX];
};
enum bts_err tree_growth_plan(struct tree_ctx *, const struct tree *, const struct tree_path *, unsigned step,
	const struct tree_entry *entry, struct tree_growth *);
void tree_growth_cancel(struct tree_ctx *, struct tree_growth *);
/* Carry it out, highest node first: separators point into the nodes below. */
void tree_growth_do(struct tree_ctx *, struct tree *, struct tree_path *, const struct tree_growth *);

/* Merging a node with a neighbour below the same parent (tree_remove.c).  The path is private. */
struct tree_merge {	   /* of the node at a step with a neighbour */
	unsigned right;	   /* slot of the right one of the two in their parent */
	uint8_t *pages[2]; /* left, right */
	struct page_ptr right_ptr;
};
/* Look for a neighbour that the node, with `used` bytes left in it, fits together with; make it private. */
enum bts_err tree_merge_plan(struct tree_ctx *, const struct tree *, struct tree_path *, unsigned step,
	uint32_t used, struct tree_merge *, bool *found);
void tree_merge_do(struct tree_ctx *, struct tree *, uint8_t *parent, const struct tree_merge *);
/*
 * Give a branch that has too few children, and no neighbour to merge with, one from a neighbour.  Changes no
 * content; the path is not to be used any more.
 */
enum bts_err tree_borrow(struct tree_ctx *, struct tree *, struct tree_path *, unsigned step);

/* Paranoid builds: a private page just changed is sound. */
#ifdef BTS_PARANOID
void tree_paranoid(const struct tree_ctx *, const uint8_t *page);
#else
static inline void tree_paranoid(const struct tree_ctx *ctx, const uint8_t *page)
{
	(void)ctx;
	(void)page;
}
#endif

#endif
