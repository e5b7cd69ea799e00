/*
 * The rows of a few neighbouring nodes as one sequence, with a change to them in place: measured, and
 * divided anew.  Nothing here changes the nodes that the rows come from.
 */
#ifndef TREE_ROWS_H
#define TREE_ROWS_H

#include "node.h"

#define TREE_WINDOW 3u		       /* neighbours whose rows are divided anew at once */
#define TREE_SPREAD (TREE_WINDOW + 1u) /* nodes they are divided over at most */

/* An entry that is in no node yet: a cell of a leaf, a separator and child of a branch. */
struct tree_row {
	struct bts_slice key;
	const struct node_cell *cell;
	struct page_ptr child;
	uint32_t need; /* bytes of slot and cell */
};

/* A change of one node: its slots [from, to) become other rows.  A branch's first keeps its separator. */
struct tree_edit {
	unsigned from, to, count;
	struct tree_row rows[TREE_SPREAD];
	bts_txid deleted; /* of a leaf: the least last_delete afterwards */
	bool run;	  /* what is below was divided for a run */
	bool shrinks;	  /* a node that is left thin is to be merged */
};

struct tree_part { /* slots of a node, or rows of none */
	const uint8_t *page;
	const struct tree_row *rows;
	unsigned from, to;
};

struct tree_rows {
	bool leaf;
	unsigned least; /* rows a node must have */
	unsigned count;
	uint32_t page_size;
	uint32_t total; /* bytes */
	unsigned parts;
	struct tree_part at[3 * TREE_WINDOW + 1];
	unsigned pulls;
	struct tree_row pulled[TREE_WINDOW]; /* first rows of branches, with the separators from above */
};

void tree_rows_init(struct tree_rows *, const uint8_t *page, uint32_t page_size);
/* Append those of a node, changed when edit is not NULL.  separator: above it, of a branch but the first. */
void tree_rows_add(
	struct tree_rows *, const uint8_t *page, struct bts_slice separator, const struct tree_edit *edit);

/*
 * Divide them over `nodes` nodes, as evenly as short separators allow: points[i] is the first row of node i.
 * false: they do not fit so.  Into two always works for one node and a row more.
 */
bool tree_rows_divide(const struct tree_rows *, unsigned nodes, unsigned *points);
/* Where the rows of a single node are divided when the one at index continues a run; 0: it does not. */
unsigned tree_rows_run(const struct tree_rows *, const uint8_t *page, unsigned index);
/* The shortest key above the row before point and not above the one at it. */
struct bts_slice tree_rows_separator(const struct tree_rows *, unsigned point);
/* Fill a new node with rows [from, to). */
void tree_rows_fill(const struct tree_rows *, uint8_t *page, unsigned from, unsigned to);

#endif
