/*
 * Names and texts of an archive.
 *
 * Everything is parsed by taking the numbers out, writing what they should look like, and comparing: so there is one spelling of
 * each, and no second set of rules.
 */
#include "manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "frame.h"

#define MANIFEST_HEAD "btree_store archive manifest "
#define MANIFEST_VERSION "1"
#define MANIFEST_SUM_LINE 13 /* "sum XXXXXXXX\n" */

/* ---- names ---- */

static void manifest_below(const uint8_t database[16], const char *folder, char out[MANIFEST_KEY_SIZE])
{
	char hex[POSITION_ID_SIZE];

	position_hex(database, 16, hex);
	snprintf(out, MANIFEST_KEY_SIZE, "%s/%.94s", hex, folder); /* none is longer */
}

void manifest_root(const uint8_t database[16], char out[MANIFEST_KEY_SIZE])
{
	manifest_below(database, "", out);
}

void manifest_frames_root(const uint8_t database[16], char out[MANIFEST_KEY_SIZE])
{
	manifest_below(database, "frames/", out);
}

void manifest_manifests_root(const uint8_t database[16], char out[MANIFEST_KEY_SIZE])
{
	manifest_below(database, "manifest/", out);
}

void manifest_epoch_root(const struct bts_position *epoch, char out[MANIFEST_KEY_SIZE])
{
	char folder[48];

	snprintf(folder, sizeof(folder), "manifest/%08" PRIx32 "-%016" PRIx64 "/", epoch->epoch,
		epoch->epoch_random);
	manifest_below(epoch->database, folder, out);
}

void manifest_key(const struct bts_position *epoch, uint64_t sequence, char out[MANIFEST_KEY_SIZE])
{
	size_t size;

	manifest_epoch_root(epoch, out);
	size = strlen(out);
	snprintf(out + size, MANIFEST_KEY_SIZE - size, "%012" PRIu64, sequence);
}

/* Without the database and the part's number, as a manifest names it. */
static void manifest_frame_name(const struct bts_position *epoch, bts_txid target, bts_txid base,
	uint32_t nonce, char out[MANIFEST_KEY_SIZE])
{
	snprintf(out, MANIFEST_KEY_SIZE,
		"frames/%08" PRIx32 "-%016" PRIx64 "/%012" PRIx64 "-%012" PRIx64 "-%08" PRIx32, epoch->epoch,
		epoch->epoch_random, target, base, nonce);
}

static void manifest_part_name(const struct manifest_part *part, char out[MANIFEST_KEY_SIZE])
{
	char name[MANIFEST_KEY_SIZE];
	size_t size;

	manifest_frame_name(&part->epoch, part->target, part->base, part->nonce, name);
	manifest_below(part->epoch.database, name, out);
	size = strlen(out);
	snprintf(out + size, MANIFEST_KEY_SIZE - size, ".%06" PRIu32, part->part);
}

void manifest_part_key(const struct manifest_entry *entry, uint32_t part, char out[MANIFEST_KEY_SIZE])
{
	const struct manifest_part one = {entry->to, entry->to.txid, entry->from.txid, entry->nonce, part};

	manifest_part_name(&one, out);
}

static bool manifest_database_parse(const char *key, struct bts_position *epoch)
{
	char hex[POSITION_ID_SIZE];

	if (strnlen(key, MANIFEST_KEY_SIZE) < sizeof(hex) || key[sizeof(hex) - 1] != '/')
		return false;
	memcpy(hex, key, sizeof(hex) - 1);
	hex[sizeof(hex) - 1] = '\0';
	return position_hex_parse(hex, epoch->database, sizeof(epoch->database));
}

bool manifest_key_parse(const char *key, struct bts_position *epoch, uint64_t *sequence)
{
	struct bts_position found = {0};
	char again[MANIFEST_KEY_SIZE];
	uint64_t number;

	if (!manifest_database_parse(key, &found) ||
		sscanf(key + POSITION_ID_SIZE, "manifest/%8" SCNx32 "-%16" SCNx64 "/%12" SCNu64, &found.epoch,
			&found.epoch_random, &number) != 3)
		return false;
	manifest_key(&found, number, again);
	if (strcmp(key, again) != 0)
		return false;
	*epoch = found;
	*sequence = number;
	return true;
}

