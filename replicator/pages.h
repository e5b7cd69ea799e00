/*
 * POST /v1/replication/pages: single pages by (page, birth, crc), for grafts and repairs.  PROTOCOL.md has the bytes.
 *
 * Question and answer are bounded.  The answer is a table of verdicts, one for each unit asked for, and then a frame with the
 * units that come, from the empty position to the commit that the source has pinned.  Codec and decoder are pure: no file, no
 * socket, no clock.
 */
#ifndef PAGES_H
#define PAGES_H

#include "fail.h"
#include "frame.h"

#define PAGES_PATH "/v1/replication/pages"
#define PAGES_UNITS_MAX 256u
#define PAGES_QUERY_HEADER 48u
#define PAGES_QUERY_ENTRY 32u
#define PAGES_QUERY_MAX (PAGES_QUERY_HEADER + PAGES_UNITS_MAX * PAGES_QUERY_ENTRY + 4u)
#define PAGES_TABLE_HEADER 16u
#define PAGES_TABLE_MAX (PAGES_TABLE_HEADER + PAGES_UNITS_MAX + 4u)
#define PAGES_ANSWER_BYTES (UINT64_C(64) << 20) /* of pages; a single unit may be larger */

struct pages_query {
	uint8_t database[16];
	bts_txid at; /* the commit asked of; 0: the newest */
	size_t count;
	struct bts_page_id ids[PAGES_UNITS_MAX];
};

enum pages_verdict {
	PAGES_COMES,
	PAGES_ABSENT,  /* not part of that commit */
	PAGES_DAMAGED, /* it is, and the source cannot read it */
	PAGES_LATER,   /* the answer is full: ask again */
};

size_t pages_query_encode(const struct pages_query *, uint8_t out[PAGES_QUERY_MAX]);
/* Hostile bytes.  BTS_INVALID, BTS_VERSION. */
BTS_MUST_CHECK enum bts_err pages_query_decode(
	struct pages_query *, const void *bytes, size_t size, struct bts_error *error);
size_t pages_table_encode(const uint8_t *verdicts, size_t count, uint8_t out[PAGES_TABLE_MAX]);

/* The answer to one question, from bytes split anywhere. */
struct pages_decoder {
	const struct pages_query *query; /* borrowed */
	struct frame_decoder *frame;	 /* borrowed, reset by pages_decode_start */
	uint8_t table[PAGES_TABLE_MAX];
	size_t have;
	bool table_there;
	uint8_t verdicts[PAGES_UNITS_MAX];
	size_t next; /* of the query's units, to come */
	uint32_t pages; /* of it, that have come */
};
void pages_decode_start(struct pages_decoder *, const struct pages_query *, struct frame_decoder *);
/*
 * As frame_decode, but for what was not asked for, or was and does not come: BTS_CORRUPT.  A piece is given with *index, its
 * place in the question.
 */
BTS_MUST_CHECK enum bts_err pages_decode(struct pages_decoder *, struct bts_slice *input, struct frame_event *event,
	size_t *index, struct bts_error *error);

#endif
