/* What the files of a follower share. */
#ifndef FOLLOW_PRIVATE_H
#define FOLLOW_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "follow.h"
#include "frame.h"
#include "progress.h"
#include "session.h"
#include "transport.h"

#define FOLLOW_BROKEN_MAX 3	  /* frames that break off in a row, until what is missing is asked for in small questions */

struct follow {
	char *path;
	struct sources sources; /* the thread's */
	struct bts_options open;
	struct repl_events events;

	_Atomic(struct bts *) db;
	bool lent; /* db is the caller's */
	atomic_bool stopping;
	pthread_t thread;

	/* the thread's own */
	struct transport *transport;
	struct frame_decoder *decoder;
	struct session session;
	uint64_t resumes;
	struct frame_header frame; /* the one being received */
	struct bts_apply *apply;   /* NULL between frames */
	struct session_reply reply;
	char reply_code[40];
	char reply_via[BTS_VIA_MAX + 1];
	char reply_fork[POSITION_TEXT_SIZE];
	struct bts_position fork; /* of the reply: what it named as the fork */
	bool has_fork;
	bool rejoin; /* as in the options */
	uint8_t digest[16]; /* of the reply */
	bool has_digest;
	bool suspect; /* the source's digest was another one: no frame can follow, a graft can */
	uint64_t frame_bytes, frame_pages;
	unsigned broken;	  /* frames between two commits in a row that broke off after much of them had come */
	uint64_t graft_after;	  /* as in the options */
	uint64_t source_size;	  /* of the reply: bytes of the source's file, 0: not told */
	struct progress progress; /* of a first transfer */
	struct bts_error failure; /* of the request of the moment */
	char reported[256];	  /* the failure last emitted, "" = none since all went well */

	pthread_mutex_t lock;
	struct sources wanted;	   /* count 0: none */
	struct follow_status status; /* contact_ms and lag_ms hold instants here, 0 = none */
};

uint64_t follow_now(void);
void follow_publish(struct follow *, const char *state); /* for follow_status; state is static */
void follow_tell(struct follow *);
/* Opens the file; sets db and tells where it stands. */
enum bts_err follow_open(struct follow *, struct bts_position *own, uint32_t *page_size, struct bts_error *error);
bool follow_is_final(enum bts_err err); /* an error that asking again cannot mend */

/* follow_receive.c: asks once and takes what comes; follow->failure says more. */
enum bts_err follow_ask(struct follow *, const char *target);
/* The frame has ended, whole or not: of a first transfer what came is kept, and asked to be gone on with. */
void follow_leave(struct follow *);

/* follow_graft.c: after a reply, may and should the source's newest commit be taken by a graft? */
bool follow_may_graft(const struct follow *);
/* The session goes on from the source's newest commit, or tries again, unless no trying helps. */
enum bts_err follow_graft(struct follow *, struct bts_error *failure);

#endif
