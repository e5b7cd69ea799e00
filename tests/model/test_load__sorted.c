/*
 * Bulk loads against puts: the same content, checked by the invariants of the tree, in empty and in other buckets, through
 * aborts, failures, groups and replays.
 */
#include "bed.h"
#include "tree_bed.h"
#include "tree_load.h"

#include <rng.h>

static uint64_t load_seed;

struct load_set {
	unsigned key_max, value_max;
	unsigned large_every; /* 0: never */
	bool late;	      /* keys differ in their last bytes, so that separators are long */
};

/* Ascending with number, of any length up to the maximum. */
static struct bts_slice load_key(const struct load_set *set, unsigned number, uint8_t key[BTS_KEY_MAX])
{
	size_t size = set->late ? set->key_max : 8 + number * 7919u % (set->key_max - 7);

	memset(key, 'k', size);
	for (int i = 0; i < 4; i++)
		key[set->late ? size - 4 + (size_t)i : (size_t)i] = (uint8_t)(number >> (24 - 8 * i));
	return (struct bts_slice){key, size};
}

static struct bts_slice load_value(const struct load_set *set, unsigned number, uint8_t *value)
{
	size_t size = number * 104729u % (set->value_max + 1);

	if (set->large_every && number % set->large_every == 1)
		size += 5000;
	memset(value, (int)(number * 31), size);
	return (struct bts_slice){value, size};
}

static void load_entries(struct bts_load *load, const struct load_set *set, unsigned from, unsigned to)
{
	uint8_t key[BTS_KEY_MAX], value[10000];

	for (unsigned i = from; i < to; i++)
		assert_int_equal(
			bts_load_add(load, load_key(set, i, key), load_value(set, i, value)), BTS_OK);
}

static void load_holds(struct bts_txn *txn, const struct load_set *set, unsigned from, unsigned to)
{
	uint8_t key[BTS_KEY_MAX], value[10000];
	struct bts_bucket *bucket = bed_find(txn, "b");
	struct bts_bucket_info info;
	struct bts_cursor *cursor;
	struct bts_slice k, v;
	uint64_t bytes = 0;
	enum bts_err err;

	assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
	err = bts_cursor_first(cursor, &k, &v);
	for (unsigned i = from; i < to; i++) {
		struct bts_slice wanted = load_key(set, i, key), content = load_value(set, i, value);

		assert_int_equal(err, BTS_OK);
		assert_int_equal(k.size, wanted.size);
		assert_memory_equal(k.data, wanted.data, k.size);
		assert_int_equal(v.size, content.size);
		assert_memory_equal(v.data, content.data, v.size);
		bytes += k.size + v.size;
		err = bts_cursor_next(cursor, &k, &v);
	}
	assert_int_equal(err, BTS_NOT_FOUND);
	bts_cursor_close(cursor);
	assert_int_equal(bts_bucket_info(txn, bucket, &info), BTS_OK);
	assert_int_equal(info.entries, to - from);
	assert_int_equal(info.bytes, bytes);
}

static struct bts_load *load_open(struct bts_txn *txn, unsigned fill)
{
	struct bts_load *load;

	assert_int_equal(bts_load_begin(txn, bed_bucket(txn, "b"), fill, &load, NULL), BTS_OK);
	return load;
}

static void load_commit(
	struct bed *bed, const struct load_set *set, unsigned fill, unsigned from, unsigned to)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	struct bts_load *load = load_open(txn, fill);

	load_entries(load, set, from, to);
	assert_int_equal(bts_load_end(load, NULL), BTS_OK);
	bed_commit(bed, txn);
}

