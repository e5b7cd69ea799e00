/*
 * Small and large values overwritten for long: the file stays near what is in use.  What stays for good (positions of the
 * history) must not wall up the free space into pieces that no large value fits into.
 */
#include "bed.h"

#include <rng.h>

#define KEYS 800u
#ifdef __SANITIZE_ADDRESS__
#define COMMITS 6000u
#else
#define COMMITS 60000u
#endif
#define LARGE 40000u /* bytes, at most */

static uint64_t seed;

static void overwriting(void **state)
{
	static uint8_t value[LARGE];
	struct bts_stat stat;
	struct bed bed;
	struct rng rng;
	uint64_t used;

	(void)state;
	bed_init_memory(&bed);
	rng_init(&rng, seed);
	for (unsigned i = 0; i < COMMITS; i++) {
		struct bts_txn *txn = bed_begin(&bed, BTS_WRITE);
		size_t size = rng_one_in(&rng, 16) ? 2000 + rng_below(&rng, LARGE - 2000) : 8 + rng_below(&rng, 300);
		char key[16];

		snprintf(key, sizeof(key), "%u", (unsigned)rng_below(&rng, KEYS));
		assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), bed_text(key), (struct bts_slice){ value, size }, 0), BTS_OK);
		bed_commit(&bed, txn);
	}
	stat = bed_stat(&bed);
	used = stat.pages - stat.first_page - stat.free_pages;
	printf("%u commits: %llu pages in use, %llu free\n", COMMITS, (unsigned long long)used, (unsigned long long)stat.free_pages);
	assert_true(stat.free_pages < used);
	bed_fini(&bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(overwriting),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