bool manifest_part_key_parse(const char *key, struct manifest_part *part)
{
	struct manifest_part found = {.part = 0};
	char again[MANIFEST_KEY_SIZE];

	if (!manifest_database_parse(key, &found.epoch) ||
		sscanf(key + POSITION_ID_SIZE,
			"frames/%8" SCNx32 "-%16" SCNx64 "/%12" SCNx64 "-%12" SCNx64 "-%8" SCNx32
			".%6" SCNu32,
			&found.epoch.epoch, &found.epoch.epoch_random, &found.target, &found.base,
			&found.nonce, &found.part) != 6)
		return false;
	manifest_part_name(&found, again);
	if (strcmp(key, again) != 0 || found.target > POSITION_TXID_MAX || found.base >= found.target)
		return false;
	*part = found;
	return true;
}

bool manifest_part_of(const struct manifest_part *part, const struct manifest_entry *entry)
{
	return position_same_database(&part->epoch, &entry->to) && part->epoch.epoch == entry->to.epoch &&
	       part->epoch.epoch_random == entry->to.epoch_random && part->target == entry->to.txid &&
	       part->base == entry->from.txid && part->nonce == entry->nonce && part->part < entry->parts;
}

uint32_t manifest_parts(uint64_t bytes)
{
	uint64_t parts = bytes / MANIFEST_PART_BYTES + (bytes % MANIFEST_PART_BYTES != 0);

	return parts <= MANIFEST_PARTS_MAX ? (uint32_t)parts : 0;
}

/* ---- texts ---- */

static size_t manifest_line(const struct manifest_entry *entry, char out[MANIFEST_LINE_SIZE])
{
	char name[MANIFEST_KEY_SIZE], from[POSITION_TEXT_SIZE] = "-", to[POSITION_TEXT_SIZE];

	manifest_frame_name(&entry->to, entry->to.txid, entry->from.txid, entry->nonce, name);
	position_text(&entry->to, to);
	if (entry->from.txid)
		position_text(&entry->from, from);
	return (size_t)snprintf(out, MANIFEST_LINE_SIZE,
		"frame %s parts %" PRIu32 " bytes %" PRIu64 " pages %" PRIu64 " crc %08" PRIx32
		" from %s to %s time %" PRIu64 "\n",
		name, entry->parts, entry->bytes, entry->pages, entry->crc, from, to, entry->time_ms);
}

static void manifest_sum(const char *text, size_t size, char line[MANIFEST_SUM_LINE + 1])
{
	snprintf(line, MANIFEST_SUM_LINE + 1, "sum %08" PRIx32 "\n", bts_crc32c(0, text, size));
}

size_t manifest_write(const struct manifest *manifest, char out[MANIFEST_TEXT_MAX])
{
	char sum[MANIFEST_SUM_LINE + 1];
	size_t size = sizeof(MANIFEST_HEAD MANIFEST_VERSION "\n") - 1, i;

	memcpy(out, MANIFEST_HEAD MANIFEST_VERSION "\n", size);
	for (i = 0; i < manifest->count; i++)
		size += manifest_line(&manifest->entries[i], out + size);
	manifest_sum(out, size, sum);
	memcpy(out + size, sum, MANIFEST_SUM_LINE);
	return size + MANIFEST_SUM_LINE;
}

/* The numbers of a line, and that it is spelled as it should be.  What they mean together is not looked at. */
static bool manifest_line_parse(const char *line, const uint8_t database[16], struct manifest_entry *entry)
{
	char key[MANIFEST_KEY_SIZE], from[POSITION_TEXT_SIZE], to[POSITION_TEXT_SIZE],
		again[MANIFEST_LINE_SIZE];
	struct manifest_part part;
	char whole[2 * MANIFEST_KEY_SIZE];

	memset(entry, 0, sizeof(*entry));
	if (sscanf(line,
		    "frame %127s parts %10" SCNu32 " bytes %20" SCNu64 " pages %20" SCNu64 " crc %8" SCNx32
		    " from %83s to %83s time %20" SCNu64,
		    key, &entry->parts, &entry->bytes, &entry->pages, &entry->crc, from, to,
		    &entry->time_ms) != 8)
		return false;
	if (!position_parse(to, &entry->to) ||
		(strcmp(from, "-") != 0 && !position_parse(from, &entry->from)))
		return false;
	memcpy(entry->to.database, database, sizeof(entry->to.database));
	memcpy(entry->from.database, database, sizeof(entry->from.database));
	manifest_root(database, whole);
	snprintf(whole + strlen(whole), MANIFEST_KEY_SIZE, "%s", key);
	strcat(whole, ".000000");
	if (!manifest_part_key_parse(whole, &part))
		return false;
	entry->nonce = part.nonce;
	manifest_line(entry, again);
	return strcmp(line, again) == 0;
}

