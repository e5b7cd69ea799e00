/*
 * Do the interleaving tests notice?  Rules of engine/DESIGN.md that hold between processes are dropped one at a time
 * (base/fault.h); exploring must find something wrong with each, and nothing when none is dropped.
 *
 * Usage: test_interleave__sabotage [seed].
 */
#include "interleave.h"

#include <fault.h>
#include <rng.h>
#include <sys/wait.h>
#include <unistd.h>

#define SCHEDULES 6000u

static void sabotage_body(void *arg, unsigned process)
{
	struct il *il = arg;

	if (il->open_flags[process] == BTS_OPEN_READ_ONLY) {
		il_read(il, process);
	} else {
		il_read(il, process);
		il_write(il, process, true);
		il_write(il, process, true);
	}
	il_close(il, process);
}

/* A reader that reads again, in what it parked. */
static void sabotage_again(void *arg, unsigned process)
{
	struct il *il = arg;

	for (int i = 0; i < 3; i++) {
		if (process == 0)
			il_write(il, process, true);
		else
			il_read(il, process);
	}
	il_close(il, process);
}

/* Who comes only reads: no opening commit flushes what the dead one left. */
static void sabotage_heir(void *arg, unsigned process)
{
	struct il *il = arg;

	if (process == 0) {
		il_write(il, process, true);
	} else {
		il_open(il, process, BTS_OPEN_READ_ONLY);
		il_read(il, process);
	}
	il_close(il, process);
}

static const struct il_scenario sabotage_beside = {
	{"a writer, a reader", 2, 2, 0, false, .body = sabotage_body}, {0, BTS_OPEN_READ_ONLY}, 0, IL_CLOSED};
static const struct il_scenario sabotage_three = {
	{"two writers, a reader", 3, 2, 0, false, .body = sabotage_body}, {0, 0, BTS_OPEN_READ_ONLY}, 0, IL_CLOSED};
static const struct il_scenario sabotage_parked = {
	{"a writer, one that reads again", 2, 2, 0, false, .body = sabotage_again}, {0, BTS_OPEN_READ_ONLY}, 0, IL_CLOSED};
static const struct il_scenario sabotage_cut = {
	{"two writers, the power goes", 2, 1, 0, true, .body = sabotage_body}, {0, 0}, 0, IL_CLOSED};
static const struct il_scenario sabotage_inherit = {
	{"one dies, another comes, the power goes", 2, 0, 1, true, .body = sabotage_heir}, {0, IL_NOT_OPEN},
	0, IL_CLOSED};

static const struct {
	const char *name;
	enum fault_rule rule;
	const struct il_scenario *scenario;
} sabotage_rules[] = {
	{"no rule dropped", FAULT_NONE, &sabotage_beside},
	{"no rule dropped", FAULT_NONE, &sabotage_parked},
	{"no rule dropped", FAULT_NONE, &sabotage_cut},
	{"no rule dropped", FAULT_NONE, &sabotage_inherit},
	{"I1 free early", FAULT_I1_FREE_EARLY, &sabotage_beside},
	{"I1 without asking readers", FAULT_I1_NO_READERS, &sabotage_beside},
	{"I2 write the slot of D", FAULT_I2_SLOT_OF_D, &sabotage_cut},
	{"I3 empty manifest", FAULT_I3_NO_MANIFEST, &sabotage_cut},
	{"I6 nothing rewritten", FAULT_I6_NO_REWRITE, &sabotage_inherit},
	{"I8 published before the flush", FAULT_I8_PUBLISH_EARLY, &sabotage_cut},
	{"I1 D before the head", FAULT_I8_D_BEFORE_HEAD, &sabotage_three},
	{"I10 no seal", FAULT_I10_NO_SEAL, &sabotage_beside},
	{"G1 parked, claimed without a look", FAULT_G1_NO_LOOK, &sabotage_parked},
};

/* In a process of its own: a broken engine may well die. */
static bool sabotage_found(enum fault_rule rule, const struct il_scenario *scenario, uint64_t seed)
{
	pid_t child;
	int status;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		struct il il;

		if (rule != FAULT_NONE && !freopen("/dev/null", "w", stderr))
			_exit(3);
		il_init(&il, sched_new(seed, SCHEDULES));
		fault_sabotage = rule;
		_exit(il_run(&il, scenario, NULL) ? 0 : 1);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return false;
	return WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

int main(int argc, char **argv)
{
	uint64_t seed = rng_seed_from(argc, argv, 1);
	unsigned wrong = 0;

	for (size_t i = 0; i < sizeof(sabotage_rules) / sizeof(sabotage_rules[0]); i++) {
		bool found = sabotage_found(sabotage_rules[i].rule, sabotage_rules[i].scenario, seed);

		printf("%s: %s\n", sabotage_rules[i].name, found ? "noticed" : "nothing found");
		wrong += found == (sabotage_rules[i].rule == FAULT_NONE);
	}
	return wrong != 0;
}
