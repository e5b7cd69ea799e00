/* A bucket of many small entries with a naive oracle, overwritten one by one: what the growth tests share. */
#ifndef MODEL_GC_FIELD_H
#define MODEL_GC_FIELD_H

#include "bed.h"

#include <rng.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer)
#define GC_ENTRIES 10000u
#define GC_COMMITS 5000u
#else
#define GC_ENTRIES 100000u
#define GC_COMMITS 50000u
#endif
#define GC_KEY_SIZE 16u
#define GC_VALUE_SIZE 100u

/* Every key's value follows from its number and how often it was written: the oracle is one count a key. */
struct gc_field {
	struct bed bed; /* in memory */
	struct rng rng;
	uint32_t *writes;
	unsigned commits; /* by gc_commit */
};

/* A reader and what it must see. */
struct gc_pin {
	struct bts_txn *txn;
	uint32_t *writes;
};

/* All entries are put in one transaction. */
void gc_init(struct gc_field *, uint64_t seed);
void gc_fini(struct gc_field *); /* with a check of everything */

/* Commits of one put each, at random keys, by any handle on the field's file. */
void gc_commit(struct gc_field *, struct bed *by, unsigned count);

void gc_pin(struct gc_field *, struct bed *by, struct gc_pin *);
void gc_unpin(struct gc_pin *); /* verified whole first */
/* The newest state is what the oracle says. */
void gc_verify(struct gc_field *, struct bed *by);

uint64_t gc_used(struct bed *by); /* pages in use */
void gc_print(
	const char *what, unsigned commits, const struct bts_stat *before, const struct bts_stat *after);
/* Pages that so many commits may leave on purpose. */
uint64_t gc_kept(unsigned commits);

#endif
