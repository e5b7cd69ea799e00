/*
 * A process dies, or the power goes, at any step of any interleaving (T7): what was acknowledged or read is there, what
 * was in flight is there whole or not at all, the others get on, whoever comes next inherits (M1, M2, I4, I6, G5).
 *
 * Usage: test_interleave__death [seed [schedules [scenario [choices]]]].
 */
#include "interleave.h"

/* 0 writes. */
static void death_write(void *arg, unsigned process)
{
	struct il *il = arg;

	if (process == 0) {
		il_write(il, process, true);
		il_write(il, process, true);
	} else {
		il_read(il, process);
		il_read(il, process);
	}
	il_close(il, process);
}

/* 0 writes and dies, 1 holds a snapshot, 2 comes to write. */
static void death_inherit(void *arg, unsigned process)
{
	struct il *il = arg;
	struct bts_txn *txn;

	if (process == 1) {
		il_pin(il, process, &txn);
		sched_point(il->sched, "pinned");
		il_unpin(il, process, txn);
		il_close(il, process);
		return;
	}
	if (process == 2) {
		il_open(il, process, 0);
		il_read(il, process);
		il_write(il, process, true);
	}
	il_write(il, process, true);
	il_close(il, process);
}

/* Who opens first dies, or not. */
static void death_open(void *arg, unsigned process)
{
	struct il *il = arg;

	il_open(il, process, process == 1 ? BTS_OPEN_READ_ONLY : 0);
	if (process == 1)
		il_read(il, process);
	else
		il_write(il, process, true);
	il_close(il, process);
}

static const struct il_scenario death_scenarios[] = {
	{{"the writer dies, a reader reads", 2, 1, 1, false, .body = death_write}, {0, BTS_OPEN_READ_ONLY},
		10, IL_CLOSED},
	{{"the power goes beside a reader", 2, 1, 0, true, .body = death_write}, {0, BTS_OPEN_READ_ONLY}, 10,
		IL_CLOSED},
	{{"a reader dies", 2, 1, 2, false, .body = death_write}, {0, BTS_OPEN_READ_ONLY}, 10, IL_CLOSED},
	{{"the writer dies, a reader stays, an heir comes", 3, 1, 1, false, .body = death_inherit},
		{0, BTS_OPEN_READ_ONLY, IL_NOT_OPEN}, 15, IL_CLOSED},
	{{"an heir comes, the power goes", 3, 0, 1, true, .body = death_inherit},
		{0, BTS_OPEN_READ_ONLY, IL_NOT_OPEN}, 15, IL_CLOSED},
	{{"two recover, one dies", 2, 1, 3, false, .body = death_open}, {IL_NOT_OPEN, IL_NOT_OPEN}, 15,
		IL_CUT},
	{{"two recover, one dies, the power goes", 2, 0, 3, true, .body = death_open},
		{IL_NOT_OPEN, IL_NOT_OPEN}, 10, IL_CUT},
	{{"two come after all died, one dies", 2, 1, 3, false, .body = death_open},
		{IL_NOT_OPEN, IL_NOT_OPEN}, 5, IL_KILLED},
};

int main(int argc, char **argv)
{
	return il_main(
		argc, argv, death_scenarios, sizeof(death_scenarios) / sizeof(death_scenarios[0]), 25000);
}
