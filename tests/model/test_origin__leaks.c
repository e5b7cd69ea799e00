/* What the original promised of space and of crashes: nothing leaks, and what was not committed is gone. */
#include "bed.h"

#include <rng.h>

static uint8_t bytes[100000];

/* Every page is in use or free: bts_check proves it; this is how many are in use. */
static uint64_t used_pages(struct bed *bed)
{
	struct bts_stat stat = bed_stat(bed);

	return stat.pages - stat.first_page - stat.free_pages;
}

static void put_sized(struct bts_txn *txn, const char *key, size_t size)
{
	assert_int_equal(
		bts_put(txn, bed_bucket(txn, "b"), bed_text(key), (struct bts_slice){bytes, size}, 0),
		BTS_OK);
}

static void cycles_keep_the_size(void **state)
{
	uint64_t file = 0, pages = 0;
	struct bts_txn *txn;
	struct bts_stat stat;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	for (unsigned round = 0; round < 60; round++) {
		for (unsigned step = 0; step < 3; step++) {
			txn = bed_begin(&bed, BTS_WRITE);
			for (unsigned i = 0; i < 40; i++) {
				char key[16];

				snprintf(key, sizeof(key), "%u", i);
				if (step == 1)
					assert_int_equal(
						bts_del(txn, bed_bucket(txn, "b"), bed_text(key)), BTS_OK);
				else
					put_sized(txn, key, i % 8 ? 500 : 9000);
			}
			bed_commit(&bed, txn);
		}
		bed_reopen(&bed);
		stat = bed_stat(&bed);
		if (round == 10) {
			file = stat.file_bytes;
			pages = stat.pages;
		}
		if (round > 10) {
			assert_true(stat.file_bytes <= file * 3 / 2);
			assert_true(
				stat.pages <= pages * 3 / 2); /* the free log grows until it is condensed */
		}
	}
	bed_fini(&bed);
}

/*
 * A value overwritten, deleted and put again many times in one transaction costs what the last of it costs.
 */
static void reused_inside_a_transaction(void **state)
{
	uint64_t before, large = sizeof(bytes) / 4096 + 2;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "v");
	before = bed_stat(&bed).pages;
	txn = bed_begin(&bed, BTS_WRITE);
	for (unsigned i = 0; i < 400; i++) {
		put_sized(txn, "large", sizeof(bytes) - i * 8);
		if (i % 3 == 0)
			assert_int_equal(bts_del(txn, bed_bucket(txn, "b"), bed_text("large")), BTS_OK);
		bed_put(txn, i % 2 ? "one" : "two", "k", "v");
		if (i % 10 == 9)
			assert_int_equal(
				bts_bucket_drop(txn, bed_text(i % 20 == 9 ? "one" : "two"), NULL), BTS_OK);
	}
	put_sized(txn, "large", sizeof(bytes));
	bed_commit(&bed, txn);
	assert_true(bed_stat(&bed).pages <= before + large + 12);
	bed_fini(&bed);
}

/* What a deletion freed is taken by the next process that fills the file. */
static void reused_after_reopening(void **state)
{
	uint64_t pages = 0;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	for (unsigned round = 0; round < 12; round++) {
		txn = bed_begin(&bed, BTS_WRITE);
		for (unsigned i = 0; i < 200; i++) {
			char key[16];

			snprintf(key, sizeof(key), "%u", i);
			put_sized(txn, key, i % 10 ? 700 : 60000);
		}
		bed_commit(&bed, txn);
		bed_reopen(&bed);
		if (round == 0)
			pages = bed_stat(&bed).pages;
		assert_true(bed_stat(&bed).pages <= pages + 24);
		txn = bed_begin(&bed, BTS_WRITE);
		assert_int_equal(bts_bucket_drop(txn, bed_text("b"), NULL), BTS_OK);
		bed_commit(&bed, txn);
		bed_reopen(&bed);
		assert_in_range(used_pages(&bed), 1, 12);
	}
	bed_fini(&bed);
}

