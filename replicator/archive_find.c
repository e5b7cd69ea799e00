/*
 * Where the archive stands: its newest frame that ends in this file's own history.
 *
 * Manifests of an epoch are numbered without gaps, but for what was pruned from their beginning.  So the newest is found by asking for
 * any key beyond a number, in steps that double and then halve.
 */
#include "archive_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ARCHIVE_FOREIGN_MAX 10000 /* names that are no manifests, among which one is looked for */
#define ARCHIVE_SEGMENTS_MAX 1024
#define ARCHIVE_EPOCHS_MAX 64	  /* earlier ones that are looked through */
#define ARCHIVE_BLOCKS_MAX 100000 /* that are read for the last full frame */

enum bts_err archive_standing(struct archive *a, const struct bts_position *position,
	enum bts_standing *standing, struct bts_error *error)
{
	return bts_ship_standing(a->db, position, standing, error);
}

struct archive_text {
	char *text;
	size_t size;
};

static enum bts_err archive_on_piece(void *arg, const void *data, size_t size, struct bts_error *error)
{
	struct archive_text *text = arg;

	if (size > MANIFEST_TEXT_MAX - text->size)
		return fail_set(error, BTS_CORRUPT, "longer than a manifest can be");
	memcpy(text->text + text->size, data, size);
	text->size += size;
	return BTS_OK;
}

static enum bts_err archive_read_text(struct archive *a, const struct bts_position *epoch, uint64_t sequence,
	struct archive_text *text, struct bts_error *error)
{
	char key[MANIFEST_KEY_SIZE];

	*text = (struct archive_text){a->text, 0};
	manifest_key(epoch, sequence, key);
	return store_get(a->options.store, key, archive_on_piece, text, error);
}

enum bts_err archive_read(struct archive *a, const struct bts_position *epoch, uint64_t sequence,
	struct manifest *manifest, struct bts_error *error)
{
	struct bts_error why = {0};
	struct archive_text text;
	enum bts_err err = archive_read_text(a, epoch, sequence, &text, error);
	char key[MANIFEST_KEY_SIZE];

	if (err)
		return err;
	manifest_key(epoch, sequence, key);
	manifest->epoch = *epoch;
	manifest->sequence = sequence;
	err = manifest_parse((struct bts_slice){text.text, text.size}, manifest, &why);
	if (err)
		fail_set(error, err, "%s %s: %s", store_name(a->options.store), key, why.text);
	return err;
}

enum bts_err archive_verify(struct archive *a, struct bts_error *error)
{
	char *expect = a->text + MANIFEST_TEXT_MAX;
	struct archive_text text = {a->text, 0};
	enum bts_err err = BTS_OK;

	if (a->last->count) {
		err = archive_read_text(a, &a->last->epoch, a->last->sequence, &text, error);
		if (err && err != BTS_NOT_FOUND)
			return err;
	}
	if (!err && (!a->last->count || (manifest_write(a->last, expect) == text.size &&
						!memcmp(expect, text.text, text.size)))) {
		a->looked_ms = archive_now_ms();
		return BTS_OK;
	}
	a->found = false;
	repl_emit(&a->options.events, REPL_ERROR, "archive-lost",
		"manifest %" PRIu64 " of epoch %" PRIu32 " is gone from %s, or is another one",
		a->last->sequence, a->last->epoch.epoch, store_name(a->options.store));
	return BTS_OK;
}

/* ---- the newest manifest of an epoch ---- */

struct archive_first {
	const struct bts_position *epoch;
	uint64_t sequence;
	unsigned foreign;
};

static enum bts_err archive_on_key(
	void *arg, const char *key, uint64_t size, uint64_t modified_ms, struct bts_error *error)
{
	struct archive_first *first = arg;
	struct bts_position epoch;

	(void)size;
	(void)modified_ms;
	if (manifest_key_parse(key, &epoch, &first->sequence) && epoch.epoch == first->epoch->epoch &&
		epoch.epoch_random == first->epoch->epoch_random &&
		position_same_database(&epoch, first->epoch))
		return fail_set(error, BTS_EXISTS, "found");
	if (++first->foreign > ARCHIVE_FOREIGN_MAX)
		return fail_set(error, BTS_CORRUPT, "among the manifests are too many objects that are none");
	return BTS_OK;
}

