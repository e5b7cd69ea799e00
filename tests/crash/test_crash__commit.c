/*
 * T1: power loss and kill -9 at every write, flush, cut and link of random scripts; see crash.h.
 *
 * Usage: test_crash__commit [seed [scripts [steps [kind [sparse]]]]].  The last line says what was judged.
 */
#include "crash.h"

#ifdef __SANITIZE_ADDRESS__ /* ten times slower */
#define SCRIPTS 3u
#define MANY 2u
#define STEPS 3u
#else
#define SCRIPTS 12u
#define MANY 32u /* further ones of several handles, with images of one moment in SPARSE */
#define STEPS 16u
#endif

#define SPARSE 12u

static const unsigned kinds[8] = {
	[1] = CRASH_LONG, [2] = CRASH_BIG, [3] = CRASH_MANY, [5] = CRASH_MANY, [7] = CRASH_MANY};

int main(int argc, char **argv)
{
	uint64_t seed = rng_seed_from(argc, argv, 1);
	unsigned scripts = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : SCRIPTS;
	unsigned steps = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : STEPS;
	unsigned kind = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) : CRASH_KINDS;
	struct crash crash;
	struct crash_counts *counts = &crash.counts;

	crash_init(&crash);
	crash.sparse = argc > 5 ? (unsigned)strtoul(argv[5], NULL, 0) : 0;
	fflush(stdout);
	for (unsigned i = 0; i < scripts && !crash.bad; i++)
		crash_script(&crash, seed + i, steps, kind < CRASH_KINDS ? kind : kinds[i % 8]);
	if (argc < 3)
		crash.sparse = SPARSE;
	for (unsigned i = 0; i < MANY && argc < 3 && !crash.bad; i++)
		crash_script(&crash, seed + 1000 + i, steps, CRASH_MANY);
	printf("crash: %" PRIu64 " distinct images of %" PRIu64 " made at %" PRIu64 " moments, %" PRIu64
	       " in second crashes, %" PRIu64 " kills, %" PRIu64 " commits, %" PRIu64
	       " failed flushes or writes, %" PRIu64 " cuts of the file, %" PRIu64
	       " deaths of one of several, %" PRIu64 " batches built ahead, %" PRIu64
	       " within a flush, %" PRIu64 " bad\n",
		counts->distinct, counts->images, counts->moments, counts->second, counts->kills,
		counts->commits, counts->refused, counts->cuts, counts->deaths, counts->batches,
		counts->overtaken, crash.bad);
	crash_fini(&crash);
	return crash.bad != 0;
}
