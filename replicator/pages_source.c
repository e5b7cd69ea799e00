/*
 * Answering questions for single pages.
 *
 * Each unit is judged before the answer begins, so that the table of verdicts can come first and nothing fails after it.  Page
 * bytes go from the map into the caller's buffer; memory is a chunk's index and the question.
 */
#include "pages_source.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct pages_pin {
	struct bts_pages *pages; /* NULL: a free place */
	uint64_t used_ms;
	unsigned streams;
};

struct pages_pins {
	struct bts *db;
	struct pages_pin pin[PAGES_PINS_MAX];
};

enum pages_part {
	PAGES_PART_HEADER,
	PAGES_PART_CHUNK, /* a chunk's index, or the trailer */
	PAGES_PART_PAYLOAD,
	PAGES_PART_DONE,
};

struct pages_stream {
	struct pages_pin *pin;
	struct pages_query query;
	uint8_t verdicts[PAGES_UNITS_MAX];
	const uint8_t *bytes[PAGES_UNITS_MAX]; /* of those that come, in the map */
	uint32_t page_size;
	struct frame_encoder encoder;
	struct frame_header header;

	enum pages_part next; /* when scratch was sent */
	size_t scratch_size, scratch_at;
	uint8_t scratch[FRAME_INDEX_MAX];

	size_t unit;   /* next to send */
	uint32_t page; /* of it */
	struct frame_piece pieces[FRAME_CHUNK_PAGES_MAX];
	const uint8_t *piece_bytes[FRAME_CHUNK_PAGES_MAX];
	size_t count, piece, piece_at;
};

_Static_assert(PAGES_TABLE_MAX <= FRAME_INDEX_MAX && FRAME_TRAILER_MAX <= FRAME_INDEX_MAX, "scratch holds each");

struct pages_pins *pages_pins_new(struct bts *db)
{
	struct pages_pins *pins = calloc(1, sizeof(*pins));

	if (pins)
		pins->db = db;
	return pins;
}

void pages_pins_free(struct pages_pins *pins)
{
	if (!pins)
		return;
	for (size_t i = 0; i < PAGES_PINS_MAX; i++)
		bts_pages_close(pins->pin[i].pages);
	free(pins);
}

void pages_pins_tick(struct pages_pins *pins, uint64_t now_ms)
{
	for (size_t i = 0; i < PAGES_PINS_MAX; i++) {
		struct pages_pin *pin = &pins->pin[i];

		if (!pin->pages || pin->streams || now_ms - pin->used_ms < PAGES_PIN_MS)
			continue;
		bts_pages_close(pin->pages);
		pin->pages = NULL;
	}
}

bool pages_pins_before(const struct pages_pins *pins, bts_txid txid)
{
	for (size_t i = 0; i < PAGES_PINS_MAX; i++)
		if (pins->pin[i].pages && bts_pages_position(pins->pin[i].pages)->txid < txid)
			return true;
	return false;
}

void pages_pins_expire(struct pages_pins *pins, bts_txid txid)
{
	for (size_t i = 0; i < PAGES_PINS_MAX; i++) {
		struct pages_pin *pin = &pins->pin[i];

		if (!pin->pages || bts_pages_position(pin->pages)->txid != txid)
			continue;
		pin->used_ms = 0;
		if (pin->streams)
			continue;
		bts_pages_close(pin->pages);
		pin->pages = NULL;
	}
}

/* A free place, or that of the commit that was asked of the longest ago; NULL: streams are under way on all. */
static struct pages_pin *pages_place(struct pages_pins *pins)
{
	struct pages_pin *oldest = NULL;

	for (size_t i = 0; i < PAGES_PINS_MAX; i++) {
		struct pages_pin *pin = &pins->pin[i];

		if (!pin->pages)
			return pin;
		if (!pin->streams && (!oldest || pin->used_ms < oldest->used_ms))
			oldest = pin;
	}
	if (oldest) {
		bts_pages_close(oldest->pages);
		oldest->pages = NULL;
	}
	return oldest;
}

static enum bts_err pages_pin(
	struct pages_pins *pins, bts_txid at, struct pages_pin **out, struct bts_error *error)
{
	struct bts_position head;
	struct pages_pin *pin;
	enum bts_err err = bts_ship_position(pins->db, &head, error);

	if (err)
		return err;
	if (!at)
		at = head.txid;
	for (size_t i = 0; i < PAGES_PINS_MAX; i++) {
		*out = &pins->pin[i];
		if (pins->pin[i].pages && bts_pages_position(pins->pin[i].pages)->txid == at)
			return BTS_OK;
	}
	if (at != head.txid)
		return fail_set(error, BTS_NOT_FOUND,
			"transaction %" PRIu64 " is not kept here any more, the newest is %" PRIu64, at, head.txid);
	pin = pages_place(pins);
	if (!pin)
		return fail_set(error, BTS_BUSY, "pages of %d commits are being sent already", PAGES_PINS_MAX);
	*out = pin;
	return bts_pages_open(pins->db, &pin->pages, error);
}

