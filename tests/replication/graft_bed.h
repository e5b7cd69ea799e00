/* Forked histories in memory, and grafts by the engine's own door. */
#ifndef GRAFT_BED_H
#define GRAFT_BED_H

#include "apply_bed.h"

/* What a graft did. */
struct graft_count {
	uint64_t units, pages, rounds;
};

/* The file of `from`, which nobody has open, under another name: who writes it begins a new epoch (R3). */
void graft_copy(struct env_mem *, const char *from, const char *to);
/* Take follower to source's head.  fork NULL: base unknown.  rng: random pieces and batches, or NULL. */
enum bts_err graft(struct bts *follower, struct bts *source, const struct bts_position *fork, struct rng *rng,
	struct graft_count *count, struct bts_error *error);
/* The same up to the finish: all has come (owned: finish or abort).  pages stays pinned (owned: bts_pages_close). */
enum bts_err graft_fetch(struct bts *follower, struct bts_pages *pages, const struct bts_position *fork, struct rng *rng,
	struct graft_count *count, struct bts_apply **apply, struct bts_error *error);
/* Units and pages live in `target` that are not, byte for byte and born up to trust, live in `local`. */
void graft_differs(struct bts *target, struct bts *local, bts_txid trust, struct graft_count *count);

#endif
