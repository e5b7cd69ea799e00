/*
 * A frame as a stream of bytes, made from the walk while it is sent.
 *
 * Memory is one chunk's index: page bytes go from the map into the caller's buffer, being summed on the way.
 * The parts of a frame follow one another as states; small parts are encoded into scratch and copied out from
 * there.  For a follower that takes compressed pages a chunk is copied and compressed whole, and sent from memory.
 */
#include "source.h"

#include "frame_zstd.h"

#include <stdlib.h>
#include <string.h>

enum source_part {
	SOURCE_PART_SMALL,   /* scratch is being copied out; then `after` */
	SOURCE_PART_CHUNK,   /* gather a chunk, or find the end */
	SOURCE_PART_PAYLOAD, /* pages of the gathered chunk */
	SOURCE_PART_DONE,
};

struct source_stream {
	struct source *source;
	struct bts_walk *walk;
	struct frame_encoder encoder;

	enum source_part part, after;
	size_t scratch_size, scratch_at;
	uint8_t scratch[FRAME_INDEX_MAX];
	struct bts_position base, target; /* the walk may end before the stream */
	uint64_t sent;
	bool anew;		    /* it does not go on where another ended */
	bool held;		    /* the walk is not ready yet: others have their turn */

	struct bts_page_id unit; /* the walk's current unit */
	const uint8_t *unit_bytes;
	uint32_t unit_next; /* its first page not yet in a chunk */

	struct frame_piece pieces[FRAME_CHUNK_PAGES_MAX];
	const uint8_t *bytes[FRAME_CHUNK_PAGES_MAX]; /* of each piece, in the map */
	size_t count, piece;			     /* pieces of the chunk; the one being sent */
	size_t piece_at;			     /* bytes of it sent */

	struct frame_zstd *zstd; /* NULL: pages are sent as they are */
	uint8_t *plain, *packed; /* a chunk each */
	struct bts_slice stored; /* what is sent of it: of one of these */

	uint8_t *base_record; /* of the base, for a lean frame; NULL: it is not one */
	size_t base_record_size;
};

static void source_send_small(struct source_stream *stream, size_t size, enum source_part after)
{
	stream->scratch_size = size;
	stream->scratch_at = 0;
	stream->part = SOURCE_PART_SMALL;
	stream->after = after;
}

static enum bts_err source_open_walk(struct source_stream *stream, const struct query *query, struct bts_error *error)
{
	struct bts_partial partial = query->partial;
	enum bts_err err = BTS_NOT_FOUND;

	memcpy(partial.position.database, query->after.database, sizeof(partial.position.database));
	if (partial.position.txid)
		err = bts_walk_open_from(stream->source->db, &partial, &stream->walk, error);
	if (err != BTS_NOT_FOUND) {
		stream->source->resumed += !err;
		return err;
	}
	/* What cannot be gone on with begins anew; the header says so. */
	stream->anew = true;
	return bts_walk_open(stream->source->db, query->after.txid, &stream->walk, error);
}

static enum bts_err source_open_zstd(struct source_stream *stream, struct bts_error *error)
{
	size_t size = (size_t)frame_chunk_pages(stream->source->page_size) * stream->source->page_size;

	stream->zstd = frame_zstd_new(true);
	stream->plain = malloc(size);
	stream->packed = malloc(size);
	if (!stream->zstd || !stream->plain || !stream->packed)
		return fail_set(error, BTS_MEMORY, "no memory to compress a frame");
	return BTS_OK;
}

/* The base's record as it was sent, if it is still at hand: a frame is lean or not from its header on. */
static enum bts_err source_open_lean(struct source_stream *stream, const struct query *query, struct bts_error *error)
{
	struct bts_slice base = {NULL, 0};

	if (query->lean && stream->source->records)
		base = records_find(stream->source->records, &query->after);
	if (!base.size)
		return BTS_OK;
	stream->base_record = malloc(base.size);
	if (!stream->base_record)
		return fail_set(error, BTS_MEMORY, "no memory for a frame");
	memcpy(stream->base_record, base.data, base.size);
	stream->base_record_size = base.size;
	return BTS_OK;
}

static void source_stream_free(struct source_stream *stream)
{
	free(stream->base_record);
	bts_walk_close(stream->walk);
	frame_zstd_free(stream->zstd);
	free(stream->plain);
	free(stream->packed);
	free(stream);
}

