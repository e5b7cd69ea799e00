/* A graft while its units are asked for.  Private to apply_fetch.c and apply_fetch_local.c. */
#ifndef APPLY_FETCH_H
#define APPLY_FETCH_H

#include "apply.h"

struct fetch_edge {
	struct page_ptr ptr;
	uint64_t size; /* of an extent's value */
	uint64_t pages;
	bts_txid parent_birth;
	uint32_t parent; /* 1 + the edge to the node that holds this one; 0: its first key is the least */
	uint32_t unit;	 /* 1 + place among the units; 0: has not come */
	uint32_t tree;
	uint16_t slot; /* in the parent */
	int8_t level;
	uint8_t kind;
};

/* A tree of a bucket as a local state has it. */
struct fetch_tree {
	uint32_t id, depth;
	bts_txid state; /* the oldest that has this root */
	struct page_ptr root;
};

struct apply_fetch {
	struct bts_position fork;
	bool forked;
	bts_txid trust; /* local pages born later are not believed */
	struct snapshot_list states; /* local named snapshots */
	struct fetch_tree *trees;    /* by id, then state */
	size_t tree_count, tree_cap;
	struct fetch_edge *edges; /* asked for, in the order of being found */
	size_t edge_count, edge_cap;
	uint64_t asked; /* their pages */
	uint32_t *places; /* hash by page number: 1 + edge */
	size_t place_cap; /* a power of two */
	uint32_t *arrived; /* edge of each unit */
	size_t arrived_cap;
	size_t come;	 /* all edges before this one have come */
	size_t examined; /* units */
	uint8_t *page, *above; /* one page each */
	struct traverse traverse;
	struct commit_record record;
};

/* apply_fetch_local.c */
enum bts_err apply_fetch_load_local(struct bts_apply *);
/* Is the edge live here?  low: its first key. */
enum bts_err apply_fetch_kept(struct bts_apply *, const struct fetch_edge *, struct bts_slice low, bool *kept);

#endif
