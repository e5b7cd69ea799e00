/*
 * The persisted free set (G2): a log of deltas.  The newest entries stand inline in the commit record; when they do not
 * fit they are moved to a page of the chain; when the chain is long against the set, it is condensed: written anew
 * as the whole set.  An entry is 8 bytes: page number 48 | 16 bits: bit 15 freed (else allocated), low 15 bits
 * count (1 .. 32767).  Entries apply in order to an empty set over [first, high water).  A commit that lowers the mark
 * (compaction) logs the pages behind it as allocated: what entries say of pages behind the mark means nothing.
 *
 * A log page: header (type LAYOUT_FREE_LOG, tree LAYOUT_TREE_FREE_LOG, count = 0), at 48 the pointer to the
 * previous page (none: zero), at 64 u64 sequence of its first entry within the generation, at 72 u32 generation, at 76
 * u32 number of entries (0 is allowed), from 80 on the entries; the rest zero.  heap = page size, as no cells.
 */
#ifndef FREELOG_H
#define FREELOG_H

#include "pager.h"
#include "space.h"

#define FREELOG_INLINE_MAX 96u
#define FREELOG_COUNT_MAX 32767u /* pages one entry names */

struct freelog { /* part of the commit record */
	struct page_ptr head;   /* newest page of the chain */
	uint32_t generation;    /* +1 at each condensing */
	uint32_t pages;         /* in the chain */
	uint64_t sequence;      /* entries in the chain */
	uint32_t inline_count;
	uint64_t inline_entries[FREELOG_INLINE_MAX];
};

/* A commit's changes, gathered before it is sealed. */
struct freelog_delta {
	struct bts_env *env;
	uint64_t *entries;
	size_t count, cap;
};
void freelog_delta_init(struct freelog_delta *, struct bts_env *);
void freelog_delta_fini(struct freelog_delta *);
enum bts_err freelog_delta_add(struct freelog_delta *, struct space_run run, bool freed); /* splits long runs */

/* Entries that the whole free set takes when condensed: at most this many.  O(1). */
uint64_t freelog_set_entries(const struct space *);
/*
 * Plan: how many new log pages will an append of `entries` more entries need (0: they fit inline)?  Or, when condensing is
 * due (chain entries > 2 * runs + 8192, or *condense is true on entry: asked for), set *condense and return the pages for
 * the whole set; else clear it.  runs: freelog_set_entries, plus what is yet to be given or taken.  Upper bounds for
 * both counts do: with more pages than needed some hold fewer entries, and up to FREELOG_INLINE_MAX entries more than
 * planned go inline.
 */
size_t freelog_plan(const struct freelog *, uint64_t entries, uint64_t runs, uint32_t page_size, bool *condense);
/*
 * Append delta (after a plan that said no condensing): updates *log and fills `pages` images (page_size each, zeroed by
 * the caller) which will live at numbers[]: pointers carry birth; headers, births and crcs are complete on return.
 */
void freelog_append(struct freelog *, const struct freelog_delta *, uint8_t *images, const bts_pgno *numbers, size_t pages,
	bts_txid birth, uint32_t page_size);
/* Start over: the whole set as it will be after the commit (iterated by next), replacing chain and inline entries. */
void freelog_condense(struct freelog *, bool (*next)(void *arg, struct space_run *run), void *arg, uint8_t *images,
	const bts_pgno *numbers, size_t pages, bts_txid birth, uint32_t page_size);

/* The pages of the chain, newest first (for freeing them, for the walk, for check). */
enum bts_err freelog_pages(struct tree_ctx *, const struct freelog *,
	enum bts_err (*visit)(void *arg, const struct page_ptr *ptr), void *arg);
/*
 * Load the set into a fresh space of [first, high water): hostile bytes are checked (bounds, double frees, takes of pages that
 * are not free, sequence, generation).  visit as above, may be NULL.
 */
enum bts_err freelog_load(struct tree_ctx *, const struct freelog *, struct space *space);

#endif
