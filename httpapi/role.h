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
#include "node.h"

struct role;

/* own_url: where this node serves.  0, or -1 with the reason logged. */
int role_open(const struct config *, const char *own_url, struct role **);
void role_close(struct role *); /* NULL is fine; all transactions must have ended */

/* What follows, and changes roles.  Borrowed until role_close. */
struct node *role_node(struct role *);

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
unsigned role_epochs(struct role *); /* as long as it is the same, and not 0 (a follower), so is the epoch; never blocks */
/* The epoch that this transaction, which is or was the newest here, belongs to: 0, or -1 when that cannot be told. */
int role_epoch_of(struct role *, bts_txid txid, uint32_t *number, uint64_t *random);
/* A primary's writer tells of its commits; role_commit_age_ms: since the first commit after txid, 0 when
 * none. */
void role_committed(struct role *, bts_txid txid);
uint64_t role_commit_age_ms(struct role *, bts_txid txid);
void role_saw(struct role *, bts_txid txid); /* that this is committed, by whatever process */

/* Where the replication's events go: the log. */
struct repl_events;
struct repl_events role_events(struct role *);

uint64_t role_lag_ms(struct role *);

/* Writes need a deadline ahead (bts_deadline in ship.h) and there is none: none is taken, and none that is done may be told of.  Cheap. */
int role_late(struct role *);
/* May a write that was let in at these role_epochs be told of as done?  Where no deadline is in use: yes.  Cheap. */
int role_may_tell(struct role *, unsigned epochs);
/* What is left of it, milliseconds; -1: none is in use. */
int64_t role_deadline_ms(struct role *);

/* An error that only reopening cures was met; from then on the node is not ready. */
void role_note(struct role *, enum bts_err err);
/* The same of one that a client, or whoever started a job, is told of.  Damage is counted, and logged once a second at most. */
void role_met(struct role *, enum bts_err err, const struct bts_error *error);
uint64_t role_damage(const struct role *); /* how often it was met */
int role_poisoned(const struct role *);
/* Called when a promotion waits for readers here: end what can be ended.  Before anybody asks for one. */
void role_on_held(struct role *, void (*held)(void *arg), void *arg);
uint64_t role_expired(const struct role *); /* requests that met a snapshot which had been ended (BTS_EXPIRED) */
void role_drain(struct role *); /* stopping: not ready any more */
int role_draining(const struct role *);

uint64_t role_clock_ms(void);	 /* monotonic */
uint64_t role_realtime_ms(void); /* since 1970 */
#endif
