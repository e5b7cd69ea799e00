/*
 * Bytes of a page: the one place, with node.c and meta.c, that knows them.  FORMAT.md describes them in words.
 *
 * Everything is little-endian.  A page header is 48 bytes:
 *
 *	 0  u32  crc32c of bytes 4 to the end of the page (of an extent: to the end of its header pages)
 *	 4  u8   type               5  u8   level (leaf 0)
 *	 6  u16  count (slots)      8  u48  own page number
 *	14  u16  prefix: bytes that all keys of the node have in common
 *	16  u48  birth             22  u16  insert hint: slot of the last insertion
 *	24  u48  last delete: newest transaction that removed a key from here (C1)
 *	30  u16  flags: zero       32  u32  tree id
 *	36  u32  pages (1; of an extent: header pages and payload)
 *	40  u32  heap: offset of the lowest cell; the page size when there is none
 *	44  u32  dead: bytes inside the heap that no cell uses (0 on disk)
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#include <btree_store.h>
#include <stdbool.h>
#include "base/bytes.h"

#define LAYOUT_HEADER_SIZE 48u
#define LAYOUT_POINTER_SIZE 16u
#define LAYOUT_RESERVED_BYTES 65536u /* the header area: meta A at 0, meta B at 32 KiB */
#define LAYOUT_META_SIZE 4096u
#define LAYOUT_META_B_OFFSET 32768u
#define LAYOUT_TXID_LIMIT ((UINT64_C(1) << 48) - (UINT64_C(1) << 32)) /* writes fail with BTS_FULL from here on */
#define LAYOUT_PGNO_LIMIT (UINT64_C(1) << 47)
#define LAYOUT_CHUNK 65536u /* payload bytes one chunk crc of an extent covers */

enum layout_type { LAYOUT_LEAF = 1, LAYOUT_BRANCH = 2, LAYOUT_EXTENT = 3, LAYOUT_FREE_LOG = 4 };

/* Trees with a fixed id; buckets get ids from LAYOUT_TREE_FIRST_BUCKET on, never reused. */
#define LAYOUT_TREE_CATALOG 1u
#define LAYOUT_TREE_HISTORY 2u
#define LAYOUT_TREE_FREE_LOG 3u /* tree id in the headers of free-log pages */
#define LAYOUT_TREE_SNAPSHOTS 4u
#define LAYOUT_TREE_FIRST_BUCKET 16u

/* A decoded child pointer.  pgno 0: none.  The dirty bit marks a page of this transaction's memory (dirty.h). */
struct page_ptr {
	bts_pgno pgno;
	bts_txid birth;
	uint32_t crc;
};
#define LAYOUT_DIRTY_BIT (UINT64_C(1) << 47) /* never on disk */

static inline bool layout_is_dirty(const struct page_ptr *ptr)
{
	return (ptr->pgno & LAYOUT_DIRTY_BIT) != 0;
}

static inline bool layout_ptr_equal(const struct page_ptr *a, const struct page_ptr *b)
{
	return a->pgno == b->pgno && a->birth == b->birth && a->crc == b->crc;
}

static inline struct page_ptr layout_get_ptr(const void *at)
{
	const uint8_t *p = at;
	struct page_ptr ptr = { bytes_get_u48_wide(p), bytes_get_u64(p + 4) >> 16, bytes_get_u32(p + 12) };

	return ptr;
}

static inline void layout_put_ptr(void *at, const struct page_ptr *ptr)
{
	uint8_t *p = at;

	bytes_put_u48(p, ptr->pgno);
	bytes_put_u48(p + 6, ptr->birth);
	bytes_put_u32(p + 12, ptr->crc);
}

#define layout_load_u16 bytes_get_u16
#define layout_load_u32 bytes_get_u32
#define layout_load_u48 bytes_get_u48_wide /* two more bytes of header follow each */
#define LAYOUT_FIELD(name, offset, width, type)                                   \
	static inline type layout_##name(const uint8_t *page)                     \
	{                                                                         \
		return (type)layout_load_##width(page + (offset));                \
	}                                                                         \
	static inline void layout_set_##name(uint8_t *page, type value)           \
	{                                                                         \
		bytes_put_##width(page + (offset), value);                        \
	}
LAYOUT_FIELD(crc, 0, u32, uint32_t)
LAYOUT_FIELD(count, 6, u16, uint16_t)
LAYOUT_FIELD(pgno, 8, u48, uint64_t)
LAYOUT_FIELD(prefix, 14, u16, uint16_t)
LAYOUT_FIELD(birth, 16, u48, uint64_t)
LAYOUT_FIELD(hint, 22, u16, uint16_t)
LAYOUT_FIELD(last_delete, 24, u48, uint64_t)
LAYOUT_FIELD(flags, 30, u16, uint16_t)
LAYOUT_FIELD(tree, 32, u32, uint32_t)
LAYOUT_FIELD(pages, 36, u32, uint32_t)
LAYOUT_FIELD(heap, 40, u32, uint32_t)
LAYOUT_FIELD(dead, 44, u32, uint32_t)

static inline uint8_t layout_type(const uint8_t *page)
{
	return page[4];
}
static inline uint8_t layout_level(const uint8_t *page)
{
	return page[5];
}

/*
 * An extent: its header pages hold the page header, then u64 value size at 48, u32 number of header pages at 56,
 * u32 zero at 60, and from 64 on one u32 crc32c a 64 KiB chunk of payload (the last chunk counts its bytes up to the
 * end of the value; the rest of the last page is zero).  The payload begins on the next page.
 */
#define LAYOUT_EXTENT_SIZE_AT 48u
#define LAYOUT_EXTENT_HEADERS_AT 56u
#define LAYOUT_EXTENT_TABLE_AT 64u

/* What an extent's header has no use for is zero. */
static inline bool layout_extent_plain(const uint8_t *page)
{
	return layout_level(page) == 0 && layout_count(page) == 0 && layout_prefix(page) == 0 && layout_hint(page) == 0 &&
	       layout_last_delete(page) == 0 && layout_flags(page) == 0 && layout_tree(page) == 0 && layout_heap(page) == 0 &&
	       layout_dead(page) == 0 && bytes_get_u32(page + LAYOUT_EXTENT_HEADERS_AT + 4) == 0;
}

static inline uint64_t layout_extent_chunks(uint64_t size)
{
	return (size + LAYOUT_CHUNK - 1) / LAYOUT_CHUNK;
}
static inline uint64_t layout_extent_header_pages(uint64_t size, uint32_t page_size)
{
	return (LAYOUT_EXTENT_TABLE_AT + 4 * layout_extent_chunks(size) + page_size - 1) / page_size;
}
/* All pages of an extent: header and payload. */
static inline uint64_t layout_extent_pages(uint64_t size, uint32_t page_size)
{
	return layout_extent_header_pages(size, page_size) + (size + page_size - 1) / page_size;
}

#endif
