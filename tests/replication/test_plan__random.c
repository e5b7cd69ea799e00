/* Plans over random archives against the plainest computation of the same; and entries that no honest archive has. */
#include "cmocka.h"

#include <string.h>

#include "archive_world.h"

#define ROUNDS 3000

static uint64_t seed;

static bool same(const struct bts_position *a, const struct bts_position *b)
{
	return position_equal(a, b);
}

/* Epochs that fork anywhere, and frames between any two states of one history. */
static void make(struct world *w, uint64_t with)
{
	size_t entries;

	world_init(w, with);
	w->epochs[0].newest = 1 + rng_below(&w->rng, 30);
	while (w->epoch_count < WORLD_EPOCHS && rng_below(&w->rng, 3)) {
		int parent = (int)rng_below(&w->rng, (uint64_t)w->epoch_count);
		bts_txid first = w->epochs[parent].parent < 0 ? 1 : w->epochs[parent].fork + 1000;
		int i = world_fork(
			w, parent, first + rng_below(&w->rng, w->epochs[parent].newest - first + 1));

		w->epochs[i].newest += rng_below(&w->rng, 20);
	}
	entries = rng_below(&w->rng, 60);
	while (w->count < entries) {
		int to_epoch = (int)rng_below(&w->rng, (uint64_t)w->epoch_count), from_epoch = to_epoch;
		bts_txid low = to_epoch ? w->epochs[to_epoch].fork + 1000 : 1;
		bts_txid to = low + rng_below(&w->rng, w->epochs[to_epoch].newest - low + 1), from;

		if (w->epochs[to_epoch].parent >= 0 && rng_below(&w->rng, 3) == 0)
			from_epoch = w->epochs[to_epoch].parent;
		from = rng_below(&w->rng, w->epochs[from_epoch].newest + 1);
		if (from_epoch > 0 && from < w->epochs[from_epoch].fork + 1000)
			from = 0;
		if (from && (from >= to || !world_before(w, from_epoch, from, to_epoch, to)))
			continue;
		w->time_ms += rng_below(&w->rng, 3);
		world_add(w, from_epoch, from, to_epoch, to, 1 + rng_below(&w->rng, 20));
	}
}

/* The cheapest way to each entry's target, by trying until nothing gets better; 0: there is none. */
static void ways(const struct world *w, uint64_t *bytes)
{
	bool better = true;

	memset(bytes, 0, w->count * sizeof(*bytes));
	while (better) {
		better = false;
		for (size_t i = 0; i < w->count; i++) {
			uint64_t before = w->entries[i].from.txid ? 0 : 1;

			for (size_t j = 0; j < w->count; j++)
				if (before == 0 && bytes[j] && same(&w->entries[j].to, &w->entries[i].from))
					before = 1 + bytes[j];
			for (size_t j = 0; before && j < w->count; j++)
				if (same(&w->entries[j].to, &w->entries[i].to) &&
					(!bytes[j] || before - 1 + w->entries[i].bytes < bytes[j])) {
					bytes[j] = before - 1 + w->entries[i].bytes;
					better = true;
				}
		}
	}
}

/* How far the lineage of an epoch goes in each, from what entries connect. */
static void lineage(const struct world *w, int head, bts_txid *most)
{
	bool more = true;

	memset(most, 0, WORLD_EPOCHS * sizeof(*most));
	most[head] = UINT64_MAX;
	while (more) {
		more = false;
		for (size_t i = 0; i < w->count; i++) {
			const struct manifest_entry *entry = &w->entries[i];
			uint32_t from = entry->from.epoch, to = entry->to.epoch;

			if (entry->from.txid && from != to && entry->to.txid <= most[to - 1] &&
				most[from - 1] < entry->from.txid) {
				most[from - 1] = entry->from.txid;
				more = true;
			}
		}
	}
}

