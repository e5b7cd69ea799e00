/*
 * The replicator's door into the engine: positions, the walk over what changed since a commit, and the staged
 * install of pages on a follower.  Programs that do not replicate need only btree_store.h.
 */
#ifndef BTREE_STORE_SHIP_H
#define BTREE_STORE_SHIP_H

#include "../btree_store.h"
#include <stdbool.h>

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
 * How far a first transfer had come when it broke off: pages below cursor are there as of position, those from it up to
 * older_cursor as of transaction older (0: there are none), which was before.
 */
struct bts_partial {
	struct bts_position position; /* txid 0: nothing is there */
	bts_pgno cursor;
	bts_txid older;
	bts_pgno older_cursor;
};

/*
 * The pages reachable from the newest durable root with birth > base, each once, verified.  Pins that root
 * until closed (owned: bts_walk_close).  base 0: all, in page order.  One thread at a time.
 */
struct bts_walk;
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_walk_open(struct bts *db, bts_txid base, struct bts_walk **walk,
	struct bts_error *error);
/*
 * What a peer that has *partial still needs of the newest durable root, in page order.  BTS_NOT_FOUND: *partial is of no use
 * here (its position is not in this history), begin anew.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_walk_open_from(struct bts *db, const struct bts_partial *partial,
	struct bts_walk **walk, struct bts_error *error);
BTS_EXPORT const struct bts_position *bts_walk_position(const struct bts_walk *walk); /* borrowed until closed */
BTS_EXPORT struct bts_slice bts_walk_record(const struct bts_walk *walk); /* the commit record, encoded; borrowed until closed */
BTS_EXPORT uint32_t bts_walk_page_size(const struct bts_walk *walk);
BTS_EXPORT void bts_walk_digest(const struct bts_walk *walk, uint8_t digest[16]); /* of its roots, as bts_role has it */
/*
 * *bytes: count * page size bytes, in the map, borrowed until closed.  BTS_NOT_FOUND at the end.  BTS_BUSY, after
 * bts_walk_open_from only: some milliseconds were spent on finding what changed; call again.  BTS_INVALID: *partial was made up.
 */
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
 * The same for a first transfer that goes on: base is the empty state, *partial what bts_apply_partial gave.  What comes is what
 * bts_walk_open_from gives of target.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_apply_resume(struct bts *db, const struct bts_partial *partial,
	const struct bts_position *target, struct bts_apply **apply, struct bts_error *error);
/* How far the first transfer into this empty file has come; BTS_NOT_FOUND: there is none to go on with.  Survives a crash. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_apply_partial(struct bts *db, struct bts_partial *partial);
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
/*
 * The frame broke off.  Ends the apply like bts_apply_abort, but what came of a first transfer in page order is kept for
 * bts_apply_resume.  NULL is fine.
 */
BTS_EXPORT void bts_apply_suspend(struct bts_apply *apply);
/*
 * No frame is on its way, and none is expected at once: pages in path.pending whose homes nobody needs are brought there, which
 * frames do only now and then, as it takes flushes.  To be called by whoever applies when its source has nothing new; cheap when there is nothing to do.
 * BTS_CORRUPT: a record of path.pending is damaged; BTS_POISONED.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_apply_idle(struct bts *db, struct bts_error *error);

/*
 * A graft (R4): install target on a file whose position a source cannot make a frame from.  fork: the newest commit that both
 * histories have, of local pages only those born up to it are believed (txid 0: none); NULL: no fork is known, the source
 * has forgotten the base.  target must be above the file's position in number, and not below it in epoch (BTS_DIVERGED).  record:
 * the target's commit record, as bts_apply_finish then gets it once more.  Pieces are taken of the units alone that
 * bts_apply_missing names; in all else as bts_apply_begin (owned: _finish or _abort).
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_apply_begin_graft(struct bts *db, const struct bts_position *fork,
	const struct bts_position *target, struct bts_slice record, struct bts_apply **apply, struct bts_error *error);
/*
 * At most cap units that are still missing, as far as can be told before these have come; none: bts_apply_finish.  A unit that
 * was cut off is named again, and may begin anew.  BTS_CORRUPT: what has come is not what it should be; then abort.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_apply_missing(struct bts_apply *apply, struct bts_page_id *ids, size_t cap,
	size_t *count, struct bts_error *error);

/*
 * What a rewind is about to leave behind (R11): the net effect of this file's commits after the fork.  When no unit of the graft is
 * missing, before bts_apply_finish.  visit is called for each, its slices borrowed for the call; what is not BTS_OK ends it.
 */
