/*
 * Is a page image a sound node?  Everything is looked at in the order that makes the next look safe: header,
 * then each slot's bounds, then its cell, then the order of keys.
 */
#include "node.h"
#include "node_cell.h"

struct node_bounds {
	uint32_t page_size;
	bts_pgno limit;
	bts_txid newest;
	bool private; /* of the transaction's memory: may be untidy, may point to dirty pages */
};

static const char *node_check_header(const uint8_t *page, const struct node_bounds *bounds)
{
	unsigned count = layout_count(page), level = layout_level(page);
	uint32_t heap = layout_heap(page), dead = layout_dead(page);

	if (layout_type(page) != LAYOUT_LEAF && layout_type(page) != LAYOUT_BRANCH)
		return "not a node";
	if (node_is_leaf(page) ? level != 0 : level == 0 || level > NODE_LEVEL_MAX)
		return "level does not suit the type of node";
	if (layout_pages(page) != 1)
		return "a node of more than one page";
	if (layout_flags(page) != 0)
		return "reserved header bytes are not zero";
	if (layout_last_delete(page) > bounds->newest)
		return "last delete is in the future";
	if (heap > bounds->page_size || heap < node_slot_at(count))
		return "heap overlaps the slots";
	if (dead > bounds->page_size - heap)
		return "more dead bytes than heap";
	if (!bounds->private && dead)
		return "dead bytes on disk";
	if (!node_is_leaf(page) && count < (bounds->private ? 1 : 2))
		return "a branch of too few children";
	return NULL;
}

static const char *node_check_ptr(
	const uint8_t *page, const struct page_ptr *ptr, uint64_t pages, const struct node_bounds *bounds)
{
	if (bounds->private && layout_is_dirty(ptr))
		return NULL;
	if (ptr->pgno == 0 || ptr->pgno >= bounds->limit || pages > bounds->limit - ptr->pgno)
		return "pointer outside the file";
	if (ptr->birth > bounds->newest)
		return "pointer born in the future";
	if (!bounds->private && ptr->birth > layout_birth(page))
		return "pointer born after its node";
	return NULL;
}

static const char *node_check_leaf_cell(const uint8_t *page, unsigned index, const struct node_bounds *bounds)
{
	struct node_cell cell;

	node_cell(page, index, &cell);
	if (cell.version > bounds->newest)
		return "version in the future";
	if (!cell.extent)
		return node_fits_inline(bounds->page_size, cell.key.size, cell.value.size)
			       ? NULL
			       : "value too large for a leaf";
	if (bytes_get_u16(page + node_slot_offset(page, index) + 6) != 0)
		return "an extent with value bytes";
	if (cell.size > BTS_VALUE_MAX)
		return "extent too large";
	if (node_fits_inline(bounds->page_size, cell.key.size, cell.size))
		return "an extent for a small value";
	return node_check_ptr(page, &cell.ptr, layout_extent_pages(cell.size, bounds->page_size), bounds);
}

/* Bounds of the slot and its cell, then what the cell holds; *size: bytes of the cell. */
static const char *node_check_cell(
	const uint8_t *page, unsigned index, const struct node_bounds *bounds, uint32_t *size)
{
	unsigned offset = node_slot_offset(page, index), length = node_slot_length(page, index);
	unsigned key_size = length & ~NODE_EXTENT_BIT;
	bool leaf = node_is_leaf(page);
	struct page_ptr ptr;

	if (offset < layout_heap(page) || offset >= bounds->page_size)
		return "cell outside the heap";
	if (!leaf && length != key_size)
		return "extent bit in a branch";
	if (key_size & NODE_RESERVED_BITS)
		return "reserved bits of a key's length are set";
	if (key_size > BTS_KEY_MAX || (key_size == 0) != (!leaf && index == 0))
		return "key of a wrong size";
	if (bounds->page_size - offset < (leaf ? NODE_LEAF_CELL : NODE_BRANCH_CELL))
		return "cell beyond the page";
	*size = node_cell_size(page + offset, leaf, length);
	if (*size > bounds->page_size - offset)
		return "cell beyond the page";
	if (leaf)
		return node_check_leaf_cell(page, index, bounds);
	ptr = node_child(page, index);
	return node_check_ptr(page, &ptr, 1, bounds);
}

/* Cells are in bounds: order, prefix and heads. */
static const char *node_check_keys(const uint8_t *page)
{
	unsigned first = node_first(page), count = layout_count(page), prefix = layout_prefix(page);

	if (count <= first)
		return prefix ? "a prefix without keys" : NULL;
	for (unsigned i = first + 1; i < count; i++)
		if (node_compare(node_key(page, i - 1), node_key(page, i), 0) >= 0)
			return "keys out of order";
	if (prefix > node_common(node_key(page, first), node_key(page, count - 1)))
		return "prefix wider than what keys share";
	for (unsigned i = first; i < count; i++)
		if (node_slot_head(page, i) != node_head(node_key(page, i), prefix))
			return "head differs from its key";
	return first && node_slot_head(page, 0) ? "head without a key" : NULL;
}

static const char *node_check_gap(const uint8_t *page)
{
	const uint8_t *at = page + node_slot_at(layout_count(page)), *end = page + layout_heap(page);

	if (at < end && (*at || memcmp(at, at + 1, (size_t)(end - at) - 1) != 0))
		return "unused bytes are not zero";
	return NULL;
}

/* No two cells share a byte. */
static const char *node_check_disjoint(const uint8_t *page)
{
	uint8_t taken[BTS_PAGE_SIZE_MAX] = {0};
	unsigned count = layout_count(page);

	for (unsigned i = 0; i < count; i++) {
		unsigned offset = node_slot_offset(page, i);
		uint32_t size = node_need(page, i) - NODE_SLOT_SIZE;

		if (memchr(taken + offset, 1, size))
			return "cells overlap";
		memset(taken + offset, 1, size);
	}
	return NULL;
}

static const char *node_check_bounded(const uint8_t *page, const struct node_bounds *bounds)
{
	const char *wrong = node_check_header(page, bounds);
	uint32_t live = 0, at = bounds->page_size;

	if (wrong)
		return wrong;
	for (unsigned i = 0; i < layout_count(page); i++) {
		uint32_t size = 0;

		wrong = node_check_cell(page, i, bounds, &size);
		if (wrong)
			return wrong;
		live += size;
		at -= size;
		if (!bounds->private && node_slot_offset(page, i) != at)
			return "cells do not adjoin";
	}
	if (live + layout_dead(page) != bounds->page_size - layout_heap(page))
		return "heap and cells differ in size";
	wrong = bounds->private ? node_check_disjoint(page) : NULL;
	if (!wrong)
		wrong = node_check_keys(page);
	if (!wrong)
		wrong = node_check_gap(page);
	return wrong;
}

const char *node_check(const uint8_t *page, uint32_t page_size, bts_pgno limit, bts_txid newest)
{
	struct node_bounds bounds = {page_size, limit, newest, false};

	return node_check_bounded(page, &bounds);
}

const char *node_check_private(const uint8_t *page, uint32_t page_size, bts_pgno limit, bts_txid newest)
{
	struct node_bounds bounds = {page_size, limit, newest, true};

	return node_check_bounded(page, &bounds);
}
