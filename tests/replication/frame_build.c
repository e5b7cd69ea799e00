/* Frames in memory for the tests. */
#include "frame_build.h"

#include <stdlib.h>
#include <string.h>

#define BUILD_PAGE 4096
#define BUILD_CAP (4 << 20)

void frame_build_header(struct frame_header *header)
{
	memset(header, 0, sizeof(*header));
	memset(header->base.database, 0xda, 16);
	header->base.epoch = 3;
	header->base.epoch_random = 0x1234;
	header->base.txid = 10;
	memset(header->base.chain, 0x11, 16);
	header->target = header->base;
	header->target.txid = 20;
	memset(header->target.chain, 0x22, 16);
	header->page_size = BUILD_PAGE;
}

static void build_chunk(struct frame_bytes *bytes, struct frame_encoder *encoder,
	const struct frame_piece *pieces, size_t count)
{
	size_t i, j, size = 0;

	bytes->index_at[bytes->chunks] = bytes->size;
	bytes->index_size[bytes->chunks] =
		frame_encode_index(encoder, pieces, count, bytes->data + bytes->size);
	bytes->size += bytes->index_size[bytes->chunks++];
	for (i = 0; i < count; i++)
		size += (size_t)pieces[i].pages * BUILD_PAGE;
	for (j = 0; j < size; j++)
		bytes->data[bytes->size + j] = (uint8_t)(j * 7 + pieces[0].id.pgno + (j >> 12));
	/* In uneven parts, as a server's buffers ask for them. */
	for (j = 0; j < size; j += 5000)
		frame_encode_payload(
			encoder, bytes->data + bytes->size + j, size - j < 5000 ? size - j : 5000);
	bytes->size += size;
	bytes->size += frame_encode_chunk_end(encoder, bytes->data + bytes->size);
}

void frame_build(struct frame_bytes *bytes, uint32_t extent)
{
	struct frame_piece piece = {
		.id = {.pgno = 100, .birth = 15, .crc = 77, .count = extent, .kind = BTS_KIND_EXTENT}};
	struct frame_piece nodes[2] = {
		{.id = {.pgno = 40, .birth = 20, .crc = 1, .count = 1, .kind = BTS_KIND_NODE}, .pages = 1},
		{.id = {.pgno = 41, .birth = 11, .crc = 2, .count = 1, .kind = BTS_KIND_FREE_LOG},
			.pages = 1},
	};
	struct frame_encoder encoder;
	struct frame_header header;

	memset(bytes, 0, sizeof(*bytes));
	bytes->data = calloc(1, BUILD_CAP);
	frame_build_header(&header);
	bytes->size = frame_encode_header(&encoder, &header, bytes->data);
	build_chunk(bytes, &encoder, nodes, 2);
	while (piece.first < extent) {
		piece.pages = extent - piece.first;
		if (piece.pages > FRAME_CHUNK_PAGES_MAX)
			piece.pages = FRAME_CHUNK_PAGES_MAX;
		build_chunk(bytes, &encoder, &piece, 1);
		piece.first += piece.pages;
	}
	bytes->trailer_at = bytes->size;
	bytes->size += frame_encode_trailer(
		&encoder, (struct bts_slice){"a commit record", 15}, bytes->data + bytes->size);
}

void frame_reseal(struct frame_bytes *bytes, size_t at, size_t size)
{
	uint32_t sum = bts_crc32c(0, bytes->data + at, size - FRAME_SUM_SIZE);
	uint8_t *p = bytes->data + at + size - FRAME_SUM_SIZE;

	p[0] = (uint8_t)sum;
	p[1] = (uint8_t)(sum >> 8);
	p[2] = (uint8_t)(sum >> 16);
	p[3] = (uint8_t)(sum >> 24);
}

static void build_mix(struct frame_result *result, const void *data, size_t size)
{
	const uint8_t *p = data;
	size_t i;

	for (i = 0; i < size; i++)
		result->sum = (result->sum ^ p[i]) * UINT64_C(0x100000001b3);
}

static void build_note(struct frame_result *result, const struct frame_event *event)
{
	switch (event->kind) {
	case FRAME_HEADER:
		result->headers++;
		build_mix(result, &event->header->target.txid, sizeof(event->header->target.txid));
		build_mix(result, event->header->target.database, 16);
		break;
	case FRAME_PIECE:
		result->pieces++;
		result->pages += event->piece.pages;
		build_mix(result, &event->piece.id.pgno, sizeof(event->piece.id.pgno));
		build_mix(result, &event->piece.first, sizeof(event->piece.first));
		build_mix(result, event->bytes.data, event->bytes.size);
		break;
	case FRAME_END:
		result->ends++;
		build_mix(result, event->record.data, event->record.size);
		break;
	default:
		break;
	}
}

enum bts_err frame_take_apart(
	const uint8_t *data, size_t size, size_t first, size_t step, struct frame_result *result)
{
	struct frame_decoder *decoder = frame_decoder_new();
	enum bts_err err = BTS_OK;
	struct frame_event event;
	struct bts_slice input;
	size_t at = 0, take = first;

	memset(result, 0, sizeof(*result));
	while (!err && at < size) {
		if (take > size - at)
			take = size - at;
		input = (struct bts_slice){data + at, take};
		at += take;
		take = step;
		do {
			err = frame_decode(decoder, &input, &event, &result->error);
			if (!err)
				build_note(result, &event);
		} while (!err && event.kind != FRAME_MORE);
	}
	if (!err)
		err = frame_decode_finish(decoder, &result->error);
	frame_decoder_free(decoder);
	return err;
}
