/*
 * btree_store: an embedded, copy-on-write B+tree key-value store.
 *
 * One file, any number of processes.  This header is the manual of the library; btree_store/ship.h is the
 * further door for a replicator, btree_store/env.h the seam to the operating system.
 *
 * Words used with one meaning: "owned" the caller must end it with the named call; "borrowed until X" the
 * memory belongs to the library and is valid until X; "copied" the library keeps its own copy.
 * Outputs are untouched when a call fails, unless said otherwise.
 *
 * Threads: a struct bts may be used by any number of threads.  A transaction, and all that was got from it,
 * belongs to one thread at a time.  A child of fork opens the file itself: transactions that it inherited read on, all else fails,
 * and all may be ended and closed.
 *
 * Every call that can fail returns enum bts_err and must be checked.  Where a struct bts_error * is taken it
 * may be NULL: detail not wanted.
 */
#ifndef BTREE_STORE_H
#define BTREE_STORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define BTS_MUST_CHECK __attribute__((warn_unused_result))
#define BTS_EXPORT __attribute__((visibility("default")))
#else
#define BTS_MUST_CHECK
#define BTS_EXPORT
#endif

#define BTS_VERSION_STRING "0.1.0"

#define BTS_KEY_MAX 1024                    /* bytes; a key has at least 1 */
#define BTS_BUCKET_NAME_MAX 255             /* bytes; a name has at least 1 */
#define BTS_BUCKET_META_MAX 255             /* bytes of the caller's own note on a bucket */
#define BTS_SNAPSHOT_NAME_MAX 255           /* bytes; a name has at least 1 */
#define BTS_SNAPSHOTS_MAX 65536             /* named snapshots of a file */
#define BTS_VALUE_MAX ((UINT64_C(1) << 40) - 1) /* bytes */
#define BTS_PAGE_SIZE_MIN 4096              /* page sizes are powers of two */
#define BTS_PAGE_SIZE_MAX 65536

typedef uint64_t bts_pgno; /* page number; 0 = none (pages 0.. below the reserved header area are never used) */
typedef uint64_t bts_txid; /* transaction number, 48 bits used; 0 = none */

struct bts_slice {
	const void *data;
	size_t size; /* bytes */
};

enum bts_err {
	BTS_OK = 0,
	BTS_NOT_FOUND,      /* no such key, bucket, or the end of a cursor */
	BTS_EXISTS,         /* BTS_PUT_NEW met a present key; bts_create met a file */
	BTS_CONFLICT,       /* another transaction committed first; refresh and retry */
	BTS_CORRUPT,        /* bytes in the file are not what was written; the text names the page */
	BTS_FULL,           /* no space on the disk, or no transaction numbers left; nothing was changed */
	BTS_IO,             /* the operating system refused; os holds errno */
	BTS_INVALID,        /* a bad argument, or a call out of place; nothing was changed */
	BTS_BUSY,           /* another process holds what is needed, and the time to wait for it is up or none is given */
	BTS_POISONED,       /* a flush or meta write failed earlier; close everywhere and open again */
	BTS_MEMORY,         /* allocation failed; nothing was changed */
	BTS_VERSION,        /* the file is of another format version or needs a feature this library lacks */
	BTS_READ_ONLY,      /* a write where only reading was opened, or to a follower's file */
	BTS_TIMEOUT,        /* the time given ran out */
	BTS_DIVERGED,       /* replication: the two histories differ */
	BTS_LIMIT,          /* a named limit of this library was reached (readers, buckets open, ...) */
	BTS_NEEDS_RECOVERY, /* only a process that may write can recover this file */
	BTS_EXPIRED,        /* the snapshot held too much and was told to end (bts_options.reader_pages_max); abort, begin anew */
	BTS_FENCED,         /* the file takes no writes: another one was promoted, or is about to be (bts_demote in ship.h); or its
			       deadline has passed (BTS_OPEN_DEADLINE).  Nothing was changed */
	BTS_UNKNOWN,        /* the commit is, or may become, durable in this file, but the deadline for writes has passed: it may
			       be lost to another primary, so it counts neither as done nor as not done */
};

/* Caller's memory, never allocated.  Filled by the call that fails, untouched by one that succeeds. */
struct bts_error {
	enum bts_err code;
	int os;         /* errno, or 0 */
	char text[256]; /* one line, what and where, NUL-terminated */
};

/* A stable word for a code ("not-found", "corrupt", ...).  Never NULL. */
BTS_EXPORT const char *bts_err_name(enum bts_err code);
BTS_EXPORT const char *bts_version(void); /* the library's, as "0.1.0" */

struct bts;        /* one opened file */
struct bts_txn;    /* a transaction */
struct bts_bucket; /* a bucket as one transaction sees it */
struct bts_cursor;
struct bts_group;
struct bts_load;   /* a bulk load */
struct bts_stream; /* a value being written in pieces */
struct bts_diff;   /* the difference of two snapshots */
struct bts_env;    /* btree_store/env.h */

