/*
 * Prunes of random archives in a store in memory, broken off before each of their deletions: every state that is to stay can be
 * restored at any time, from objects that are there, and when the prune is done again nothing is left that no kept state needs.
 */
#include "cmocka.h"

#include <stdio.h>
#include <string.h>

#include "archive_world.h"
#include "catalog.h"
#include "prune.h"

#define OBJECTS 4096
#define OLD_MS 10    /* when the archiver's objects were written */
#define YOUNG_MS 900 /* and one that is being written now */
#define STALE_MS 500

static uint64_t seed;

/* The store: the program's own is not linked in. */
struct object {
	char key[MANIFEST_KEY_SIZE];
	void *bytes;
	size_t size;
	uint64_t modified_ms;
};
struct store {
	struct object *objects; /* ascending */
	size_t count;
	int left; /* changes until it fails; negative: it does not */
};

static size_t find(const struct store *store, const char *key, bool *there)
{
	size_t low = 0, high = store->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (strcmp(store->objects[middle].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*there = low < store->count && strcmp(store->objects[low].key, key) == 0;
	return low;
}

static void put(struct store *store, const char *key, const void *bytes, size_t size, uint64_t modified_ms)
{
	bool there;
	size_t i = find(store, key, &there);
	struct object *object = &store->objects[i];

	assert_true(store->count < OBJECTS);
	if (there) {
		free(object->bytes);
	} else {
		memmove(object + 1, object, (store->count - i) * sizeof(*object));
		store->count++;
		snprintf(object->key, sizeof(object->key), "%s", key);
	}
	object->bytes = malloc(size + 1);
	assert_non_null(object->bytes);
	memcpy(object->bytes, bytes, size);
	object->size = size;
	object->modified_ms = modified_ms;
}

static enum bts_err change(struct store *store, struct bts_error *error)
{
	if (store->left == 0)
		return fail_set(error, BTS_IO, "the store is gone");
	store->left--;
	return BTS_OK;
}

enum bts_err store_put(
	struct store *store, const char *key, struct bts_slice bytes, bool only_new, struct bts_error *error)
{
	enum bts_err err = change(store, error);

	assert_false(only_new);
	if (!err)
		put(store, key, bytes.data, bytes.size, YOUNG_MS);
	return err;
}

enum bts_err store_get(
	struct store *store, const char *key, store_piece_fn *visit, void *arg, struct bts_error *error)
{
	bool there;
	size_t i = find(store, key, &there);

	if (!there)
		return fail_set(error, BTS_NOT_FOUND, "%s is not there", key);
	return visit(arg, store->objects[i].bytes, store->objects[i].size, error);
}

enum bts_err store_list(struct store *store, const char *prefix, const char *after, store_key_fn *visit,
	void *arg, struct bts_error *error)
{
	enum bts_err err = BTS_OK;

	for (size_t i = 0; i < store->count && !err; i++) {
		const struct object *object = &store->objects[i];

		if (strcmp(object->key, after) > 0 && strncmp(object->key, prefix, strlen(prefix)) == 0)
			err = visit(arg, object->key, object->size, object->modified_ms, error);
	}
	return err;
}

enum bts_err store_delete(struct store *store, const char *key, struct bts_error *error)
{
	enum bts_err err = change(store, error);
	bool there;
	size_t i = find(store, key, &there);

	if (err || !there)
		return err;
	free(store->objects[i].bytes);
	memmove(&store->objects[i], &store->objects[i + 1], (--store->count - i) * sizeof(struct object));
	return BTS_OK;
}

const char *store_name(const struct store *store)
{
	(void)store;
	return "memory";
}

static void empty(struct store *store)
{
	while (store->count)
		free(store->objects[--store->count].bytes);
}

static void copy(struct store *to, const struct store *from)
{
	empty(to);
	for (size_t i = 0; i < from->count; i++)
		put(to, from->objects[i].key, from->objects[i].bytes, from->objects[i].size,
			from->objects[i].modified_ms);
}

/* ---- archives as archivers make them: a chain in each epoch, full frames and wide ones now and then ---- */

static void grow(struct world *w, int epoch, bts_txid base, int base_epoch, int commits)
{
	bts_txid wide = base;
	int wide_epoch = base_epoch;

	while (commits-- > 0 && w->count + 3 < WORLD_ENTRIES) {
		bts_txid to = w->epochs[epoch].newest += 1 + rng_below(&w->rng, 3);
		bool full = base == 0 || rng_below(&w->rng, 8) == 0;

		w->time_ms += 1 + rng_below(&w->rng, 4);
		if (base && rng_below(&w->rng, 6)) /* else somebody has made the full one alone */
			world_add(w, base_epoch, base, epoch, to, 1 + rng_below(&w->rng, 20)),
				full = full && rng_below(&w->rng, 2);
		else
			full = true;
		if (full)
			world_add(w, 0, 0, epoch, to, 30);
		if (wide && rng_below(&w->rng, 5) == 0) {
			world_add(w, wide_epoch, wide, epoch, to, 5);
			wide = to, wide_epoch = epoch;
		}
		base = to;
		base_epoch = epoch;
	}
}

static void make(struct world *w, uint64_t with)
{
	world_init(w, with);
	grow(w, 0, 0, 0, 5 + (int)rng_below(&w->rng, 60));
	while (w->epoch_count < 4 && rng_below(&w->rng, 3)) {
		int parent = (int)rng_below(&w->rng, (uint64_t)w->epoch_count);
		size_t at = rng_below(&w->rng, w->count);

		/* From a boundary that the archive has. */
		while (w->entries[at].to.epoch != (uint32_t)parent + 1)
			at = (at + 1) % w->count;
		grow(w, world_fork(w, parent, w->entries[at].to.txid),
			rng_below(&w->rng, 4) ? w->entries[at].to.txid : 0, parent,
			1 + (int)rng_below(&w->rng, 40));
	}
}

/* Each epoch's entries numbered, with a manifest for every one, as the archiver leaves them.  block: entries that are doubled to fill some. */
static void store_world(struct store *store, struct world *w)
{
	static struct manifest manifest;
	static char text[MANIFEST_TEXT_MAX];
	char key[MANIFEST_KEY_SIZE];

	for (int epoch = 0; epoch < w->epoch_count; epoch++) {
		uint64_t sequence = 0;

		for (size_t i = 0; i < w->count; i++) {
			const struct manifest_entry *entry = &w->entries[i];
			unsigned times = entry->to.epoch == (uint32_t)epoch + 1
						 ? 1 + (unsigned)rng_below(&w->rng, 20)
						 : 0;

			for (; times > 0; times--, sequence++) {
				manifest.epoch = w->epochs[epoch].id;
				manifest.sequence = sequence;
				manifest.count = sequence % MANIFEST_BLOCK + 1;
				manifest.entries[sequence % MANIFEST_BLOCK] = *entry;
				manifest_key(&manifest.epoch, sequence, key);
				put(store, key, text, manifest_write(&manifest, text), OLD_MS);
				manifest_part_key(entry, 0, key);
				put(store, key, "frame", 5, OLD_MS);
			}
		}
	}
}

/* What can be restored of an epoch's lineage, from objects that are there. */
static bool restorable(struct store *store, const struct catalog *catalog, struct manifest_entry *entries,
	const struct bts_position *at, const struct world_epoch *head)
{
	struct plan plan;
	char key[MANIFEST_KEY_SIZE];
	size_t count = catalog_kept(catalog, entries), boundary, *frames;
	bool whole = false, there;
	enum bts_err err = plan_init(&plan, entries, count, head->id.epoch, head->id.epoch_random, NULL);

	boundary = err ? PLAN_NONE : plan_find(&plan, at);
	if (boundary != PLAN_NONE && plan.boundaries[boundary].lineage && plan.boundaries[boundary].frames) {
		assert_int_equal(plan_frames(&plan, boundary, &frames, NULL), BTS_OK);
		whole = true;
		for (size_t i = 0; i < plan.boundaries[boundary].frames; i++) {
			manifest_part_key(&entries[frames[i]], 0, key);
			find(store, key, &there);
			whole = whole && there;
		}
		free(frames);
	}
	plan_fini(&plan);
	return whole;
}

/* A state that must stay: with the head of whose lineage it is. */
struct kept {
	struct bts_position at;
	int head;
};

static size_t list_kept(const struct world *w, uint64_t before_ms, struct kept *kept)
{
	size_t count = 0;

	for (int head = 0; head < w->epoch_count; head++) {
		const struct world_epoch *epoch = &w->epochs[head];
		struct plan plan;
		size_t asof = PLAN_NONE;
		bool needed = head + 1 == w->epoch_count;
		enum bts_err err =
			plan_init(&plan, w->entries, w->count, epoch->id.epoch, epoch->id.epoch_random, NULL);

		for (size_t i = 0; i < w->count; i++)
			needed = needed || (w->entries[i].to.epoch == epoch->id.epoch &&
						   w->entries[i].time_ms > before_ms);
		for (size_t i = 0; !err && needed && i < plan.boundary_count; i++) {
			const struct plan_boundary *boundary = &plan.boundaries[i];

			if (!boundary->lineage || !boundary->frames)
				continue;
			if (boundary->time_ms <= before_ms)
				asof = i;
			else
				kept[count++] = (struct kept){boundary->at, head};
		}
		if (asof != PLAN_NONE)
			kept[count++] = (struct kept){plan.boundaries[asof].at, head};
		plan_fini(&plan);
	}
	return count;
}

static void check_kept(struct store *store, const struct world *w, const struct kept *kept, size_t count)
{
	struct manifest_entry *entries;
	struct catalog catalog;

	assert_int_equal(catalog_read(store, w->epochs[0].id.database, &catalog, NULL), BTS_OK);
	assert_int_equal(catalog.hole_count, 0);
	entries = calloc(catalog.count + 1, sizeof(*entries));
	assert_non_null(entries);
	for (size_t i = 0; i < count; i++)
		assert_true(restorable(store, &catalog, entries, &kept[i].at, &w->epochs[kept[i].head]));
	free(entries);
	catalog_fini(&catalog);
}

static void strays(
	struct store *store, struct world *w, char young[MANIFEST_KEY_SIZE], char old[MANIFEST_KEY_SIZE])
{
	struct manifest_entry stray = w->entries[w->count - 1];

	for (uint32_t part = 0; part < 3; part++) {
		stray.nonce = 0xaaaaaaaa;
		manifest_part_key(&stray, part, old);
		put(store, old, "stray", 5, OLD_MS);
		stray.nonce = 0xbbbbbbbb;
		manifest_part_key(&stray, part, young);
		put(store, young, "stray", 5, part == 2 ? YOUNG_MS : OLD_MS);
	}
	manifest_part_key(&stray, 0, young);
}

static void prune_once(struct world *w, struct store *whole, struct store *broken, uint64_t before_ms)
{
	static struct kept kept[4 * WORLD_ENTRIES];
	struct prune_options options = {.before_ms = before_ms, .stale_ms = STALE_MS};
	char young[MANIFEST_KEY_SIZE], old[MANIFEST_KEY_SIZE];
	size_t count = list_kept(w, before_ms, kept), most;
	struct prune_counts counts;
	bool there;

	memcpy(options.database, w->epochs[0].id.database, sizeof(options.database));
	strays(whole, w, young, old);
	check_kept(whole, w, kept, count);
	most = whole->count + 2;
	for (size_t step = 0;; step += 1 + rng_below(&w->rng, most / 12 + 1)) {
		enum bts_err err;

		copy(broken, whole);
		broken->left = (int)step;
		err = prune_archive(broken, &options, &counts, NULL);
		broken->left = -1;
		check_kept(broken, w, kept, count);
		find(broken, young, &there);
		assert_true(there);
		if (!err)
			break;
		assert_int_equal(err, BTS_IO);
		assert_int_equal(prune_archive(broken, &options, &counts, NULL), BTS_OK);
		check_kept(broken, w, kept, count);
		find(broken, old, &there);
		assert_false(there);
		/* Nothing more to do. */
		assert_int_equal(prune_archive(broken, &options, &counts, NULL), BTS_OK);
		assert_int_equal(counts.parts + counts.manifests + counts.frames, 0);
	}
	copy(whole, broken);
}

static void states_that_stay_can_be_restored(void **state)
{
	static struct world w;
	struct store whole = {.left = -1}, broken = {.left = -1};
	uint64_t least = 0, most = 0;

	(void)state;
	whole.objects = calloc(OBJECTS + 1, sizeof(struct object));
	broken.objects = calloc(OBJECTS + 1, sizeof(struct object));
	assert_true(whole.objects && broken.objects);
	for (uint64_t round = 0; round < 12; round++) {
		make(&w, seed + round);
		empty(&whole);
		store_world(&whole, &w);
		most += whole.count;
		/* Twice, as time goes on. */
		prune_once(&w, &whole, &broken, 1000 + rng_below(&w.rng, w.time_ms - 999));
		prune_once(&w, &whole, &broken, w.time_ms);
		least += whole.count;
	}
	assert_true(least * 2 < most); /* it does delete */
	empty(&whole);
	empty(&broken);
	free(whole.objects);
	free(broken.objects);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(states_that_stay_can_be_restored),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
