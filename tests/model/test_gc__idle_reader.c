/*
 * Growth (promise 4, G1): what a forgotten reader costs is at most the pages of its own snapshot, however
 * many commits come after it; several cost at most the sum of what each alone holds; without one the file is
 * flat, but for what is kept on purpose (gc_kept).
 *
 * What readers may hold is told without asking the allocator: a page that a reader holds, and that neither
 * the reader before it nor the newest commit has, was written between the two readers, and was in use when
 * the later one began.  So each adds at most the smaller of these two.
 *
 * In memory, so that a flush costs nothing; all figures are counts.  Arguments: seed.
 */
#include "gc_field.h"

#define PINS 8u

static uint64_t seed;

static void flat_without_a_reader(void **state)
{
	struct bts_stat before, after;
	struct gc_field f;

	(void)state;
	gc_init(&f, seed);
	before = bed_stat(&f.bed);
	gc_commit(&f, &f.bed, GC_COMMITS);
	after = bed_stat(&f.bed);
	printf("%.2f pages written a put\n",
		(double)(after.pages_written - before.pages_written) / (double)f.commits);
	assert_true(after.pages_written - before.pages_written <= f.commits * UINT64_C(8));
	gc_print("no reader", f.commits, &before, &after);
	assert_true(after.pages <= before.pages + gc_kept(f.commits));
	assert_true(after.file_bytes <= before.file_bytes + gc_kept(f.commits) * after.page_size);
	gc_fini(&f);
}

static void one_idle_reader(void **state)
{
	struct bts_stat before, during, after;
	struct gc_field f;
	struct gc_pin p;

	(void)state;
	gc_init(&f, seed);
	before = bed_stat(&f.bed);
	gc_pin(&f, &f.bed, &p);
	gc_commit(&f, &f.bed, GC_COMMITS);
	during = bed_stat(&f.bed);
	gc_print("one idle reader", f.commits, &before, &during);
	assert_true(during.pages * 2 <= before.pages * 5);
	assert_true(during.file_bytes * 2 <= before.file_bytes * 5);
	bed_check(&f.bed);
	gc_unpin(&p);
	gc_commit(&f, &f.bed, GC_COMMITS / 5);
	after = bed_stat(&f.bed);
	gc_print("and without it", GC_COMMITS / 5, &during, &after);
	assert_int_equal(after.pages, during.pages);
	assert_true(after.pinned_pages < 64);
	gc_fini(&f);
}

static void several_idle_readers(void **state)
{
	struct bts_stat before, after;
	struct gc_pin pins[PINS];
	uint64_t held = 0, written = 0;
	struct bed reader;
	struct gc_field f;

	(void)state;
	gc_init(&f, seed);
	reader = f.bed;
	assert_int_equal(bed_try_open(&f.bed, BTS_OPEN_READ_ONLY, &reader.db), BTS_OK);
	before = bed_stat(&f.bed);
	for (unsigned i = 0; i < PINS; i++) {
		uint64_t now = bed_stat(&f.bed).pages_written, used = gc_used(&f.bed);

		gc_pin(&f, i % 2 ? &reader : &f.bed, &pins[i]);
		held += used < now - written ? used : now - written;
		written = now;
		/* Close together at first, then further and further apart. */
		gc_commit(&f, &f.bed, GC_COMMITS >> (PINS - i));
		after = bed_stat(&f.bed);
		assert_true(after.pages <= before.pages + held + gc_kept(f.commits));
	}
	gc_print("several idle readers", f.commits, &before, &after);
	printf("which may hold %llu pages\n", (unsigned long long)held);
	for (unsigned left = PINS; left > 0; left--) {
		unsigned which = (unsigned)rng_below(&f.rng, left);

		gc_unpin(&pins[which]);
		pins[which] = pins[left - 1];
		gc_commit(&f, &f.bed, GC_COMMITS / 100);
		assert_int_equal(bed_stat(&f.bed).pages, after.pages);
	}
	assert_true(bed_stat(&f.bed).pinned_pages < 64);
	bts_close(reader.db);
	gc_fini(&f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flat_without_a_reader),
		cmocka_unit_test(one_idle_reader),
		cmocka_unit_test(several_idle_readers),
	};

	seed = rng_seed_from(argc, argv, 4);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
