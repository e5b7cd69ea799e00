/* One store as bts bench times it: this one, and LMDB beside it. */
#ifndef BTS_BENCH_H
#define BTS_BENCH_H

#include <stddef.h>
#include <stdint.h>

/* What is stored: count records, made before the clock runs. */
struct bts_bench_set {
	uint8_t *keys; /* count * key_size, in key order */
	uint8_t *value;
	size_t key_size, value_size;
	uint64_t count;
};

/* Calls return 0, or -1 with the message in text. */
struct bts_bench_store {
	const char *name;
	void *(*open)(const char *path, const struct bts_bench_set *set,
		char text[256]); /* a new file; NULL: failed */
	void (*close)(void *store);
	/* put the records named by order, in transactions of batch */
	int (*load)(void *store, const struct bts_bench_set *set, const uint32_t *order, uint64_t count,
		uint64_t batch, char text[256]);
	/* put all in key order, by what the store has for that */
	int (*load_bulk)(void *store, const struct bts_bench_set *set, uint64_t batch, char text[256]);
	/* get each in order, in one transaction, or in one each; the sum of the first bytes of the values
	 * goes to *sum */
	int (*get)(void *store, const struct bts_bench_set *set, const uint32_t *order, uint64_t count,
		int each, uint64_t *sum, char text[256]);
	int (*scan)(void *store, uint64_t *count, uint64_t *sum, char text[256]);
};

extern const struct bts_bench_store bts_bench_ours;
#ifdef HAVE_LMDB
extern const struct bts_bench_store bts_bench_lmdb;
#endif

/*
 * One store under `bts bench FILE writers`: numbers under numbered keys, in one bucket; a value is the number and
 * padding.  A handle is used by many threads, a file by many processes.
 */
struct bts_bench_writer {
	const char *name;
	void *(*open)(const char *path, char text[256]); /* NULL: failed */
	void (*close)(void *store);
	/* one durable transaction: put number under key, or with add, add it to what is there; *conflicts grows by the
	 * times it had to be made again */
	int (*put)(void *store, uint32_t key, uint64_t number, size_t value_size, int add, uint64_t *conflicts,
		char text[256]);
	int (*fill)(void *store, uint32_t count, size_t value_size, char text[256]); /* keys from 0, numbers 0 */
	int (*get)(void *store, uint32_t key, uint64_t *number, char text[256]);
	uint64_t (*flushes)(void *store); /* of this handle so far; NULL: not known */
};
#define BTS_BENCH_VALUE_MAX 4096 /* of a value there */

extern const struct bts_bench_writer bts_bench_writer_ours;
#ifdef HAVE_LMDB
extern const struct bts_bench_writer bts_bench_writer_lmdb;
#endif

struct bts_args;
int bts_bench_writers(const struct bts_args *args);

static inline const uint8_t *bts_bench_key(const struct bts_bench_set *set, uint32_t index)
{
	return set->keys + (size_t)index * set->key_size;
}

#endif
