/*
 * Free space (rules I1, G1, G2): which pages may be given to a new commit.
 *
 * Every page of [first, high water) is live, ready or pending.  ready: free, and no root that can still be read needs
 * it.  pending: free in the newest commit, but with an interval [birth, freed) that a reader's snapshot lies in, or
 * freed above the durable root.  One bit a page for ready, with a count per group of pages so that full groups
 * are skipped.  Pending pages have a bit too, and their intervals in a list; those that a reader's snapshot holds are
 * shelved under that snapshot, so that a forgotten reader costs no time at each commit.  Only the writing process has
 * one; readers matter through the list of snapshots given to space_reclaim.
 *
 * Invariants: no page has both bits; group[g] and ready count the ready bits, pending_pages the pending ones and
 * free_runs the maximal runs of pages with either; every pending page lies in exactly one entry, of the list or of a
 * shelf.
 */
#ifndef SPACE_H
#define SPACE_H

#include "layout.h"
#include <btree_store/env.h>

struct space_run {
	bts_pgno pgno;
	uint64_t count;
};

struct space_pending {
	bts_pgno pgno;
	uint64_t count;
	bts_txid birth, freed;
};

/* Pending entries that lie in wait for one snapshot, the oldest that holds them. */
struct space_shelf {
	bts_txid snapshot;
	struct space_pending *entries;
	size_t count, cap;
};

/* Where a head (space_head.c) stands: the ready pages of indexes [at, end) are the next that it gives; those before clear were cleared. */
struct space_head {
	uint64_t at, end, clear;
};

#define SPACE_RING 8u

struct space_heads {
	struct space_head lasting, next, brief; /* next: behind that of lasting; end 0 until it is chosen */
	uint64_t wanted; /* lasting pages of the last batch */
	uint64_t ring[SPACE_RING]; /* segments for brief pages, in the order in which they were begun, around */
	unsigned ring_count, ring_next; /* the oldest */
	uint64_t looked; /* segments before this one were looked at last */
	bts_pgno limit;	 /* lasting pages may be had by raising the mark so far; 0: not */
	uint64_t granted; /* pages of it before the whole file is looked at again */
	unsigned quiet;	 /* batches of middle size before heads are used again */
	unsigned refused; /* and before more room is asked for, as there was none */
	bool lost;	 /* they had no good segment, and might not grow */
};

#define SPACE_GROUP 4096u /* pages, a multiple of 64 */

struct space {
	struct bts_env *env;
	bts_pgno first, high_water;
	uint64_t *bits;        /* 1 = ready; bit of page p is p - first */
	uint64_t *waiting;     /* 1 = pending */
	uint32_t *group;       /* ready pages in each group of SPACE_GROUP */
	uint64_t capacity;     /* pages the arrays have room for */
	uint64_t ready;        /* pages */
	uint64_t pending_pages;
	uint64_t free_runs;    /* of ready and pending pages together */
	struct space_pending *pending; /* not yet examined, or freed above the durable root */
	size_t pending_count, pending_cap;
	struct space_shelf **shelves; /* by snapshot, ascending */
	size_t shelf_count, shelf_cap;
	bts_pgno hint;         /* next fit */
	struct space_heads heads;
};

enum bts_err space_init(struct space *, struct bts_env *, bts_pgno first, bts_pgno high_water); /* nothing free */
void space_fini(struct space *);

enum space_kind {
	SPACE_ANY,
	SPACE_LASTING, /* of a batch for which space_has_heads: what is changed rarely */
	SPACE_BRIEF,   /* and what most of such batches change */
};

/*
 * Give `pages` pages: contiguous if must_join (extents), else as few runs as reasonable, preferring one run (next fit
 * for a long enough run, then the largest ones, then raising the high-water mark; space_alloc.c has the policy).  Runs
 * are written to runs[] (cap of them), ascending; *count runs were given.  Fails with BTS_MEMORY, or BTS_LIMIT when cap
 * runs are not enough (then nothing is taken).  Raising the mark past max_pages: BTS_FULL.
 */
struct space_request {
	uint64_t pages;
	bool must_join;
	bts_pgno max_pages; /* high-water limit */
	bts_pgno below;	    /* 0; else the lowest pages there are below this one, or BTS_FULL: the mark is not raised */
	enum space_kind kind;
};
enum bts_err space_alloc(struct space *, const struct space_request *, struct space_run *runs, size_t cap, size_t *count);
/* Make ready at once (undoing an allocation, loading the persisted set).  Every page of it must be live. */
enum bts_err space_give(struct space *, struct space_run run);
/* Undo a raise of the mark: pages from mark on must be ready. */
void space_lower(struct space *, bts_pgno mark);
/* Raise the mark (a follower's frame); the raised pages are live. */
enum bts_err space_raise(struct space *, bts_pgno mark);
/*
 * A follower: the mark fell, but its own readers may need what lies behind.  The map reaches to there then; what is added is
 * ready.  Does nothing when it reaches further.
 */
