/*
 * Decoding a frame, incrementally.
 *
 * The decoder is always collecting one part: header, chunk head, rest of an index, payload, trailer, or the
 * record. A part that is complete is checked and names the next.  A head's tag decides between a chunk and
 * the trailer; both are first collected to FRAME_HEAD_SIZE bytes.  Pieces of a chunk are given out only after
 * its payload's sum was right, so nothing of a damaged chunk reaches the caller.
 */
#include "frame.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "frame_layout.h"
#include "frame_zstd.h"
#include "position.h"
#include "sabotage.h"
#include "wire.h"

enum frame_part {
	FRAME_PART_HEADER,
	FRAME_PART_HEAD,
	FRAME_PART_INDEX,
	FRAME_PART_PAYLOAD,
	FRAME_PART_PIECES, /* collecting nothing: giving out */
	FRAME_PART_TRAILER,
	FRAME_PART_RECORD,
	FRAME_PART_DONE,
	FRAME_PART_FAILED,
};

struct frame_decoder {
	enum frame_part part;
	size_t have, need;		/* bytes of the current part, in small, payload or packed */
	uint8_t small[FRAME_INDEX_MAX]; /* any part but a payload; the trailer fits too */
	uint8_t *payload;		/* payload_cap bytes, at most one chunk and its sum */
	size_t payload_cap;
	uint8_t *packed; /* the same of what is compressed; NULL: nothing was yet */
	size_t packed_cap;
	struct frame_zstd *zstd; /* NULL: nothing was compressed yet */

	struct frame_header header;
	struct bts_digest digest;
	uint64_t chunks, units, pages; /* so far */
	uint64_t holds;

	uint32_t entries, chunk_pages; /* of the current chunk */
	bool is_packed;		       /* it is compressed */
	uint32_t entry;		       /* next to give out */
	size_t given;		       /* payload bytes given out */

	struct bts_position known;	  /* where the last whole frame led to; txid 0: nowhere */
	size_t record_at;		  /* of the trailer: where what is sent for the record begins */
	size_t known_size;		  /* of its record, which a lean frame from there builds on */
	uint8_t known_record[BTS_RECORD_MAX];
	uint8_t record[BTS_RECORD_MAX]; /* of a lean frame, made whole */

	struct bts_page_id unit; /* the unit being transferred */
	uint32_t unit_next;	 /* its next page; unit.count when it is complete */
};

_Static_assert(FRAME_TRAILER_MAX <= FRAME_INDEX_MAX, "the trailer is collected where an index is");
_Static_assert(FRAME_HEADER_LONG <= FRAME_INDEX_MAX, "so is the header");

struct frame_decoder *frame_decoder_new(void)
{
	struct frame_decoder *decoder = calloc(1, sizeof(*decoder));

	if (decoder)
		frame_decoder_reset(decoder);
	return decoder;
}

void frame_decoder_free(struct frame_decoder *decoder)
{
	if (!decoder)
		return;
	free(decoder->payload);
	free(decoder->packed);
	frame_zstd_free(decoder->zstd);
	free(decoder);
}

static void frame_expect(struct frame_decoder *decoder, enum frame_part part, size_t have, size_t need)
{
	decoder->part = part;
	decoder->have = have;
	decoder->need = need;
}

void frame_decoder_reset(struct frame_decoder *decoder)
{
	decoder->chunks = decoder->units = decoder->pages = decoder->holds = 0;
	memset(&decoder->unit, 0, sizeof(decoder->unit));
	decoder->unit_next = 0;
	frame_expect(decoder, FRAME_PART_HEADER, 0, FRAME_HEADER_SIZE);
}

bool frame_decoder_knows(const struct frame_decoder *decoder, const struct bts_position *position)
{
	return position->txid != 0 && position_equal(&decoder->known, position);
}