/* Loads of random sizes one behind the other, with puts and deletes of other keys in between. */
static void appended(void **state)
{
	static const struct load_set sets[] = {{12, 40, 0, false}, {1024, 0, 0, false}, {1024, 900, 9, false},
		{30, 1024, 50, false}, {8, 0, 0, false}, {1024, 0, 0, true}, {800, 100, 0, true}};
	struct rng rng;

	(void)state;
	for (unsigned round = 0; round < 35; round++) {
		const struct load_set *set = &sets[round % 7];
		unsigned at = 0, gone = 0;
		struct bts_txn *txn;
		struct bed bed;

		rng_init(&rng, load_seed + round);
		bed_init_memory(&bed);
		for (unsigned part = 0; part < 6; part++) {
			unsigned end = at + (unsigned)rng_below(&rng, rng_one_in(&rng, 2) ? 20 : 1200);
			uint8_t key[BTS_KEY_MAX], value[10000];

			load_commit(&bed, set, part % 2 ? 50 + (unsigned)rng_below(&rng, 51) : 0, at, end);
			bed_check(&bed);
			at = end;
			txn = bed_begin(&bed, BTS_WRITE);
			for (unsigned i = 0; i < 30; i++, at++) /* appended by puts, in the same pages */
				assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), load_key(set, at, key),
							 load_value(set, at, value), 0),
					BTS_OK);
			while (rng_one_in(&rng, 3) ? 0
						   : gone < at && rng_below(&rng, 60)) { /* from the left */
				assert_int_equal(
					bts_del(txn, bed_bucket(txn, "b"), load_key(set, gone, key)), BTS_OK);
				gone++;
			}
			if (rng_one_in(&rng, 2)) { /* in one transaction with them */
				struct bts_load *load = load_open(txn, 0);

				load_entries(load, set, at, at + 100);
				assert_int_equal(bts_load_end(load, NULL), BTS_OK);
				at += 100;
			}
			load_holds(txn, set, gone, at);
			bed_commit(&bed, txn);
			bed_check(&bed);
		}
		txn = bed_begin(&bed, BTS_READ);
		load_holds(txn, set, gone, at);
		bts_abort(txn);
		bed_fini(&bed);
	}
}

/* Full pages are full, half ones half. */
static void filled(void **state)
{
	const struct load_set set = {12, 88, 0, false};
	struct bts_bucket_info info;
	uint64_t pages[2];
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		bed_init_memory(&bed);
		load_commit(&bed, &set, i ? 50 : 100, 0, 20000);
		txn = bed_begin(&bed, BTS_READ);
		assert_int_equal(bts_bucket_info(txn, bed_find(txn, "b"), &info), BTS_OK);
		pages[i] = info.pages;
		bts_abort(txn);
		bed_fini(&bed);
	}
	/* cells of 8 + 8 bytes, keys of 10 and values of 44 on average: 70 bytes of 4048 */
	assert_in_range(pages[0], 20000 / 57, 20000 / 54);
	assert_in_range(pages[1], pages[0] * 19 / 10, pages[0] * 22 / 10);
}

static void refused(void **state)
{
	const struct load_set set = {20, 300, 7, false};
	struct bts_error error = {0};
	struct bts_bucket *bucket;
	struct bts_stream *stream;
	struct bts_load *load, *second;
	uint32_t point;
	uint8_t key[BTS_KEY_MAX], value[10000];
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	load_commit(&bed, &set, 0, 0, 500);
	txn = bed_begin(&bed, BTS_WRITE);
	bucket = bed_find(txn, "b");
	assert_int_equal(bts_load_begin(txn, bucket, 49, &load, &error), BTS_INVALID);
	assert_int_equal(bts_load_begin(txn, bucket, 101, &load, &error), BTS_INVALID);
	assert_int_equal(bts_put_begin(txn, bucket, bed_text("s"), 3, 0, &stream, NULL), BTS_OK);
	load = load_open(txn, 0);
	/* present, below, and equal to one just added */
	assert_int_equal(
		bts_load_add(load, load_key(&set, 499, key), load_value(&set, 1, value)), BTS_INVALID);
	assert_int_equal(bts_load_add(load, load_key(&set, 3, key), load_value(&set, 1, value)), BTS_INVALID);
	load_entries(load, &set, 500, 510);
	assert_int_equal(
		bts_load_add(load, load_key(&set, 509, key), load_value(&set, 8, value)), BTS_INVALID);
	assert_int_equal(
		bts_load_add(load, (struct bts_slice){key, 4}, load_value(&set, 8, value)), BTS_INVALID);
	assert_non_null(strstr(bts_txn_error(txn)->text, "\\x00\\x00\\x01\\xfd"));
	assert_int_equal(
		bts_load_add(load, (struct bts_slice){key, 0}, load_value(&set, 1, value)), BTS_INVALID);
	assert_int_equal(bts_put(txn, bucket, bed_text("p"), bed_text("v"), 0), BTS_INVALID);
	assert_int_equal(bts_del(txn, bucket, load_key(&set, 3, key)), BTS_INVALID);
	assert_int_equal(bts_bucket_set_meta(txn, bucket, bed_text("m")), BTS_INVALID);
	assert_int_equal(bts_bucket_drop(txn, bed_text("b"), NULL), BTS_INVALID);
	assert_int_equal(bts_load_begin(txn, bucket, 0, &second, NULL), BTS_INVALID);
	assert_int_equal(bts_put_write(stream, bed_text("abc")), BTS_INVALID);
	bts_put_abort(stream);
	load_entries(load, &set, 510, 1000);
	assert_int_equal(bts_savepoint(txn, &point, NULL), BTS_INVALID);
	bts_load_abort(load);
	load_holds(txn, &set, 0, 500);
	assert_int_equal(bts_savepoint(txn, &point, NULL), BTS_OK);
	load = load_open(txn, 0);
	load_entries(load, &set, 500, 900);
	assert_int_equal(bts_savepoint_rollback(txn, point, NULL), BTS_OK); /* drops it */
	load = load_open(txn, 0);
	load_entries(load, &set, 500, 900);
	assert_int_equal(bts_load_end(load, NULL), BTS_OK);
	load_holds(txn, &set, 0, 900);
	assert_int_equal(bts_savepoint_rollback(txn, point, NULL), BTS_OK);
	load_holds(txn, &set, 0, 500);
	load = load_open(txn, 0);
	load_entries(load, &set, 500, 600);
	assert_int_equal(bts_load_end(load, NULL), BTS_OK);
	load = load_open(txn, 0); /* left open: dropped by the commit */
	load_entries(load, &set, 600, 900);
	bed_commit(&bed, txn);
	txn = bed_begin(&bed, BTS_READ);
	load_holds(txn, &set, 0, 600);
	assert_int_equal(bts_load_begin(txn, bed_find(txn, "b"), 0, &load, NULL), BTS_INVALID);
	bts_abort(txn);
	bed_fini(&bed);
}

