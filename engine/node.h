/*
 * One node: a slotted page of sorted keys.  No I/O, no allocation; works on page images of 4 to 64 KiB.
 *
 * After the header come `count` slots of 8 bytes, dense, in key order:
 *	u16 cell offset | u16 key length (bit 15: the value is an extent) | u32 key head
 * The head is the 4 bytes of the key behind the node's common prefix, big-endian, padded with zero bytes, so that
 * comparing heads as integers decides most probes without touching a cell.  Cells grow down from the end of the page:
 *	leaf    u48 version | u16 value bytes | key | value        (extent: value = u64 size | child pointer)
 *	branch  child pointer (16) | key                           (the key of slot 0 is empty: minus infinity)
 * Leaf keys are stored whole, so a cursor hands out pointers into the page; so are separators, which splits have
 * cut to the shortest that does.  The common prefix is that of all keys, in a branch of those from slot 1 on; 0 when
 * there are none.  Insertion keeps it as wide as possible, removal leaves it for node_tidy to widen.
 *
 * Bytes between slots and heap are zero at all times.  A page on disk is tidy: no dead bytes, cells adjoining in slot
 * order from the end of the page downwards, so that equal contents have one form and checking is one pass.
 * The insert hint tells runs from random insertion: a split beside the last insertion divides there (tree_rows.c).
 */
#ifndef NODE_H
#define NODE_H

#include "layout.h"

#define NODE_SLOT_SIZE 8u
#define NODE_EXTENT_BIT 0x8000u
#define NODE_RESERVED_BITS 0x7800u /* of the length; a key has 1024 bytes at most */
#define NODE_LEAF_CELL 8u /* bytes of a leaf cell before the key */
#define NODE_BRANCH_CELL 16u /* bytes of a branch cell before the key */
#define NODE_EXTENT_CELL 24u /* bytes an extent takes in the place of the value: u64 size, pointer */
#define NODE_LEVEL_MAX 31u

struct node_cell { /* a decoded leaf cell; slices point into the page */
	struct bts_slice key;
	bts_txid version;
	bool extent;
	struct bts_slice value;  /* when not an extent */
	uint64_t size;           /* of an extent's value, bytes */
	struct page_ptr ptr;     /* of an extent */
};

void node_init(uint8_t *page, uint32_t page_size, uint32_t tree, unsigned level);
/* Is value of this size kept in the leaf (else: an extent)?  At most a quarter page, and the cell at most half. */
bool node_fits_inline(uint32_t page_size, size_t key_size, uint64_t value_size);

struct bts_slice node_key(const uint8_t *page, unsigned index);
/* First slot whose key is >= key, count when there is none; *exact says whether it is equal.  Branch: from slot 1 on. */
unsigned node_search(const uint8_t *page, struct bts_slice key, bool *exact);
/* Branch: the slot whose subtree holds key (the last one whose separator is <= key). */
unsigned node_child_index(const uint8_t *page, struct bts_slice key);

void node_cell(const uint8_t *page, unsigned index, struct node_cell *cell);
struct page_ptr node_child(const uint8_t *page, unsigned index);
void node_set_child(uint8_t *page, unsigned index, const struct page_ptr *ptr); /* leaf: of a cell with an extent */

/* Bytes free for cells and slots, dead bytes counted (inserting may compact). */
uint32_t node_room(const uint8_t *page, uint32_t page_size);
uint32_t node_used(const uint8_t *page, uint32_t page_size); /* bytes of slots and live cells */
uint32_t node_leaf_need(const struct node_cell *cell);       /* bytes of slot and cell */
uint32_t node_branch_need(struct bts_slice key);
uint32_t node_need(const uint8_t *page, unsigned index); /* bytes of the slot and cell that are there */
/* Bytes of slots and cells a node can hold. */
static inline uint32_t node_capacity(uint32_t page_size)
{
	return page_size - LAYOUT_HEADER_SIZE;
}

/* false: no room, page unchanged.  What is put in must not lie in the page.  Branch: the key of slot 0 is empty. */
bool node_leaf_insert(uint8_t *page, uint32_t page_size, unsigned index, const struct node_cell *cell);
bool node_leaf_replace(uint8_t *page, uint32_t page_size, unsigned index, const struct node_cell *cell); /* same key */
bool node_branch_insert(uint8_t *page, uint32_t page_size, unsigned index, struct bts_slice key,
	const struct page_ptr *ptr);
/* Branch: when slot 0 goes, the key of the next one becomes empty. */
void node_remove(uint8_t *page, uint32_t page_size, unsigned index);
/* Remove the slots from `from` on. */
void node_truncate(uint8_t *page, uint32_t page_size, unsigned from);

/*
 * Append slots [from, to) of src to dst (same type); false when they do not fit, dst unchanged.  A branch slot that
 * becomes dst's first loses its key; src's slot 0 can only become the first.
 */
bool node_append(uint8_t *dst, const uint8_t *src, uint32_t page_size, unsigned from, unsigned to);
/* The form for the disk: no dead bytes, cells in slot order, the widest prefix, every unused byte zero. */
void node_tidy(uint8_t *page, uint32_t page_size);

/*
 * Structural check of hostile bytes: type, counts, offsets, lengths, order of keys, heads, adjoining cells, zero
 * gaps, versions <= newest, pointers within [1, limit) and not born after the node.  NULL when sound, else what is
 * wrong (static text).  After it every call above is safe on the page.
 */
const char *node_check(const uint8_t *page, uint32_t page_size, bts_pgno limit, bts_txid newest);
/* The same for a page of the transaction's memory: it need not be tidy and may point to dirty pages. */
const char *node_check_private(const uint8_t *page, uint32_t page_size, bts_pgno limit, bts_txid newest);

#endif
