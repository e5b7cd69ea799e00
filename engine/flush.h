/* Making built commits durable: the flush lock, the slot, the flush, D. */
#ifndef FLUSH_H
#define FLUSH_H

#include "txn.h"

/* What the builder of a commit knows and the one who flushes it wants. */
struct commit_built {
	bts_txid txid, base;    /* base: the tip it was built on */
	uint64_t pages;         /* written for it */
	uint32_t term;          /* of the deadline, when it was begun */
	bool one_flush;         /* the manifest describes every page of it */
	uint32_t manifest_count;
	struct meta_run manifest[META_MANIFEST_MAX];
};

/* commit.c, build held: a batch numbered up to txid, its pages written, the new tip; not durable, not seen by readers. */
enum bts_err commit_build(struct bts *, struct state *, bts_txid txid, struct commit_built *, struct bts_error *);
/*
 * Makes every built commit up to txid durable, and with it all others that are built by then.  own: NULL, or the commit that
 * this caller built itself; without one the wait for the lock has the limit of the handle (BTS_BUSY: nothing happened).  begun
 * (may be NULL) is called once, when the lock is held and before the flush.  Returns at once when somebody else has done it.
 * The deadline has passed: BTS_FENCED, without own; with it BTS_UNKNOWN, durable or not (deadline.h).
 */
enum bts_err flush_to(struct bts *, bts_txid txid, const struct commit_built *own, void (*begun)(void *arg), void *arg,
	struct bts_error *);
/*
 * At open: what a writer that died may have left in the slot that does not hold D is judged and settled.  What is built becomes durable,
 * unless the deadline has passed: then it stays as it is.
 */
enum bts_err flush_settle(struct bts *, struct bts_error *);
/* The same whatever the deadline, for who fences. */
enum bts_err flush_settle_all(struct bts *, struct bts_error *);
/* The flush lock alone; flush_leave.  What a holder that died left is settled. */
enum bts_err flush_lock(struct bts *, struct bts_error *);
void flush_leave(struct bts *);
/* With the flush lock. */
enum bts_err flush_hold(struct bts *, enum bts_err (*work)(struct bts *, struct bts_error *), struct bts_error *);
/* Readers see what is built, durable or not (BTS_ASYNC).  Build held. */
enum bts_err flush_show(struct bts *, struct bts_error *);

#endif
