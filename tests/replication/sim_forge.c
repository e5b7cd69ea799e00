/* Frames as a source would send them whose engine or whose intentions are bad: every sum is right, the pages are not. */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

#include <ensure.h>

#include "frame.h"

#define FORGE_PIECES 8192u

struct forged {
	struct frame_header header;
	struct frame_piece pieces[FORGE_PIECES];
	uint8_t *bytes[FORGE_PIECES];
	size_t sizes[FORGE_PIECES];
	size_t count;
	uint8_t record[BTS_RECORD_MAX];
	size_t record_size;
};

static bool forge_take(struct forged *forged, const uint8_t *bytes, size_t size)
{
	struct frame_decoder *decoder = frame_decoder_new();
	struct bts_slice input = {bytes, size};
	struct frame_event event;
	bool fits = true;

	do {
		enum bts_err err = frame_decode(decoder, &input, &event, NULL);

		ENSURE(!err);
		if (event.kind == FRAME_HEADER) {
			forged->header = *event.header;
			forged->header.zstd = false;
		} else if (event.kind == FRAME_PIECE) {
			fits = fits && forged->count < FORGE_PIECES;
			if (!fits)
				break;
			forged->pieces[forged->count] = event.piece;
			forged->sizes[forged->count] = event.bytes.size;
			forged->bytes[forged->count] = malloc(event.bytes.size);
			ENSURE(forged->bytes[forged->count]);
			memcpy(forged->bytes[forged->count++], event.bytes.data, event.bytes.size);
		} else if (event.kind == FRAME_END) {
			memcpy(forged->record, event.record.data, event.record.size);
			forged->record_size = event.record.size;
		}
	} while (event.kind != FRAME_MORE);
	frame_decoder_free(decoder);
	return fits;
}

static void forge_drop(struct forged *forged, size_t at)
{
	free(forged->bytes[at]);
	memmove(forged->pieces + at, forged->pieces + at + 1,
		(forged->count - at - 1) * sizeof(*forged->pieces));
	memmove(forged->bytes + at, forged->bytes + at + 1,
		(forged->count - at - 1) * sizeof(*forged->bytes));
	memmove(forged->sizes + at, forged->sizes + at + 1,
		(forged->count - at - 1) * sizeof(*forged->sizes));
	forged->count--;
}

/* One thing wrong, of a unit of one piece. */
static bool forge_spoil(struct rng *rng, struct forged *forged)
{
	size_t at = rng_below(rng, forged->count ? forged->count : 1);
	struct frame_piece *piece = &forged->pieces[at];

	if (forged->count == 0 || piece->pages != piece->id.count)
		return false;
	switch (rng_below(rng, 6)) {
	case 0:
		forge_drop(forged, at);
		return true;
	case 1: /* bytes that are not what the pointer to them says */
		forged->bytes[at][rng_below(rng, forged->sizes[at])] ^= (uint8_t)(1u << rng_below(rng, 8));
		return true;
	case 2:
		piece->id.crc ^= 1u << rng_below(rng, 32);
		return true;
	case 3: /* somewhere else */
		piece->id.pgno += 1 + rng_below(rng, 4);
		return true;
	case 4:
		if (piece->id.birth - 1 <= forged->header.base.txid)
			return false;
		piece->id.birth--;
		return true;
	default: /* what nobody asked for, where something else may be */
		if (forged->count == FORGE_PIECES || piece->id.count != 1)
			return false;
		forged->pieces[forged->count] = *piece;
		forged->pieces[forged->count].id.pgno = 16 + rng_below(rng, 200);
		forged->sizes[forged->count] = forged->sizes[at];
		forged->bytes[forged->count] = malloc(forged->sizes[at]);
		ENSURE(forged->bytes[forged->count]);
		memcpy(forged->bytes[forged->count++], forged->bytes[at], forged->sizes[at]);
		return true;
	}
}

/* One chunk a piece: no piece is larger than a chunk. */
static void forge_seal(const struct forged *forged, uint8_t **bytes, size_t *size)
{
	size_t need = FRAME_HEADER_SIZE + FRAME_TRAILER_MAX, at;
	struct frame_encoder encoder;
	uint8_t *out;

	for (size_t i = 0; i < forged->count; i++)
		need += FRAME_INDEX_MAX + forged->sizes[i] + FRAME_SUM_SIZE;
	out = malloc(need);
	ENSURE(out);
	at = frame_encode_header(&encoder, &forged->header, out);
	for (size_t i = 0; i < forged->count; i++) {
		at += frame_encode_index(&encoder, &forged->pieces[i], 1, out + at);
		memcpy(out + at, forged->bytes[i], forged->sizes[i]);
		frame_encode_payload(&encoder, out + at, forged->sizes[i]);
		at += forged->sizes[i];
		at += frame_encode_chunk_end(&encoder, out + at);
	}
	at += frame_encode_trailer(
		&encoder, (struct bts_slice){forged->record, forged->record_size}, out + at);
	free(*bytes);
	*bytes = out;
	*size = at;
}

bool forge(struct rng *rng, uint8_t **bytes, size_t *size)
{
	struct forged *forged = calloc(1, sizeof(*forged));
	bool changed;

	ENSURE(forged);
	changed = forge_take(forged, *bytes, *size) && forge_spoil(rng, forged);
	if (changed)
		forge_seal(forged, bytes, size);
	for (size_t i = 0; i < forged->count; i++)
		free(forged->bytes[i]);
	free(forged);
	return changed;
}
