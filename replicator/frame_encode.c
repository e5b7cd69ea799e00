/* Encoding a frame. */
#include "frame.h"

#include <string.h>

#include "frame_layout.h"
#include "wire.h"

uint32_t frame_chunk_pages(uint32_t page_size)
{
	uint32_t pages = FRAME_CHUNK_BYTES_MAX / page_size;

	return pages < FRAME_CHUNK_PAGES_MAX ? pages : FRAME_CHUNK_PAGES_MAX;
}

/* An empty position has one encoding whatever epoch an empty file carries: zeros. */
static void frame_put_position(uint8_t *p, const struct bts_position *position)
{
	if (position->txid == 0)
		return;
	wire_put_u32(p + FRAME_AT_EPOCH, position->epoch);
	wire_put_u64(p + FRAME_AT_EPOCH_RANDOM, position->epoch_random);
	wire_put_u64(p + FRAME_AT_TXID, position->txid);
	memcpy(p + FRAME_AT_CHAIN, position->chain, sizeof(position->chain));
}

size_t frame_encode_header(
	struct frame_encoder *encoder, const struct frame_header *header, uint8_t out[FRAME_HEADER_LONG])
{
	const struct bts_partial *partial = &header->partial;
	size_t size = partial->position.txid ? FRAME_HEADER_LONG : FRAME_HEADER_SIZE;
	uint32_t need = (header->zstd ? FRAME_NEED_ZSTD : 0) | (header->lean ? FRAME_NEED_LEAN : 0);

	memset(encoder, 0, sizeof(*encoder));
	memset(out, 0, size);
	memcpy(out + FRAME_AT_MAGIC, FRAME_MAGIC, 8);
	wire_put_u16(out + FRAME_AT_VERSION, FRAME_VERSION);
	wire_put_u16(out + FRAME_AT_SIZE, (uint16_t)size);
	memcpy(out + FRAME_AT_DATABASE, header->target.database, sizeof(header->target.database));
	frame_put_position(out + FRAME_AT_BASE, &header->base);
	frame_put_position(out + FRAME_AT_TARGET, &header->target);
	wire_put_u32(out + FRAME_AT_PAGE_SIZE, header->page_size);
	if (partial->position.txid) {
		need |= FRAME_NEED_PARTIAL;
		frame_put_position(out + FRAME_AT_PARTIAL, &partial->position);
		wire_put_u64(out + FRAME_AT_CURSOR, partial->cursor);
		wire_put_u64(out + FRAME_AT_OLDER, partial->older);
		wire_put_u64(out + FRAME_AT_OLDER_CURSOR, partial->older_cursor);
	}
	wire_put_u32(out + FRAME_AT_NEED, need);
	wire_put_u32(out + size - FRAME_SUM_SIZE, bts_crc32c(0, out, size - FRAME_SUM_SIZE));
	bts_digest_init(&encoder->digest, header->target.database);
	bts_digest_update(&encoder->digest, out, size);
	return size;
}

static void frame_put_entry(uint8_t *p, const struct frame_piece *piece)
{
	wire_put_u48(p + FRAME_AT_PGNO, piece->id.pgno);
	wire_put_u48(p + FRAME_AT_BIRTH, piece->id.birth);
	wire_put_u32(p + FRAME_AT_CRC, piece->id.crc);
	wire_put_u32(p + FRAME_AT_COUNT, piece->id.count);
	wire_put_u32(p + FRAME_AT_FIRST, piece->first);
	wire_put_u16(p + FRAME_AT_PAGES, (uint16_t)piece->pages);
	p[FRAME_AT_KIND] = (uint8_t)piece->id.kind;
	p[FRAME_AT_ENTRY_ZERO] = 0;
}

