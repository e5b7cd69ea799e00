/*
 * Automatic failover of a node (R8): failover.h's machine driven with etcd, a clock and node.h.  Two threads: one asks etcd, the other
 * changes the node's role, as an election may take longer than a lease lasts.  Any thread.
 */
#ifndef FAILOVER_RUN_H
#define FAILOVER_RUN_H

#include "failover.h"
#include "node.h"
#include "settings.h"

struct failover_run_options {
	struct node *node; /* opened with node_options.deadline; borrowed */
	const char *place; /* "etcd://HOST:PORT[,HOST:PORT]/KEY"; copied, as all texts */
	const char *name;  /* of this node */
	const char *url,
		*source;     /* where it serves readers and writers ("" = not at all), and where followers */
	const char *members; /* URLs of the other nodes, as node_promotion has them */
	unsigned survive;    /* likewise, at least 1 */
	uint64_t ttl_ms;
	struct repl_events events;
};

struct failover_run;
/* Owned: failover_run_stop.  BTS_INVALID: an option that can not be. */
BTS_MUST_CHECK enum bts_err failover_run_start(
	const struct failover_run_options *, struct failover_run **, struct bts_error *);
/*
 * Fences the file if it is the primary's, waits a little for followers to get the last commit, gives the key up, and ends the threads.  Before
 * node_cancel, and while followers are still served.  Afterwards the other calls tell how it ended.  NULL is fine.
 */
void failover_run_stop(struct failover_run *);
void failover_run_free(struct failover_run *); /* stopped; NULL is fine */

/*
 * Try to become the primary now: as node_promote, and *code is "lease-held" where another node has the key.  Blocks for up to
 * FAILOVER_RUN_PATIENCE_MS.
 */
#define FAILOVER_RUN_PATIENCE_MS 30000
BTS_MUST_CHECK enum bts_err failover_run_promote(struct failover_run *, struct bts_role *, const char **code,
	char why[ELECT_WHY_SIZE], struct bts_error *);
/* An operator demotes this node: it gives the key up, and leaves it to others for a while. */
void failover_run_demoted(struct failover_run *);

/* {"state": ...} (owned: free); NULL without memory. */
char *failover_run_status(struct failover_run *);
/* Prometheus text (owned: free); NULL without memory. */
char *failover_run_metrics(struct failover_run *);

/* ---- settings of the programs that have it ---- */

struct failover_settings {
	const char *place; /* NULL: no failover */
	uint64_t ttl_ms, survive;
	const char *members, *advertise; /* NULL: not given */
};
/* clang-format off */
#define FAILOVER_ROWS(type, field) \
	SETTINGS_GROUP("Failover"), \
	{"failover", SETTINGS_TEXT(type, field.place), .arg = "etcd://HOST:PORT[,HOST:PORT]/KEY", .check = failover_check_place, \
		.help = "become the primary when there is none, and follow whoever is: who holds KEY in that etcd (etcds: over TLS)"}, \
	{"lease-ttl", SETTINGS_DURATION(type, field.ttl_ms), .arg = "TIME", .fallback = "10s", .least = FAILOVER_TTL_LEAST_MS, \
		.most = FAILOVER_TTL_MOST_MS, .help = "how long the key outlives its holder, and so how long writes are out at most before another takes over"}, \
	{"failover-members", SETTINGS_LIST(type, field.members), .arg = "URL,URL", .check = failover_check_members, \
		.help = "with --failover: URLs of the other nodes, all of them, as for a promotion by hand; they are asked in an election"}, \
	{"survive", SETTINGS_NUMBER(type, field.survive), .arg = "K", .most = ELECT_MEMBERS_MAX, \
		.help = "with --failover: writes that K others have survive it (at least 1; write with durability replicated:K)"}, \
	{"advertise", SETTINGS_TEXT(type, field.advertise), .arg = "URL", .check = failover_check_source, \
		.help = "with --failover: where this node serves followers, as they reach it (default: as it listens)"}
/* clang-format on */
const char *failover_check_place(const char *text);
const char *failover_check_members(const char *text);
const char *failover_check_source(const char *text);
/* NULL, or why these do not go together; static. */
const char *failover_fits(const struct failover_settings *);

#endif
