/* What the files of node share. */
#ifndef NODE_PRIVATE_H
#define NODE_PRIVATE_H

#include <pthread.h>

#include "node.h"

/* A URL in use once: readers keep pointers to it, so all are kept. */
struct node_text {
	struct node_text *next;
	char text[];
};

struct transport;

struct node {
	struct node_options options; /* its strings are owned, source aside */
	atomic_int kind; /* enum bts_role_kind */
	_Atomic(const char *) source, primary_url; /* "": none known */
	/*
	 * db reads, and writes while the file is a primary's; NULL while only follow has the file open.  It stays for good: a
	 * handle once given out is never closed before the end.  applier: follows, where db can not (it was opened to
	 * write); else equal to db, or NULL.
	 */
	_Atomic(struct bts *) db;
	struct bts *applier;
	pthread_rwlock_t switching; /* of follow and applier: read to use them, written to change them */
	struct follow *follow;
	pthread_mutex_t changing; /* one change of role at a time */
	atomic_uint_least64_t changed_ms;
	atomic_uint_least64_t fresh_ms; /* while nothing is followed: what the primary had by then is here; 0: not known */
	atomic_uint_least64_t txid;
	atomic_bool synced, cancelled;
	_Atomic(struct failover_run *) failover;
	pthread_mutex_t lock; /* of what follows */
	struct node_text *texts;
	struct transport *asking; /* an election's, NULL: none is under way */
	pthread_mutex_t scrubbing; /* of repair */
	struct repair *repair;
};

unsigned node_flags(const struct node *); /* for each handle that writes or may come to write */
uint64_t node_clock_ms(void); /* monotonic */
/* Kept until node_close; "" without memory. */
const char *node_keep_text(struct node *, const char *text);
/*
 * That this node follows nobody, for a bts-replicator beside it, which tells it to those who follow.  fresh_ms: what the primary had
 * by then is here; 0 of the primary itself.
 */
enum bts_err node_record_own(struct node *, uint64_t fresh_ms, struct bts_error *);
/* The follower's thread, on applier or a handle of its own.  switching is not held. */
enum bts_err node_start_follow(struct node *, const char *source, struct bts_error *);

#endif
