/*
 * What becomes of a node that a change leaves full or thin: which neighbours below the same parent it is
 * divided anew with, and how.  Between tree_share.c, which chooses, and tree_shift.c, which does it.
 */
#ifndef TREE_SHARE_H
#define TREE_SHARE_H

#include "tree_path.h"

/* A node that is to be shifted, and how. */
struct tree_choice {
	struct tree_ctx *ctx;
	const struct tree *tree;
	const struct tree_path *path;
	unsigned step;
	bool simple;		  /* divide nodes alone: always possible */
	struct tree_shift *shift; /* its edit is given; sources, nodes, points and above.run are chosen */
	uint32_t used;		  /* bytes of the node with the edit */
	struct tree_rows rows;	  /* of the sources */
};

/* Is the edit all that happens to the node? */
bool tree_stays(const uint8_t *image, uint32_t page_size, const struct tree_edit *, bool root);
/* Choose.  *shifts: more than the edit.  *found: that is possible. */
enum bts_err tree_choose(struct tree_choice *, bool *shifts, bool *found);
/* The rows of a shift's sources. */
void tree_shift_rows(const struct tree_path *, unsigned step, const struct tree_shift *, uint32_t page_size,
	struct tree_rows *);

#endif
