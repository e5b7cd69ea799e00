/* The store itself under bts bench. */
#include "bts_bench.h"
#include <btree_store.h>
#include <stdio.h>

static const struct bts_slice ours_bucket = {"bench", 5};

static int ours_fail(char text[256], const struct bts_error *error)
{
	snprintf(text, 256, "%s", error->text);
	return -1;
}

static void *ours_open(const char *path, const struct bts_bench_set *set, char text[256])
{
	struct bts_error error = {0};
	struct bts *db;

	(void)set;
	if (bts_open(path, NULL, &db, &error)) {
		ours_fail(text, &error);
		return NULL;
	}
	return db;
}

static void ours_close(void *store)
{
	bts_close(store);
}

static int ours_load(void *store, const struct bts_bench_set *set, const uint32_t *order, uint64_t count,
	uint64_t batch, char text[256])
{
	const struct bts_slice value = {set->value, set->value_size};
	struct bts_error error = {0};
	struct bts_bucket *bucket;
	struct bts_txn *txn = NULL;
	uint64_t done = 0;

	while (done < count) {
		uint64_t end = count - done < batch ? count : done + batch;

		if (bts_begin(store, BTS_WRITE, &txn, &error))
			return ours_fail(text, &error);
		if (bts_bucket(txn, ours_bucket, BTS_CREATE, &bucket, &error))
			goto fail;
		for (; done < end; done++) {
			const struct bts_slice key = {bts_bench_key(set, order[done]), set->key_size};

			if (bts_put(txn, bucket, key, value, 0)) {
				error = *bts_txn_error(txn);
				goto fail;
			}
		}
		if (bts_commit(txn, &error))
			return ours_fail(text, &error);
	}
	return 0;
fail:
	bts_abort(txn);
	return ours_fail(text, &error);
}

static int ours_get(void *store, const struct bts_bench_set *set, const uint32_t *order, uint64_t count,
	int each, uint64_t *sum, char text[256])
{
	struct bts_error error = {0};
	struct bts_bucket *bucket = NULL;
	struct bts_txn *txn = NULL;
	struct bts_slice value;
	uint64_t total = 0;

	for (uint64_t i = 0; i < count; i++) {
		const struct bts_slice key = {bts_bench_key(set, order[i]), set->key_size};

		if (!txn) {
			if (bts_begin(store, BTS_READ, &txn, &error))
				return ours_fail(text, &error);
			if (bts_bucket(txn, ours_bucket, 0, &bucket, &error))
				goto fail;
		}
		if (bts_get(txn, bucket, key, &value)) {
			error = *bts_txn_error(txn);
			goto fail;
		}
		total += value.size ? *(const uint8_t *)value.data : 0;
		if (each) {
			bts_abort(txn);
			txn = NULL;
		}
	}
	bts_abort(txn);
	*sum = total;
	return 0;
fail:
	bts_abort(txn);
	return ours_fail(text, &error);
}

static int ours_scan(void *store, uint64_t *count, uint64_t *sum, char text[256])
{
	struct bts_error error = {0};
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	struct bts_txn *txn;
	struct bts_slice key, value;
	uint64_t seen = 0, total = 0;
	enum bts_err err;

	if (bts_begin(store, BTS_READ, &txn, &error))
		return ours_fail(text, &error);
	if (bts_bucket(txn, ours_bucket, 0, &bucket, &error) || bts_cursor_open(txn, bucket, &cursor, &error))
		goto fail;
	for (err = bts_cursor_first(cursor, &key, &value); !err;
		err = bts_cursor_next(cursor, &key, &value)) {
		seen++;
		total += value.size ? *(const uint8_t *)value.data : 0;
	}
	bts_cursor_close(cursor);
	if (err != BTS_NOT_FOUND) {
		error = *bts_txn_error(txn);
		goto fail;
	}
	bts_abort(txn);
	*count = seen;
	*sum = total;
	return 0;
fail:
	bts_abort(txn);
	return ours_fail(text, &error);
}

const struct bts_bench_store bts_bench_ours = {
	.name = "btree_store",
	.open = ours_open,
	.close = ours_close,
	.load = ours_load,
	.get = ours_get,
	.scan = ours_scan,
};