/* bts_options.flags */
#define BTS_OPEN_READ_ONLY 0x1u /* this handle only reads; joins beside the writing process */
#define BTS_OPEN_EXISTING 0x2u  /* do not create: BTS_NOT_FOUND when there is no file */
#define BTS_OPEN_FOLLOWER 0x4u  /* open a follower's or a fenced file to apply frames (ship.h); no write transactions */
/*
 * Not with _READ_ONLY: commits only while a deadline lies ahead, which somebody renews (bts_deadline_set in ship.h), first sets
 * even.  In use for every process that has the file open, with this flag or without, from now until nobody has it open.
 */
#define BTS_OPEN_DEADLINE 0x10u
#define BTS_OPEN_FENCE 0x8u     /* with _FOLLOWER: a primary's file that nobody has open (BTS_BUSY) is fenced first, and nothing added to it */

/* A read snapshot that some process holds: of a read or write transaction, a walk, a check (bts_readers). */
struct bts_reader_info {
	uint32_t pid;        /* of its process, as that sees itself (pid namespaces) */
	int own;             /* 1: of this handle */
	int expired;         /* 1: was told to end (BTS_EXPIRED) and has not yet */
	bts_txid txid;       /* the snapshot */
	uint64_t age_ms;     /* since it was taken */
	uint64_t held_pages; /* it reaches, the newest commit does not: kept for it, and for others whose snapshots reach them too */
	uint64_t held_bytes;
};
#define BTS_READER_KEEP 0
#define BTS_READER_EXPIRE 1
/*
 * Called for a reader beyond a limit, in the thread whose commit met it, after the commit is durable and without locks held;
 * several threads may be in it at once.  At most once a second for a reader.  It must not call into this library, and what
 * it takes the caller of bts_commit waits for.  Returns BTS_READER_KEEP or BTS_READER_EXPIRE.
 */
typedef int bts_on_reader_fn(void *arg, const struct bts_reader_info *info);

struct bts_options {
	size_t size;         /* of this struct, set by bts_options_init */
	uint32_t flags;      /* BTS_OPEN_* */
	uint32_t page_size;  /* of a file being created; 0 = 4096.  An existing file keeps its own. */
	/*
	 * Address range to reserve for the file, its size limit; 0 = 4 TiB for the first 8 handles of a process that have 0 here, half
	 * of that for the next 8, down to 32 GiB, and 16 times the size of a file where that is more (at most 4 TiB).  Where a
	 * range cannot be had it is halved, down to 256 MiB.
	 */
	uint64_t map_bytes;
	struct bts_env *env; /* borrowed until bts_close; NULL = the operating system */
	unsigned async_delay_ms;  /* BTS_ASYNC: durable at the latest after this time; 0 = 200 */
	/*
	 * How long opening, committing, refreshing, bts_sync and beginning a group or an exclusive transaction wait for a lock
	 * that a living process holds, be it stopped: then BTS_BUSY, naming the process, and nothing was changed.  0 = for ever.
	 * A commit whose pages are written already waits for its flush as long as it takes.
	 */
	unsigned lock_timeout_ms;
	/*
	 * Limits on the readers of all processes, looked at after commits of this handle, a few times a second; 0 = none.  A
	 * reader beyond one is told to end, or on_reader (may be NULL) is asked first: the calls on its transaction then
	 * fail with BTS_EXPIRED, except the ends of it, bts_commit included, bts_refresh and the ends of savepoints.  Nothing is taken from it:
	 * what it borrowed stays, and its pages are not used again until it ends.  Walks and checks do not obey.
	 */
	uint64_t reader_pages_max;  /* held_pages */
	uint64_t reader_age_max_ms; /* age_ms */
	bts_on_reader_fn *on_reader;
	void *on_reader_arg;
	/*
	 * Bytes of memory a write transaction or a group takes for what it changes; 0 = 64 MiB.  Larger ones go on in a
	 * temporary file without a name, in the directory of the database: it needs room for all that the transaction
	 * changes, and is gone when the transaction ends, however it ends.  No room there: the call that needed it
	 * returns BTS_FULL and has changed nothing.  Besides, up to an eighth of what a transaction changes is needed
	 * as memory for its bookkeeping.
	 */
	uint64_t txn_memory;
	/*
	 * A follower's: bytes that path.pending may hold of pages that readers keep from their places; 0 = 1 GiB.  Beyond it the
	 * oldest of these readers are told to end, as above, and the next frame that needs room there waits for them.
	 */
	uint64_t pending_limit;
	/* A follower's first transfer notes in the file how far it has come after so many bytes, with two flushes; 0 = 256 MiB. */
	uint64_t transfer_step;
	/*
	 * Random batches let a file grow to about twice what lives in it.  The last process to close it hands that back: when this
	 * handle wrote a MiB or more, and the file has 16 MiB and more, of which more than a fifth is unused, bts_close moves up
	 * to so many bytes from its end into free space, as bts_compact_step does, and cuts it.  Where that is not enough to
	 * have it all back, only if the handle wrote as much.  It delays bts_close (64 MiB: 0.2 s), ends when somebody opens
	 * the file meanwhile or anything fails, and followers are sent what moved.  64 MiB by bts_options_init; 0 = never.
	 */
	uint64_t close_compact;
};

