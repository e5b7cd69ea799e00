/*
 * Read transactions that are kept when they end, with their reader's slot, the buckets they opened and their memory, for the
 * next one that begins: beginning, naming a bucket and ending then cost less than a get.
 */
#ifndef PARK_H
#define PARK_H

#include "txn.h"

/*
 * One that is kept, now the caller's: registered says whether it reads the head, with all it has opened; if not, it has a slot
 * and memory, and park_again must follow, or park_put.  NULL: there is none to be had; *place then is where a new
 * one may be kept (park_keep), 0 for nowhere.
 */
struct bts_txn *park_claim(struct bts *, unsigned *place);
/* As just begun at the head; after an error it reads nothing, and its error says why. */
enum bts_err park_again(struct bts_txn *);
/* A read transaction that was begun without one is to be kept when it ends, unless another thread's has the place. */
void park_keep(struct bts_txn *, unsigned place);
/* The end of one that has a place: its cursors are closed. */
void park_put(struct bts_txn *);
/* None of them is open? */
bool park_idle(struct bts *);
void park_free(struct bts *);

#endif
