/*
 * Random writers, and a deadline that does what it likes: deadline_run.c.
 *
 * Usage: test_deadline__random [seed [how many]].
 */
#include "cmocka.h"

#include "deadline_run.h"
#include "rng.h"

#define SEEDS 40u

static uint64_t seed;
static unsigned seeds = SEEDS;

static void test_random(void **state)
{
	struct deadline_counts sum = {0}, one;

	(void)state;
	for (unsigned i = 0; i < seeds; i++) {
		deadline_run(seed + i, 1, &one);
		if (one.findings)
			fail_msg("seed %llu: %u findings", (unsigned long long)(seed + i), one.findings);
		sum.done += one.done;
		sum.refused += one.refused;
		sum.unknown += one.unknown;
	}
	printf("deadline: %u commits done, %u refused, %u unknown\n", sum.done, sum.refused, sum.unknown);
	assert_true(sum.done > seeds && sum.refused > seeds && sum.unknown > seeds);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

	seed = rng_seed_from(argc, argv, 1);
	if (argc > 2)
		seeds = (unsigned)strtoul(argv[2], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
