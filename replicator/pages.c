/* Questions for single pages, and the answers: pure. */
#include "pages.h"

#include <inttypes.h>
#include <string.h>

#include "wire.h"

#define PAGES_QUERY_MAGIC "BTSPAGEQ"
#define PAGES_TABLE_MAGIC "BTSPAGEA"
#define PAGES_VERSION 1u

enum {
	/* question */
	PAGES_AT_VERSION = 8,
	PAGES_AT_SIZE = 10,
	PAGES_AT_NEED = 12,
	PAGES_AT_DATABASE = 16,
	PAGES_AT_TXID = 32,
	PAGES_AT_COUNT = 40,
	PAGES_AT_ZERO = 44,
	/* a unit of it */
	PAGES_AT_PGNO = 0,
	PAGES_AT_BIRTH = 8,
	PAGES_AT_CRC = 16,
	PAGES_AT_KIND = 20,
	PAGES_AT_PAGES = 24,
	PAGES_AT_UNIT_ZERO = 28,
	/* table */
	PAGES_AT_TABLE_COUNT = 12,
};

size_t pages_query_encode(const struct pages_query *query, uint8_t out[PAGES_QUERY_MAX])
{
	uint8_t *p = out + PAGES_QUERY_HEADER;

	memset(out, 0, PAGES_QUERY_HEADER);
	memcpy(out, PAGES_QUERY_MAGIC, 8);
	wire_put_u16(out + PAGES_AT_VERSION, PAGES_VERSION);
	wire_put_u16(out + PAGES_AT_SIZE, PAGES_QUERY_HEADER);
	memcpy(out + PAGES_AT_DATABASE, query->database, sizeof(query->database));
	wire_put_u64(out + PAGES_AT_TXID, query->at);
	wire_put_u32(out + PAGES_AT_COUNT, (uint32_t)query->count);
	for (size_t i = 0; i < query->count; i++, p += PAGES_QUERY_ENTRY) {
		const struct bts_page_id *id = &query->ids[i];

		wire_put_u64(p + PAGES_AT_PGNO, id->pgno);
		wire_put_u64(p + PAGES_AT_BIRTH, id->birth);
		wire_put_u32(p + PAGES_AT_CRC, id->crc);
		wire_put_u32(p + PAGES_AT_KIND, id->kind);
		wire_put_u32(p + PAGES_AT_PAGES, id->count);
		wire_put_u32(p + PAGES_AT_UNIT_ZERO, 0);
	}
	wire_put_u32(p, bts_crc32c(0, out, (size_t)(p - out)));
	return (size_t)(p - out) + 4;
}

/* What is wrong with a unit asked for, or NULL. */
static const char *pages_bad_unit(const struct bts_page_id *id)
{
	if (id->kind < BTS_KIND_NODE || id->kind > BTS_KIND_FREE_LOG)
		return "unknown kind";
	if (id->count == 0 || id->count > FRAME_UNIT_PAGES_MAX || (id->count > 1 && id->kind != BTS_KIND_EXTENT))
		return "bad page count";
	if (id->pgno == 0 || id->pgno >> 48 || id->birth == 0 || id->birth >> 48)
		return "page or birth out of range";
	return NULL;
}

static enum bts_err pages_get_units(struct pages_query *query, const uint8_t *p, struct bts_error *error)
{
	for (size_t i = 0; i < query->count; i++, p += PAGES_QUERY_ENTRY) {
		struct bts_page_id *id = &query->ids[i];
		const char *wrong;

		*id = (struct bts_page_id){
			.pgno = wire_get_u64(p + PAGES_AT_PGNO),
			.birth = wire_get_u64(p + PAGES_AT_BIRTH),
			.crc = wire_get_u32(p + PAGES_AT_CRC),
			.count = wire_get_u32(p + PAGES_AT_PAGES),
			.kind = wire_get_u32(p + PAGES_AT_KIND),
		};
		wrong = wire_get_u32(p + PAGES_AT_UNIT_ZERO) ? "reserved bytes set" : pages_bad_unit(id);
		if (wrong)
			return fail_set(error, BTS_INVALID, "unit %zu (page %" PRIu64 "): %s", i, id->pgno, wrong);
	}
	return BTS_OK;
}

enum bts_err pages_query_decode(
	struct pages_query *query, const void *bytes, size_t size, struct bts_error *error)
{
	const uint8_t *p = bytes;
	uint32_t count;

	if (size < PAGES_QUERY_HEADER + 4 || memcmp(p, PAGES_QUERY_MAGIC, 8) != 0)
		return fail_set(error, BTS_INVALID, "not a question for pages");
	if (wire_get_u16(p + PAGES_AT_VERSION) != PAGES_VERSION || wire_get_u32(p + PAGES_AT_NEED) != 0)
		return fail_set(error, BTS_VERSION, "a question of version %u with features 0x%" PRIx32 ", this program knows %u",
			wire_get_u16(p + PAGES_AT_VERSION), wire_get_u32(p + PAGES_AT_NEED), PAGES_VERSION);
	count = wire_get_u32(p + PAGES_AT_COUNT);
	if (wire_get_u16(p + PAGES_AT_SIZE) != PAGES_QUERY_HEADER || count > PAGES_UNITS_MAX ||
		size != PAGES_QUERY_HEADER + (size_t)count * PAGES_QUERY_ENTRY + 4)
		return fail_set(error, BTS_INVALID, "%zu bytes for %" PRIu32 " units, at most %u", size, count,
			PAGES_UNITS_MAX);
	if (wire_get_u32(p + size - 4) != bts_crc32c(0, p, size - 4))
		return fail_set(error, BTS_INVALID, "wrong checksum");
	if (wire_get_u32(p + PAGES_AT_ZERO) != 0)
		return fail_set(error, BTS_INVALID, "reserved bytes set");
	memcpy(query->database, p + PAGES_AT_DATABASE, sizeof(query->database));
	query->at = wire_get_u64(p + PAGES_AT_TXID);
	query->count = count;
	return pages_get_units(query, p + PAGES_QUERY_HEADER, error);
}

