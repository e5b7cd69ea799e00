/*
 * The source's side: what to answer to a follower's request, the frame as a stream of bytes, and the keeping
 * of acknowledgements.  Knows nothing of HTTP beyond status numbers.  One thread at a time per struct source.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include "fail.h"
#include "frame.h"
#include "query.h"
#include "records.h"

struct source {
	struct bts *db; /* borrowed */
	const char *name; /* of this node where the file's own process has told none; borrowed, "" = none */
	struct records *records; /* of what was sent, for lean frames; borrowed, NULL: none is made */
	uint32_t page_size;
	struct repl_events events;

	/* for metrics */
	uint64_t frames, bytes, pages; /* sent whole; bytes and pages also of broken-off ones */
	uint64_t streamed_txids, streamed_bytes; /* of whole frames between commits: what a commit takes, about */
	uint64_t broken;	       /* frames that failed while being made or sent */
	uint64_t resumed;	       /* frames that went on where a broken one had ended */
	uint64_t refused;	       /* 409 answers */
	uint64_t ahead, diverged;      /* of them: who has commits that are not here, so that somebody's are lost */
	uint64_t alarms;	       /* acknowledgements that went backwards */
	uint64_t loops;		       /* followers refused because commits come here through them */
	uint64_t twins;		       /* sessions that came back under a name that another had taken */
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
	bool has_fork; /* of "diverged": the newest commit that both histories have */
	struct bts_position fork;
};
/*
 * The nodes that commits come through, this one first, as BTS-Via says it; "" = nobody knows.  *lag_ms: how old
 * what is here may be; false: nobody knows.  A primary's is its own name and 0.
 */
bool source_chain(struct source *, char via[BTS_VIA_MAX + 1], uint64_t *lag_ms);
/* Is name one of a chain's? */
bool source_chain_has(const char *via, const char *name);
/* Reads a few pages. */
void source_decide(struct source *, const struct query *query, struct source_answer *answer);
/*
 * The request's own position is durable on the follower: keep it under the follower's name.  Only for a query
 * that source_decide did not refuse.  A lower one than before does not replace it: it is counted, and an
 * event (R7).
 */
void source_acknowledge(struct source *, const struct query *query);

/* A frame from the follower's position, or from how far it has come, to the newest durable one; pins that until closed. */
struct source_stream;
BTS_MUST_CHECK enum bts_err source_stream_open(
	struct source *, const struct query *query, struct source_stream **stream, struct bts_error *error);
const struct bts_position *source_stream_target(const struct source_stream *); /* borrowed until closed */
void source_stream_digest(const struct source_stream *, uint8_t digest[16]);	       /* of the target's roots */
/* The next bytes, at most cap.  *got = 0: the frame has ended.  After an error nothing more: break the reply
 * off. */
BTS_MUST_CHECK enum bts_err source_stream_read(
	struct source_stream *, void *out, size_t cap, size_t *got, struct bts_error *error);
bool source_stream_held(const struct source_stream *); /* the last read had to wait for what changed to be found */
/* Lets go of what it pins; nothing can be read from then on. */
void source_stream_break(struct source_stream *);
void source_stream_close(struct source_stream *); /* NULL is fine */

#endif
