/*
 * SQLite under the benchmarks: a table WITHOUT ROWID of BLOBs (its manual advises that for rows of up to 200
 * bytes), WAL, synchronous FULL, prepared statements, a connection for each reader and writer.  Pages are
 * read through a map of the file where SQLite allows one (2 GiB), the rest through a cache of 256 MiB.
 * Writers of one process queue at a mutex, as SQLite's own waiting for its lock sleeps.  The log is written
 * back to the file every 10,000 pages, not 1000: that halves what changes in large batches take.
 */
#include "bench_store.h"
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT_SETUP                                                                                           \
	"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA mmap_size=1099511627776; "                 \
	"PRAGMA cache_size=-262144; PRAGMA wal_autocheckpoint=10000; PRAGMA busy_timeout=60000;"
#define TEXT_TABLE "CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;"

struct sqlite {
	sqlite3 *db; /* keeps the file open; writes the log back */
	const struct bench_set *set;
	pthread_mutex_t lock; /* held while a transaction writes */
	char path[4200];
};

enum sqlite_statement {
	TEXT_BEGIN,
	TEXT_BEGIN_WRITE,
	TEXT_COMMIT,
	TEXT_PUT,
	TEXT_DEL,
	TEXT_GET,
	TEXT_SCAN,
	TEXT_SCAN_BACK,
	TEXT_SCAN_FROM,
	TEXT_SCAN_FROM_BACK,
	TEXT_STATEMENTS
};

static const char *const sqlite_texts[TEXT_STATEMENTS] = {
	[TEXT_BEGIN] = "BEGIN",
	[TEXT_BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[TEXT_COMMIT] = "COMMIT",
	[TEXT_PUT] = "REPLACE INTO kv (k, v) VALUES (?1, ?2)",
	[TEXT_DEL] = "DELETE FROM kv WHERE k = ?1",
	[TEXT_GET] = "SELECT v FROM kv WHERE k = ?1",
	[TEXT_SCAN] = "SELECT k, v FROM kv ORDER BY k LIMIT ?2",
	[TEXT_SCAN_BACK] = "SELECT k, v FROM kv ORDER BY k DESC LIMIT ?2",
	[TEXT_SCAN_FROM] = "SELECT k, v FROM kv WHERE k >= ?1 ORDER BY k LIMIT ?2",
	[TEXT_SCAN_FROM_BACK] = "SELECT k, v FROM kv WHERE k <= ?1 ORDER BY k DESC LIMIT ?2",
};

/* A reader or a writer. */
struct sqlite_user {
	struct sqlite *store;
	sqlite3 *db;
	sqlite3_stmt *statements[TEXT_STATEMENTS];
	bool brief;
};

static int sqlite_fail(const char *what, sqlite3 *db)
{
	return bench_fail("SQLite: %s: %s", what, db ? sqlite3_errmsg(db) : "no memory");
}

static int sqlite_connect(const char *path, sqlite3 **db)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;

	if (sqlite3_open_v2(path, db, flags, NULL) || sqlite3_exec(*db, TEXT_SETUP, NULL, NULL, NULL)) {
		sqlite_fail("open", *db);
		sqlite3_close(*db);
		*db = NULL;
		return -1;
	}
	return 0;
}

static void sqlite_close(void *store)
{
	struct sqlite *s = store;

	sqlite3_close(s->db);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static void *sqlite_open(const char *dir, const struct bench_set *set)
{
	struct sqlite *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->set = set;
	pthread_mutex_init(&s->lock, NULL);
	snprintf(s->path, sizeof(s->path), "%s/data.sqlite", dir);
	if (!sqlite_connect(s->path, &s->db)) {
		if (!sqlite3_exec(s->db, TEXT_TABLE, NULL, NULL, NULL))
			return s;
		sqlite_fail("open", s->db);
	}
	sqlite_close(s);
	return NULL;
}

static int sqlite_settle(void *store)
{
	struct sqlite *s = store;

	if (sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL))
		return sqlite_fail("checkpoint", s->db);
	return 0;
}

static void sqlite_user_close(void *user)
{
	struct sqlite_user *u = user;

	for (int i = 0; i < TEXT_STATEMENTS; i++)
		sqlite3_finalize(u->statements[i]);
	sqlite3_close(u->db);
	free(u);
}

static void *sqlite_user(void *store)
{
	struct sqlite_user *u = calloc(1, sizeof(*u));

	if (!u) {
		bench_fail("no memory");
		return NULL;
	}
	u->store = store;
	if (sqlite_connect(u->store->path, &u->db))
		goto fail;
	for (int i = 0; i < TEXT_STATEMENTS; i++) {
		if (sqlite3_prepare_v3(
			    u->db, sqlite_texts[i], -1, SQLITE_PREPARE_PERSISTENT, &u->statements[i], NULL)) {
			sqlite_fail("prepare", u->db);
			goto fail;
		}
	}
	return u;
fail:
	sqlite_user_close(u);
	return NULL;
}

