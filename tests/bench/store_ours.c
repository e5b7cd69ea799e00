/* btree_store under the benchmarks: one bucket, default options. */
#include "bench_store.h"
#include <btree_store.h>
#include <stdio.h>
#include <stdlib.h>

static const struct bts_slice ours_bucket = {"bench", 5};

struct ours {
	struct bts *db;
	const struct bench_set *set;
};

struct ours_reader {
	struct ours *store;
	struct bts_txn *txn;
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
};

static int ours_fail(const char *what, const struct bts_error *error)
{
	return bench_fail("btree_store: %s: %s", what, error->text);
}

static void ours_close(void *store)
{
	struct ours *o = store;

	bts_close(o->db);
	free(o);
}

static void *ours_open(const char *dir, const struct bench_set *set)
{
	struct ours *o = calloc(1, sizeof(*o));
	struct bts_error error = {0};
	char path[4200];

	if (!o)
		return NULL;
	o->set = set;
	snprintf(path, sizeof(path), "%s/data.bts", dir);
	if (!bts_open(path, NULL, &o->db, &error))
		return o;
	ours_fail("open", &error);
	free(o);
	return NULL;
}

static enum bts_err ours_apply(struct ours *o, struct bts_txn *txn, const struct bench_op *ops, size_t count,
	struct bts_error *error)
{
	struct bts_bucket *bucket;
	enum bts_err err = bts_bucket(txn, ours_bucket, BTS_CREATE, &bucket, error);

	if (err)
		return err;
	for (size_t i = 0; i < count; i++) {
		const struct bts_slice key = {ops[i].key, o->set->key_size};
		const struct bts_slice value = {ops[i].value, o->set->value_size};

		err = ops[i].value ? bts_put(txn, bucket, key, value, 0) : bts_del(txn, bucket, key);
		if (err) {
			*error = *bts_txn_error(txn);
			return err;
		}
	}
	return BTS_OK;
}

/* The handle itself writes: a transaction may begin in any thread. */
static void *ours_writer(void *store)
{
	return store;
}

static void ours_writer_close(void *writer)
{
	(void)writer;
}

static int ours_write(void *writer, const struct bench_op *ops, size_t count)
{
	struct ours *o = writer;
	struct bts_error error = {0};
	struct bts_txn *txn;
	enum bts_err err;

	if (bts_begin(o->db, BTS_WRITE, &txn, &error))
		return ours_fail("begin", &error);
	for (;;) {
		err = ours_apply(o, txn, ops, count, &error);
		if (err)
			break;
		err = bts_commit(txn, &error);
		if (!err)
			return 0;
		if (err != BTS_CONFLICT)
			return ours_fail("commit", &error);
		err = bts_refresh(txn, &error);
		if (err)
			break;
	}
	bts_abort(txn);
	return ours_fail("write", &error);
}

static enum bts_err ours_bulk_some(
	struct ours *o, struct bts_txn *txn, uint64_t from, uint64_t to, struct bts_error *error)
{
	struct bts_bucket *bucket;
	struct bts_load *load;
	uint8_t key[BENCH_KEY_MAX];
	enum bts_err err = bts_bucket(txn, ours_bucket, BTS_CREATE, &bucket, error);

	if (!err)
		err = bts_load_begin(txn, bucket, 0, &load, error);
	if (err)
		return err;
	for (uint64_t i = from; i < to; i++) {
		bench_key(o->set, i, false, key);
		err = bts_load_add(load, (struct bts_slice){key, o->set->key_size},
			(struct bts_slice){bench_value(o->set, i, 0), o->set->value_size});
		if (err) {
			*error = *bts_txn_error(txn);
			return err; /* the transaction's end drops the load */
		}
	}
	return bts_load_end(load, error);
}

static int ours_bulk(void *store, uint64_t batch)
{
	struct ours *o = store;
	uint64_t entries = o->set->entries;
	struct bts_error error = {0};
	struct bts_txn *txn;

	for (uint64_t done = 0, end; done < entries; done = end) {
		end = entries - done < batch ? entries : done + batch;
		if (bts_begin(o->db, BTS_WRITE, &txn, &error))
			return ours_fail("begin", &error);
		if (ours_bulk_some(o, txn, done, end, &error)) {
			bts_abort(txn);
			return ours_fail("bulk load", &error);
		}
		if (bts_commit(txn, &error))
			return ours_fail("commit", &error);
	}
	return 0;
}

static void *ours_reader(void *store)
{
	struct ours_reader *r = calloc(1, sizeof(*r));

	if (r)
		r->store = store;
	else
		bench_fail("no memory");
	return r;
}

static void ours_end(void *reader)
{
	struct ours_reader *r = reader;

	bts_cursor_close(r->cursor);
	bts_abort(r->txn);
	r->cursor = NULL;
	r->txn = NULL;
}

static void ours_reader_close(void *reader)
{
	ours_end(reader);
	free(reader);
}

static int ours_begin(void *reader, bool brief)
{
	struct ours_reader *r = reader;
	struct bts_error error = {0};

	(void)brief;
	if (bts_begin(r->store->db, BTS_READ, &r->txn, &error))
		return ours_fail("begin", &error);
	if (!bts_bucket(r->txn, ours_bucket, 0, &r->bucket, &error))
		return 0;
	ours_end(r);
	return ours_fail("bucket", &error);
}

static int ours_get(void *reader, const void *key, struct bench_slice *value)
{
	struct ours_reader *r = reader;
	struct bts_slice got;
	enum bts_err err = bts_get(r->txn, r->bucket, (struct bts_slice){key, r->store->set->key_size}, &got);

	if (!err) {
		*value = (struct bench_slice){got.data, got.size};
		return 1;
	}
	return err == BTS_NOT_FOUND ? 0 : ours_fail("get", bts_txn_error(r->txn));
}

static enum bts_err ours_scan_start(
	struct ours_reader *r, const void *from, bool back, struct bts_slice *key, struct bts_slice *value)
{
	const struct bts_slice at = {from, r->store->set->key_size};

	if (from)
		return bts_cursor_seek(r->cursor, at, key, value);
	return back ? bts_cursor_last(r->cursor, key, value) : bts_cursor_first(r->cursor, key, value);
}

static int ours_scan(void *reader, const void *from, bool back, uint64_t limit, uint64_t *seen, uint64_t *sum)
{
	struct ours_reader *r = reader;
	struct bts_error error = {0};
	struct bts_slice key, value;
	uint64_t count = 0, total = 0;
	enum bts_err err;

	if (!r->cursor && bts_cursor_open(r->txn, r->bucket, &r->cursor, &error))
		return ours_fail("cursor", &error);
	err = ours_scan_start(r, from, back, &key, &value);
	while (!err) {
		total += *(const uint8_t *)value.data;
		if (++count == limit)
			break;
		err = back ? bts_cursor_prev(r->cursor, &key, &value)
			   : bts_cursor_next(r->cursor, &key, &value);
	}
	*seen = count;
	*sum = total;
	return !err || err == BTS_NOT_FOUND ? 0 : ours_fail("scan", bts_txn_error(r->txn));
}

const struct bench_store store_ours = {
	.name = "btree_store",
	.version = bts_version,
	.open = ours_open,
	.close = ours_close,
	.bulk = ours_bulk,
	.writer = ours_writer,
	.writer_close = ours_writer_close,
	.write = ours_write,
	.reader = ours_reader,
	.reader_close = ours_reader_close,
	.begin = ours_begin,
	.end = ours_end,
	.get = ours_get,
	.scan = ours_scan,
};
