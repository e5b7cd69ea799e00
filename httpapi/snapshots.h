/*
 * Leased snapshots: a state that stays readable under an id, by any connection, until its time is up.
 *
 * A lease holds one read transaction, on which nothing is read: each request gets its own on the same state.  The id is
 * random and carries a keyed sum, so that one which was given out and has ended is told from one that never was.  Leases
 * do not survive the process.
 */
#ifndef HTTPAPI_SNAPSHOTS_H
#define HTTPAPI_SNAPSHOTS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "btree_store.h"

struct config;
struct role;
struct snapshots;

#define SNAPSHOTS_ID_TEXT 33 /* 32 characters of base64url and a NUL */

struct snapshots_info {
	char id[SNAPSHOTS_ID_TEXT];
	bts_txid txid;
	uint64_t left_ms;     /* until it ends */
	uint64_t held_bytes;  /* pages that it keeps, as of the last look */
};

int snapshots_start(struct role *, const struct config *, struct snapshots **); /* 0, or -1 with the reason logged */
void snapshots_stop(struct snapshots *); /* NULL is fine; the transactions of requests have ended */
/* Ends all leases before their time; how many they were. */
size_t snapshots_clear(struct snapshots *);

/* A lease on the newest state.  BTS_LIMIT: there are as many as may be.  BTS_NOT_FOUND: there is no file yet. */
enum bts_err snapshots_take(struct snapshots *, uint64_t ttl_ms, struct snapshots_info *, struct bts_error *);
/*
 * A read transaction on its state (owned).  This and the next two: BTS_NOT_FOUND: no such id was given out.  BTS_EXPIRED:
 * it has ended, by whatever cause.
 */
enum bts_err snapshots_begin(struct snapshots *, struct bts_slice id, struct bts_txn **, struct bts_error *);
/* It ends so long from now on, be that sooner than before. */
enum bts_err snapshots_renew(struct snapshots *, struct bts_slice id, uint64_t ttl_ms, struct snapshots_info *);
enum bts_err snapshots_release(struct snapshots *, struct bts_slice id);
/* Fills at most cap, the one that ends first first; returns how many there are. */
size_t snapshots_list(struct snapshots *, struct snapshots_info *infos, size_t cap);

/*
 * A transaction of somebody else's, the upload of a large value, is held against the same budget.  Nothing is taken from it: who owns
 * it looks at `over`, and ends it.
 */
struct snapshots_pin {
	struct snapshots_pin *next, **link;
	bts_txid txid;
	atomic_int over;
};
void snapshots_watch(struct snapshots *, struct snapshots_pin *, bts_txid);
void snapshots_unwatch(struct snapshots *, struct snapshots_pin *); /* before the transaction's end; one never watched is fine */

struct snapshots_stat {
	uint64_t live, taken, timed_out, expired; /* expired: ended before its time, for what it kept */
};
void snapshots_stat(struct snapshots *, struct snapshots_stat *);
#endif
