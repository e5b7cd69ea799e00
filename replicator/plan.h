/*
 * Which frames of an archive make which state.  Pure: entries of manifests in, a way through them out.
 *
 * Positions are points, frames lead from one to a later one, so there are no circles, and what is cheapest is found in one pass in the
 * order of transaction numbers.  A *boundary* is a point that frames lead to: what can be restored.  Entries are whatever the store
 * told: a wrong one makes a way that the frames themselves, or the checks around their application, refuse.
 *
 * The *lineage* of an epoch: its own boundaries, and, of each epoch that a frame of the lineage begins in, those up to there.
 * What an earlier primary wrote beyond the point where the next one took over is of another history, and so is what no frame connects.
 */
#ifndef PLAN_H
#define PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "manifest.h"

#define PLAN_ENTRIES_MAX (4u << 20)
#define PLAN_EPOCHS_MAX 4096u
#define PLAN_NONE SIZE_MAX /* no way, no frame, no boundary */

struct plan_boundary {
	struct bts_position at;
	uint64_t time_ms; /* the earliest that an entry tells */
	uint64_t bytes;	  /* to fetch, when there is a way */
	size_t frames;	  /* 0: no way from the empty state */
	size_t last;	  /* entry that ends the way, PLAN_NONE */
	size_t before;	  /* boundary where that begins, PLAN_NONE: the empty state */
	bool lineage;
};

struct plan {
	const struct manifest_entry *entries; /* borrowed */
	size_t count;
	struct plan_boundary *boundaries; /* by transaction number, then epoch, random, chain */
	size_t boundary_count;
	uint32_t epoch; /* whose lineage it is; 0: there are no entries */
	uint64_t epoch_random;
};

/*
 * entries are borrowed as long as the plan; of one database.  epoch 0: the newest there is; BTS_DIVERGED: there are two of the highest number, the text
 * names them.  BTS_NOT_FOUND: that epoch has no boundary.  BTS_CORRUPT: an entry that can not be; BTS_LIMIT; BTS_MEMORY.  plan_fini
 * in every case.
 */
BTS_MUST_CHECK enum bts_err plan_init(struct plan *, const struct manifest_entry *entries, size_t count,
	uint32_t epoch, uint64_t epoch_random, struct bts_error *error);
void plan_fini(struct plan *);

struct plan_wish {
	enum { PLAN_NEWEST, PLAN_TXID, PLAN_TIME } kind;
	uint64_t value; /* transaction number, or milliseconds since 1970 */
};
/*
 * The newest boundary of the lineage that is not above the wish, and the one after it (PLAN_NONE).  BTS_NOT_FOUND: there is none; or
 * frames that lead to it are missing: an older one is not taken for it, but named.  BTS_DIVERGED: two states of that number.
 */
BTS_MUST_CHECK enum bts_err plan_choose(const struct plan *, const struct plan_wish *wish, size_t *boundary,
	size_t *next, struct bts_error *error);
/* Entries in the order of their application (owned: free); the boundary must have a way.  BTS_MEMORY. */
BTS_MUST_CHECK enum bts_err plan_frames(
	const struct plan *, size_t boundary, size_t **frames, struct bts_error *error);
/* The boundary with that position, PLAN_NONE. */
size_t plan_find(const struct plan *, const struct bts_position *at);

#endif
