/* Pages of a chunk, compressed, and a commit record as what differs from another.  Bounded by what they are on both sides. */
#ifndef FRAME_ZSTD_H
#define FRAME_ZSTD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <btree_store.h>

struct frame_zstd;
/* For packing or for unpacking.  Owned: frame_zstd_free.  NULL when there is no memory. */
struct frame_zstd *frame_zstd_new(bool pack);
void frame_zstd_free(struct frame_zstd *); /* NULL is fine */

/* Bytes put to out, fewer than in.size; 0: it does not become smaller.  out has room for in.size bytes. */
size_t frame_zstd_pack(struct frame_zstd *, struct bts_slice in, uint8_t *out);
/* Hostile bytes; true: they were exactly size bytes, which stand in out.  Never writes beyond, nor takes more memory. */
bool frame_zstd_unpack(struct frame_zstd *, struct bts_slice in, uint8_t *out, size_t size);

/* The same of what has much in common with base, which is there on both sides. */
size_t frame_zstd_pack_on(struct frame_zstd *, struct bts_slice base, struct bts_slice in, uint8_t *out);
bool frame_zstd_unpack_on(
	struct frame_zstd *, struct bts_slice base, struct bts_slice in, uint8_t *out, size_t size);

#endif