enum bts_err source_stream_open(
	struct source *source, const struct query *query, struct source_stream **out, struct bts_error *error)
{
	struct source_stream *stream = calloc(1, sizeof(*stream));
	struct frame_header header = {.base = query->after, .zstd = query->zstd};
	enum bts_err err;

	if (!stream)
		return fail_set(error, BTS_MEMORY, "no memory for a frame");
	stream->source = source;
	err = source_open_walk(stream, query, error);
	if (!err && query->zstd)
		err = source_open_zstd(stream, error);
	if (!err)
		err = source_open_lean(stream, query, error);
	if (err)
		goto fail;
	if (!stream->anew)
		header.partial = query->partial;
	stream->base = query->after;
	stream->target = header.target = *bts_walk_position(stream->walk);
	header.page_size = bts_walk_page_size(stream->walk);
	header.lean = stream->base_record != NULL;
	source_send_small(
		stream, frame_encode_header(&stream->encoder, &header, stream->scratch), SOURCE_PART_CHUNK);
	*out = stream;
	return BTS_OK;
fail:
	source_stream_free(stream);
	return err;
}

const struct bts_position *source_stream_target(const struct source_stream *stream)
{
	return &stream->target;
}

bool source_stream_held(const struct source_stream *stream)
{
	return stream->held;
}

void source_stream_break(struct source_stream *stream)
{
	bts_walk_close(stream->walk);
	stream->walk = NULL;
}

void source_stream_digest(const struct source_stream *stream, uint8_t digest[16])
{
	bts_walk_digest(stream->walk, digest);
}

void source_stream_close(struct source_stream *stream)
{
	if (!stream)
		return;
	/* The numbers between two epochs are no commits. */
	if (stream->part == SOURCE_PART_DONE && stream->base.txid && stream->base.epoch == stream->target.epoch) {
		stream->source->streamed_txids += stream->target.txid - stream->base.txid;
		stream->source->streamed_bytes += stream->sent;
	}
	if (stream->part == SOURCE_PART_DONE)
		stream->source->frames++;
	else
		stream->source->broken++;
	stream->source->pages += stream->encoder.pages;
	source_stream_free(stream);
}

/* Fill a chunk from the walk; an extent goes on in the next chunk where this one is full.  count 0: the end.
 */
static enum bts_err source_gather(struct source_stream *stream, struct bts_error *error)
{
	uint32_t room = frame_chunk_pages(stream->source->page_size), take;
	struct bts_slice bytes;
	enum bts_err err;

	stream->count = stream->piece = stream->piece_at = 0;
	while (room > 0) {
		if (stream->unit_next == stream->unit.count) {
			err = bts_walk_next(stream->walk, &stream->unit, &bytes, error);
			if (err == BTS_NOT_FOUND || err == BTS_BUSY)
				stream->unit.count = stream->unit_next = 0;
			if (err == BTS_NOT_FOUND)
				return BTS_OK;
			if (err)
				return err;
			stream->unit_bytes = bytes.data;
			stream->unit_next = 0;
		}
		take = stream->unit.count - stream->unit_next;
		if (take > room)
			take = room;
		stream->pieces[stream->count].id = stream->unit;
		stream->pieces[stream->count].first = stream->unit_next;
		stream->pieces[stream->count].pages = take;
		stream->bytes[stream->count] =
			stream->unit_bytes + (size_t)stream->unit_next * stream->source->page_size;
		stream->count++;
		stream->unit_next += take;
		room -= take;
	}
	return BTS_OK;
}

/* Copy the chunk and make it smaller if it can be. */
static void source_pack(struct source_stream *stream)
{
	struct bts_slice plain = {stream->plain, 0};
	size_t size;

	for (size_t i = 0; i < stream->count; i++) {
		size = (size_t)stream->pieces[i].pages * stream->source->page_size;
		memcpy(stream->plain + plain.size, stream->bytes[i], size);
		plain.size += size;
	}
	size = frame_zstd_pack(stream->zstd, plain, stream->packed);
	stream->stored = size ? (struct bts_slice){stream->packed, size} : plain;
	size = frame_encode_index_packed(
		&stream->encoder, stream->pieces, stream->count, (uint32_t)stream->stored.size, stream->scratch);
	frame_encode_packed(&stream->encoder, plain, stream->stored);
	source_send_small(stream, size, SOURCE_PART_PAYLOAD);
}

