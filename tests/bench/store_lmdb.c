/*
 * LMDB under the benchmarks: default flags, that is a read-only map and synchronous commits; the
 * environment's unnamed database, which spares the look-up of a named one.  A reader keeps its transaction
 * and renews it, and its cursor likewise: the cheapest way LMDB offers.  The bulk load is MDB_APPEND.
 */
#include "bench_store.h"
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>

#define LMDB_MAP ((size_t)1 << 38)

struct lmdb {
	MDB_env *env;
	MDB_dbi dbi;
	const struct bench_set *set;
};

struct lmdb_reader {
	struct lmdb *store;
	MDB_txn *txn;
	MDB_cursor *cursor;
	bool cursor_stale;
};

static int lmdb_fail(const char *what, int err)
{
	return bench_fail("LMDB: %s: %s", what, mdb_strerror(err));
}

static const char *lmdb_version(void)
{
	static char text[32];
	int major, minor, patch;

	mdb_version(&major, &minor, &patch);
	snprintf(text, sizeof(text), "%d.%d.%d", major, minor, patch);
	return text;
}

static void lmdb_close(void *store)
{
	struct lmdb *l = store;

	if (l->env)
		mdb_env_close(l->env);
	free(l);
}

static int lmdb_dbi(struct lmdb *l)
{
	MDB_txn *txn;
	int err = mdb_txn_begin(l->env, NULL, 0, &txn);

	if (err)
		return err;
	err = mdb_dbi_open(txn, NULL, 0, &l->dbi);
	if (!err)
		return mdb_txn_commit(txn);
	mdb_txn_abort(txn);
	return err;
}

static void *lmdb_open(const char *dir, const struct bench_set *set)
{
	struct lmdb *l = calloc(1, sizeof(*l));
	int err;

	if (!l)
		return NULL;
	l->set = set;
	err = mdb_env_create(&l->env);
	if (!err)
		err = mdb_env_set_mapsize(l->env, LMDB_MAP);
	if (!err)
		err = mdb_env_open(l->env, dir, 0, 0644);
	if (!err)
		err = lmdb_dbi(l);
	if (!err)
		return l;
	lmdb_fail("open", err);
	lmdb_close(l);
	return NULL;
}

static void *lmdb_writer(void *store)
{
	return store;
}

static void lmdb_writer_close(void *writer)
{
	(void)writer;
}

static int lmdb_write(void *writer, const struct bench_op *ops, size_t count)
{
	struct lmdb *l = writer;
	MDB_txn *txn;
	int err = mdb_txn_begin(l->env, NULL, 0, &txn);

	if (err)
		return lmdb_fail("begin", err);
	for (size_t i = 0; i < count && !err; i++) {
		MDB_val key = {l->set->key_size, (void *)(uintptr_t)ops[i].key};
		MDB_val value = {l->set->value_size, (void *)(uintptr_t)ops[i].value};

		err = ops[i].value ? mdb_put(txn, l->dbi, &key, &value, 0) : mdb_del(txn, l->dbi, &key, NULL);
	}
	if (err) {
		mdb_txn_abort(txn);
		return lmdb_fail("write", err);
	}
	err = mdb_txn_commit(txn);
	return err ? lmdb_fail("commit", err) : 0;
}

static int lmdb_bulk_some(struct lmdb *l, MDB_txn *txn, uint64_t from, uint64_t to)
{
	uint8_t room[BENCH_KEY_MAX];
	int err = 0;

	for (uint64_t i = from; i < to && !err; i++) {
		MDB_val key = {l->set->key_size, room};
		MDB_val value = {l->set->value_size, (void *)(uintptr_t)bench_value(l->set, i, 0)};

		bench_key(l->set, i, false, room);
		err = mdb_put(txn, l->dbi, &key, &value, MDB_APPEND);
	}
	return err;
}

