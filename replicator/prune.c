/* What an archive need not keep: which that is. */
#include "prune.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PRUNE_HEADS_MAX 64u /* histories that have states to keep */
#define PRUNE_TRIES 16u	    /* full frames that are looked at for one of them */

struct prune {
	const struct manifest_entry *entries;
	size_t count;
	uint64_t before_ms;
	struct catalog_floor *floors; /* of each epoch */
	size_t floor_count;
	uint32_t newest; /* epoch */
};

static struct catalog_floor *prune_floor(
	struct catalog_floor *floors, size_t count, const struct bts_position *at)
{
	for (size_t i = 0; i < count; i++)
		if (floors[i].epoch == at->epoch && floors[i].epoch_random == at->epoch_random)
			return &floors[i];
	return NULL;
}

/* Each epoch with a floor above all of it. */
static enum bts_err prune_epochs(struct prune *prune, struct bts_error *error)
{
	struct catalog_floor *floor = NULL;

	for (size_t i = 0; i < prune->count; i++) {
		const struct bts_position *to = &prune->entries[i].to;

		if (!floor || floor->epoch != to->epoch || floor->epoch_random != to->epoch_random)
			floor = prune_floor(prune->floors, prune->floor_count, to);
		if (!floor) {
			if (prune->floor_count == PLAN_EPOCHS_MAX)
				return fail_set(error, BTS_LIMIT, "an archive of more than %u epochs",
					PLAN_EPOCHS_MAX);
			floor = &prune->floors[prune->floor_count++];
			*floor = (struct catalog_floor){to->epoch, to->epoch_random, 0};
		}
		if (floor->below <= to->txid)
			floor->below = to->txid + 1;
		if (prune->newest < to->epoch)
			prune->newest = to->epoch;
	}
	return BTS_OK;
}

/* The last full frame of the lineage with a target below that one's and a time that suits; NULL: there is none. */
static const struct manifest_entry *prune_full(
	const struct prune *prune, const struct plan *plan, bts_txid below)
{
	const struct manifest_entry *best = NULL;

	for (size_t i = 0; i < prune->count; i++) {
		const struct manifest_entry *entry = &prune->entries[i];

		if (entry->from.txid == 0 && entry->time_ms <= prune->before_ms && entry->to.txid < below &&
			(!best || best->to.txid < entry->to.txid) &&
			plan->boundaries[plan_find(plan, &entry->to)].lineage)
			best = entry;
	}
	return best;
}

/* floors lowered to what the lineage needs from the full frame on. */
static void prune_lower(const struct plan *plan, const struct manifest_entry *full,
	struct catalog_floor *floors, size_t count)
{
	struct catalog_floor *floor = NULL;

	for (size_t i = 0; i < plan->boundary_count; i++) {
		const struct bts_position *at = &plan->boundaries[i].at;
		bts_txid need = 0;

		if (!plan->boundaries[i].lineage || (full && at->txid < full->to.txid))
			continue;
		if (!floor || floor->epoch != at->epoch || floor->epoch_random != at->epoch_random)
			floor = prune_floor(floors, count, at);
		if (full && at->epoch == full->to.epoch && at->epoch_random == full->to.epoch_random)
			need = full->to.txid;
		if (floor->below > need)
			floor->below = need;
	}
}

/* Can all that is to be kept of the lineage still be restored? */
static enum bts_err prune_holds(const struct prune *prune, const struct plan *plan,
	const struct catalog_floor *floors, bool *holds, struct bts_error *error)
{
	const struct catalog filter = {.entries = (struct manifest_entry *)(uintptr_t)prune->entries,
		.count = prune->count,
		.floors = (struct catalog_floor *)(uintptr_t)floors,
		.floor_count = prune->floor_count};
	struct manifest_entry *left = calloc(prune->count + 1, sizeof(*left));
	struct plan after = {.boundaries = NULL};
	size_t asof = PLAN_NONE;
	enum bts_err err;

	if (!left)
		return fail_set(error, BTS_MEMORY, "no memory to prune");
	err = plan_init(&after, left, catalog_kept(&filter, left), plan->epoch, plan->epoch_random, error);
	*holds = !err;
	if (err == BTS_NOT_FOUND) /* nothing is left of it */
		err = BTS_OK;
	for (size_t i = 0; i < plan->boundary_count; i++)
		if (plan->boundaries[i].lineage && plan->boundaries[i].frames &&
			plan->boundaries[i].time_ms <= prune->before_ms)
			asof = i;
	for (size_t i = 0; i < plan->boundary_count && *holds; i++) {
		const struct plan_boundary *boundary = &plan->boundaries[i];
		size_t there = plan_find(&after, &boundary->at);

		if (boundary->lineage && boundary->frames &&
			(i == asof || boundary->time_ms > prune->before_ms))
			*holds = there != PLAN_NONE && after.boundaries[there].lineage &&
				 after.boundaries[there].frames;
	}
	plan_fini(&after);
	free(left);
	return err;
}

/* What this history needs; trial has room for the floors. */
static enum bts_err prune_head(
	struct prune *prune, const struct plan *plan, struct catalog_floor *trial, struct bts_error *error)
{
	const struct manifest_entry *full = NULL;
	bool holds = false;
	enum bts_err err = BTS_OK;

	for (unsigned i = 0; i < PRUNE_TRIES && !holds && !err; i++) {
		full = prune_full(prune, plan, full ? full->to.txid : UINT64_MAX);
		if (!full)
			break;
		memcpy(trial, prune->floors, prune->floor_count * sizeof(*trial));
		prune_lower(plan, full, trial, prune->floor_count);
		err = prune_holds(prune, plan, trial, &holds, error);
	}
	if (!err)
		prune_lower(plan, holds ? full : NULL, prune->floors, prune->floor_count);
	return err;
}

static bool prune_is_head(const struct prune *prune, const struct catalog_floor *floor)
{
	if (floor->epoch == prune->newest)
		return true;
	for (size_t i = 0; i < prune->count; i++)
		if (prune->entries[i].to.epoch == floor->epoch &&
			prune->entries[i].to.epoch_random == floor->epoch_random &&
			prune->entries[i].time_ms > prune->before_ms)
			return true;
	return false;
}

enum bts_err prune_floors(const struct manifest_entry *entries, size_t count, uint64_t before_ms,
	struct catalog_floor *floors, size_t *floor_count, struct bts_error *error)
{
	struct prune prune = {.entries = entries, .count = count, .before_ms = before_ms, .floors = floors};
	struct catalog_floor *trial = calloc(PLAN_EPOCHS_MAX, sizeof(*trial));
	size_t heads = 0;
	enum bts_err err =
		trial ? prune_epochs(&prune, error) : fail_set(error, BTS_MEMORY, "no memory to prune");

	for (size_t i = 0; i < prune.floor_count && !err; i++) {
		struct plan plan;

		if (!prune_is_head(&prune, &floors[i]))
			continue;
		if (++heads > PRUNE_HEADS_MAX) {
			err = fail_set(error, BTS_LIMIT, "more than %u histories have states to keep",
				PRUNE_HEADS_MAX);
			break;
		}
		err = plan_init(&plan, entries, count, floors[i].epoch, floors[i].epoch_random, error);
		if (!err)
			err = prune_head(&prune, &plan, trial, error);
		plan_fini(&plan);
	}
	free(trial);
	*floor_count = prune.floor_count;
	return err;
}
