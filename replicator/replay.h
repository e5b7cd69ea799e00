/*
 * Frames that were kept, as incremental backups are, put onto the file of an earlier backup: each begins where the
 * file stands.
 */
#ifndef REPLAY_H
#define REPLAY_H

#include <btree_store/ship.h>

#include "fail.h"

struct replay_counts {
	uint64_t frames, pages;
	uint64_t passed; /* frames whose target the file had already */
};
/*
 * Reads frames one after the other from fd until its end.  path must exist, nobody may have it open (BTS_BUSY), and it becomes a fenced one
 * when it was a primary's (BTS_OPEN_FENCE).  A frame is applied whole or not at all; *counts holds also when a later one fails.
 */
BTS_MUST_CHECK enum bts_err replay_frames(const char *path, int fd, struct replay_counts *counts, struct bts_error *error);

/*
 * The same with bytes that come in pieces, split anywhere.  path is borrowed until closed; owned: replay_close, which drops a frame that
 * has not come whole.  After an error only close.
 */
struct replay;
BTS_MUST_CHECK enum bts_err replay_open(const char *path, struct replay **replay, struct bts_error *error);
BTS_MUST_CHECK enum bts_err replay_push(struct replay *replay, struct bts_slice bytes, struct bts_error *error);
BTS_MUST_CHECK enum bts_err replay_end(const struct replay *replay, struct bts_error *error); /* BTS_CORRUPT: within a frame */
/* Where the file stands by the frames that came; BTS_NOT_FOUND: none was applied. */
BTS_MUST_CHECK enum bts_err replay_position(const struct replay *replay, struct bts_position *position, struct bts_error *error);
void replay_close(struct replay *replay); /* NULL is fine */

#endif
