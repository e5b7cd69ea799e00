/* Which frames of an archive make which state. */
#include "plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* An epoch, and up to which of its transactions the lineage goes. */
struct plan_epoch {
	uint32_t number;
	uint64_t random;
	bts_txid most; /* 0: it has none of it */
};

/* What is needed while a plan is made. */
struct plan_work {
	struct plan *plan;
	struct plan_epoch *epochs; /* ascending */
	size_t epoch_count;
	size_t *order; /* entries by where they begin */
};

static int plan_compare_numbers(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int plan_compare(const struct bts_position *a, const struct bts_position *b)
{
	int by = plan_compare_numbers(a->txid, b->txid);

	if (!by)
		by = plan_compare_numbers(a->epoch, b->epoch);
	if (!by)
		by = plan_compare_numbers(a->epoch_random, b->epoch_random);
	return by ? by : memcmp(a->chain, b->chain, sizeof(a->chain));
}

static int plan_compare_boundaries(const void *a, const void *b)
{
	return plan_compare(&((const struct plan_boundary *)a)->at, &((const struct plan_boundary *)b)->at);
}

static int plan_compare_epochs(const void *a, const void *b)
{
	const struct plan_epoch *one = a, *other = b;
	int by = plan_compare_numbers(one->number, other->number);

	return by ? by : plan_compare_numbers(one->random, other->random);
}

static int plan_compare_order(const void *a, const void *b, void *arg)
{
	const struct manifest_entry *entries = arg;
	size_t one = *(const size_t *)a, other = *(const size_t *)b;
	int by = plan_compare_numbers(entries[one].from.txid, entries[other].from.txid);

	return by ? by : plan_compare_numbers(one, other);
}

/* What manifest_parse has seen to; a plan would not end, or be no plan, without it. */
static enum bts_err plan_check(const struct plan *plan, struct bts_error *error)
{
	if (plan->count > PLAN_ENTRIES_MAX)
		return fail_set(error, BTS_LIMIT, "an archive of more than %u frames", PLAN_ENTRIES_MAX);
	for (size_t i = 0; i < plan->count; i++) {
		const struct bts_position *from = &plan->entries[i].from, *to = &plan->entries[i].to;

		if (from->txid >= to->txid || (from->txid && from->epoch > to->epoch) || !to->epoch ||
			(from->txid && from->epoch == to->epoch && from->epoch_random != to->epoch_random))
			return fail_set(error, BTS_CORRUPT,
				"archive: a frame from %" PRIu64 " to %" PRIu64 " that leads nowhere",
				from->txid, to->txid);
	}
	return BTS_OK;
}

static void plan_add_boundary(struct plan *plan, const struct bts_position *at, uint64_t time_ms)
{
	plan->boundaries[plan->boundary_count++] =
		(struct plan_boundary){.at = *at, .time_ms = time_ms, .last = PLAN_NONE, .before = PLAN_NONE};
}

static enum bts_err plan_make_boundaries(struct plan *plan, struct bts_error *error)
{
	size_t kept = 0;

	plan->boundaries = calloc(plan->count + 1, sizeof(*plan->boundaries));
	if (!plan->boundaries)
		return fail_set(error, BTS_MEMORY, "no memory for %zu boundaries", plan->count);
	for (size_t i = 0; i < plan->count; i++)
		plan_add_boundary(plan, &plan->entries[i].to, plan->entries[i].time_ms);
	qsort(plan->boundaries, plan->boundary_count, sizeof(*plan->boundaries), plan_compare_boundaries);
	for (size_t i = 0; i < plan->boundary_count; i++) {
		struct plan_boundary *last = kept ? &plan->boundaries[kept - 1] : NULL,
				     *next = &plan->boundaries[i];

		if (!last || plan_compare(&last->at, &next->at) != 0)
			plan->boundaries[kept++] = *next;
		else if (next->time_ms < last->time_ms)
			last->time_ms = next->time_ms;
	}
	plan->boundary_count = kept;
	return BTS_OK;
}

size_t plan_find(const struct plan *plan, const struct bts_position *at)
{
	const struct plan_boundary key = {.at = *at};
	const struct plan_boundary *found =
		bsearch(&key, plan->boundaries, plan->boundary_count, sizeof(key), plan_compare_boundaries);

	return found ? (size_t)(found - plan->boundaries) : PLAN_NONE;
}

static enum bts_err plan_make_epochs(struct plan_work *work, struct bts_error *error)
{
	const struct plan *plan = work->plan;
	const struct bts_position *last = NULL;
	size_t kept = 0;

	work->epochs = calloc(plan->boundary_count + 1, sizeof(*work->epochs));
	if (!work->epochs)
		return fail_set(error, BTS_MEMORY, "no memory for the epochs of an archive");
	for (size_t i = 0; i < plan->boundary_count; i++) {
		const struct bts_position *at = &plan->boundaries[i].at;

		/* Most follow each other, so that few are left to sort. */
		if (!last || last->epoch != at->epoch || last->epoch_random != at->epoch_random)
			work->epochs[work->epoch_count++] =
				(struct plan_epoch){at->epoch, at->epoch_random, 0};
		last = at;
	}
	qsort(work->epochs, work->epoch_count, sizeof(*work->epochs), plan_compare_epochs);
	for (size_t i = 0; i < work->epoch_count; i++)
		if (!kept || plan_compare_epochs(&work->epochs[kept - 1], &work->epochs[i]) != 0)
			work->epochs[kept++] = work->epochs[i];
	work->epoch_count = kept;
	if (kept > PLAN_EPOCHS_MAX)
		return fail_set(
			error, BTS_LIMIT, "an archive of %zu epochs, at most %u", kept, PLAN_EPOCHS_MAX);
	return BTS_OK;
}

static struct plan_epoch *plan_epoch(const struct plan_work *work, const struct bts_position *at)
{
	const struct plan_epoch key = {at->epoch, at->epoch_random, 0};

	return bsearch(&key, work->epochs, work->epoch_count, sizeof(key), plan_compare_epochs);
}

/* Whose lineage it is to be. */
static enum bts_err plan_head(struct plan_work *work, struct bts_error *error)
{
	struct plan *plan = work->plan;
	const struct plan_epoch *last = work->epochs + work->epoch_count - 1;

	if (plan->epoch) {
		const struct bts_position at = {.epoch = plan->epoch, .epoch_random = plan->epoch_random};

		if (!plan_epoch(work, &at))
			return fail_set(error, BTS_NOT_FOUND,
				"the archive has nothing of epoch %" PRIu32 "-%016" PRIx64, plan->epoch,
				plan->epoch_random);
		return BTS_OK;
	}
	if (work->epoch_count == 0)
		return BTS_OK;
	if (work->epoch_count > 1 && last[-1].number == last->number)
		return fail_set(error, BTS_DIVERGED,
			"two primaries have written epoch %" PRIu32
			": say which one is meant, --epoch %" PRIu32 "-%016" PRIx64 " or --epoch %" PRIu32
			"-%016" PRIx64,
			last->number, last[-1].number, last[-1].random, last->number, last->random);
	plan->epoch = last->number;
	plan->epoch_random = last->random;
	return BTS_OK;
}

/* An entry that begins in an earlier epoch than it ends in, the later ends first. */
struct plan_crossing {
	uint32_t number; /* of its end */
	size_t entry;
};

static int plan_compare_crossings(const void *a, const void *b)
{
	return -plan_compare_numbers(
		((const struct plan_crossing *)a)->number, ((const struct plan_crossing *)b)->number);
}

static enum bts_err plan_lineage(struct plan_work *work, struct bts_error *error)
{
	struct plan *plan = work->plan;
	const struct bts_position head = {.epoch = plan->epoch, .epoch_random = plan->epoch_random};
	struct plan_crossing *crossings;
	size_t count = 0;

	if (!plan->epoch)
		return BTS_OK;
	crossings = calloc(plan->count + 1, sizeof(*crossings));
	if (!crossings)
		return fail_set(error, BTS_MEMORY, "no memory for the lineage of an archive");
	for (size_t i = 0; i < plan->count; i++)
		if (plan->entries[i].from.txid && plan->entries[i].from.epoch < plan->entries[i].to.epoch)
			crossings[count++] = (struct plan_crossing){plan->entries[i].to.epoch, i};
	qsort(crossings, count, sizeof(*crossings), plan_compare_crossings);
	plan_epoch(work, &head)->most = UINT64_MAX;
	for (size_t i = 0; i < count; i++) {
		const struct manifest_entry *entry = &plan->entries[crossings[i].entry];
		struct plan_epoch *before = plan_epoch(work, &entry->from);

		if (before && entry->to.txid <= plan_epoch(work, &entry->to)->most &&
			before->most < entry->from.txid)
			before->most = entry->from.txid;
	}
	free(crossings);
	for (size_t i = 0; i < plan->boundary_count; i++)
		plan->boundaries[i].lineage =
			plan->boundaries[i].at.txid <= plan_epoch(work, &plan->boundaries[i].at)->most;
	return BTS_OK;
}

/* Is the way better that ends with entry, begun at `before`? */
static void plan_try(struct plan *plan, size_t entry, size_t before)
{
	struct plan_boundary *to = &plan->boundaries[plan_find(plan, &plan->entries[entry].to)];
	uint64_t bytes = plan->entries[entry].bytes;
	size_t frames = 1;

	if (before != PLAN_NONE) {
		const struct plan_boundary *from = &plan->boundaries[before];

		bytes = bytes > UINT64_MAX - from->bytes ? UINT64_MAX : bytes + from->bytes;
		frames += from->frames;
	}
	if (to->frames && (to->bytes < bytes || (to->bytes == bytes && to->frames <= frames)))
		return;
	to->bytes = bytes;
	to->frames = frames;
	to->last = entry;
	to->before = before;
}

/* All entries to a boundary begin before it, so what they begin at is settled when its own turn comes. */
static enum bts_err plan_ways(struct plan_work *work, struct bts_error *error)
{
	struct plan *plan = work->plan;

	work->order = calloc(plan->count + 1, sizeof(*work->order));
	if (!work->order)
		return fail_set(error, BTS_MEMORY, "no memory for the frames of an archive");
	for (size_t i = 0; i < plan->count; i++)
		work->order[i] = i;
	qsort_r(work->order, plan->count, sizeof(*work->order), plan_compare_order,
		(void *)(uintptr_t)plan->entries);
	for (size_t i = 0; i < plan->count; i++) {
		const struct bts_position *from = &plan->entries[work->order[i]].from;
		size_t before = from->txid ? plan_find(plan, from) : PLAN_NONE;

		if (!from->txid || (before != PLAN_NONE && plan->boundaries[before].frames))
			plan_try(plan, work->order[i], before);
	}
	return BTS_OK;
}

enum bts_err plan_init(struct plan *plan, const struct manifest_entry *entries, size_t count, uint32_t epoch,
	uint64_t epoch_random, struct bts_error *error)
{
	struct plan_work work = {.plan = plan};
	enum bts_err err;

	*plan = (struct plan){
		.entries = entries, .count = count, .epoch = epoch, .epoch_random = epoch_random};
	err = plan_check(plan, error);
	if (!err)
		err = plan_make_boundaries(plan, error);
	if (!err)
		err = plan_make_epochs(&work, error);
	if (!err)
		err = plan_head(&work, error);
	if (!err)
		err = plan_lineage(&work, error);
	if (!err)
		err = plan_ways(&work, error);
	free(work.epochs);
	free(work.order);
	return err;
}

void plan_fini(struct plan *plan)
{
	free(plan->boundaries);
	plan->boundaries = NULL;
	plan->boundary_count = 0;
}

static bool plan_suits(const struct plan_boundary *boundary, const struct plan_wish *wish)
{
	if (!boundary->lineage)
		return false;
	if (wish->kind == PLAN_TXID)
		return boundary->at.txid <= wish->value;
	return wish->kind == PLAN_NEWEST || boundary->time_ms <= wish->value;
}

/* The nearest of the lineage beyond i in that direction; way: that can be restored. */
static size_t plan_beside(const struct plan *plan, size_t i, int step, bool way)
{
	for (i += (size_t)step; i < plan->boundary_count; i += (size_t)step)
		if (plan->boundaries[i].lineage && (!way || plan->boundaries[i].frames))
			return i;
	return PLAN_NONE;
}

static enum bts_err plan_no_way(const struct plan *plan, size_t wanted, struct bts_error *error)
{
	size_t other = plan_beside(plan, wanted, -1, true);

	if (other == PLAN_NONE)
		return fail_set(error, BTS_NOT_FOUND,
			"boundary %" PRIu64 " cannot be restored: frames that lead to it are missing, and "
			"there is none before it",
			plan->boundaries[wanted].at.txid);
	return fail_set(error, BTS_NOT_FOUND,
		"boundary %" PRIu64 " cannot be restored: frames that lead to it are missing; the one before "
		"it that can be is %" PRIu64,
		plan->boundaries[wanted].at.txid, plan->boundaries[other].at.txid);
}

enum bts_err plan_choose(const struct plan *plan, const struct plan_wish *wish, size_t *boundary,
	size_t *next, struct bts_error *error)
{
	size_t found = PLAN_NONE, other;

	for (size_t i = 0; i < plan->boundary_count; i++)
		if (plan_suits(&plan->boundaries[i], wish))
			found = i;
	if (found == PLAN_NONE)
		return fail_set(error, BTS_NOT_FOUND,
			"the archive has no boundary %s in the history of epoch %" PRIu32 "-%016" PRIx64,
			wish->kind == PLAN_NEWEST ? "at all" : "that early", plan->epoch, plan->epoch_random);
	other = plan_beside(plan, found, -1, false);
	if (other != PLAN_NONE && plan->boundaries[other].at.txid == plan->boundaries[found].at.txid)
		return fail_set(error, BTS_DIVERGED,
			"the archive has two states of transaction %" PRIu64 " in one history",
			plan->boundaries[found].at.txid);
	if (!plan->boundaries[found].frames)
		return plan_no_way(plan, found, error);
	*boundary = found;
	*next = plan_beside(plan, found, 1, false);
	return BTS_OK;
}

enum bts_err plan_frames(const struct plan *plan, size_t boundary, size_t **frames, struct bts_error *error)
{
	const struct plan_boundary *at = &plan->boundaries[boundary];
	size_t count = at->frames;
	size_t *list = malloc(count * sizeof(*list));

	if (!list)
		return fail_set(error, BTS_MEMORY, "no memory for a way of %zu frames", count);
	while (count-- > 0) {
		list[count] = at->last;
		at = at->before == PLAN_NONE ? NULL : &plan->boundaries[at->before];
	}
	*frames = list;
	return BTS_OK;
}
