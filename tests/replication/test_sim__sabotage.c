/*
 * Does the simulated cluster notice?  This executable holds an engine (base/fault.h) and a replicator (sabotage.h) in
 * which one rule can be dropped; for each of them some seed must go wrong, and none when none is dropped.
 *
 * Usage: test_sim__sabotage [seed [rule]].
 */
#include "sim.h"

#include <fault.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sabotage.h"

#define SEEDS_CLEAN 20u
#define SEEDS 400u
#define SECONDS 60u /* one seed that does not end is noticed too */

unsigned fault_sabotage;

static const struct {
	const char *name;
	unsigned rule;
} rules[] = {
	{"no rule dropped", FAULT_NONE},
	{"R1 bytes not held against pointers", FAULT_R1_NO_SUMS},
	{"R1 pages that no root reaches", FAULT_R1_NO_CLOSURE},
	{"R1 slot before its pages", FAULT_R1_NO_FLUSH},
	{"I3 slot with pages believed unseen", FAULT_I3_NO_VERIFY},
	{"R2 home under a reader", FAULT_R2_HOME},
	{"R3 chains not compared", FAULT_R3_NO_CHAIN},
	{"R4 kept pages not looked for", FAULT_R4_NO_GRAFT},
	{"R5 path.pending not flushed", FAULT_R5_NO_FLUSH},
	{"R6 pages of the log looked for at home", FAULT_R6_HOME_FIRST},
	{"R6 brought home under a reader", FAULT_R6_MERGE_READ},
	{"R6 log written again under a reader", FAULT_R6_LOG_READ},
	{"R7 installed before it is durable", FAULT_R7_NO_FLUSH},
	{"R7 acknowledged before it is installed", SABOTAGE_R7_ACK_EARLY},
	{"R8 promises forgotten", FAULT_R8_FORGET},
	{"ahead told to be equal", SABOTAGE_AHEAD_EQUAL},
	{"another history told to be equal", SABOTAGE_UNKNOWN_EQUAL},
	{"frames without sums", SABOTAGE_NO_SUMS},
};

/* In a process of its own: what is broken may well die. */
static void rule_run(unsigned rule, uint64_t seed)
{
	struct sim totals = {0};
	unsigned seeds = rule == FAULT_NONE ? SEEDS_CLEAN : SEEDS;

	fault_sabotage = rule;
	for (unsigned i = 0; i < seeds; i++) {
		alarm(SECONDS);
		sim_run(seed + i, false, &totals);
	}
	printf("nothing found in %u seeds\n", seeds);
	fflush(stdout);
	_exit(0);
}

static bool rule_holds(unsigned index, uint64_t seed)
{
	pid_t child;
	int status;

	printf("%-42s ", rules[index].name);
	fflush(stdout);
	child = fork();
	if (child == 0)
		rule_run(rules[index].rule, seed);
	if (child < 0 || waitpid(child, &status, 0) != child)
		return false;
	if (WIFSIGNALED(status))
		printf("died of %s\n", strsignal(WTERMSIG(status)));
	return (WIFEXITED(status) && WEXITSTATUS(status) == 0) == (rules[index].rule == FAULT_NONE);
}

int main(int argc, char **argv)
{
	uint64_t seed = rng_seed_from(argc, argv, 1);
	size_t count = sizeof(rules) / sizeof(*rules), only = argc > 2 ? strtoul(argv[2], NULL, 0) : count;
	unsigned missed = 0;

	for (unsigned i = 0; i < count; i++) {
		if ((only < count && i != only) || rule_holds(i, seed))
			continue;
		printf("NOT NOTICED: %s\n", rules[i].name);
		missed++;
	}
	printf("sabotage: %zu of %zu rules dropped were noticed\n", count - 1 - missed, count - 1);
	return missed != 0;
}