static void single_puts_keep_the_file_flat(void **state)
{
	uint64_t pages = 0;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	for (unsigned i = 0; i < 20000; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%u", i * 7919 % 500);
		txn = bed_begin(&bed, BTS_WRITE);
		put_sized(txn, key, 100);
		bed_commit(&bed, txn);
		if (i == 2000)
			pages = bed_stat(&bed).pages;
	}
	/* The history of positions grows by 40 bytes a commit until it is thinned; nothing else does. */
	assert_true(bed_stat(&bed).pages < pages + 20000 / 60 + 20);
	bed_fini(&bed);
}

/* Everything that can go wrong with a transaction leaves the pages as they were. */
static void failed_transactions_leave_nothing(void **state)
{
	struct bts_txn *txn, *other;
	struct bts_group *group;
	uint64_t before;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	put_sized(txn, "large", sizeof(bytes));
	put_sized(txn, "small", 10);
	bed_commit(&bed, txn);
	bed_set(&bed, "b", "other", "0");
	before = used_pages(&bed);
	for (unsigned round = 0; round < 50; round++) {
		txn = bed_begin(&bed, BTS_WRITE);
		put_sized(txn, "large", sizeof(bytes) / 2); /* of a large value: invisible */
		for (unsigned i = 0; i < 300; i++) {	    /* splits the root: invisible */
			char key[16];

			snprintf(key, sizeof(key), "%u", i);
			put_sized(txn, key, 200);
		}
		if (round % 3 == 0) {
			bts_abort(txn);
		} else {
			other = bed_begin(&bed, BTS_WRITE);
			put_sized(other, "large", sizeof(bytes));
			bed_commit(&bed, other);
			assert_int_equal(bts_commit(txn, NULL), BTS_CONFLICT);
			bts_abort(txn);
		}
		assert_int_equal(bts_group_begin(bed.db, &group, NULL), BTS_OK);
		assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
		put_sized(txn, "large", 5);
		if (round % 2)
			assert_int_equal(bts_commit(txn, NULL), BTS_OK);
		bts_group_abort(group);
		assert_in_range(used_pages(&bed), before, before + 4);
	}
	bed_check(&bed);
	bed_reopen(&bed);
	assert_in_range(used_pages(&bed), before, before + 4);
	bed_fini(&bed);
}

/* A pinned snapshot costs the pages of that snapshot, not those of every commit after it. */
static void a_reader_costs_its_snapshot(void **state)
{
	struct bts_txn *reader, *txn;
	struct bts_slice value;
	uint64_t before;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	for (unsigned i = 0; i < 2000; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%u", i);
		put_sized(txn, key, 200);
	}
	bed_commit(&bed, txn);
	before = bed_stat(&bed).pages;
	reader = bed_begin(&bed, BTS_READ);
	for (unsigned i = 0; i < 5000; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%u", i * 31 % 2000);
		bed_set(&bed, "b", key, "changed");
	}
	assert_true(bed_stat(&bed).pages < before * 2 + 200);
	assert_true(bed_stat(&bed).pinned_pages > 0);
	assert_int_equal(bts_get(reader, bed_find(reader, "b"), bed_text("31"), &value), BTS_OK);
	assert_int_equal(value.size, 200);
	bts_abort(reader);
	bed_set(&bed, "b", "0", "after");
	bed_set(&bed, "b", "0", "after");
	assert_true(bed_stat(&bed).pinned_pages < 20);
	bed_fini(&bed);
}

/* The processes die, the machine goes on: what was not committed is gone. */
static void what_was_not_committed_is_gone(void **state)
{
	struct env_mem *before;
	struct bts_txn *txn;
	struct bed bed, heir;

	(void)state;
	bed_init_memory(&bed);
	heir = bed;
	bed_set(&bed, "b", "k", "committed");
	txn = bed_begin(&bed, BTS_WRITE);
	bed_put(txn, "b", "k", "uncommitted");
	bed_put(txn, "b", "n", "uncommitted");
	before = env_mem_clone(bed.mem);
	bed_commit(&bed, txn);
	bed_fini(&bed);
	heir.mem = before;
	bed_open(&heir);
	assert_int_equal(bed_stat(&heir).clean_open, 0);
	bed_holds(&heir, "b", "k", "committed");
	bed_holds(&heir, "b", "n", NULL);
	bed_fini(&heir);
}