/* NULL, or what is wrong with it. */
static const char *manifest_judge(const struct manifest *manifest, const struct manifest_entry *entry)
{
	const struct bts_position *from = &entry->from, *to = &entry->to;

	if (to->epoch != manifest->epoch.epoch || to->epoch_random != manifest->epoch.epoch_random)
		return "of another epoch";
	if (to->txid > POSITION_TXID_MAX || from->txid >= to->txid)
		return "it ends where it began";
	if (from->txid && (from->epoch > to->epoch ||
				  (from->epoch == to->epoch && from->epoch_random != to->epoch_random)))
		return "it begins in another history";
	if (!entry->bytes || entry->parts != manifest_parts(entry->bytes) || entry->pages > FRAME_PAGES_MAX)
		return "its size cannot be";
	if (entry->time_ms > MANIFEST_TIME_MAX)
		return "its time cannot be";
	return NULL;
}

/* Cuts a line, its end included, off the front of *text; false: there is none of sane length. */
static bool manifest_cut(struct bts_slice *text, char line[MANIFEST_LINE_SIZE])
{
	const char *start = text->data,
		   *end = memchr(start, '\n',
			   text->size < MANIFEST_LINE_SIZE - 1 ? text->size : MANIFEST_LINE_SIZE - 1);
	size_t size = end ? (size_t)(end - start) + 1 : 0;

	if (!size || memchr(start, '\0', size))
		return false;
	memcpy(line, start, size);
	line[size] = '\0';
	*text = (struct bts_slice){start + size, text->size - size};
	return true;
}

/* Takes the sum off the end, and the first line off the front. */
static enum bts_err manifest_frame_parse(struct bts_slice *text, struct bts_error *error)
{
	char sum[MANIFEST_SUM_LINE + 1], line[MANIFEST_LINE_SIZE];

	if (text->size < MANIFEST_SUM_LINE || text->size > MANIFEST_TEXT_MAX)
		return fail_set(error, BTS_CORRUPT, "manifest: %zu bytes cannot be", text->size);
	text->size -= MANIFEST_SUM_LINE;
	manifest_sum(text->data, text->size, sum);
	if (memcmp((const char *)text->data + text->size, sum, MANIFEST_SUM_LINE) != 0)
		return fail_set(error, BTS_CORRUPT, "manifest: wrong sum");
	if (!manifest_cut(text, line) || strncmp(line, MANIFEST_HEAD, sizeof(MANIFEST_HEAD) - 1) != 0)
		return fail_set(error, BTS_CORRUPT, "manifest: the first line is not that of a manifest");
	if (strcmp(line + sizeof(MANIFEST_HEAD) - 1, MANIFEST_VERSION "\n") != 0)
		return fail_set(error, BTS_VERSION, "manifest: of a version that is not known here");
	return BTS_OK;
}

enum bts_err manifest_parse(struct bts_slice text, struct manifest *manifest, struct bts_error *error)
{
	enum bts_err err = manifest_frame_parse(&text, error);
	char line[MANIFEST_LINE_SIZE];
	const char *why;
	size_t i;

	if (err)
		return err;
	manifest->count = manifest->sequence % MANIFEST_BLOCK + 1;
	for (i = 0; i < manifest->count; i++) {
		struct manifest_entry *entry = &manifest->entries[i];

		if (!manifest_cut(&text, line) || !manifest_line_parse(line, manifest->epoch.database, entry))
			return fail_set(
				error, BTS_CORRUPT, "manifest: line %zu: not a frame, or misspelled", i + 2);
		why = manifest_judge(manifest, entry);
		if (why)
			return fail_set(error, BTS_CORRUPT, "manifest: line %zu: %s", i + 2, why);
	}
	if (text.size)
		return fail_set(error, BTS_CORRUPT, "manifest: line %zu: more than its number allows", i + 2);
	return BTS_OK;
}