static bool frame_get_position(const uint8_t *p, struct bts_position *position)
{
	static const uint8_t zero[16];

	position->epoch = wire_get_u32(p + FRAME_AT_EPOCH);
	position->epoch_random = wire_get_u64(p + FRAME_AT_EPOCH_RANDOM);
	position->txid = wire_get_u64(p + FRAME_AT_TXID);
	memcpy(position->chain, p + FRAME_AT_CHAIN, sizeof(position->chain));
	if (wire_get_u32(p + FRAME_AT_EPOCH_ZERO) != 0 || position->txid > POSITION_TXID_MAX)
		return false;
	return position->txid != 0 || (position->epoch == 0 && position->epoch_random == 0 &&
					      memcmp(position->chain, zero, sizeof(zero)) == 0);
}

/* Bytes of a header with those must-understand bits. */
static size_t frame_header_size(const uint8_t *p)
{
	return wire_get_u32(p + FRAME_AT_NEED) & FRAME_NEED_PARTIAL ? FRAME_HEADER_LONG : FRAME_HEADER_SIZE;
}

/* What tells how long the header is, and whether it can be read at all. */
static enum bts_err frame_check_header(const uint8_t *p, size_t size, struct bts_error *error)
{
	uint32_t need = wire_get_u32(p + FRAME_AT_NEED);

	if (memcmp(p + FRAME_AT_MAGIC, FRAME_MAGIC, 8) != 0)
		return fail_set(error, BTS_CORRUPT, "frame header: not a frame");
	if (wire_get_u16(p + FRAME_AT_VERSION) != FRAME_VERSION)
		return fail_set(error, BTS_VERSION, "frame header: version %u, this program knows %u",
			wire_get_u16(p + FRAME_AT_VERSION), FRAME_VERSION);
	if (need & ~FRAME_NEED_KNOWN)
		return fail_set(error, BTS_VERSION,
			"frame header: needs features 0x%x that this program lacks", need & ~FRAME_NEED_KNOWN);
	if (wire_get_u16(p + FRAME_AT_SIZE) != size)
		return fail_set(error, BTS_CORRUPT, "frame header: size %u", wire_get_u16(p + FRAME_AT_SIZE));
	return BTS_OK;
}

static bool frame_get_partial(const uint8_t *p, struct bts_partial *partial)
{
	if (!frame_get_position(p + FRAME_AT_PARTIAL, &partial->position) || partial->position.txid == 0)
		return false;
	partial->cursor = wire_get_u64(p + FRAME_AT_CURSOR);
	partial->older = wire_get_u64(p + FRAME_AT_OLDER);
	partial->older_cursor = wire_get_u64(p + FRAME_AT_OLDER_CURSOR);
	return partial->cursor < FRAME_PGNO_LIMIT && partial->older_cursor < FRAME_PGNO_LIMIT;
}

static enum bts_err frame_check_positions(const struct frame_header *header, struct bts_error *error)
{
	if (header->target.txid <= header->base.txid)
		return fail_set(error, BTS_CORRUPT,
			"frame header: target %" PRIu64 " is not beyond base %" PRIu64, header->target.txid,
			header->base.txid);
	if (header->target.epoch < header->base.epoch)
		return fail_set(error, BTS_CORRUPT,
			"frame header: target of epoch %" PRIu32 ", base of %" PRIu32, header->target.epoch,
			header->base.epoch);
	if (header->partial.position.txid && (header->base.txid || header->partial.position.txid > header->target.txid))
		return fail_set(error, BTS_CORRUPT, "frame header: goes on from what it cannot go on from");
	return BTS_OK;
}

static enum bts_err frame_take_header(struct frame_decoder *decoder, struct bts_error *error)
{
	const uint8_t *p = decoder->small;
	struct frame_header *header = &decoder->header;
	uint32_t page = wire_get_u32(p + FRAME_AT_PAGE_SIZE);
	size_t size = frame_header_size(p);
	enum bts_err err = frame_check_header(p, size, error);

