/*
 * What an archive has of a database: the entries of all its manifests, and what has been pruned.
 *
 * Of each block of manifests the last is read.  One that is missing or damaged does not make the rest useless: it is a *hole*, and
 * whoever chooses a boundary beside one must not take what he sees for all there is (catalog_beside_hole).
 *
 * The object HEX/pruned says, for each epoch, below which transaction frames are gone or about to be: their entries are left out.
 */
#ifndef CATALOG_H
#define CATALOG_H

#include "fetch.h"
#include "plan.h"

struct catalog_hole {
	struct bts_position epoch;
	bts_txid low, high; /* of the entries before and after it in its epoch; 0: none */
	char key[MANIFEST_KEY_SIZE];
	struct bts_error why;
};

/* A block of manifests, by the last that is there. */
struct catalog_block {
	struct bts_position epoch; /* database, number, random */
	uint64_t sequence;
	size_t first, count; /* entries of it, those that are left out included */
};

/* Frames of that epoch with a target below are gone. */
struct catalog_floor {
	uint32_t epoch;
	uint64_t epoch_random;
	bts_txid below;
};

struct catalog {
	uint8_t database[16];
	struct manifest_entry *entries; /* as the manifests come: by epoch, then sequence */
	size_t count, cap;
	struct catalog_block *blocks;
	size_t block_count, block_cap;
	struct catalog_hole *holes;
	size_t hole_count;
	struct catalog_floor *floors;
	size_t floor_count;
};

/* Databases with a manifest in the store, each called once, in ascending order. */
typedef enum bts_err catalog_database_fn(void *arg, const uint8_t database[16], struct bts_error *error);
BTS_MUST_CHECK enum bts_err catalog_databases(
	struct store *, catalog_database_fn *visit, void *arg, struct bts_error *error);

/*
 * Reads all of a database.  BTS_NOT_FOUND: there is nothing of it.  BTS_VERSION: a manifest of a later kind; BTS_LIMIT; what the store says.
 * catalog_fini in every case.
 */
BTS_MUST_CHECK enum bts_err catalog_read(
	struct store *, const uint8_t database[16], struct catalog *, struct bts_error *error);
void catalog_fini(struct catalog *);

/* Only what is pruned, into a catalog that has nothing but its database.  catalog_fini in every case. */
BTS_MUST_CHECK enum bts_err catalog_read_pruned(struct store *, struct catalog *, struct bts_error *error);
/* Is the entry of a frame that was pruned? */
bool catalog_pruned(const struct catalog *, const struct manifest_entry *);
/* Moves entries that were not pruned to out, which has room for all; how many. */
size_t catalog_kept(const struct catalog *, struct manifest_entry *out);
/* A hole that hides of what epoch the newest lineage is, or NULL. */
const struct catalog_hole *catalog_newer_hole(const struct catalog *, const struct plan *);
/* A hole in which boundaries may lie between this one and the next (PLAN_NONE), or NULL. */
const struct catalog_hole *catalog_beside_hole(
	const struct catalog *, const struct plan *, size_t boundary, size_t next);

/* The object of what is pruned: its key, and its text from floors (owned: free). */
void catalog_pruned_key(const uint8_t database[16], char out[MANIFEST_KEY_SIZE]);
BTS_MUST_CHECK enum bts_err catalog_pruned_write(
	const struct catalog_floor *floors, size_t count, struct bts_slice *text, struct bts_error *error);

#endif
