/*
 * What the original promised of keys and buckets.
 *
 * Its other promises are in the other files test_origin__*; the table in ../README.md names the test of each,
 * and what of them is not covered.
 */
#include "bed.h"

#include <btree_store/ship.h>
#include <rng.h>

#define KEYS 4000u

static uint64_t seed;

static void keys_and_values(void **state)
{
	struct bed bed;
	struct bts_txn *txn;
	struct bts_bucket *bucket;

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	bucket = bed_bucket(txn, "b");
	assert_int_equal(bts_del(txn, bucket, bed_text("none")), BTS_NOT_FOUND);
	assert_int_equal(bts_put(txn, bucket, bed_text("a"), bed_text("1"), 0), BTS_OK);
	assert_int_equal(bts_put(txn, bucket, bed_text("a"), bed_text("2"), BTS_PUT_NEW), BTS_EXISTS);
	assert_int_equal(bts_put(txn, bucket, bed_text("b"), bed_text("2"), BTS_PUT_EXISTING), BTS_NOT_FOUND);
	assert_int_equal(bts_put(txn, bucket, bed_text("a"), bed_text("3"), BTS_PUT_EXISTING), BTS_OK);
	bed_expect(txn, "b", "a", "3"); /* its own writes */
	bed_commit(&bed, txn);
	bed_reopen(&bed);
	bed_holds(&bed, "b", "a", "3");
	bed_holds(&bed, "b", "b", NULL);
	bed_fini(&bed);
}

static void an_empty_tree(void **state)
{
	struct bts_bucket_info info;
	struct bts_slice key, value;
	struct bts_cursor *cursor;
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	for (unsigned round = 0; round < 4; round++) {
		txn = bed_begin(&bed, round % 2 ? BTS_WRITE : BTS_READ);
		assert_int_equal(
			bts_bucket_next(txn, bed_text(""), &info), round < 2 ? BTS_NOT_FOUND : BTS_OK);
		assert_int_equal(
			bts_bucket(txn, bed_text("b"), 0, &bucket, NULL), round < 2 ? BTS_NOT_FOUND : BTS_OK);
		if (round == 1) /* touching it makes it, and the transaction's own listing shows it */
			bucket = bed_bucket(txn, "b");
		if (round >= 1) {
			assert_int_equal(bts_bucket_next(txn, bed_text(""), &info), BTS_OK);
			assert_int_equal(info.entries, 0);
			assert_int_equal(bts_get(txn, bucket, bed_text("k"), &value), BTS_NOT_FOUND);
			assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
			assert_int_equal(bts_cursor_first(cursor, &key, &value), BTS_NOT_FOUND);
			assert_int_equal(bts_cursor_last(cursor, &key, &value), BTS_NOT_FOUND);
			assert_int_equal(bts_cursor_seek(cursor, bed_text("k"), &key, &value), BTS_NOT_FOUND);
			assert_int_equal(bts_cursor_next(cursor, &key, &value), BTS_NOT_FOUND);
			bts_cursor_close(cursor);
		}
		bed_commit(&bed, txn);
		bed_reopen(&bed);
	}
	bed_fini(&bed);
}

