/*
 * Writers that are held to a deadline (BTS_OPEN_DEADLINE): what committing asks.
 *
 * The deadline is in shared memory and nowhere else, so with the last process it is gone, and whoever opens next with the
 * flag writes nothing until one is set.  Why each check stands where it stands: DESIGN.md, section "The deadline".
 */
#ifndef DEADLINE_H
#define DEADLINE_H

#include "db.h"

/* May a commit be begun, and may a slot be written for it?  BTS_FENCED: the deadline has passed, or none was given. */
enum bts_err deadline_check(struct bts *, struct bts_error *);
/*
 * A commit that was begun in this term is durable: may it be told of?  BTS_UNKNOWN: the deadline has passed, or had passed in
 * between and another one was given.
 */
enum bts_err deadline_told(struct bts *, uint32_t term, struct bts_error *);
/* It was built, and the slot was refused: what is told of it.  BTS_UNKNOWN. */
enum bts_err deadline_unknown(struct bts *, bts_txid, struct bts_error *);
/* deadline_told of one that readers see and no flush covers yet (BTS_ASYNC). */
enum bts_err deadline_shown(struct bts *, uint32_t term, bts_txid, struct bts_error *);

#endif
