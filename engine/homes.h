/*
 * What stands at the homes of redirected pages, and when they are brought home (R6).
 *
 * The handle that applies knows, of each page that is in path.pending, or was, in which interval [birth, freed) snapshots need what
 * stands at its home.  A page that is in the log, or whose home somebody needs, takes no new version at home: all of them go to the
 * log.  When no snapshot of any process lies in the interval, nobody can come to read there any more (a reader begins at the
 * head), and the newest version may be written there.  An heir knows no interval: it takes [0, birth of the first record).
 */
#ifndef HOMES_H
#define HOMES_H

#include "apply.h"
#include "redirect.h"

/* May nothing be written to the home of this page, whatever the allocator says? */
bool homes_taken(const struct bts *, bts_pgno);
/* Before the slot is written: room for a frame's needs and units; then they are entered, which cannot fail. */
enum bts_err homes_reserve(struct bts_apply *);
void homes_enter(struct bts_apply *);
/* The heir's knowledge, from the log. */
enum bts_err homes_inherit(struct bts *, struct redirect *table, struct bts_error *);
/*
 * Bring home what nobody needs there, and leave a log of the rest: after a frame once the log has grown by so much that its flushes are
 * spread over many frames, when nothing else is to be done as soon as it is worth it, or as much as can be.
 * BTS_CORRUPT: a record is damaged; or poisoned.  What else fails is tried again at the next frame.  build held.
 */
enum homes_when { HOMES_FRAME, HOMES_IDLE, HOMES_ALL };
enum bts_err homes_merge(struct bts *, enum homes_when, struct bts_error *);
/*
 * The log is longer than pending_limit: tell the readers whose snapshot is the oldest of those that need a home to end.  False:
 * it is not, or no reader is in the way.
 */
bool homes_press(struct bts *);
void homes_fini(struct bts *);

#endif