enum bts_err space_reach(struct space *, bts_pgno end);
/*
 * Follow another process's commit to its mark.  Up: space_raise.  Down: the pages from mark on were ready when that
 * commit was made; this replica may still have them pending, and forgets them.  BTS_MEMORY: as for space_claim.
 */
enum bts_err space_set_mark(struct space *, bts_pgno mark);
/* Take exactly these pages out of ready (a follower installs into them, a log replay): false when one is not ready. */
bool space_take(struct space *, struct space_run run);
/*
 * The same, of pages that are ready or pending: another process found them ready.  O(pending entries)
 * when one is pending for long.  False: a page is live, or no memory; then the space is to be thrown away.
 */
bool space_claim(struct space *, struct space_run run);
/* Free later: live now, pending until no snapshot s has birth <= s < freed and freed <= durable. */
enum bts_err space_retire(struct space *, struct space_pending entry);
/* Make room: that many calls of space_retire then cannot fail. */
enum bts_err space_make_room(struct space *, size_t entries);
/* Exclude: take those pages of run that are ready out into pending (an heir's readers, G5). */
enum bts_err space_hold(struct space *, struct space_run run, bts_txid birth, bts_txid freed);
/* Move what has become free from pending to ready.  snapshots ascending, each once. */
void space_reclaim(struct space *, bts_txid durable, const bts_txid *snapshots, size_t count);

#define SPACE_MIDDLE 10u /* pages: batches of so many and more are of middle size */
#define SPACE_MANY 512u  /* and from so many on, large */
/* Are the pages of a batch of so many asked for by kind? */
bool space_has_heads(const struct space *, uint64_t pages);
/* Would heads be served better by a larger file, when the trees that change have so many nodes?  The caller sees to heads.limit. */
bool space_heads_starve(const struct space *, uint64_t nodes);
void space_heads_quiet(struct space *);

bool space_is_ready(const struct space *, bts_pgno);
/* Is every page of run in [first, high water) and live? */
bool space_is_live(const struct space *, struct space_run run);
/* Is every page of run free in the newest commit (ready or pending)? */
bool space_is_free(const struct space *, struct space_run run);
/* The persisted set: ready and pending together as ascending runs.  *state 0 to begin; false at the end. */
bool space_next_free(const struct space *, bts_pgno *state, struct space_run *run);
uint64_t space_free_pages(const struct space *); /* ready + pending */
/* The snapshot that holds a pending page (0: the oldest that holds any), 0 when none does.  Slow: for a report. */
bts_txid space_holder(const struct space *, bts_pgno);
/* Would a request that must join find its pages below this one? */
bool space_fits(const struct space *, uint64_t pages, bts_pgno below);

/* Bits that are set: by adding neighbours, as the compiler's own may call a library (Warren, Hacker's Delight, 5-1). */
static inline uint64_t space_popcount(uint64_t word)
{
	word -= word >> 1 & UINT64_C(0x5555555555555555);
	word = (word & UINT64_C(0x3333333333333333)) + (word >> 2 & UINT64_C(0x3333333333333333));
	word = (word + (word >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
	return word * UINT64_C(0x0101010101010101) >> 56;
}

/*
 * For space_alloc.c: about the shortest stretch (indexes) that holds so many ready pages (space_window.c); false when none is
 * found, which in a large file does not mean that there is none.
 */
bool space_window(const struct space *, uint64_t pages, struct space_run *found);
/* Up to `pages` ready pages for the heads of a kind, taken, in the order they were come by; how many are missing (space_head.c). */
uint64_t space_take_head(struct space *, enum space_kind kind, uint64_t pages, struct space_run *runs, size_t cap, size_t *count);
/*
 * For clean.c: indexes [from, end) in the way of the next two batches' lasting pages, each told once; whoever moves what is live there
 * makes one piece of them.  false: there are no more.
 */
bool space_head_ahead(struct space *, uint64_t *from, uint64_t *end);
/* The first page index in [from, end) whose ready bit is `ready`; end when there is none. */
uint64_t space_find(const struct space *, uint64_t from, uint64_t end, bool ready);
/* Pages just below the mark that are ready, counted up to most. */
uint64_t space_tail(const struct space *, uint64_t most);

#endif
