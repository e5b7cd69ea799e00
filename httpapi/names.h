/* Listings of what has a name, buckets and named snapshots, a page at a time. */
#ifndef HTTPAPI_NAMES_H
#define HTTPAPI_NAMES_H

#include "btree_store.h"

struct buf;
struct request;

/* One of what is listed. */
union names_info {
	struct bts_bucket_info bucket;
	struct bts_snapshot_info snapshot;
};

struct names_kind {
	const char *what;     /* "bucket" */
	size_t name_max;      /* bytes, at most BTS_KEY_MAX */
	struct bts_slice skip; /* begin behind it; empty: at the first */
	/* The first whose name is > after; BTS_NOT_FOUND at the end. */
	enum bts_err (*next)(struct bts_txn *, struct bts_slice after, union names_info *, struct bts_slice *name);
	void (*json)(struct buf *, const union names_info *);
	int (*visible)(const struct request *, const union names_info *); /* NULL: all are */
};

/* Replies with the page that limit and after ask for. */
void names_reply(struct request *, const struct names_kind *);

#endif