size_t pages_table_encode(const uint8_t *verdicts, size_t count, uint8_t out[PAGES_TABLE_MAX])
{
	size_t size = PAGES_TABLE_HEADER + count;

	memset(out, 0, PAGES_TABLE_HEADER);
	memcpy(out, PAGES_TABLE_MAGIC, 8);
	wire_put_u16(out + PAGES_AT_VERSION, PAGES_VERSION);
	wire_put_u32(out + PAGES_AT_TABLE_COUNT, (uint32_t)count);
	memcpy(out + PAGES_TABLE_HEADER, verdicts, count);
	wire_put_u32(out + size, bts_crc32c(0, out, size));
	return size + 4;
}

void pages_decode_start(
	struct pages_decoder *decoder, const struct pages_query *query, struct frame_decoder *frame)
{
	decoder->query = query;
	decoder->frame = frame;
	decoder->have = decoder->next = decoder->pages = 0;
	decoder->table_there = false;
	frame_decoder_reset(frame);
}

static void pages_skip(struct pages_decoder *decoder)
{
	while (decoder->next < decoder->query->count && decoder->verdicts[decoder->next] != PAGES_COMES)
		decoder->next++;
}

static enum bts_err pages_take_table(struct pages_decoder *decoder, struct bts_error *error)
{
	const uint8_t *p = decoder->table;
	size_t count = decoder->query->count, size = PAGES_TABLE_HEADER + count;

	if (memcmp(p, PAGES_TABLE_MAGIC, 8) != 0)
		return fail_set(error, BTS_CORRUPT, "pages: not an answer");
	if (wire_get_u16(p + PAGES_AT_VERSION) != PAGES_VERSION)
		return fail_set(error, BTS_VERSION, "pages: an answer of version %u, this program knows %u",
			wire_get_u16(p + PAGES_AT_VERSION), PAGES_VERSION);
	if (wire_get_u16(p + 10) != 0 || wire_get_u32(p + PAGES_AT_TABLE_COUNT) != count)
		return fail_set(error, BTS_CORRUPT, "pages: an answer to another question");
	if (wire_get_u32(p + size) != bts_crc32c(0, p, size))
		return fail_set(error, BTS_CORRUPT, "pages: wrong checksum of the verdicts");
	for (size_t i = 0; i < count; i++)
		if (p[PAGES_TABLE_HEADER + i] > PAGES_LATER)
			return fail_set(error, BTS_CORRUPT, "pages: unknown verdict %u", p[PAGES_TABLE_HEADER + i]);
	memcpy(decoder->verdicts, p + PAGES_TABLE_HEADER, count);
	decoder->table_there = true;
	pages_skip(decoder);
	return BTS_OK;
}

static enum bts_err pages_take_piece(
	struct pages_decoder *decoder, const struct frame_piece *piece, size_t *index, struct bts_error *error)
{
	const struct bts_page_id *id = &decoder->query->ids[decoder->next];

	if (decoder->next == decoder->query->count || piece->id.pgno != id->pgno || piece->id.birth != id->birth ||
		piece->id.crc != id->crc || piece->id.kind != id->kind || piece->id.count != id->count ||
		piece->first != decoder->pages)
		return fail_set(error, BTS_CORRUPT, "pages: page %" PRIu64 " of birth %" PRIu64 " came, out of turn",
			piece->id.pgno, piece->id.birth);
	*index = decoder->next;
	decoder->pages += piece->pages;
	if (decoder->pages == id->count) {
		decoder->pages = 0;
		decoder->next++;
		pages_skip(decoder);
	}
	return BTS_OK;
}

enum bts_err pages_decode(struct pages_decoder *decoder, struct bts_slice *input, struct frame_event *event,
	size_t *index, struct bts_error *error)
{
	size_t need = PAGES_TABLE_HEADER + decoder->query->count + 4, take;
	enum bts_err err;

	if (!decoder->table_there) {
		take = need - decoder->have < input->size ? need - decoder->have : input->size;
		memcpy(decoder->table + decoder->have, input->data, take);
		decoder->have += take;
		*input = (struct bts_slice){(const uint8_t *)input->data + take, input->size - take};
		event->kind = FRAME_MORE;
		if (decoder->have < need)
			return BTS_OK;
		err = pages_take_table(decoder, error);
		if (err)
			return err;
	}
	err = frame_decode(decoder->frame, input, event, error);
	if (err)
		return err;
	if (event->kind == FRAME_HEADER &&
		(event->header->base.txid != 0 ||
			memcmp(event->header->target.database, decoder->query->database, 16) != 0 ||
			(decoder->query->at && event->header->target.txid != decoder->query->at)))
		return fail_set(error, BTS_CORRUPT, "pages: an answer from another database or commit");
	if (event->kind == FRAME_PIECE)
		return pages_take_piece(decoder, &event->piece, index, error);
	if (event->kind == FRAME_END && (decoder->next < decoder->query->count || decoder->pages))
		return fail_set(error, BTS_CORRUPT, "pages: the answer ends before all that was promised has come");
	return BTS_OK;
}
