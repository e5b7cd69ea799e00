/* What an archive need not keep: the deletion.  Why the order of it is safe: DESIGN.md, "Archive: restore and prune". */
#include "prune.h"

#include <stdlib.h>
#include <string.h>

#define PRUNE_BATCH 1024u /* frames that are held at a time */

/* Parts of a frame, which are listed one after the other: all of them go, or none. */
struct prune_frame {
	struct manifest_part last;
	uint32_t first;
	uint64_t parts, bytes;
	bool named, stays;
};

struct prune_sweep {
	struct store *store;
	const struct prune_options *options;
	const struct catalog *catalog;
	const struct manifest_entry **named; /* all entries, sorted */
	bool keep_unnamed;
	struct prune_counts *counts;
	struct prune_frame *frames; /* to go, and the one that is being listed */
	size_t count;
	char after[MANIFEST_KEY_SIZE];
};

static int prune_compare_numbers(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int prune_compare_frames(const struct manifest_part *a, const struct manifest_part *b)
{
	int by = prune_compare_numbers(a->epoch.epoch, b->epoch.epoch);

	if (!by)
		by = prune_compare_numbers(a->epoch.epoch_random, b->epoch.epoch_random);
	if (!by)
		by = prune_compare_numbers(a->target, b->target);
	if (!by)
		by = prune_compare_numbers(a->base, b->base);
	return by ? by : prune_compare_numbers(a->nonce, b->nonce);
}

static struct manifest_part prune_frame_of(const struct manifest_entry *entry)
{
	return (struct manifest_part){entry->to, entry->to.txid, entry->from.txid, entry->nonce, 0};
}

static int prune_compare_named(const void *a, const void *b)
{
	const struct manifest_part one = prune_frame_of(*(const struct manifest_entry *const *)a),
				   other = prune_frame_of(*(const struct manifest_entry *const *)b);

	return prune_compare_frames(&one, &other);
}

static int prune_compare_key(const void *key, const void *b)
{
	const struct manifest_part other = prune_frame_of(*(const struct manifest_entry *const *)b);

	return prune_compare_frames(key, &other);
}

/* The part begins another frame than the last one. */
static void prune_begin_frame(struct prune_sweep *sweep, const struct manifest_part *part)
{
	const struct manifest_entry *const *named =
		bsearch(part, sweep->named, sweep->catalog->count, sizeof(*sweep->named), prune_compare_key);

	if (sweep->count && sweep->frames[sweep->count - 1].stays)
		sweep->count--;
	sweep->frames[sweep->count++] = (struct prune_frame){.first = part->part,
		.named = named != NULL,
		.stays = named ? !catalog_pruned(sweep->catalog, *named) : sweep->keep_unnamed};
}

static enum bts_err prune_part(
	void *arg, const char *key, uint64_t size, uint64_t modified_ms, struct bts_error *error)
{
	struct prune_sweep *sweep = arg;
	struct prune_frame *frame = sweep->count ? &sweep->frames[sweep->count - 1] : NULL;
	struct manifest_part part;

	if (!manifest_part_key_parse(key, &part))
		return BTS_OK;
	if (!frame || prune_compare_frames(&part, &frame->last) != 0) {
		if (sweep->count == PRUNE_BATCH)
			return fail_set(error, BTS_EXISTS, "enough for now");
		prune_begin_frame(sweep, &part);
		frame = &sweep->frames[sweep->count - 1];
	}
	strcpy(sweep->after, key);
	frame->last = part;
	frame->parts++;
	frame->bytes += size;
	if (!frame->named && (!modified_ms || modified_ms >= sweep->options->stale_ms))
		frame->stays = true;
	return BTS_OK;
}

static enum bts_err prune_delete_frame(
	struct prune_sweep *sweep, const struct prune_frame *frame, struct bts_error *error)
{
	struct manifest_entry entry = {.to = frame->last.epoch, .nonce = frame->last.nonce};
	char key[MANIFEST_KEY_SIZE];
	enum bts_err err = BTS_OK;

	entry.to.txid = frame->last.target;
	entry.from.txid = frame->last.base;
	for (uint32_t part = frame->first; part <= frame->last.part && !err; part++) {
		manifest_part_key(&entry, part, key);
		err = store_delete(sweep->store, key, error);
	}
	if (err)
		return err;
	sweep->counts->parts += frame->parts;
	sweep->counts->unnamed += frame->named ? 0 : frame->parts;
	sweep->counts->bytes += frame->bytes;
	return BTS_OK;
}

static enum bts_err prune_delete_frames(struct prune_sweep *sweep, struct bts_error *error)
{
	enum bts_err err = BTS_OK;

	for (size_t i = 0; i < sweep->count && !err; i++)
		if (!sweep->frames[i].stays)
			err = prune_delete_frame(sweep, &sweep->frames[i], error);
	sweep->count = 0;
	return err;
}

static enum bts_err prune_parts(struct prune_sweep *sweep, struct bts_error *error)
{
	char root[MANIFEST_KEY_SIZE];
	struct bts_error why = {0};
	enum bts_err err, listed;

	sweep->named = calloc(sweep->catalog->count + 1, sizeof(*sweep->named));
	sweep->frames = calloc(PRUNE_BATCH, sizeof(*sweep->frames));
	if (!sweep->named || !sweep->frames)
		return fail_set(error, BTS_MEMORY, "no memory to prune");
	for (size_t i = 0; i < sweep->catalog->count; i++)
		sweep->named[i] = &sweep->catalog->entries[i];
	qsort(sweep->named, sweep->catalog->count, sizeof(*sweep->named), prune_compare_named);
	manifest_frames_root(sweep->options->database, root);
	do {
		listed = store_list(sweep->store, root, sweep->after, prune_part, sweep, &why);
		if (listed && listed != BTS_EXISTS)
			return fail_set(error, listed, "%s", why.text);
		err = prune_delete_frames(sweep, error);
	} while (!err && listed == BTS_EXISTS);
	return err;
}

/* Of each epoch, from its first block on, so that those that are left have no hole between them. */
static enum bts_err prune_manifests(struct store *store, const struct catalog *catalog,
	struct prune_counts *counts, struct bts_error *error)
{
	const struct catalog_block *before = NULL;
	bool going = true;
	enum bts_err err = BTS_OK;

	for (size_t i = 0; i < catalog->block_count && !err; i++) {
		const struct catalog_block *block = &catalog->blocks[i];
		uint64_t sequence = block->sequence - block->sequence % MANIFEST_BLOCK;
		char key[MANIFEST_KEY_SIZE];

		if (!before || before->epoch.epoch != block->epoch.epoch ||
			before->epoch.epoch_random != block->epoch.epoch_random)
			going = true;
		before = block;
		going = going && block->count > 0; /* none: it is damaged */
		for (size_t j = 0; j < block->count && going; j++)
			going = catalog_pruned(catalog, &catalog->entries[block->first + j]);
		/* The last of a block has all of it, and goes last. */
		for (; going && !err && sequence <= block->sequence; sequence++) {
			manifest_key(&block->epoch, sequence, key);
			err = store_delete(store, key, error);
			counts->manifests += !err;
		}
	}
	return err;
}

/* Those of epochs that have manifests, the higher of what was and what is to be. */
static enum bts_err prune_declare(struct store *store, struct catalog *catalog,
	const struct catalog_floor *floors, size_t count, struct prune_counts *counts,
	struct bts_error *error)
{
	char key[MANIFEST_KEY_SIZE];
	struct bts_slice text = {NULL, 0};
	struct catalog_floor *merged = calloc(PLAN_EPOCHS_MAX, sizeof(*merged));
	enum bts_err err = merged ? BTS_OK : fail_set(error, BTS_MEMORY, "no memory to prune");
	size_t kept = 0, before = 0;

	for (size_t i = 0; i < catalog->floor_count && !err; i++) {
		bool there = false;

		for (size_t j = 0; j < catalog->block_count && !there; j++)
			there = catalog->blocks[j].epoch.epoch == catalog->floors[i].epoch &&
				catalog->blocks[j].epoch.epoch_random == catalog->floors[i].epoch_random;
		if (there)
			merged[kept++] = catalog->floors[i];
	}
	for (size_t i = 0; i < count && !err; i++) {
		size_t j = 0;

		if (!floors[i].below)
			continue;
		while (j < kept && (merged[j].epoch != floors[i].epoch ||
					   merged[j].epoch_random != floors[i].epoch_random))
			j++;
		if (j == kept && kept < PLAN_EPOCHS_MAX)
			merged[kept++] = floors[i];
		else if (j < kept && merged[j].below < floors[i].below)
			merged[j] = floors[i];
	}
	for (size_t i = 0; i < catalog->count; i++)
		before += catalog_pruned(catalog, &catalog->entries[i]);
	if (!err)
		err = catalog_pruned_write(merged, kept, &text, error);
	catalog_pruned_key(catalog->database, key);
	if (!err)
		err = store_put(store, key, text, false, error);
	free((void *)(uintptr_t)text.data);
	if (err) {
		free(merged);
		return err;
	}
	free(catalog->floors);
	catalog->floors = merged;
	catalog->floor_count = kept;
	for (size_t i = 0; i < catalog->count; i++)
		counts->frames += catalog_pruned(catalog, &catalog->entries[i]);
	counts->frames -= before;
	return BTS_OK;
}

static enum bts_err prune_choose(struct store *store, struct catalog *catalog,
	const struct prune_options *options, struct prune_counts *counts, struct bts_error *error)
{
	struct manifest_entry *entries = calloc(catalog->count + 1, sizeof(*entries));
	struct catalog_floor *floors = calloc(PLAN_EPOCHS_MAX, sizeof(*floors));
	size_t count = 0;
	enum bts_err err = entries && floors ? BTS_OK : fail_set(error, BTS_MEMORY, "no memory to prune");

	if (!err)
		err = prune_floors(
			entries, catalog_kept(catalog, entries), options->before_ms, floors, &count, error);
	if (!err)
		err = prune_declare(store, catalog, floors, count, counts, error);
	free(floors);
	free(entries);
	return err;
}

/* With the first manifests of an epoch it is unknown what it goes on from. */
static enum bts_err prune_refuse(const struct catalog *catalog, struct bts_error *error)
{
	for (size_t i = 0; i < catalog->hole_count; i++)
		if (!catalog->holes[i].low)
			return fail_set(error, BTS_CORRUPT,
				"%s: %s; nothing is pruned, as what it names may need all that is there",
				catalog->holes[i].key, catalog->holes[i].why.text);
	return BTS_OK;
}

enum bts_err prune_archive(struct store *store, const struct prune_options *options,
	struct prune_counts *counts, struct bts_error *error)
{
	struct prune_sweep sweep = {.store = store, .options = options, .counts = counts};
	struct catalog catalog;
	enum bts_err err = catalog_read(store, options->database, &catalog, error);

	*counts = (struct prune_counts){0};
	if (!err)
		err = prune_refuse(&catalog, error);
	if (!err)
		err = prune_choose(store, &catalog, options, counts, error);
	counts->hole = catalog.hole_count > 0;
	sweep.catalog = &catalog;
	sweep.keep_unnamed = counts->hole;
	if (!err)
		err = prune_parts(&sweep, error);
	if (!err)
		err = prune_manifests(store, &catalog, counts, error);
	free(sweep.named);
	free(sweep.frames);
	catalog_fini(&catalog);
	return err;
}
