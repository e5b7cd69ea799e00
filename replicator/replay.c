/* Frames, from a descriptor or as they come, onto a file. */
#include "replay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frame.h"
#include "position.h"

#define REPLAY_BUFFER ((size_t)256 << 10)

struct replay {
	const char *path;
	struct bts *db; /* NULL until a frame is to be applied */
	struct frame_decoder *decoder;
	struct bts_apply *apply;
	struct replay_counts counts;
	bool within; /* of a frame */
	bool passed; /* the file has it */
	uint64_t pages;
};

/* Whether the frame is the next one of the file (BTS_OK), or one that it has already (passed). */
static enum bts_err replay_judge(struct replay *replay, struct bts *db, const struct frame_header *header, struct bts_error *error)
{
	struct bts_position own, base = header->base;
	char at[POSITION_TEXT_SIZE], from[POSITION_TEXT_SIZE];
	enum bts_err err = bts_ship_position(db, &own, error);

	if (err)
		return err;
	memcpy(base.database, header->target.database, sizeof(base.database));
	replay->passed = position_equal(&own, &header->target);
	if (replay->passed || position_equal(&own, &base))
		return BTS_OK;
	position_text(&own, at);
	position_text(&base, from);
	return fail_set(error, BTS_DIVERGED, "%s: the file stands at %s, the frame begins at %s",
		position_same_database(&own, &base) ? "not the next one" : "of another database", at, from);
}

/* To apply is to fence, if it is a primary's file: not before a frame is seen to belong to it. */
static enum bts_err replay_file(struct replay *replay, const struct frame_header *header, struct bts_error *error)
{
	struct bts_options options;
	struct bts *db;
	enum bts_err err;

	bts_options_init(&options);
	options.flags = BTS_OPEN_EXISTING | BTS_OPEN_READ_ONLY;
	err = bts_open(replay->path, &options, &db, error);
	if (!err) {
		err = replay_judge(replay, db, header, error);
		bts_close(db);
	} else if (err == BTS_NEEDS_RECOVERY) {
		err = BTS_OK;
	}
	if (err || replay->passed)
		return err;
	options.flags = BTS_OPEN_EXISTING | BTS_OPEN_FOLLOWER | BTS_OPEN_FENCE;
	return bts_open(replay->path, &options, &replay->db, error);
}

static enum bts_err replay_header(struct replay *replay, const struct frame_header *header, struct bts_error *error)
{
	struct bts_position base = header->base;
	enum bts_err err = replay->db ? BTS_OK : replay_file(replay, header, error);

	replay->pages = 0;
	if (!err && replay->db)
		err = replay_judge(replay, replay->db, header, error);
	if (err || replay->passed)
		return err;
	memcpy(base.database, header->target.database, sizeof(base.database));
	return bts_apply_begin(replay->db, &base, &header->target, &replay->apply, error);
}

static enum bts_err replay_finish(struct replay *replay, struct bts_slice record, struct bts_error *error)
{
	struct bts_apply *apply = replay->apply;
	enum bts_err err = BTS_OK;

	replay->apply = NULL;
	if (replay->passed)
		replay->counts.passed++;
	else
		err = bts_apply_finish(apply, record, error);
	if (err || replay->passed)
		return err;
	replay->counts.frames++;
	replay->counts.pages += replay->pages;
	return BTS_OK;
}

static enum bts_err replay_event(struct replay *replay, const struct frame_event *event, struct bts_error *error)
{
	switch (event->kind) {
	case FRAME_HEADER:
		return replay_header(replay, event->header, error);
	case FRAME_PIECE:
		replay->pages += event->piece.pages;
		if (replay->passed)
			return BTS_OK;
		return bts_apply_piece(replay->apply, &event->piece.id, event->piece.first, event->bytes, error);
	case FRAME_END:
		replay->within = false;
		return replay_finish(replay, event->record, error);
	default:
		return BTS_OK;
	}
}

enum bts_err replay_push(struct replay *replay, struct bts_slice input, struct bts_error *error)
{
	struct frame_event event = {.kind = FRAME_MORE};
	enum bts_err err = BTS_OK;

	while (!err && (input.size > 0 || event.kind != FRAME_MORE)) {
		if (!replay->within && input.size == 0)
			return BTS_OK;
		if (!replay->within)
			frame_decoder_reset(replay->decoder);
		replay->within = true;
		err = frame_decode(replay->decoder, &input, &event, error);
		if (!err)
			err = replay_event(replay, &event, error);
	}
	return err;
}

enum bts_err replay_end(const struct replay *replay, struct bts_error *error)
{
	return replay->within ? frame_decode_finish(replay->decoder, error) : BTS_OK;
}

enum bts_err replay_position(const struct replay *replay, struct bts_position *position, struct bts_error *error)
{
	return replay->db ? bts_ship_position(replay->db, position, error) : fail_set(error, BTS_NOT_FOUND, "no frame was applied");
}

enum bts_err replay_open(const char *path, struct replay **out, struct bts_error *error)
{
	struct replay *replay = calloc(1, sizeof(*replay));

	if (replay)
		replay->decoder = frame_decoder_new();
	if (!replay || !replay->decoder) {
		free(replay);
		return fail_set(error, BTS_MEMORY, "no memory to apply frames");
	}
	replay->path = path;
	*out = replay;
	return BTS_OK;
}

void replay_close(struct replay *replay)
{
	if (!replay)
		return;
	bts_apply_abort(replay->apply);
	frame_decoder_free(replay->decoder);
	bts_close(replay->db);
	free(replay);
}

static enum bts_err replay_read(struct replay *replay, int fd, struct bts_error *error)
{
	uint8_t *buffer = malloc(REPLAY_BUFFER);
	enum bts_err err = buffer ? BTS_OK : fail_set(error, BTS_MEMORY, "no memory to apply frames");
	ssize_t got = 1;

	while (!err && got != 0) {
		got = read(fd, buffer, REPLAY_BUFFER);
		if (got > 0)
			err = replay_push(replay, (struct bts_slice){buffer, (size_t)got}, error);
		else if (got < 0 && errno != EINTR)
			err = fail_os(error, errno, "reading frames");
	}
	if (!err)
		err = replay_end(replay, error);
	free(buffer);
	return err;
}

enum bts_err replay_frames(const char *path, int fd, struct replay_counts *counts, struct bts_error *error)
{
	struct replay *replay = NULL;
	enum bts_err err = replay_open(path, &replay, error);

	*counts = (struct replay_counts){0};
	if (!err)
		err = replay_read(replay, fd, error);
	if (replay)
		*counts = replay->counts;
	replay_close(replay);
	return err;
}
