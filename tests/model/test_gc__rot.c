/*
 * Damage that comes after a page was verified stays visible: large batches that never touch a rotten leaf may move it
 * (clean.c), but not give it a new checksum.
 */
#include "bed.h"

#include <rng.h>

#define ENTRIES 60000u
#define BATCH 200u
#define ROTTEN 0x20 /* keys whose first byte is below: read once, then damaged, and never written again */
#define APART 0x28  /* keys that are written go on from here */

struct rot_key {
	uint8_t bytes[12];
};

static struct rot_key rot_key(uint32_t number)
{
	uint64_t state = number, word = rng_splitmix(&state);
	struct rot_key key;

	memcpy(key.bytes, &word, 8);
	memcpy(key.bytes + 8, &number, 4);
	return key;
}

static void rot_put(struct bts_txn *txn, struct bts_bucket *bucket, uint32_t number)
{
	struct rot_key key = rot_key(number);
	uint8_t value[100] = {0};

	memcpy(value, &number, 4);
	assert_int_equal(bts_put(txn, bucket, (struct bts_slice){key.bytes, sizeof(key.bytes)},
				 (struct bts_slice){value, sizeof(value)}, 0),
		BTS_OK);
}

/* Random updates of keys from `from` on. */
static void rot_update(struct bed *bed, struct rng *rng, unsigned commits, uint8_t from)
{
	for (unsigned i = 0; i < commits; i++) {
		struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
		struct bts_bucket *bucket = bed_bucket(txn, "b");

		for (unsigned done = 0; done < BATCH;) {
			uint32_t number = (uint32_t)rng_below(rng, ENTRIES);

			if (rot_key(number).bytes[0] < from)
				continue;
			rot_put(txn, bucket, number);
			done++;
		}
		bed_commit(bed, txn);
	}
}

/* A byte of one value in two hundred, in the image that is the file: all were verified when the cursor came by. */
static unsigned rot_damage(struct bed *bed)
{
	struct bts_txn *txn = bed_begin(bed, BTS_READ);
	struct bts_slice key, value;
	struct bts_cursor *cursor;
	unsigned seen = 0, rotten = 0;

	assert_int_equal(bts_cursor_open(txn, bed_find(txn, "b"), &cursor, NULL), BTS_OK);
	for (enum bts_err err = bts_cursor_first(cursor, &key, &value); err == BTS_OK;
		err = bts_cursor_next(cursor, &key, &value)) {
		if (*(const uint8_t *)key.data >= ROTTEN || seen++ % 200)
			continue;
		((uint8_t *)(uintptr_t)value.data)[50] ^= 1;
		rotten++;
	}
	bts_cursor_close(cursor);
	bts_abort(txn);
	return rotten;
}

static void stays_visible(void **state)
{
	unsigned rotten, told = 0;
	struct bts_bucket *bucket;
	struct bts_slice value;
	struct bts_txn *txn;
	struct rng rng;
	struct bed bed;

	(void)state;
	rng_init(&rng, 1);
	bed_init_memory(&bed);
	for (uint32_t i = 0; i < ENTRIES;) {
		txn = bed_begin(&bed, BTS_WRITE);
		bucket = bed_bucket(txn, "b");
		for (unsigned k = 0; k < BATCH; k++, i++)
			rot_put(txn, bucket, i);
		bed_commit(&bed, txn);
	}
	rot_update(&bed, &rng, 100, 0);
	rotten = rot_damage(&bed);
	assert_true(rotten > 10);
	rot_update(&bed, &rng, 300, APART);
	bed_reopen(&bed); /* everything is verified again */
	txn = bed_begin(&bed, BTS_READ);
	bucket = bed_find(txn, "b");
	for (uint32_t i = 0; i < ENTRIES; i++) {
		struct rot_key key = rot_key(i);
		enum bts_err err = bts_get(txn, bucket, (struct bts_slice){key.bytes, sizeof(key.bytes)}, &value);

		told += err == BTS_CORRUPT;
		if (err == BTS_OK)
			assert_int_equal(((const uint8_t *)value.data)[50], 0);
	}
	assert_true(told >= rotten);
	bts_abort(txn);
	bts_close(bed.db);
	env_mem_free(bed.mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(stays_visible)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