static void follows(const struct world *w, const struct plan *plan, size_t boundary)
{
	const struct plan_boundary *at = &plan->boundaries[boundary];
	struct bts_position stands = {.txid = 0};
	uint64_t bytes = 0;
	size_t *frames;

	memcpy(stands.database, at->at.database, sizeof(stands.database));
	assert_int_equal(plan_frames(plan, boundary, &frames, NULL), BTS_OK);
	for (size_t i = 0; i < at->frames; i++) {
		assert_true(same(&stands, &w->entries[frames[i]].from));
		stands = w->entries[frames[i]].to;
		bytes += w->entries[frames[i]].bytes;
	}
	assert_true(same(&stands, &at->at));
	assert_int_equal(bytes, at->bytes);
	free(frames);
}

static void check(const struct world *w, const struct plan *plan, int head)
{
	uint64_t bytes[WORLD_ENTRIES];
	bts_txid most[WORLD_EPOCHS];

	ways(w, bytes);
	lineage(w, head, most);
	for (size_t i = 0; i < w->count; i++) {
		size_t boundary = plan_find(plan, &w->entries[i].to);
		const struct plan_boundary *at = &plan->boundaries[boundary];

		assert_true(boundary != PLAN_NONE);
		assert_true(at->time_ms <= w->entries[i].time_ms);
		assert_int_equal(at->frames != 0, bytes[i] != 0);
		if (at->frames) {
			assert_int_equal(at->bytes, bytes[i]);
			follows(w, plan, boundary);
		}
		assert_int_equal(at->lineage, at->at.txid <= most[at->at.epoch - 1]);
		if (at->lineage)
			assert_true(world_before(
				w, (int)at->at.epoch - 1, at->at.txid, head, w->epochs[head].newest));
	}
}

static void choose(struct world *w, const struct plan *plan)
{
	struct plan_wish wish = {(int)rng_below(&w->rng, 3), 0};
	size_t best = PLAN_NONE, after = PLAN_NONE, boundary, next;
	enum bts_err err;

	wish.value = wish.kind == PLAN_TXID ? rng_below(&w->rng, 3100) : 990 + rng_below(&w->rng, 150);
	for (size_t i = 0; i < plan->boundary_count; i++) {
		const struct plan_boundary *at = &plan->boundaries[i];

		if (!at->lineage || (wish.kind == PLAN_TXID && at->at.txid > wish.value) ||
			(wish.kind == PLAN_TIME && at->time_ms > wish.value))
			continue;
		if (best == PLAN_NONE || plan->boundaries[best].at.txid < at->at.txid)
			best = i;
	}
	for (size_t i = 0; i < plan->boundary_count && best != PLAN_NONE; i++) {
		const struct plan_boundary *at = &plan->boundaries[i];

		if (at->lineage && at->at.txid > plan->boundaries[best].at.txid &&
			(after == PLAN_NONE || at->at.txid < plan->boundaries[after].at.txid))
			after = i;
	}
	err = plan_choose(plan, &wish, &boundary, &next, NULL);
	if (best == PLAN_NONE || plan->boundaries[best].frames == 0) {
		assert_int_equal(err, BTS_NOT_FOUND);
		return;
	}
	assert_int_equal(err, BTS_OK);
	assert_int_equal(boundary, best);
	assert_int_equal(next, after);
}

static void as_the_plain_one(void **state)
{
	static struct world w;

	(void)state;
	for (uint64_t round = 0; round < ROUNDS; round++) {
		struct plan plan;
		int head = 0;

		make(&w, seed + round);
		for (size_t i = 0; i < w.count; i++)
			head = (int)w.entries[i].to.epoch - 1 > head ? (int)w.entries[i].to.epoch - 1 : head;
		assert_int_equal(plan_init(&plan, w.entries, w.count, 0, 0, NULL), BTS_OK);
		check(&w, &plan, head);
		for (int i = 0; i < 8; i++)
			choose(&w, &plan);
		plan_fini(&plan);
		if (w.count == 0)
			continue;
		head = (int)w.entries[rng_below(&w.rng, w.count)].to.epoch - 1;
		assert_int_equal(plan_init(&plan, w.entries, w.count, w.epochs[head].id.epoch,
					 w.epochs[head].id.epoch_random, NULL),
			BTS_OK);
		check(&w, &plan, head);
		plan_fini(&plan);
	}
}

