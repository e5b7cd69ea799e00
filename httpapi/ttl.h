/*
 * Times to live of keys.
 *
 * Theory.  Two buckets of the server's own hold them, ordinary ones for the engine and for replication:
 *   \0ttl     16-byte hash of (bucket, key)  ->  expiry (8 bytes, big-endian, ms since 1970), length of the bucket's
 *             name (1 byte), the name, the key
 *   \0expiry  expiry (8 bytes, big-endian), the hash  ->  nothing
 * A record counts only while it has the version of its entry, that is, while the same transaction wrote both.  So whoever
 * knows nothing of times to live (embedders, the command line) takes one away by writing the key, and a record that has
 * lost its entry, its bucket or its version harms nobody: its row in \0expiry comes up some day and the sweep
 * (ttl_sweep.h) removes it.
 *
 * Whoever reads entries opens a view after the transaction has begun, and treats an entry that is not alive as absent.
 * Where there is no record in the whole file that costs a look for a bucket a transaction, and nothing an entry.
 */
#ifndef HTTPAPI_TTL_H
#define HTTPAPI_TTL_H

#include <stdint.h>

#include "btree_store.h"
#include "ttl_clock.h"

#define TTL_MAX_MS (UINT64_C(100) * 366 * 24 * 3600 * 1000) /* a hundred years */
#define TTL_TEXT_MAX 32

/* What one transaction judges by: one instant. */
struct ttl_view {
	struct bts_txn *txn;
	struct bts_bucket *records; /* NULL: no entry has one */
	uint64_t now_ms;	    /* when it was opened; 0 while records is NULL */
};

/* After bts_begin, bts_refresh or bts_group_txn, to read or to write.  Holds nothing.  Errors as of bts_bucket. */
enum bts_err ttl_open(struct ttl_view *, struct bts_txn *);
/*
 * Of an entry that was found, with its version (0: written by this very transaction): *alive, and when it ends
 * (*expires_ms since 1970; 0: never).  Errors as of bts_get.
 */
enum bts_err ttl_judge(const struct ttl_view *, struct bts_slice bucket, struct bts_slice key,
	bts_txid version, int *alive, uint64_t *expires_ms);
/* bts_peek that finds only what is alive: a large value is not read (value->data NULL).  expires_ms may be NULL. */
enum bts_err ttl_peek(const struct ttl_view *, struct bts_bucket *, struct bts_slice name,
	struct bts_slice key, struct bts_slice *value, bts_txid *version, uint64_t *expires_ms);
/* The same with the value in any case, as of bts_get_version. */
enum bts_err ttl_get(const struct ttl_view *, struct bts_bucket *, struct bts_slice name,
	struct bts_slice key, struct bts_slice *value, bts_txid *version, uint64_t *expires_ms);
/*
 * In the transaction that puts the key, before or after: until when it lives; 0: for ever, which is also what an entry
 * has that was put with no call of this.  Makes the buckets with the first.  Errors as of bts_put.
 */
enum bts_err ttl_set(struct bts_txn *, struct bts_slice bucket, struct bts_slice key, uint64_t expires_ms);

/*
 * Makes the buckets, where there are none, in a transaction of its own: before one that is long open and will ask for
 * ttl_set, as it would conflict with others that make them.  Errors as of bts_update; waits for a flush when it is the
 * first of all.
 */
enum bts_err ttl_prepare(struct bts *, struct bts_error *);

/*
 * Removes the entry when it has expired and the sweep has not come to it yet: before a transaction that is long open and puts the key
 * conflicts with that.  Errors as of bts_update.
 */
enum bts_err ttl_clear(struct bts *, struct bts_slice bucket, struct bts_slice key, struct bts_error *);

/* Remove what has expired, and what records have outlived their entries. */
#define TTL_SWEEP_ROWS 256	      /* a transaction */
#define TTL_SWEEP_BYTES (1024 * 1024) /* of keys and records */
struct ttl_swept {
	uint64_t rows, entries; /* looked at; entries removed, the rest of the rows were stale */
	int more;		/* there are more that have expired */
};
/* One batch, in a write transaction.  now_ms as of ttl_now_ms. */
enum bts_err ttl_sweep_batch(struct bts_txn *, uint64_t now_ms, struct ttl_swept *);
/* Whether a batch would find anything, and how many rows there are in all; 0 and none where there is no such bucket. */
enum bts_err ttl_sweep_due(struct bts_txn *, uint64_t now_ms, int *due, uint64_t *pending);

/* RFC 3339 in UTC with milliseconds. */
void ttl_text(uint64_t expires_ms, char text[TTL_TEXT_MAX]);
#endif
