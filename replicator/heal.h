/*
 * Healing over HTTP, the asking side: single pages of a peer, and from them a graft or a repair.  Blocks; the caller's
 * thread and transport.
 */
#ifndef HEAL_H
#define HEAL_H

#include <stdatomic.h>

#include "pages.h"
#include "transport.h"

#define HEAL_TRIES 5 /* of a question whose answer broke off */

struct heal_peer {
	struct transport *transport;
	const char *url;		/* "http://host:port" */
	const atomic_bool *stopping; /* NULL, or set: end soon, with BTS_TIMEOUT */
};

/* What an answer brings.  Every pointer is borrowed for the call. */
struct heal_sink {
	/* Once, before the pieces: which of them come.  May be NULL. */
	enum bts_err (*verdicts)(void *arg, const struct pages_query *, const uint8_t *verdicts, struct bts_error *error);
	enum bts_err (*piece)(void *arg, size_t index, const struct frame_piece *, struct bts_slice bytes,
		struct bts_error *error);
	void *arg;
};
struct heal_answer {
	struct bts_position position; /* the commit it is from */
	uint32_t page_size;
	size_t record_size;
	uint8_t record[BTS_RECORD_MAX];
	uint64_t bytes;
};
/*
 * Ask once.  BTS_NOT_FOUND: the peer does not keep that commit any more.  BTS_IO: no answer, or a broken one; BTS_CORRUPT,
 * BTS_VERSION: not an answer to this.
 */
BTS_MUST_CHECK enum bts_err heal_ask(const struct heal_peer *, const struct pages_query *, const struct heal_sink *,
	struct heal_answer *answer, struct bts_error *error);

struct heal_graft {
	const struct bts_position *fork; /* NULL: the base is unknown to the source */
	/* All has come and nothing is installed: the last look at what is about to be left behind.  May be NULL. */
	enum bts_err (*before)(void *arg, struct bts_apply *apply, struct bts_error *error);
	void *arg;
	/* what was done */
	struct bts_position target;
	uint64_t units, pages, bytes, rounds;
};
/* Take db, a follower's file, to the peer's newest commit (bts_apply_begin_graft). */
BTS_MUST_CHECK enum bts_err heal_graft(
	const struct heal_peer *, struct bts *db, struct heal_graft *, struct bts_error *error);

#endif
