/*
 * What the original promised of the tree's structure: it takes thousands of keys in any order, gives them up
 * in any order, down to the last one and the root, and a scan always shows what a model shows, also in the
 * middle of the transaction that changes it.
 *
 * The model is one number a key: how often it was written, 0 for absent.  Key and value follow from it.
 */
#include "bed.h"

#include <rng.h>

#define KEYS 6000u

static uint64_t seed;

struct field {
	struct bed bed;
	struct rng rng;
	uint32_t writes[KEYS];
	uint32_t order[KEYS];
	uint32_t number;
};

static struct bts_slice key_of(char key[16], uint32_t number)
{
	snprintf(key, 16, "key %08u", number);
	return bed_text(key);
}

/* Mostly short, some that leave the leaf. */
static struct bts_slice value_of(uint8_t value[5000], uint32_t number, uint32_t writes)
{
	size_t size = (number + writes) % 50 == 7 ? 1200 + (number * 7 + writes * 997) % 3800 : number % 60;

	for (size_t i = 0; i < size; i++)
		value[i] = (uint8_t)(number * 31 + writes * 7 + i);
	return (struct bts_slice){value, size};
}

static void put(struct field *f, struct bts_txn *txn, uint32_t number)
{
	uint8_t value[5000];
	char key[16];

	f->number++;
	f->writes[number] = f->number;
	assert_int_equal(
		bts_put(txn, bed_find(txn, "b"), key_of(key, number), value_of(value, number, f->number), 0),
		BTS_OK);
}

static void del(struct field *f, struct bts_txn *txn, uint32_t number)
{
	char key[16];

	assert_int_equal(bts_del(txn, bed_find(txn, "b"), key_of(key, number)),
		f->writes[number] ? BTS_OK : BTS_NOT_FOUND);
	f->writes[number] = 0;
}

static void expect_entry(struct field *f, uint32_t number, struct bts_slice key, struct bts_slice found)
{
	uint8_t value[5000];
	char wanted[16];

	assert_int_equal(key.size, key_of(wanted, number).size);
	assert_memory_equal(key.data, wanted, key.size);
	assert_int_equal(found.size, value_of(value, number, f->writes[number]).size);
	assert_memory_equal(found.data, value, found.size);
}

/* A scan either way and every key by its name. */
static void expect_all(struct field *f, struct bts_txn *txn)
{
	struct bts_bucket *bucket = bed_find(txn, "b");
	struct bts_bucket_info info;
	struct bts_slice key, value;
	struct bts_cursor *cursor;
	uint64_t entries = 0;

	assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
	for (uint32_t i = 0; i < KEYS; i++) {
		char name[16];
		enum bts_err err = bts_get(txn, bucket, key_of(name, i), &value);

		assert_int_equal(err, f->writes[i] ? BTS_OK : BTS_NOT_FOUND);
		if (err)
			continue;
		expect_entry(f, i, bed_text(name), value);
		assert_int_equal(bts_cursor_next(cursor, &key, &value), BTS_OK);
		expect_entry(f, i, key, value);
		entries++;
	}
	assert_int_equal(bts_cursor_next(cursor, &key, &value), BTS_NOT_FOUND);
	for (uint32_t i = KEYS, first = 1; i-- > 0;) {
		if (f->writes[i] == 0)
			continue;
		assert_int_equal(
			first ? bts_cursor_last(cursor, &key, &value) : bts_cursor_prev(cursor, &key, &value),
			BTS_OK);
		expect_entry(f, i, key, value);
		first = 0;
	}
	bts_cursor_close(cursor);
	assert_int_equal(bts_bucket_info(txn, bucket, &info), BTS_OK);
	assert_int_equal(info.entries, entries);
}

static void expect_now(struct field *f)
{
	struct bts_txn *txn = bed_begin(&f->bed, BTS_READ);

	expect_all(f, txn);
	bts_abort(txn);
	bed_check(&f->bed);
}

static struct field *field_new(uint64_t salt)
{
	struct field *f = calloc(1, sizeof(*f));
	struct bts_txn *txn;

	assert_non_null(f);
	rng_init(&f->rng, seed + salt);
	bed_init_memory(&f->bed);
	txn = bed_begin(&f->bed, BTS_WRITE);
	bed_bucket(txn, "b");
	bed_commit(&f->bed, txn);
	for (uint32_t i = 0; i < KEYS; i++)
		f->order[i] = i;
	return f;
}