/* The first one, or the first beyond *after.  BTS_NOT_FOUND: there is none. */
static enum bts_err archive_next(struct archive *a, const struct bts_position *epoch, const uint64_t *after,
	uint64_t *sequence, struct bts_error *error)
{
	char root[MANIFEST_KEY_SIZE], from[MANIFEST_KEY_SIZE] = "";
	struct archive_first first = {.epoch = epoch};
	enum bts_err err;

	manifest_epoch_root(epoch, root);
	if (after)
		manifest_key(epoch, *after, from);
	err = store_list(a->options.store, root, from, archive_on_key, &first, error);
	if (!err)
		return fail_set(error, BTS_NOT_FOUND, "no manifest");
	if (err != BTS_EXISTS)
		return err;
	if (after && first.sequence <= *after)
		return fail_set(
			error, BTS_CORRUPT, "%s: a list that goes backwards", store_name(a->options.store));
	*sequence = first.sequence;
	return BTS_OK;
}

static enum bts_err archive_newest(
	struct archive *a, const struct bts_position *epoch, uint64_t *sequence, struct bts_error *error)
{
	uint64_t low = 0, high = MANIFEST_SEQUENCE_MAX, middle, step = 1;
	enum bts_err err = archive_next(a, epoch, NULL, &low, error);

	while (!err && low < high) {
		middle = low + (high - low) / 2;
		if (high == MANIFEST_SEQUENCE_MAX && step < high - low)
			middle = low + step - 1;
		err = archive_next(a, epoch, &middle, &low, error);
		step *= 2;
		if (err == BTS_NOT_FOUND) {
			high = middle;
			err = BTS_OK;
		}
	}
	*sequence = low;
	return err;
}

/* ---- the newest frame that ends in this history ---- */

static enum bts_err archive_candidates(
	struct archive *a, const struct manifest *manifest, struct bts_error *error)
{
	enum bts_standing standing;
	enum bts_err err;

	for (size_t i = manifest->count; i-- > 0;) {
		const struct manifest_entry *entry = &manifest->entries[i];

		if (entry->time_ms > a->clock_ms)
			a->clock_ms = entry->time_ms;
		if (entry->to.txid <= a->target.txid || catalog_pruned(&a->pruned, entry))
			continue;
		err = archive_standing(a, &entry->to, &standing, error);
		if (err)
			return err;
		if (standing == BTS_STANDING_KNOWN)
			a->target = entry->to;
		else if (standing == BTS_STANDING_AHEAD && entry->to.txid > a->ahead)
			a->ahead = entry->to.txid;
	}
	return BTS_OK;
}

/* Of the two last blocks: the order of entries is not quite that of their targets.  BTS_NOT_FOUND: that epoch has none. */
static enum bts_err archive_find_in(
	struct archive *a, const struct bts_position *epoch, struct manifest *newest, struct bts_error *error)
{
	struct manifest *before = newest == a->last ? a->look : a->last;
	uint64_t sequence;
	enum bts_err err = archive_newest(a, epoch, &sequence, error);

	if (!err)
		err = archive_read(a, epoch, sequence, newest, error);
	if (!err)
		err = archive_candidates(a, newest, error);
	if (err || sequence < MANIFEST_BLOCK)
		return err;
	err = archive_read(a, epoch, sequence - sequence % MANIFEST_BLOCK - 1, before, error);
	if (err)
		return err == BTS_NOT_FOUND ? BTS_OK : err;
	return archive_candidates(a, before, error);
}

/* The epoch before `last` that begins latest. */
static const struct bts_segment *archive_earlier(
	const struct bts_segment *segments, size_t count, const struct bts_position *own, bts_txid last)
{
	const struct bts_segment *best = NULL;

	for (size_t i = 0; i < count; i++) {
		const struct bts_segment *at = &segments[i];

		if ((at->epoch != own->epoch || at->epoch_random != own->epoch_random) && at->last < last &&
			(!best || at->last > best->last))
			best = at;
	}
	return best;
}

static enum bts_err archive_find_earlier(
	struct archive *a, const struct bts_position *own, struct bts_error *error)
{
	struct bts_segment *segments = calloc(ARCHIVE_SEGMENTS_MAX, sizeof(*segments));
	const struct bts_segment *at;
	struct bts_position epoch = *own;
	bts_txid last = UINT64_MAX;
	size_t count = 0;
	enum bts_err err;

