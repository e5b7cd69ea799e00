/* Stores in memory (store.h) that fail when told to.  Any number of handles on one bucket, any thread. */
#ifndef STORE_MEM_H
#define STORE_MEM_H

#include <stdbool.h>

#include "store.h"

enum mem_fault {
	MEM_ONCE,   /* the call fails, nothing happened */
	MEM_ANSWER, /* it was done, and nobody is told */
	MEM_STICKY, /* all from it on fail, until the bucket is healed */
	MEM_FAULTS,
};

struct mem_bucket;
struct mem_bucket *mem_bucket_new(void);
void mem_bucket_free(struct mem_bucket *); /* NULL is fine */
/* Owned: store_close. */
struct store *mem_store(struct mem_bucket *);

/* The n-th call from here on, counted from 1. */
void mem_fail(struct mem_bucket *, enum mem_fault, unsigned n);
void mem_heal(struct mem_bucket *);
unsigned mem_failed(struct mem_bucket *); /* calls that did */
void mem_empty(struct mem_bucket *);
struct mem_bucket *mem_copy(struct mem_bucket *);	   /* as it is at this moment */
size_t mem_count(struct mem_bucket *, const char *within); /* objects with that in their keys */
/* The next puts of a key with that in it wait until mem_heal. */
void mem_hold(struct mem_bucket *, const char *within);
bool mem_held(struct mem_bucket *); /* one does */

#endif
