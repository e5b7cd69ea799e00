/* Who may write a file (R3, R8, R9): what opening, applying and building ask role.c. */
#ifndef ROLE_H
#define ROLE_H

#include "db.h"

/*
 * May a handle that wants to write, or with BTS_OPEN_FOLLOWER to apply, have the file that db->slot is of?  BTS_INVALID,
 * BTS_READ_ONLY, BTS_FENCED, BTS_BUSY.
 */
enum bts_err role_check(struct bts *, unsigned flags, bool alone, struct bts_error *);
/* One process takes frames, the heir of the one before it.  alone: nobody else is there. */
enum bts_err role_join(struct bts *, bool alone, struct bts_error *);
/* A fenced file becomes that process's: no handle of a former primary writes to it any more, in any way. */
enum bts_err role_take(struct bts *, struct bts_error *);
/* A frame that leads to target is not of an epoch below the promised one (R8).  The handle's build mutex held. */
enum bts_err role_admits(struct bts *, const struct bts_position *target, struct bts_error *);

#endif
