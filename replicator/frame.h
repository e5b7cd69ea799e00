/*
 * The frame: what takes a follower from a base position to a target position.  PROTOCOL.md gives it byte by
 * byte. Encoder and decoder are pure: no file, no socket, no clock.  The decoder takes bytes split anywhere,
 * holds at most one chunk, and gives out nothing of a chunk before its sums are right.
 */
#ifndef FRAME_H
#define FRAME_H

#include <stdbool.h>

#include <btree_store/ship.h>

#define FRAME_MAGIC "BTSFRAME"
#define FRAME_VERSION 1
/* Must-understand bits; each is sent only to who asked for it. */
#define FRAME_NEED_ZSTD 0x1u	/* pages of a chunk may be compressed */
#define FRAME_NEED_PARTIAL 0x2u /* goes on where a broken first transfer ended: a longer header says where */
#define FRAME_NEED_LEAN 0x8u	/* the commit record may come as what differs from the base's */
#define FRAME_NEED_KNOWN (FRAME_NEED_ZSTD | FRAME_NEED_PARTIAL | FRAME_NEED_LEAN)

#define FRAME_HEADER_SIZE 120
#define FRAME_HEADER_LONG 184
#define FRAME_HEAD_SIZE 16  /* of a chunk */
#define FRAME_ENTRY_SIZE 28 /* of a chunk's index */
#define FRAME_SUM_SIZE 4
#define FRAME_END_SIZE 40	    /* of the trailer, without record and sum */
#define FRAME_STORED_SIZE 4 /* of a lean one: how many bytes are sent for the record */
#define FRAME_CHUNK_TAG 0x4b4e4843u /* "CHNK" */
#define FRAME_END_TAG 0x444e4554u   /* "TEND" */
#define FRAME_HOLD_TAG 0x444c4f48u  /* "HOLD": the source is at work */

/* Limits; what exceeds one is refused. */
#define FRAME_CHUNK_PAGES_MAX 256
#define FRAME_CHUNK_BYTES_MAX (1u << 20) /* of pages, and at least one page of the largest size */
#define FRAME_HOLDS_MAX (1u << 24)
#define FRAME_PGNO_LIMIT (UINT64_C(1) << 48)
#define FRAME_UNIT_PAGES_MAX (1u << 29)
#define FRAME_PAGES_MAX (UINT64_C(1) << 36)
#define FRAME_INDEX_MAX (FRAME_HEAD_SIZE + FRAME_CHUNK_PAGES_MAX * FRAME_ENTRY_SIZE + FRAME_SUM_SIZE)
#define FRAME_TRAILER_MAX (FRAME_END_SIZE + FRAME_STORED_SIZE + BTS_RECORD_MAX + FRAME_SUM_SIZE)

struct frame_header {
	struct bts_position base; /* txid 0: of an empty follower; database as target's */
	struct bts_position target;
	uint32_t page_size;
	bool zstd, lean;
	struct bts_partial partial; /* position.txid 0: a frame that begins at its beginning */
};

/* Pages [first, first + pages) of the unit id. */
struct frame_piece {
	struct bts_page_id id;
	uint32_t first, pages;
};

/* Pages a chunk may hold at that page size. */
uint32_t frame_chunk_pages(uint32_t page_size);

/*
 * Encoding, in this order: header, then for each chunk index, payload (in any pieces) and chunk_end, then
 * trailer. Each returns the bytes put to out.
 */
struct frame_encoder {
	struct bts_digest digest;
	uint32_t sum;	/* of what is sent for the chunk's pages so far */
	uint32_t plain; /* of its pages, when they are compressed */
	bool packed;
	uint64_t units, pages;
};
size_t frame_encode_header(
	struct frame_encoder *, const struct frame_header *, uint8_t out[FRAME_HEADER_LONG]);
size_t frame_encode_index(
	struct frame_encoder *, const struct frame_piece *pieces, size_t count, uint8_t out[FRAME_INDEX_MAX]);
void frame_encode_payload(struct frame_encoder *, const void *data, size_t size);
/* The same in a frame with zstd: stored bytes follow for the pages; and the pages whole, with what is sent for them. */
size_t frame_encode_index_packed(struct frame_encoder *, const struct frame_piece *pieces, size_t count, uint32_t stored,
	uint8_t out[FRAME_INDEX_MAX]);
void frame_encode_packed(struct frame_encoder *, struct bts_slice pages, struct bts_slice packed);
/* Between chunks, after a header with partial. */
size_t frame_encode_hold(uint8_t out[FRAME_HEAD_SIZE]);
size_t frame_encode_chunk_end(struct frame_encoder *, uint8_t out[FRAME_SUM_SIZE]);
size_t frame_encode_trailer(struct frame_encoder *, struct bts_slice record, uint8_t out[FRAME_TRAILER_MAX]);
/* Of a lean frame: stored is sent for the record, and is it where it is no shorter. */
size_t frame_encode_trailer_lean(
	struct frame_encoder *, struct bts_slice record, struct bts_slice stored, uint8_t out[FRAME_TRAILER_MAX]);

enum frame_event_kind {
	FRAME_MORE,   /* the input is used up */
	FRAME_HEADER, /* header is set */
	FRAME_PIECE,  /* piece and bytes are set */
	FRAME_END,    /* record is set; counts and digest were right */
};

/* Everything pointed to is borrowed until the next call on the decoder. */
struct frame_event {
	enum frame_event_kind kind;
	const struct frame_header *header;
	struct frame_piece piece;
	struct bts_slice bytes;	 /* piece.pages * page size */
	struct bts_slice record; /* the commit record, not looked into */
};

struct frame_decoder;
/* Owned: frame_decoder_free.  NULL when there is no memory. */
struct frame_decoder *frame_decoder_new(void);
void frame_decoder_free(struct frame_decoder *);  /* NULL is fine */
void frame_decoder_reset(struct frame_decoder *); /* for the next frame */
/* The last frame led to this position: its record is at hand, so the next one from there may be lean. */
bool frame_decoder_knows(const struct frame_decoder *, const struct bts_position *position);
/*
 * Take bytes from the front of *input until there is an event.  BTS_CORRUPT names the part of the frame that
 * is wrong, BTS_VERSION a version or a feature this decoder lacks; after an error only reset or free.
 */
BTS_MUST_CHECK enum bts_err frame_decode(
	struct frame_decoder *, struct bts_slice *input, struct frame_event *event, struct bts_error *error);
/* The input has ended: BTS_CORRUPT unless the frame had. */
BTS_MUST_CHECK enum bts_err frame_decode_finish(const struct frame_decoder *, struct bts_error *error);

#endif
