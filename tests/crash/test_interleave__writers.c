/*
 * Several writing processes on one file, in every order that the bound allows (T7): no update is lost, refused ones met a
 * conflict, numbers are given once, whoever dies in the middle of building, flushing or publishing is inherited from, and
 * power loss keeps what was acknowledged (I1, I2, I6, I8, C1, G1, G2, M1, M2).
 *
 * Usage: test_interleave__writers [seed [schedules [scenario [choices]]]].
 */
#include "interleave.h"

/* Each its own key. */
static void writers_apart(void *arg, unsigned process)
{
	struct il *il = arg;

	il_write(il, process, false);
	il_write(il, process, false);
	il_close(il, process);
}

/* All the same key. */
static void writers_against(void *arg, unsigned process)
{
	struct il *il = arg;

	il_write(il, process, true);
	il_close(il, process);
}

static void writers_twice(void *arg, unsigned process)
{
	struct il *il = arg;

	il_write(il, process, true);
	il_write(il, process, true);
	il_close(il, process);
}

/* 0 makes a group, with its allocator loaded. */
static void writers_group(void *arg, unsigned process)
{
	struct il *il = arg;

	if (process == 0) {
		il_write(il, process, false);
		il_group(il, process);
	} else {
		il_write(il, process, true);
	}
	il_close(il, process);
}

/* The last one reads, holding what it sees. */
static void writers_read(void *arg, unsigned process)
{
	struct il *il = arg;
	struct bts_txn *txn;

	if (process < 2) {
		il_write(il, process, process == 1);
		il_write(il, process, true);
	} else {
		il_pin(il, process, &txn);
		sched_point(il->sched, "pinned");
		il_unpin(il, process, txn);
	}
	il_close(il, process);
}

/* Who is not there yet opens first. */
static void writers_come(void *arg, unsigned process)
{
	struct il *il = arg;

	if (!il->db[process])
		il_open(il, process, 0);
	il_write(il, process, true);
	il_close(il, process);
}

#define BOTH                                                                                                 \
	{                                                                                                    \
		0, 0                                                                                         \
	}
#define THREE                                                                                                \
	{                                                                                                    \
		0, 0, 0                                                                                      \
	}
static const struct il_scenario writers_scenarios[] = {
	{{"two writers, their own keys", 2, 2, 0, false, .body = writers_apart}, BOTH, 5, IL_CLOSED},
	{{"three writers, their own keys", 3, 2, 0, false, .body = writers_apart}, THREE, 10, IL_CLOSED},
	{{"two writers, one key", 2, 2, 0, false, .body = writers_twice}, BOTH, 10, IL_CLOSED},
	{{"three writers, one key", 3, 2, 0, false, .body = writers_against}, THREE, 10, IL_CLOSED},
	{{"a group against a transaction", 2, 2, 0, false, .body = writers_group}, BOTH, 10, IL_CLOSED},
	{{"two writers and a held snapshot", 3, 2, 0, false, .body = writers_read},
		{0, 0, BTS_OPEN_READ_ONLY}, 10, IL_CLOSED},
	{{"one writes and closes, one opens and writes", 2, 2, 0, false, .body = writers_come},
		{0, IL_NOT_OPEN}, 5, IL_CLOSED},
	{{"two recover and write", 2, 2, 0, false, .body = writers_come}, {IL_NOT_OPEN, IL_NOT_OPEN}, 5,
		IL_CUT},
	{{"two writers, one dies", 2, 1, 3, false, .body = writers_twice}, BOTH, 10, IL_CLOSED},
	{{"three writers, one dies", 3, 1, 1, false, .body = writers_against}, THREE, 5, IL_CLOSED},
	{{"two writers and a held snapshot, one dies", 3, 1, 7, false, .body = writers_read},
		{0, 0, BTS_OPEN_READ_ONLY}, 5, IL_CLOSED},
	{{"two writers, the power goes", 2, 1, 0, true, .body = writers_twice}, BOTH, 10, IL_CLOSED},
	{{"a group against a transaction, the power goes", 2, 1, 0, true, .body = writers_group}, BOTH, 5,
		IL_CLOSED},
	{{"two writers, one dies, the power goes", 2, 1, 1, true, .body = writers_against}, BOTH, 5,
		IL_CLOSED},
};

int main(int argc, char **argv)
{
	return il_main(argc, argv, writers_scenarios,
		sizeof(writers_scenarios) / sizeof(writers_scenarios[0]), 60000);
}