/* Refused, and without side effects: the transaction goes on, a commit of nothing makes no commit. */
static void what_is_refused(void **state)
{
	static const uint8_t big[BTS_KEY_MAX + 1] = {1};
	struct bed bed;
	struct bts_txn *txn;
	struct bts_bucket *bucket = NULL;
	struct bts_slice value;
	bts_txid before;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "v");
	before = bed_stat(&bed).txid;
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_bucket(txn, bed_text(""), BTS_CREATE, &bucket, NULL), BTS_INVALID);
	assert_int_equal(
		bts_bucket(txn, (struct bts_slice){big, 256}, BTS_CREATE, &bucket, NULL), BTS_INVALID);
	assert_int_equal(bts_bucket(txn, bed_text("none"), 0, &bucket, &bed.error), BTS_NOT_FOUND);
	bucket = bed_bucket(txn, "b");
	assert_int_equal(bts_put(txn, bucket, (struct bts_slice){big, 0}, bed_text("v"), 0), BTS_INVALID);
	assert_int_equal(
		bts_put(txn, bucket, (struct bts_slice){big, sizeof(big)}, bed_text("v"), 0), BTS_INVALID);
	assert_int_equal(bts_get(txn, bucket, (struct bts_slice){big, sizeof(big)}, &value), BTS_INVALID);
	assert_non_null(strstr(bts_txn_error(txn)->text, "1025"));
	assert_int_equal(
		bts_put(txn, bucket, bed_text("none"), bed_text("v"), BTS_PUT_EXISTING), BTS_NOT_FOUND);
	assert_int_equal(bts_del(txn, bucket, bed_text("none")), BTS_NOT_FOUND);
	assert_int_equal(bts_bucket_drop(txn, bed_text("none"), NULL), BTS_NOT_FOUND);
	bed_commit(&bed, txn);
	assert_int_equal(bed_stat(&bed).txid, before);
	txn = bed_begin(&bed, BTS_READ);
	assert_int_equal(bts_bucket(txn, bed_text("new"), BTS_CREATE, &bucket, NULL), BTS_INVALID);
	bed_expect(txn, "b", "k", "v");
	assert_int_equal(bts_bucket(txn, bed_text("b"), 0, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_put(txn, bucket, bed_text("k"), bed_text("w"), 0), BTS_INVALID);
	assert_int_equal(bts_del(txn, bucket, bed_text("k")), BTS_INVALID);
	bts_abort(txn);
	assert_int_equal(bts_begin(bed.db, BTS_WRITE | 0x8000u, &txn, NULL), BTS_INVALID);
	assert_int_equal(bts_begin(bed.db, 0, &txn, NULL), BTS_INVALID);
	assert_int_equal(bts_begin(bed.db, BTS_READ | BTS_WRITE, &txn, NULL), BTS_INVALID);
	bed_fini(&bed);
}

static void expect_error(const struct bts_error *error, enum bts_err code)
{
	assert_int_equal(error->code, code);
	assert_true(error->text[0] != '\0');
}

/*
 * What the last failing call met, absence too: that used to leave the words of an earlier failure, and bts_put_begin gave them out
 * with BTS_NOT_FOUND.
 */
