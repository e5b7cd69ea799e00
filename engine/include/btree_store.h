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
 * belongs to one thread at a time.
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
	BTS_BUSY,           /* another process has the file open for writing */
	BTS_POISONED,       /* a flush or meta write failed earlier; close everywhere and open again */
	BTS_MEMORY,         /* allocation failed; nothing was changed */
	BTS_VERSION,        /* the file is of a newer format or needs a feature this library lacks */
	BTS_READ_ONLY,      /* a write where only reading was opened, or to a follower's file */
	BTS_TIMEOUT,        /* the time given ran out */
	BTS_DIVERGED,       /* replication: the two histories differ */
	BTS_LIMIT,          /* a named limit of this library was reached (readers, buckets open, ...) */
	BTS_NEEDS_RECOVERY, /* only a process that may write can recover this file */
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
struct bts_env;    /* btree_store/env.h */

/* bts_options.flags */
#define BTS_OPEN_READ_ONLY 0x1u /* this handle only reads; joins beside the writing process */
#define BTS_OPEN_EXISTING 0x2u  /* do not create: BTS_NOT_FOUND when there is no file */
#define BTS_OPEN_FOLLOWER 0x4u  /* open a follower's file to apply frames (ship.h); no write transactions */

struct bts_options {
	size_t size;         /* of this struct, set by bts_options_init */
	uint32_t flags;      /* BTS_OPEN_* */
	uint32_t page_size;  /* of a file being created; 0 = 4096.  An existing file keeps its own. */
	uint64_t map_bytes;  /* address range to reserve for the file, its size limit; 0 = 4 TiB or what can be had */
	struct bts_env *env; /* borrowed until bts_close; NULL = the operating system */
};

BTS_EXPORT void bts_options_init(struct bts_options *);

/*
 * Open path, creating it when absent (owned: bts_close).  options may be NULL: defaults (read and write,
 * create).  One process at a time may open for writing (BTS_BUSY otherwise); any number may read beside it.
 * Creates path-lock beside the file.  May block for recovery, bounded by the size of one commit.
 * BTS_CORRUPT: not a database, or damaged beyond the newest commit and the one before.  BTS_VERSION: newer format.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_open(const char *path, const struct bts_options *options,
	struct bts **db, struct bts_error *error);
/* All transactions must have ended.  NULL is fine.  Flushes when this is the last process to close. */
BTS_EXPORT void bts_close(struct bts *db);

/* bts_begin flags: exactly one of the first two */
#define BTS_READ 0x1u
#define BTS_WRITE 0x2u
#define BTS_CONFLICT_DATABASE 0x10u /* any commit since the snapshot conflicts, not only one on the same key */
/* Reserved, refused with BTS_INVALID by this version: BTS_EXCLUSIVE 0x20, BTS_SERIALIZABLE 0x40, BTS_ASYNC 0x80 */
#define BTS_EXCLUSIVE 0x20u
#define BTS_SERIALIZABLE 0x40u
#define BTS_ASYNC 0x80u

/*
 * Begin at the newest durable commit (owned: bts_commit or bts_abort).  Neither kind waits for the other; write
 * transactions are optimistic and private until commit.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_begin(struct bts *db, unsigned flags, struct bts_txn **txn,
	struct bts_error *error);
/*
 * Make the changes durable: returns BTS_OK after the flush that covers them.  Blocks for it.  Transactions of
 * other threads that commit meanwhile share the next flush.  Ends the transaction, except on BTS_CONFLICT: then
 * it stays open for bts_refresh or bts_abort, and the error text names bucket, key and the winner.
 * A transaction without changes makes no commit.  For a read transaction the same as bts_abort.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_commit(struct bts_txn *txn, struct bts_error *error);
/* The same; *txid gets the transaction's number (its snapshot's when there was nothing to commit). */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_commit_id(struct bts_txn *txn, bts_txid *txid, struct bts_error *error);
/* Drop the changes and move to the newest snapshot.  Everything borrowed from the transaction ends, its cursors too. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_refresh(struct bts_txn *txn, struct bts_error *error);
BTS_EXPORT void bts_abort(struct bts_txn *txn); /* NULL is fine */
/* The number of the snapshot read; in a group, the number the transaction will commit as. */
BTS_EXPORT bts_txid bts_txn_id(const struct bts_txn *txn);
/* What the last failing call on this transaction met.  Borrowed until the next call on it. */
BTS_EXPORT const struct bts_error *bts_txn_error(const struct bts_txn *txn);

