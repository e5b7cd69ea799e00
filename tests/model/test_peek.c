/*
 * bts_peek: versions and small values are as bts_get_version has them; a large value is not touched, be it damaged.
 * bts_cursor_peek gives the same of where a cursor stands.  bts_get_bounded gives what bts_get gives, in steps, and nothing of a
 * damaged value.
 */
#include "cmocka.h"

#include <stdlib.h>
#include <string.h>

#include "bed.h"

#define LARGE 300000u

static struct bts_slice large(void)
{
	static uint8_t bytes[LARGE];
	unsigned i;

	for (i = 0; i < LARGE; i++)
		bytes[i] = (uint8_t)(i * 2654435761u >> 24);
	return (struct bts_slice){bytes, sizeof(bytes)};
}

static void expect(struct bts_txn *txn, const char *key, bts_txid written)
{
	struct bts_bucket *bucket = bed_find(txn, "b");
	struct bts_slice seen, value;
	bts_txid peeked, version;

	assert_int_equal(bts_peek(txn, bucket, bed_text(key), &seen, &peeked), BTS_OK);
	assert_int_equal(bts_get_version(txn, bucket, bed_text(key), &value, &version), BTS_OK);
	assert_int_equal(peeked, version);
	assert_int_equal(peeked, written);
	assert_int_equal(seen.size, value.size);
	if (value.size == LARGE)
		assert_null(seen.data);
	else
		assert_memory_equal(seen.data, value.data, value.size);
}

static void test_as_get(void **state)
{
	struct bts_slice seen;
	struct bts_txn *txn;
	struct bed bed;
	bts_txid first;

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), bed_text("small"), bed_text("v"), 0), BTS_OK);
	assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), bed_text("empty"), bed_text(""), 0), BTS_OK);
	assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), bed_text("large"), large(), 0), BTS_OK);
	expect(txn, "small", 0);
	expect(txn, "empty", 0);
	expect(txn, "large", 0);
	assert_int_equal(bts_commit_id(txn, &first, NULL), BTS_OK);
	txn = bed_begin(&bed, BTS_READ);
	expect(txn, "small", first);
	expect(txn, "empty", first);
	expect(txn, "large", first);
	assert_int_equal(bts_peek(txn, bed_find(txn, "b"), bed_text("none"), &seen, NULL), BTS_NOT_FOUND);
	assert_int_equal(bts_peek(txn, bed_find(txn, "b"), bed_text(""), &seen, NULL), BTS_INVALID);
	bts_abort(txn);
	bed_fini(&bed);
}

static void test_a_damaged_value_is_not_read(void **state)
{
	struct bts_slice value = large(), seen;
	const uint8_t *file, *at;
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	struct bed bed;
	bts_txid version;
	uint64_t size;

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), bed_text("large"), value, 0), BTS_OK);
	bed_commit(&bed, txn);
	bts_close(bed.db);
	file = env_mem_bytes(bed.mem, bed.path, &size);
	at = memmem(file, size, value.data, value.size);
	assert_non_null(at);
	env_mem_flip(bed.mem, bed.path, (uint64_t)(at - file) + 200000, 1);
	bed_open(&bed);
	txn = bed_begin(&bed, BTS_READ);
	bucket = bed_find(txn, "b");
	assert_int_equal(bts_peek(txn, bucket, bed_text("large"), &seen, &version), BTS_OK);
	assert_int_equal(seen.size, LARGE);
	assert_null(seen.data);
	assert_int_equal(version, bts_txn_id(txn));
	assert_int_equal(bts_get(txn, bucket, bed_text("large"), &seen), BTS_CORRUPT);
	bts_abort(txn);
	bts_close(bed.db);
	env_mem_free(bed.mem);
}

static void damage(struct bed *bed, struct bts_slice value, uint64_t at)
{
	uint64_t size;
	const uint8_t *file = env_mem_bytes(bed->mem, bed->path, &size);
	const uint8_t *found = memmem(file, size, value.data, value.size);

	assert_non_null(found);
	env_mem_flip(bed->mem, bed->path, (uint64_t)(found - file) + at, 1);
}

static void put_large(struct bed *bed)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);

	assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), bed_text("large"), large(), 0), BTS_OK);
	assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), bed_text("small"), bed_text("v"), 0), BTS_OK);
	bed_commit(bed, txn);
	bts_close(bed->db);
}