static int lmdb_bulk(void *store, uint64_t batch)
{
	struct lmdb *l = store;
	uint64_t entries = l->set->entries;
	MDB_txn *txn;
	int err = 0;

	for (uint64_t done = 0, end; done < entries && !err; done = end) {
		end = entries - done < batch ? entries : done + batch;
		err = mdb_txn_begin(l->env, NULL, 0, &txn);
		if (err)
			break;
		err = lmdb_bulk_some(l, txn, done, end);
		if (err)
			mdb_txn_abort(txn);
		else
			err = mdb_txn_commit(txn);
	}
	return err ? lmdb_fail("bulk load", err) : 0;
}

static void *lmdb_reader(void *store)
{
	struct lmdb_reader *r = calloc(1, sizeof(*r));

	if (r)
		r->store = store;
	else
		bench_fail("no memory");
	return r;
}

static void lmdb_end(void *reader)
{
	struct lmdb_reader *r = reader;

	mdb_txn_reset(r->txn);
	r->cursor_stale = true;
}

static void lmdb_reader_close(void *reader)
{
	struct lmdb_reader *r = reader;

	if (r->cursor)
		mdb_cursor_close(r->cursor);
	if (r->txn)
		mdb_txn_abort(r->txn);
	free(r);
}

static int lmdb_begin(void *reader, bool brief)
{
	struct lmdb_reader *r = reader;
	int err;

	(void)brief;
	err = r->txn ? mdb_txn_renew(r->txn) : mdb_txn_begin(r->store->env, NULL, MDB_RDONLY, &r->txn);
	return err ? lmdb_fail("begin", err) : 0;
}

static int lmdb_get(void *reader, const void *key, struct bench_slice *value)
{
	struct lmdb_reader *r = reader;
	MDB_val at = {r->store->set->key_size, (void *)(uintptr_t)key}, got;
	int err = mdb_get(r->txn, r->store->dbi, &at, &got);

	if (!err) {
		*value = (struct bench_slice){got.mv_data, got.mv_size};
		return 1;
	}
	return err == MDB_NOTFOUND ? 0 : lmdb_fail("get", err);
}

static int lmdb_cursor(struct lmdb_reader *r)
{
	int err = 0;

	if (!r->cursor)
		err = mdb_cursor_open(r->txn, r->store->dbi, &r->cursor);
	else if (r->cursor_stale)
		err = mdb_cursor_renew(r->txn, r->cursor);
	r->cursor_stale = false;
	return err;
}

static int lmdb_scan(void *reader, const void *from, bool back, uint64_t limit, uint64_t *seen, uint64_t *sum)
{
	struct lmdb_reader *r = reader;
	MDB_val key = {r->store->set->key_size, (void *)(uintptr_t)from}, value;
	MDB_cursor_op first = from ? MDB_SET_RANGE : back ? MDB_LAST : MDB_FIRST;
	uint64_t count = 0, total = 0;
	int err = lmdb_cursor(r);

	if (!err)
		err = mdb_cursor_get(r->cursor, &key, &value, first);
	while (!err) {
		total += *(const uint8_t *)value.mv_data;
		if (++count == limit)
			break;
		err = mdb_cursor_get(r->cursor, &key, &value, back ? MDB_PREV : MDB_NEXT);
	}
	*seen = count;
	*sum = total;
	return !err || err == MDB_NOTFOUND ? 0 : lmdb_fail("scan", err);
}

const struct bench_store store_lmdb = {
	.name = "lmdb",
	.version = lmdb_version,
	.open = lmdb_open,
	.close = lmdb_close,
	.bulk = lmdb_bulk,
	.writer = lmdb_writer,
	.writer_close = lmdb_writer_close,
	.write = lmdb_write,
	.reader = lmdb_reader,
	.reader_close = lmdb_reader_close,
	.begin = lmdb_begin,
	.end = lmdb_end,
	.get = lmdb_get,
	.scan = lmdb_scan,
};
