/*
 * Runs: entries that go right behind the last one put, without a way down (tree_put_behind).  What a random model seldom
 * makes: two buckets by turns, values that lie in the page that changes, savepoints and deletions between.
 */
#include "bed.h"

#define RUN_ENTRIES 3000u

static struct bts_slice run_key(unsigned number, uint8_t key[16])
{
	snprintf((char *)key, 16, "key%08u", number);
	return (struct bts_slice){key, 11};
}

static void run_put(struct bts_txn *txn, struct bts_bucket *bucket, unsigned number, struct bts_slice value)
{
	uint8_t key[16];

	assert_int_equal(bts_put(txn, bucket, run_key(number, key), value, 0), BTS_OK);
}

/* The keys from, from + step, ... and no other, each with a value of so many bytes. */
static void run_holds(
	struct bts_txn *txn, const char *name, unsigned from, unsigned step, size_t size, uint8_t filler)
{
	struct bts_bucket_stat stat = {.size = sizeof(stat)};
	struct bts_bucket *bucket = bed_find(txn, name);
	uint8_t key[16], want[300];
	struct bts_slice value;

	memset(want, filler, sizeof(want));
	for (unsigned i = from; i < RUN_ENTRIES; i += step) {
		assert_int_equal(bts_get(txn, bucket, run_key(i, key), &value), BTS_OK);
		assert_int_equal(value.size, size);
		assert_memory_equal(value.data, want, size);
	}
	assert_int_equal(bts_bucket_stat(txn, bucket, &stat), BTS_OK);
	assert_int_equal(stat.entries, (RUN_ENTRIES - from + step - 1) / step);
}

/* Of two buckets the same keys go on by turns: each has its own. */
static void test_two_buckets(void **state)
{
	struct bed *bed = *state;
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	struct bts_bucket *even = bed_bucket(txn, "even"), *odd = bed_bucket(txn, "odd");
	uint8_t value[50];

	for (unsigned i = 0; i < RUN_ENTRIES; i++) {
		memset(value, i % 2 ? 'o' : 'e', sizeof(value));
		run_put(txn, i % 2 ? odd : even, i, (struct bts_slice){value, sizeof(value)});
	}
	run_holds(txn, "even", 0, 2, sizeof(value), 'e');
	run_holds(txn, "odd", 1, 2, sizeof(value), 'o');
	bed_commit(bed, txn);
}

/* What is put lies in the page that it goes to, which has to be made compact for it. */
static void test_values_of_the_page(void **state)
{
	struct bed *bed = *state;
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	struct bts_bucket *bucket = bed_bucket(txn, "own");
	uint8_t key[16], first[120];
	struct bts_slice value;

	memset(first, 'v', sizeof(first));
	run_put(txn, bucket, 0, (struct bts_slice){first, sizeof(first)});
	for (unsigned i = 1; i < RUN_ENTRIES; i++) {
		assert_int_equal(bts_get(txn, bucket, run_key(i - 1, key), &value), BTS_OK);
		run_put(txn, bucket, i, value);
		if (i % 5 != 4)
			continue;
		run_put(txn, bucket, i - 2, (struct bts_slice){first, 1}); /* leaves dead bytes */
		run_put(txn, bucket, i - 2, (struct bts_slice){first, sizeof(first)});
	}
	run_holds(txn, "own", 0, 1, sizeof(first), 'v');
	bed_commit(bed, txn);
}

/* Whatever comes between two entries of a run: the next one finds its place. */
static void test_changes_between(void **state)
{
	struct bed *bed = *state;
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	struct bts_bucket *bucket = bed_bucket(txn, "between");
	uint8_t key[16], after[16], bytes[60];
	struct bts_slice value = {bytes, sizeof(bytes)};
	uint32_t point;

	memset(bytes, 'b', sizeof(bytes));
	for (unsigned i = 0; i < RUN_ENTRIES; i++) {
		run_put(txn, bucket, i, value);
		if (i % 7 == 3) {
			assert_int_equal(bts_savepoint(txn, &point, NULL), BTS_OK);
			run_put(txn, bucket, i + 1, value);
			run_put(txn, bucket, i + 2, value);
			assert_int_equal(i % 2 ? bts_savepoint_rollback(txn, point, NULL)
					       : bts_savepoint_release(txn, point, NULL),
				BTS_OK);
		}
		if (i % 11 == 5) { /* the leaf's last ones are gone: the run goes on before them */
			run_put(txn, bucket, i + 1, value);
			run_put(txn, bucket, i + 2, value);
			assert_int_equal(bts_del(txn, bucket, run_key(i + 2, key)), BTS_OK);
			assert_int_equal(
				bts_del_range(txn, bucket, run_key(i + 1, key), run_key(i + 2, after), NULL),
				BTS_OK);
		}
	}
	assert_int_equal(bts_del_range(txn, bucket, run_key(RUN_ENTRIES, key), (struct bts_slice){NULL, 0}, NULL), BTS_OK);
	run_holds(txn, "between", 0, 1, sizeof(bytes), 'b');
	bed_commit(bed, txn);
}

static int run_setup(void **state)
{
	static struct bed bed;

	bed_init_memory(&bed);
	*state = &bed;
	return 0;
}

static int run_teardown(void **state)
{
	bed_fini(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_two_buckets, run_setup, run_teardown),
		cmocka_unit_test_setup_teardown(test_values_of_the_page, run_setup, run_teardown),
		cmocka_unit_test_setup_teardown(test_changes_between, run_setup, run_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