static void the_error_is_of_the_last_failure(void **state)
{
	struct bed bed;
	struct bts_txn *txn;
	struct bts_bucket *bucket;
	struct bts_bucket_info info;
	struct bts_snapshot_info snapshot;
	struct bts_cursor *cursor;
	struct bts_stream *stream;
	struct bts_get_state steps = {0};
	struct bts_slice value, none = bed_text("none");

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "v");
	txn = bed_begin(&bed, BTS_WRITE);
	bucket = bed_bucket(txn, "b");
	assert_int_equal(bts_cursor_open(txn, bucket, &cursor, &bed.error), BTS_OK);
	for (unsigned call = 0; call < 10; call++) {
		const enum bts_err calls[] = {
			call == 0 ? bts_get(txn, bucket, none, &value) : BTS_OK,
			call == 1 ? bts_peek(txn, bucket, none, &value, NULL) : BTS_OK,
			call == 2 ? bts_get_bounded(txn, bucket, none, 1, &steps, &value) : BTS_OK,
			call == 3 ? bts_del(txn, bucket, none) : BTS_OK,
			call == 4 ? bts_put(txn, bucket, none, none, BTS_PUT_EXISTING) : BTS_OK,
			call == 5 ? bts_put_begin(txn, bucket, none, 1, BTS_PUT_EXISTING, &stream, &bed.error) : BTS_OK,
			call == 6 ? bts_cursor_seek(cursor, none, NULL, NULL) : BTS_OK,
			call == 7 ? bts_cursor_next(cursor, NULL, NULL) : BTS_OK,
			call == 8 ? bts_bucket_next(txn, bed_text("b"), &info) : BTS_OK,
			call == 9 ? bts_snapshot_next(txn, bed_text("b"), &snapshot) : BTS_OK,
		};

		assert_int_equal(calls[call], BTS_NOT_FOUND);
		expect_error(bts_txn_error(txn), BTS_NOT_FOUND);
		if (call == 5)
			expect_error(&bed.error, BTS_NOT_FOUND);
		assert_int_equal(bts_put(txn, bucket, bed_text("k"), bed_text("w"), BTS_PUT_NEW), BTS_EXISTS);
		expect_error(bts_txn_error(txn), BTS_EXISTS);
	}
	assert_int_equal(bts_bucket(txn, bed_text("b"), 2, &bucket, &bed.error), BTS_INVALID);
	expect_error(&bed.error, BTS_INVALID);
	assert_int_equal(bts_bucket_drop(txn, bed_text("b"), NULL), BTS_OK);
	assert_int_equal(bts_del(txn, bed_bucket(txn, "c"), none), BTS_NOT_FOUND);
	assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_INVALID);
	expect_error(bts_txn_error(txn), BTS_INVALID);
	bts_abort(txn);
	txn = bed_begin(&bed, BTS_WRITE | BTS_EXCLUSIVE);
	assert_int_equal(bts_refresh(txn, NULL), BTS_INVALID);
	expect_error(bts_txn_error(txn), BTS_INVALID);
	bts_abort(txn);
	bed_fini(&bed);
}

/* What walks pages tells its end as any other failure. */
static void ends_are_told(void **state)
{
	struct bts_partial partial = {.position = {.txid = 1}};
	struct bts_scrub_unit unit;
	struct bts_scrub *scrub;
	struct bts_page_id id;
	struct bts_slice bytes;
	struct bts_walk *walk;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	assert_int_equal(bts_walk_open(bed.db, 1, &walk, &bed.error), BTS_OK);
	assert_int_equal(bts_walk_next(walk, &id, &bytes, &bed.error), BTS_NOT_FOUND);
	expect_error(&bed.error, BTS_NOT_FOUND);
	bts_walk_close(walk);
	memset(&bed.error, 0, sizeof(bed.error));
	assert_int_equal(bts_walk_open_from(bed.db, &partial, &walk, &bed.error), BTS_NOT_FOUND);
	expect_error(&bed.error, BTS_NOT_FOUND);
	memset(&bed.error, 0, sizeof(bed.error));
	assert_int_equal(bts_scrub_open(bed.db, &scrub, &bed.error), BTS_OK);
	assert_int_equal(bts_scrub_next(scrub, &unit, &bed.error), BTS_NOT_FOUND);
	expect_error(&bed.error, BTS_NOT_FOUND);
	bts_scrub_close(scrub);
	memset(&bed.error, 0, sizeof(bed.error));
	assert_int_equal(bts_ship_fork(bed.db, &partial.position, NULL, 0, &partial.position, &bed.error), BTS_NOT_FOUND);
	expect_error(&bed.error, BTS_NOT_FOUND);
	bed_fini(&bed);
}

/* A note made of a part of the one that there is: it was copied over itself with memcpy. */
static void a_note_of_a_note(void **state)
{
	struct bed bed;
	struct bts_txn *txn;
	struct bts_bucket *bucket;
	struct bts_bucket_info info;
	char note[200];

	(void)state;
	for (size_t i = 0; i < sizeof(note); i++)
		note[i] = (char)i;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	bucket = bed_bucket(txn, "b");
	assert_int_equal(bts_bucket_set_meta(txn, bucket, (struct bts_slice){note, sizeof(note)}), BTS_OK);
	assert_int_equal(bts_bucket_info(txn, bucket, &info), BTS_OK);
	info.meta = (struct bts_slice){(const char *)info.meta.data + 1, info.meta.size - 1};
	assert_int_equal(bts_bucket_set_meta(txn, bucket, info.meta), BTS_OK);
	assert_int_equal(bts_bucket_info(txn, bucket, &info), BTS_OK);
	assert_int_equal(info.meta.size, sizeof(note) - 1);
	assert_memory_equal(info.meta.data, note + 1, sizeof(note) - 1);
	bed_commit(&bed, txn);
	bed_fini(&bed);
}

