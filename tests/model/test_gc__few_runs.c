/*
 * Random batches in a file that has aged: few separate runs of pages each, not much written beside them, and a file
 * of bounded size; small commits in between stay one run and do not spoil it.
 *
 * In memory: figures are counts of what the engine asked the environment to write.  Arguments: seed.
 */
#include "bed.h"

#include <errno.h>
#include <rng.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer)
#define ENTRIES 20000u
#define BATCH 120u
#define AGE 90u
#define SLACK 2 /* so small a file says little: this build looks for other faults */
#else
#define ENTRIES 200000u
#define BATCH 1000u
#define AGE 150u
#define SLACK 1
#endif
#define SLOTS_END (UINT64_C(64) << 10) /* both meta slots lie before */

static uint64_t seed;

struct aged {
	struct bed bed;
	struct rng rng;
	uint64_t commits, runs, bytes, next; /* of writes behind the slots; where the last one ended */
	uint64_t pages;			     /* bts_stat.pages_written at aged_begin */
	size_t value;			     /* bytes */
};

static void aged_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	struct aged *aged = arg;

	(void)mem;
	if (event->op != ENV_MEM_WRITE || event->offset < SLOTS_END ||
		strcmp(event->path, aged->bed.path) != 0)
		return;
	aged->runs += event->offset != aged->next;
	aged->bytes += event->size;
	aged->next = event->offset + event->size;
}

static void aged_put(struct aged *aged, struct bts_txn *txn, struct bts_bucket *bucket, uint32_t number)
{
	uint64_t state = number, word = rng_splitmix(&state);
	uint8_t key[16] = {0}, value[1000];

	memcpy(key, &word, 8);
	memcpy(key + 8, &number, 4);
	memset(value, (int)rng_below(&aged->rng, 256), aged->value);
	assert_int_equal(bts_put(txn, bucket, (struct bts_slice){key, sizeof(key)},
				 (struct bts_slice){value, aged->value}, 0),
		BTS_OK);
}

/* Random updates, so many in each commit. */
static void aged_update(struct aged *aged, unsigned commits, unsigned batch)
{
	for (unsigned i = 0; i < commits; i++) {
		struct bts_txn *txn = bed_begin(&aged->bed, BTS_WRITE);
		struct bts_bucket *bucket = bed_find(txn, "b");

		for (unsigned k = 0; k < batch; k++)
			aged_put(aged, txn, bucket, (uint32_t)rng_below(&aged->rng, ENTRIES));
		bed_commit(&aged->bed, txn);
	}
	aged->commits += commits;
}

static void aged_begin(struct aged *aged)
{
	aged->commits = aged->runs = aged->bytes = 0;
	aged->pages = bed_stat(&aged->bed).pages_written;
}

/* Since aged_begin: runs a commit and bytes beside the commits' own pages; the file now. */
static void aged_expect(struct aged *aged, const char *what, double most_runs, double most_bytes,
	double most_size)
{
	struct bts_stat stat = bed_stat(&aged->bed);
	uint64_t used = (stat.pages - stat.free_pages + stat.pinned_pages) * stat.page_size;
	double runs = (double)aged->runs / (double)aged->commits;
	double pages = (double)(stat.pages_written - aged->pages);
	double bytes = (double)aged->bytes / (pages * stat.page_size);
	double size = (double)stat.file_bytes / (double)used;

	printf("%s: %.1f runs a commit of %.0f pages, %.2f times its bytes written, file %.2f times what is "
	       "in use\n",
		what, runs, pages / (double)aged->commits, bytes, size);
	assert_true(runs <= most_runs);
	assert_true(bytes <= most_bytes);
	assert_true(size <= most_size);
}

#define TWICE (2.1 + 0.2 * SLACK) /* the file, of what is in use */

static void aged_init(struct aged *aged, size_t value, unsigned batch)
{
	memset(aged, 0, sizeof(*aged));
	aged->value = value;
	rng_init(&aged->rng, seed);
	bed_init_memory(&aged->bed);
	env_mem_set_hook(aged->bed.mem, aged_hook, aged);
	for (uint32_t i = 0; i < ENTRIES;) {
		struct bts_txn *txn = bed_begin(&aged->bed, BTS_WRITE);
		struct bts_bucket *bucket = bed_bucket(txn, "b");

		for (unsigned k = 0; k < batch && i < ENTRIES; k++, i++)
			aged_put(aged, txn, bucket, i);
		bed_commit(&aged->bed, txn);
	}
	aged_update(aged, AGE, batch);
}

