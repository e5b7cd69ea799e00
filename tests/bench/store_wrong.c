/*
 * btree_store with faults, for the test of the benchmarks: what they check outside the clock must notice
 * each.  "wrong" gives other values to gets that are a transaction of their own, and short scans that are too
 * short; "lossy" forgets half of a transaction, though not of a large one, so that it is filled well.
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

static int wrong_write(void *writer, const struct bench_op *ops, size_t count)
{
	return store_ours.write(writer, ops, count < WRONG_LARGE ? count / 2 : count);
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
