/*
 * A simulated cluster: a primary and its followers over the real engine and the real replicator, each node with a disk
 * of its own in memory, and between them a network that is late, cuts, loses, repeats and damages what it carries.  One
 * seed decides everything, the order of events included.
 *
 *   sim_run.c     the clock, the events, and the plan of a run
 *   sim_host.c    a node: its file, its death, what must hold when it is back
 *   sim_check.c   what must hold of a node's state
 *   sim_role.c    failover, and the way back of those left behind
 *   sim_client.c  transport.h for follow.c: requests go into the network below
 *   sim_server.c  a node answers requests, with source.c
 *   sim_forge.c   frames that are well sealed and wrong
 */
#ifndef SIM_H
#define SIM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include <btree_store/ship.h>

#include "env_mem.h"
#include "follow.h"
#include "history.h"
#include "pages_source.h"
#include "rng.h"
#include "sim_model.h"
#include "sim_thread.h"
#include "source.h"

#define SIM_NODES_MAX 5u
#define SIM_READERS 4u
#define SIM_CONNS_MAX 64u
#define SIM_RECORDS 6u
#define SIM_PAGE 4096u

struct sim;
struct sim_node;
struct transport;

/* A read transaction that lives long. */
struct sim_reader {
	struct bts_txn *txn; /* NULL: unused */
	struct bts *own;     /* its own handle, as of another process; NULL: on the node's */
	uint64_t content;
};

struct sim_node {
	struct sim *sim;
	unsigned index, upstream;
	char name[8];
	struct env_mem *m;
	struct env_mem
		*image; /* what a crash at some call has left; the node is dead but for the call's return */
	uint64_t fuse;	/* calls to go to the crash; 0: none */
	bool power;	/* the crash is a loss of power */
	bool up, primary;
	unsigned life;	/* counts starts */
	uint64_t clock; /* of m, as far as it was moved */

	struct bts *db; /* primary */
	struct follow *follow;
	struct sim_thread *thread;
	struct transport *transport;
	struct source source;
	struct bts *source_db; /* what source reads; may be a handle of its own */
	bool source_own;
	struct pages_pins *pins;
	struct sim_reader readers[SIM_READERS];
	unsigned waits; /* of an apply for readers */

	struct bts_position seen;    /* newest state that was judged */
	struct bts_position claimed; /* newest that a request named as durable */
	bts_txid told;		     /* the number of that, whatever became of the file */
	struct sim_model flying;     /* primary: what the commit of the moment would make */
	bool in_flight;
	struct sim_model model;	      /* primary: of its newest acknowledged commit */
	struct sim_state *head;	      /* that */
	struct bts_promotion promise; /* epoch not 0: it is to be promoted when it starts */
	bool moving;		      /* its role may not be what it was */
	bool orphan;		      /* stopped for ever, as its state is not in the primary's history */
	unsigned slow;		      /* ms more for each piece it gets */
};

/* What a reply says before its body. */
struct sim_reply {
	long status;
	uint64_t txid; /* 0: not told */
	const char *code;
	bool follower, has_lag;
	uint64_t lag_ms;
	char via[BTS_VIA_MAX + 1];
};

enum sim_conn_state { CONN_FREE, CONN_SENT, CONN_PARKED, CONN_STREAM };

/* One request and its reply. */
struct sim_conn {
	enum sim_conn_state state;
	unsigned number; /* tells it from earlier users of the place */
	unsigned client, server, client_life, server_life;
	bool client_gone;
	struct query query;
	uint64_t deadline, progress;
	struct source_stream *stream;
	struct pages_query *asked; /* of a question for pages */
	struct pages_stream *pages;
	uint8_t *bytes; /* a reply that does not come from a stream */
	size_t size, at;
	struct sim_record *recording;
};

/* A reply as it went over the wire, to come again where it does not belong. */
struct sim_record {
	struct sim_reply reply;
	uint8_t *bytes;
	size_t size, cap;
	bool whole;
};

enum sim_event_kind {
	SIM_ARRIVE, /* a request at its server */
	SIM_LOOK,   /* a parked request: news or its deadline */
	SIM_PIECE,  /* the next piece of a reply */
	SIM_BREAK,  /* the client is told that the connection is lost */
	SIM_TIMEOUT,
	SIM_WAKE,  /* the end of transport_wait */
	SIM_START, /* of a node that is down */
	SIM_WRITE,
	SIM_READ,
	SIM_CHAOS,
};

struct sim_event {
	uint64_t at, order;
	enum sim_event_kind kind;
	unsigned a, number; /* node and its life, or connection and its number */
};

struct sim_options {
	bool quiet_network; /* no faults between the nodes */
	bool verbose;
};

