/*
 * Sealing: the private pages of a state get their places, births, checksums and final pointers, bottom up.
 *
 * After seal_state() the state's record says everything about the new commit, and segments say what to write where;
 * nothing has been written yet.  space has given the pages: seal_undo() takes that back.
 */
#ifndef SEAL_H
#define SEAL_H

#include "txn.h"

/* Bytes for consecutive pages: two pieces, then zeros up to the page boundary. */
struct seal_segment {
	bts_pgno pgno;
	uint64_t pages;
	const uint8_t *head;
	size_t head_size;
	const uint8_t *body;
	uint64_t body_size;
};

struct seal_item;

struct seal {
	struct bts *db;
	struct state *state;
	bts_txid txid;
	struct seal_item *items; /* children before parents */
	size_t count, cap;
	size_t catalog_from, history_from, snapshots_from;
	struct space_run *runs;  /* given by space */
	size_t run_count, run_cap;
	bool heads; /* a batch of middle size: pages are asked for by kind */
	struct lease **leased;   /* values that were written before, and lie in none of runs */
	size_t leased_count, leased_cap;
	struct space_run raised; /* new pages at the end, live in space until the commit is built */
	bts_pgno old_high_water; /* less what was given up */
	uint64_t lowered;        /* pages given up at the end */
	struct space_pending *retired;
	size_t retired_count, retired_cap;
	struct freelog_delta delta;
	uint8_t *log_images;
	bts_pgno *log_numbers;
	size_t log_pages;
	struct seal_segment *segments; /* ascending */
	size_t segment_count;
	struct order_key *keys;  /* for sorting */
	size_t key_cap;
	uint64_t pages;          /* to be written */
};

/* build held.  Ends with seal_fini in every case; on failure space is as before. */
enum bts_err seal_state(struct seal *, struct bts *, struct state *, bts_txid txid, struct bts_error *);
void seal_undo(struct seal *); /* the commit did not happen: give the pages back */
void seal_fini(struct seal *);

#endif
