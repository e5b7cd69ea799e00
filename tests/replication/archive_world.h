/* Histories that fork, and archives of them as entries of manifests, without the frames: for plans and prunes. */
#ifndef ARCHIVE_WORLD_H
#define ARCHIVE_WORLD_H

#include "plan.h"
#include "rng.h"

#define WORLD_EPOCHS 6
#define WORLD_ENTRIES 256

struct world_epoch {
	struct bts_position id; /* database, number, random */
	int parent;		/* -1: the first */
	bts_txid fork;		/* the parent's last transaction that it goes on from */
	bts_txid newest;
};

struct world {
	struct rng rng;
	struct world_epoch epochs[WORLD_EPOCHS];
	int epoch_count;
	struct manifest_entry entries[WORLD_ENTRIES];
	size_t count;
	uint64_t time_ms;
};

/* One epoch, without commits. */
void world_init(struct world *, uint64_t seed);
/* Another one, from that state of an earlier epoch on; its number is higher than all.  Its index. */
int world_fork(struct world *, int parent, bts_txid fork);
struct bts_position world_at(const struct world *, int epoch, bts_txid txid);
/* Is the one in the other's history, or the same? */
bool world_before(const struct world *, int epoch, bts_txid txid, int later_epoch, bts_txid later);
/* An entry, at the present time; from txid 0: a full frame. */
struct manifest_entry *world_add(
	struct world *, int from_epoch, bts_txid from, int to_epoch, bts_txid to, uint64_t bytes);

#endif
