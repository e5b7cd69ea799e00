/*
 * The replicator's door into the engine: positions, the walk over what changed since a commit, and the staged
 * install of pages on a follower.  Programs that do not replicate need only btree_store.h.
 */
#ifndef BTREE_STORE_SHIP_H
#define BTREE_STORE_SHIP_H

#include "../btree_store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Names one durable state for ever (invariant R3).  txid 0: an empty follower. */
struct bts_position {
	uint8_t database[16];
	uint32_t epoch;        /* number */
	uint64_t epoch_random;
	bts_txid txid;
	uint8_t chain[16];     /* keyed hash over the whole history up to txid */
};

/* The newest durable position of this file.  Never blocks. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_ship_position(struct bts *db, struct bts_position *position,
	struct bts_error *error);

enum bts_standing {
	BTS_STANDING_KNOWN,          /* a commit of our own history: a frame can be made from it */
	BTS_STANDING_EMPTY,          /* txid 0: wants everything */
	BTS_STANDING_WRONG_DATABASE,
	BTS_STANDING_DIVERGED,       /* same txid or epoch, another history */
	BTS_STANDING_AHEAD,          /* beyond our newest commit */
	BTS_STANDING_BASE_UNKNOWN,   /* not in our history (thinned, or in a gap) */
};
/* How a peer's claimed position stands to this file's history.  Reads a few pages. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_ship_standing(struct bts *db, const struct bts_position *claimed,
	enum bts_standing *standing, struct bts_error *error);

/*
 * Does this file's history hold transaction txid of that epoch (R10)?  KNOWN: yes.  AHEAD: not yet, it may still come.
 * DIVERGED: it lies in a gap, beyond its epoch's end, or its epoch is not among our ancestors: that write is lost here.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_ship_reached(struct bts *db, uint32_t epoch, uint64_t epoch_random, bts_txid txid,
	enum bts_standing *standing, struct bts_error *error);

/*
 * Wait until the newest durable txid is > after.  BTS_TIMEOUT when timeout_ms passes or bts_ship_wake is called.
 * Works across processes.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_ship_wait(struct bts *db, bts_txid after, unsigned timeout_ms, bts_txid *head);
BTS_EXPORT void bts_ship_wake(struct bts *db); /* wakes every waiter, in all processes; async-signal-safe: no */

enum bts_page_kind { BTS_KIND_NODE = 1, BTS_KIND_EXTENT = 2, BTS_KIND_FREE_LOG = 3 };

/* One shipped unit: a page, or an extent (header pages and payload, contiguous). */
struct bts_page_id {
	bts_pgno pgno;  /* first page */
	bts_txid birth;
	uint32_t crc;   /* as the pointer to it says: of the page; of an extent, of its header pages */
	uint32_t count; /* pages; 1 unless an extent */
	uint32_t kind;  /* enum bts_page_kind */
};

/*
 * The pages reachable from the newest durable root with birth > base (0: all), each once, verified.  Pins that root
 * until closed (owned: bts_walk_close).  One thread at a time.
 */
struct bts_walk;
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_walk_open(struct bts *db, bts_txid base, struct bts_walk **walk,
	struct bts_error *error);
BTS_EXPORT const struct bts_position *bts_walk_position(const struct bts_walk *walk); /* borrowed until closed */
BTS_EXPORT struct bts_slice bts_walk_record(const struct bts_walk *walk); /* the commit record, encoded; borrowed until closed */
BTS_EXPORT uint32_t bts_walk_page_size(const struct bts_walk *walk);
/* *bytes: count * page size bytes, in the map, borrowed until closed.  BTS_NOT_FOUND at the end. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_walk_next(struct bts_walk *walk, struct bts_page_id *id,
	struct bts_slice *bytes, struct bts_error *error);
BTS_EXPORT void bts_walk_close(struct bts_walk *walk); /* NULL is fine */

#define BTS_RECORD_MAX 4096 /* bytes of an encoded commit record, at most */

/*
 * Create an empty follower of source's database at path (BTS_EXISTS when there is a file): position txid 0.  Open
 * it with BTS_OPEN_FOLLOWER to apply, read-only to read.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_ship_create(const char *path, const struct bts_options *options,
	const struct bts_position *source, uint32_t page_size, struct bts_error *error);

/*
 * Install the difference base -> target on a file opened with BTS_OPEN_FOLLOWER (owned: _finish or _abort).  base must
 * be the file's own position (BTS_DIVERGED otherwise).  Nothing is visible, and nothing live is touched, until
 * bts_apply_finish has proven the whole (invariants R1, R2).
 */
struct bts_apply;
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_apply_begin(struct bts *db, const struct bts_position *base,
	const struct bts_position *target, struct bts_apply **apply, struct bts_error *error);
/*
 * A piece of the unit id: bytes.size / page size pages from its page `first` on.  Pieces of a unit come in order,
 * without gaps, and before those of the next unit.  Copied (to the disk, not to memory).
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_apply_piece(struct bts_apply *apply, const struct bts_page_id *id,
	uint32_t first, struct bts_slice bytes, struct bts_error *error);
/*
 * Prove the closure against the commit record, flush, publish; blocks for flushes, and while readers of the old
 * snapshot still need a page that must be overwritten.  Ends the apply in every case.  BTS_CORRUPT: the frame is
 * refused and the file is as before.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_apply_finish(struct bts_apply *apply, struct bts_slice record,
	struct bts_error *error);
BTS_EXPORT void bts_apply_abort(struct bts_apply *apply); /* NULL is fine */

/* Counts since open, for metrics and tests. */
struct bts_apply_stat {
	uint64_t frames, pages, redirected_pages; /* redirected: went through path.pending */
};
BTS_EXPORT void bts_apply_stat(struct bts *db, struct bts_apply_stat *stat);

/*
 * What followers have acknowledged, kept in the lock file so that every process on this file sees it (R3, R7).
 * The caller verifies the position (bts_ship_standing) before it records it.
 */
#define BTS_ACK_NAME_MAX 63
struct bts_ack {
	char node[BTS_ACK_NAME_MAX + 1]; /* NUL-terminated */
	char url[128];                   /* where the node serves its readers, or "" */
	bts_txid txid;
	uint64_t seen_ms;                /* CLOCK_REALTIME, milliseconds */
	uint32_t alarms;                 /* acknowledgements that went backwards */
};
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_ack_record(struct bts *db, const struct bts_ack *ack, struct bts_error *error);
/* Fills at most cap, returns how many there are (64 at most are kept, the longest unseen is replaced). */
BTS_EXPORT size_t bts_ack_list(struct bts *db, struct bts_ack *acks, size_t cap);

/* Frames are sealed with the engine's own sums, so that a page's crc and a frame's are one algorithm. */
/* CRC32C; seed is 0, or the sum of the bytes before. */
BTS_EXPORT uint32_t bts_crc32c(uint32_t seed, const void *data, size_t size);
/* A keyed 128-bit hash (SipHash-2-4-128) over bytes that come in pieces.  Caller's memory, holds no resources. */
struct bts_digest {
	uint64_t opaque[8];
};
BTS_EXPORT void bts_digest_init(struct bts_digest *digest, const uint8_t key[16]);
BTS_EXPORT void bts_digest_update(struct bts_digest *digest, const void *data, size_t size);
BTS_EXPORT void bts_digest_final(struct bts_digest *digest, uint8_t out[16]); /* ends it; init again to reuse */

#ifdef __cplusplus
}
#endif
#endif
