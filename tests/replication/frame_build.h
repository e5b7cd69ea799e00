/* Frames in memory for the tests: made by the encoder, taken apart into one comparable sum. */
#ifndef FRAME_BUILD_H
#define FRAME_BUILD_H

#include <stdint.h>

#include "frame.h"

struct frame_bytes {
	uint8_t *data; /* owned: free */
	size_t size;
	size_t index_at[8], index_size[8]; /* of each chunk, sum included */
	size_t chunks;
	size_t trailer_at;
};

/* base.txid 10, target.txid 20, page size 4096, a few nodes and an extent of `extent` pages. */
void frame_build_header(struct frame_header *header);
void frame_build(struct frame_bytes *bytes, uint32_t extent);

/* Make the sum that ends [at, at + size) right again after a change. */
void frame_reseal(struct frame_bytes *bytes, size_t at, size_t size);

struct frame_result {
	uint64_t sum; /* over all events, in order */
	unsigned headers, pieces, ends;
	uint64_t pages;
	struct bts_error error;
};
/* Decode in pieces of at most step bytes, then the end of input. */
enum bts_err frame_take_apart(
	const uint8_t *data, size_t size, size_t first, size_t step, struct frame_result *result);

#endif
