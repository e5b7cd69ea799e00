/*
 * What a transaction survives.
 *
 * A put or delete that fails for memory has changed no content, but may have copied the root on its way: when the catalog was
 * then not rewritten, a later commit of the same transaction freed pages that the old root still reached.  And a commit that
 * conflicts leaves the transaction open, with its cursors: they were freed under the caller's hands.
 */
#include "bed.h"

#include "cmocka.h"

enum { SURVIVES_KEYS = 2000 };

static void survives_fill(struct bed *bed)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	char key[32];

	for (int i = 0; i < SURVIVES_KEYS; i++) {
		snprintf(key, sizeof(key), "key%06d", i);
		bed_put(txn, "a", key, "a value that is long enough to need many leaves");
	}
	bed_put(txn, "b", "first", "1");
	bed_commit(bed, txn);
}

/* The n-th allocation of one operation fails; false when there is no n-th. */
static bool survives_round(bool deletes, bool grouped, uint64_t nth)
{
	struct bts_group *group = NULL;
	struct bts_txn *txn;
	struct bts_bucket *bucket;
	struct bed bed;
	enum bts_err err;

	bed_init_memory(&bed);
	survives_fill(&bed);
	if (grouped) {
		assert_int_equal(bts_group_begin(bed.db, &group, &bed.error), BTS_OK);
		assert_int_equal(bts_group_txn(group, &txn, &bed.error), BTS_OK);
	} else {
		txn = bed_begin(&bed, BTS_WRITE);
	}
	bucket = bed_find(txn, "a");
	bed_find(txn, "b");
	env_mem_fail_memory(bed.mem, nth, 0);
	err = deletes ? bts_del(txn, bucket, bed_text("key001000")) :
			bts_put(txn, bucket, bed_text("key0010005"), bed_text("new"), 0);
	env_mem_fail_memory(bed.mem, 0, 0);
	assert_true(err == BTS_OK || err == BTS_MEMORY);
	bed_put(txn, "b", "second", "2");
	bed_commit(&bed, txn);
	if (grouped)
		assert_int_equal(bts_group_commit(group, &bed.error), BTS_OK);
	bed_check(&bed);
	bed_holds(&bed, "b", "second", "2");
	bed_holds(&bed, "a", "key001000", err == BTS_OK && deletes ? NULL :
		"a value that is long enough to need many leaves");
	bed_holds(&bed, "a", "key0010005", err == BTS_OK && !deletes ? "new" : NULL);
	bed_fini(&bed);
	return err == BTS_MEMORY;
}

static void survives_no_memory(void **unused)
{
	unsigned failures = 0;

	(void)unused;
	for (int mode = 0; mode < 4; mode++)
		for (uint64_t nth = 1; survives_round(mode & 1, mode & 2, nth); nth++)
			failures++;
	assert_true(failures >= 8);
}

static void survives_conflict_with_cursor(void **unused)
{
	struct bts_cursor *cursor;
	struct bts_slice key, value;
	struct bts_txn *loser, *winner;
	struct bed bed;

	(void)unused;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "0");
	loser = bed_begin(&bed, BTS_WRITE);
	winner = bed_begin(&bed, BTS_WRITE);
	bed_put(loser, "b", "k", "loser");
	bed_put(winner, "b", "k", "winner");
	bed_commit(&bed, winner);
	assert_int_equal(bts_cursor_open(loser, bed_find(loser, "b"), &cursor, &bed.error), BTS_OK);
	assert_int_equal(bts_cursor_first(cursor, &key, &value), BTS_OK);
	assert_int_equal(bts_commit(loser, &bed.error), BTS_CONFLICT);
	assert_int_equal(bts_cursor_first(cursor, &key, &value), BTS_OK);
	assert_memory_equal(value.data, "loser", 5);
	bts_cursor_close(cursor);
	assert_int_equal(bts_refresh(loser, &bed.error), BTS_OK);
	bed_expect(loser, "b", "k", "winner");
	bts_abort(loser);
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(survives_no_memory),
		cmocka_unit_test(survives_conflict_with_cursor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