/* Damage to the slot of the newest commit, after an unclean exit: the previous commit opens, and says so. */
static void newest_meta_damaged(void **state)
{
	for (unsigned how = 0; how < 10; how++) {
		uint8_t *image;
		const uint8_t *now, *then;
		uint64_t size, was, at;
		struct env_mem *mem;
		struct bed bed, heir;

		(void)state;
		bed_init_memory(&bed);
		heir = bed;
		bed_set(&bed, "b", "k", "1");
		bed_set(&bed, "b", "k", "2");
		mem = env_mem_clone(bed.mem);
		bed_set(&bed, "b", "k", "3");
		now = env_mem_bytes(bed.mem, "/db", &size);
		then = env_mem_bytes(mem, "/db", &was);
		image = malloc(size);
		assert_non_null(image);
		memcpy(image, now, size);
		at = memcmp(now, then, 4096) ? 0 : 32768; /* the slot that commit 3 wrote */
		if (how == 0)
			memset(image + at, 0, 4096);
		else if (how == 1) /* the newest slot and the one before: nothing to believe */
			memset(image, 0, 65536);
		else /* torn: half of it is of the commit before last */
			memcpy(image + at + 56 * (how - 1), then + at + 56 * (how - 1),
				4096 - 56 * (how - 1));
		env_mem_put_file(mem, "/db", image, size);
		free(image);
		heir.mem = mem;
		bed_fini(&bed);
		if (how == 1) {
			assert_int_equal(bed_try_open(&heir, 0, &heir.db), BTS_CORRUPT);
			env_mem_free(mem);
			continue;
		}
		bed_open(&heir);
		if (bed_stat(&heir).fell_back)
			bed_holds(&heir, "b", "k", "2");
		else
			bed_holds(&heir, "b", "k", "3"); /* the torn part was the same in both */
		if (how < 4)
			assert_int_equal(bed_stat(&heir).fell_back, 1);
		bed_set(&heir, "b", "k", "4");
		bed_fini(&heir);
	}
}

/* Damage to either slot after a clean exit loses nothing (I10). */
static void sealed_meta_damaged(void **state)
{
	for (unsigned side = 0; side < 2; side++) {
		struct bed bed;

		(void)state;
		bed_init_memory(&bed);
		bed_set(&bed, "b", "k", "1");
		bed_set(&bed, "b", "k", "2");
		bts_close(bed.db);
		for (uint64_t i = 0; i < 4096; i += 64)
			env_mem_flip(bed.mem, "/db", side * 32768 + i, 0xa5);
		bed_open(&bed);
		bed_holds(&bed, "b", "k", "2");
		assert_int_equal(bed_stat(&bed).clean_open, 0);
		bed_set(&bed, "b", "k", "3");
		bed_fini(&bed);
	}
}

static void not_a_database(void **state)
{
	struct bed bed = {.mem = env_mem_new(0), .path = "/db"};

	(void)state;
	env_mem_put_file(bed.mem, "/db", bytes, sizeof(bytes));
	assert_int_not_equal(bed_try_open(&bed, 0, &bed.db), BTS_OK);
	assert_non_null(strstr(bed.error.text, "/db"));
	env_mem_put_file(bed.mem, "/db", bytes, 0);
	assert_int_not_equal(bed_try_open(&bed, 0, &bed.db), BTS_OK);
	assert_int_equal(bed_try_open(&bed, 0x100, &bed.db), BTS_INVALID);
	assert_int_equal(env_mem_counters(bed.mem)->live_blocks, 0);
	env_mem_free(bed.mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cycles_keep_the_size),
		cmocka_unit_test(reused_inside_a_transaction),
		cmocka_unit_test(reused_after_reopening),
		cmocka_unit_test(single_puts_keep_the_file_flat),
		cmocka_unit_test(failed_transactions_leave_nothing),
		cmocka_unit_test(a_reader_costs_its_snapshot),
		cmocka_unit_test(what_was_not_committed_is_gone),
		cmocka_unit_test(newest_meta_damaged),
		cmocka_unit_test(sealed_meta_damaged),
		cmocka_unit_test(not_a_database),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