static void source_end(struct source_stream *stream)
{
	struct bts_slice base = {stream->base_record, stream->base_record_size};
	struct bts_slice record = bts_walk_record(stream->walk), stored = record;
	uint8_t packed[BTS_RECORD_MAX];
	size_t size;

	if (base.data) {
		size = records_pack(stream->source->records, base, record, packed);
		if (size)
			stored = (struct bts_slice){packed, size};
		size = frame_encode_trailer_lean(&stream->encoder, record, stored, stream->scratch);
	} else {
		size = frame_encode_trailer(&stream->encoder, record, stream->scratch);
	}
	if (stream->source->records)
		records_keep(stream->source->records, &stream->target, record);
	source_send_small(stream, size, SOURCE_PART_DONE);
}

static enum bts_err source_next_chunk(struct source_stream *stream, struct bts_error *error)
{
	enum bts_err err = source_gather(stream, error);
	size_t size;

	if (err == BTS_BUSY) {
		stream->held = true;
		source_send_small(stream, frame_encode_hold(stream->scratch), SOURCE_PART_CHUNK);
		return BTS_OK;
	}
	if (err)
		return err;
	if (stream->count == 0) {
		source_end(stream);
	} else if (stream->zstd) {
		source_pack(stream);
	} else {
		size = frame_encode_index(&stream->encoder, stream->pieces, stream->count, stream->scratch);
		source_send_small(stream, size, SOURCE_PART_PAYLOAD);
	}
	return BTS_OK;
}

static void source_end_chunk(struct source_stream *stream)
{
	source_send_small(stream, frame_encode_chunk_end(&stream->encoder, stream->scratch), SOURCE_PART_CHUNK);
}

static size_t source_send_packed(struct source_stream *stream, uint8_t *out, size_t cap)
{
	size_t size = stream->stored.size - stream->piece_at;

	if (size > cap)
		size = cap;
	memcpy(out, (const uint8_t *)stream->stored.data + stream->piece_at, size);
	stream->piece_at += size;
	if (stream->piece_at == stream->stored.size)
		source_end_chunk(stream);
	return size;
}

static size_t source_send_payload(struct source_stream *stream, uint8_t *out, size_t cap)
{
	size_t size =
		(size_t)stream->pieces[stream->piece].pages * stream->source->page_size - stream->piece_at;

	if (size > cap)
		size = cap;
	/* Sum what was copied, not the map: it is what the follower gets. */
	memcpy(out, stream->bytes[stream->piece] + stream->piece_at, size);
	frame_encode_payload(&stream->encoder, out, size);
	stream->piece_at += size;
	if (stream->piece_at == (size_t)stream->pieces[stream->piece].pages * stream->source->page_size) {
		stream->piece++;
		stream->piece_at = 0;
	}
	if (stream->piece == stream->count)
		source_end_chunk(stream);
	return size;
}

static size_t source_send_scratch(struct source_stream *stream, uint8_t *out, size_t cap)
{
	size_t size = stream->scratch_size - stream->scratch_at;

	if (size > cap)
		size = cap;
	memcpy(out, stream->scratch + stream->scratch_at, size);
	stream->scratch_at += size;
	if (stream->scratch_at == stream->scratch_size)
		stream->part = stream->after;
	return size;
}

enum bts_err source_stream_read(
	struct source_stream *stream, void *out, size_t cap, size_t *got, struct bts_error *error)
{
	uint8_t *p = out;
	enum bts_err err;
	size_t at = 0;

	stream->held = false;
	if (!stream->walk)
		return fail_set(error, BTS_EXPIRED, "broken off");
	while (at < cap && stream->part != SOURCE_PART_DONE && (!stream->held || at == 0)) {
		switch (stream->part) {
		case SOURCE_PART_SMALL:
			at += source_send_scratch(stream, p + at, cap - at);
			break;
		case SOURCE_PART_PAYLOAD:
			at += stream->zstd ? source_send_packed(stream, p + at, cap - at)
					   : source_send_payload(stream, p + at, cap - at);
			break;
		default:
			err = source_next_chunk(stream, error);
			if (err)
				return err;
		}
	}
	stream->source->bytes += at;
	stream->sent += at;
	*got = at;
	return BTS_OK;
}
