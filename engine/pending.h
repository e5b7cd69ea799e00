/*
 * path.pending: pages of a frame that could not go to their homes yet, because the durable root or a reader needs what
 * is there (R2, R5).  What was in flight when a process died is found here and completed or discarded at open.
 */
#ifndef PENDING_H
#define PENDING_H

#include "db.h"

/*
 * At open of a follower's file, before anything is served: db->slot is the accepted slot.  It needs records
 * (pending_count != 0): verify all of them, wait for readers of overwritten pages (an heir may have some), copy them home, flush,
 * write the other slot with nothing pending (db->slot and db->slot_index follow), flush, cut the file.  It needs none: cut what is
 * left over.  Records that are absent, short or of another salt: BTS_CORRUPT, nothing changed.  The pager is not open yet.
 */
enum bts_err pending_recover(struct bts *, struct bts_error *);

#endif
