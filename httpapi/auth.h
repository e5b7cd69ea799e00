/*
 * Who may do what: the one place that decides it.
 *
 * request.c has each request admitted before its parameters are looked at and its body is read, and asks again for the bucket of
 * its path; a handler that touches more (the operations of a transaction, the keys of a multi-get, the buckets of a listing) asks
 * for each.  Who is asking is told by the guard (guard.h), which the replication's routes ask too.
 */
#ifndef HTTPAPI_AUTH_H
#define HTTPAPI_AUTH_H

#include "btree_store.h"

struct framing;
struct guard;
struct request;

enum auth_scope {
	AUTH_NONE, /* anybody: health */
	AUTH_READ,
	AUTH_WRITE,
	AUTH_ADMIN,
	AUTH_REPLICATE,
	AUTH_ELECT,
	AUTH_DATA, /* read or write: what is in the body tells */
};

/* 0, or -1 after request_refuse: unknown credentials, a wrong host or origin, or the route's scope is not among theirs. */
int auth_admit(struct request *, const struct framing *);
/* While a reply goes on for long: 0 when what was shown has been revoked, has expired or allows something else now. */
int auth_still(struct request *);
/* bucket: empty when the request is for none in particular: then who may do so with any bucket may go on. */
int auth_allows(const struct request *, enum auth_scope, struct bts_slice bucket);
/* For who goes on without the request: of the buckets that its credentials are limited to (request.buckets, NULL: all), is this one? */
int auth_among(const char *buckets, struct bts_slice bucket);
const char *auth_scope_word(enum auth_scope); /* "read", "none" */

#endif
