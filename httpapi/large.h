/*
 * A large value on its way into JSON: verified, and looked at whether it is text, in steps of bounded size, on a thread of work.h.
 * What a loop does itself holds up all of its connections.
 */
#ifndef HTTPAPI_LARGE_H
#define HTTPAPI_LARGE_H

#include "btree_store.h"

#define LARGE_INLINE ((size_t)64 << 10) /* a value up to this size costs a loop no more than a block of a reply does */
#define LARGE_STEP ((size_t)1 << 20)

struct large {
	struct bts_txn *txn;
	struct bts_bucket *bucket;
	struct bts_slice key; /* borrowed until the end */
	struct bts_get_state verified;
	struct bts_slice value; /* data NULL: not yet */
	size_t looked;		/* bytes of it */
	int plain;		/* of them: UTF-8 that JSON can have as a string */
	enum bts_err err;
};

void large_begin(struct large *, struct bts_txn *, struct bts_bucket *, struct bts_slice key);
/* 1: there is more to do; 0: value and plain are there, or err. */
int large_step(struct large *);

#endif
