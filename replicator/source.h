/*
 * The source's side: what to answer to a follower's request, the frame as a stream of bytes, and the keeping
 * of acknowledgements.  Knows nothing of HTTP beyond status numbers.  One thread at a time per struct source.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include "fail.h"
#include "frame.h"
#include "query.h"

struct source {
	struct bts *db; /* borrowed */
	uint32_t page_size;
	struct repl_events events;

	/* for metrics */
	uint64_t frames, bytes, pages; /* sent whole; bytes and pages also of broken-off ones */
	uint64_t broken;	       /* frames that failed while being made or sent */
	uint64_t refused;	       /* 409 answers */
	uint64_t alarms;	       /* acknowledgements that went backwards */
};
BTS_MUST_CHECK enum bts_err source_init(
	struct source *, struct bts *db, const struct repl_events *events, struct bts_error *error);

enum source_verdict {
	SOURCE_FRAME,	/* make one: source_stream_open */
	SOURCE_WAIT,	/* the follower has all there is */
	SOURCE_REFUSED, /* status, code and detail say why */
};
struct source_answer {
	enum source_verdict verdict;
	struct bts_position head;
	int status; /* 409, or 503 when the file cannot be read now */
	const char *code;
	char detail[256];
};
/* Reads a few pages. */
void source_decide(struct source *, const struct query *query, struct source_answer *answer);
/*
 * The request's own position is durable on the follower: keep it under the follower's name.  Only for a query
 * that source_decide did not refuse.  A lower one than before does not replace it: it is counted, and an
 * event (R7).
 */
void source_acknowledge(struct source *, const struct query *query);

/* A frame from the follower's position to the newest durable one; pins that until closed. */
struct source_stream;
BTS_MUST_CHECK enum bts_err source_stream_open(
	struct source *, const struct query *query, struct source_stream **stream, struct bts_error *error);
const struct bts_position *source_stream_target(const struct source_stream *); /* borrowed until closed */
/* The next bytes, at most cap.  *got = 0: the frame has ended.  After an error nothing more: break the reply
 * off. */
BTS_MUST_CHECK enum bts_err source_stream_read(
	struct source_stream *, void *out, size_t cap, size_t *got, struct bts_error *error);
void source_stream_close(struct source_stream *); /* NULL is fine */

#endif
