/* The way from the root to a leaf, shared by the files that change a tree. */
#ifndef TREE_PATH_H
#define TREE_PATH_H

#include "dirty.h"
#include "tree.h"
#include "tree_rows.h"

#define TREE_LINES 24u /* of a page that is about to be copied: where they lead, the processor goes on by itself */

struct tree_step {
	struct page_ptr ptr;
	const uint8_t *image;
	uint8_t *page;	/* the same, writable, after tree_path_own; NULL: it did not have to be */
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
/*
 * The way that tree_peek took, for a put of the key.  It holds while nothing has changed in the context; that it is the key's is
 * seen by the separators above the leaf and by the leaf, where the key is or lies between two others: so nothing of the key need be remembered.
 */
struct tree_way {
	uint64_t changes; /* of the context */
	uint32_t tree;
	struct tree_path path; /* depth 0: none */
};
static inline void tree_way_begin(struct tree_ctx *ctx, struct tree_way *way)
{
	way->path.depth = 0;
	ctx->way = way;
}

/* The way to key when it is that one, to be used once; else NULL. */
struct tree_path *tree_way_take(struct tree_ctx *, const struct tree *, struct bts_slice key, bool *exact);
/* The separator before (or behind) a child of the node at a step, however far above it stands; none: data NULL. */
struct bts_slice tree_path_bound(const struct tree_path *, unsigned step, unsigned slot, bool behind);
/* Make every page of the path private, the leaf's writable.  On failure the tree is sound and its content the same. */
enum bts_err tree_path_own(struct tree_ctx *, struct tree *, struct tree_path *);
/* The same down to a step only, whose page is writable. */
enum bts_err tree_path_own_to(struct tree_ctx *, struct tree *, struct tree_path *, unsigned step);

/*
 * A change of a node and all that it sets off on its way up (tree_shift.c): planned first, with every page
 * that it needs, so that what changes the tree cannot fail.  A node that overflows or is left thin is
 * divided anew together with neighbours below the same parent: their rows go into new nodes, and the parent
 * gets these in their place.
 */
struct tree_shift {		      /* of neighbours, one of them the path's */
	unsigned from;		      /* slot of the first of them in their parent */
	unsigned sources, nodes;      /* how many there are, how many they become */
	const struct tree_edit *edit; /* of the path's node */
	struct tree_edit above;	      /* what it means for the node above */
	struct page_ptr source[TREE_WINDOW];
	const uint8_t *image[TREE_WINDOW];
	struct page_ptr made[TREE_SPREAD];
	uint8_t *page[TREE_SPREAD];
	unsigned points[TREE_SPREAD + 1]; /* rows of node i: [points[i], points[i + 1]) */
};

struct tree_change {
	unsigned first, bottom; /* the steps in between are shifted, the one above first is edited in place */
	bool divides_root;	/* first is 0, and the edit is what a new root consists of */
	const struct tree_edit *edit;
	struct page_ptr root;
	uint8_t *root_page;
	struct tree_shift at[TREE_DEPTH_MAX];
};
/*
 * Plan an edit of the node at a step; then the path is private as far as it is edited in place.  What the
 * edit's rows point to has to stay as it is until the change is done, unless it lies in the node itself.  On
 * failure the tree is sound and its content the same; a plan is to be done at once.
 */
enum bts_err tree_change_plan(struct tree_ctx *, struct tree *, struct tree_path *, unsigned step,
	const struct tree_edit *, struct tree_change *);
/* Carry it out; the path is not to be used any more. */
void tree_change_do(struct tree_ctx *, struct tree *, struct tree_path *, const struct tree_change *);
/* Is a node with so many bytes to be merged with a neighbour? */
static inline bool tree_is_thin(uint32_t used, uint32_t page_size)
{
	return used < node_capacity(page_size) / 3;
}

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