static void field_free(struct field *f)
{
	expect_now(f);
	bed_reopen(&f->bed);
	expect_now(f);
	bed_fini(&f->bed);
	free(f);
}

static void shuffle(struct field *f)
{
	for (uint32_t i = KEYS; i > 1; i--) {
		uint32_t with = (uint32_t)rng_below(&f->rng, i), held = f->order[i - 1];

		f->order[i - 1] = f->order[with];
		f->order[with] = held;
	}
}

/* What is done to order[from .. to), in transactions of `step`. */
static void run(struct field *f, uint32_t from, uint32_t to, uint32_t step,
	void (*change)(struct field *, struct bts_txn *, uint32_t))
{
	while (from < to) {
		struct bts_txn *txn = bed_begin(&f->bed, BTS_WRITE);

		for (uint32_t i = 0; i < step && from < to; i++)
			change(f, txn, f->order[from++]);
		bed_commit(&f->bed, txn);
	}
}

static void inserted_deleted_overwritten(void **state)
{
	for (uint32_t step = 7; step <= KEYS; step = step * 40 + 60) {
		struct field *f = field_new(step);

		(void)state;
		shuffle(f);
		run(f, 0, KEYS, step, put);
		expect_now(f);
		run(f, 0, KEYS / 2, step, del);
		expect_now(f);
		shuffle(f);
		run(f, 0, KEYS / 2, step, put); /* half of them anew, half of them over what is there */
		expect_now(f);
		bed_reopen(&f->bed);
		expect_now(f);
		field_free(f);
	}
}

static void sorted(void **state)
{
	for (int down = 0; down < 2; down++) {
		struct field *f = field_new(0);
		struct bts_bucket_info info;
		struct bts_txn *txn;

		(void)state;
		for (uint32_t i = 0; i < KEYS && down; i++)
			f->order[i] = KEYS - 1 - i;
		run(f, 0, KEYS, 100, put);
		expect_now(f);
		txn = bed_begin(&f->bed, BTS_READ);
		assert_int_equal(bts_bucket_info(txn, bed_find(txn, "b"), &info), BTS_OK);
		/* Sorted runs leave full pages behind: far more than half of each is entries. */
		assert_true(info.pages * 4096 < (uint64_t)KEYS * (12 + 30 + 16) * 5 / 4);
		bts_abort(txn);
		run(f, 0, KEYS, 700, del);
		field_free(f);
	}
}

/* One page holds it all; a tree that was emptied keeps one, which remembers the last deletion (C1). */
static void expect_one_page(struct field *f, uint64_t entries)
{
	struct bts_txn *txn = bed_begin(&f->bed, BTS_READ);
	struct bts_bucket_info info;

	assert_int_equal(bts_bucket_info(txn, bed_find(txn, "b"), &info), BTS_OK);
	assert_int_equal(info.entries, entries);
	assert_int_equal(info.pages, 1);
	assert_int_equal(info.depth, 1);
	bts_abort(txn);
}

/*
 * A value that grows by a byte, again and again, stays in its leaf: no page of its own, no page but half
 * full.
 */
static void a_byte_longer(void **state)
{
	static const uint8_t zeros[300];
	uint64_t pages = 0;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	for (size_t size = 100; size < 140; size++) {
		struct bts_txn *txn = bed_begin(&bed, BTS_WRITE);
		struct bts_bucket *bucket = bed_bucket(txn, "b");
		struct bts_bucket_info info;

		for (uint32_t i = 0; i < 400; i++) {
			char key[16];

			assert_int_equal(
				bts_put(txn, bucket, key_of(key, i), (struct bts_slice){zeros, size}, 0),
				BTS_OK);
		}
		assert_int_equal(bts_bucket_info(txn, bucket, &info), BTS_OK);
		bed_commit(&bed, txn);
		if (pages == 0)
			pages = info.pages;
		assert_true(info.pages <= pages * 5 / 2);
		assert_true(bed_stat(&bed).pages <= 16 + 3 * (pages * 5 / 2) + 12);
	}
	bed_fini(&bed);
}