	if (err)
		return err;
	if (decoder->have < size) {
		frame_expect(decoder, FRAME_PART_HEADER, decoder->have, size);
		return BTS_OK;
	}
	if (wire_get_u32(p + size - FRAME_SUM_SIZE) != bts_crc32c(0, p, size - FRAME_SUM_SIZE) && !SABOTAGED(SABOTAGE_NO_SUMS))
		return fail_set(error, BTS_CORRUPT, "frame header: wrong checksum");
	if (page < BTS_PAGE_SIZE_MIN || page > BTS_PAGE_SIZE_MAX || (page & (page - 1)))
		return fail_set(error, BTS_CORRUPT, "frame header: page size %" PRIu32, page);
	memset(header, 0, sizeof(*header));
	if (!frame_get_position(p + FRAME_AT_BASE, &header->base))
		return fail_set(error, BTS_CORRUPT, "frame header: malformed base position");
	if (!frame_get_position(p + FRAME_AT_TARGET, &header->target))
		return fail_set(error, BTS_CORRUPT, "frame header: malformed target position");
	if (size == FRAME_HEADER_LONG && !frame_get_partial(p, &header->partial))
		return fail_set(error, BTS_CORRUPT, "frame header: malformed partial position");
	err = frame_check_positions(header, error);
	if (err)
		return err;
	header->page_size = page;
	header->zstd = wire_get_u32(p + FRAME_AT_NEED) & FRAME_NEED_ZSTD;
	header->lean = wire_get_u32(p + FRAME_AT_NEED) & FRAME_NEED_LEAN;
	memcpy(header->target.database, p + FRAME_AT_DATABASE, sizeof(header->target.database));
	memcpy(header->base.database, p + FRAME_AT_DATABASE, sizeof(header->base.database));
	memcpy(header->partial.position.database, p + FRAME_AT_DATABASE, sizeof(header->base.database));
	if (header->lean && !frame_decoder_knows(decoder, &header->base))
		return fail_set(error, BTS_CORRUPT, "frame header: its commit record builds on one that is not at hand");
	bts_digest_init(&decoder->digest, header->target.database);
	bts_digest_update(&decoder->digest, p, size);
	frame_expect(decoder, FRAME_PART_HEAD, 0, FRAME_HEAD_SIZE);
	return BTS_OK;
}

static enum bts_err frame_take_hold(struct frame_decoder *decoder, struct bts_error *error)
{
	static const uint8_t zero[FRAME_HEAD_SIZE - 4];

	if (!decoder->header.partial.position.txid || ++decoder->holds > FRAME_HOLDS_MAX ||
		memcmp(decoder->small + 4, zero, sizeof(zero)) != 0)
		return fail_set(error, BTS_CORRUPT, "frame chunk %" PRIu64 ": a source that is at work, where none can be",
			decoder->chunks);
	frame_expect(decoder, FRAME_PART_HEAD, 0, FRAME_HEAD_SIZE);
	return BTS_OK;
}

static enum bts_err frame_take_head(struct frame_decoder *decoder, struct bts_error *error)
{
	const uint8_t *p = decoder->small;
	uint32_t tag = wire_get_u32(p + FRAME_AT_TAG), most = frame_chunk_pages(decoder->header.page_size);

	if (tag == FRAME_END_TAG) {
		frame_expect(decoder, FRAME_PART_TRAILER, FRAME_HEAD_SIZE, FRAME_END_SIZE);
		return BTS_OK;
	}
	if (tag == FRAME_HOLD_TAG)
		return frame_take_hold(decoder, error);
	if (tag != FRAME_CHUNK_TAG)
		return fail_set(error, BTS_CORRUPT,
			"frame chunk %" PRIu64 ": neither a chunk nor the trailer", decoder->chunks);
	decoder->entries = wire_get_u32(p + FRAME_AT_ENTRIES);
	decoder->chunk_pages = wire_get_u32(p + FRAME_AT_CHUNK_PAGES);
	if (decoder->chunk_pages == 0 || decoder->chunk_pages > most)
		return fail_set(error, BTS_CORRUPT,
			"frame chunk %" PRIu64 ": %" PRIu32 " pages, 1 to %" PRIu32, decoder->chunks,
			decoder->chunk_pages, most);
	if (decoder->entries == 0 || decoder->entries > decoder->chunk_pages)
		return fail_set(error, BTS_CORRUPT, "frame chunk %" PRIu64 ": %" PRIu32 " entries",
			decoder->chunks, decoder->entries);
	frame_expect(decoder, FRAME_PART_INDEX, FRAME_HEAD_SIZE,
		FRAME_HEAD_SIZE + decoder->entries * FRAME_ENTRY_SIZE + FRAME_SUM_SIZE);
	return BTS_OK;
}

