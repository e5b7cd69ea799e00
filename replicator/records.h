/*
 * Commit records that were sent to followers, by position: a follower that stands at one has it too, so the next frame brings
 * what differs from it.  The newest RECORDS_MAX; whoever is asked for another one sends a whole record, and knows the new one from then on.
 */
#ifndef RECORDS_H
#define RECORDS_H

#include <btree_store/ship.h>

#define RECORDS_MAX 128 /* twice as many as there are followers whose acknowledgements are kept */

struct records;
/* Owned: records_free.  NULL when there is no memory. */
struct records *records_new(void);
void records_free(struct records *); /* NULL is fine */
/* Copied.  Without memory it is not kept. */
void records_keep(struct records *, const struct bts_position *at, struct bts_slice record);
/* Borrowed until the next records_keep; size 0: not at hand. */
struct bts_slice records_find(const struct records *, const struct bts_position *at);
/* record as what differs from base: bytes put to out, fewer than it has; 0: it does not become smaller. */
size_t records_pack(struct records *, struct bts_slice base, struct bts_slice record, uint8_t out[BTS_RECORD_MAX]);

#endif
