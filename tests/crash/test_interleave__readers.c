/*
 * Processes that read, open and close beside one that writes, in every order that the bound allows (T7): a reader's
 * snapshot is one committed state however the writer gets on (G1, I1), whoever leaves last seals (I10), nobody opens what
 * another still recovers (M1).
 *
 * Usage: test_interleave__readers [seed [schedules [scenario [choices]]]].
 */
#include "interleave.h"

/* 0 writes, the others read. */
static void readers_beside(void *arg, unsigned process)
{
	struct il *il = arg;

	if (process == 0) {
		for (int i = 0; i < 3; i++)
			il_write(il, process, true);
	} else {
		il_read(il, process);
	}
	il_close(il, process);
}

/* A snapshot is held while others come and go. */
static void readers_pinned(void *arg, unsigned process)
{
	struct il *il = arg;
	struct bts_txn *txn;

	if (process == 0) {
		for (int i = 0; i < 4; i++)
			il_write(il, process, true);
	} else {
		il_pin(il, process, &txn);
		sched_point(il->sched, "pinned");
		il_unpin(il, process, txn);
		il_read(il, process);
	}
	il_close(il, process);
}

/* Who reads again does it in what it kept of the time before: as the head, or not. */
static void readers_again(void *arg, unsigned process)
{
	struct il *il = arg;
	struct bts_txn *txn;

	for (int i = 0; i < 3; i++) {
		if (process == 0)
			il_write(il, process, true);
		else
			il_read(il, process);
	}
	if (process == 0) {
		il_read(il, process);
	} else {
		il_pin(il, process, &txn);
		il_read(il, process);
		il_unpin(il, process, txn);
		il_read(il, process);
	}
	il_close(il, process);
}

/* Everybody opens and closes. */
static void readers_come(void *arg, unsigned process)
{
	struct il *il = arg;

	il_open(il, process, process == 0 ? 0 : BTS_OPEN_READ_ONLY);
	if (process == 0)
		il_write(il, process, true);
	else
		il_read(il, process);
	il_close(il, process);
}

/* The last to close seals, while another opens. */
static void readers_leave(void *arg, unsigned process)
{
	struct il *il = arg;

	if (process > 0)
		il_open(il, process, process == 2 ? 0 : BTS_OPEN_READ_ONLY);
	if (process == 1)
		il_read(il, process);
	else
		il_write(il, process, true);
	il_close(il, process);
}

static const struct il_scenario readers_scenarios[] = {
	{{"a writer, a reader", 2, 2, 0, false, .body = readers_beside}, {0, BTS_OPEN_READ_ONLY}, 15,
		IL_CLOSED},
	{{"a writer, one that reads again", 2, 2, 0, false, .body = readers_again}, {0, BTS_OPEN_READ_ONLY},
		20, IL_CLOSED},
	{{"a writer, two readers", 3, 2, 0, false, .body = readers_beside},
		{0, BTS_OPEN_READ_ONLY, BTS_OPEN_READ_ONLY}, 15, IL_CLOSED},
	{{"a writer, a held snapshot", 2, 2, 0, false, .body = readers_pinned}, {0, BTS_OPEN_READ_ONLY}, 15,
		IL_CLOSED},
	{{"a writer and a reader open and close", 2, 2, 0, false, .body = readers_come},
		{IL_NOT_OPEN, IL_NOT_OPEN}, 20, IL_CLOSED},
	{{"one closes, two open", 3, 2, 0, false, .body = readers_leave}, {0, IL_NOT_OPEN, IL_NOT_OPEN}, 15,
		IL_CLOSED},
};

int main(int argc, char **argv)
{
	return il_main(argc, argv, readers_scenarios,
		sizeof(readers_scenarios) / sizeof(readers_scenarios[0]), 25000);
}