static void test_in_steps(void **state)
{
	struct bts_get_state steps = {0};
	struct bts_slice seen, value = large();
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	struct bed bed;
	unsigned count;

	(void)state;
	bed_init_memory(&bed);
	put_large(&bed);
	bed_open(&bed);
	txn = bed_begin(&bed, BTS_READ);
	bucket = bed_find(txn, "b");
	assert_int_equal(bts_get_bounded(txn, bucket, bed_text("large"), 0, &steps, &seen), BTS_OK);
	assert_null(seen.data);
	assert_int_equal(seen.size, LARGE);
	assert_int_equal(steps.done, 0);
	for (count = 1;; count++) {
		assert_int_equal(bts_get_bounded(txn, bucket, bed_text("large"), 100000, &steps, &seen), BTS_OK);
		assert_int_equal(seen.size, LARGE);
		if (seen.data)
			break;
		assert_int_equal(steps.done, 131072 * count); /* 100,000 make two chunks */
	}
	assert_int_equal(count, 3);
	assert_memory_equal(seen.data, value.data, LARGE);
	steps = (struct bts_get_state){0}; /* verified: at once from then on, whatever the bound */
	assert_int_equal(bts_get_bounded(txn, bucket, bed_text("large"), 0, &steps, &seen), BTS_OK);
	assert_non_null(seen.data);
	assert_int_equal(bts_get_bounded(txn, bucket, bed_text("small"), 1, &steps, &seen), BTS_OK);
	assert_memory_equal(seen.data, "v", 1);
	assert_int_equal(bts_get_bounded(txn, bucket, bed_text("none"), 1, &steps, &seen), BTS_NOT_FOUND);
	bts_abort(txn);
	bed_fini(&bed);
}

/* Damage in any chunk, the last one too, is found before anything is given, and again by the next who asks. */
static void test_no_step_gives_a_damaged_value(void **state)
{
	static const uint64_t places[] = {0, 65536, 200000, LARGE - 1};
	struct bts_slice seen;
	unsigned i, round;

	(void)state;
	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct bts_txn *txn;
		struct bed bed;

		bed_init_memory(&bed);
		put_large(&bed);
		damage(&bed, large(), places[i]);
		bed_open(&bed);
		txn = bed_begin(&bed, BTS_READ);
		for (round = 0; round < 2; round++) {
			struct bts_get_state steps = {0};
			enum bts_err err;

			do {
				err = bts_get_bounded(
					txn, bed_find(txn, "b"), bed_text("large"), 65536, &steps, &seen);
				assert_true(err || !seen.data);
			} while (!err);
			assert_int_equal(err, BTS_CORRUPT);
		}
		bts_abort(txn);
		bts_close(bed.db);
		env_mem_free(bed.mem);
	}
}

static void test_cursor(void **state)
{
	struct bts_cursor *cursor;
	struct bts_slice seen, key;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	put_large(&bed);
	damage(&bed, large(), 5);
	bed_open(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_cursor_open(txn, bed_find(txn, "b"), &cursor, NULL), BTS_OK);
	assert_int_equal(bts_cursor_peek(cursor, &seen), BTS_INVALID);
	assert_int_equal(bts_cursor_first(cursor, &key, NULL), BTS_OK);
	assert_int_equal(bts_cursor_peek(cursor, &seen), BTS_OK);
	assert_null(seen.data);
	assert_int_equal(seen.size, LARGE);
	assert_int_equal(bts_cursor_next(cursor, &key, NULL), BTS_OK);
	assert_int_equal(bts_cursor_peek(cursor, &seen), BTS_OK);
	assert_int_equal(seen.size, 1);
	assert_memory_equal(seen.data, "v", 1);
	assert_int_equal(bts_put(txn, bed_find(txn, "b"), bed_text("a"), bed_text("1"), 0), BTS_OK);
	assert_int_equal(bts_cursor_peek(cursor, &seen), BTS_INVALID);
	assert_int_equal(bts_cursor_seek(cursor, bed_text("z"), &key, NULL), BTS_NOT_FOUND);
	assert_int_equal(bts_cursor_peek(cursor, &seen), BTS_INVALID);
	bts_cursor_close(cursor);
	bts_abort(txn);
	bts_close(bed.db);
	env_mem_free(bed.mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_get),
		cmocka_unit_test(test_a_damaged_value_is_not_read),
		cmocka_unit_test(test_in_steps),
		cmocka_unit_test(test_no_step_gives_a_damaged_value),
		cmocka_unit_test(test_cursor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
