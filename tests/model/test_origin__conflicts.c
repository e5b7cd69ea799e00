/* What the original promised of transactions that meet: the second committer of a clash gets a conflict, no
 * other does. */
#include "bed.h"

static enum bts_err try_commit(struct bed *bed, struct bts_txn *txn)
{
	enum bts_err err = bts_commit(txn, &bed->error);

	if (err)
		bts_abort(txn);
	return err;
}

static void del(struct bts_txn *txn, const char *bucket, const char *key)
{
	assert_int_equal(bts_del(txn, bed_bucket(txn, bucket), bed_text(key)), BTS_OK);
}

static void unset(struct bed *bed, const char *bucket, const char *key)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);

	del(txn, bucket, key);
	bed_commit(bed, txn);
}

static void different_keys_of_one_leaf(void **state)
{
	struct bts_txn *one, *two;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "0");
	one = bed_begin(&bed, BTS_WRITE);
	two = bed_begin(&bed, BTS_WRITE);
	bed_put(one, "b", "one", "1");
	bed_put(two, "b", "two", "2");
	bed_put(two, "new", "two", "2");
	bed_commit(&bed, one);
	bed_commit(&bed, two);
	bed_holds(&bed, "b", "one", "1");
	bed_holds(&bed, "b", "two", "2");
	bed_holds(&bed, "new", "two", "2");
	assert_int_equal(bed_stat(&bed).conflicts, 0);
	bed_fini(&bed);
}

static void same_key(void **state)
{
	struct bts_txn *one, *two;
	bts_txid winner;
	char number[32];
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "bucket name", "the key", "0");
	one = bed_begin(&bed, BTS_WRITE);
	two = bed_begin(&bed, BTS_WRITE);
	bed_put(one, "bucket name", "the key", "1");
	bed_put(two, "bucket name", "the key", "2");
	bed_put(two, "bucket name", "its own", "2");
	assert_int_equal(bts_commit_id(one, &winner, NULL), BTS_OK);
	assert_int_equal(bts_commit(two, &bed.error), BTS_CONFLICT);
	snprintf(number, sizeof(number), "%llu", (unsigned long long)winner);
	assert_non_null(strstr(bed.error.text, "bucket"));
	assert_non_null(strstr(bed.error.text, "the\\x20key"));
	assert_non_null(strstr(bed.error.text, number));
	assert_int_equal(bed_stat(&bed).conflicts, 1);
	assert_int_equal(bts_refresh(two, NULL), BTS_OK);
	assert_int_equal(bts_txn_id(two), winner);
	bed_expect(two, "bucket name", "the key", "1");
	bed_expect(two, "bucket name", "its own", NULL);
	bed_put(two, "bucket name", "its own", "2");
	bed_commit(&bed, two);
	bed_holds(&bed, "bucket name", "the key", "1");
	bed_holds(&bed, "bucket name", "its own", "2");
	bed_fini(&bed);
}

/* Values are the same again, versions are not. */
static void there_and_back(void **state)
{
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "A");
	txn = bed_begin(&bed, BTS_WRITE);
	bed_put(txn, "b", "k", "mine");
	bed_set(&bed, "b", "k", "B");
	bed_set(&bed, "b", "k", "A");
	assert_int_equal(try_commit(&bed, txn), BTS_CONFLICT);
	bed_holds(&bed, "b", "k", "A");
	bed_fini(&bed);
}

/* Absent, inserted, deleted; also where that leaves the bucket empty, and where the leaf is merged away. */
static void absent_and_absent_again(void **state)
{
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	for (int round = 0; round < 3; round++) {
		txn = bed_begin(&bed, BTS_WRITE);
		bed_bucket(txn, "b");
		for (int i = 0; round == 2 && i < 300; i++) {
			char key[16];

			snprintf(key, sizeof(key), "key %d", i);
			bed_put(txn, "b", key, "a value that takes some room in its leaf");
		}
		if (round == 1)
			bed_put(txn, "b", "other", "0");
		bed_commit(&bed, txn);
		txn = bed_begin(&bed, BTS_WRITE);
		bed_put(txn, "b", "k", "mine");
		bed_set(&bed, "b", "k", "A");
		unset(&bed, "b", "k");
		for (int i = 0; round == 2 && i < 290; i++) {
			char key[16];

			snprintf(key, sizeof(key), "key %d", i);
			unset(&bed, "b", key);
		}
		assert_int_equal(try_commit(&bed, txn), BTS_CONFLICT);
		bed_holds(&bed, "b", "k", NULL);
	}
	bed_fini(&bed);
}

