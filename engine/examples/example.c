/*
 * What a program does with a btree_store, one step after the other.
 *
 *	cc example.c $(pkg-config --cflags --libs btree_store) -o example && ./example numbers.bts
 */
#include <btree_store.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct bts_slice bucket_name = {"counters", 8};

static void die(const char *what, const struct bts_error *error)
{
	fprintf(stderr, "%s: %s (%s)\n", what, error->text, bts_err_name(error->code));
	exit(1);
}

static struct bts_slice text(const char *chars)
{
	struct bts_slice slice = {chars, strlen(chars)};

	return slice;
}

/*
 * The value of a counter, 0 when there is none.  What bts_get hands out lies in the file's own pages: it is not terminated, and
 * lives as long as the transaction (in a write transaction, until its next write).
 */
static enum bts_err counter_get(
	struct bts_txn *txn, struct bts_bucket *bucket, const char *name, uint64_t *count)
{
	struct bts_slice value;
	enum bts_err err = bts_get(txn, bucket, text(name), &value);

	*count = 0;
	if (err == BTS_NOT_FOUND)
		return BTS_OK;
	if (err == BTS_OK && value.size == sizeof(*count))
		memcpy(count, value.data, sizeof(*count));
	return err;
}

static enum bts_err counter_add(struct bts_txn *txn, const char *name, uint64_t by)
{
	struct bts_bucket *bucket;
	struct bts_slice value;
	uint64_t count;
	enum bts_err err = bts_bucket(txn, bucket_name, BTS_CREATE, &bucket, NULL);

	if (err)
		return err;
	err = counter_get(txn, bucket, name, &count);
	if (err)
		return err;
	count += by;
	value.data = &count;
	value.size = sizeof(count);
	return bts_put(txn, bucket, text(name), value, 0);
}

/* 1. The short way: bts_update begins, calls this, commits, and does it all again when another writer came first. */
static enum bts_err visit(struct bts_txn *txn, void *arg)
{
	return counter_add(txn, arg, 1);
}

/* 2. The same by hand.  Writers do not wait for each other: the one that commits second on a key is told so. */
static void conflict(struct bts *db)
{
	struct bts_error error;
	struct bts_txn *first, *second;
	enum bts_err err;

	if (bts_begin(db, BTS_WRITE, &first, &error) || bts_begin(db, BTS_WRITE, &second, &error))
		die("begin", &error);
	if (counter_add(first, "visits", 10))
		die("add", bts_txn_error(first));
	if (counter_add(second, "visits", 100))
		die("add", bts_txn_error(second));
	if (bts_commit(first, &error)) /* durable when it returns BTS_OK */
		die("commit", &error);
	while ((err = bts_commit(second, &error)) == BTS_CONFLICT) {
		printf("conflict: %s\n", error.text);
		/* On a conflict the transaction stays open.  Its changes are dropped and it sees the newest state. */
		if (bts_refresh(second, &error))
			die("refresh", &error);
		if (counter_add(second, "visits", 100))
			die("add", bts_txn_error(second));
	}
	if (err)
		die("commit", &error);
}

/* 3. Many transactions, one flush: each is atomic by itself, all become durable together. */
static void group(struct bts *db)
{
	static const char *const names[] = {"apples", "pears", "plums"};
	struct bts_error error;
	struct bts_group *many;
	struct bts_txn *txn;

	if (bts_group_begin(db, &many, &error))
		die("group", &error);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (bts_group_txn(many, &txn, &error))
			die("group", &error);
		if (counter_add(txn, names[i], i + 1))
			die("add", bts_txn_error(txn));
		if (bts_commit(txn, &error))
			die("commit", &error);
	}
	if (bts_group_commit(many, &error))
		die("group", &error);
}

static void list(struct bts_txn *txn)
{
	struct bts_error error;
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	struct bts_slice key, value;
	uint64_t count;
	enum bts_err err;

	if (bts_bucket(txn, bucket_name, 0, &bucket, &error) || bts_cursor_open(txn, bucket, &cursor, &error))
		die("cursor", &error);
	for (err = bts_cursor_first(cursor, &key, &value); err == BTS_OK;
		err = bts_cursor_next(cursor, &key, &value)) {
		memcpy(&count, value.data, sizeof(count));
		printf("  %.*s = %" PRIu64 "\n", (int)key.size, (const char *)key.data, count);
	}
	if (err != BTS_NOT_FOUND) /* the end */
		die("cursor", bts_txn_error(txn));
	bts_cursor_close(cursor);
}

/* 4. A read transaction is a snapshot: it keeps seeing what was there when it began, and stops nobody. */
static void snapshot(struct bts *db)
{
	char name[] = "visits";
	struct bts_error error;
	struct bts_txn *before, *after;

	if (bts_begin(db, BTS_READ, &before, &error))
		die("begin", &error);
	if (bts_update(db, visit, name, &error))
		die("update", &error);
	if (bts_begin(db, BTS_READ, &after, &error))
		die("begin", &error);
	printf("snapshot %" PRIu64 ":\n", bts_txn_id(before));
	list(before);
	printf("snapshot %" PRIu64 ":\n", bts_txn_id(after));
	list(after);
	bts_abort(before); /* ends a read transaction; what it held in the file may then be used again */
	bts_abort(after);
}

int main(int argc, char **argv)
{
	char name[] = "visits";
	struct bts_error error;
	struct bts *db;

	if (argc != 2) {
		fprintf(stderr, "usage: %s FILE\n", argv[0]);
		return 2;
	}
	if (bts_open(argv[1], NULL, &db, &error))
		die("open", &error);
	if (bts_update(db, visit, name, &error))
		die("update", &error);
	conflict(db);
	group(db);
	snapshot(db);
	bts_close(db);
	return 0;
}