size_t frame_encode_index_packed(struct frame_encoder *encoder, const struct frame_piece *pieces, size_t count,
	uint32_t stored, uint8_t out[FRAME_INDEX_MAX])
{
	uint8_t *p = out + FRAME_HEAD_SIZE;
	uint32_t pages = 0;
	size_t i;

	for (i = 0; i < count; i++, p += FRAME_ENTRY_SIZE) {
		frame_put_entry(p, &pieces[i]);
		pages += pieces[i].pages;
		if (pieces[i].first == 0)
			encoder->units++;
	}
	wire_put_u32(out + FRAME_AT_TAG, FRAME_CHUNK_TAG);
	wire_put_u32(out + FRAME_AT_ENTRIES, (uint32_t)count);
	wire_put_u32(out + FRAME_AT_CHUNK_PAGES, pages);
	/* The digest is the same whatever is sent for the pages. */
	wire_put_u32(out + FRAME_AT_STORED, 0);
	bts_digest_update(&encoder->digest, out, (size_t)(p - out));
	wire_put_u32(out + FRAME_AT_STORED, stored);
	wire_put_u32(p, bts_crc32c(0, out, (size_t)(p - out)));
	encoder->pages += pages;
	encoder->sum = 0;
	encoder->packed = false;
	return (size_t)(p - out) + FRAME_SUM_SIZE;
}

size_t frame_encode_index(
	struct frame_encoder *encoder, const struct frame_piece *pieces, size_t count, uint8_t out[FRAME_INDEX_MAX])
{
	return frame_encode_index_packed(encoder, pieces, count, 0, out);
}

void frame_encode_payload(struct frame_encoder *encoder, const void *data, size_t size)
{
	encoder->sum = bts_crc32c(encoder->sum, data, size);
}

void frame_encode_packed(struct frame_encoder *encoder, struct bts_slice pages, struct bts_slice packed)
{
	encoder->sum = bts_crc32c(0, packed.data, packed.size);
	encoder->plain = bts_crc32c(0, pages.data, pages.size);
	encoder->packed = true;
}

size_t frame_encode_hold(uint8_t out[FRAME_HEAD_SIZE])
{
	memset(out, 0, FRAME_HEAD_SIZE);
	wire_put_u32(out + FRAME_AT_TAG, FRAME_HOLD_TAG);
	return FRAME_HEAD_SIZE;
}

size_t frame_encode_chunk_end(struct frame_encoder *encoder, uint8_t out[FRAME_SUM_SIZE])
{
	wire_put_u32(out, encoder->packed ? encoder->plain : encoder->sum);
	bts_digest_update(&encoder->digest, out, FRAME_SUM_SIZE);
	wire_put_u32(out, encoder->sum);
	return FRAME_SUM_SIZE;
}

/* The bytes before the record, which the digest is in. */
static void frame_put_end(struct frame_encoder *encoder, struct bts_slice record, uint8_t *out)
{
	wire_put_u32(out + FRAME_AT_TAG, FRAME_END_TAG);
	wire_put_u32(out + FRAME_AT_RECORD_SIZE, (uint32_t)record.size);
	wire_put_u64(out + FRAME_AT_UNITS, encoder->units);
	wire_put_u64(out + FRAME_AT_TOTAL_PAGES, encoder->pages);
	bts_digest_update(&encoder->digest, out, FRAME_AT_DIGEST);
	bts_digest_update(&encoder->digest, record.data, record.size);
	bts_digest_final(&encoder->digest, out + FRAME_AT_DIGEST);
}

static size_t frame_put_record(uint8_t *out, size_t at, struct bts_slice bytes)
{
	memcpy(out + at, bytes.data, bytes.size);
	at += bytes.size;
	wire_put_u32(out + at, bts_crc32c(0, out, at));
	return at + FRAME_SUM_SIZE;
}

size_t frame_encode_trailer(
	struct frame_encoder *encoder, struct bts_slice record, uint8_t out[FRAME_TRAILER_MAX])
{
	frame_put_end(encoder, record, out);
	return frame_put_record(out, FRAME_END_SIZE, record);
}

size_t frame_encode_trailer_lean(struct frame_encoder *encoder, struct bts_slice record, struct bts_slice stored,
	uint8_t out[FRAME_TRAILER_MAX])
{
	frame_put_end(encoder, record, out);
	wire_put_u32(out + FRAME_AT_RECORD_STORED, (uint32_t)stored.size);
	return frame_put_record(out, FRAME_END_SIZE + FRAME_STORED_SIZE, stored);
}
