/*
 * Who writes, by a lease (R8): one node's part as a state machine without sockets, files, clocks or threads.  failover_run.c drives it, and a
 * simulation.
 *
 * A key of a service that all nodes trust (etcd) exists while a lease on it is renewed.  Who creates it may run an election; who
 * wins that may write until the deadline: the time at which the renewal was SENT, plus the lease's, minus a margin.  The service counts the
 * lease from when it took the renewal, which is later, so the key is still there when the deadline passes, on any clock that goes wrong
 * by less than the margin in a lease's time.  Another one can only create it afterwards.  The engine looks at the deadline at every commit (bts_deadline_set),
 * so a process that was stopped for an hour writes nothing when it wakes, whatever this machine gets to know, and when.
 *
 * Every new hold of the key begins with an election, of a primary too: its epoch may have been ended by one who was elected meanwhile
 * without asking it.  So a wrong answer about the key can cost availability, and never a write that enough nodes have.
 *
 *   WATCH --key gone: grant--> CANDIDATE --create--> HOLDER --elected, published--> LEADER
 *     ^                            |                   | lost the election,           | deadline passed, key lost, role lost,
 *     |                            | another was first | lease gone                   | told to leave
 *     +-------- revoked -------- LEAVING <-------------+------------------------------+
 *
 * LEAVING fences the file durably before the key is given up.
 *
 * Elections that were lost leave promises.  Who promised a later epoch than that of who was elected without it (it was out of reach, say)
 * takes no frames of that one.  It asks for what it promised (FAILOVER_CLAIM): that fences the elected one, and the next election is above it.
 */
#ifndef FAILOVER_H
#define FAILOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAILOVER_NAME_MAX 63
#define FAILOVER_URL_MAX 255
#define FAILOVER_TTL_LEAST_MS 2000
#define FAILOVER_TTL_MOST_MS 600000

enum failover_role {
	FAILOVER_FOLLOWER,
	FAILOVER_PRIMARY,
	FAILOVER_EMPTY,	   /* a follower that has received nothing yet */
	FAILOVER_PROMISED, /* a follower that has promised a later epoch than it has seen */
	FAILOVER_BROKEN,   /* its file failed: nobody writes it until all have closed it */
};
enum failover_state {
	FAILOVER_WATCH,
	FAILOVER_CANDIDATE,
	FAILOVER_HOLDER,
	FAILOVER_LEADER,
	FAILOVER_LEAVING
};

/* Calls to the service. */
enum failover_call {
	FAILOVER_NO_CALL,
	FAILOVER_READ,	  /* the key */
	FAILOVER_GRANT,	  /* a lease */
	FAILOVER_CREATE,  /* the key with the lease, where there is none */
	FAILOVER_RENEW,	  /* the lease */
	FAILOVER_PUBLISH, /* the key as an elected one's, where it still has the lease */
	FAILOVER_REVOKE,  /* the lease, and the key with it */
};
enum failover_result {
	FAILOVER_DONE,
	FAILOVER_REFUSED, /* it was not done, and will not be: the key has another lease, the lease is gone */
	FAILOVER_UNKNOWN, /* no answer: it may have been done, or will be yet */
};

/* What stands in the key. */
struct failover_key {
	bool there;
	int64_t lease;
	char name[FAILOVER_NAME_MAX + 1];
	char url[FAILOVER_URL_MAX + 1];	   /* where it serves readers and writers; "" = not at all */
	char source[FAILOVER_URL_MAX + 1]; /* where it serves followers */
	bool elected;			   /* it is the primary; else it only holds the key yet */
};

struct failover_reply {
	enum failover_call call;
	enum failover_result result;
	uint64_t sent_ms;	 /* when the call was begun */
	int64_t lease;		 /* GRANT */
	uint64_t ttl_ms;	 /* GRANT, RENEW */
	struct failover_key key; /* READ */
};

/* Changes of the node's role. */
enum failover_change {
	FAILOVER_NO_CHANGE,
	FAILOVER_DEMOTE,
	FAILOVER_ELECT,
	FAILOVER_FOLLOW,
	FAILOVER_CLAIM, /* ask the others for what was promised here: who was elected with less is elected anew, with more */
};
enum failover_outcome {
	FAILOVER_CHANGED,
	FAILOVER_FAILED,   /* also: too few promised */
	FAILOVER_AHEAD,	   /* an election: another one has more */
	FAILOVER_DIVERGED, /* an election: two histories */
};

struct failover_options {
	const char *name, *source; /* own, as in the key; borrowed */
	uint64_t ttl_ms;
	uint64_t seed; /* of the back-off's randomness */
};

struct failover_counts {
	uint64_t elections, won, lost_leases;
};

struct failover {
	struct failover_options options;
	enum failover_state state;
	enum failover_role role;
	enum failover_call calling;    /* under way */
	enum failover_change changing; /* likewise */
	int64_t lease;		       /* 0: none */
	uint64_t until_ms;	       /* the deadline that the lease gives */
	uint64_t renewed_ms;	       /* when the last good renewal was sent */
	bool writing;		       /* the deadline is given out */
	bool elected;		       /* elected in this hold */
	bool unsure;		       /* a CREATE has no answer: READ tells */
	bool known;		       /* key is what was read, not older than the last own change of it */
	struct failover_key key;       /* as it was read last */
	uint64_t read_due_ms, call_due_ms, change_due_ms; /* not before */
	uint64_t campaign_ms, claim_ms;			  /* likewise */
	unsigned tries;					  /* elections of this hold */
	unsigned failures; /* holds in a row that were given up without having won one */
	bool stopping;
	char followed[FAILOVER_URL_MAX + 1];
	struct failover_counts counts;
};

struct failover_do {
	enum failover_call call;
	enum failover_change change; /* FOLLOW: key tells whom */
	uint64_t deadline_ms;	     /* of the writer; 0: it may not write */
	uint64_t wake_ms;	     /* when to step again, unless something comes before */
};

void failover_init(struct failover *, const struct failover_options *, uint64_t now);
/* What to do.  A call or change given out is under way until failover_answered or failover_changed. */
void failover_step(struct failover *, enum failover_role, uint64_t now, struct failover_do *);
void failover_answered(struct failover *, const struct failover_reply *, uint64_t now);
/* The change given out has ended; role: what the node is after it. */
void failover_changed(struct failover *, enum failover_outcome, enum failover_role, uint64_t now);

/* Does not try to get the key before that time, and gives it up if it has it. */
void failover_pause(struct failover *, uint64_t until_ms);
/* Try at once, whatever was agreed before. */
void failover_campaign(struct failover *, uint64_t now);
/* Give up what it has, for good; failover_idle tells when. */
void failover_stop(struct failover *);
bool failover_idle(const struct failover *);

uint64_t failover_margin_ms(uint64_t ttl_ms);
/* Another node has the key. */
bool failover_other_holds(const struct failover *);
const char *failover_state_word(enum failover_state); /* static */

#endif
