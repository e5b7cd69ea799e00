/* Slots and cells of a node, for node.c and node_check.c: bounded by the caller. */
#ifndef NODE_CELL_H
#define NODE_CELL_H

#include "node.h"

static inline unsigned node_slot_at(unsigned index)
{
	return LAYOUT_HEADER_SIZE + NODE_SLOT_SIZE * index;
}

static inline unsigned node_slot_offset(const uint8_t *page, unsigned index)
{
	return bytes_get_u16(page + node_slot_at(index));
}

/* Key length with NODE_EXTENT_BIT. */
static inline unsigned node_slot_length(const uint8_t *page, unsigned index)
{
	return bytes_get_u16(page + node_slot_at(index) + 2);
}

static inline unsigned node_slot_key_size(const uint8_t *page, unsigned index)
{
	return node_slot_length(page, index) & ~NODE_EXTENT_BIT;
}

static inline uint32_t node_slot_head(const uint8_t *page, unsigned index)
{
	return bytes_get_u32(page + node_slot_at(index) + 4);
}

static inline bool node_is_leaf(const uint8_t *page)
{
	return layout_type(page) == LAYOUT_LEAF;
}

/* The first slot that has a key. */
static inline unsigned node_first(const uint8_t *page)
{
	return node_is_leaf(page) ? 0 : 1;
}

/* Bytes of a cell that begins at `cell` and is described by a slot's length field. */
static inline uint32_t node_cell_size(const uint8_t *cell, bool leaf, unsigned length)
{
	if (!leaf)
		return NODE_BRANCH_CELL + length;
	if (length & NODE_EXTENT_BIT)
		return NODE_LEAF_CELL + (length & ~NODE_EXTENT_BIT) + NODE_EXTENT_CELL;
	return NODE_LEAF_CELL + length + bytes_get_u16(cell + 6);
}

/* The 4 bytes behind the prefix as an integer that orders like the bytes. */
static inline uint32_t node_head(struct bts_slice key, size_t prefix)
{
	uint8_t pad[4] = {0};

	if (key.size >= prefix + sizeof(pad))
		return bytes_get_be32((const uint8_t *)key.data + prefix);
	if (key.size > prefix)
		memcpy(pad, (const uint8_t *)key.data + prefix, key.size - prefix);
	return bytes_get_be32(pad);
}

/* Compare keys that agree in their first `skip` bytes. */
static inline int node_compare(struct bts_slice a, struct bts_slice b, size_t skip)
{
	size_t size = a.size < b.size ? a.size : b.size;
	int order = memcmp((const uint8_t *)a.data + skip, (const uint8_t *)b.data + skip, size - skip);

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

/* How many leading bytes the two share. */
static inline size_t node_common(struct bts_slice a, struct bts_slice b)
{
	const uint8_t *p = a.data, *q = b.data;
	size_t size = a.size < b.size ? a.size : b.size;
	size_t at = 0;

	while (at < size && p[at] == q[at])
		at++;
	return at;
}

#endif
