/* Going over to the source's history: see rejoin.h. */
#include "rejoin.h"

#include <inttypes.h>
#include <string.h>

#include "position.h"

static enum bts_err rejoin_export(void *arg, struct bts_apply *apply, struct bts_error *error)
{
	struct rejoin *rejoin = arg;
	enum bts_err err;

	err = orphans_write(apply, rejoin->path, &rejoin->own, rejoin->orphans, &rejoin->orphan_lines, error);
	if (err) {
		rejoin->orphans[0] = '\0';
		return err;
	}
	repl_emit(rejoin->events, REPL_WARN, "orphans-exported",
		"%" PRIu64 " changes after transaction %" PRIu64 " that the source's history lacks are in %s", rejoin->orphan_lines,
		rejoin->fork->txid, rejoin->orphans);
	return BTS_OK;
}

enum bts_err rejoin_run(struct rejoin *rejoin, struct bts_error *error)
{
	struct heal_graft *graft = &rejoin->graft;
	char from[POSITION_TEXT_SIZE], to[POSITION_TEXT_SIZE];
	enum bts_err err = bts_ship_position(rejoin->db, &rejoin->own, error);
	bool rewind;

	if (err)
		return err;
	memset(graft, 0, sizeof(*graft));
	rejoin->orphans[0] = '\0';
	graft->fork = rejoin->fork;
	rewind = rejoin->fork && !position_equal(rejoin->fork, &rejoin->own);
	graft->before = rewind ? rejoin_export : NULL;
	graft->arg = rejoin;
	position_text(&rejoin->own, from);
	repl_emit(rejoin->events, REPL_WARN, rewind ? "rewind-begun" : "graft-begun", "from %s", from);
	err = heal_graft(&rejoin->peer, rejoin->db, graft, error);
	if (err)
		return err;
	position_text(&graft->target, to);
	repl_emit(rejoin->events, REPL_WARN, "grafted", "from %s to %s, %" PRIu64 " pages of %" PRIu64 " units, %" PRIu64 " bytes",
		from, to, graft->pages, graft->units, graft->bytes);
	return BTS_OK;
}
