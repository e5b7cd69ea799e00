/* Histories that fork, and archives of them. */
#include "archive_world.h"

#include <string.h>

#define WORLD_JUMP 1000

static void world_epoch(struct world *w, int i, int parent, bts_txid fork)
{
	struct world_epoch *epoch = &w->epochs[i];

	memset(epoch, 0, sizeof(*epoch));
	memset(epoch->id.database, 0xdb, sizeof(epoch->id.database));
	epoch->id.epoch = (uint32_t)i + 1;
	epoch->id.epoch_random = rng_next(&w->rng);
	epoch->parent = parent;
	epoch->fork = fork;
	epoch->newest = parent < 0 ? 0 : fork + WORLD_JUMP;
}

void world_init(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	rng_init(&w->rng, seed);
	w->time_ms = 1000;
	world_epoch(w, 0, -1, 0);
	w->epoch_count = 1;
}

int world_fork(struct world *w, int parent, bts_txid fork)
{
	world_epoch(w, w->epoch_count, parent, fork);
	return w->epoch_count++;
}

struct bts_position world_at(const struct world *w, int epoch, bts_txid txid)
{
	struct bts_position at = w->epochs[epoch].id;

	at.txid = txid;
	memcpy(at.chain, &at.epoch_random, 8);
	memcpy(at.chain + 8, &txid, 8);
	return at;
}

bool world_before(const struct world *w, int epoch, bts_txid txid, int later_epoch, bts_txid later)
{
	while (later_epoch > epoch) {
		later = w->epochs[later_epoch].fork;
		later_epoch = w->epochs[later_epoch].parent;
	}
	return later_epoch == epoch && txid <= later;
}

struct manifest_entry *world_add(
	struct world *w, int from_epoch, bts_txid from, int to_epoch, bts_txid to, uint64_t bytes)
{
	struct manifest_entry *entry = &w->entries[w->count++];

	memset(entry, 0, sizeof(*entry));
	entry->to = world_at(w, to_epoch, to);
	if (from)
		entry->from = world_at(w, from_epoch, from);
	memcpy(entry->from.database, entry->to.database, sizeof(entry->to.database));
	entry->nonce = (uint32_t)w->count;
	entry->bytes = bytes;
	entry->parts = manifest_parts(bytes);
	entry->pages = 1;
	entry->time_ms = w->time_ms;
	return entry;
}