static void frame_get_entry(const struct frame_decoder *decoder, uint32_t i, struct frame_piece *piece)
{
	const uint8_t *p = decoder->small + FRAME_HEAD_SIZE + i * FRAME_ENTRY_SIZE;

	piece->id.pgno = wire_get_u48(p + FRAME_AT_PGNO);
	piece->id.birth = wire_get_u48(p + FRAME_AT_BIRTH);
	piece->id.crc = wire_get_u32(p + FRAME_AT_CRC);
	piece->id.kind = p[FRAME_AT_KIND];
	piece->id.count = wire_get_u32(p + FRAME_AT_COUNT);
	piece->first = wire_get_u32(p + FRAME_AT_FIRST);
	piece->pages = wire_get_u16(p + FRAME_AT_PAGES);
}

static bool frame_same_unit(const struct bts_page_id *a, const struct bts_page_id *b)
{
	return a->pgno == b->pgno && a->birth == b->birth && a->crc == b->crc && a->kind == b->kind &&
	       a->count == b->count;
}

/* What is wrong with a unit's identity, or NULL. */
static const char *frame_bad_unit(const struct frame_decoder *decoder, const struct bts_page_id *id)
{
	if (id->kind < BTS_KIND_NODE || id->kind > BTS_KIND_FREE_LOG)
		return "unknown kind";
	if (id->count == 0 || id->count > FRAME_UNIT_PAGES_MAX ||
		(id->count > 1 && id->kind != BTS_KIND_EXTENT))
		return "bad page count";
	if (id->pgno == 0)
		return "page number out of range";
	if (id->birth <= decoder->header.base.txid || id->birth > decoder->header.target.txid)
		return "birth outside the frame's range";
	return NULL;
}

/* Pieces of a unit come in order and without gaps, before those of the next unit. */
static enum bts_err frame_take_entry(struct frame_decoder *decoder, uint32_t i, struct bts_error *error)
{
	const char *what = NULL;
	struct frame_piece piece;

	frame_get_entry(decoder, i, &piece);
	if (decoder->unit_next < decoder->unit.count) {
		if (!frame_same_unit(&piece.id, &decoder->unit) || piece.first != decoder->unit_next)
			what = "the unit before is incomplete";
	} else {
		what = frame_bad_unit(decoder, &piece.id);
		if (!what && piece.first != 0)
			what = "a unit that begins in its middle";
	}
	if (!what && (piece.pages == 0 || piece.pages > piece.id.count - piece.first))
		what = "bad piece length";
	if (what)
		return fail_set(error, BTS_CORRUPT,
			"frame chunk %" PRIu64 ", entry %" PRIu32 " (page %" PRIu64 "): %s", decoder->chunks,
			i, piece.id.pgno, what);
	if (piece.first == 0)
		decoder->units++;
	decoder->unit = piece.id;
	decoder->unit_next = piece.first + piece.pages;
	decoder->pages += piece.pages;
	if (decoder->pages > FRAME_PAGES_MAX)
		return fail_set(error, BTS_LIMIT, "frame: more than %" PRIu64 " pages", FRAME_PAGES_MAX);
	return BTS_OK;
}

static enum bts_err frame_room(uint8_t **bytes, size_t *cap, size_t size, struct bts_error *error)
{
	uint8_t *bigger;

	if (size <= *cap)
		return BTS_OK;
	bigger = realloc(*bytes, size);
	if (!bigger)
		return fail_set(error, BTS_MEMORY, "frame: no memory for a chunk of %zu bytes", size);
	*bytes = bigger;
	*cap = size;
	return BTS_OK;
}

