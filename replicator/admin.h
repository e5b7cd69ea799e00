/*
 * What is asked about roles and scrubs over HTTP, whichever server carries it: parameters in, a reply out.
 *
 * admin_new, admin_param for each of its admin_params that the request has, admin_check; unless one of them refused, admin_run, which may
 * take seconds where admin_slow says so; then admin_reply.
 */
#ifndef ADMIN_H
#define ADMIN_H

#include "node.h"

enum admin_kind {
	ADMIN_ROLE,
	ADMIN_PROMOTE,
	ADMIN_DEMOTE,
	ADMIN_FOLLOW,
	ADMIN_PROMISE,
	ADMIN_SCRUB,
	ADMIN_SCRUB_STATUS,
};

#define ADMIN_HEADERS_MAX 4
#define ADMIN_DETAIL_MAX 640

struct admin_header {
	const char *name;
	char value[POSITION_TEXT_SIZE];
};
struct admin_reply {
	unsigned status;
	char *body;	  /* JSON; NULL where it is a problem */
	const char *code; /* of a problem; with detail */
	char detail[ADMIN_DETAIL_MAX];
	struct admin_header headers[ADMIN_HEADERS_MAX];
	unsigned header_count;
};

struct admin;
/* Owned: admin_free.  node is borrowed until then.  NULL without memory. */
struct admin *admin_new(struct node *, enum admin_kind);
void admin_free(struct admin *);
/* The names it takes, NULL after the last. */
const char *const *admin_params(enum admin_kind);
bool admin_slow(enum admin_kind);
/* false: refused, the reply says why.  value: decoded. */
bool admin_param(struct admin *, const char *name, struct bts_slice value);
bool admin_check(struct admin *); /* is what must be there? */
void admin_run(struct admin *);
const struct admin_reply *admin_reply(const struct admin *); /* borrowed until admin_free */

#endif