BTS_EXPORT void bts_options_init(struct bts_options *);

/*
 * Open path (copied; a relative one may be followed by a change of the working directory), creating it when absent (owned:
 * bts_close).  options may be NULL: defaults (read and write,
 * create).  Any number of processes, and handles of one process, may have the file open for reading and writing; a
 * follower's has one that applies (BTS_BUSY otherwise).  Creates path-lock beside the file.  May block for
 * recovery, bounded by the size of one commit.  A handle for reading that may not write path-lock opens a file that is at
 * rest and keeps writers out while it is open (BTS_BUSY on either side).
 * BTS_CORRUPT: not a database, or damaged beyond the newest commit and the one before.  BTS_VERSION: newer format.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_open(const char *path, const struct bts_options *options,
	struct bts **db, struct bts_error *error);
/*
 * All transactions must have ended.  NULL is fine.  The last process to close flushes, after making a file smaller that random
 * batches have left sparse (bts_options.close_compact).
 */
BTS_EXPORT void bts_close(struct bts *db);

/* bts_begin flags: exactly one of the first two */
#define BTS_READ 0x1u
#define BTS_WRITE 0x2u
/* Any commit since the snapshot conflicts, not only one on the same key: among busy writers it hardly ever wins (BTS_EXCLUSIVE does). */
#define BTS_CONFLICT_DATABASE 0x10u
/*
 * Nobody else commits, in any process, from bts_begin until the end of this write transaction, so it never conflicts.  Waits
 * for the batch that is being formed.  Beginning another one, or a group, or committing anything else on the same thread
 * meanwhile waits for itself (with lock_timeout_ms: BTS_BUSY).
 */
#define BTS_EXCLUSIVE 0x20u
/*
 * What the write transaction read conflicts too: keys, found or not, what cursors passed, ranges, buckets and their figures, if
 * another changed them or their neighbours in a page.  Takes memory for what was read.
 */
#define BTS_SERIALIZABLE 0x40u
/*
 * bts_commit returns when readers of all processes see the write transaction, not when it is durable; it is after
 * bts_options.async_delay_ms at the latest, when much was written, with the next commit that waits, bts_sync, or bts_close.  A crash of the machine before,
 * or the death of all processes, goes back to the newest durable commit, never to a state between.  Replicated
 * when durable.  Beside commits that wait for a flush it waits with them.
 */
#define BTS_ASYNC 0x80u
/*
 * A key that is absent, as it was at the snapshot, does not conflict.  Otherwise it may: that another one beside it was deleted can
 * not be told from its having been written and deleted again meanwhile, which the first to commit is to be safe from.  For one
 * whose write does not depend on what else it read, and that took long to make.
 */
#define BTS_CONFLICT_STATE 0x100u

/*
 * Begin at the newest commit that readers see, which is durable unless BTS_ASYNC is used (owned: bts_commit or bts_abort).  Neither kind waits for the other; write
 * transactions are optimistic and private until commit.  The handle keeps what read transactions leave behind for the next ones
 * (at most as much as 64 at a time needed, no snapshot and no page of the file), so that one of a single get costs little more
 * than the get; bucket handles and whatever was borrowed are invalid after the end all the same.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_begin(struct bts *db, unsigned flags, struct bts_txn **txn,
	struct bts_error *error);
/*
 * Make the changes durable: returns BTS_OK after the flush that covers them.  Blocks for it.  Transactions of
 * other threads that commit meanwhile share the next flush.  Ends the transaction, except on BTS_CONFLICT: then
 * it stays open for bts_refresh or bts_abort, and the error text names bucket, key and the winner.
 * A transaction without changes makes no commit.  For a read transaction the same as bts_abort.  BTS_UNKNOWN: see there; it too
 * ends the transaction, and all that shared the flush get it.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_commit(struct bts_txn *txn, struct bts_error *error);
/* The same; *txid gets the transaction's number (its snapshot's when there was nothing to commit). */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_commit_id(struct bts_txn *txn, bts_txid *txid, struct bts_error *error);
/*
 * The transaction that won when the last bts_commit of this one gave BTS_CONFLICT; 0: there was none, or it will not
 * come about.  Of several that one which was met first, and never a later number than the newest's.
 */
