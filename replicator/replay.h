/*
 * Frames that were kept, as incremental backups are, put onto the file of an earlier backup: each begins where the
 * file stands.
 */
#ifndef REPLAY_H
#define REPLAY_H

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

#endif
