/*
 * A diff reads the pages that differ and the ways to them, not what is the same; a damaged page is told of, never a wrong
 * change; a snapshot that was told to end ends the diff.
 */
#include "diff_bed.h"

#include <fcntl.h>

#define MANY 1000000u
#define WAY 8u /* pages from the roots of catalog and bucket to a leaf, of both sides, and a little room */

static struct bts_slice key_of(char text[16], unsigned number)
{
	return (struct bts_slice){text, (size_t)snprintf(text, 16, "key%07u", number)};
}

static void fill(struct bed *bed, const char *name, unsigned count)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	struct bts_load *load;
	char key[16];

	assert_int_equal(bts_load_begin(txn, bed_bucket(txn, name), 0, &load, NULL), BTS_OK);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(bts_load_add(load, key_of(key, i), bed_text("value")), BTS_OK);
	assert_int_equal(bts_load_end(load, NULL), BTS_OK);
	bed_commit(bed, txn);
}

/* Changes and pages of a diff since then. */
static uint64_t pages_since(struct bed *bed, struct bts_txn *then, size_t changes)
{
	struct bts_txn *now = bed_begin(bed, BTS_READ);
	struct diff_list found = {0};
	struct bts_diff *diff;
	uint64_t pages;

	assert_int_equal(bts_diff_open(then, now, NULL, &diff, NULL), BTS_OK);
	assert_int_equal(diff_collect(diff, SIZE_MAX, &found), BTS_NOT_FOUND);
	assert_int_equal(found.count, changes);
	pages = bts_diff_pages(diff);
	print_message("%zu changes, %llu pages\n", changes, (unsigned long long)pages);
	bts_diff_close(diff);
	diff_list_fini(&found);
	bts_abort(now);
	return pages;
}

static void put_every(struct bed *bed, unsigned step)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	struct bts_bucket *bucket = bed_bucket(txn, "many");
	char key[16];

	for (unsigned i = step / 2; i < MANY; i += step)
		assert_int_equal(bts_put(txn, bucket, key_of(key, i), bed_text("other"), 0), BTS_OK);
	bed_commit(bed, txn);
}

static void reads_what_differs(void **state)
{
	struct bts_txn *then;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	fill(&bed, "many", MANY);
	fill(&bed, "beside", 1000);
	then = bed_begin(&bed, BTS_READ);
	assert_int_equal(pages_since(&bed, then, 0), 0);
	bed_set(&bed, "many", "key0500000", "new");
	assert_true(pages_since(&bed, then, 1) <= 2 * WAY);
	put_every(&bed, MANY / 10);
	/* Leaves of both sides, and what leads to them. */
	assert_true(pages_since(&bed, then, 11) <= 11 * 2 * WAY);
	/* A tree of more levels than before. */
	bts_abort(then);
	then = bed_begin(&bed, BTS_READ);
	for (unsigned i = 0; i < 400; i++) {
		char key[16], value[1000];

		memset(value, 'x', sizeof(value) - 1);
		value[sizeof(value) - 1] = '\0';
		snprintf(key, sizeof(key), "zzz%07u", i);
		bed_set(&bed, "beside", key, value);
	}
	assert_true(pages_since(&bed, then, 400) <= 400 + 2 * WAY);
	bts_abort(then);
	bed_fini(&bed);
}

/* bytes of one page changed, or put back */
static void flip(const struct bed *bed, off_t page)
{
	int fd = open(bed->path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, page * 4096 + 100), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, page * 4096 + 100), 1);
	close(fd);
}

/* What a diff since the named state finds. */
static enum bts_err damaged(struct bed *bed, struct diff_list *found)
{
	struct bts_txn *then, *now;
	struct bts_diff *diff;
	struct bts *db;
	enum bts_err err = bed_try_open(bed, BTS_OPEN_READ_ONLY, &db);

	if (err)
		return err;
	err = bts_begin_at(db, bed_text("then"), &then, NULL);
	if (!err) {
		assert_int_equal(bts_begin(db, BTS_READ, &now, NULL), BTS_OK);
		assert_int_equal(bts_diff_open(then, now, NULL, &diff, NULL), BTS_OK);
		err = diff_collect(diff, SIZE_MAX, found);
		if (err == BTS_CORRUPT) {
			struct bts_change change = {.size = sizeof(change)};

			assert_int_equal(
				bts_diff_seek(diff, bed_text("many"), bed_text("k"), NULL), BTS_CORRUPT);
			assert_int_equal(bts_diff_next(diff, &change, NULL), BTS_CORRUPT);
		}
		bts_diff_close(diff);
		bts_abort(now);
		bts_abort(then);
	}
	bts_close(db);
	return err;
}

static void damage_is_told(void **state)
{
	struct diff_list expected = {0}, found = {0};
	struct bts_txn *txn;
	unsigned told = 0;
	struct bed bed;
	off_t pages;

	(void)state;
	bed_init_file(&bed);
	fill(&bed, "many", 2000);
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_snapshot_create(txn, bed_text("then"), NULL), BTS_OK);
	bed_commit(&bed, txn);
	for (unsigned i = 0; i < 2000; i += 250) {
		char key[16];

		key_of(key, i);
		bed_set(&bed, "many", key, "changed");
	}
	pages = (off_t)bed_stat(&bed).pages;
	bts_close(bed.db);
	assert_int_equal(damaged(&bed, &expected), BTS_NOT_FOUND);
	assert_int_equal(expected.count, 8);
	for (off_t page = 16; page < pages; page++) {
		enum bts_err err;

		flip(&bed, page);
		err = damaged(&bed, &found);
		assert_true(err == BTS_NOT_FOUND || err == BTS_CORRUPT);
		if (err == BTS_NOT_FOUND)
			diff_equal(&expected, 0, &found);
		told += err == BTS_CORRUPT;
		found.count = 0;
		flip(&bed, page);
	}
	print_message("%u of %d pages told\n", told, (int)pages - 16);
	assert_true(told >= 8);
	diff_list_fini(&expected);
	diff_list_fini(&found);
	bed_open(&bed);
	bed_fini(&bed);
}

static void expired(void **state)
{
	struct bts_change change = {.size = sizeof(change)};
	struct bts_txn *older, *newer, *same;
	struct bts_options options;
	struct bts_diff *diff;
	struct bed bed;
	struct bts *db;

	(void)state;
	bed_init_file(&bed);
	fill(&bed, "many", 5000);
	bts_options_init(&options);
	options.reader_pages_max = 1;
	assert_int_equal(bts_open(bed.path, &options, &db, NULL), BTS_OK);
	older = bed_begin(&bed, BTS_READ);
	newer = bed_begin(&bed, BTS_READ);
	assert_int_equal(bts_diff_open(older, newer, NULL, &diff, NULL), BTS_OK);
	/* It is looked at a few times a second. */
	do {
		struct bts_txn *txn;

		assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
		assert_int_equal(bts_del_range(txn, bed_bucket(txn, "many"), (struct bts_slice){0},
					 (struct bts_slice){0}, NULL),
			BTS_OK);
		bed_put(txn, "many", "key", "value");
		assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	} while (bts_begin_same(older, &same, NULL) == BTS_OK && (bts_abort(same), 1));
	assert_int_equal(bts_diff_next(diff, &change, &bed.error), BTS_EXPIRED);
	assert_int_equal(bed.error.code, BTS_EXPIRED);
	bts_diff_close(diff);
	bts_abort(older);
	bts_abort(newer);
	bts_close(db);
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_differs),
		cmocka_unit_test(damage_is_told),
		cmocka_unit_test(expired),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