static void large_values(void **state)
{
	static uint8_t bytes[5 << 20];
	struct bed bed;
	struct bts_txn *txn;
	struct bts_slice found, key = bed_text("k");
	struct bts_bucket *bucket;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	rng_fill(&rng, bytes, sizeof(bytes));
	bed_init_memory(&bed);
	for (size_t size = sizeof(bytes); size > 100; size = size * 2 / 5 + 1) {
		struct bts_slice value = {bytes, size};

		txn = bed_begin(&bed, BTS_WRITE);
		assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), key, value, 0), BTS_OK);
		assert_int_equal(bts_get(txn, bed_bucket(txn, "b"), key, &found), BTS_OK);
		assert_memory_equal(found.data, bytes, size);
		bed_commit(&bed, txn);
		bed_reopen(&bed);
		txn = bed_begin(&bed, BTS_READ);
		assert_int_equal(bts_bucket(txn, bed_text("b"), 0, &bucket, NULL), BTS_OK);
		assert_int_equal(bts_get(txn, bucket, key, &found), BTS_OK);
		assert_int_equal(found.size, size);
		assert_memory_equal(found.data, bytes, size);
		bts_abort(txn);
	}
	bed_fini(&bed);
}

/* The address range is the limit of the file: full, then right again with a larger one. */
static void a_small_address_range(void **state)
{
	static uint8_t bytes[100000];
	struct bed bed = {.mem = env_mem_new(0), .path = "/db"};
	enum bts_err err = BTS_OK;
	struct bts_options options;
	struct bts_bucket *bucket;
	struct bts_slice found;
	struct bts_txn *txn;
	unsigned count = 0;
	char key[16];

	(void)state;
	bts_options_init(&options);
	options.env = env_mem_env(bed.mem);
	options.map_bytes = 4 << 20;
	assert_int_equal(bts_open(bed.path, &options, &bed.db, &bed.error), BTS_OK);
	for (; err == BTS_OK; count++) {
		txn = bed_begin(&bed, BTS_WRITE);
		snprintf(key, sizeof(key), "%u", count);
		assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), bed_text(key),
					 (struct bts_slice){bytes, sizeof(bytes)}, 0),
			BTS_OK);
		err = bts_commit(txn, &bed.error);
	}
	assert_int_equal(err, BTS_FULL);
	assert_in_range(count, 30, 42);
	bed_check(&bed);
	bts_close(bed.db);
	options.map_bytes = 1 << 20; /* too small for what is there: said, not taken for damage */
	assert_int_equal(bts_open(bed.path, &options, &bed.db, &bed.error), BTS_OK);
	txn = bed_begin(&bed, BTS_READ);
	for (unsigned i = 0; i + 1 < count && err != BTS_LIMIT; i++) {
		snprintf(key, sizeof(key), "%u", i);
		err = bts_bucket(txn, bed_text("b"), 0, &bucket, NULL);
		if (err == BTS_OK)
			err = bts_get(txn, bucket, bed_text(key), &found);
		assert_true(err == BTS_OK || err == BTS_LIMIT);
	}
	assert_int_equal(err, BTS_LIMIT);
	bts_abort(txn);
	bts_close(bed.db);
	bed_open(&bed);
	bed_set(&bed, "b", "k", "v");
	bed_fini(&bed);
}

