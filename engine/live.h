/* A shipped unit on its own: is it, byte for byte, what a pointer says of it?  Shared by all who get pages from others. */
#ifndef LIVE_H
#define LIVE_H

#include "db.h"

/*
 * Hostile bytes, id->count pages, against page number, birth, crc, kind and count; structure as node_check has it, of a large
 * value every byte.  limit: pointers lie below.  NULL: sound, else what is wrong.  Which tree and level it belongs to
 * is the caller's to know.
 */
const char *live_check(const uint8_t *image, const struct bts_page_id *id, uint32_t page_size, bts_pgno limit);
/* Page number, birth and crc in the header are the pointer's. */
bool live_same(const uint8_t *image, const struct page_ptr *ptr);
/* The bytes of an extent's value by its header; 0 when that is not what a header of so many pages can say. */
uint64_t live_extent_size(const uint8_t *image, uint64_t pages, uint32_t page_size);

#endif
