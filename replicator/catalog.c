/* What an archive has of a database. */
#include "catalog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CATALOG_PRUNED_HEAD "btree_store archive pruned 1\n"
#define CATALOG_PRUNED_LINE 80
#define CATALOG_PRUNED_MAX ((PLAN_EPOCHS_MAX + 2) * CATALOG_PRUNED_LINE)
#define CATALOG_SUM_SIZE 13 /* "sum XXXXXXXX\n" */

/* ---- which databases ---- */

struct catalog_first {
	uint8_t database[16];
	bool found;
};

static enum bts_err catalog_first_key(
	void *arg, const char *key, uint64_t size, uint64_t modified_ms, struct bts_error *error)
{
	struct catalog_first *first = arg;
	char hex[POSITION_ID_SIZE];

	(void)size, (void)modified_ms;
	if (strnlen(key, sizeof(hex)) < sizeof(hex) || key[sizeof(hex) - 1] != '/')
		return BTS_OK;
	memcpy(hex, key, sizeof(hex) - 1);
	hex[sizeof(hex) - 1] = '\0';
	if (!position_hex_parse(hex, first->database, sizeof(first->database)))
		return BTS_OK;
	first->found = true;
	return fail_set(error, BTS_EXISTS, "one is enough"); /* ends the listing */
}

enum bts_err catalog_databases(
	struct store *store, catalog_database_fn *visit, void *arg, struct bts_error *error)
{
	char after[MANIFEST_KEY_SIZE] = "", hex[POSITION_ID_SIZE];
	struct catalog_first first;
	struct bts_error why = {0};
	enum bts_err err;

	do {
		first.found = false;
		err = store_list(store, "", after, catalog_first_key, &first, &why);
		if (err && !(err == BTS_EXISTS && first.found))
			return fail_set(error, err, "%s", why.text);
		err = first.found ? visit(arg, first.database, error) : BTS_OK;
		/* '0' follows '/', so this is behind all keys of the database. */
		position_hex(first.database, sizeof(first.database), hex);
		snprintf(after, sizeof(after), "%s0", hex);
	} while (first.found && !err);
	return err;
}

/* ---- the pruned ---- */

void catalog_pruned_key(const uint8_t database[16], char out[MANIFEST_KEY_SIZE])
{
	manifest_root(database, out);
	strcat(out, "pruned");
}

enum bts_err catalog_pruned_write(
	const struct catalog_floor *floors, size_t count, struct bts_slice *text, struct bts_error *error)
{
	char *out = malloc((count + 2) * CATALOG_PRUNED_LINE);
	char *at = out;

	if (!out)
		return fail_set(error, BTS_MEMORY, "no memory for what is pruned of %zu epochs", count);
	at += sprintf(at, CATALOG_PRUNED_HEAD);
	for (size_t i = 0; i < count; i++)
		at += sprintf(at, "epoch %" PRIu32 "-%016" PRIx64 " below %" PRIu64 "\n", floors[i].epoch,
			floors[i].epoch_random, floors[i].below);
	at += sprintf(at, "sum %08" PRIx32 "\n", bts_crc32c(0, out, (size_t)(at - out)));
	*text = (struct bts_slice){out, (size_t)(at - out)};
	return BTS_OK;
}

/* The numbers are taken out, and what they make is compared with what was there: one spelling, one set of rules. */
static enum bts_err catalog_pruned_parse(
	struct catalog *catalog, struct bts_slice bytes, struct bts_error *error)
{
	char text[CATALOG_PRUNED_LINE];
	struct bts_slice again;
	size_t at = sizeof(CATALOG_PRUNED_HEAD) - 1;
	enum bts_err err;
	bool same;