static void buckets(void **state)
{
	struct bed bed;
	struct bts_txn *txn, *reader;
	struct bts_bucket_info info;
	bts_txid before;

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	bed_bucket(txn, "empty");
	bed_put(txn, "one", "k", "1");
	bed_put(txn, "two", "k", "2");
	bed_commit(&bed, txn);
	bed_reopen(&bed);
	before = bed_stat(&bed).txid;
	txn = bed_begin(&bed, BTS_WRITE);
	bed_bucket(txn, "empty"); /* there already: no change, no commit */
	bed_commit(&bed, txn);
	assert_int_equal(bed_stat(&bed).txid, before);
	txn = bed_begin(&bed, BTS_WRITE); /* all or nothing, over several buckets */
	bed_put(txn, "one", "k", "changed");
	bed_put(txn, "three", "k", "new");
	assert_int_equal(bts_bucket_drop(txn, bed_text("two"), NULL), BTS_OK);
	bts_abort(txn);
	reader = bed_begin(&bed, BTS_READ);
	bed_expect(reader, "one", "k", "1");
	bed_expect(reader, "two", "k", "2");
	bed_expect(reader, "three", "k", NULL);
	assert_int_equal(bts_bucket_next(reader, bed_text(""), &info), BTS_OK);
	assert_memory_equal(info.name.data, "empty", 5);
	assert_int_equal(info.entries, 0);
	bts_abort(reader);
	assert_int_equal(bed_stat(&bed).buckets, 3);
	bed_fini(&bed);
}

/*
 * Keys and values of a read transaction stay where they are and what they are until it ends, whatever is
 * written.
 */
static void borrowed_until_the_end(void **state)
{
	struct bts_slice keys[200], values[200];
	struct bts_cursor *cursor;
	struct bts_txn *txn;
	struct bed bed;
	char text[24];

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	for (unsigned i = 0; i < 200; i++) {
		snprintf(text, sizeof(text), "%04u", i);
		bed_put(txn, "b", text, text);
	}
	bed_commit(&bed, txn);
	txn = bed_begin(&bed, BTS_READ);
	assert_int_equal(bts_cursor_open(txn, bed_find(txn, "b"), &cursor, NULL), BTS_OK);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(bts_cursor_next(cursor, &keys[i], &values[i]), BTS_OK);
	bts_cursor_close(cursor);
	for (unsigned i = 0; i < 400; i++) {
		snprintf(text, sizeof(text), "%04u", i * 37 % 200);
		bed_set(&bed, "b", text, "overwritten, and longer");
	}
	for (unsigned i = 0; i < 200; i++) {
		snprintf(text, sizeof(text), "%04u", i);
		assert_int_equal(keys[i].size, 4);
		assert_int_equal(values[i].size, 4);
		assert_memory_equal(keys[i].data, text, 4);
		assert_memory_equal(values[i].data, text, 4);
	}
	bts_abort(txn);
	bed_fini(&bed);
}

/* A bucket asked for twice in a transaction is one bucket. */
static void shared_bucket_handles(void **state)
{
	struct bts_bucket *one, *two;
	struct bts_slice value;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	one = bed_bucket(txn, "b");
	two = bed_bucket(txn, "b");
	assert_int_equal(bts_put(txn, one, bed_text("k"), bed_text("1"), 0), BTS_OK);
	assert_int_equal(bts_get(txn, two, bed_text("k"), &value), BTS_OK);
	assert_int_equal(bts_put(txn, two, bed_text("k"), bed_text("2"), BTS_PUT_NEW), BTS_EXISTS);
	assert_int_equal(bts_del(txn, two, bed_text("k")), BTS_OK);
	assert_int_equal(bts_get(txn, one, bed_text("k"), &value), BTS_NOT_FOUND);
	assert_int_equal(bts_put(txn, two, bed_text("l"), bed_text("3"), 0), BTS_OK);
	bed_commit(&bed, txn);
	bed_holds(&bed, "b", "k", NULL);
	bed_holds(&bed, "b", "l", "3");
	bed_fini(&bed);
}