BTS_EXPORT bts_txid bts_conflict_winner(const struct bts_txn *txn);
/* Drop the changes and move to the newest snapshot.  Everything borrowed from the transaction ends, its cursors too. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_refresh(struct bts_txn *txn, struct bts_error *error);
BTS_EXPORT void bts_abort(struct bts_txn *txn); /* NULL is fine */
/* The number of the snapshot read; in a group, the number the transaction will commit as. */
BTS_EXPORT bts_txid bts_txn_id(const struct bts_txn *txn);
/* What the last failing call on this transaction met.  Borrowed until the next call on it. */
BTS_EXPORT const struct bts_error *bts_txn_error(const struct bts_txn *txn);

/*
 * A group: many transactions of one thread, one flush.  While it is open no other commit proceeds, in any process (reads
 * do, and private write transactions may be built; committing one on the same thread would wait for itself).
 * Transactions of a group see the earlier ones, never conflict, and are made durable together by bts_group_commit: each
 * bts_commit in between returns at once, promising nothing.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_group_begin(struct bts *db, struct bts_group **group, struct bts_error *error);
/* One at a time; end it with bts_commit, bts_commit_id or bts_abort.  An abort drops its changes alone. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_group_txn(struct bts_group *group, struct bts_txn **txn, struct bts_error *error);
/* Blocks for the flush.  Ends the group.  On failure none of its transactions happened, except with BTS_UNKNOWN. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_group_commit(struct bts_group *group, struct bts_error *error);
BTS_EXPORT void bts_group_abort(struct bts_group *group); /* NULL is fine */

/* bts_bucket flags */
#define BTS_CREATE 0x1u
/* Borrowed until the transaction ends.  BTS_NOT_FOUND without BTS_CREATE when there is none. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_bucket(struct bts_txn *txn, struct bts_slice name, unsigned flags,
	struct bts_bucket **bucket, struct bts_error *error);
struct bts_bucket_info {
	struct bts_slice name; /* borrowed until the transaction ends or its next write */
	struct bts_slice meta; /* likewise */
	uint64_t entries;
	uint64_t bytes; /* of keys and values */
	uint64_t pages; /* of the tree, large values not counted */
	unsigned depth; /* levels; 0 = never had an entry, 1 also when all are gone */
	bts_txid version; /* the transaction that created it, set its meta or gave it its name */
};
/* The first bucket whose name is > after (empty slice: the first of all).  BTS_NOT_FOUND at the end. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_bucket_next(struct bts_txn *txn, struct bts_slice after,
	struct bts_bucket_info *info);
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_bucket_info(struct bts_txn *txn, struct bts_bucket *bucket,
	struct bts_bucket_info *info);
/* The caller's own note on a bucket (a content type, a schema version), copied. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_bucket_set_meta(struct bts_txn *txn, struct bts_bucket *bucket,
	struct bts_slice meta);
/* Remove a bucket and free its pages, O(pages).  Its handle must not be used again. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_bucket_drop(struct bts_txn *txn, struct bts_slice name,
	struct bts_error *error);
/*
 * Give a bucket another name: BTS_NOT_FOUND without `from`, BTS_EXISTS when there is a bucket `to` (be it the same).
 * Entries and their versions stay; the bucket's version changes.  Handles and cursors stay valid.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_bucket_rename(struct bts_txn *txn, struct bts_slice from, struct bts_slice to,
	struct bts_error *error);

/* The value is borrowed: in a read transaction until it ends, in a write transaction until its next write. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_get(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key,
	struct bts_slice *value);
/* The same with the number of the transaction that wrote it (this one's own, not yet committed: 0, in a group what it will have). */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_get_version(struct bts_txn *txn, struct bts_bucket *bucket,
	struct bts_slice key, struct bts_slice *value, bts_txid *version);
/*
 * The same, but a value that is kept outside the leaves is neither read nor verified: value->data is NULL then, and value->size
 * its size.  Costs the same whatever that is.  In a write transaction a put of the same key right after it costs less for it.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_peek(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key,
	struct bts_slice *value, bts_txid *version);
/*
 * A hint: the transaction will look these keys up, or write them, next, in any order.  The ways down to them are taken side by side,
 * so that they wait for memory together: to put or get many keys, call it for 8 or so of them at a time (of more than 16 the rest is
 * ignored).  Reads nothing from the disk, counts as no read (BTS_SERIALIZABLE), never fails; keys are borrowed during the call.
 */
BTS_EXPORT void bts_expect(struct bts_txn *txn, struct bts_bucket *bucket, const struct bts_slice *keys, size_t count);
/*
 * bts_get in steps of bounded work.  A large value is verified as a whole, once a process, before any of it is given; each call does
 * at most `most` bytes of that (rounded up to 64 KiB).  value->data NULL: not all has been, call again with the same state, in the same
 * transaction, without a write of its own in between; value->size is the size already then.  Zero the state to begin.
 * most 0: reads nothing, and gives a value that has been verified before.
 */
