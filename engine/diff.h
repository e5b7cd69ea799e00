/*
 * What changed since a commit: what diff.c (along the pointers) and diff_order.c (in page order) share.
 */
#ifndef DIFF_H
#define DIFF_H

#include "db.h"
#include "snapshot.h"
#include "space.h"
#include "traverse.h"

struct bts_walk {
	struct bts *db;
	bts_txid base;
	struct shared_reader reader;
	struct redirect *redirect; /* of the snapshot */
	struct commit_record record;
	struct bts_position position;
	struct bts_error error;
	struct tree_ctx ctx;
	struct traverse traverse;
	struct snapshot_list snapshots;
	size_t next;	/* of them; count: the head is under way */
	bts_txid floor; /* births up to this one came with an older state, or are known */
	size_t record_size;
	uint8_t record_bytes[BTS_RECORD_MAX];

	/* In page order. */
	bool ordered;
	bool marking;		    /* what changed below the cursors is still being looked for */
	struct bts_partial partial; /* where the peer is; position.txid 0: at the beginning */
	bts_pgno known;		    /* below it the peer has what did not change: the higher cursor */
	struct space free;	    /* of the state */
	uint64_t *marked;	    /* a bit a page of [first, known): a unit begins there that the peer lacks */
	bts_pgno spans;		    /* end of the furthest of these units */
	bool beyond;		    /* a unit at or above it was found */
	bts_pgno at;
};

/* The next edge that is of interest, of all states, verified; BTS_NOT_FOUND at the end.  Goes below it first if it can. */
enum bts_err diff_step(struct bts_walk *, const struct traverse_edge **edge, const uint8_t **image);
enum bts_err diff_verify(struct bts_walk *, const struct traverse_edge *, const uint8_t **image);
/* The first root of a walk along the pointers: states up to walk->base are skipped. */
void diff_begin(struct bts_walk *);

/* walk->partial is set, the snapshot entered.  BTS_NOT_FOUND: no walk can go on from there. */
enum bts_err diff_order_begin(struct bts_walk *);
/* As bts_walk_next; explains itself in walk->error. */
enum bts_err diff_order_next(struct bts_walk *, struct bts_page_id *id, struct bts_slice *bytes);
void diff_order_fini(struct bts_walk *);

#endif
