/*
 * Who may become the primary (R8): promises of a new epoch and positions of the members, and what follows from them.  No sockets,
 * files or clocks: elect_http.c asks the members.
 *
 * Of N members at least N - K must have promised, the candidate among them, where every write that must survive was
 * acknowledged by K others: then at least one of those who promised has it.  A promise holds off every lower epoch for good, so what
 * a member reports after it is final; the one that has most may begin the epoch, no other.
 */
#ifndef ELECT_H
#define ELECT_H

#include <stdbool.h>

#include <btree_store/ship.h>

#define ELECT_MEMBERS_MAX 15 /* besides the candidate */
#define ELECT_URL_MAX 255
#define ELECT_WHY_SIZE 512

enum elect_answer {
	ELECT_SILENT,	/* not asked, or no answer */
	ELECT_PROMISED, /* and it stands at `position` */
	ELECT_REFUSED,	/* it has promised, or is in, epoch `promised` or a later one */
};

struct elect_member {
	char url[ELECT_URL_MAX + 1];
	enum elect_answer answer;
	struct bts_position position;
	uint32_t promised;
	char why[160]; /* why not, "" = none */
};

struct elect {
	struct bts_position own; /* the candidate's, after its own promise */
	uint32_t epoch;		 /* that is asked for */
	uint64_t epoch_random;
	unsigned survive; /* K */
	unsigned count;
	struct elect_member members[ELECT_MEMBERS_MAX];
};

/*
 * members: URLs with commas between, the candidate not among them; "" = none.  BTS_INVALID with a text.  survive: at most the
 * number of members.
 */
BTS_MUST_CHECK enum bts_err elect_init(
	struct elect *, const char *members, unsigned survive, struct bts_error *error);
/* The number to ask for: above all that is known; 0: there is none. */
uint32_t elect_number(const struct elect *, const struct bts_role *own);
/* How many must promise, the candidate included. */
unsigned elect_needed(const struct elect *);
unsigned elect_promised(const struct elect *);
/* Somebody has promised, or is in, an epoch that is not below this one; tied: of the same number. */
bool elect_is_outbid(const struct elect *);
bool elect_is_tied(const struct elect *);

enum elect_verdict {
	ELECT_PROMOTE,
	ELECT_NO_QUORUM, /* too few promised */
	ELECT_OUTBID,	 /* too few, because of later epochs: ask for a higher one */
	ELECT_AHEAD,	 /* a member has more: that one is to be promoted */
	ELECT_DIVERGED,	 /* a member's history is another one: two primaries have written */
};
/* The code of a problem: "no-quorum", "outbid", "ahead", "diverged"; "" = promote. */
const char *elect_code(enum elect_verdict);
/* why: a sentence that names who. */
enum elect_verdict elect_judge(const struct elect *, char why[ELECT_WHY_SIZE]);

/* <0, 0, >0 as a has less, the same, more than b; *diverged: neither can have come from the other. */
int elect_compare(const struct bts_position *a, const struct bts_position *b, bool *diverged);

/*
 * Ask every member for its promise, one after the other, each for a few seconds at most (elect_http.c).  Blocks; transport_interrupt
 * ends it, and whoever was not asked is silent.
 */
struct transport;
void elect_ask(struct elect *, struct transport *);

#define ELECT_PROMISE_PATH "/v1/replication/promise"

#endif