enum bts_orphan_kind {
	BTS_ORPHAN_PUT,	   /* bucket, key, value */
	BTS_ORPHAN_DELETE, /* bucket, key */
	BTS_ORPHAN_BUCKET, /* made */
	BTS_ORPHAN_RENAME, /* of `was` */
	BTS_ORPHAN_DROP,
	BTS_ORPHAN_SNAPSHOT, /* key: the name */
};
/* What the other history did to the same since the fork; MAYBE: it cannot be told (a delete leaves no trace of its own). */
enum bts_orphan_other { BTS_ORPHAN_SAME, BTS_ORPHAN_CHANGED, BTS_ORPHAN_MAYBE };
struct bts_orphan {
	size_t size; /* of this struct */
	enum bts_orphan_kind kind;
	enum bts_orphan_other other; /* of a DELETE, MAYBE: it may also be a key that only the other history ever had */
	struct bts_slice bucket, key, value, was;
	bts_txid txid; /* that did it last; 0: not known */
};
typedef enum bts_err bts_orphan_fn(void *arg, const struct bts_orphan *orphan, struct bts_error *error);
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_apply_orphans(struct bts_apply *apply, bts_orphan_fn *visit, void *arg,
	struct bts_error *error);

/*
 * The newest durable commit as a file, to be read at any offset and in any order: what bts_backup writes (owned:
 * bts_image_close).  Opening reads all nodes of the trees and sees that every page is the one meant; interrupt (may be
 * NULL) is asked now and then whether to give up, BTS_TIMEOUT then.  The snapshot is held until closed; takes a bit of memory a
 * page.  One thread at a time.
 */
struct bts_image;
struct bts_image_options {
	size_t size; /* of this struct */
	int (*interrupt)(void *arg);
	void *arg;
};
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_image_open(struct bts *db, const struct bts_image_options *options,
	struct bts_image **image, struct bts_error *error);
BTS_EXPORT uint64_t bts_image_size(const struct bts_image *image); /* bytes */
BTS_EXPORT const struct bts_position *bts_image_position(const struct bts_image *image); /* borrowed until closed */
BTS_EXPORT void bts_image_digest(const struct bts_image *image, uint8_t digest[16]); /* of its roots, as bts_role has it */
/*
 * Bytes [at, at + size) of it, each page verified; the same ones whenever they are asked for.  BTS_CORRUPT: a page is damaged, out
 * holds nothing of use.  BTS_EXPIRED: as for bts_scrub_next.  BTS_INVALID: beyond the end.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_image_read(struct bts_image *image, uint64_t at, void *out, size_t size,
	struct bts_error *error);
BTS_EXPORT void bts_image_close(struct bts_image *image); /* NULL is fine */

/*
 * Single pages of the newest durable root, which is pinned until closed (owned: bts_pages_close), for peers that heal
 * themselves.  Reads the free log once.  One thread at a time.
 */
struct bts_pages;
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_pages_open(struct bts *db, struct bts_pages **pages, struct bts_error *error);
BTS_EXPORT const struct bts_position *bts_pages_position(const struct bts_pages *pages); /* borrowed until closed */
BTS_EXPORT struct bts_slice bts_pages_record(const struct bts_pages *pages);		 /* borrowed until closed */
BTS_EXPORT uint32_t bts_pages_page_size(const struct bts_pages *pages);
/*
 * A unit, verified anew; *bytes: count * page size bytes, in the map, borrowed until closed.  BTS_NOT_FOUND: that root does
 * not have it.  BTS_CORRUPT: it has, and what is here is damaged.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_pages_read(struct bts_pages *pages, const struct bts_page_id *id,
	struct bts_slice *bytes, struct bts_error *error);
BTS_EXPORT void bts_pages_close(struct bts_pages *pages); /* NULL is fine */

/*
 * Reads every live page of the newest durable root, pinned until closed (owned: bts_scrub_close), and verifies all of it
 * against the pointers to it, whatever was verified before.  One thread at a time; at the pace the caller asks in.
 */
struct bts_scrub;
struct bts_scrub_unit {
	struct bts_page_id id;
	bool damaged;
	struct bts_error what; /* of a damaged one */
};
struct bts_scrub_stat {
	uint64_t done, total;	   /* pages; total counts free ones too */
	uint64_t damaged, repaired; /* units */
	bool hidden;		   /* named snapshots could not be listed: what only they hold was not read */
};
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_scrub_open(struct bts *db, struct bts_scrub **scrub, struct bts_error *error);
/* The next unit; what is below a damaged one is passed over, unless it is repaired before the next call.  BTS_NOT_FOUND: the end.
 * BTS_EXPIRED: a follower's frames wait for its snapshot (bts_options.pending_limit); close it. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_scrub_next(struct bts_scrub *scrub, struct bts_scrub_unit *unit, struct bts_error *error);
/*
 * The last unit was damaged: here are its bytes, from a peer (bts_pages_read there).  BTS_CORRUPT: they are not what the
 * pointer names, nothing was written.  BTS_READ_ONLY: this handle does not write.  On success they are durable.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_scrub_repair(struct bts_scrub *scrub, struct bts_slice bytes, struct bts_error *error);
BTS_EXPORT void bts_scrub_stat(const struct bts_scrub *scrub, struct bts_scrub_stat *stat);
BTS_EXPORT void bts_scrub_close(struct bts_scrub *scrub); /* NULL is fine */

