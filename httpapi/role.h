/*
 * What this process is: a primary with its open file, or a follower with its replication.  The one place that
 * knows the replicator.  Any thread.
 */
#ifndef HTTPAPI_ROLE_H
#define HTTPAPI_ROLE_H

#include <stddef.h>
#include <stdint.h>

#include "btree_store.h"
#include "btree_store/ship.h"
#include "config.h"
#include "elect.h"

struct role;

/* A follower's contact with its source. */
struct role_upstream {
	char state[32]; /* a word */
	const char *mode; /* how it catches up: "streaming", "first-sync", "graft" */
	char error[256];
	bts_txid txid, head; /* own, and the newest known of the source; 0 = none yet */
	int heard;	     /* the source has ever answered */
	int stopped;	     /* for ever: error says why */
	uint64_t contact_ms; /* since it last did */
	uint64_t lag_ms;     /* how old what is served may be; without contact it grows */
	uint64_t frames, bytes, pages, retries, switches;
	uint64_t grafts, graft_pages, digest_mismatches;
	char orphans[256]; /* the file of what the last rewind left behind, "" = none */
	char url[256];		   /* of the source asked now */
	char via[BTS_VIA_MAX + 1]; /* the nodes commits come through, the source first */
};

/* own_url: where this node serves.  0, or -1 with the reason logged. */
int role_open(const struct config *, const char *own_url, struct role **);
void role_close(struct role *); /* NULL is fine; all transactions must have ended */

int role_follows(const struct role *);
const char *role_word(const struct role *);
const char *role_name(const struct role *);
const char *role_primary_url(const struct role *); /* "" when not known */
const char *role_source_url(const struct role *);  /* "" on a primary */
const char *role_path(const struct role *);
uint64_t role_uptime_ms(const struct role *);

/* Borrowed until role_close.  NULL on a follower that has received nothing yet. */
struct bts *role_db(struct role *);
/* The newest commit a read would see, and its epoch.  Cheap. */
bts_txid role_txid(struct role *);
void role_epoch(struct role *, uint32_t *number, uint64_t *random);
/* The epoch that this transaction, which is or was the newest here, belongs to: 0, or -1 when that cannot be told. */
int role_epoch_of(struct role *, bts_txid txid, uint32_t *number, uint64_t *random);
/* A primary's writer tells of its commits; role_commit_age_ms: since the first commit after txid, 0 when
 * none. */
void role_committed(struct role *, bts_txid txid);
uint64_t role_commit_age_ms(struct role *, bts_txid txid);

/* Changing it (role_switch.c).  Each blocks; one at a time, else BTS_BUSY.  Any thread but those that serve. */
struct role_promotion {
	const char *members; /* URLs with commas between, this node not among them; NULL: nobody is asked */
	unsigned survive;    /* the smallest number of other members that have a write which must survive */
	const struct bts_position *expect; /* NULL, or where this node must stand */
	const uint8_t *expect_digest;      /* NULL, or the root digest it must have */
};
/* *code: "", or why the members' answers forbid it, explained in why; BTS_OK then too.  BTS_EXISTS: it is the primary. */
enum bts_err role_promote(struct role *, const struct role_promotion *, struct bts_role *, const char **code, char why[ELECT_WHY_SIZE],
	struct bts_error *);
enum bts_err role_demote(struct role *, struct bts_role *, struct bts_error *);
/* Not of a primary (BTS_EXISTS).  primary_url NULL: as before. */
enum bts_err role_follow(struct role *, const char *source, const char *primary_url, struct bts_error *);
/* BTS_FENCED: refused, the role tells why.  BTS_DIVERGED: another database. */
enum bts_err role_promise(struct role *, uint32_t epoch, uint64_t random, const uint8_t database[16], struct bts_role *,
	struct bts_error *);
enum bts_err role_info(struct role *, struct bts_role *, struct bts_error *);
void role_look(struct role *); /* another process may have changed it */

/* Where the replication's events go: the log. */
struct repl_events;
struct repl_events role_events(struct role *);

struct repair_status;
/* Begin a scrub in the background (repair.h).  peers: addresses with commas between; rate 0: the default.  BTS_BUSY: one runs. */
enum bts_err role_scrub(struct role *, const char *peers, uint64_t rate, struct bts_error *error);
int role_scrub_status(struct role *, struct repair_status *); /* 0: there was none */

void role_upstream(struct role *, struct role_upstream *);
uint64_t role_lag_ms(struct role *);

/* An error that only reopening cures was met; from then on the node is not ready. */
void role_note(struct role *, enum bts_err err);
int role_poisoned(const struct role *);
uint64_t role_expired(const struct role *); /* requests that met a snapshot which had been ended (BTS_EXPIRED) */
void role_drain(struct role *); /* stopping: not ready any more */
int role_draining(const struct role *);

uint64_t role_clock_ms(void);	 /* monotonic */
uint64_t role_realtime_ms(void); /* since 1970 */
#endif