struct bts_get_state {
	uint64_t done; /* bytes that have been verified; what follows is the engine's */
	const void *image;
	uint32_t crc;
};
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_get_bounded(struct bts_txn *txn, struct bts_bucket *bucket,
	struct bts_slice key, uint64_t most, struct bts_get_state *state, struct bts_slice *value);
/* bts_put flags */
#define BTS_PUT_NEW 0x1u      /* BTS_EXISTS when the key is there */
#define BTS_PUT_EXISTING 0x2u /* BTS_NOT_FOUND when it is not */
/* Key and value are copied, and may be borrowed from this transaction.  A value may be empty, a key may not. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_put(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key,
	struct bts_slice value, unsigned flags);
/*
 * A put in pieces: memory for it stays within bts_options.txn_memory whatever its size.  size: of the whole value, or
 * BTS_SIZE_UNKNOWN (then up to twice its size is needed while it grows, beyond 64 MiB a quarter more).  flags as of bts_put, looked at here and
 * again at the end.  The stream is owned: bts_put_end or bts_put_abort; committing, refreshing or ending the transaction
 * aborts it, and it can not be ended after a rollback to a savepoint from before it.  Other calls on the transaction are
 * allowed in between, other streams too; the key is put by bts_put_end.  A value whose size is announced, 1 MiB or more, goes to
 * its place in the file at once where there is one, and is then written only once.  BTS_FULL, BTS_IO: a large value of announced size
 * may then not be completed: its further writes, and bts_put_end, fail likewise; the transaction goes on.
 */
#define BTS_SIZE_UNKNOWN UINT64_MAX
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_put_begin(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key,
	uint64_t size, unsigned flags, struct bts_stream **stream, struct bts_error *error);
/* Copied.  BTS_INVALID: more than the size announced; nothing was written then and the stream goes on. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_put_write(struct bts_stream *stream, struct bts_slice bytes);
/* Ends the stream in every case.  BTS_INVALID: fewer bytes were written than announced. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_put_end(struct bts_stream *stream, struct bts_error *error);
BTS_EXPORT void bts_put_abort(struct bts_stream *stream); /* NULL is fine */

/*
 * Bulk load: entries in ascending order, each above every key the bucket has, at about half the cost of bts_put and
 * with full pages.  fill: percent of a page to use before the next one is begun, 50 to 100; 0 = 100.  Until the load ends
 * nothing else can be written in the transaction and no savepoint made (BTS_INVALID), and its entries are not seen.
 * Owned: bts_load_end or bts_load_abort; committing, refreshing or ending the transaction and going back to a savepoint
 * abort it.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_load_begin(struct bts_txn *txn, struct bts_bucket *bucket, unsigned fill,
	struct bts_load **load, struct bts_error *error);
/* Copied.  BTS_INVALID, naming the key: it is not above the last one.  A failing call adds nothing; the load goes on. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_load_add(struct bts_load *load, struct bts_slice key, struct bts_slice value);
/* Ends the load in every case.  On failure nothing of it has happened. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_load_end(struct bts_load *load, struct bts_error *error);
BTS_EXPORT void bts_load_abort(struct bts_load *load); /* NULL is fine */

BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_del(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key);
/*
 * Delete the keys from .. below to; an empty slice is no bound.  *deleted (may be NULL) gets how many they were; none: no
 * change.  Whole subtrees are cut, each of their pages is read once.  It conflicts with every change in the range by
 * somebody else, and may with deletions just beside it.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_del_range(struct bts_txn *txn, struct bts_bucket *bucket,
	struct bts_slice from, struct bts_slice to, uint64_t *deleted);

/*
 * A savepoint: a place within a write transaction, of a group too, to which it can go back; *id names it in this
 * transaction.  Savepoints nest to any depth; they end with the transaction, with those around them, and by
 * _release, which keeps what was done since.  _rollback undoes what was done since, ends the savepoints made
 * since, and leaves this one standing, to go back to again.  Going back cannot fail; BTS_INVALID: no such savepoint.
 * Borrowed values end as by a write; handles and cursors stay, but those of buckets that were created since find theirs
 * dropped.  What a BTS_SERIALIZABLE transaction has read it has read.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_savepoint(struct bts_txn *txn, uint32_t *id, struct bts_error *error);
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_savepoint_release(struct bts_txn *txn, uint32_t id, struct bts_error *error);
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_savepoint_rollback(struct bts_txn *txn, uint32_t id, struct bts_error *error);

/*
 * Cursors move in key order (unsigned bytes) and allocate nothing after opening.  Keys and values are borrowed
 * as by bts_get.  In a write transaction a cursor sees the transaction's later writes and keeps its place; after
 * its entry was deleted, _next gives the following one.  At the end _next and _prev give BTS_NOT_FOUND and leave it where it
 * stands; before the first move they are _first and _last.  key or value may be NULL: not wanted.
 * Owned: bts_cursor_close before the transaction ends (ending the transaction closes what is left open).
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_cursor_open(struct bts_txn *txn, struct bts_bucket *bucket,
	struct bts_cursor **cursor, struct bts_error *error);
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_cursor_first(struct bts_cursor *, struct bts_slice *key, struct bts_slice *value);
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_cursor_last(struct bts_cursor *, struct bts_slice *key, struct bts_slice *value);
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_cursor_next(struct bts_cursor *, struct bts_slice *key, struct bts_slice *value);
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_cursor_prev(struct bts_cursor *, struct bts_slice *key, struct bts_slice *value);
/* To the first key >= at. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_cursor_seek(struct bts_cursor *, struct bts_slice at, struct bts_slice *key,
	struct bts_slice *value);
BTS_EXPORT bts_txid bts_cursor_version(const struct bts_cursor *); /* of the entry it stands on */
/* The value of the entry it stands on, as bts_peek gives it.  BTS_INVALID: it stands on none, or the transaction has written since. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_cursor_peek(struct bts_cursor *, struct bts_slice *value);
BTS_EXPORT void bts_cursor_close(struct bts_cursor *); /* NULL is fine */