static void emptied_and_refilled(void **state)
{
	struct field *f = field_new(1);

	(void)state;
	for (unsigned round = 0; round < 4; round++) {
		run(f, 0, KEYS, round % 2 ? 500 : KEYS, put);
		expect_now(f);
		if (round != 2)
			shuffle(f);
		run(f, 0, KEYS, round % 2 ? KEYS : 300, del);
		expect_now(f);
		expect_one_page(f, 0);
	}
	run(f, 0, KEYS, KEYS, put);
	field_free(f);
}

/* The only key of a tree, deleted in a transaction of its own, in the one that put it, and put again. */
static void last_key_of_the_root(void **state)
{
	struct field *f = field_new(2);
	struct bts_txn *txn;

	(void)state;
	for (uint32_t round = 0; round < 5; round++) {
		run(f, round, round + 1, 1, put);
		expect_one_page(f, 1);
		run(f, round, round + 1, 1, del);
		expect_one_page(f, 0);
		txn = bed_begin(&f->bed, BTS_WRITE);
		put(f, txn, 50);
		del(f, txn, 50);
		expect_all(f, txn);
		if (round % 2)
			put(f, txn, 51);
		else
			del(f, txn, 51);
		bed_commit(&f->bed, txn);
		expect_now(f);
		run(f, 51, 52, 1, del);
	}
	field_free(f);
}

static void one_left_of_a_thousand(void **state)
{
	static const uint32_t first_last_any[] = {0, 999, 437, 1, 998};

	for (unsigned round = 0; round < 5; round++) {
		struct field *f = field_new(round);
		uint32_t keep = first_last_any[round];

		(void)state;
		run(f, 0, 1000, 1000, put);
		f->order[keep] = 1000; /* what is deleted instead is not there */
		if (round % 2)
			shuffle(f);
		run(f, 0, KEYS, round % 3 ? KEYS : 37, del);
		expect_one_page(f, 1);
		field_free(f);
	}
}

/* A cursor walks, forwards or back, while keys before, behind and under it are put and deleted. */
static void scan_while_writing(struct field *f, struct bts_txn *txn, bool back)
{
	struct bts_slice key, value;
	struct bts_cursor *cursor;
	uint32_t at = back ? KEYS : 0, next;

	assert_int_equal(bts_cursor_open(txn, bed_find(txn, "b"), &cursor, NULL), BTS_OK);
	for (;;) {
		enum bts_err err =
			back ? bts_cursor_prev(cursor, &key, &value) : bts_cursor_next(cursor, &key, &value);

		if (back)
			for (next = at; next > 0 && f->writes[next - 1] == 0; next--)
				;
		else
			for (next = at; next < KEYS && f->writes[next] == 0; next++)
				;
		if (next == (back ? 0 : KEYS)) {
			assert_int_equal(err, BTS_NOT_FOUND);
			break;
		}
		assert_int_equal(err, BTS_OK);
		at = back ? next - 1 : next;
		expect_entry(f, at, key, value);
		if (rng_one_in(&f->rng, 3))
			del(f, txn, at);
		for (uint64_t n = rng_below(&f->rng, 4); n > 0; n--)
			(rng_one_in(&f->rng, 2) ? put : del)(f, txn, (uint32_t)rng_below(&f->rng, KEYS));
		if (!back)
			at++;
	}
	bts_cursor_close(cursor);
}

static void scans_while_writing(void **state)
{
	struct field *f = field_new(3);

	(void)state;
	for (unsigned round = 0; round < 6; round++) {
		struct bts_txn *txn = bed_begin(&f->bed, BTS_WRITE);

		for (unsigned i = 0; i < KEYS / 3; i++)
			put(f, txn, (uint32_t)rng_below(&f->rng, KEYS));
		scan_while_writing(f, txn, round % 2);
		expect_all(f, txn);
		if (round % 3 != 2)
			scan_while_writing(f, txn, round % 2 == 0);
		bed_commit(&f->bed, txn);
		expect_now(f);
	}
	field_free(f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inserted_deleted_overwritten),
		cmocka_unit_test(sorted),
		cmocka_unit_test(a_byte_longer),
		cmocka_unit_test(emptied_and_refilled),
		cmocka_unit_test(last_key_of_the_root),
		cmocka_unit_test(one_left_of_a_thousand),
		cmocka_unit_test(scans_while_writing),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