static void deleted_below(void **state)
{
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "A");
	txn = bed_begin(&bed, BTS_WRITE);
	del(txn, "b", "k");
	bed_set(&bed, "b", "k", "B");
	assert_int_equal(try_commit(&bed, txn), BTS_CONFLICT);
	txn = bed_begin(&bed, BTS_WRITE);
	bed_put(txn, "b", "k", "C");
	unset(&bed, "b", "k");
	assert_int_equal(try_commit(&bed, txn), BTS_CONFLICT);
	bed_holds(&bed, "b", "k", NULL);
	bed_fini(&bed);
}

static void buckets_that_meet(void **state)
{
	struct bts_txn *one, *two;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "0");
	one = bed_begin(&bed, BTS_WRITE); /* both create it */
	two = bed_begin(&bed, BTS_WRITE);
	bed_put(one, "new", "k", "1");
	bed_put(two, "new", "l", "2");
	bed_commit(&bed, one);
	assert_int_equal(try_commit(&bed, two), BTS_CONFLICT);
	one = bed_begin(&bed, BTS_WRITE); /* dropped under a put */
	bed_put(one, "b", "k", "1");
	two = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_bucket_drop(two, bed_text("b"), NULL), BTS_OK);
	bed_commit(&bed, two);
	assert_int_equal(try_commit(&bed, one), BTS_CONFLICT);
	one = bed_begin(&bed, BTS_WRITE); /* a put under the drop */
	assert_int_equal(bts_bucket_drop(one, bed_text("new"), NULL), BTS_OK);
	bed_set(&bed, "new", "z", "3");
	assert_int_equal(try_commit(&bed, one), BTS_CONFLICT);
	bed_holds(&bed, "new", "z", "3");
	one = bed_begin(&bed, BTS_WRITE); /* dropped and made again: not the tree it was */
	bed_put(one, "new", "y", "4");
	two = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_bucket_drop(two, bed_text("new"), NULL), BTS_OK);
	bed_put(two, "new", "x", "5");
	bed_commit(&bed, two);
	assert_int_equal(try_commit(&bed, one), BTS_CONFLICT);
	bed_holds(&bed, "new", "y", NULL);
	bed_holds(&bed, "new", "x", "5");
	bed_fini(&bed);
}

static void whole_database(void **state)
{
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "0");
	txn = bed_begin(&bed, BTS_WRITE | BTS_CONFLICT_DATABASE);
	bed_put(txn, "b", "mine", "1");
	bed_set(&bed, "elsewhere", "k", "0");
	assert_int_equal(bts_commit(txn, &bed.error), BTS_CONFLICT);
	assert_int_equal(bts_refresh(txn, NULL), BTS_OK);
	bed_put(txn, "b", "mine", "1");
	bed_commit(&bed, txn);
	bed_holds(&bed, "b", "mine", "1");
	bed_fini(&bed);
}

static enum bts_err twice(struct bts_txn *txn, void *arg)
{
	int *calls = arg;

	bed_put(txn, "b", "k", "mine");
	return ++*calls < 2 ? BTS_OK : BTS_EXISTS;
}

/* A callback's own error comes back as it is, and nothing of it happened. */
static void callbacks(void **state)
{
	struct bed bed;
	int calls = 0;

	(void)state;
	bed_init_memory(&bed);
	assert_int_equal(bts_update(bed.db, twice, &calls, &bed.error), BTS_OK);
	bed_set(&bed, "b", "k", "theirs");
	assert_int_equal(bts_update(bed.db, twice, &calls, &bed.error), BTS_EXISTS);
	assert_int_equal(bed.error.code, BTS_EXISTS);
	bed_holds(&bed, "b", "k", "theirs");
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(different_keys_of_one_leaf),
		cmocka_unit_test(same_key),
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(absent_and_absent_again),
		cmocka_unit_test(deleted_below),
		cmocka_unit_test(buckets_that_meet),
		cmocka_unit_test(whole_database),
		cmocka_unit_test(callbacks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