struct sim {
	uint64_t seed;
	struct rng rng, system;
	uint64_t now;
	struct sim_event *events; /* heap */
	size_t event_count, event_cap;
	uint64_t order;
	bool chaos; /* faults are made */
	bool verbose;

	struct sim_node nodes[SIM_NODES_MAX];
	unsigned count, current;
	bool cut[SIM_NODES_MAX][SIM_NODES_MAX];
	struct sim_conn conns[SIM_CONNS_MAX];
	unsigned numbers;
	struct sim_record records[SIM_RECORDS];
	unsigned record_next;

	struct sim_states states;
	struct history history; /* while there is one: without resets and failovers */
	unsigned legitimate;	/* the node that is primary by the last promotion */
	bool failovers;		/* this seed has them */
	uint32_t epoch;		/* the newest that was asked for */
	unsigned safe_copies;
	struct sim_state *safe; /* newest state that so many followers have acknowledged */
	bool resets;		/* the primary's file is put back to an older copy once */
	struct env_mem *copy;	/* of it, NULL: not made yet */
	struct sim_state *copied;
	bool was_reset;
	uint32_t next_item;

	/* what happened, to see that a run was worth something */
	uint64_t commits, frames, crashes, power_losses, refused, forged, stale, damaged, redirected, checks,
		reads;
	uint64_t promotions, grafts, wiped, safe_states;
};

extern struct sim *sim_world; /* the one that runs in this process */

/* Run one seed to its end; does not return when something is wrong: prints and exits. */
void sim_run(uint64_t seed, bool verbose, struct sim *totals);
void sim_fail(struct sim *, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
void sim_note(struct sim *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_at(struct sim *, uint64_t ms, enum sim_event_kind kind, unsigned a, unsigned number);
bool sim_chance(struct sim *, uint64_t n); /* once in n, while faults are made */

/* sim_host.c */
void host_init(struct sim *, unsigned index);
void host_start(struct sim_node *);
/* Cleanly, to start again later; false: it died while it stopped. */
bool host_stop(struct sim_node *, uint64_t start_ms);
void host_fini(struct sim_node *);
/* After anything ran on it: a crash in the middle ends it, new states are judged. */
void host_settle(struct sim_node *);
/* Dies now, or at some call soon. */
void host_kill(struct sim_node *, bool power, uint64_t calls);
struct bts *host_db(struct sim_node *); /* NULL: no file open */
void host_commit(struct sim_node *);
/* The primary's file, closed, is copied; or the copy is put in its place. */
void host_copy(struct sim_node *);
/* Let the follower's thread run until it waits again. */
void host_resume(struct sim_node *);

/* Stop and start at once, in whatever role it is to have now. */
void host_move(struct sim_node *);
bool host_fenced(struct sim_node *);
/* Its file is thrown away, and it starts with nothing. */
void host_wipe(struct sim_node *);

/* sim_role.c */
struct sim_node *role_primary(struct sim *);
void role_acknowledged(struct sim_node *);
void role_failover(struct sim *);
void role_promoted(struct sim_node *);
/* Former primaries are told, orphans go back. */
void role_tend(struct sim *);

/* sim_check.c */
void check_position(struct sim_node *); /* when it moved: content and pages */
void check_opened(struct sim_node *);
void check_clean(struct sim_node *);
void check_reader(struct sim_node *, struct sim_reader *);
void check_acks(struct sim_node *);
/* The lists as a client reads them here; last: nothing comes after it. */
void check_lists(struct sim_node *, bool last);
void check_pages_known(struct sim_node *);

/* sim_client.c */
void client_head(struct sim_conn *, const struct sim_reply *);
void client_body(struct sim_conn *, const void *data, size_t size);
void client_end(struct sim_conn *);
void client_broken(struct sim_conn *, const char *why);
void client_woken(struct sim_node *);
bool client_waits_for(const struct sim_conn *);

/* sim_server.c */
struct sim_conn *server_conn(struct sim *, unsigned at, unsigned number); /* NULL: it has ended */
struct sim_conn *server_request(struct sim_node *client, const char *url, unsigned wait_ms);
struct sim_conn *server_post(
	struct sim_node *client, const char *url, struct bts_slice body, unsigned wait_ms);
void server_abandon(struct sim_conn *); /* the client has gone */
void server_event(struct sim *, const struct sim_event *);
void server_news(struct sim_node *); /* its position moved */
void server_died(struct sim_node *,
	bool power); /* what it was sending ends, at once or when the other side gives up */
void server_end_streams(
	struct sim_node *); /* of its own frames, which keep what they send from being overwritten */

/* sim_forge.c */
/* Another frame, sealed as well, with something wrong in it; false: as it was.  *bytes is owned by the caller. */
bool forge(struct rng *, uint8_t **bytes, size_t *size);

#endif