static void large_batches(void **state)
{
	struct aged aged;

	(void)state;
	aged_init(&aged, 100, BATCH);
	aged_begin(&aged);
	aged_update(&aged, AGE / 3, BATCH);
	aged_expect(&aged, "large", SLACK * 16, 1.8, TWICE);
	/* Long before the file is used up by holes that only small commits fit in. */
	aged_begin(&aged);
	aged_update(&aged, 20 * AGE, 1);
	aged_expect(&aged, "small", SLACK * 1.5, 1.5, TWICE);
	aged_begin(&aged);
	aged_update(&aged, AGE / 3, BATCH);
	aged_expect(&aged, "large again", SLACK * 30, 1.8, TWICE);
	bed_check(&aged.bed);
	bed_fini(&aged.bed);
}

/*
 * Of middle size, as many writers at once make them: leaves and branches fill segments of their own, and little is moved.  Values
 * are large enough for the file to have such segments in every build.
 */
static void middle_batches(void **state)
{
	static const unsigned batches[] = {8, 32, 128};
	static const double most[] = {5, 12, 10}; /* runs a commit */
	struct aged aged;

	(void)state;
	aged_init(&aged, 20000000 / ENTRIES, BATCH);
	for (unsigned i = 0; i < 3; i++) {
		aged_update(&aged, 40 * AGE / 3, batches[i]);
		aged_begin(&aged);
		aged_update(&aged, AGE, batches[i]);
		printf("%u puts, ", batches[i]);
		aged_expect(&aged, "middle", most[i], 1.05, 2.8);
	}
	bed_check(&aged.bed);
	bed_fini(&aged.bed);
}

/* Where the disk has no more room, nobody asks for it who can do with what is free. */
static void a_full_disk(void **state)
{
	struct aged aged;
	uint64_t size;

	(void)state;
	aged_init(&aged, 20000000 / ENTRIES, 1000); /* large ones: to twice what lives in it */
	env_mem_fail(aged.bed.mem, ENV_MEM_RESERVE, 1, ENOSPC, ENV_MEM_STICKY);
	size = bed_stat(&aged.bed).file_bytes;
	aged_update(&aged, AGE, 8);
	aged_update(&aged, AGE, 31);
	aged_update(&aged, AGE / 3, 100);
	assert_int_equal(bed_stat(&aged.bed).file_bytes, size); /* a page behind it would have made it longer */
	assert_true(env_mem_failed(aged.bed.mem) > 0); /* it was wanted */
	env_mem_fail_clear(aged.bed.mem);
	aged_update(&aged, AGE, 31);
	bed_check(&aged.bed);
	bed_fini(&aged.bed);
}

/* Pages that large values leave and take again are no reason to grow. */
static void among_large_values(void **state)
{
	static uint8_t large[24000];
	struct aged aged;

	(void)state;
	aged_init(&aged, 100, BATCH);
	for (unsigned i = 0; i < 40 * AGE; i++) {
		struct bts_txn *txn = bed_begin(&aged.bed, BTS_WRITE);
		struct bts_bucket *bucket = bed_find(txn, "b");

		for (unsigned k = 0; k < 10; k++) {
			char key[16];

			aged_put(&aged, txn, bucket, (uint32_t)rng_below(&aged.rng, ENTRIES));
			snprintf(key, sizeof(key), "large %u", (unsigned)rng_below(&aged.rng, 4000));
			assert_int_equal(bts_put(txn, bucket, bed_text(key),
						 (struct bts_slice){large, 4000 + rng_below(&aged.rng, 20000)}, 0),
				BTS_OK);
		}
		bed_commit(&aged.bed, txn);
	}
	aged.commits = 1; /* only the size is of interest */
	aged_expect(&aged, "among large values", 1e9, 1e9, 1.6);
	bed_check(&aged.bed);
	bed_fini(&aged.bed);
}

/* What a reader holds stays where it is, and cannot be moved out of the way. */
static void beside_a_reader(void **state)
{
	struct bts_txn *reader;
	struct aged aged;

	(void)state;
	aged_init(&aged, 100, BATCH);
	reader = bed_begin(&aged.bed, BTS_READ);
	aged_update(&aged, AGE / 3, BATCH);
	aged_begin(&aged);
	aged_update(&aged, AGE / 3, BATCH);
	aged_expect(&aged, "beside a reader", SLACK * 260, 2, TWICE);
	bts_abort(reader);
	bed_check(&aged.bed);
	bed_fini(&aged.bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(large_batches),
		cmocka_unit_test(middle_batches),
		cmocka_unit_test(a_full_disk),
		cmocka_unit_test(among_large_values),
		cmocka_unit_test(beside_a_reader),
	};

	seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	printf("seed %llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