/* In a group, kept and aborted; and replayed on a newer state, where it may conflict. */
static void replayed(void **state)
{
	const struct load_set set = {20, 300, 7, false};
	struct bts_group *group;
	struct bts_load *load;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	load_commit(&bed, &set, 0, 0, 100);
	assert_int_equal(bts_group_begin(bed.db, &group, NULL), BTS_OK);
	for (unsigned i = 0; i < 6; i++) { /* each third: the load aborted, the transaction aborted, kept */
		unsigned at = 100 + i / 3 * 100;

		assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
		load = load_open(txn, 0);
		load_entries(load, &set, at, at + 100);
		if (i % 3 == 0)
			bts_load_abort(load);
		else
			assert_int_equal(bts_load_end(load, NULL), BTS_OK);
		if (i % 3 == 1)
			bts_abort(txn);
		else
			bed_commit(&bed, txn);
	}
	assert_int_equal(bts_group_commit(group, NULL), BTS_OK);
	bed_check(&bed);
	txn = bed_begin(&bed, BTS_READ);
	load_holds(txn, &set, 0, 300);
	bts_abort(txn);

	txn = bed_begin(&bed, BTS_WRITE);
	load = load_open(txn, 0);
	load_entries(load, &set, 300, 900);
	bts_load_abort(load); /* out of the log, too */
	load = load_open(txn, 0);
	load_entries(load, &set, 300, 700);
	assert_int_equal(bts_load_end(load, NULL), BTS_OK);
	bed_set(&bed, "c", "k", "v"); /* so that the log is replayed */
	bed_commit(&bed, txn);
	bed_check(&bed);
	txn = bed_begin(&bed, BTS_READ);
	load_holds(txn, &set, 0, 700);
	bts_abort(txn);

	txn = bed_begin(&bed, BTS_WRITE);
	load = load_open(txn, 0);
	load_entries(load, &set, 700, 800);
	assert_int_equal(bts_load_end(load, NULL), BTS_OK);
	load_commit(&bed, &set, 0, 700, 701);
	assert_int_equal(bts_commit(txn, NULL), BTS_CONFLICT);
	bts_abort(txn);
	bed_fini(&bed);
}

