/*
 * The difference of two snapshots is what reading both finds, whatever was done in between and however far apart they are: pairs
 * of pinned snapshots, in either order, named ones, all or one bucket or a range of keys, from the start or resumed anywhere.
 *
 * Argument: seed.
 */
#include "diff_bed.h"

#include <rng.h>

#define BUCKETS 5u
#define KEYS 600u
#define PINS 6u
#define STEPS 250u
#define LARGE 30000u

static uint64_t seed;

struct scene {
	struct bed bed;
	struct rng rng;
	struct bts_txn *pins[PINS];
	uint64_t compared, changes, resumed;
};

static struct bts_slice text_of(char text[16], const char *format, unsigned number)
{
	return (struct bts_slice){text, (size_t)snprintf(text, 16, format, number)};
}

static unsigned below(struct scene *s, unsigned n)
{
	return (unsigned)rng_below(&s->rng, n);
}

static struct bts_slice some_value(struct scene *s)
{
	static char bytes[LARGE];
	size_t size = below(s, 12) == 0 ? below(s, LARGE) : below(s, 120);

	memset(bytes, (int)below(s, 256), size);
	return (struct bts_slice){bytes, size};
}

static void work_in(struct scene *s, struct bts_txn *txn, struct bts_slice name)
{
	struct bts_bucket *bucket;
	char key[16], to[16];
	unsigned n = below(s, 8) == 0 ? 200 : below(s, 12);

	assert_int_equal(bts_bucket(txn, name, BTS_CREATE, &bucket, NULL), BTS_OK);
	if (below(s, 15) == 0)
		assert_int_equal(
			bts_bucket_set_meta(txn, bucket, text_of(key, "note%u", below(s, 3))), BTS_OK);
	if (below(s, 12) == 0) {
		unsigned from = below(s, KEYS);

		assert_int_equal(bts_del_range(txn, bucket, text_of(key, "key%04u", from),
					 text_of(to, "key%04u", from + below(s, 300)), NULL),
			BTS_OK);
	}
	for (unsigned i = 0; i < n; i++) {
		struct bts_slice k = text_of(key, "key%04u", below(s, KEYS));

		if (below(s, 3) == 0) {
			enum bts_err err = bts_del(txn, bucket, k);

			assert_true(err == BTS_OK || err == BTS_NOT_FOUND);
		} else {
			assert_int_equal(bts_put(txn, bucket, k, some_value(s), 0), BTS_OK);
		}
	}
}

static void work(struct scene *s)
{
	struct bts_txn *txn = bed_begin(&s->bed, BTS_WRITE);
	char name[16], other[16];
	enum bts_err err = BTS_OK;

	for (unsigned i = 0; i <= below(s, 3); i++) {
		struct bts_slice bucket = text_of(name, "bucket%u", below(s, BUCKETS));

		if (below(s, 25) == 0)
			err = bts_bucket_drop(txn, bucket, NULL);
		else if (below(s, 40) == 0)
			err = bts_bucket_rename(
				txn, bucket, text_of(other, "bucket%u", below(s, BUCKETS)), NULL);
		else
			work_in(s, txn, bucket);
		assert_true(err == BTS_OK || err == BTS_NOT_FOUND || err == BTS_EXISTS);
	}
	bed_commit(&s->bed, txn);
}

/* Resumed after a change that was told, in a diff of its own. */
static void resume(struct scene *s, struct bts_txn *older, struct bts_txn *newer,
	const struct bts_diff_options *options, const struct diff_list *expected)
{
	size_t at = below(s, (unsigned)expected->count);
	const struct diff_change *change = &expected->items[at];
	struct diff_list found = {0};
	struct bts_diff *diff;

	assert_int_equal(bts_diff_open(older, newer, options, &diff, NULL), BTS_OK);
	assert_int_equal(diff_collect(diff, below(s, 5), &found), BTS_OK);
	found.count = 0;
	assert_int_equal(bts_diff_seek(diff, bed_text(change->bucket), bed_text(change->key), NULL), BTS_OK);
	assert_int_equal(diff_collect(diff, SIZE_MAX, &found), BTS_NOT_FOUND);
	diff_equal(expected, at + 1, &found);
	bts_diff_close(diff);
	diff_list_fini(&found);
	s->resumed++;
}

static void compare(struct scene *s, struct bts_txn *older, struct bts_txn *newer)
{
	struct bts_diff_options options = {.size = sizeof(options)};
	struct diff_list expected = {0}, found = {0};
	char bucket[16], from[16], to[16];
	struct bts_diff *diff;

	if (below(s, 3) == 0)
		options.bucket = text_of(bucket, "bucket%u", below(s, BUCKETS));
	if (below(s, 3) == 0)
		options.from = text_of(from, "key%04u", below(s, KEYS));
	if (below(s, 3) == 0)
		options.to = text_of(to, "key%04u", below(s, KEYS));
	diff_expected(older, newer, &options, &expected);
	assert_int_equal(bts_diff_open(older, newer, &options, &diff, NULL), BTS_OK);
	assert_int_equal(diff_collect(diff, SIZE_MAX, &found), BTS_NOT_FOUND);
	diff_equal(&expected, 0, &found);
	assert_int_equal(diff_collect(diff, 1, &found), BTS_NOT_FOUND);
	bts_diff_close(diff);
	for (unsigned i = 0; i < 3 && expected.count > 5; i++)
		resume(s, older, newer, &options, &expected);
	s->compared++;
	s->changes += expected.count;
	diff_list_fini(&expected);
	diff_list_fini(&found);
}

