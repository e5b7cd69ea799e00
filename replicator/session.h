/*
 * The follower's side of replication as a state machine without sockets, files, clocks or threads: it says
 * what to do next and is told what happened.  follow.c drives it over HTTP, tests drive it by hand.
 *
 *            session_next                     session_reply 200
 *   idle ---- REQUEST ----> asked ------------------------------> streaming
 *    ^  <------ 204, error: session_done ------- |                    | session_frame END, session_applied
 *    |                                           | 409                v
 *    +--- WAIT (back-off over) <---- failed      v              (next request acknowledges)
 *                                             stopped
 *
 * Everything a source says is checked against what was asked for: another database, another base, a lower
 * epoch (R3) or another page size never reaches the file.
 *
 * The first request, and the first after each failure, does not wait: its answer says at once where the source
 * stands.  The others wait for news only so long that contact_ms, which is what a reader's staleness is judged
 * by, stays as young as the wait while source and network are well.
 */
#ifndef SESSION_H
#define SESSION_H

#include "frame.h"
#include "position.h"
#include "query.h"

#define SESSION_BACKOFF_MIN_MS 100
#define SESSION_BACKOFF_MAX_MS 10000
#define SESSION_STUCK_MAX 5
#define SESSION_EARLY_MS 100 /* an answer without news that comes sooner would make a tight loop */

struct session_config {
	const char *node; /* copied */
	const char *url;  /* copied; NULL or "" = none */
	uint64_t session;
	unsigned wait_ms;
	bool zstd;			/* ask for compressed pages */
	uint32_t (*random)(void *arg); /* for the jitter */
	void *random_arg;
};

enum session_state { SESSION_IDLE, SESSION_ASKED, SESSION_STREAMING, SESSION_FAILED, SESSION_STOPPED };

struct session {
	struct query query; /* after: what is durable here; wait_ms: of the request of the moment */
	unsigned wait_ms;   /* granted to requests that may wait */
	uint32_t page_size; /* of the file; 0 = not known yet */
	bool resumed;	    /* this reply's frame goes on where another ended */
	unsigned stuck;	    /* such replies in a row that brought nothing */
	uint32_t (*random)(void *arg);
	void *random_arg;

	enum session_state state;
	bool first;	   /* since the start or the last failure: does not wait */
	bool applied;	   /* this reply's frame is installed */
	bool early;	   /* an answer without news came sooner than SESSION_EARLY_MS */
	unsigned failures; /* in a row */
	uint64_t asked_ms; /* when the last request was made */
	uint64_t heard_ms; /* when its reply came */

	/* for status */
	uint64_t upstream_txid; /* newest the source told of; 0 = not heard yet */
	uint64_t contact_ms;	/* when the source last told its newest txid, 0 = never */
	uint64_t fresh_ms;	/* what the source had by then is here, 0 = not known; session_init's caller may know it from before */
	uint64_t heard_lag_ms;	/* how old what the source had may have been at its last answer */
	uint64_t source_lag_ms; /* the same, of the answer that brought what is here */
	char via[BTS_VIA_MAX + 1]; /* the nodes commits come through, the source first; "" = not known */
	char fork[POSITION_TEXT_SIZE]; /* the newest commit that both histories have, when they parted; "" = they did not, as known */
	uint64_t frames, retries;
	struct bts_error error; /* the last failure */
};

/* own: the file's position, or NULL when there is no file yet.  page_size 0 with NULL. */
void session_init(
	struct session *, const struct session_config *, const struct bts_position *own, uint32_t page_size);

enum session_do { SESSION_REQUEST, SESSION_WAIT, SESSION_STOP };
struct session_step {
	enum session_do what;
	char target[QUERY_TARGET_SIZE]; /* REQUEST: path and query */
	unsigned wait_ms;		/* WAIT */
};
/* What to do now.  STOP is for ever: session->error says why. */
void session_next(struct session *, uint64_t now_ms, struct session_step *step);

struct session_reply {
	long status;
	bool has_txid;
	uint64_t txid;	  /* BTS-Txid */
	const char *code; /* BTS-Error, or NULL */
	const char *via;  /* BTS-Via, or NULL */
	const char *fork; /* BTS-Fork, or NULL */
	bool follower;	  /* BTS-Role: the source follows another */
	bool has_lag;
	uint64_t lag_ms; /* BTS-Lag-Ms */
};
/* Where it is not known how old what somebody has is: a year is beyond every bound that may be asked for. */
#define SESSION_LAG_UNKNOWN_MS (UINT64_C(365) * 24 * 3600 * 1000)
/* Status and headers have come.  BTS_OK: a frame follows.  BTS_NOT_FOUND: a body of no interest (204
 * included). */
BTS_MUST_CHECK enum bts_err session_reply(
	struct session *, const struct session_reply *reply, uint64_t now_ms, struct bts_error *error);

/* The frame's header has come: BTS_OK when the frame is for this file as it is. */
BTS_MUST_CHECK enum bts_err session_frame(
	struct session *, const struct frame_header *header, struct bts_error *error);
/*
 * How far the first transfer has come, once the reply has ended or at the start; position.txid 0: nowhere.  moved: this
 * reply has brought pages, so the source is asked again soon.  After SESSION_STUCK_MAX replies that went on with it and brought none it begins anew.
 */
void session_transfer(struct session *, const struct bts_partial *partial, bool moved);
/* A whole frame was installed and is durable. */
void session_applied(struct session *, const struct frame_header *header);
/* This commit was installed by a graft: a session that had stopped goes on from there. */
void session_grafted(struct session *, const struct bts_position *target, uint64_t now_ms);
/* The reply has ended, or never came.  error is NULL for success. */
void session_done(struct session *, const struct bts_error *error);
/* Something that no retry mends. */
void session_stop(struct session *, const struct bts_error *error);
/* It was stopped by a source, and there is another one to ask: back off and go on. */
void session_retry(struct session *);
/* Another source from now on: nothing of what the last one said counts, whatever it was. */
void session_switch(struct session *);

/* How old what is here may be against the source, by its fresh_ms. */
uint64_t session_lag_ms(uint64_t fresh_ms, uint64_t now_ms);

#endif
