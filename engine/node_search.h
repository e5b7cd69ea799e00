/*
 * Search in a node, inline: half of what a get does is this.
 *
 * Slots hold 4 bytes of their key, the head, so most of a search compares integers that lie side by side.  Heads are
 * searched four ways at a time: the three loads of a step wait for memory together, and a full branch takes three such
 * steps where halving takes seven, each waiting for the one before (k-ary search, Schlegel, Gemulla and Lehner 2009).
 * Which way a step goes is a coin's toss, so there is no branch on it; sums of comparisons say it.
 */
#ifndef NODE_SEARCH_H
#define NODE_SEARCH_H

#include "node_cell.h"

/* 1 if the head of the slot at that offset (of its head) is below. */
static inline size_t node_below(const uint8_t *at, size_t slot, uint32_t head)
{
	return bytes_get_u32(at + slot * NODE_SLOT_SIZE) < head;
}

/* First slot in [first, count) whose head is >= head. */
static inline unsigned node_lower_head(const uint8_t *page, unsigned first, unsigned count, uint32_t head)
{
	const uint8_t *heads = page + LAYOUT_HEADER_SIZE + 4;
	size_t from = first, left = count - first;

	while (left > 4) {
		const uint8_t *at = heads + from * NODE_SLOT_SIZE;
		size_t part = left / 4;

		from += part * (node_below(at, part - 1, head) + node_below(at, 2 * part - 1, head) +
				node_below(at, 3 * part - 1, head));
		left -= 3 * part;
	}
	/* Up to four are left; what lies behind them is still of this page, and not counted. */
	heads += from * NODE_SLOT_SIZE;
	return (unsigned)(from + (node_below(heads, 0, head) & (left > 0)) + (node_below(heads, 1, head) & (left > 1)) +
			  (node_below(heads, 2, head) & (left > 2)) + (node_below(heads, 3, head) & (left > 3)));
}

/*
 * Among slots from `at` on, whose heads are >= head and the first equal: the first whose key is >= key, which agrees with
 * them in the node's prefix.
 */
unsigned node_lower_key(const uint8_t *page, unsigned at, unsigned count, uint32_t head, struct bts_slice key, bool *exact);
/* Is key below (-1) or above (1) all keys with the prefix that slot `near` has, or does it have the prefix (0)? */
int node_beside_prefix(const uint8_t *page, unsigned near, struct bts_slice key);

/*
 * node_search of a leaf (first 0) or a branch (first 1).  Heads are compared as if the key had the prefix; whether it has is
 * then looked up in a cell that the caller is going to touch anyway: of a leaf the one found, of a branch the one before.
 */
static inline unsigned node_search_from(const uint8_t *page, unsigned first, struct bts_slice key, bool *exact)
{
	unsigned count = layout_count(page), prefix = layout_prefix(page);
	uint32_t head = node_head(key, prefix);
	unsigned at;

	*exact = false;
	if (count <= first)
		return count;
	at = node_lower_head(page, first, count, head);
	if (prefix) {
		int side = node_beside_prefix(page, at == count || (first && at > first) ? at - 1 : at, key);

		if (side)
			return side < 0 ? first : count;
	}
	if (at == count || node_slot_head(page, at) != head)
		return at;
	return node_lower_key(page, at, count, head, key, exact);
}

/*
 * Where key is in a leaf; -1: it is not.  A key that is there is compared once, whatever the prefix; one whose head is in no
 * slot is not there, and no cell is looked at.
 */
static inline int node_find(const uint8_t *leaf, struct bts_slice key)
{
	unsigned count = layout_count(leaf), at;
	uint32_t head = node_head(key, layout_prefix(leaf));
	bool exact;

	if (count == 0)
		return -1;
	at = node_lower_head(leaf, 0, count, head);
	if (at == count || node_slot_head(leaf, at) != head)
		return -1;
	if (node_slot_key_size(leaf, at) == key.size &&
		memcmp(leaf + node_slot_offset(leaf, at) + NODE_LEAF_CELL, key.data, key.size) == 0)
		return (int)at;
	at = node_search_from(leaf, 0, key, &exact);
	return exact ? (int)at : -1;
}

static inline struct page_ptr node_branch_child(const uint8_t *branch, struct bts_slice key, unsigned *index)
{
	bool exact;
	unsigned at = node_search_from(branch, 1, key, &exact);

	*index = at - !exact;
	return layout_get_ptr(branch + node_slot_offset(branch, *index));
}

#endif
