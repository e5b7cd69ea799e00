/*
 * btree_store with faults, for the test of the benchmarks: what they check outside the clock must notice
 * each.  "wrong" gives other values to gets that are a transaction of their own, and short scans that are too
 * short; "lossy" forgets a transaction of one, and of each other, though not of a large one, so that it is
 * filled well, half of the keys: the same in each, as a later transaction would put right what one forgot.
 */
#include "bench_store.h"

#define WRONG_LARGE 1500u

static _Thread_local bool wrong_brief;

static int wrong_begin(void *reader, bool brief)
{
	wrong_brief = brief;
	return store_ours.begin(reader, brief);
}

static int wrong_get(void *reader, const void *key, struct bench_slice *value)
{
	int found = store_ours.get(reader, key, value);

	if (found > 0 && wrong_brief)
		value->data = (const uint8_t *)value->data + 1;
	return found;
}

static int wrong_scan(
	void *reader, const void *from, bool back, uint64_t limit, uint64_t *seen, uint64_t *sum)
{
	return store_ours.scan(reader, from, back, from ? limit - 1 : limit, seen, sum);
}

/* The number in a key without a prefix. */
static uint64_t wrong_number(const void *key)
{
	uint64_t number;

	memcpy(&number, key, sizeof(number));
	return number;
}

static int wrong_write(void *writer, const struct bench_op *ops, size_t count)
{
	struct bench_op kept[WRONG_LARGE];
	size_t n = 0;

	if (count >= WRONG_LARGE)
		return store_ours.write(writer, ops, count);
	for (size_t i = 0; i < count && count > 1; i++) {
		if (bench_hash(wrong_number(ops[i].key)) % 2)
			kept[n++] = ops[i];
	}
	return store_ours.write(writer, kept, n);
}

const struct bench_store *store_wrong(const char *name, size_t length)
{
	static struct bench_store store;

	store = store_ours;
	if (length == 5 && memcmp(name, "wrong", 5) == 0) {
		store.name = "wrong";
		store.begin = wrong_begin;
		store.get = wrong_get;
		store.scan = wrong_scan;
		return &store;
	}
	if (length == 5 && memcmp(name, "lossy", 5) == 0) {
		store.name = "lossy";
		store.write = wrong_write;
		return &store;
	}
	return NULL;
}
