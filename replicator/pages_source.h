/*
 * Answers to questions for single pages, as streams of bytes, and the commits that are kept pinned between the questions
 * of one graft: it asks many times of one commit.  One thread at a time.
 */
#ifndef PAGES_SOURCE_H
#define PAGES_SOURCE_H

#include "pages.h"

#define PAGES_PINS_MAX 4
#define PAGES_PIN_MS 15000 /* a commit that nobody asks of for so long is let go */

struct pages_pins;
/* Owned: pages_pins_free, when no stream is left.  db is borrowed.  NULL without memory. */
struct pages_pins *pages_pins_new(struct bts *db);
void pages_pins_free(struct pages_pins *); /* NULL is fine */
/* Let go of what nobody asked of; call now and then. */
void pages_pins_tick(struct pages_pins *, uint64_t now_ms);
/* Is a commit before that one kept? */
bool pages_pins_before(const struct pages_pins *, bts_txid txid);
/* It costs too much: let go of that commit now, or when the streams on it have ended. */
void pages_pins_expire(struct pages_pins *, bts_txid txid);

struct pages_stream;
/*
 * BTS_NOT_FOUND: the commit asked of is neither the newest nor pinned (any more).  BTS_DIVERGED: another database.
 * Owned: pages_stream_close.
 */
BTS_MUST_CHECK enum bts_err pages_stream_open(struct pages_pins *, const struct pages_query *, uint64_t now_ms,
	struct pages_stream **stream, struct bts_error *error);
const struct bts_position *pages_stream_position(const struct pages_stream *); /* borrowed until closed */
/* The next bytes, at most cap.  *got = 0: the answer has ended. */
void pages_stream_read(struct pages_stream *, void *out, size_t cap, size_t *got);
void pages_stream_close(struct pages_stream *); /* NULL is fine */

#endif
