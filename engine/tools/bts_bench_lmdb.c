/* LMDB under bts bench, as it comes: one file, synchronous commits, its read-only map. */
#include "bts_bench.h"
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>

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
			MDB_val key = {set->key_size, (void *)(uintptr_t)bts_bench_key(set, order[done])};
			MDB_val value = {set->value_size, set->value};

			err = mdb_put(txn, l->dbi, &key, &value, 0);
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
	.get = lmdb_get,
	.scan = lmdb_scan,
};
