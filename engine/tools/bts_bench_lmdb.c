/* LMDB under bts bench, as it comes: one file, synchronous commits, its read-only map. */
#include "bts_bench.h"
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lmdb {
	MDB_env *env;
	MDB_dbi dbi;
};

static int lmdb_fail(char text[256], const char *what, int err)
{
	snprintf(text, 256, "LMDB: %s: %s", what, mdb_strerror(err));
	return -1;
}

static int lmdb_bucket(struct lmdb *l)
{
	MDB_txn *txn;
	int err = mdb_txn_begin(l->env, NULL, 0, &txn);

	if (err)
		return err;
	err = mdb_dbi_open(txn, "bench", MDB_CREATE, &l->dbi);
	if (!err)
		return mdb_txn_commit(txn);
	mdb_txn_abort(txn);
	return err;
}

static void lmdb_close(void *store)
{
	struct lmdb *l = store;

	if (l->env)
		mdb_env_close(l->env);
	free(l);
}

static void *lmdb_open(const char *path, const struct bts_bench_set *set, char text[256])
{
	struct lmdb *l = calloc(1, sizeof(*l));
	size_t bytes = (size_t)1 << 30;
	int err;

	if (!l)
		return NULL;
	bytes += set->count * (set->key_size + set->value_size + 64) * 8;
	bytes -= bytes % 65536;
	err = mdb_env_create(&l->env);
	if (!err)
		err = mdb_env_set_mapsize(l->env, bytes);
	if (!err)
		err = mdb_env_set_maxdbs(l->env, 4);
	if (!err)
		err = mdb_env_open(l->env, path, MDB_NOSUBDIR, 0644);
	if (!err)
		err = lmdb_bucket(l);
	if (!err)
		return l;
	lmdb_fail(text, "open", err);
	lmdb_close(l);
	return NULL;
}

/* order NULL: as it stands, appended. */
static int lmdb_load(void *store, const struct bts_bench_set *set, const uint32_t *order, uint64_t count,
	uint64_t batch, char text[256])
{
	struct lmdb *l = store;
	MDB_txn *txn;
	uint64_t done = 0;
	int err;

	while (done < count) {
		uint64_t end = count - done < batch ? count : done + batch;

		err = mdb_txn_begin(l->env, NULL, 0, &txn);
		if (err)
			return lmdb_fail(text, "begin", err);
		for (; done < end; done++) {
			uint32_t at = order ? order[done] : (uint32_t)done;
			MDB_val key = {set->key_size, (void *)(uintptr_t)bts_bench_key(set, at)};
			MDB_val value = {set->value_size, set->value};

			err = mdb_put(txn, l->dbi, &key, &value, order ? 0 : MDB_APPEND);
			if (err) {
				mdb_txn_abort(txn);
				return lmdb_fail(text, "put", err);
			}
		}
		err = mdb_txn_commit(txn);
		if (err)
			return lmdb_fail(text, "commit", err);
	}
	return 0;
}

static int lmdb_load_bulk(void *store, const struct bts_bench_set *set, uint64_t batch, char text[256])
{
	return lmdb_load(store, set, NULL, set->count, batch, text);
}

/* With each, the transaction is kept and renewed: the cheapest way LMDB offers. */
static int lmdb_get(void *store, const struct bts_bench_set *set, const uint32_t *order, uint64_t count,
	int each, uint64_t *sum, char text[256])
{
	struct lmdb *l = store;
	MDB_txn *txn;
	uint64_t total = 0;
	int err = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn);

	if (err)
		return lmdb_fail(text, "begin", err);
	for (uint64_t i = 0; i < count && !err; i++) {
		MDB_val key = {set->key_size, (void *)(uintptr_t)bts_bench_key(set, order[i])}, value;

		if (each && i) {
			mdb_txn_reset(txn);
			err = mdb_txn_renew(txn);
			if (err)
				break;
		}
		err = mdb_get(txn, l->dbi, &key, &value);
		if (!err && value.mv_size)
			total += *(const uint8_t *)value.mv_data;
	}
	mdb_txn_abort(txn);
	*sum = total;
	return err ? lmdb_fail(text, "get", err) : 0;
}

