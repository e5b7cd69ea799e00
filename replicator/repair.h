/*
 * A scrub of an open file, and the repair of what it finds from peers: every live page is read against its pointer, at a bounded
 * rate; a damaged one is fetched from the first peer that has it, verified and written again (bts_scrub_repair).
 */
#ifndef REPAIR_H
#define REPAIR_H

#include "heal.h"

#define REPAIR_LISTED 64 /* units that nobody had are listed, up to so many */
#define REPAIR_RATE_DEFAULT (UINT64_C(256) << 20)

struct repair_options {
	struct bts *db;	   /* borrowed until repair_stop; one that writes, for repairs */
	const char *peers; /* addresses with commas between, in the order to ask; NULL or "": none.  Copied */
	uint64_t rate;	   /* bytes a second at most; 0 = REPAIR_RATE_DEFAULT */
	struct repl_events events;
};

struct repair_status {
	bool running;
	bool ended;	     /* by itself, all was read */
	struct bts_scrub_stat scrub;
	size_t lost;	     /* units that nobody had */
	struct bts_page_id listed[REPAIR_LISTED];
	struct bts_error error; /* what ended it, code BTS_OK: nothing */
};

struct repair;
/* A thread of its own.  Owned: repair_stop. */
BTS_MUST_CHECK enum bts_err repair_start(const struct repair_options *, struct repair **, struct bts_error *error);
/* Until it has ended. */
void repair_wait(struct repair *);
void repair_status(struct repair *, struct repair_status *); /* any thread */
void repair_stop(struct repair *);			      /* ends it; NULL is fine */

#endif
