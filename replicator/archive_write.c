/*
 * Frames into the archive: part by part, then the manifest.
 *
 * A part is read whole before it is stored, so that storing it can be repeated, and a frame of one part, as most are, lets go of its
 * snapshot before anything is sent.
 */
#include "archive_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define ARCHIVE_PIN_LEAST (UINT64_C(256) << 20)
#define ARCHIVE_LOOK_PIN_MS 1000 /* between two looks at what a frame keeps */
#define ARCHIVE_REST_MS (UINT64_C(12) * 3600 * 1000) /* half of the day that a prune leaves to parts that no manifest names */

static uint32_t archive_nonce(void)
{
	uint32_t nonce;

	if (getrandom(&nonce, sizeof(nonce), GRND_NONBLOCK) != (ssize_t)sizeof(nonce))
		nonce = (uint32_t)archive_now_ms();
	return nonce;
}

/* Both ends of it must be of one history, that of the file: another process may have gone over to another one meanwhile. */
static enum bts_err archive_frame_judge(
	struct archive *a, const struct manifest_entry *entry, struct bts_error *error)
{
	const struct bts_position *epoch = &a->last->epoch, *to = &entry->to;
	enum bts_standing standing = BTS_STANDING_KNOWN;
	enum bts_err err = BTS_OK;

	if (entry->from.txid)
		err = archive_standing(a, &entry->from, &standing, error);
	if (!err && standing == BTS_STANDING_KNOWN)
		err = archive_standing(a, to, &standing, error);
	if (err)
		return err;
	if (standing == BTS_STANDING_KNOWN && to->epoch == epoch->epoch &&
		to->epoch_random == epoch->epoch_random && to->txid > entry->from.txid)
		return BTS_OK;
	a->found = false;
	return fail_set(error, BTS_DIVERGED, "the file's history has changed");
}

enum bts_err archive_frame_open(struct archive *a, struct archive_frame *frame,
	const struct bts_position *from, struct bts_error *error)
{
	struct query query = {.after = *from, .has_database = true, .zstd = true};
	enum bts_err err;

	memset(frame, 0, sizeof(*frame));
	frame->entry.from = *from;
	frame->entry.nonce = archive_nonce();
	frame->entry.time_ms = archive_clock_ms(a); /* before the walk sees what is there */
	frame->part = malloc(MANIFEST_PART_BYTES);
	if (!frame->part)
		return fail_set(error, BTS_MEMORY, "no memory for a frame");
	err = source_stream_open(&a->source, &query, &frame->stream, error);
	if (!err) {
		frame->entry.to = *source_stream_target(frame->stream);
		err = archive_frame_judge(a, &frame->entry, error);
	}
	if (err)
		archive_frame_end(a, frame, false);
	return err;
}

static void archive_frame_let_go(struct archive *a, struct archive_frame *frame)
{
	uint64_t pages = a->source.pages;

	source_stream_close(frame->stream);
	frame->stream = NULL;
	frame->entry.pages = a->source.pages - pages;
}

static enum bts_err archive_frame_break(struct archive *a, struct archive_frame *frame, enum bts_err err)
{
	archive_frame_let_go(a, frame);
	frame->broken = true;
	return err;
}

static enum bts_err archive_frame_read(
	struct archive *a, struct archive_frame *frame, struct bts_error *error)
{
	enum bts_err err =
		source_stream_read(frame->stream, frame->part, MANIFEST_PART_BYTES, &frame->size, error);

	if (!err && frame->size && frame->entry.parts == MANIFEST_PARTS_MAX)
		err = fail_set(error, BTS_LIMIT, "more than an archive takes of one frame");
	if (err) {
		frame->size = 0;
		return archive_frame_break(a, frame, err);
	}
	frame->entry.bytes += frame->size;
	frame->entry.crc = bts_crc32c(frame->entry.crc, frame->part, frame->size);
	if (frame->size < MANIFEST_PART_BYTES)
		archive_frame_let_go(a, frame);
	return BTS_OK;
}

struct archive_pin {
	bts_txid txid;
	uint64_t held;
};

static void archive_on_reader(void *arg, const struct bts_reader_info *info)
{
	struct archive_pin *pin = arg;

	if (info->own && info->txid == pin->txid && info->held_bytes > pin->held)
		pin->held = info->held_bytes;
}

/* The file grows by what a snapshot keeps: a store that is too slow for the writer must not decide how much that is. */
static enum bts_err archive_frame_look(
	struct archive *a, struct archive_frame *frame, struct bts_error *error)
{
	struct archive_pin pin = {.txid = frame->entry.to.txid};
	struct bts_stat stat = {.size = sizeof(stat)};
	uint64_t limit = a->options.pin_limit;
	enum bts_err err = BTS_OK;