/*
 * Named snapshots: states that are kept, with every page they need, until they are deleted; they survive restarts and are
 * replicated.  A snapshot costs the pages that changed since.
 *
 * Create one in a write transaction: it names the state that the transaction's commit makes (a commit even when nothing
 * else changed).  When several transactions share one flush (a group, or private ones that met), that is the state after
 * all of them: the published number of the batch, not a state in between.  BTS_EXISTS: the name is taken.  BTS_LIMIT:
 * BTS_SNAPSHOTS_MAX.  Creating or deleting the same name elsewhere since the transaction's snapshot: BTS_CONFLICT at commit.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_snapshot_create(struct bts_txn *txn, struct bts_slice name,
	struct bts_error *error);
/*
 * Delete one in a write transaction: its commit frees the pages that nothing else needs, reading what differs from its
 * neighbours in age.  Readers of the snapshot go on until they end.  BTS_NOT_FOUND.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_snapshot_delete(struct bts_txn *txn, struct bts_slice name,
	struct bts_error *error);
struct bts_snapshot_info {
	struct bts_slice name; /* borrowed until the transaction ends or its next write */
	bts_txid txid;         /* published number of the state; 0: of this transaction or group, not committed yet */
	uint64_t time_ms;      /* of that commit, since 1970; 0 likewise */
	uint64_t buckets;
};
/*
 * The first snapshot whose name is > after (empty slice: the first of all).  BTS_NOT_FOUND at the end, and always in a
 * transaction of bts_begin_at.  Not among the reads that BTS_SERIALIZABLE validates.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_snapshot_next(struct bts_txn *txn, struct bts_slice after,
	struct bts_snapshot_info *info);
/*
 * A read transaction on a named snapshot (owned: bts_abort or bts_commit).  Its bts_txn_id is the snapshot's; bts_refresh
 * moves it to the newest commit.  A follower's file has the snapshots of its source.  BTS_NOT_FOUND: no such name.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_begin_at(struct bts *db, struct bts_slice name, struct bts_txn **txn,
	struct bts_error *error);

/*
 * A further read transaction on the snapshot that another one reads, wherever the head is by now (owned: bts_abort or bts_commit).
 * `of` is one that reads, may be in use by another thread, and must not end or be refreshed during this call; after it either
 * ends when it likes.  The new one has an age of its own for reader_age_max_ms.  BTS_EXPIRED: `of` was told to end.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_begin_same(struct bts_txn *of, struct bts_txn **txn, struct bts_error *error);

/*
 * The difference of two snapshots: what turns the older state into the newer one, in the order of bucket names, then keys.  Both
 * trees are walked at once and what they share is not read: the work is that of the pages that differ.
 */