/* Where the pages of the chunk come, and how many bytes of them. */
static enum bts_err frame_expect_payload(struct frame_decoder *decoder, struct bts_error *error)
{
	size_t pages = (size_t)decoder->chunk_pages * decoder->header.page_size, stored = pages;
	enum bts_err err;

	if (decoder->header.zstd)
		stored = wire_get_u32(decoder->small + FRAME_AT_STORED);
	else if (wire_get_u32(decoder->small + FRAME_AT_STORED) != 0)
		return fail_set(
			error, BTS_CORRUPT, "frame chunk %" PRIu64 ": reserved bytes set", decoder->chunks);
	if (stored == 0 || stored > pages)
		return fail_set(error, BTS_CORRUPT, "frame chunk %" PRIu64 ": %zu bytes for %zu of pages",
			decoder->chunks, stored, pages);
	decoder->is_packed = stored < pages;
	err = frame_room(&decoder->payload, &decoder->payload_cap, pages + FRAME_SUM_SIZE, error);
	if (!err && decoder->is_packed)
		err = frame_room(&decoder->packed, &decoder->packed_cap, stored + FRAME_SUM_SIZE, error);
	if (!err)
		frame_expect(decoder, FRAME_PART_PAYLOAD, 0, stored + FRAME_SUM_SIZE);
	return err;
}

static enum bts_err frame_take_index(struct frame_decoder *decoder, struct bts_error *error)
{
	size_t size = decoder->need - FRAME_SUM_SIZE;
	uint64_t before = decoder->pages;
	enum bts_err err;
	uint32_t i;

	if (wire_get_u32(decoder->small + size) != bts_crc32c(0, decoder->small, size) && !SABOTAGED(SABOTAGE_NO_SUMS))
		return fail_set(error, BTS_CORRUPT, "frame chunk %" PRIu64 ": wrong checksum of its index",
			decoder->chunks);
	for (i = 0; i < decoder->entries; i++) {
		if (decoder->small[FRAME_HEAD_SIZE + i * FRAME_ENTRY_SIZE + FRAME_AT_ENTRY_ZERO] != 0)
			return fail_set(error, BTS_CORRUPT, "frame chunk %" PRIu64 ": reserved bytes set",
				decoder->chunks);
		err = frame_take_entry(decoder, i, error);
		if (err)
			return err;
	}
	if (decoder->pages - before != decoder->chunk_pages)
		return fail_set(error, BTS_CORRUPT,
			"frame chunk %" PRIu64 ": its entries have %" PRIu64 " pages, not %" PRIu32,
			decoder->chunks, decoder->pages - before, decoder->chunk_pages);
	err = frame_expect_payload(decoder, error);
	/* The digest is the same whatever was sent for the pages. */
	wire_put_u32(decoder->small + FRAME_AT_STORED, 0);
	bts_digest_update(&decoder->digest, decoder->small, size);
	return err;
}

static enum bts_err frame_unpack(struct frame_decoder *decoder, size_t stored, size_t size, struct bts_error *error)
{
	if (!decoder->zstd)
		decoder->zstd = frame_zstd_new(false);
	if (!decoder->zstd)
		return fail_set(error, BTS_MEMORY, "frame: no memory to decompress");
	if (!frame_zstd_unpack(decoder->zstd, (struct bts_slice){decoder->packed, stored}, decoder->payload, size))
		return fail_set(error, BTS_CORRUPT, "frame chunk %" PRIu64 ": does not decompress to its %zu bytes",
			decoder->chunks, size);
	return BTS_OK;
}

static enum bts_err frame_take_payload(struct frame_decoder *decoder, struct bts_error *error)
{
	size_t stored = decoder->need - FRAME_SUM_SIZE;
	size_t size = (size_t)decoder->chunk_pages * decoder->header.page_size;
	const uint8_t *bytes = decoder->is_packed ? decoder->packed : decoder->payload;
	uint8_t sum[FRAME_SUM_SIZE];
	enum bts_err err = BTS_OK;

