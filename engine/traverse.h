/*
 * Every pointer of a committed state, from every root (B3): the catalog tree, the trees of the buckets that
 * its leaves name, the history tree, extents in leaf cells, the tree of named snapshots, the chain of the free
 * log; and from the catalog of a named snapshot, one at a time (snapshot.h has the list and says what they share).
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

/* Which roots: the catalog is what named snapshots hold, the rest is the head's alone. */
enum traverse_part { TRAVERSE_ALL, TRAVERSE_CATALOG, TRAVERSE_ASIDE };

struct traverse {
	const struct commit_record *record;
	struct bts_error *error;
	uint32_t page_size;
	struct traverse_edge roots[4];
	unsigned root, root_count; /* the next one, how many */
	unsigned depth;
	bool may_descend;
	struct traverse_edge edge; /* given last */
	struct traverse_level path[TRAVERSE_DEPTH];
};

/* record and error are borrowed; error is never NULL. */
void traverse_init(struct traverse *, const struct commit_record *record, enum traverse_part part,
	struct bts_error *error);
/* From one catalog, that of a state of number txid: a named snapshot's.  record: of the file it is found in. */
void traverse_init_catalog(struct traverse *, const struct commit_record *record, const struct tree *catalog,
	bts_txid txid, struct bts_error *error);
/* The next edge, borrowed until the next call; BTS_NOT_FOUND at the end. */
enum bts_err traverse_next(struct traverse *, const struct traverse_edge **edge);
/*
 * Go below the node or free-log page that the last traverse_next gave.  image: its bytes, verified
 * (node_check), borrowed as long as edges below it are.
 */
enum bts_err traverse_descend(struct traverse *, const uint8_t *image);

/* The edge belongs to what only the head holds: history, named snapshots, free log. */
bool traverse_is_aside(const struct traverse_edge *);
/* Pages that an edge to an extent of this size has; 0 for a size beyond BTS_VALUE_MAX. */
uint64_t traverse_extent_pages(uint64_t size, uint32_t page_size);

#endif