static int lmdb_scan(void *store, uint64_t *count, uint64_t *sum, char text[256])
{
	struct lmdb *l = store;
	MDB_cursor *cursor;
	MDB_val key, value;
	MDB_txn *txn;
	uint64_t seen = 0, total = 0;
	int err = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn);

	if (err)
		return lmdb_fail(text, "begin", err);
	err = mdb_cursor_open(txn, l->dbi, &cursor);
	if (!err) {
		while ((err = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
			seen++;
			total += value.mv_size ? *(const uint8_t *)value.mv_data : 0;
		}
		mdb_cursor_close(cursor);
	}
	mdb_txn_abort(txn);
	*count = seen;
	*sum = total;
	return err == MDB_NOTFOUND ? 0 : lmdb_fail(text, "scan", err);
}

const struct bts_bench_store bts_bench_lmdb = {
	.name = "LMDB",
	.open = lmdb_open,
	.close = lmdb_close,
	.load = lmdb_load,
	.load_bulk = lmdb_load_bulk,
	.get = lmdb_get,
	.scan = lmdb_scan,
};

static MDB_val lmdb_number_key(char room[16], uint32_t key)
{
	return (MDB_val){(size_t)snprintf(room, 16, "key %08u", key), room};
}

static int lmdb_number_put(struct lmdb *l, MDB_txn *txn, uint32_t key, uint64_t number, size_t value_size, int add)
{
	uint8_t padded[BTS_BENCH_VALUE_MAX] = {0};
	uint64_t old = 0;
	char room[16];
	MDB_val name = lmdb_number_key(room, key), value;
	int err = add ? mdb_get(txn, l->dbi, &name, &value) : 0;

	if (err)
		return err;
	if (add)
		memcpy(&old, value.mv_data, sizeof(old));
	number += old;
	memcpy(padded, &number, sizeof(number));
	value = (MDB_val){value_size, padded};
	return mdb_put(txn, l->dbi, &name, &value, 0);
}

static void *lmdb_writer_open(const char *path, char text[256])
{
	const struct bts_bench_set set = {.count = 0};

	return lmdb_open(path, &set, text);
}

/* Keys [first, end) in one transaction. */
static int lmdb_writer_numbers(struct lmdb *l, uint32_t first, uint32_t end, uint64_t number, size_t value_size, int add,
	char text[256])
{
	MDB_txn *txn;
	int err = mdb_txn_begin(l->env, NULL, 0, &txn);

	if (err)
		return lmdb_fail(text, "begin", err);
	for (uint32_t key = first; key < end && !err; key++)
		err = lmdb_number_put(l, txn, key, number, value_size, add);
	if (err) {
		mdb_txn_abort(txn);
		return lmdb_fail(text, "put", err);
	}
	err = mdb_txn_commit(txn);
	return err ? lmdb_fail(text, "commit", err) : 0;
}

static int lmdb_writer_put(void *store, uint32_t key, uint64_t number, size_t value_size, int add,
	uint64_t *conflicts, char text[256])
{
	(void)conflicts; /* there are none: it locks */
	return lmdb_writer_numbers(store, key, key + 1, number, value_size, add, text);
}

static int lmdb_writer_fill(void *store, uint32_t count, size_t value_size, char text[256])
{
	return lmdb_writer_numbers(store, 0, count, 0, value_size, 0, text);
}

static int lmdb_writer_get(void *store, uint32_t key, uint64_t *number, char text[256])
{
	struct lmdb *l = store;
	char room[16];
	MDB_val name = lmdb_number_key(room, key), value;
	MDB_txn *txn;
	int err = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn);

	if (err)
		return lmdb_fail(text, "begin", err);
	err = mdb_get(txn, l->dbi, &name, &value);
	if (!err)
		memcpy(number, value.mv_data, sizeof(*number));
	mdb_txn_abort(txn);
	return err ? lmdb_fail(text, "get", err) : 0;
}

const struct bts_bench_writer bts_bench_writer_lmdb = {
	.name = "LMDB",
	.open = lmdb_writer_open,
	.close = lmdb_close,
	.put = lmdb_writer_put,
	.fill = lmdb_writer_fill,
	.get = lmdb_writer_get,
};