enum bts_change_kind {
	BTS_CHANGE_PUT,            /* an entry is new, or was written again */
	BTS_CHANGE_DELETE,         /* an entry is gone */
	BTS_CHANGE_BUCKET_CREATED, /* then its entries come as puts */
	BTS_CHANGE_BUCKET_DROPPED, /* its entries went with it, and do not come */
	BTS_CHANGE_BUCKET_META,    /* its note is another one */
};
/* Slices are borrowed until the transaction ends that they are of; bucket and meta until the next call on the diff. */
struct bts_change {
	size_t size; /* of this struct as the caller knows it: set before the call */
	enum bts_change_kind kind;
	struct bts_slice bucket;
	struct bts_slice key;   /* of an entry */
	struct bts_slice value; /* of a put, of the newer; a large value is not read: data NULL, see bts_diff_value */
	uint64_t value_size;    /* of a put */
	struct bts_slice meta;  /* BUCKET_CREATED, BUCKET_META: the note that it has now */
	bts_txid version;       /* as of bts_cursor_version, bts_bucket_info; of what is gone: what it was last */
};
/* Restrictions; a slice without bytes is none. */
struct bts_diff_options {
	size_t size;             /* of this struct */
	struct bts_slice bucket; /* this one alone.  Copied. */
	struct bts_slice from;   /* in every bucket, keys from .. below to.  Copied. */
	struct bts_slice to;
};
/*
 * Two read transactions of one handle, which must outlive the diff, and belong to its thread (bts_begin_same makes them from any).
 * older NULL: of nothing, so that all there is comes.  Owned: bts_diff_close.  A bucket that was dropped and made anew compares by
 * its entries; one that was renamed was dropped under one name and created under the other.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_diff_open(struct bts_txn *older, struct bts_txn *newer,
	const struct bts_diff_options *options, struct bts_diff **diff, struct bts_error *error);
/* The next change; BTS_NOT_FOUND at the end.  BTS_CORRUPT, BTS_EXPIRED: the diff is over. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_diff_next(struct bts_diff *diff, struct bts_change *change, struct bts_error *error);
/* The value of the put that bts_diff_next gave last, read now if it is a large one.  Borrowed as by bts_get of the newer. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_diff_value(struct bts_diff *diff, struct bts_slice *value, struct bts_error *error);
/* Go on after this entry of this bucket, be it there or not; key empty: before its entries, with what the bucket itself met told. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_diff_seek(struct bts_diff *diff, struct bts_slice bucket, struct bts_slice key,
	struct bts_error *error);
BTS_EXPORT uint64_t bts_diff_pages(const struct bts_diff *diff); /* read so far, of both; large values not */
BTS_EXPORT void bts_diff_close(struct bts_diff *diff); /* NULL is fine */

/* Return BTS_OK to commit, anything else to abort and have that returned. */
typedef enum bts_err bts_txn_fn(struct bts_txn *txn, void *arg);
/* Run fn in a write transaction and commit; on BTS_CONFLICT refresh and run it again, 1000 times: then that is returned. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_update(struct bts *db, bts_txn_fn *fn, void *arg, struct bts_error *error);
/* Run fn in a read transaction. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_view(struct bts *db, bts_txn_fn *fn, void *arg, struct bts_error *error);
/*
 * Returns when everything committed before is durable, that of other processes included; only BTS_ASYNC leaves something
 * to do.  A handle that only reads or applies can flush nothing and waits for nobody: there BTS_OK says only that no write or flush has
 * failed (bts_stat has durable_txid).  BTS_POISONED, for readers too, when a write or flush of any process failed: a reader should close then, so that a writer can start over.
 * BTS_UNKNOWN: the deadline for writes has passed, so nothing that was committed before may be taken for done by this answer.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_sync(struct bts *db, struct bts_error *error);

struct bts_stat {
	size_t size;          /* of this struct as the caller knows it: set before the call */
	uint32_t page_size;   /* bytes */
	uint32_t epoch;       /* number */
	uint64_t epoch_random;
	uint8_t database[16];
	uint8_t root_digest[16]; /* equal digests, equal databases */
	uint8_t chain[16];    /* of the newest commit */
	int follower;         /* role: 0 primary, 1 follower */
	int clean_open;       /* 0: the last exit was unclean and this environment recovered */
	int fell_back;        /* 1: the newest meta page was rejected at open and the one before taken */
	int poisoned;         /* 1: a write or flush failed; every process must close before a writer can open again */
	bts_txid txid;        /* newest published */
	bts_txid durable_txid;
	uint64_t file_bytes;
	bts_pgno pages;       /* high-water mark: pages [first, pages) are in use or free */
	bts_pgno first_page;
	uint64_t free_pages;  /* persisted free set, those still pinned by readers included */
	uint64_t pinned_pages; /* of these, what the snapshots of readers hold; from any process */
	uint64_t buckets;
	uint32_t readers;     /* live read snapshots in all processes */
	bts_txid oldest_reader; /* 0 = none */
	/* since this process opened the file, writing process only: */
	uint64_t commits;     /* transactions committed */
	uint64_t flushes;     /* fdatasync calls for them */
	uint64_t pages_written;
	uint64_t conflicts;
	/* The process that has held a lock of the commit path for more than a second (stopped?), and for how long; 0: none. */
	uint32_t stuck_pid;
	uint64_t stuck_ms;
};
/* Reads the free set of the newest commit and of every snapshot in use: O(runs of free pages), no page of the trees. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_stat(struct bts *db, struct bts_stat *stat, struct bts_error *error);

typedef void bts_reader_fn(void *arg, const struct bts_reader_info *info);
/*
 * Call fn for each living reader of every process, the oldest snapshot first.  Reads what bts_stat reads.  A reader that leaves
 * meanwhile may be told of, with nothing held.  fn runs in this thread, without locks, and may call into the library.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_readers(struct bts *db, bts_reader_fn *fn, void *arg, struct bts_error *error);

/* What a bucket is made of.  "used" is bytes of cells, of what its pages could hold: used / bytes is the fill. */
struct bts_bucket_stat {
	size_t size;             /* of this struct as the caller knows it: set before the call */
	uint64_t entries;
	uint64_t bytes;          /* of keys and values */
	unsigned depth;          /* as in bts_bucket_info */
	uint64_t leaf_pages, leaf_bytes_used, leaf_bytes;
	uint64_t branch_pages, branch_bytes_used, branch_bytes;
	uint64_t large_values;   /* kept outside the leaves */
	uint64_t large_bytes;    /* of these values */
	uint64_t large_pages;
};
/* Reads every node of the bucket's tree, large values not; errors as bts_get (bts_txn_error has the text). */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_bucket_stat(struct bts_txn *txn, struct bts_bucket *bucket,
	struct bts_bucket_stat *stat);