	catalog->floors = calloc(PLAN_EPOCHS_MAX, sizeof(*catalog->floors));
	if (!catalog->floors)
		return fail_set(error, BTS_MEMORY, "no memory for what is pruned");
	while (at + CATALOG_SUM_SIZE < bytes.size && catalog->floor_count < PLAN_EPOCHS_MAX) {
		struct catalog_floor *floor = &catalog->floors[catalog->floor_count];
		const char *line = (const char *)bytes.data + at, *end = memchr(line, '\n', bytes.size - at);
		size_t size = end ? (size_t)(end - line) + 1 : sizeof(text);

		if (size >= sizeof(text))
			break;
		memcpy(text, line, size);
		text[size] = '\0';
		if (sscanf(text, "epoch %10" SCNu32 "-%16" SCNx64 " below %20" SCNu64, &floor->epoch,
			    &floor->epoch_random, &floor->below) != 3)
			break;
		catalog->floor_count++;
		at += size;
	}
	err = catalog_pruned_write(catalog->floors, catalog->floor_count, &again, error);
	if (err)
		return err;
	same = again.size == bytes.size && memcmp(again.data, bytes.data, bytes.size) == 0;
	free((void *)(uintptr_t)again.data);
	return same ? BTS_OK
		    : fail_set(error, BTS_CORRUPT,
			      "damaged, or of a later kind.  Without it (delete it) all is looked for that "
			      "manifests name, "
			      "also what a prune has deleted");
}

enum bts_err catalog_read_pruned(struct store *store, struct catalog *catalog, struct bts_error *error)
{
	struct bts_slice bytes = {NULL, 0};
	struct bts_error why = {0};
	char key[MANIFEST_KEY_SIZE];
	enum bts_err err;

	catalog_pruned_key(catalog->database, key);
	err = fetch_object(store, key, CATALOG_PRUNED_MAX, &bytes, &why);
	if (err == BTS_NOT_FOUND)
		return BTS_OK;
	if (!err)
		err = catalog_pruned_parse(catalog, bytes, &why);
	free((void *)(uintptr_t)bytes.data);
	return err ? fail_set(error, err, "%s: %s", key, why.text) : BTS_OK;
}

bool catalog_pruned(const struct catalog *catalog, const struct manifest_entry *entry)
{
	for (size_t i = 0; i < catalog->floor_count; i++)
		if (catalog->floors[i].epoch == entry->to.epoch &&
			catalog->floors[i].epoch_random == entry->to.epoch_random)
			return entry->to.txid < catalog->floors[i].below;
	return false;
}

size_t catalog_kept(const struct catalog *catalog, struct manifest_entry *out)
{
	size_t kept = 0;

	for (size_t i = 0; i < catalog->count; i++)
		if (!catalog_pruned(catalog, &catalog->entries[i]))
			out[kept++] = catalog->entries[i];
	return kept;
}

/* ---- manifests ---- */

static bool catalog_same_epoch(const struct bts_position *a, const struct bts_position *b)
{
	return a->epoch == b->epoch && a->epoch_random == b->epoch_random;
}

/* Room for n more, at least doubling. */
static enum bts_err catalog_room(
	void **array, size_t *cap, size_t count, size_t more, size_t size, struct bts_error *error)
{
	size_t wanted = *cap * 2 > count + more ? *cap * 2 : count + more + 16;
	void *bigger;

	if (count + more <= *cap)
		return BTS_OK;
	bigger = realloc(*array, wanted * size);
	if (!bigger)
		return fail_set(error, BTS_MEMORY, "no memory for the archive's list of %zu", wanted);
	*array = bigger;
	*cap = wanted;
	return BTS_OK;
}

