/*
 * Readers of a follower while frames are applied: each snapshot is one commit of the primary, whole, and
 * stays what it was for as long as it is held.
 */
#include "cmocka.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "replica.h"

#define KEYS 300    /* all rewritten by every commit, so that all of a snapshot have one version */
#define COMMITS 150 /* small enough for many frames, large enough to reuse pages many times */
#define READERS 3

static struct follow *follow;
static atomic_bool done;
static atomic_uint snapshots;

/* All values of the snapshot, folded; fails when they are not of one commit. */
static uint64_t read_all(struct bts_txn *txn, bts_txid *version)
{
	struct bts_slice key, value;
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	uint64_t sum = 0;
	unsigned count = 0;
	enum bts_err err;

	assert_int_equal(bts_bucket(txn, (struct bts_slice){"b", 1}, 0, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
	for (err = bts_cursor_first(cursor, &key, &value); !err;
		err = bts_cursor_next(cursor, &key, &value)) {
		if (count++ == 0)
			*version = bts_cursor_version(cursor);
		assert_true(bts_cursor_version(cursor) == *version);
		sum = sum * 31 + bts_crc32c(0, value.data, value.size);
	}
	assert_int_equal(err, BTS_NOT_FOUND);
	assert_int_equal(count, KEYS);
	bts_cursor_close(cursor);
	return sum;
}

static void *reader(void *arg)
{
	unsigned hold = (unsigned)(uintptr_t)arg, i;
	bts_txid version, again, last = 0;
	struct bts_txn *txn;
	uint64_t sum;

	while (!atomic_load(&done)) {
		assert_int_equal(bts_begin(follow_db(follow), BTS_READ, &txn, NULL), BTS_OK);
		sum = read_all(txn, &version);
		assert_true(version == bts_txn_id(txn));
		assert_true(version >= last);
		last = version;
		for (i = 0; i < hold; i++) {
			assert_true(read_all(txn, &again) == sum);
			assert_true(again == version);
		}
		bts_abort(txn);
		atomic_fetch_add(&snapshots, 1);
	}
	return NULL;
}

static void whole_snapshots(void **state)
{
	char dir[128], primary[160], copy[160], url[64];
	struct follow_status status;
	pthread_t threads[READERS];
	struct serve *serve;
	struct bts *db;
	unsigned i;

	(void)state;
	replica_enter(dir, sizeof(dir));
	replica_path(primary, sizeof(primary), dir, "primary");
	replica_path(copy, sizeof(copy), dir, "copy");
	db = replica_open(primary, 0);
	replica_put(db, 0, KEYS, 0, 100);
	serve = replica_serve(db, url, sizeof(url));
	follow = replica_follow(copy, url, "n1");
	replica_await(follow, replica_txid(db));
	for (i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reader, (void *)(uintptr_t)(i * 20)), 0);
	for (i = 1; i <= COMMITS; i++) {
		replica_put(db, 0, KEYS, i, 100 + i % 7 * 300);
		if (i % 10 == 0)
			replica_await(follow, replica_txid(db) - 5);
	}
	replica_await(follow, replica_txid(db));
	atomic_store(&done, true);
	for (i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	follow_status(follow, &status);
	print_message("%u snapshots read while %llu frames were applied\n", atomic_load(&snapshots),
		(unsigned long long)status.frames);
	assert_true(atomic_load(&snapshots) > READERS);
	assert_true(status.frames > COMMITS / 10);
	replica_assert_same(db, follow_db(follow));
	follow_stop(follow);
	serve_stop(serve);
	bts_close(db);
	replica_leave(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_snapshots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
