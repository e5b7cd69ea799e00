/* bts_peek: versions and small values are as bts_get_version has them; a large value is not touched, be it damaged. */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_get),
		cmocka_unit_test(test_a_damaged_value_is_not_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