static enum bts_err catalog_key(
	void *arg, const char *key, uint64_t size, uint64_t modified_ms, struct bts_error *error)
{
	struct catalog *catalog = arg;
	struct catalog_block *last = catalog->block_count ? &catalog->blocks[catalog->block_count - 1] : NULL;
	struct bts_position epoch;
	uint64_t sequence;
	enum bts_err err;

	(void)size, (void)modified_ms;
	if (!manifest_key_parse(key, &epoch, &sequence))
		return BTS_OK;
	if (last && catalog_same_epoch(&last->epoch, &epoch) &&
		last->sequence / MANIFEST_BLOCK == sequence / MANIFEST_BLOCK) {
		last->sequence = sequence;
		return BTS_OK;
	}
	if (catalog->block_count >= PLAN_ENTRIES_MAX / MANIFEST_BLOCK + PLAN_EPOCHS_MAX)
		return fail_set(error, BTS_LIMIT, "an archive of more than %u frames", PLAN_ENTRIES_MAX);
	err = catalog_room((void **)&catalog->blocks, &catalog->block_cap, catalog->block_count, 1,
		sizeof(*last), error);
	if (!err)
		catalog->blocks[catalog->block_count++] =
			(struct catalog_block){.epoch = epoch, .sequence = sequence};
	return err;
}

/* The last entry that was read is the one before it. */
static enum bts_err catalog_add_hole(struct catalog *catalog, const struct bts_position *epoch,
	uint64_t sequence, const struct bts_error *why, struct bts_error *error)
{
	struct catalog_hole *bigger = realloc(catalog->holes, (catalog->hole_count + 1) * sizeof(*bigger)),
			    *hole;
	const struct manifest_entry *last = catalog->count ? &catalog->entries[catalog->count - 1] : NULL;

	if (!bigger)
		return fail_set(error, BTS_MEMORY, "no memory for the archive's holes");
	catalog->holes = bigger;
	hole = &bigger[catalog->hole_count++];
	*hole = (struct catalog_hole){.epoch = *epoch, .why = *why};
	manifest_key(epoch, sequence, hole->key);
	if (last && catalog_same_epoch(&last->to, epoch))
		hole->low = last->to.txid;
	return BTS_OK;
}

/* Entries were read: of the epoch's holes, those that were the end of it so far have one after them. */
static void catalog_close_holes(struct catalog *catalog, const struct manifest_entry *entry)
{
	for (size_t i = catalog->hole_count; i-- > 0;) {
		struct catalog_hole *hole = &catalog->holes[i];

		if (hole->high || !catalog_same_epoch(&hole->epoch, &entry->to))
			break;
		hole->high = entry->to.txid;
	}
}

static enum bts_err catalog_load(struct store *store, struct catalog *catalog, struct catalog_block *block,
	struct manifest *manifest, struct bts_error *error)
{
	struct bts_slice text = {NULL, 0};
	char key[MANIFEST_KEY_SIZE];
	enum bts_err err;

	manifest_key(&block->epoch, block->sequence, key);
	err = fetch_object(store, key, MANIFEST_TEXT_MAX, &text, error);
	manifest->epoch = block->epoch;
	manifest->sequence = block->sequence;
	if (!err)
		err = manifest_parse(text, manifest, error);
	free((void *)(uintptr_t)text.data);
	if (!err && catalog->count + manifest->count > PLAN_ENTRIES_MAX)
		return fail_set(error, BTS_LIMIT, "an archive of more than %u frames", PLAN_ENTRIES_MAX);
	if (!err)
		err = catalog_room((void **)&catalog->entries, &catalog->cap, catalog->count, manifest->count,
			sizeof(*catalog->entries), error);
	if (err)
		return err;
	block->first = catalog->count;
	block->count = manifest->count;
	memcpy(catalog->entries + catalog->count, manifest->entries,
		manifest->count * sizeof(*catalog->entries));
	catalog->count += manifest->count;
	catalog_close_holes(catalog, &catalog->entries[block->first]);
	return BTS_OK;
}

