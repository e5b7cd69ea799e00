/*
 * The allocator of a primary's writing processes: each has all of it in its own memory, and follows what the others do.
 *
 * A batch that is built leaves in the ring (shared.h) what it took and retired; who takes the build lock next applies what it has
 * not seen yet.  Who lags further than the ring reaches, or begins, rebuilds: the tip's free log says what is free, the
 * records of living readers what must wait (G5).  So nothing of it needs to survive anybody's death.
 */
#ifndef RING_H
#define RING_H

#include "seal.h"

/* Build held, db->tip and tip_ring fresh: make db->space the tip's. */
enum bts_err ring_follow(struct bts *, struct bts_error *);
/* Build held: the batch is built; tell the others, and make it the tip by one store.  Cannot fail. */
void ring_publish(struct bts *, const struct seal *);

#endif
