/*
 * Two hands for tests/bench/first_sync: `fill FILE BYTES` makes a database of about so many bytes, `write FILE` overwrites random
 * records in batches until it is stopped, and says how many commits it made.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <btree_store.h>

#define SYNC_VALUE 1000u
#define SYNC_RECORD 1150u /* with what a page has besides */
#define SYNC_FILL 10000u
#define SYNC_BATCH 100u

static volatile sig_atomic_t sync_stopped;

struct sync_work {
	uint64_t from, count, keys; /* keys: any of so many; 0: those from `from` on */
	uint64_t random;
};

static uint64_t sync_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static enum bts_err sync_put(struct bts_txn *txn, void *arg)
{
	struct sync_work *work = arg;
	struct bts_bucket *bucket;
	uint64_t value[SYNC_VALUE / 8], number;
	enum bts_err err = bts_bucket(txn, (struct bts_slice){"b", 1}, BTS_CREATE, &bucket, NULL);
	char key[24];

	for (uint64_t i = 0; !err && i < work->count; i++) {
		number = work->keys ? sync_next(&work->random) % work->keys : work->from + i;
		snprintf(key, sizeof(key), "%016llx", (unsigned long long)number);
		for (size_t k = 0; k < SYNC_VALUE / 8; k++)
			value[k] = sync_next(&work->random);
		err = bts_put(txn, bucket, (struct bts_slice){key, 16}, (struct bts_slice){value, sizeof(value)}, 0);
	}
	return err;
}

static void sync_on_signal(int number)
{
	(void)number;
	sync_stopped = 1;
}

static uint64_t sync_entries(struct bts *db)
{
	struct bts_bucket_info info = {.entries = 0};
	struct bts_txn *txn;

	if (bts_begin(db, BTS_READ, &txn, NULL))
		return 0;
	if (bts_bucket_next(txn, (struct bts_slice){"", 0}, &info))
		info.entries = 0;
	bts_abort(txn);
	return info.entries;
}

int main(int argc, char **argv)
{
	bool fill = argc == 4 && !strcmp(argv[1], "fill");
	struct sync_work work = {.random = 88172645463325252u};
	struct bts_error error = {.text = ""};
	uint64_t records, commits = 0;
	struct bts *db;

	if (!fill && (argc != 3 || strcmp(argv[1], "write"))) {
		fprintf(stderr, "usage: bench_sync fill FILE BYTES | write FILE\n");
		return 2;
	}
	if (bts_open(argv[2], NULL, &db, &error)) {
		fprintf(stderr, "%s\n", error.text);
		return 1;
	}
	signal(SIGTERM, sync_on_signal);
	records = fill ? strtoull(argv[3], NULL, 10) / SYNC_RECORD : sync_entries(db);
	work.count = fill ? SYNC_FILL : SYNC_BATCH;
	work.keys = fill ? 0 : records;
	for (; !sync_stopped && !error.code && (!fill || work.from < records); work.from += work.count) {
		if (bts_update(db, sync_put, &work, &error))
			fprintf(stderr, "%s\n", error.text);
		commits++;
	}
	printf("%llu\n", (unsigned long long)commits);
	bts_close(db);
	return error.code != 0;
}