static void is_refused(const struct world *w, enum bts_err expected)
{
	struct plan plan;

	assert_int_equal(plan_init(&plan, w->entries, w->count, 0, 0, NULL), expected);
	plan_fini(&plan);
}

static void what_cannot_be_is_refused(void **state)
{
	static struct world w;
	struct plan_wish wish = {PLAN_NEWEST, 0};
	struct plan plan;
	size_t boundary, next;

	(void)state;
	world_init(&w, seed);
	world_add(&w, 0, 0, 0, 5, 1);
	world_add(&w, 0, 5, 0, 9, 1);
	is_refused(&w, BTS_OK);
	w.entries[1].to = w.entries[1].from; /* a circle of one */
	is_refused(&w, BTS_CORRUPT);
	w.entries[1].to.txid = 3; /* back */
	is_refused(&w, BTS_CORRUPT);
	w.entries[1].to = world_at(&w, 0, 9);
	w.entries[1].to.epoch_random ^= 1; /* across, into another history */
	is_refused(&w, BTS_CORRUPT);
	w.entries[1].to = world_at(&w, 0, 9);
	w.entries[1].from.epoch++; /* into an earlier epoch */
	is_refused(&w, BTS_CORRUPT);
	w.entries[1].from = world_at(&w, 0, 5);
	world_add(&w, 0, 0, 0, 9, 1)->to.epoch_random ^= 1; /* two primaries of one number */
	is_refused(&w, BTS_DIVERGED);
	w.entries[2].to = world_at(&w, 0, 9);
	w.entries[2].to.chain[0] ^= 1; /* two states of one number */
	assert_int_equal(plan_init(&plan, w.entries, w.count, 0, 0, NULL), BTS_OK);
	assert_int_equal(plan_choose(&plan, &wish, &boundary, &next, NULL), BTS_DIVERGED);
	plan_fini(&plan);
	w.entries[0].bytes = w.entries[1].bytes = UINT64_MAX - 1; /* a way longer than numbers are */
	w.count = 2;
	assert_int_equal(plan_init(&plan, w.entries, w.count, 0, 0, NULL), BTS_OK);
	assert_int_equal(plan_choose(&plan, &wish, &boundary, &next, NULL), BTS_OK);
	assert_int_equal(plan.boundaries[boundary].bytes, UINT64_MAX);
	plan_fini(&plan);
}

static void many(void **state)
{
	const size_t count = 200000;
	struct manifest_entry *entries = calloc(count, sizeof(*entries));
	struct plan_wish wish = {PLAN_NEWEST, 0};
	struct world w;
	struct plan plan;
	size_t boundary, next;

	(void)state;
	assert_non_null(entries);
	world_init(&w, seed);
	for (size_t i = 0; i < count; i++) {
		w.count = 0;
		entries[i] = *world_add(&w, 0, i, 0, i + 1, 1);
	}
	assert_int_equal(plan_init(&plan, entries, count, 0, 0, NULL), BTS_OK);
	assert_int_equal(plan_choose(&plan, &wish, &boundary, &next, NULL), BTS_OK);
	assert_int_equal(plan.boundaries[boundary].frames, count);
	plan_fini(&plan);
	/* As many epochs: more than there can be. */
	for (size_t i = 0; i < count; i++)
		entries[i].to.epoch = entries[i].from.epoch = (uint32_t)i + 1;
	assert_int_equal(plan_init(&plan, entries, count, 0, 0, NULL), BTS_LIMIT);
	plan_fini(&plan);
	free(entries);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_the_plain_one),
		cmocka_unit_test(what_cannot_be_is_refused),
		cmocka_unit_test(many),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