	if (!segments)
		return fail_set(error, BTS_MEMORY, "no memory for the file's history");
	err = bts_ship_segments(a->db, segments, ARCHIVE_SEGMENTS_MAX, &count, error);
	if (count > ARCHIVE_SEGMENTS_MAX)
		count = ARCHIVE_SEGMENTS_MAX;
	for (unsigned i = 0; !err && !a->target.txid && i < ARCHIVE_EPOCHS_MAX;) {
		at = archive_earlier(segments, count, own, last);
		if (!at)
			break;
		last = at->last;
		if (at->epoch == epoch.epoch && at->epoch_random == epoch.epoch_random)
			continue;
		epoch.epoch = at->epoch;
		epoch.epoch_random = at->epoch_random;
		err = archive_find_in(a, &epoch, a->look, error);
		if (err == BTS_NOT_FOUND)
			err = BTS_OK;
		i++;
	}
	free(segments);
	a->ahead = 0;
	return err;
}

/* ---- how much has to be read for it ---- */

/* On the way back from the target: the full frame under way ends here, and these lead on from it. */
static void archive_meet(struct archive *a, const struct bts_position *reach)
{
	if (!a->full.part || a->joined || !position_equal(reach, &a->full.entry.to))
		return;
	a->joined = true;
	a->coming = (struct archive_chain){.bytes = a->chain.bytes, .frames = a->chain.frames};
}

/* The frames that lead to *reach, of those in look.  False: the full one is not among them. */
static bool archive_follow(struct archive *a, struct bts_position *reach)
{
	for (size_t i = a->look->count; i-- > 0;) {
		const struct manifest_entry *entry = &a->look->entries[i];

		if (!position_equal(&entry->to, reach) || catalog_pruned(&a->pruned, entry))
			continue;
		if (!entry->from.txid) {
			a->chain.known = true;
			a->chain.full_bytes = entry->bytes;
			a->chain.full_ms = entry->time_ms;
			return true;
		}
		a->chain.bytes += entry->bytes;
		a->chain.frames++;
		*reach = entry->from;
		archive_meet(a, reach);
	}
	return false;
}

/* Back to the last full frame. */
static enum bts_err archive_account(struct archive *a, struct bts_error *error)
{
	struct bts_position reach = a->target, epoch = a->target;
	uint64_t sequence;
	enum bts_err err = archive_newest(a, &epoch, &sequence, error);

	archive_meet(a, &reach);
	for (unsigned i = 0; !err && i < ARCHIVE_BLOCKS_MAX; i++) {
		err = archive_read(a, &epoch, sequence, a->look, error);
		if (err || archive_follow(a, &reach))
			break;
		if (sequence >= MANIFEST_BLOCK) {
			sequence = sequence - sequence % MANIFEST_BLOCK - 1;
		} else if (reach.epoch != epoch.epoch || reach.epoch_random != epoch.epoch_random) {
			epoch = reach;
			err = archive_newest(a, &epoch, &sequence, error);
		} else {
			break;
		}
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err archive_read_pruned(
	struct archive *a, const struct bts_position *own, struct bts_error *error)
{
	catalog_fini(&a->pruned);
	memset(&a->pruned, 0, sizeof(a->pruned));
	memcpy(a->pruned.database, own->database, sizeof(a->pruned.database));
	return catalog_read_pruned(a->options.store, &a->pruned, error);
}

enum bts_err archive_find(struct archive *a, struct bts_error *error)
{
	struct bts_position own;
	struct bts_role role = {.size = sizeof(role)};
	enum bts_err err = bts_ship_position(a->db, &own, error);

	a->found = false;
	a->ahead = 0;
	memset(&a->target, 0, sizeof(a->target));
	memset(&a->chain, 0, sizeof(a->chain));
	if (!err)
		err = bts_role(a->db, &role, error);
	if (!err)
		err = archive_read_pruned(a, &own, error);
	if (err)
		return err;
	err = archive_find_in(a, &own, a->last, error);
	if (err == BTS_NOT_FOUND) {
		err = archive_find_earlier(a, &own, error);
		a->last->epoch = own;
		a->last->count = 0;
	}
	if (!err && a->ahead && role.role == BTS_ROLE_PRIMARY) {
		repl_emit(&a->options.events, REPL_ERROR, "archive-ahead",
			"the archive has commit %" PRIu64 " of this epoch, the file ends at %" PRIu64
			": was it set back?",
			(uint64_t)a->ahead, (uint64_t)own.txid);
		a->ahead = 0;
	}
	a->joined = false;
	if (!err && a->target.txid)
		err = archive_account(a, error);
	if (err)
		return err;
	if (!a->target.txid && a->full.part) {
		a->target = a->full.entry.to;
		archive_meet(a, &a->target);
	}
	a->span = a->target;
	a->increments = 0;
	a->span_bytes = 0;
	a->looked_ms = archive_now_ms();
	a->found = true;
	return BTS_OK;
}