	if (wire_get_u32(bytes + stored) != bts_crc32c(0, bytes, stored) && !SABOTAGED(SABOTAGE_NO_SUMS))
		return fail_set(error, BTS_CORRUPT, "frame chunk %" PRIu64 ": wrong checksum of its pages",
			decoder->chunks);
	if (decoder->is_packed)
		err = frame_unpack(decoder, stored, size, error);
	if (err)
		return err;
	wire_put_u32(sum, decoder->is_packed ? bts_crc32c(0, decoder->payload, size) : wire_get_u32(bytes + stored));
	bts_digest_update(&decoder->digest, sum, sizeof(sum));
	decoder->chunks++;
	decoder->entry = 0;
	decoder->given = 0;
	frame_expect(decoder, FRAME_PART_PIECES, 0, 0);
	return BTS_OK;
}

static enum bts_err frame_take_trailer(struct frame_decoder *decoder, struct bts_error *error)
{
	const uint8_t *p = decoder->small;
	uint32_t record = wire_get_u32(p + FRAME_AT_RECORD_SIZE), stored = record;

	if (record == 0 || record > BTS_RECORD_MAX)
		return fail_set(
			error, BTS_CORRUPT, "frame trailer: a commit record of %" PRIu32 " bytes", record);
	decoder->record_at = decoder->header.lean ? FRAME_END_SIZE + FRAME_STORED_SIZE : FRAME_END_SIZE;
	if (decoder->have < decoder->record_at) {
		frame_expect(decoder, FRAME_PART_TRAILER, decoder->have, decoder->record_at);
		return BTS_OK;
	}
	if (decoder->header.lean)
		stored = wire_get_u32(p + FRAME_AT_RECORD_STORED);
	if (stored == 0 || stored > record)
		return fail_set(error, BTS_CORRUPT, "frame trailer: %" PRIu32 " bytes for a commit record of %" PRIu32, stored,
			record);
	frame_expect(decoder, FRAME_PART_RECORD, decoder->record_at, decoder->record_at + stored + FRAME_SUM_SIZE);
	return BTS_OK;
}

/* The commit record whole: what has come, or that put onto the record of the base. */
static enum bts_err frame_whole_record(struct frame_decoder *decoder, struct bts_slice *record, struct bts_error *error)
{
	size_t size = wire_get_u32(decoder->small + FRAME_AT_RECORD_SIZE);
	struct bts_slice base = {decoder->known_record, decoder->known_size}, stored;

	stored.data = decoder->small + decoder->record_at;
	stored.size = decoder->need - FRAME_SUM_SIZE - decoder->record_at;
	*record = stored;
	if (stored.size == size)
		return BTS_OK;
	if (!decoder->zstd)
		decoder->zstd = frame_zstd_new(false);
	if (!decoder->zstd)
		return fail_set(error, BTS_MEMORY, "frame: no memory to decompress");
	if (!frame_zstd_unpack_on(decoder->zstd, base, stored, decoder->record, size))
		return fail_set(error, BTS_CORRUPT, "frame trailer: no commit record of %zu bytes comes of it", size);
	*record = (struct bts_slice){decoder->record, size};
	return BTS_OK;
}

static enum bts_err frame_take_record(struct frame_decoder *decoder, struct bts_slice *record, struct bts_error *error)
{
	size_t size = decoder->need - FRAME_SUM_SIZE;
	const uint8_t *p = decoder->small;
	uint8_t digest[16];
	enum bts_err err;

	if (wire_get_u32(p + size) != bts_crc32c(0, p, size) && !SABOTAGED(SABOTAGE_NO_SUMS))
		return fail_set(error, BTS_CORRUPT, "frame trailer: wrong checksum");
	if (decoder->unit_next < decoder->unit.count)
		return fail_set(error, BTS_CORRUPT,
			"frame trailer: the unit at page %" PRIu64 " is incomplete", decoder->unit.pgno);
	if (wire_get_u64(p + FRAME_AT_UNITS) != decoder->units ||
		wire_get_u64(p + FRAME_AT_TOTAL_PAGES) != decoder->pages)
		return fail_set(error, BTS_CORRUPT, "frame trailer: counts differ from what came");
	err = frame_whole_record(decoder, record, error);
	if (err)
		return err;
	bts_digest_update(&decoder->digest, p, FRAME_AT_DIGEST);
	bts_digest_update(&decoder->digest, record->data, record->size);
	bts_digest_final(&decoder->digest, digest);
	if (memcmp(digest, p + FRAME_AT_DIGEST, sizeof(digest)) != 0 && !SABOTAGED(SABOTAGE_NO_SUMS))
		return fail_set(error, BTS_CORRUPT, "frame trailer: wrong digest");
	decoder->known = decoder->header.target;
	decoder->known_size = record->size;
	memcpy(decoder->known_record, record->data, record->size);
	decoder->part = FRAME_PART_DONE;
	return BTS_OK;
}