/* A statement that gives no rows. */
static int sqlite_run(struct sqlite_user *u, enum sqlite_statement which)
{
	sqlite3_stmt *statement = u->statements[which];
	int err = sqlite3_step(statement);

	if (err == SQLITE_DONE) {
		sqlite3_reset(statement);
		return 0;
	}
	sqlite_fail(sqlite_texts[which], u->db);
	sqlite3_reset(statement);
	return -1;
}

static int sqlite_op(struct sqlite_user *u, const struct bench_op *op)
{
	enum sqlite_statement which = op->value ? TEXT_PUT : TEXT_DEL;
	const struct bench_set *set = u->store->set;

	sqlite3_bind_blob(u->statements[which], 1, op->key, (int)set->key_size, SQLITE_STATIC);
	if (op->value)
		sqlite3_bind_blob(u->statements[which], 2, op->value, (int)set->value_size, SQLITE_STATIC);
	return sqlite_run(u, which);
}

/* One change needs no BEGIN: a statement is a transaction. */
static int sqlite_write(void *writer, const struct bench_op *ops, size_t count)
{
	struct sqlite_user *u = writer;
	int err = 0;

	pthread_mutex_lock(&u->store->lock);
	if (count > 1)
		err = sqlite_run(u, TEXT_BEGIN_WRITE);
	for (size_t i = 0; i < count && !err; i++)
		err = sqlite_op(u, &ops[i]);
	if (!err && count > 1)
		err = sqlite_run(u, TEXT_COMMIT);
	pthread_mutex_unlock(&u->store->lock);
	return err;
}

static int sqlite_begin(void *reader, bool brief)
{
	struct sqlite_user *u = reader;

	u->brief = brief;
	return brief ? 0 : sqlite_run(u, TEXT_BEGIN);
}

static void sqlite_end(void *reader)
{
	struct sqlite_user *u = reader;

	sqlite3_reset(u->statements[TEXT_GET]);
	if (!u->brief && sqlite_run(u, TEXT_COMMIT))
		abort(); /* of a reader */
}

static int sqlite_get(void *reader, const void *key, struct bench_slice *value)
{
	struct sqlite_user *u = reader;
	sqlite3_stmt *get = u->statements[TEXT_GET];
	int err;

	sqlite3_reset(get);
	sqlite3_bind_blob(get, 1, key, (int)u->store->set->key_size, SQLITE_STATIC);
	err = sqlite3_step(get);
	if (err == SQLITE_ROW) {
		value->data = sqlite3_column_blob(get, 0);
		value->size = (size_t)sqlite3_column_bytes(get, 0);
		return 1;
	}
	return err == SQLITE_DONE ? 0 : sqlite_fail("get", u->db);
}

static int sqlite_scan(
	void *reader, const void *from, bool back, uint64_t limit, uint64_t *seen, uint64_t *sum)
{
	struct sqlite_user *u = reader;
	enum sqlite_statement which = from   ? back ? TEXT_SCAN_FROM_BACK : TEXT_SCAN_FROM
				      : back ? TEXT_SCAN_BACK
					     : TEXT_SCAN;
	sqlite3_stmt *scan = u->statements[which];
	uint64_t count = 0, total = 0;
	int err;

	if (from)
		sqlite3_bind_blob(scan, 1, from, (int)u->store->set->key_size, SQLITE_STATIC);
	sqlite3_bind_int64(scan, 2, limit > INT64_MAX ? INT64_MAX : (int64_t)limit);
	while ((err = sqlite3_step(scan)) == SQLITE_ROW) {
		total += *(const uint8_t *)sqlite3_column_blob(scan, 1);
		count++;
	}
	*seen = count;
	*sum = total;
	if (err != SQLITE_DONE)
		sqlite_fail("scan", u->db);
	sqlite3_reset(scan);
	return err == SQLITE_DONE ? 0 : -1;
}

const struct bench_store store_sqlite = {
	.name = "sqlite",
	.version = sqlite3_libversion,
	.open = sqlite_open,
	.close = sqlite_close,
	.settle = sqlite_settle,
	.writer = sqlite_user,
	.writer_close = sqlite_user_close,
	.write = sqlite_write,
	.reader = sqlite_user,
	.reader_close = sqlite_user_close,
	.begin = sqlite_begin,
	.end = sqlite_end,
	.get = sqlite_get,
	.scan = sqlite_scan,
};
