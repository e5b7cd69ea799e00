/*
 * What an archive need not keep: frames without which every state younger than an age can be restored.
 *
 * For each history that has such states, and the newest in any case, a full frame is chosen that is not younger than the age; the history is
 * kept from there on.  First the object HEX/pruned says so (catalog.h), so that nobody looks for what goes then: parts of
 * frames, parts that no manifest names, manifests.  It may end anywhere, and be done again.
 */
#ifndef PRUNE_H
#define PRUNE_H

#include "catalog.h"

/*
 * Floors for entries, of which none is pruned yet: pure.  Room for PLAN_EPOCHS_MAX; *count is how many there are.  What could be restored of states
 * with a time above before_ms, and of the one that holds at before_ms, still can.  BTS_LIMIT: more histories than are looked through.
 */
BTS_MUST_CHECK enum bts_err prune_floors(const struct manifest_entry *entries, size_t count,
	uint64_t before_ms, struct catalog_floor *floors, size_t *floor_count, struct bts_error *error);

struct prune_options {
	uint8_t database[16];
	uint64_t before_ms; /* states up to here may go, but for the last of them */
	uint64_t
		stale_ms; /* of parts that no manifest names, those last written before that go: what is younger may be about to be named */
};
struct prune_counts {
	uint64_t frames, parts, bytes, manifests; /* that went; frames: that manifests named */
	uint64_t unnamed;			  /* of the parts */
	bool hole; /* a manifest is missing or damaged: parts that no manifest names were left alone */
};
/* *counts holds also when it fails. */
BTS_MUST_CHECK enum bts_err prune_archive(struct store *, const struct prune_options *options,
	struct prune_counts *counts, struct bts_error *error);

#endif
