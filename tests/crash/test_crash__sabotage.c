/*
 * Does the crash suite notice?  This executable holds an engine in which one rule of DESIGN.md can be dropped
 * (base/fault.h); for each of them the suite must find something wrong, and nothing when none is dropped.
 *
 * Usage: test_crash__sabotage [seed [rule]].
 */
#include "crash.h"

#include <fault.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define SCRIPTS_CLEAN 3u
#define SCRIPTS 60u
#define STEPS 16u

unsigned fault_sabotage;

static const char *const rule_names[FAULT_RULES] = {
	[FAULT_NONE] = "no rule dropped",
	[FAULT_I1_FREE_EARLY] = "I1 free early",
	[FAULT_I1_NO_READERS] = "I1 without asking readers",
	[FAULT_I2_SLOT_OF_D] = "I2 write the slot of D",
	[FAULT_I3_NO_VERIFY] = "I3 manifest not verified",
	[FAULT_I3_NO_MANIFEST] = "I3 empty manifest",
	[FAULT_I3_NO_PREFLUSH] = "I3 two-flush without the first",
	[FAULT_I4_NO_JUMP] = "I4 no jump",
	[FAULT_I5_RELABEL] = "I5 relabelled slot",
	[FAULT_I6_NO_REWRITE] = "I6 nothing rewritten",
	[FAULT_I7_IGNORE_FLUSH] = "I7 failed flush ignored",
	[FAULT_I8_PUBLISH_EARLY] = "I8 published before the flush",
	[FAULT_I9_FOREIGN_MODE] = "I9 mode of the other slot",
	[FAULT_I10_NO_SEAL] = "I10 no seal",
	[FAULT_I11_LINK_EARLY] = "I11 linked before the flush",
	[FAULT_G2_FREE_HELD] = "G2 free what snapshots hold",
	[FAULT_G3_NO_ORPHANS] = "G3 deleted snapshots leak",
	[FAULT_G3_NO_FRONTIER] = "G3 free what the head shares",
	[FAULT_G5_NO_READERS] = "G5 rebuilt without readers",
	[FAULT_M2_NUMBERS_AGAIN] = "M2 a dead builder's numbers",
	[FAULT_M2_NO_INHERIT] = "M2 orphaned flush lock ignored",
	[FAULT_MANIFEST_RETIRED] = "I3 retired pages in the manifest",
	[FAULT_MANIFEST_OWN] = "I3 manifest of the last alone",
	[FAULT_RING_NO_TAKE] = "ring: takes not applied",
	[FAULT_RING_NO_RETIRE] = "ring: retires not applied",
	[FAULT_REBUILD_ON_TIP] = "ring: rebuilt on the tip",
	[FAULT_I8_D_BEFORE_HEAD] = "I8 D before the head",
	[FAULT_I8_SHIP_AT_HEAD] = "I8 shipped at the head",
	[FAULT_I8_SHOW_WAITING] = "I8 shown beside waiting commits",
	[FAULT_C1_NO_LAST_DELETE] = "C1 range delete without trace",
	[FAULT_SAVEPOINT_LOG] = "savepoint keeps the log",
};

/*
 * A switch between two stores shows two of them: test_interleave__sabotage has these.  The other matters when a flush fails and its
 * process dies before it has said so, which no test here does: else the tip is written over what the dead one left.
 */
static bool rule_elsewhere(unsigned rule)
{
	return rule == FAULT_M2_NO_INHERIT || rule == FAULT_I8_D_BEFORE_HEAD || rule == FAULT_G1_NO_LOOK;
}

static enum crash_kind rule_kind(unsigned rule, unsigned script)
{
	if (rule >= FAULT_G5_NO_READERS)
		return CRASH_MANY;
	if (rule == FAULT_I3_NO_PREFLUSH || script % 3 == 2)
		return CRASH_BIG;
	return script % 3 || rule != FAULT_NONE ? CRASH_DENSE : CRASH_MANY;
}

/* In a process of its own: a broken engine may well die. */
static int rule_run(unsigned rule, uint64_t seed)
{
	unsigned scripts = rule == FAULT_NONE ? SCRIPTS_CLEAN : SCRIPTS;
	struct crash crash;

	fault_sabotage = rule;
	crash_init(&crash);
	crash.stop = true;
	if (rule >= FAULT_G3_NO_FRONTIER) /* what is wrong is seen in most images, or in the script itself */
		crash.sparse = 12;
	for (unsigned i = 0; i < scripts && !crash.bad; i++)
		crash_script(&crash, seed + i, STEPS, rule_kind(rule, i));
	printf("%-32s %" PRIu64 " images: %s\n", rule_names[rule], crash.counts.distinct,
		crash.bad ? crash.first : "nothing found");
	fflush(stdout);
	return crash.bad != 0;
}

static bool rule_holds(unsigned rule, uint64_t seed)
{
	pid_t child;
	int status;

	fflush(stdout);
	child = fork();
	if (child == 0)
		_exit(rule_run(rule, seed));
	if (child < 0 || waitpid(child, &status, 0) != child)
		return false;
	if (WIFSIGNALED(status))
		printf("%-32s died of %s\n", rule_names[rule], strsignal(WTERMSIG(status)));
	return (WIFEXITED(status) && WEXITSTATUS(status) == 0) == (rule == FAULT_NONE);
}

int main(int argc, char **argv)
{
	uint64_t seed = rng_seed_from(argc, argv, 1);
	unsigned only = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : FAULT_RULES;
	unsigned missed = 0, count = 0;

	for (unsigned rule = 0; rule < FAULT_RULES; rule++) {
		if (rule_elsewhere(rule) || (only < FAULT_RULES && rule != only))
			continue;
		count += rule != FAULT_NONE;
		if (!rule_holds(rule, seed)) {
			printf("NOT NOTICED: %s\n", rule_names[rule]);
			missed++;
		}
	}
	printf("sabotage: %u of %u rules dropped were noticed\n", count - missed, count);
	return missed != 0;
}
