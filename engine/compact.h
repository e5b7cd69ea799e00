/*
 * Compaction: what compact.c (the step), compact_units.c (what lies at the end of the file, and where it hangs) and
 * compact_close.c (the steps that the last process to close takes) share.
 *
 * Nothing on a page says who points to it, but a node names its tree and holds keys, so that its parent is found by looking
 * one of them up.  Large values name nobody: the highest ones are gathered by a walk over all leaves, and remembered
 * from step to step.  Both are hints: before anything moves, the way down the tree must end at exactly that page.
 */
#ifndef COMPACT_H
#define COMPACT_H

#include "txn.h"

/* A large value: where it lies and where it hangs. */
struct compact_extent {
	bts_pgno pgno;
	uint64_t pages;
	uint32_t tree;
	uint32_t key_size;
	uint8_t *key; /* owned */
};

/* Kept between steps (struct bts, build held): the large values that lie highest in the file, as of a commit. */
struct compact_memo {
	bts_txid txid;
	bts_pgno floor;			/* none is missing from here on */
	struct compact_extent *extents; /* ascending */
	size_t count, cap;
	bts_pgno stuck; /* a large value for which room is being made, since so many steps */
	uint64_t tries;
};

/* A bucket by its tree, for the time of a step. */
struct compact_name {
	uint32_t tree;
	uint8_t size;
	uint8_t name[BTS_BUCKET_NAME_MAX];
};

/* What a close may spend, over all of its steps. */
struct compact_bounds {
	uint64_t pages; /* to be moved; a single value is no exception */
	uint64_t looks; /* nodes and bucket records to be read in search of who points to something */
};

struct compact {
	struct bts *db;
	struct compact_bounds *bounds; /* NULL: none */
	struct state *state;  /* of the group that will commit the moves */
	struct tree_ctx base; /* reads the commit the step began at */
	bts_txid named; /* newest named snapshot: what is not younger is held by one; 0: there is none */
	struct compact_name *names; /* by tree */
	size_t name_count, name_cap;
	bool names_there;
	bts_pgno *log; /* pages of the free log, ascending */
	size_t log_count, log_cap;
	bool log_there;
	uint64_t ready;		 /* pages ready below what was looked at */
	uint64_t budget, placed; /* private pages that may be, and were, made */
	uint64_t moved;		 /* pages */
	bts_pgno waiting;	 /* the last page of the tail that is free, but needed by somebody; 0: none */
};

/* One unit of the tail. */
enum compact_kind { COMPACT_NODE, COMPACT_EXTENT, COMPACT_LOG, COMPACT_GONE, COMPACT_STUCK };
struct compact_unit {
	enum compact_kind
		kind; /* _GONE: this step moved it already; _STUCK: nothing movable is known there */
	bts_pgno pgno;
	uint64_t pages;
	bts_txid birth;
	struct tree *tree;
	struct bucket_state *bucket; /* NULL: catalog or history */
	struct bts_slice key;	     /* leads to it; borrowed for the step */
	unsigned level;		     /* of a node */
};

/* What lies on this page, which is live. */
enum bts_err compact_look(struct compact *, bts_pgno, struct compact_unit *);
/* Make it private, so that the seal places it anew. */
enum bts_err compact_move(struct compact *, const struct compact_unit *);
void compact_units_fini(struct compact *);
/*
 * One commit that moves at most budget pages, and gives up the tail that the last one made free.  *done: there was something
 * to do.  BTS_LIMIT: the bounds (may be NULL) do not suffice; nothing happened.
 */
enum bts_err compact_step(struct bts *, uint64_t budget, struct compact_bounds *, struct bts_compact_info *, bool *done,
	struct bts_error *);
/* Cut the file behind everything anybody may go by (G4); room: leave what the next commits would grow it by. */
enum bts_err compact_cut(struct bts *, bool room, struct bts_compact_info *, struct bts_error *);
enum bts_err compact_truncate(struct bts *, bool room, struct bts_compact_info *, struct bts_error *); /* build held */
/* Before the seal, of a handle without transactions that may write: hand slack back, if this is worth it; else nothing. */
void compact_close(struct bts *);
/* db_free: nothing remembered. */
void compact_forget(struct bts *);

#endif