/* Each allocation of a load fails once: the call says so, and an end or an abort of what is there is sound. */
static void no_memory(void **state)
{
	const struct load_set set = {60, 400, 9, false};
	uint8_t key[BTS_KEY_MAX], value[10000];
	unsigned failures = 0;

	(void)state;
	for (unsigned nth = 1;; nth++) {
		struct bts_load *load;
		struct bts_txn *txn;
		struct bed bed;
		unsigned at = 300;
		enum bts_err err;

		bed_init_memory(&bed);
		load_commit(&bed, &set, 0, 0, 300);
		txn = bed_begin(&bed, BTS_WRITE);
		bed_bucket(txn, "b");
		env_mem_fail_memory(bed.mem, nth, 0);
		err = bts_load_begin(txn, bed_find(txn, "b"), 0, &load, NULL);
		if (err == BTS_OK) {
			for (; at < 600 && err == BTS_OK; at += err == BTS_OK)
				err = bts_load_add(
					load, load_key(&set, at, key), load_value(&set, at, value));
			if (nth % 2 == 0 || err == BTS_OK) {
				enum bts_err end = bts_load_end(load, NULL);

				if (end)
					at = 300;
				err = err ? err : end;
			} else {
				bts_load_abort(load);
				at = 300;
			}
		}
		env_mem_fail_memory(bed.mem, 0, 0);
		assert_true(err == BTS_OK || err == BTS_MEMORY);
		load_holds(txn, &set, 0, at);
		bed_set(&bed, "c", "k", "v");
		bed_commit(&bed, txn);
		bed_check(&bed);
		txn = bed_begin(&bed, BTS_READ);
		load_holds(txn, &set, 0, at);
		bts_abort(txn);
		bed_fini(&bed);
		if (err == BTS_OK)
			break;
		failures++;
	}
	assert_true(failures > 50);
}

/* C1: an absent key that was deleted after a snapshot conflicts, also when a load has appended behind its leaf since. */
static void deleted_before_the_load(void **state)
{
	const struct load_set set = {20, 300, 0, false};
	uint8_t key[BTS_KEY_MAX];
	struct bts_txn *old, *txn;
	struct bts_load *load;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	load_commit(&bed, &set, 0, 0, 5);
	load_commit(&bed, &set, 0, 2000, 2001);
	old = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(
		bts_put(old, bed_find(old, "b"), load_key(&set, 2000, key), bed_text("late"), 0), BTS_OK);
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_del(txn, bed_find(txn, "b"), load_key(&set, 2000, key)), BTS_OK);
	load = load_open(txn, 0);
	load_entries(load, &set, 5, 1900); /* the range of the deleted key is that of another leaf now */
	assert_int_equal(bts_load_end(load, NULL), BTS_OK);
	bed_commit(&bed, txn);
	assert_int_equal(bts_commit(old, NULL), BTS_CONFLICT);
	bts_abort(old);
	bed_fini(&bed);
}

/* An abort gives back every page and value the load has made. */
static void abort_gives_back(void **state)
{
	const struct load_set set = {60, 400, 9, false};
	uint8_t key[BTS_KEY_MAX], value[10000];

	(void)state;
	for (unsigned round = 0; round < 3;
		round++) { /* into nothing, behind clean pages, behind private ones */
		struct tree_bed *bed = tree_bed_new(4096);
		struct tree_load load;

		for (unsigned i = 0; i < 1000 * round; i++)
			assert_int_equal(tree_put(&bed->ctx, &bed->tree, load_key(&set, i, key),
						 load_value(&set, i, value), 1),
				BTS_OK);
		if (round == 1)
			tree_bed_commit(bed);
		assert_int_equal(tree_load_begin(&load, &bed->ctx, &bed->tree, 100), BTS_OK);
		for (unsigned i = 5000; i < 7000; i++) {
			struct bts_slice content = load_value(&set, i, value);
			struct page_ptr made;
			bool large = content.size > 1024;

			if (large)
				assert_int_equal(dirty_extent(&bed->ctx, content, &made), BTS_OK);
			assert_int_equal(tree_load_add(&load, load_key(&set, i, key), content,
						 large ? &made : NULL, 1),
				BTS_OK);
		}
		tree_load_abort(&load);
		tree_bed_check_private(bed);
		tree_bed_commit(bed);
		tree_bed_free(bed);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appended),
		cmocka_unit_test(filled),
		cmocka_unit_test(refused),
		cmocka_unit_test(replayed),
		cmocka_unit_test(no_memory),
		cmocka_unit_test(deleted_before_the_load),
		cmocka_unit_test(abort_gives_back),
	};

	load_seed = rng_seed_from(argc, argv, 20);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
