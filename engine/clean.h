/*
 * Cleaning: the place of the next large batch is emptied by this one.
 *
 * A batch of changes all over a tree replaces pages all over the file, and finds its own in the holes that batches before it
 * left.  What is live between the holes cuts it into many requests, and a request costs a disk as much as many pages
 * do.  So a large batch also moves the live nodes out of a stretch that is mostly free: they are copied as if they had been
 * changed, become part of the batch, and leave one long hole for the batch after it.  (Rosenblum and Ousterhout 1992.)
 */
#ifndef CLEAN_H
#define CLEAN_H

#include "txn.h"

/* build held, db_reclaim done; state is about to be sealed.  Nothing that can fail: what cannot be moved stays. */
void clean_ahead(struct bts *, struct state *);

#endif
