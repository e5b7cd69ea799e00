/*
 * Small replies made of response objects that have been used before.
 *
 * Headers cost more than all else of a small request: the library copies each name and each value into memory of its own
 * (three allocations), and frees them when the reply is out.  So a loop keeps the objects of its last few small replies.  Where the next
 * one has headers of the same names with values of the same sizes, and a body of the same size, what differs is written
 * over what was there.
 *
 * Why that may be done: a value is read once, when the library makes the head of the reply, which it does as soon as the handler that
 * queued it has returned, in the same thread; until then nothing else of this loop runs.  A body is read until the reply is
 * out, so an object that has one is not used again before its request has ended.  Values of other sizes get another object, since the
 * library remembers sizes.
 *
 * That is so in libmicrohttpd 0.9.75; with others no object is used again.
 */
#ifndef HTTPAPI_REPLY_AGAIN_H
#define HTTPAPI_REPLY_AGAIN_H

#include "btree_store.h"

#define REPLY_AGAIN_BODY 4096 /* what a small one has at most */
#define REPLY_AGAIN_FIELDS 20
#define REPLY_AGAIN_KEPT 8

struct MHD_Response;

/* The headers of a reply: literals and what lives until it is queued. */
struct reply_fields {
	unsigned count;
	struct reply_field {
		const char *name, *value;
	} field[REPLY_AGAIN_FIELDS];
};

struct reply_kept {
	struct MHD_Response *response; /* NULL: none */
	char *body;
	size_t size;
	int taken; /* a reply with this body is being sent */
	unsigned count;
	struct {
		const char *name;
		char *value; /* the library's */
		size_t size;
	} field[REPLY_AGAIN_FIELDS];
};

/* A loop's. */
struct reply_again {
	struct reply_kept kept[REPLY_AGAIN_KEPT];
	unsigned next; /* who makes room for another */
};

/*
 * A response with these headers and a copy of the body, to be queued before anything else is asked for here; it stays ours.  *taken: to be
 * given to reply_again_end when the request has ended; NULL: nothing is.  NULL: the caller makes one.
 */
struct MHD_Response *reply_again(
	struct reply_again *, const struct reply_fields *, struct bts_slice body, struct reply_kept **taken);
void reply_again_end(struct reply_kept *taken);
void reply_again_fini(struct reply_again *); /* after the daemon's end */

#endif
