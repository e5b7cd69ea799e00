/*
 * One store as the benchmarks use it: btree_store, LMDB, SQLite, RocksDB behind the same calls, each called
 * in the best way that its manual gives; what was chosen stands at the top of store_<name>.c.
 *
 * Calls that can fail return -1 after bench_fail(); the text belongs to the thread.  A store handle is used
 * by any number of threads, a reader or writer by the thread that made it, and a thread has one reader of a
 * store at a time.
 */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * The entries, computed from their index, so that they cost neither memory nor cache misses.  Entry i: a key
 * of `prefix` equal bytes, 8 bytes that grow with i by random steps, and random ones; a value out of a pool
 * of random bytes, chosen by the index and a version.  Between two keys lies one that is never stored, to be
 * missed.
 */
struct bench_set {
	uint64_t entries;
	size_t key_size, value_size, prefix; /* bytes */
	uint64_t stride;		     /* 2^64 / entries */
	uint8_t *pool;			     /* BENCH_POOL + value_size bytes */
};
#define BENCH_POOL 65536
#define BENCH_KEY_MAX 511 /* LMDB's limit */

static inline uint64_t bench_hash(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* The key of entry `index` (miss: the one beside it that is not there), key_size bytes, to key. */
static inline void bench_key(const struct bench_set *set, uint64_t index, bool miss, uint8_t *key)
{
	uint64_t random = bench_hash(index), half = set->stride / 2, number;
	size_t at = set->prefix;

	number = index * set->stride + (uint64_t)((unsigned __int128)random * half >> 64) + (miss ? half : 0);
	number = __builtin_bswap64(number);
	memset(key, 'k', at);
	memcpy(key + at, &number, 8);
	for (at += 8; at < set->key_size; at += 8) {
		size_t left = set->key_size - at;

		random = bench_hash(random);
		memcpy(key + at, &random, left < 8 ? left : 8);
	}
}

/* The value of entry `index` in its version: value_size bytes, there as long as the set is. */
static inline const uint8_t *bench_value(const struct bench_set *set, uint64_t index, uint8_t version)
{
	return set->pool + bench_hash(index << 8 | version) % BENCH_POOL;
}

struct bench_slice {
	const void *data;
	size_t size;
};

struct bench_op {
	const void *key;   /* key_size bytes */
	const void *value; /* value_size bytes; NULL: delete the key, which is there */
};

struct bench_store {
	const char *name; /* in the JSON and for --stores */
	const char *(*version)(void);
	/* Made in dir, or what is there; NULL: failed. */
	void *(*open)(const char *dir, const struct bench_set *set);
	void (*close)(void *store);
	/* Bring the files to rest: what the store would do later in the background, or on closing.  NULL: nothing. */
	int (*settle)(void *store);
	/* Wait until no thread of its own works any more.  NULL: it has none. */
	int (*quiet)(void *store);
	/* All entries in key order into an empty store, by what it has for that, in transactions of batch.  NULL: nothing. */
	int (*bulk)(void *store, uint64_t batch);

	void *(*writer)(void *store); /* NULL: failed */
	void (*writer_close)(void *writer);
	/* One transaction, durable and seen by all when it returns. */
	int (*write)(void *writer, const struct bench_op *ops, size_t count);

	void *(*reader)(void *store); /* NULL: failed */
	void (*reader_close)(void *reader);
	/* Around reads: one snapshot of the newest commit.  brief: for one get only, however the store does that best. */
	int (*begin)(void *reader, bool brief);
	void (*end)(void *reader);
	/* 1: found, value borrowed until the next call on the reader; 0: not there */
	int (*get)(void *reader, const void *key, struct bench_slice *value);
	/*
	 * Up to limit entries from `from` (which is there; NULL: the first, or back: the last) on.  *seen:
	 * how many they were, *sum: of the first bytes of their values.
	 */
	int (*scan)(void *reader, const void *from, bool back, uint64_t limit, uint64_t *seen, uint64_t *sum);
};

extern const struct bench_store store_ours;
#ifdef HAVE_LMDB
extern const struct bench_store store_lmdb;
#endif
#ifdef HAVE_SQLITE
extern const struct bench_store store_sqlite;
#endif
#ifdef HAVE_ROCKSDB
extern const struct bench_store store_rocksdb;
#endif

/* --stores wrong and --stores lossy, one of them: only to see that they are noticed.  NULL: another name. */
const struct bench_store *store_wrong(const char *name, size_t length);

/* Keep the message for the caller of the thread; returns -1. */
int bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *bench_failure(void); /* the last one of this thread */
/* -1 after SIGINT or SIGTERM: looked at between slices, and while loading or waiting. */
int bench_stopped(void);

#endif