static void compare_some(struct scene *s)
{
	unsigned a = below(s, PINS), b = below(s, PINS);
	struct bts_txn *older = NULL, *newer = NULL;

	if (!s->pins[a] || !s->pins[b])
		return;
	if (below(s, 10) > 0)
		assert_int_equal(bts_begin_same(s->pins[a], &older, NULL), BTS_OK);
	assert_int_equal(bts_begin_same(s->pins[b], &newer, NULL), BTS_OK);
	compare(s, older, newer);
	bts_abort(older);
	bts_abort(newer);
}

static void compare_named(struct scene *s, const char *name)
{
	struct bts_txn *older, *newer = bed_begin(&s->bed, BTS_READ), *same;

	assert_int_equal(bts_begin_at(s->bed.db, bed_text(name), &older, NULL), BTS_OK);
	compare(s, older, newer);
	assert_int_equal(bts_begin_same(older, &same, NULL), BTS_OK);
	bts_abort(older);
	compare(s, same, newer);
	bts_abort(same);
	bts_abort(newer);
}

static void name_it(struct scene *s, const char *name)
{
	struct bts_txn *txn = bed_begin(&s->bed, BTS_WRITE);

	(void)!bts_snapshot_delete(txn, bed_text(name), NULL);
	assert_int_equal(bts_snapshot_create(txn, bed_text(name), NULL), BTS_OK);
	bed_commit(&s->bed, txn);
}

static void random_pairs(void **state)
{
	struct scene s = {0};

	(void)state;
	bed_init_memory(&s.bed);
	rng_init(&s.rng, seed);
	name_it(&s, "then");
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned pin = below(&s, PINS);

		work(&s);
		if (below(&s, 4) == 0) {
			bts_abort(s.pins[pin]);
			s.pins[pin] = bed_begin(&s.bed, BTS_READ);
		}
		if (below(&s, 20) == 0)
			assert_int_equal(bts_compact_step(s.bed.db, 50, NULL, NULL), BTS_OK);
		if (below(&s, 30) == 0)
			name_it(&s, "then");
		if (below(&s, 8) == 0)
			compare_named(&s, "then");
		compare_some(&s);
	}
	print_message("%llu diffs, %llu changes, %llu resumed\n", (unsigned long long)s.compared,
		(unsigned long long)s.changes, (unsigned long long)s.resumed);
	assert_true(s.compared > STEPS / 2 && s.changes > 10 * s.compared && s.resumed > STEPS / 4);
	for (unsigned i = 0; i < PINS; i++)
		bts_abort(s.pins[i]);
	bed_fini(&s.bed);
}

static void refused(void **state)
{
	struct bts_diff_options options = {.size = sizeof(options)};
	struct bts_change change = {.size = sizeof(change)};
	struct bts_txn *write, *read, *other, *same;
	struct bts_slice value;
	struct bts_diff *diff;
	char name[BTS_KEY_MAX + 1] = {0};
	struct bed bed, second;

	(void)state;
	bed_init_memory(&bed);
	bed_init_memory(&second);
	bed_set(&bed, "b", "k", "v");
	write = bed_begin(&bed, BTS_WRITE);
	read = bed_begin(&bed, BTS_READ);
	other = bed_begin(&second, BTS_READ);
	assert_int_equal(bts_begin_same(write, &same, NULL), BTS_INVALID);
	assert_int_equal(bts_diff_open(read, write, NULL, &diff, NULL), BTS_INVALID);
	assert_int_equal(bts_diff_open(other, read, NULL, &diff, NULL), BTS_INVALID);
	assert_int_equal(bts_diff_open(read, read, NULL, &diff, NULL), BTS_INVALID);
	options.bucket = (struct bts_slice){name, BTS_BUCKET_NAME_MAX + 1};
	assert_int_equal(bts_diff_open(NULL, read, &options, &diff, NULL), BTS_INVALID);
	options = (struct bts_diff_options){.size = sizeof(options), .to = {name, sizeof(name)}};
	assert_int_equal(bts_diff_open(NULL, read, &options, &diff, NULL), BTS_INVALID);
	options = (struct bts_diff_options){.size = 0};
	assert_int_equal(bts_diff_open(NULL, read, &options, &diff, NULL), BTS_INVALID);
	assert_int_equal(bts_diff_open(NULL, read, NULL, &diff, NULL), BTS_OK);
	change.size = 0; /* not set: nothing could be given back */
	assert_int_equal(bts_diff_next(diff, &change, NULL), BTS_INVALID);
	change.size = sizeof(change) + 1;
	assert_int_equal(bts_diff_next(diff, &change, NULL), BTS_INVALID);
	change.size = sizeof(change);
	assert_int_equal(bts_diff_seek(diff, (struct bts_slice){0}, bed_text("k"), NULL), BTS_INVALID);
	assert_int_equal(bts_diff_value(diff, &value, NULL), BTS_INVALID);
	assert_int_equal(bts_diff_next(diff, &change, NULL), BTS_OK);
	assert_int_equal(bts_diff_value(diff, &value, NULL), BTS_INVALID);
	assert_int_equal(bts_diff_next(diff, &change, NULL), BTS_OK);
	assert_int_equal(bts_diff_value(diff, &value, NULL), BTS_OK);
	while (bts_diff_next(diff, &change, &bed.error) == BTS_OK)
		;
	for (unsigned again = 0; again < 2; again++) {
		assert_int_equal(bed.error.code, BTS_NOT_FOUND);
		memset(&bed.error, 0, sizeof(bed.error));
		assert_int_equal(bts_diff_next(diff, &change, &bed.error), BTS_NOT_FOUND);
	}
	bts_diff_close(diff);
	bts_diff_close(NULL);
	bts_abort(write);
	bts_abort(read);
	bts_abort(other);
	bed_fini(&bed);
	bed_fini(&second);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_pairs),
		cmocka_unit_test(refused),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