static void drop_returns_all_pages(void **state)
{
	static uint8_t value[20000];
	struct bed bed;
	struct bts_txn *txn;
	struct bts_stat stat;
	uint64_t used = 0;

	(void)state;
	bed_init_memory(&bed);
	for (unsigned round = 0; round < 30; round++) {
		txn = bed_begin(&bed, BTS_WRITE);
		for (unsigned i = 0; i < 500; i++) {
			char key[16];

			snprintf(key, sizeof(key), "%u", i);
			assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), bed_text(key),
						 (struct bts_slice){value, i % 100 ? i : sizeof(value)}, 0),
				BTS_OK);
		}
		bed_commit(&bed, txn);
		txn = bed_begin(&bed, BTS_WRITE);
		assert_int_equal(bts_bucket_drop(txn, bed_text("b"), NULL), BTS_OK);
		bed_commit(&bed, txn);
		stat = bed_stat(&bed);
		used = stat.pages - stat.first_page - stat.free_pages;
		assert_true(used < 12); /* catalog, history, free log */
		assert_true(round < 5 || stat.pages < 1200);
	}
	bed_fini(&bed);
}

static struct bts_slice number_key(char key[16], uint64_t number)
{
	snprintf(key, 16, "%08" PRIu64, number);
	return bed_text(key);
}

static void fill(struct bed *bed, struct rng *rng, unsigned mode)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	struct bts_bucket *bucket = bed_bucket(txn, "b");

	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];
		uint64_t number = mode == 0 ? i : mode == 1 ? KEYS - i : rng_below(rng, 10 * KEYS);

		assert_int_equal(
			bts_put(txn, bucket, number_key(key, number), bed_text("some value or other"), 0),
			BTS_OK);
	}
	bed_commit(bed, txn);
}

/* Delete all but `leave` entries in random order, in steps, reading what is left in order. */
static void empty(struct bed *bed, struct rng *rng, uint64_t leave)
{
	uint64_t left = UINT64_MAX;

	while (left > leave) {
		struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
		struct bts_bucket *bucket = bed_bucket(txn, "b");
		struct bts_bucket_info info;
		struct bts_cursor *cursor;
		struct bts_slice key;

		assert_int_equal(bts_bucket_info(txn, bucket, &info), BTS_OK);
		left = info.entries;
		assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
		while (bts_cursor_next(cursor, &key, NULL) == BTS_OK && left > leave) {
			uint8_t copy[16];

			if (rng_one_in(rng, 2))
				continue;
			memcpy(copy, key.data, key.size);
			assert_int_equal(bts_del(txn, bucket, (struct bts_slice){copy, key.size}), BTS_OK);
			left--;
		}
		bts_cursor_close(cursor);
		bed_commit(bed, txn);
		bed_check(bed);
	}
}

static void fill_and_empty(void **state)
{
	struct bts_stat stat;
	struct bed bed;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	bed_init_memory(&bed);
	for (unsigned round = 0; round < 6; round++) {
		fill(&bed, &rng, round % 3);
		bed_check(&bed);
		if (round % 2)
			bed_reopen(&bed);
		empty(&bed, &rng, round == 4 ? 1 : 0);
		stat = bed_stat(&bed);
		assert_true(stat.pages - stat.first_page - stat.free_pages < 12);
	}
	bed_fini(&bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_and_values),
		cmocka_unit_test(an_empty_tree),
		cmocka_unit_test(what_is_refused),
		cmocka_unit_test(the_error_is_of_the_last_failure),
		cmocka_unit_test(ends_are_told),
		cmocka_unit_test(a_note_of_a_note),
		cmocka_unit_test(large_values),
		cmocka_unit_test(a_small_address_range),
		cmocka_unit_test(buckets),
		cmocka_unit_test(borrowed_until_the_end),
		cmocka_unit_test(shared_bucket_handles),
		cmocka_unit_test(drop_returns_all_pages),
		cmocka_unit_test(fill_and_empty),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
