/*
 * Large values that go to their final place in the data file while the transaction is still open, so that they are written once.
 *
 * A lease is one run of pages, all below the tip's high-water mark, that are free in D, in the tip and in every snapshot: what
 * stands in them matters to nobody, so they may be written at any time, by any process, with no number given to anything.  It
 * is taken under the build lock: live in every process's allocator (ring.h), known to all by a table in shared memory
 * (shared.h), but free in the tip.  The commit that uses it says so in its free log and writes the header of the extent.
 * DESIGN.md, Leases, argues why a crash at any point finds the old state or the new one.
 *
 * Where no run is there the mark is raised first, by a commit of its own that nobody waits for.  Nothing of this is ever
 * necessary: without a lease, for whatever reason, the value goes the way of all others.
 */
#ifndef LEASE_H
#define LEASE_H

#include "txn.h"

#define LEASE_MIN (UINT64_C(1) << 20) /* bytes of a value that is worth one */

struct lease {
	struct bts *db;
	struct lease *next, **link; /* of the transaction, or of its group */
	struct space_run run;	    /* of the extent, headers and payload */
	uint32_t index;		    /* in the table */
	bool used;		    /* a commit has taken it */
	uint64_t size;		    /* bytes of the value */
	uint64_t done;		    /* of them, written or in the buffer */
	const uint8_t *data;	    /* where they are in the map */
	uint8_t *buffer;	    /* LAYOUT_CHUNK bytes: the chunk that is not complete */
	uint8_t *sums;		    /* of the complete ones, as in the extent's header */
};

/* Room for a value of that size; NULL: there is none to be had now. */
struct lease *lease_take(struct bts_txn *, uint64_t size);
/* The next bytes; no more than size in all.  BTS_FULL, BTS_IO: the value can not be completed, nothing else is harmed. */
enum bts_err lease_write(struct lease *, struct bts_slice bytes, struct bts_error *);
/* NULL is fine.  The pages are given back, unless a commit has taken them. */
void lease_drop(struct lease *);
/* All of a transaction or group. */
void lease_end(struct lease **list);
/* Build held, the commit that uses it is the tip. */
void lease_commit(struct lease *);

/* Build held, tip and tip_ring fresh, before the allocator follows: what the dead held makes all of them be built anew. */
void lease_inherit(struct bts *);
/* Build held, the allocator has followed: what was left is ready again. */
void lease_collect(struct bts *);
/* Build held, the allocator was made from the tip: BTS_CORRUPT when it does not agree with the table. */
enum bts_err lease_restore(struct bts *);

#endif
