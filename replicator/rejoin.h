/*
 * What a follower does when its source can make no frame for it: a graft to the source's newest commit, and before it, when the
 * histories have parted, the export of what will be left behind (R4, R11).  Blocks; the follower's thread.
 */
#ifndef REJOIN_H
#define REJOIN_H

#include "heal.h"
#include "orphans.h"

struct rejoin {
	struct heal_peer peer;
	struct bts *db;
	const char *path;		 /* of db */
	const struct bts_position *fork; /* NULL: the base is unknown; that, or where the file stands: nothing is left behind */
	const struct repl_events *events;
	/* what was done */
	struct bts_position own; /* where it stood */
	struct heal_graft graft;
	char orphans[ORPHANS_PATH_MAX]; /* "" = none written */
	uint64_t orphan_lines;
};
BTS_MUST_CHECK enum bts_err rejoin_run(struct rejoin *, struct bts_error *error);

#endif
