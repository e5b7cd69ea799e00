/* A range of keys made of bounds: low <= key < high. */
#ifndef HTTPAPI_RANGE_H
#define HTTPAPI_RANGE_H

#include "btree_store.h"

struct range_bound {
	char bytes[BTS_KEY_MAX];
	size_t size; /* 0: none */
};

/* All zero: every key.  Each call below makes it narrower, or leaves it.  Slices have 1 to BTS_KEY_MAX bytes. */
struct range {
	struct range_bound low, high;
};

void range_from(struct range *, struct bts_slice key); /* key and what comes after */
void range_to(struct range *, struct bts_slice key);   /* what comes before key */
void range_prefix(struct range *, struct bts_slice prefix);
/* The first key after all that begin with prefix; size 0 when there can be none (0xff alone). */
void range_past(struct bts_slice prefix, struct range_bound *past);

int range_compare(struct bts_slice key, const struct range_bound *); /* as memcmp; not with none */
int range_empty(const struct range *);				     /* no key can be in it */
struct bts_slice range_slice(const struct range_bound *);
#endif
