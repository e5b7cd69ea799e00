/*
 * A follower: a thread that keeps a file at its source's newest commit.  It creates the file from the first
 * frame when there is none, applies each frame whole or not at all, and acknowledges what is durable by
 * asking for the next.  It stops for ever only where no retry helps: another database, another history, ahead
 * of its source.
 */
#ifndef FOLLOW_H
#define FOLLOW_H

#include <stdbool.h>

#include <btree_store/ship.h>

#include "fail.h"
#include "position.h"
#include "sources.h"

#define FOLLOW_URL_MAX SOURCES_URL_MAX

#define FOLLOW_RATE_LEAST 65536 /* more than a source takes for a dead follower (SERVE_LEAST_BYTES) */
#define FOLLOW_GRAFT_AFTER (UINT64_C(1) << 20)
#define FOLLOW_WAIT_MS 1000 /* of a long poll: how old the last contact gets while all is well */

struct follow_options {
	const char *path;     /* of the follower's file; copied */
	const char *upstream; /* "http://host:port", or several with commas between, tried in order; copied */
	const char *node;     /* own name: query_node_valid; copied */
	const char *url;      /* where this node serves readers, told to the source; NULL = none; copied */
	unsigned wait_ms;     /* of the long poll; 0 = FOLLOW_WAIT_MS */
	uint64_t max_rate;    /* bytes a second received at most; 0 = as fast as it goes, else FOLLOW_RATE_LEAST or more */
	bool zstd;	      /* ask for compressed pages */
	const struct bts_options *open; /* page size aside, for opening the file; NULL = defaults; copied */
	struct repl_events events;	/* called from the follower's thread */
	uint64_t graft_after; /* bytes: where frames break off again and again after so many, a graft is tried; 0 = FOLLOW_GRAFT_AFTER */
	bool rejoin; /* histories that parted: export what is only here, then take the source's (R11) */
	struct bts *db; /* NULL, or path opened with BTS_OPEN_FOLLOWER already: borrowed until the follower has ended */
	uint64_t fresh_ms; /* CLOCK_MONOTONIC: what the primary had by then is in the file, as the caller knows; 0 = not known */
};

struct follow;
/*
 * Opens the file when there is one (so its errors come at once) and starts the thread.  Owned: follow_stop.
 * BTS_INVALID: a bad option; BTS_BUSY, BTS_READ_ONLY, BTS_CORRUPT ... as bts_open.
 */
BTS_MUST_CHECK enum bts_err follow_start(
	const struct follow_options *options, struct follow **follow, struct bts_error *error);
/*
 * Follow other sources from now on (a list as in the options), from where the file stands: what is under way is broken off,
 * and a follower that had stopped goes on.  BTS_INVALID: malformed, and nothing has changed.  Any thread.
 */
BTS_MUST_CHECK enum bts_err follow_switch(struct follow *, const char *urls, struct bts_error *error);
/* Ends the thread and closes the file: no transaction on follow_db may be left.  NULL is fine. */
void follow_stop(struct follow *);
/* The same, but the file stays open, and is the caller's (owned: bts_close), unless it was lent; NULL: there was none yet. */
BTS_MUST_CHECK struct bts *follow_release(struct follow *);
/*
 * The open file, for reading; borrowed until follow_stop.  NULL until the first frame's header has come.
 * Any thread.
 */
struct bts *follow_db(struct follow *);

struct follow_status {
	const char *state; /* "connecting", "following", "receiving", "backing-off", "stopped"; static */
	char upstream[FOLLOW_URL_MAX + 1];
	bts_txid txid;		/* durable here */
	bts_txid upstream_txid; /* newest the source told of; 0 = not heard yet */
	bool heard;		/* the source has ever told where it stands */
	uint64_t contact_ms; /* milliseconds since it last did */
	uint64_t lag_ms; /* since all that the source had was here, as far as is known: SESSION_LAG_UNKNOWN_MS where nothing is */
	uint64_t source_lag_ms; /* how old what the source gave may have been when it gave it: it may follow, too */
	char via[BTS_VIA_MAX + 1]; /* the nodes commits come through, the source first; "" = not known */
	uint64_t switches;	/* of source, by failure or by order */
	uint64_t frames, bytes, pages, retries, resumes;
	uint64_t streamed_txids, streamed_bytes; /* of frames between commits: what a commit takes, about */
	/* Of a first transfer under way, in bytes of the file: up to where it has come, and its size as the source told it (0: it
	 * did not); and what it brings a second, in bytes.  All 0 when none is. */
	uint64_t transfer_done, transfer_total, transfer_rate;
	uint64_t grafts, graft_pages; /* taken where no frame could be made */
	uint64_t digest_mismatches;   /* the source told another root digest for the commit that is here */
	char orphans[256];	      /* the file of what the last rewind left behind, "" = none */
	char fork[POSITION_TEXT_SIZE]; /* where this history and the source's part, as far as it told; "" = they do not */
	char error[256]; /* the last failure, "" = none */
};
/* A consistent copy.  Any thread, never blocks for long. */
void follow_status(struct follow *, struct follow_status *status);

#endif
