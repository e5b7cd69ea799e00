/*
 * A file, what this process is to it, and the changes of that: promotion, demotion, following another source, promises (R8, R9).
 * What btsd is, and bts-replicator with --admin beside a program that has the file open itself.
 *
 * The handle that readers use stays the same through all of it.  A follower's handle becomes the writer's when it is promoted.  A file
 * that was demoted is followed with a second handle beside the first, which reads on, and writes again when the second
 * has been promoted and closed.  Any thread.
 */
#ifndef NODE_H
#define NODE_H

#include <stdatomic.h>
#include <stdbool.h>

#include <btree_store/ship.h>

#include "elect.h"
#include "fail.h"
#include "follow.h"
#include "repair.h"

struct node;

enum node_kind {
	NODE_PRIMARY,  /* writes the file, made when there is none; a follower's is refused (BTS_READ_ONLY) */
	NODE_FOLLOWER, /* follows `source` */
	NODE_ANY,      /* what the file is; a follower's or a fenced one follows `source` where that is given */
};

struct node_options {
	enum node_kind kind;
	const char *path, *name, *url, *source, *primary_url; /* url: where this node serves readers, as followers tell it; copied */
	uint64_t max_rate;			/* as follow_options */
	bool zstd, rejoin;
	bool deadline; /* writes need one (BTS_OPEN_DEADLINE), which somebody sets with bts_deadline_set */
	bool make;     /* NODE_ANY: a file that is not there is made, a primary's */
	bool awaits;   /* NODE_ANY: without a file and a source, node_follow tells one later */
	struct repl_events events;
	/* It stands there and is the primary, as nobody can see yet; NULL = nobody wants to know. */
	void (*promoted)(void *arg, const struct bts_position *);
	void *promoted_arg;
	/* A promotion waits for readers that keep pages of a frame from their places: who can end some should.  NULL = nobody can. */
	void (*held)(void *arg);
	void *held_arg;
};

/* Owned: node_close. */
BTS_MUST_CHECK enum bts_err node_open(const struct node_options *, struct node **, struct bts_error *);
/* Ends an election that is under way, and refuses whatever would change the role from here on: BTS_TIMEOUT.  Does not wait. */
void node_cancel(struct node *);
void node_close(struct node *); /* NULL is fine; all transactions must have ended */

/* Borrowed until node_close.  NULL while a follower has received nothing yet. */
struct bts *node_db(struct node *);
bool node_follows(const struct node *);
const char *node_word(const struct node *);	  /* "primary", "follower", "fenced" */
const char *node_source_url(const struct node *);  /* "" on a primary */
const char *node_primary_url(const struct node *); /* "" when not known */
bts_txid node_txid(struct node *);		  /* the newest commit a read would see */
void node_committed(struct node *, bts_txid txid); /* by this process */
void node_look(struct node *);			  /* another process may have changed what the file is */

/* The changes.  Each blocks; one at a time, else BTS_BUSY. */
struct node_promotion {
	const char *members; /* URLs with commas between, this node not among them; NULL: nobody is asked */
	unsigned survive;    /* the smallest number of other members that have a write which must survive */
	const struct bts_position *expect; /* NULL, or where this node must stand */
	const uint8_t *expect_digest;      /* NULL, or the root digest it must have */
};
/* *code: "", or why the members' answers forbid it, explained in why; BTS_OK then too.  BTS_EXISTS: it is the primary.  BTS_NOT_FOUND: no deadline ahead. */
BTS_MUST_CHECK enum bts_err node_promote(struct node *, const struct node_promotion *, struct bts_role *, const char **code,
	char why[ELECT_WHY_SIZE], struct bts_error *);
BTS_MUST_CHECK enum bts_err node_demote(struct node *, struct bts_role *, struct bts_error *);
void node_set_primary_url(struct node *, const char *url); /* where writes are sent on to; copied */
/* Not of a primary (BTS_EXISTS).  primary_url NULL: as before. */
BTS_MUST_CHECK enum bts_err node_follow(struct node *, const char *source, const char *primary_url, struct bts_error *);
/* BTS_FENCED: refused, the role tells why.  BTS_DIVERGED: another database. */
BTS_MUST_CHECK enum bts_err node_promise(struct node *, uint32_t epoch, uint64_t random, const uint8_t database[16],
	struct bts_role *, struct bts_error *);
/*
 * Of a follower: ask these members for the epoch that was promised here, or one above it where that is another's by the same number, so
 * that who was elected with less is fenced.  Without a promise beyond its own epoch nobody is asked.
 */
BTS_MUST_CHECK enum bts_err node_claim(struct node *, const char *members, struct bts_error *);
BTS_MUST_CHECK enum bts_err node_info(struct node *, struct bts_role *, struct bts_error *);

/* Of a node opened with a deadline: how long its file may be written (bts_deadline_set).  BTS_NOT_FOUND: it has none yet. */
BTS_MUST_CHECK enum bts_err node_set_deadline(struct node *, uint64_t boottime_ms, struct bts_error *error);
/* Who changes its role by itself (failover_run.h), for those who are asked to change it: borrowed; NULL = nobody. */
struct failover_run;
void node_set_failover(struct node *, struct failover_run *);
struct failover_run *node_failover(const struct node *);

/* Begin a scrub in the background (repair.h).  peers: addresses with commas between; rate 0: the default.  BTS_BUSY: one runs. */
BTS_MUST_CHECK enum bts_err node_scrub(struct node *, const char *peers, uint64_t rate, struct bts_error *);
bool node_scrub_status(struct node *, struct repair_status *); /* false: there was none */

/* A follower's contact with its source. */
struct node_upstream {
	char state[32];   /* a word */
	const char *mode; /* how it catches up: "idle", "streaming", "first-sync", "graft" */
	char error[256];
	bts_txid txid, head; /* own, and the newest known of the source; 0 = none yet */
	int heard;	     /* the source has ever answered */
	int stopped;	     /* for ever: error says why */
	uint64_t contact_ms; /* since it last did */
	uint64_t lag_ms;     /* how old what is served may be; without contact it grows */
	int64_t lag_bytes;   /* of pages that are missing, estimated from those that came; -1: not known */
	uint64_t frames, bytes, pages, retries, switches, resumes;
	uint64_t transfer_done, transfer_total, transfer_rate; /* of a first transfer: bytes, and bytes a second; 0: none is under way */
	uint64_t grafts, graft_pages, digest_mismatches;
	char fork[POSITION_TEXT_SIZE]; /* where this history and the source's part, "" = they do not */
	char orphans[256];	       /* the file of what the last rewind left behind, "" = none */
	char url[256];		       /* of the source asked now */
	char via[BTS_VIA_MAX + 1];     /* the nodes commits come through, the source first */
};
void node_upstream(struct node *, struct node_upstream *);
/* Of the handle that applies; zeros where there is none. */
void node_apply_stat(struct node *, struct bts_apply_stat *);
/* The same as members of a JSON object, each after a comma (owned: free); NULL without memory.  Of a primary: "". */
char *node_status(struct node *);
/* The same as Prometheus text, with what is pending (owned: free); NULL without memory.  Of a primary: "". */
char *node_metrics(struct node *);

#endif