/* The current part is complete: check it, fill the event it makes, and name the next. */
static enum bts_err frame_take(
	struct frame_decoder *decoder, struct frame_event *event, struct bts_error *error)
{
	enum bts_err err;

	switch (decoder->part) {
	case FRAME_PART_HEADER:
		err = frame_take_header(decoder, error);
		if (decoder->part == FRAME_PART_HEADER) /* a long one, of which the rest is to come */
			return err;
		event->kind = FRAME_HEADER;
		event->header = &decoder->header;
		return err;
	case FRAME_PART_HEAD:
		return frame_take_head(decoder, error);
	case FRAME_PART_INDEX:
		return frame_take_index(decoder, error);
	case FRAME_PART_PAYLOAD:
		return frame_take_payload(decoder, error);
	case FRAME_PART_TRAILER:
		return frame_take_trailer(decoder, error);
	default:
		err = frame_take_record(decoder, &event->record, error);
		event->kind = FRAME_END;
		return err;
	}
}

static void frame_give_piece(struct frame_decoder *decoder, struct frame_event *event)
{
	frame_get_entry(decoder, decoder->entry, &event->piece);
	event->kind = FRAME_PIECE;
	event->bytes.data = decoder->payload + decoder->given;
	event->bytes.size = (size_t)event->piece.pages * decoder->header.page_size;
	decoder->given += event->bytes.size;
	decoder->entry++;
	if (decoder->entry == decoder->entries)
		frame_expect(decoder, FRAME_PART_HEAD, 0, FRAME_HEAD_SIZE);
}

enum bts_err frame_decode(struct frame_decoder *decoder, struct bts_slice *input, struct frame_event *event,
	struct bts_error *error)
{
	enum bts_err err;
	uint8_t *into;
	size_t take;

	memset(event, 0, sizeof(*event));
	while (event->kind == FRAME_MORE) {
		if (decoder->part == FRAME_PART_PIECES) {
			frame_give_piece(decoder, event);
			return BTS_OK;
		}
		if (input->size == 0)
			return BTS_OK;
		if (decoder->part >= FRAME_PART_DONE)
			return fail_set(error, BTS_CORRUPT, "frame: bytes after its %s",
				decoder->part == FRAME_PART_DONE ? "end" : "error");
		into = decoder->small;
		if (decoder->part == FRAME_PART_PAYLOAD)
			into = decoder->is_packed ? decoder->packed : decoder->payload;
		take = decoder->need - decoder->have;
		if (take > input->size)
			take = input->size;
		memcpy(into + decoder->have, input->data, take);
		input->data = (const uint8_t *)input->data + take;
		input->size -= take;
		decoder->have += take;
		if (decoder->have < decoder->need)
			return BTS_OK;
		err = frame_take(decoder, event, error);
		if (err) {
			/* The next one is asked for without building on anything. */
			decoder->known.txid = 0;
			decoder->part = FRAME_PART_FAILED;
			return err;
		}
	}
	return BTS_OK;
}

enum bts_err frame_decode_finish(const struct frame_decoder *decoder, struct bts_error *error)
{
	if (decoder->part == FRAME_PART_DONE || SABOTAGED(SABOTAGE_NO_END))
		return BTS_OK;
	return fail_set(error, BTS_CORRUPT, "frame: cut short after %" PRIu64 " chunks", decoder->chunks);
}
