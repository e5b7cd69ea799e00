/*
 * A transaction of the API run in one of the engine: its conditions, then the operations of one of its lists, in order, each seeing
 * what those before it did.  Knows nothing of requests.
 */
#ifndef HTTPAPI_TXN_RUN_H
#define HTTPAPI_TXN_RUN_H

#include <stddef.h>

#include "btree_store.h"
#include "buf.h"
#include "txn_parse.h"

/* What the results may take; where a value is written into them, it may be as large as the room allows. */
struct txn_room {
	size_t max; /* bytes */
	int (*hold)(void *arg,
		size_t bytes); /* so many are held now: 0, or -1 when that is too much for the process */
	void *arg;
};

enum txn_end {
	TXN_DONE,
	TXN_UNMET,  /* a condition does not hold, and there is no other list */
	TXN_REFUSED /* an operation cannot be done */
};

struct txn_outcome {
	enum txn_end end;
	const struct txn_list *branch; /* what was run */
	struct buf results;	       /* of DONE: a JSON array; buf_fini in any case */
	int changed;		       /* something was written, which is to be committed after DONE alone */
	/* UNMET, REFUSED */
	struct txn_problem problem;
	bts_txid version; /* UNMET: of the value that is present, 0: none is */
};

/* Clears the outcome first.  Errors of the engine alone; refusals are an end. */
enum bts_err txn_run(const struct txn *, struct bts_txn *, const struct txn_room *, struct txn_outcome *);
/* An item of results: "found" and what goes with it. */
void txn_found(struct buf *, bts_txid version, uint64_t expires_ms);
#endif