/* Counts since open, for metrics and tests. */
struct bts_apply_stat {
	uint64_t frames, pages, redirected_pages; /* redirected: went through path.pending */
	uint64_t pending_pages, pending_bytes;	  /* in path.pending now: live pages, all of its bytes */
	uint64_t expired_readers; /* told to end because it had become too long (bts_options.pending_limit) */
};
BTS_EXPORT void bts_apply_stat(struct bts *db, struct bts_apply_stat *stat);

/*
 * Roles (R3, R8, R9).  A file is a primary's, which is written; a follower's, which takes frames; or fenced: a former primary's,
 * which nobody writes.  The role stands in the file and holds for every process that has it open.
 */
enum bts_role_kind { BTS_ROLE_PRIMARY = 1, BTS_ROLE_FOLLOWER = 2, BTS_ROLE_FENCED = 3 };
struct bts_role {
	size_t size; /* set it to sizeof(struct bts_role) */
	enum bts_role_kind role;
	struct bts_position position; /* the newest durable one */
	uint8_t digest[16];           /* of its roots: equal digests, equal databases */
	uint32_t promised;            /* an epoch above the position's that was promised; 0: none */
	uint64_t promised_random;
};
/* Never blocks. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_role(struct bts *db, struct bts_role *role, struct bts_error *error);

struct bts_promotion {
	size_t size;           /* set it to sizeof(struct bts_promotion) */
	uint32_t epoch;        /* above the file's, not below the promised one; 0: the next */
	uint64_t epoch_random; /* 0: drawn */
	const struct bts_position *expect; /* NULL, or where the file must stand */
	const uint8_t *expect_digest;      /* NULL, or 16 bytes: the digest it must have */
};
/*
 * A handle opened with BTS_OPEN_FOLLOWER, of a follower's or a fenced file, becomes a writer: a new epoch begins after the file's
 * position, durable when this returns, and every process on the file may write.  promotion NULL: all defaults.
 * after (may be NULL) is filled.  BTS_BUSY: a frame is being applied, or readers keep pages of one from going home.  BTS_EXISTS: it is a
 * primary's already.  BTS_DIVERGED: not what was expected.  BTS_FENCED: a later epoch was promised.  BTS_INVALID: there is no
 * commit yet, or no deadline ahead where one is needed (BTS_OPEN_DEADLINE: BTS_FENCED).  The file is then as before.  A failed flush poisons.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_promote(struct bts *db, const struct bts_promotion *promotion, struct bts_role *after,
	struct bts_error *error);
/*
 * On a writer: what is committed becomes durable, then the file is fenced, durably: every later commit of every process fails with
 * BTS_FENCED, those in progress too.  Reads go on.  after (may be NULL) has the final position.  Waits for exclusive transactions
 * and groups as a commit does (BTS_BUSY).  Of a fenced file: nothing to do.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_demote(struct bts *db, struct bts_role *after, struct bts_error *error);
/*
 * Promise an epoch, durably: no frame of a lower one, or of another one of that number, is applied from here on, and none
 * promised.  On a writer of an earlier epoch it fences too.  BTS_FENCED: that epoch is neither above what the file has and promised
 * nor the very same.  BTS_INVALID: 0, or so far above that its transaction numbers would not suffice.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_promise(struct bts *db, uint32_t epoch, uint64_t epoch_random, struct bts_error *error);

/*
 * A deadline for writes (BTS_OPEN_DEADLINE), of a node that is primary for as long as it holds a lease elsewhere and must be known
 * to have stopped when that has run out.  It is in shared memory alone: every process on the file sees it at once, none is left when all
 * have closed or died.  When it has passed, or none was set, every write fails with BTS_FENCED and nothing is changed; a commit
 * that it overtakes fails with BTS_UNKNOWN: its effects may be durable here, visible, and shipped to followers, or become so when
 * a later deadline is set, or go when the last process closes.  Never is BTS_OK returned for a commit after the deadline under
 * which it was begun, moved on in time or not at all.  Reads, frames, bts_demote and bts_promise do not ask for it; bts_promote
 * needs one that lies ahead (BTS_FENCED), and what it makes a primary obeys.  An opening commit that is owed is made with the
 * first write.  What BTS_ASYNC has shown and no flush covers waits for a later deadline.
 *
 * boottime_ms: milliseconds of CLOCK_BOOTTIME.  A later one moves it on; one that is not later changes nothing; 0 gives it up, and what
 * is set then begins anew: commits that were under way are not told of as done.  Any thread, any handle that writes
 * or follows; never blocks.  BTS_INVALID: no process opened the file with BTS_OPEN_DEADLINE.  BTS_READ_ONLY.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_deadline_set(struct bts *db, uint64_t boottime_ms, struct bts_error *error);
/*
 * BTS_OK: it lies ahead.  BTS_FENCED: it has passed, or none is set.  BTS_NOT_FOUND: none is in use (then nothing is filled, and no
 * clock was asked).  boottime_ms gets it, 0 when none is set, left_ms what is left of it; either may be NULL.  Any handle, any thread.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_deadline(struct bts *db, uint64_t *boottime_ms, uint64_t *left_ms);

/* Transaction numbers (last, first) were never committed; chain is that of last.  first 0: no gap, only a commit that there is. */
struct bts_segment {
	uint32_t epoch; /* of last */
	uint64_t epoch_random;
	bts_txid last, first;
	uint8_t chain[16];
};
/*
 * This file's segments, and commits at growing distances from the newest, in no order.  Fills at most cap, the oldest segments
 * are left out first; *count is how many there are.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_ship_segments(struct bts *db, struct bts_segment *segments, size_t cap, size_t *count,
	struct bts_error *error);
/*
 * The newest commit that this file's history and a peer's have in common: the peer stands at `claimed` and has these segments
 * (bts_ship_segments of all of them; NULL: not known).  BTS_NOT_FOUND: none is known.  Whoever goes back to it looks whether
 * its own history has it (bts_ship_standing): a history that was copied or set back may have used numbers twice.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_ship_fork(struct bts *db, const struct bts_position *claimed,
	const struct bts_segment *segments, size_t count, struct bts_position *fork, struct bts_error *error);

/*
 * What followers have acknowledged, kept in the lock file so that every process on this file sees it (R3, R7).
 * The caller verifies the position (bts_ship_standing) before it records it.
 */
