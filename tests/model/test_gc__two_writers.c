/*
 * Growth where several handles write one file: each has its own picture of what is free and learns from the
 * others what they took and gave back.  No page may be lost between them, nor taken twice: the file stays as
 * large as it is (gc_kept), whoever writes, in turns short and long, coming and going; with an idle reader it
 * costs that snapshot once.
 *
 * In memory, where handles are like processes.  Arguments: seed.
 */
#include "gc_field.h"

static uint64_t seed;

static void join(struct gc_field *f, struct bed *bed)
{
	*bed = f->bed;
	bed_open(bed);
}

/* All agree about how large the file is, and what they agree about is true. */
static void expect_agreed(struct gc_field *f, struct bed *other)
{
	struct bts_stat one = bed_stat(&f->bed), two = bed_stat(other);

	assert_int_equal(one.pages, two.pages);
	assert_int_equal(one.free_pages, two.free_pages);
	assert_int_equal(one.txid, two.txid);
	gc_verify(f, other);
	bed_check(other);
}

static void expect_flat(struct gc_field *f, const char *what, const struct bts_stat *before)
{
	struct bts_stat after = bed_stat(&f->bed);

	gc_print(what, f->commits, before, &after);
	assert_true(after.pages <= before->pages + gc_kept(f->commits));
	assert_true(after.pinned_pages < 64);
}

static void one_after_the_other(void **state)
{
	struct bts_stat before;
	struct gc_field f;
	struct bed other;

	(void)state;
	gc_init(&f, seed);
	join(&f, &other);
	before = bed_stat(&f.bed);
	for (unsigned i = 0; i < GC_COMMITS; i++)
		gc_commit(&f, rng_one_in(&f.rng, 2) ? &f.bed : &other, 1);
	expect_flat(&f, "in turns", &before);
	expect_agreed(&f, &other);
	bts_close(other.db);
	gc_fini(&f);
}

/* One writes so long that what it tells has been overwritten when the other comes to read it. */
static void one_long_after_the_other(void **state)
{
	struct bts_stat before;
	struct gc_field f;
	struct bed other;

	(void)state;
	gc_init(&f, seed);
	join(&f, &other);
	before = bed_stat(&f.bed);
	for (unsigned turn = 1; turn <= GC_COMMITS / 5; turn = turn * 2 + 1) {
		gc_commit(&f, &f.bed, turn);
		gc_commit(&f, &other, 1);
		gc_commit(&f, &f.bed, 1);
		gc_commit(&f, &other, turn);
	}
	expect_flat(&f, "in longer and longer turns", &before);
	expect_agreed(&f, &other);
	bts_close(other.db);
	gc_fini(&f);
}

static void coming_and_going(void **state)
{
	struct bts_stat before;
	struct gc_field f;
	struct bed other;

	(void)state;
	gc_init(&f, seed);
	before = bed_stat(&f.bed);
	for (unsigned visit = 0; visit < 40; visit++) {
		join(&f, &other);
		for (unsigned i = 0; i < GC_COMMITS / 100; i++)
			gc_commit(&f, rng_one_in(&f.rng, 2) ? &f.bed : &other, 1);
		if (visit % 3 == 0) { /* who was there first leaves, who came stays */
			bts_close(f.bed.db);
			f.bed.db = other.db;
		} else {
			bts_close(other.db);
		}
	}
	expect_flat(&f, "coming and going", &before);
	gc_verify(&f, &f.bed);
	gc_fini(&f);
}

static void with_an_idle_reader(void **state)
{
	struct bts_stat before, during;
	struct bed other, reader;
	struct gc_field f;
	struct gc_pin pin;

	(void)state;
	gc_init(&f, seed);
	join(&f, &other);
	join(&f, &reader);
	before = bed_stat(&f.bed);
	gc_pin(&f, &reader, &pin);
	for (unsigned i = 0; i < GC_COMMITS / 100; i++)
		gc_commit(&f, rng_one_in(&f.rng, 2) ? &f.bed : &other, (unsigned)rng_below(&f.rng, 200));
	during = bed_stat(&f.bed);
	gc_print("with an idle reader", f.commits, &before, &during);
	assert_true(during.pages * 2 <= before.pages * 5);
	expect_agreed(&f, &other);
	gc_unpin(&pin);
	f.commits = 0;
	for (unsigned i = 0; i < GC_COMMITS / 5; i++)
		gc_commit(&f, rng_one_in(&f.rng, 2) ? &f.bed : &other, 1);
	assert_int_equal(bed_stat(&f.bed).pages, during.pages);
	expect_agreed(&f, &other);
	bts_close(reader.db);
	bts_close(other.db);
	gc_fini(&f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_after_the_other),
		cmocka_unit_test(one_long_after_the_other),
		cmocka_unit_test(coming_and_going),
		cmocka_unit_test(with_an_idle_reader),
	};

	seed = rng_seed_from(argc, argv, 4);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