/* Which of them come, within the bounds of an answer. */
static void pages_judge(struct pages_stream *stream)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < stream->query.count; i++) {
		const struct bts_page_id *id = &stream->query.ids[i];
		uint64_t size = (uint64_t)id->count * stream->page_size;
		struct bts_slice found;
		struct bts_error error;
		enum bts_err err;

		if (bytes && bytes + size > PAGES_ANSWER_BYTES) {
			stream->verdicts[i] = PAGES_LATER;
			continue;
		}
		err = bts_pages_read(stream->pin->pages, id, &found, &error);
		stream->verdicts[i] = !err ? PAGES_COMES : err == BTS_CORRUPT ? PAGES_DAMAGED : PAGES_ABSENT;
		if (err)
			continue;
		stream->bytes[i] = found.data;
		bytes += size;
	}
}

static void pages_send_small(struct pages_stream *stream, size_t size, enum pages_part next)
{
	stream->scratch_size = size;
	stream->scratch_at = 0;
	stream->next = next;
}

enum bts_err pages_stream_open(struct pages_pins *pins, const struct pages_query *query, uint64_t now_ms,
	struct pages_stream **out, struct bts_error *error)
{
	struct pages_stream *stream = calloc(1, sizeof(*stream));
	enum bts_err err;

	if (!stream)
		return fail_set(error, BTS_MEMORY, "no memory for pages");
	err = pages_pin(pins, query->at, &stream->pin, error);
	if (err)
		goto fail;
	stream->header.target = *bts_pages_position(stream->pin->pages);
	if (memcmp(stream->header.target.database, query->database, sizeof(query->database)) != 0) {
		err = fail_set(error, BTS_DIVERGED, "this source has another database");
		goto fail;
	}
	memcpy(stream->header.base.database, query->database, sizeof(query->database));
	stream->page_size = stream->header.page_size = bts_pages_page_size(stream->pin->pages);
	stream->query = *query;
	stream->pin->used_ms = now_ms;
	stream->pin->streams++;
	pages_judge(stream);
	pages_send_small(
		stream, pages_table_encode(stream->verdicts, query->count, stream->scratch), PAGES_PART_HEADER);
	*out = stream;
	return BTS_OK;
fail:
	free(stream);
	return err;
}

const struct bts_position *pages_stream_position(const struct pages_stream *stream)
{
	return &stream->header.target;
}

void pages_stream_close(struct pages_stream *stream)
{
	if (!stream)
		return;
	stream->pin->streams--;
	free(stream);
}

static void pages_gather(struct pages_stream *stream)
{
	uint32_t room = frame_chunk_pages(stream->page_size), take;

	stream->count = stream->piece = stream->piece_at = 0;
	while (room > 0 && stream->unit < stream->query.count) {
		const struct bts_page_id *id = &stream->query.ids[stream->unit];

		if (stream->verdicts[stream->unit] != PAGES_COMES) {
			stream->unit++;
			continue;
		}
		take = id->count - stream->page < room ? id->count - stream->page : room;
		stream->pieces[stream->count] = (struct frame_piece){*id, stream->page, take};
		stream->piece_bytes[stream->count++] =
			stream->bytes[stream->unit] + (size_t)stream->page * stream->page_size;
		stream->page += take;
		room -= take;
		if (stream->page == id->count) {
			stream->page = 0;
			stream->unit++;
		}
	}
}

/* Scratch was sent: make what follows. */
static void pages_go_on(struct pages_stream *stream)
{
	size_t size;

	if (stream->next == PAGES_PART_HEADER) {
		size = frame_encode_header(&stream->encoder, &stream->header, stream->scratch);
		pages_send_small(stream, size, PAGES_PART_CHUNK);
		return;
	}
	pages_gather(stream);
	if (stream->count > 0) {
		size = frame_encode_index(&stream->encoder, stream->pieces, stream->count, stream->scratch);
		pages_send_small(stream, size, PAGES_PART_PAYLOAD);
	} else {
		size = frame_encode_trailer(&stream->encoder, bts_pages_record(stream->pin->pages), stream->scratch);
		pages_send_small(stream, size, PAGES_PART_DONE);
	}
}

static size_t pages_send_payload(struct pages_stream *stream, uint8_t *out, size_t cap)
{
	size_t all = (size_t)stream->pieces[stream->piece].pages * stream->page_size;
	size_t size = all - stream->piece_at < cap ? all - stream->piece_at : cap;

	memcpy(out, stream->piece_bytes[stream->piece] + stream->piece_at, size);
	frame_encode_payload(&stream->encoder, out, size);
	stream->piece_at += size;
	if (stream->piece_at == all) {
		stream->piece++;
		stream->piece_at = 0;
	}
	if (stream->piece == stream->count)
		pages_send_small(
			stream, frame_encode_chunk_end(&stream->encoder, stream->scratch), PAGES_PART_CHUNK);
	return size;
}

static size_t pages_send_scratch(struct pages_stream *stream, uint8_t *out, size_t cap)
{
	size_t size = stream->scratch_size - stream->scratch_at;

	if (size > cap)
		size = cap;
	memcpy(out, stream->scratch + stream->scratch_at, size);
	stream->scratch_at += size;
	return size;
}

void pages_stream_read(struct pages_stream *stream, void *out, size_t cap, size_t *got)
{
	uint8_t *p = out;
	size_t at = 0;

	while (at < cap) {
		if (stream->scratch_at < stream->scratch_size)
			at += pages_send_scratch(stream, p + at, cap - at);
		else if (stream->next == PAGES_PART_PAYLOAD)
			at += pages_send_payload(stream, p + at, cap - at);
		else if (stream->next == PAGES_PART_DONE)
			break;
		else
			pages_go_on(stream);
	}
	*got = at;
}