	if (!frame->stream || archive_now_ms() < frame->looked_ms + ARCHIVE_LOOK_PIN_MS)
		return BTS_OK;
	if (!limit) {
		err = bts_stat(a->db, &stat, error);
		limit = stat.file_bytes / 4 > ARCHIVE_PIN_LEAST ? stat.file_bytes / 4 : ARCHIVE_PIN_LEAST;
	}
	if (!err)
		err = bts_readers(a->db, archive_on_reader, &pin, error);
	frame->looked_ms = archive_now_ms();
	if (err || pin.held <= limit)
		return err;
	return archive_frame_break(a, frame,
		fail_set(error, BTS_EXPIRED,
			"the frame to commit %" PRIu64 " is broken off: its snapshot keeps %" PRIu64 " bytes",
			(uint64_t)frame->entry.to.txid, pin.held));
}

/* Runs on while the machine is asleep. */
static uint64_t archive_boottime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* After a store that could not be reached for long, what is there of the frame may be gone: nothing may name it any more. */
static enum bts_err archive_frame_rested(
	struct archive *a, struct archive_frame *frame, struct bts_error *error)
{
	uint64_t most = a->options.rest_ms ? a->options.rest_ms : ARCHIVE_REST_MS;

	if (!frame->entry.parts || archive_boottime_ms() - frame->stored_ms < most)
		return BTS_OK;
	return archive_frame_break(a, frame,
		fail_set(error, BTS_EXPIRED,
			"the frame to commit %" PRIu64
			" is begun anew: its last part was stored so long ago that it may have been pruned",
			(uint64_t)frame->entry.to.txid));
}

bool archive_frame_complete(const struct archive_frame *frame)
{
	return frame->part && !frame->stream && !frame->size && !frame->broken;
}

enum bts_err archive_frame_step(struct archive *a, struct archive_frame *frame, struct bts_error *error)
{
	enum bts_err err = archive_frame_look(a, frame, error);
	char key[MANIFEST_KEY_SIZE];

	if (!err && !frame->size && frame->stream)
		err = archive_frame_read(a, frame, error);
	if (!err && frame->size)
		err = archive_frame_rested(a, frame, error);
	if (err || !frame->size)
		return err;
	manifest_part_key(&frame->entry, frame->entry.parts, key);
	err = store_put(a->options.store, key, (struct bts_slice){frame->part, frame->size}, false, error);
	if (err)
		return err;
	pthread_mutex_lock(&a->lock);
	a->status.parts++;
	a->status.bytes += frame->size;
	pthread_mutex_unlock(&a->lock);
	frame->entry.parts++;
	frame->size = 0;
	frame->stored_ms = archive_boottime_ms();
	return BTS_OK;
}

void archive_frame_end(struct archive *a, struct archive_frame *frame, bool remove)
{
	struct bts_error error;
	char key[MANIFEST_KEY_SIZE];
	uint32_t i;

	if (!frame->part)
		return;
	source_stream_close(frame->stream);
	/* What cannot be deleted now is deleted by whoever prunes. */
	for (i = 0; remove && !frame->named && i < frame->entry.parts; i++) {
		manifest_part_key(&frame->entry, i, key);
		if (store_delete(a->options.store, key, &error))
			break;
	}
	free(frame->part);
	memset(frame, 0, sizeof(*frame));
}

static void archive_take_look(struct archive *a)
{
	struct manifest *last = a->last;

	a->last = a->look;
	a->look = last;
	a->looked_ms = archive_now_ms();
}

/* There is one of that number: it is this one after all, when the answer to an earlier attempt was lost. */
static enum bts_err archive_append_met(struct archive *a, struct archive_frame *frame, bool named,
	uint64_t sequence, struct bts_error *error)
{
	const struct manifest_entry *there = &a->look->entries[sequence % MANIFEST_BLOCK];
	enum bts_err err = archive_read(a, &a->last->epoch, sequence, a->look, error);

	if (err)
		return err;
	if (there->nonce == frame->entry.nonce && position_equal(&there->to, &frame->entry.to)) {
		archive_take_look(a);
		return BTS_OK;
	}
	frame->named = named;
	a->found = false;
	return fail_set(error, BTS_EXISTS, "another archiver was first");
}

enum bts_err archive_append(struct archive *a, struct archive_frame *frame, struct bts_error *error)
{
	uint64_t sequence = a->last->count ? a->last->sequence + 1 : 0;
	struct manifest *next = a->look;
	char key[MANIFEST_KEY_SIZE];
	bool named = frame->named;
	enum bts_err err;
	size_t size;

	if (sequence > MANIFEST_SEQUENCE_MAX)
		return fail_set(error, BTS_LIMIT, "no manifest numbers are left in this epoch");
	err = archive_frame_rested(a, frame, error);
	if (err)
		return err;
	*next = *a->last;
	next->sequence = sequence;
	next->entries[sequence % MANIFEST_BLOCK] = frame->entry;
	next->count = sequence % MANIFEST_BLOCK + 1;
	size = manifest_write(next, a->text);
	manifest_key(&next->epoch, sequence, key);
	frame->named = true;
	err = store_put(a->options.store, key, (struct bts_slice){a->text, size}, true, error);
	if (err == BTS_EXISTS)
		return archive_append_met(a, frame, named, sequence, error);
	if (!err)
		archive_take_look(a);
	return err;
}