/*
 * Verify the newest snapshot completely: checksums, order, bounds, births, reachable xor free (invariant G2), both
 * meta pages.  Of named snapshots all pages likewise; what their catalogs count is not counted again.  report is called once per finding, the text naming the page; progress (may be NULL) now and then.
 * Returns BTS_CORRUPT when there was a finding.  Reads everything; runs beside writers.
 */
struct bts_check_options {
	void (*report)(void *arg, bts_pgno page, const char *text);
	void (*progress)(void *arg, uint64_t pages_done, uint64_t pages_total);
	void *arg;
};
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_check(struct bts *db, const struct bts_check_options *options,
	struct bts_error *error);

/*
 * Make the file smaller: move up to budget pages (at least one unit: a large value is moved whole) from the end of the file into
 * free space lower down, in one commit beside running readers and writers, and cut off the end that has become free.  Never
 * makes the file larger.  Call it until more is 0; pages are given up one call after they were moved, when no snapshot needs
 * them any more.  What a snapshot still needs stays (info->reader), and what is cut leaves some room for the next commits.
 * Blocks for one flush.  info may be NULL; set info->size before each call.
 */
struct bts_compact_info {
	size_t size;          /* of this struct as the caller knows it: set before the call */
	uint64_t pages_moved;
	uint64_t pages_truncated; /* the file became shorter by so many */
	bts_pgno pages;       /* high-water mark */
	uint64_t file_bytes;
	int more;             /* 1: this call did something, so call again */
	bts_txid reader;      /* a reader's snapshot that holds the end of the file, or where it would go; 0: none */
	bts_pgno stuck;       /* a page that cannot be moved and holds the end of the file, 0: none */
	bts_txid snapshot;    /* the number of a named snapshot that holds that page, 0: none */
};
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_compact_step(struct bts *db, uint64_t budget,
	struct bts_compact_info *info, struct bts_error *error);

/*
 * Write an image of the newest durable commit to fd (the caller's, from where it stands on, strictly forward: a pipe will do; free
 * pages become holes in a new regular file).  Runs beside readers and writers; holds a snapshot meanwhile.  Verifies every
 * page it copies: BTS_CORRUPT names the one that is damaged, and what was written then is worth nothing.  The image is a
 * database file: it opens as it is, and like any copy begins a new epoch when it is written to.  Does not flush fd.
 */
struct bts_backup_options {
	size_t size; /* of this struct */
	void (*progress)(void *arg, uint64_t pages_done, uint64_t pages_total); /* NULL: none */
	void *arg;
};
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_backup(struct bts *db, int fd, const struct bts_backup_options *options,
	struct bts_error *error);

/* bts_restore_options.flags */
#define BTS_RESTORE_SAME_ID 0x1u /* the same database, role kept, not a new one */
struct bts_restore_options {
	size_t size; /* of this struct */
	uint32_t flags;
	uint64_t map_bytes; /* as in bts_options, for the verification */
	struct bts_env *env; /* NULL = the operating system */
	void (*progress)(void *arg, uint64_t bytes_read); /* NULL: none */
	void *arg;
};
/*
 * Make path from an image read from fd, a backup or a copy of a file that was closed: every page is verified first, then the file
 * appears, complete and durable, or not at all.  It is a new database (its own id, a primary) unless asked to be the
 * same.  BTS_EXISTS when path is there; BTS_INVALID: no database, or a follower's without a commit, of which no other can be made;
 * BTS_CORRUPT.  options may be NULL.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_restore(int fd, const char *path, const struct bts_restore_options *options,
	struct bts_error *error);
/*
 * The same from a file of the same file system, closed cleanly, which nobody has open (BTS_BUSY): a follower's that frames were put
 * onto, for one.  It is not copied but gets the name path and loses its own.  When this fails, it is worth nothing as it is, and stays; progress is not called.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_restore_file(const char *from, const char *path,
	const struct bts_restore_options *options, struct bts_error *error);

#ifdef __cplusplus
}
#endif
#endif
