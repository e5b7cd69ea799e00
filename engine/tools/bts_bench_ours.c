/* The store itself under bts bench. */
#include "bts_bench.h"
#include <btree_store.h>
#include <stdio.h>
#include <string.h>

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

static enum bts_err ours_bulk(struct bts_txn *txn, const struct bts_bench_set *set, uint64_t from, uint64_t to,
	struct bts_error *error)
{
	const struct bts_slice value = {set->value, set->value_size};
	struct bts_bucket *bucket;
	struct bts_load *load;
	enum bts_err err = bts_bucket(txn, ours_bucket, BTS_CREATE, &bucket, error);

	if (!err)
		err = bts_load_begin(txn, bucket, 0, &load, error);
	if (err)
		return err;
	for (uint64_t i = from; i < to; i++) {
		err = bts_load_add(load, (struct bts_slice){bts_bench_key(set, (uint32_t)i), set->key_size}, value);
		if (err) {
			*error = *bts_txn_error(txn);
			return err; /* the transaction's end drops the load */
		}
	}
	return bts_load_end(load, error);
}

static int ours_load_bulk(void *store, const struct bts_bench_set *set, uint64_t batch, char text[256])
{
	struct bts_error error = {0};
	struct bts_txn *txn;

	for (uint64_t done = 0, end; done < set->count; done = end) {
		end = set->count - done < batch ? set->count : done + batch;
		if (bts_begin(store, BTS_WRITE, &txn, &error))
			return ours_fail(text, &error);
		if (ours_bulk(txn, set, done, end, &error)) {
			bts_abort(txn);
			return ours_fail(text, &error);
		}
		if (bts_commit(txn, &error))
			return ours_fail(text, &error);
	}
	return 0;
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
	.load_bulk = ours_load_bulk,
	.get = ours_get,
	.scan = ours_scan,
};

struct ours_number {
	uint32_t key;
	uint64_t number;
	size_t value_size;
	int add;
	uint64_t runs;
};

static struct bts_slice ours_number_key(char room[16], uint32_t key)
{
	return (struct bts_slice){room, (size_t)snprintf(room, 16, "key %08u", key)};
}

static enum bts_err ours_number_put(struct bts_txn *txn, void *arg)
{
	struct ours_number *n = arg;
	uint8_t padded[BTS_BENCH_VALUE_MAX] = {0};
	struct bts_bucket *bucket;
	struct bts_slice value;
	uint64_t number = 0;
	char room[16];
	enum bts_err err = bts_bucket(txn, ours_bucket, BTS_CREATE, &bucket, NULL);

	n->runs++;
	if (!err && n->add) {
		err = bts_get(txn, bucket, ours_number_key(room, n->key), &value);
		if (!err)
			memcpy(&number, value.data, sizeof(number));
	}
	if (err)
		return err;
	number += n->number;
	memcpy(padded, &number, sizeof(number));
	value = (struct bts_slice){padded, n->value_size};
	return bts_put(txn, bucket, ours_number_key(room, n->key), value, 0);
}

static void *ours_writer_open(const char *path, char text[256])
{
	return ours_open(path, NULL, text);
}

static int ours_writer_put(void *store, uint32_t key, uint64_t number, size_t value_size, int add,
	uint64_t *conflicts, char text[256])
{
	struct ours_number n = {key, number, value_size, add, 0};
	struct bts_error error = {0};

	if (bts_update(store, ours_number_put, &n, &error))
		return ours_fail(text, &error);
	*conflicts += n.runs - 1;
	return 0;
}

static int ours_writer_fill(void *store, uint32_t count, size_t value_size, char text[256])
{
	struct bts_error error = {0};
	struct bts_txn *txn;
	enum bts_err err;

	if (bts_begin(store, BTS_WRITE, &txn, &error))
		return ours_fail(text, &error);
	for (uint32_t key = 0; key < count; key++) {
		struct ours_number n = {key, 0, value_size, 0, 0};

		err = ours_number_put(txn, &n);
		if (err) {
			error = *bts_txn_error(txn);
			bts_abort(txn);
			return ours_fail(text, &error);
		}
	}
	return bts_commit(txn, &error) ? ours_fail(text, &error) : 0;
}

static int ours_writer_get(void *store, uint32_t key, uint64_t *number, char text[256])
{
	struct bts_error error = {0};
	struct bts_bucket *bucket;
	struct bts_slice value;
	struct bts_txn *txn;
	char room[16];

	if (bts_begin(store, BTS_READ, &txn, &error))
		return ours_fail(text, &error);
	if (bts_bucket(txn, ours_bucket, 0, &bucket, NULL) ||
		bts_get(txn, bucket, ours_number_key(room, key), &value)) {
		error = *bts_txn_error(txn);
		bts_abort(txn);
		return ours_fail(text, &error);
	}
	memcpy(number, value.data, sizeof(*number));
	bts_abort(txn);
	return 0;
}

static uint64_t ours_writer_flushes(void *store)
{
	struct bts_stat stat = {.size = sizeof(stat)};

	return bts_stat(store, &stat, NULL) ? 0 : stat.flushes;
}

const struct bts_bench_writer bts_bench_writer_ours = {
	.name = "btree_store",
	.open = ours_writer_open,
	.close = ours_close,
	.put = ours_writer_put,
	.fill = ours_writer_fill,
	.get = ours_writer_get,
	.flushes = ours_writer_flushes,
};
