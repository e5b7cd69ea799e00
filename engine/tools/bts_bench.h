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

static inline const uint8_t *bts_bench_key(const struct bts_bench_set *set, uint32_t index)
{
	return set->keys + (size_t)index * set->key_size;
}

#endif
