/*
 * Who may do what: the one place that decides it.
 *
 * request.c asks for the scope of the route, on the bucket of its path; a handler that touches more (the operations
 * of a transaction, the keys of a multi-get) asks for each.
 */
#ifndef HTTPAPI_AUTH_H
#define HTTPAPI_AUTH_H

#include "btree_store.h"

struct request;

enum auth_scope {
	AUTH_NONE, /* anybody: health */
	AUTH_READ,
	AUTH_WRITE,
	AUTH_ADMIN,
	AUTH_REPLICATE,
};

/* bucket: empty when the request is for none in particular, or for all. */
int auth_allows(const struct request *, enum auth_scope, struct bts_slice bucket);

#endif