/*
 * A group: many transactions of one thread, one flush.  While it is open no other commit proceeds (reads do, and
 * private write transactions may be built; committing one on the same thread would wait for itself).  Transactions of a group see the earlier ones, never conflict, and
 * are made durable together by bts_group_commit: each bts_commit in between returns at once, promising nothing.
 */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_group_begin(struct bts *db, struct bts_group **group, struct bts_error *error);
/* One at a time; end it with bts_commit, bts_commit_id or bts_abort.  An abort drops its changes alone. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_group_txn(struct bts_group *group, struct bts_txn **txn, struct bts_error *error);
/* Blocks for the flush.  Ends the group.  On failure none of its transactions happened. */
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
	unsigned depth; /* levels; 0 = empty */
	bts_txid version; /* the transaction that created it or set its meta */
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

/* The value is borrowed: in a read transaction until it ends, in a write transaction until its next write. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_get(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key,
	struct bts_slice *value);
/* The same with the number of the transaction that wrote it (0: this transaction's own, not yet committed). */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_get_version(struct bts_txn *txn, struct bts_bucket *bucket,
	struct bts_slice key, struct bts_slice *value, bts_txid *version);
/* bts_put flags */
#define BTS_PUT_NEW 0x1u      /* BTS_EXISTS when the key is there */
#define BTS_PUT_EXISTING 0x2u /* BTS_NOT_FOUND when it is not */
/* Key and value are copied.  A value may be empty, a key may not. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_put(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key,
	struct bts_slice value, unsigned flags);
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_del(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key);

/*
 * Cursors move in key order (unsigned bytes) and allocate nothing after opening.  Keys and values are borrowed
 * as by bts_get.  In a write transaction a cursor sees the transaction's later writes and keeps its place; after
 * its entry was deleted, _next gives the following one.  key or value may be NULL: not wanted.
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
BTS_EXPORT void bts_cursor_close(struct bts_cursor *); /* NULL is fine */

/* Return BTS_OK to commit, anything else to abort and have that returned. */
typedef enum bts_err bts_txn_fn(struct bts_txn *txn, void *arg);
/* Run fn in a write transaction and commit; on BTS_CONFLICT refresh and run it again. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_update(struct bts *db, bts_txn_fn *fn, void *arg, struct bts_error *error);
/* Run fn in a read transaction. */
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_view(struct bts *db, bts_txn_fn *fn, void *arg, struct bts_error *error);
/*
 * Returns when everything committed is durable; every commit of this version already is.  BTS_POISONED, for readers too,
 * when a write or flush of any process failed: a reader should close then, so that a writer can start over.
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
	uint64_t pinned_pages; /* of these, not reusable yet (writing process only) */
	uint64_t buckets;
	uint32_t readers;     /* live read snapshots in all processes */
	bts_txid oldest_reader; /* 0 = none */
	/* since this process opened the file, writing process only: */
	uint64_t commits;     /* transactions committed */
	uint64_t flushes;     /* fdatasync calls for them */
	uint64_t pages_written;
	uint64_t conflicts;
};
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_stat(struct bts *db, struct bts_stat *stat, struct bts_error *error);

/*
 * Verify the newest snapshot completely: checksums, order, bounds, births, reachable xor free (invariant G2), both
 * meta pages.  report is called once per finding, the text naming the page; progress (may be NULL) now and then.
 * Returns BTS_CORRUPT when there was a finding.  Reads everything; runs beside writers.
 */
struct bts_check_options {
	void (*report)(void *arg, bts_pgno page, const char *text);
	void (*progress)(void *arg, uint64_t pages_done, uint64_t pages_total);
	void *arg;
};
BTS_EXPORT BTS_MUST_CHECK enum bts_err bts_check(struct bts *db, const struct bts_check_options *options,
	struct bts_error *error);

#ifdef __cplusplus
}
#endif
#endif
