/*
 * Replies.  Exactly one of these is called for a request, in its loop's thread.  Each adds X-Request-Id,
 * BTS-Txid, BTS-Epoch, BTS-Role and what request_set_header was told.
 */
#ifndef HTTPAPI_REPLY_H
#define HTTPAPI_REPLY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/types.h>

#include "btree_store.h"
#include "buf.h"
#include "reply_again.h"

struct request;

void reply_empty(struct request *, unsigned status);
/* Takes the buffer's memory. */
void reply_buf(struct request *, unsigned status, const char *type, struct buf *);
/* Bytes that stay where they are until release(arg), which is called in any case; of a small reply at once. */
void reply_borrowed(struct request *, unsigned status, const char *type, struct bts_slice bytes,
	void (*release)(void *arg), void *arg);

/* The same in pieces, for large ones: a client that takes too little of it is cut. */
void reply_pieces(struct request *, unsigned status, const char *type, struct bts_slice bytes, void (*release)(void *arg),
	void *arg);

/* A body that threads of work.h make, a piece at a time, while the connection is suspended.  size: REPLY_UNKNOWN: sent chunked. */
#define REPLY_UNKNOWN UINT64_MAX
struct reply_fetch {
	/* On such a thread: at most size bytes to out.  How many, 0: that was all, -1: cut the connection. */
	ssize_t (*fetch)(void *arg, uint64_t at, void *out, size_t size);
	void (*release)(void *arg); /* called in any case */
	void *arg;
};
void reply_fetched(struct request *, unsigned status, const char *type, uint64_t size, const struct reply_fetch *);

/* A body made as it is sent. */
#define REPLY_REST 2
#define REPLY_WORK 3
struct reply_stream {
	/* Append some to the buffer: 1 more will come, 0 that was all, -1 cut the connection, REPLY_REST as 1, after the others; REPLY_WORK as
	 * 1, after work. */
	int (*fill)(void *arg, struct buf *);
	void (*release)(void *arg); /* called in any case */
	void *arg;
	/* NULL without REPLY_WORK.  On a thread of work.h, the connection suspended: a bounded step; 1 to be called again, 0 that was all. */
	int (*work)(void *arg);
	/* After it the first block broke: replies why, as the caller of reply_stream does otherwise; release follows. */
	void (*broke)(struct request *, void *arg);
	/* NULL, or: after it a later block broke, and the connection is cut: notes why. */
	void (*cut)(struct request *, void *arg);
};
/*
 * When all of it fits one block it goes out with its length, else chunked.  0, or -1 when it broke in the
 * first block: nothing was replied or released.  With `work` the request's state must be free.
 */
int reply_stream(struct request *, unsigned status, const char *type, const struct reply_stream *);

/* A body that goes on as long as there is something to say: bytes; 0: nothing now, suspended until there is; -1: the end; -2: cut. */
typedef ssize_t reply_feed_fn(void *arg, char *out, size_t max);
void reply_feed(struct request *, const char *type, reply_feed_fn *, void *arg);

/* application/problem+json (RFC 9457).  extra: further members as JSON (",\"line\":3"), or NULL. */
void reply_problem(struct request *, unsigned status, const char *code, const char *extra, const char *format,
	...) __attribute__((format(printf, 5, 6)));
/* What an engine error means to a client. */
void reply_error(struct request *, enum bts_err err, const struct bts_error *error);

unsigned reply_meaning(enum bts_err err, const char **code); /* its status */

/* The opaque BTS-Token of a commit, and back; the latter 0 or -1. */
#define REPLY_TOKEN_MAX 48
struct reply_token {
	uint32_t epoch;
	uint64_t random;
	bts_txid txid;
};
/* What the last reply of a loop said of its commit: the next mostly says the same. */
struct reply_memo {
	struct reply_token of;
	unsigned epochs; /* role_epochs when of.epoch was asked for */
	char txid[21], epoch[21], token[REPLY_TOKEN_MAX]; /* token[0] 0: not made yet */
};

void reply_token_encode(const struct reply_token *, char text[REPLY_TOKEN_MAX]);
int reply_token_decode(struct bts_slice text, struct reply_token *);
#endif
