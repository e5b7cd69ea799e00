/*
 * T1: power loss and kill -9 at every write, flush, cut and link of random scripts; see crash.h.
 *
 * Usage: test_crash__commit [seed [scripts [steps]]].  The last line says what was judged.
 */
#include "crash.h"

#define SCRIPTS 40u
#define STEPS 16u

int main(int argc, char **argv)
{
	uint64_t seed = rng_seed_from(argc, argv, 1);
	unsigned scripts = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : SCRIPTS;
	unsigned steps = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : STEPS;
	struct crash crash;
	struct crash_counts *counts = &crash.counts;

	setvbuf(stdout, NULL, _IOLBF, 0);
	crash_init(&crash);
	for (unsigned i = 0; i < scripts && !crash.bad; i++)
		crash_script(&crash, seed + i, steps, i % 8 == 7);
	printf("crash: %" PRIu64 " distinct images of %" PRIu64 " made at %" PRIu64 " moments, %" PRIu64
	       " in second crashes, %" PRIu64 " kills, %" PRIu64 " commits, %" PRIu64
	       " failed flushes or writes, %" PRIu64 " bad\n",
		counts->distinct, counts->images, counts->moments, counts->second, counts->kills,
		counts->commits, counts->refused, crash.bad);
	crash_fini(&crash);
	return crash.bad != 0;
}
