/*
 * Every pointer of a committed state, from every root (B3): the catalog tree, the trees of the buckets that
 * its leaves name, the history tree, extents in leaf cells, the chain of the free log.
 *
 * The caller pulls edges and decides about each whether to go below it: so one traversal serves the walk that
 * ships (skips what is old), the proof of a frame, and the search for what a frame releases.  Bounded memory:
 * one path. Nodes are taken as node_check found them sound; traverse adds what shows only between nodes: keys
 * within separators.
 */
#ifndef TRAVERSE_H
#define TRAVERSE_H

#include "meta.h"

struct traverse_edge {
	struct page_ptr ptr;
	enum bts_page_kind kind;
	uint32_t tree;
	int level;	       /* of a node */
	uint64_t size;	       /* of an extent's value, bytes */
	uint64_t pages;	       /* 1 unless an extent */
	bts_txid parent_birth; /* of the page that holds the pointer; the record counts as born at its txid */
	struct bts_slice low;  /* keys below a node are >= low and, when high.data is set, < high; borrowed
				  like images */
	struct bts_slice high;
};

struct traverse_level {
	const uint8_t *image;
	struct traverse_edge edge; /* that led to it */
	unsigned index;		   /* next slot */
};

#define TRAVERSE_DEPTH (2 * TREE_DEPTH_MAX) /* a catalog path and a bucket path below it */

struct traverse {
	const struct commit_record *record;
	struct bts_error *error;
	uint32_t page_size;
	unsigned root; /* next */
	unsigned depth;
	bool may_descend;
	struct traverse_edge edge; /* given last */
	struct traverse_level path[TRAVERSE_DEPTH];
};

/* record and error are borrowed; error is never NULL. */
void traverse_init(struct traverse *, const struct commit_record *record, struct bts_error *error);
/* The next edge, borrowed until the next call; BTS_NOT_FOUND at the end. */
enum bts_err traverse_next(struct traverse *, const struct traverse_edge **edge);
/*
 * Go below the node or free-log page that the last traverse_next gave.  image: its bytes, verified
 * (node_check), borrowed as long as edges below it are.
 */
enum bts_err traverse_descend(struct traverse *, const uint8_t *image);

/* Pages that an edge to an extent of this size has; 0 for a size beyond BTS_VALUE_MAX. */
uint64_t traverse_extent_pages(uint64_t size, uint32_t page_size);

#endif
