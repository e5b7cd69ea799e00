/* Between seal.c and seal_space.c only. */
#ifndef SEAL_INTERNAL_H
#define SEAL_INTERNAL_H

#include "base/order.h"
#include "seal.h"

/* Where the pointer to a private page stands, to be set when the page has its place and checksum. */
struct seal_holder {
	struct tree *tree; /* whose root it is; NULL: */
	uint8_t *node;     /* a private node */
	unsigned slot;     /* of it */
};

struct seal_item {
	struct page_ptr dirty, final;
	uint64_t extent_size; /* 0: a node */
	uint64_t pages;
	bool branch;
	struct lease *lease;  /* of an extent whose payload is in its place */
	struct seal_holder holder;
	uint8_t *image;       /* of a node */
	uint8_t *header;      /* of an extent: its header pages, owned */
};

/* A vector with room for an element at count. */
bool seal_grow(struct seal *, void **items, size_t *cap, size_t count, size_t size);
/* Room for so many and as many more; NULL: no memory.  Lent until the next call. */
struct order_key *seal_keys(struct seal *, size_t count);
/* No page from this one on: the address range ends. */
bts_pgno seal_page_limit(const struct seal *);
/* Single pages, taken from space. */
enum bts_err seal_take_pages(struct seal *, bts_pgno *numbers, size_t pages);
/* What the batch no longer needs, gathered to be freed: before its trees get their final pointers. */
enum bts_err seal_release(struct seal *);
/* What the commit frees and takes, written into the record's free log (and new pages of it). */
enum bts_err seal_log(struct seal *);

#endif