/* Is there more of its epoch between the block before and this one? */
static enum bts_err catalog_look_between(struct catalog *catalog, const struct catalog_block *before,
	const struct catalog_block *block, struct bts_error *error)
{
	const struct bts_error why = {.code = BTS_NOT_FOUND, .text = "it is missing"};

	if (!before || !catalog_same_epoch(&before->epoch, &block->epoch))
		return BTS_OK;
	if (before->sequence % MANIFEST_BLOCK != MANIFEST_BLOCK - 1)
		return catalog_add_hole(catalog, &block->epoch, before->sequence + 1, &why, error);
	if (before->sequence / MANIFEST_BLOCK + 1 != block->sequence / MANIFEST_BLOCK)
		return catalog_add_hole(
			catalog, &block->epoch, before->sequence + MANIFEST_BLOCK, &why, error);
	return BTS_OK;
}

static enum bts_err catalog_read_blocks(struct store *store, struct catalog *catalog, struct bts_error *error)
{
	struct manifest *manifest = malloc(sizeof(*manifest));
	enum bts_err err = manifest ? BTS_OK : fail_set(error, BTS_MEMORY, "no memory for a manifest");

	for (size_t i = 0; i < catalog->block_count && !err; i++) {
		struct catalog_block *block = &catalog->blocks[i];
		struct bts_error why = {0};
		char key[MANIFEST_KEY_SIZE];

		err = catalog_look_between(catalog, i ? block - 1 : NULL, block, error);
		if (err)
			break;
		err = catalog_load(store, catalog, block, manifest, &why);
		if (err == BTS_CORRUPT || err == BTS_NOT_FOUND) {
			err = catalog_add_hole(catalog, &block->epoch, block->sequence, &why, error);
		} else if (err) {
			manifest_key(&block->epoch, block->sequence, key);
			fail_set(error, err, "%s: %s", key, why.text);
		}
	}
	free(manifest);
	return err;
}

enum bts_err catalog_read(
	struct store *store, const uint8_t database[16], struct catalog *catalog, struct bts_error *error)
{
	char root[MANIFEST_KEY_SIZE];
	enum bts_err err;

	*catalog = (struct catalog){.count = 0};
	memcpy(catalog->database, database, sizeof(catalog->database));
	manifest_manifests_root(database, root);
	err = store_list(store, root, "", catalog_key, catalog, error);
	if (!err && catalog->block_count == 0)
		err = fail_set(
			error, BTS_NOT_FOUND, "%s: there is no manifest below %s", store_name(store), root);
	if (!err)
		err = catalog_read_blocks(store, catalog, error);
	return err ? err : catalog_read_pruned(store, catalog, error);
}

void catalog_fini(struct catalog *catalog)
{
	free(catalog->entries);
	free(catalog->blocks);
	free(catalog->holes);
	free(catalog->floors);
	*catalog = (struct catalog){.count = 0};
}

const struct catalog_hole *catalog_newer_hole(const struct catalog *catalog, const struct plan *plan)
{
	const struct bts_position head = {.epoch = plan->epoch, .epoch_random = plan->epoch_random};

	for (size_t i = 0; i < catalog->hole_count; i++)
		if (catalog->holes[i].epoch.epoch >= head.epoch &&
			!catalog_same_epoch(&catalog->holes[i].epoch, &head))
			return &catalog->holes[i];
	return NULL;
}

const struct catalog_hole *catalog_beside_hole(
	const struct catalog *catalog, const struct plan *plan, size_t boundary, size_t next)
{
	const struct bts_position *at = &plan->boundaries[boundary].at;

	for (size_t i = 0; i < catalog->hole_count; i++) {
		const struct catalog_hole *hole = &catalog->holes[i];
		const struct bts_position *after = next == PLAN_NONE ? NULL : &plan->boundaries[next].at;

		if (catalog_same_epoch(&hole->epoch, at) && hole->low <= at->txid &&
			(!hole->high || at->txid < hole->high))
			return hole;
		if (!hole->low && after && !catalog_same_epoch(at, after) &&
			catalog_same_epoch(&hole->epoch, after))
			return hole;
	}
	return NULL;
}
