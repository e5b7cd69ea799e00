/* Two databases in memory, a random workload on the first, frames by the engine's own door to the second. */
#ifndef APPLY_BED_H
#define APPLY_BED_H

#include "cmocka.h"

#include <stdbool.h>
#include <stdio.h>

#include <btree_store/ship.h>

#include "env_mem.h"
#include "rng.h"

#define BED_UNITS_MAX 16384u

struct bed_unit {
	struct bts_page_id id;
	const uint8_t *bytes; /* borrowed from the walk */
	size_t size;
};

/* A frame: what a walk gives, kept open. */
struct bed_frame {
	struct bts_walk *walk;
	struct bts_position base, target;
	struct bts_slice record;
	struct bed_unit units[BED_UNITS_MAX];
	size_t count;
};

struct bts *bed_open(struct bts_env *, const char *path, unsigned flags, uint32_t page_size);
/* An empty follower's file of primary's database. */
void bed_create(struct bts_env *, const char *path, struct bts *primary, uint32_t page_size);

/* One random commit: puts, deletes, large values, buckets made and dropped, named snapshots. */
void bed_commit(struct bts *db, struct rng *);

struct bts_position bed_position(struct bts *db);
/* owned: bed_frame_free */
struct bed_frame *bed_frame_new(struct bts *primary, const struct bts_position *base);
void bed_frame_free(struct bed_frame *);
/* In random pieces, in random order (rng NULL: whole and in order).  Begins, sends, finishes. */
enum bts_err bed_apply(struct bts *follower, const struct bed_frame *, struct rng *, struct bts_error *);
/* A frame from follower's position to primary's head, made and applied; fails the test when refused. */
void bed_ship(struct bts *primary, struct bts *follower, struct rng *);

/* Of all buckets, keys and values that the transaction sees. */
void bed_digest(struct bts_txn *, uint8_t out[16]);
void bed_assert_clean(struct bts *db);
/* Same position, digest and contents, live pages equal byte for byte, both check clean. */
void bed_assert_same(struct bts *a, struct bts *b);

#endif