#define BTS_ACK_NAME_MAX 63
/* No node's name, as none has a colon: up to there an archive has this file.  It is a copy, and no follower. */
#define BTS_ACK_ARCHIVE ":archive"
struct bts_ack {
	char node[BTS_ACK_NAME_MAX + 1]; /* NUL-terminated */
	char url[128];                   /* where the node serves its readers, or "" */
	bts_txid txid;
	uint64_t seen_ms;                /* CLOCK_REALTIME, milliseconds */
	uint32_t alarms;                 /* acknowledgements that went backwards */
	uint32_t epoch;                  /* of txid: who counts copies of a commit looks at both (R3) */
	uint64_t epoch_random;
	uint64_t session;                /* random, of the node's process; 0: not told */
	uint32_t twins;                  /* times a session came back that another had replaced: two nodes of one name */
};
/* A higher epoch replaces a lower one; alarms and twins are counted here, not taken. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_ack_record(struct bts *db, const struct bts_ack *ack, struct bts_error *error);
/* Fills at most cap, returns how many there are (64 at most are kept, the longest unseen is replaced). */
BTS_EXPORT size_t bts_ack_list(struct bts *db, struct bts_ack *acks, size_t cap);
/*
 * Wait until an acknowledgement was recorded by any process since *seen was given out (0 at first), and give out the new
 * one: what is listed after that call holds all that the count tells.  BTS_TIMEOUT when timeout_ms passes.  bts_ship_wake ends
 * the wait too, with either result.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_ack_wait(struct bts *db, uint32_t *seen, unsigned timeout_ms);

/*
 * Whose file this is and where it gets its commits from, kept in the lock file by the node's main process, for those beside
 * it that serve the file on.  All zero: nobody has told.
 */
#define BTS_VIA_MAX 1023
struct bts_upstream {
	char node[BTS_ACK_NAME_MAX + 1];
	char via[BTS_VIA_MAX + 1]; /* names of the nodes commits come through, nearest first, commas between; "" none */
	uint64_t fresh_ms;         /* CLOCK_MONOTONIC: what the primary had committed by then is here; 0: not known */
};
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_upstream_record(struct bts *db, const struct bts_upstream *upstream,
	struct bts_error *error);
BTS_EXPORT void bts_upstream(struct bts *db, struct bts_upstream *upstream);

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
