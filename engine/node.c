/* Slotted pages: search, insertion, removal.  What the bytes mean stands in node.h. */
#include "node.h"
#include "node_search.h"
#include "base/ensure.h"

void node_init(uint8_t *page, uint32_t page_size, uint32_t tree, unsigned level)
{
	memset(page, 0, page_size);
	page[4] = level ? LAYOUT_BRANCH : LAYOUT_LEAF;
	page[5] = (uint8_t)level;
	layout_set_tree(page, tree);
	layout_set_pages(page, 1);
	layout_set_heap(page, page_size);
}

bool node_fits_inline(uint32_t page_size, size_t key_size, uint64_t value_size)
{
	return value_size <= page_size / 4 &&
	       NODE_SLOT_SIZE + NODE_LEAF_CELL + key_size + value_size <= node_capacity(page_size) / 2;
}

struct bts_slice node_key(const uint8_t *page, unsigned index)
{
	unsigned before = node_is_leaf(page) ? NODE_LEAF_CELL : NODE_BRANCH_CELL;

	return (struct bts_slice){
		page + node_slot_offset(page, index) + before, node_slot_key_size(page, index)};
}

unsigned node_lower_key(const uint8_t *page, unsigned at, unsigned count, uint32_t head, struct bts_slice key, bool *exact)
{
	unsigned prefix = layout_prefix(page);
	unsigned end = count;
	int order = node_compare(node_key(page, at), key, prefix);

	if (order >= 0) {
		*exact = order == 0;
		return at;
	}
	at++;
	while (at < end) {
		unsigned middle = at + (end - at) / 2;

		order = node_slot_head(page, middle) > head
				? 1
				: node_compare(node_key(page, middle), key, prefix);
		if (order == 0)
			*exact = true;
		if (order < 0)
			at = middle + 1;
		else
			end = middle;
	}
	return at;
}

int node_beside_prefix(const uint8_t *page, unsigned near, struct bts_slice key)
{
	size_t prefix = layout_prefix(page), size = key.size < prefix ? key.size : prefix;
	int order = memcmp(key.data, node_key(page, near).data, size);

	return order == 0 && key.size < prefix ? -1 : order;
}

unsigned node_search(const uint8_t *page, struct bts_slice key, bool *exact)
{
	return node_search_from(page, node_first(page), key, exact);
}

unsigned node_child_index(const uint8_t *page, struct bts_slice key)
{
	unsigned index;

	(void)node_branch_child(page, key, &index);
	return index;
}

void node_cell(const uint8_t *page, unsigned index, struct node_cell *cell)
{
	const uint8_t *at = page + node_slot_offset(page, index);
	unsigned length = node_slot_length(page, index);
	unsigned key_size = length & ~NODE_EXTENT_BIT;
	const uint8_t *value = at + NODE_LEAF_CELL + key_size;

	*cell = (struct node_cell){
		.key = {at + NODE_LEAF_CELL, key_size},
		.version = bytes_get_u48(at),
		.extent = (length & NODE_EXTENT_BIT) != 0,
	};
	if (cell->extent) {
		cell->size = bytes_get_u64(value);
		cell->ptr = layout_get_ptr(value + 8);
	} else {
		cell->value = (struct bts_slice){value, bytes_get_u16(at + 6)};
	}
}

/* Where the pointer of a branch cell, or of a leaf cell with an extent, stands. */
static unsigned node_pointer_at(const uint8_t *page, unsigned index)
{
	unsigned offset = node_slot_offset(page, index);

	if (!node_is_leaf(page))
		return offset;
	ENSURE(node_slot_length(page, index) & NODE_EXTENT_BIT);
	return offset + NODE_LEAF_CELL + node_slot_key_size(page, index) + 8;
}

struct page_ptr node_child(const uint8_t *page, unsigned index)
{
	return layout_get_ptr(page + node_slot_offset(page, index));
}

void node_set_child(uint8_t *page, unsigned index, const struct page_ptr *ptr)
{
	layout_put_ptr(page + node_pointer_at(page, index), ptr);
}

/* Bytes between the slots and the heap. */
static uint32_t node_gap(const uint8_t *page)
{
	return layout_heap(page) - node_slot_at(layout_count(page));
}

uint32_t node_room(const uint8_t *page, uint32_t page_size)
{
	(void)page_size;
	return node_gap(page) + layout_dead(page);
}

uint32_t node_used(const uint8_t *page, uint32_t page_size)
{
	return node_capacity(page_size) - node_room(page, page_size);
}

uint32_t node_leaf_need(const struct node_cell *cell)
{
	size_t value = cell->extent ? NODE_EXTENT_CELL : cell->value.size;

	return (uint32_t)(NODE_SLOT_SIZE + NODE_LEAF_CELL + cell->key.size + value);
}

uint32_t node_branch_need(struct bts_slice key)
{
	return (uint32_t)(NODE_SLOT_SIZE + NODE_BRANCH_CELL + key.size);
}

static uint32_t node_size_at(const uint8_t *page, unsigned index)
{
	return node_cell_size(
		page + node_slot_offset(page, index), node_is_leaf(page), node_slot_length(page, index));
}

uint32_t node_need(const uint8_t *page, unsigned index)
{
	return NODE_SLOT_SIZE + node_size_at(page, index);
}

/* How many cells adjoin in slot order from the end of the page down to *at. */
static unsigned node_in_place(const uint8_t *page, uint32_t page_size, uint32_t *at)
{
	unsigned count = layout_count(page), i;

	*at = page_size;
	for (i = 0; i < count; i++) {
		uint32_t next = *at - node_size_at(page, i);

		if (node_slot_offset(page, i) != next)
			break;
		*at = next;
	}
	return i;
}

/* Lay the cells out anew, adjoining in slot order: those that do already stay, and what follows moves in as large pieces as it can. */
static void node_compact(uint8_t *page, uint32_t page_size)
{
	uint8_t old[BTS_PAGE_SIZE_MAX];
	uint32_t heap = layout_heap(page), to;
	unsigned count = layout_count(page), from = node_in_place(page, page_size, &to);
	bool leaf = node_is_leaf(page);

	memcpy(old + heap, page + heap, to - heap);
	while (from < count) {
		unsigned low = node_slot_offset(page, from), end = from + 1;
		uint32_t top = low + node_cell_size(old + low, leaf, node_slot_length(page, from));

		for (; end < count; end++) {
			unsigned next = node_slot_offset(page, end);

			if (next + node_cell_size(old + next, leaf, node_slot_length(page, end)) != low)
				break;
			low = next;
		}
		to -= top - low;
		memcpy(page + to, old + low, top - low);
		for (; from < end; from++)
			bytes_put_u16(page + node_slot_at(from), (uint16_t)(node_slot_offset(page, from) - low + to));
	}
	memset(page + heap, 0, to - heap);
	layout_set_heap(page, to);
	layout_set_dead(page, 0);
}

static bool node_make_room(uint8_t *page, uint32_t page_size, uint32_t need)
{
	if (need <= node_gap(page))
		return true;
	if (need > node_room(page, page_size))
		return false;
	node_compact(page, page_size);
	return true;
}

static void node_set_head(uint8_t *page, unsigned index, unsigned prefix)
{
	bytes_put_u32(page + node_slot_at(index) + 4, node_head(node_key(page, index), prefix));
}

/* Set the prefix; heads of slots below `fresh` are right for the former one. */
static void node_set_prefix(uint8_t *page, unsigned prefix, unsigned fresh)
{
	unsigned from = prefix == layout_prefix(page) ? fresh : node_first(page);
	unsigned count = layout_count(page);

	layout_set_prefix(page, (uint16_t)prefix);
	for (unsigned i = from; i < count; i++)
		node_set_head(page, i, prefix);
}

/* The widest prefix, given that keys ascend; slots below `fresh` have heads already. */
static void node_widen(uint8_t *page, unsigned fresh)
{
	unsigned first = node_first(page), count = layout_count(page);
	size_t prefix = 0;

	if (count > first)
		prefix = node_common(node_key(page, first), node_key(page, count - 1));
	node_set_prefix(page, (unsigned)prefix, fresh > first ? fresh : first);
}

/* A cell at the lower end of the heap and its slot; there is room.  The head is still to be set. */
static uint8_t *node_open(uint8_t *page, unsigned index, unsigned length, uint32_t size)
{
	unsigned count = layout_count(page);
	uint32_t heap = layout_heap(page) - size;
	uint8_t *slot = page + node_slot_at(index);

	memmove(slot + NODE_SLOT_SIZE, slot, (count - index) * NODE_SLOT_SIZE);
	bytes_put_u16(slot, (uint16_t)heap);
	bytes_put_u16(slot + 2, (uint16_t)length);
	bytes_put_u32(slot + 4, 0);
	layout_set_count(page, (uint16_t)(count + 1));
	layout_set_heap(page, heap);
	return page + heap;
}

/* The key at index is new: narrow the prefix to what it shares, and set its head. */
static void node_admit(uint8_t *page, unsigned index)
{
	unsigned first = node_first(page), count = layout_count(page), prefix = layout_prefix(page);
	struct bts_slice key = node_key(page, index);
	unsigned other = index == first ? first + 1 : first;

	layout_set_hint(page, (uint16_t)index);
	if (index < first)
		return;
	if (count == first + 1) {
		layout_set_prefix(page, (uint16_t)key.size);
		return; /* nothing behind the prefix: the head is 0 */
	}
	if (prefix) {
		struct bts_slice shared = {node_key(page, other).data, prefix};
		unsigned common = (unsigned)node_common(key, shared);

		if (common < prefix) {
			node_set_prefix(page, common, 0);
			return;
		}
	}
	node_set_head(page, index, prefix);
}

bool node_leaf_insert(uint8_t *page, uint32_t page_size, unsigned index, const struct node_cell *cell)
{
	uint32_t need = node_leaf_need(cell);
	uint8_t *at, *value;

	ENSURE(node_is_leaf(page) && index <= layout_count(page));
	if (!node_make_room(page, page_size, need))
		return false;
	at = node_open(page, index, (unsigned)cell->key.size | (cell->extent ? NODE_EXTENT_BIT : 0),
		need - NODE_SLOT_SIZE);
	bytes_put_u48(at, cell->version);
	bytes_put_u16(at + 6, cell->extent ? 0 : (uint16_t)cell->value.size);
	memcpy(at + NODE_LEAF_CELL, cell->key.data, cell->key.size);
	value = at + NODE_LEAF_CELL + cell->key.size;
	if (cell->extent) {
		bytes_put_u64(value, cell->size);
		layout_put_ptr(value + 8, &cell->ptr);
	} else if (cell->value.size) {
		memcpy(value, cell->value.data, cell->value.size);
	}
	node_admit(page, index);
	return true;
}

bool node_branch_insert(
	uint8_t *page, uint32_t page_size, unsigned index, struct bts_slice key, const struct page_ptr *ptr)
{
	uint32_t need = node_branch_need(key);
	uint8_t *at;

	ENSURE(!node_is_leaf(page) && index <= layout_count(page));
	ENSURE((index == 0) == (key.size == 0) && (index > 0 || layout_count(page) == 0));
	if (!node_make_room(page, page_size, need))
		return false;
	at = node_open(page, index, (unsigned)key.size, need - NODE_SLOT_SIZE);
	layout_put_ptr(at, ptr);
	if (key.size)
		memcpy(at + NODE_BRANCH_CELL, key.data, key.size);
	node_admit(page, index);
	return true;
}

bool node_leaf_replace(uint8_t *page, uint32_t page_size, unsigned index, const struct node_cell *cell)
{
	uint8_t *at = page + node_slot_offset(page, index);
	bool was_extent = (node_slot_length(page, index) & NODE_EXTENT_BIT) != 0;
	uint32_t need = node_leaf_need(cell), had = node_need(page, index);
	uint16_t hint = layout_hint(page);
	bool inserted;

	if (need > node_room(page, page_size) + had)
		return false;
	if (cell->extent &&
		was_extent) { /* in place, so that cell may be what node_cell gave for this very slot */
		bytes_put_u48(at, cell->version);
		bytes_put_u64(at + NODE_LEAF_CELL + cell->key.size, cell->size);
		layout_put_ptr(at + NODE_LEAF_CELL + cell->key.size + 8, &cell->ptr);
		return true;
	}
	if (!cell->extent && !was_extent && need <= had) { /* in place: the key and its slot stay */
		bytes_put_u48(at, cell->version);
		bytes_put_u16(at + 6, (uint16_t)cell->value.size);
		if (cell->value.size)
			memcpy(at + NODE_LEAF_CELL + cell->key.size, cell->value.data, cell->value.size);
		layout_set_dead(page, layout_dead(page) + had - need);
		return true;
	}
	node_remove(page, page_size, index);
	inserted = node_leaf_insert(page, page_size, index, cell);
	ENSURE(inserted);
	layout_set_hint(page, hint);
	return true;
}

/* Give back a cell: to the gap when it is the lowest, else as dead bytes. */
static void node_discard(uint8_t *page, unsigned index)
{
	uint32_t size = node_size_at(page, index), heap = layout_heap(page);

	if (node_slot_offset(page, index) == heap) {
		memset(page + heap, 0, size);
		layout_set_heap(page, heap + size);
	} else {
		layout_set_dead(page, layout_dead(page) + size);
	}
}

/* The last slots went: forget the prefix when no key is left, and clean the heap when no cell is. */
static void node_settle(uint8_t *page, uint32_t page_size)
{
	if (layout_count(page) <= node_first(page))
		layout_set_prefix(page, 0);
	if (layout_count(page) == 0) {
		memset(page + LAYOUT_HEADER_SIZE, 0, node_capacity(page_size));
		layout_set_heap(page, page_size);
		layout_set_dead(page, 0);
		layout_set_hint(page, 0);
	}
}

void node_remove(uint8_t *page, uint32_t page_size, unsigned index)
{
	unsigned count = layout_count(page), hint = layout_hint(page);
	uint8_t *slot;

	ENSURE(index < count);
	if (!node_is_leaf(page) && index == 0 && count > 1) {
		struct page_ptr next = node_child(page, 1);

		node_set_child(page, 0, &next);
		index = 1;
	}
	node_discard(page, index);
	slot = page + node_slot_at(index);
	memmove(slot, slot + NODE_SLOT_SIZE, (count - index - 1) * NODE_SLOT_SIZE);
	memset(page + node_slot_at(count - 1), 0, NODE_SLOT_SIZE);
	layout_set_count(page, (uint16_t)(count - 1));
	if (hint && index <= hint)
		layout_set_hint(page, (uint16_t)(hint - 1));
	node_settle(page, page_size);
}

void node_truncate(uint8_t *page, uint32_t page_size, unsigned from)
{
	unsigned count = layout_count(page);

	for (unsigned i = count; i > from; i--)
		node_discard(page, i - 1);
	memset(page + node_slot_at(from), 0, (count - from) * NODE_SLOT_SIZE);
	layout_set_count(page, (uint16_t)from);
	if (from && layout_hint(page) >= from)
		layout_set_hint(page, (uint16_t)(from - 1));
	node_settle(page, page_size);
}

/* The cells [from, to) of src adjoin in slot order, `bytes` in all: they and their slots move as they are. */
static void node_append_block(uint8_t *dst, const uint8_t *src, unsigned from, unsigned to, uint32_t bytes)
{
	unsigned count = layout_count(dst), low = node_slot_offset(src, to - 1);
	uint32_t heap = layout_heap(dst) - bytes;
	uint8_t *slots = dst + node_slot_at(count);

	memcpy(dst + heap, src + low, bytes);
	memcpy(slots, src + node_slot_at(from), (to - from) * NODE_SLOT_SIZE);
	for (unsigned i = 0; i < to - from; i++, slots += NODE_SLOT_SIZE)
		bytes_put_u16(slots, (uint16_t)(bytes_get_u16(slots) - low + heap));
	layout_set_count(dst, (uint16_t)(count + to - from));
	layout_set_heap(dst, heap);
}

bool node_append(uint8_t *dst, const uint8_t *src, uint32_t page_size, unsigned from, unsigned to)
{
	bool leaf = node_is_leaf(dst), adjoin;
	unsigned fresh = layout_count(dst), at = from < to ? node_slot_offset(src, from) + node_size_at(src, from) : 0;
	uint32_t need = 0;

	ENSURE(layout_type(dst) == layout_type(src) && to <= layout_count(src));
	ENSURE(leaf || from > 0 || fresh == 0 || from >= to);
	adjoin = leaf || fresh > 0;
	for (unsigned i = from; i < to; i++) {
		uint32_t size = node_size_at(src, i);

		at -= size;
		adjoin = adjoin && node_slot_offset(src, i) == at;
		need += NODE_SLOT_SIZE + size;
	}
	if (!leaf && fresh == 0 && from < to)
		need -= node_slot_key_size(src, from);
	if (!node_make_room(dst, page_size, need))
		return false;
	if (adjoin && from < to)
		node_append_block(dst, src, from, to, need - NODE_SLOT_SIZE * (to - from));
	for (unsigned i = from; !adjoin && i < to; i++) {
		bool first = !leaf && layout_count(dst) == 0;
		uint32_t size = first ? NODE_BRANCH_CELL : node_size_at(src, i);
		uint8_t *cell = node_open(dst, layout_count(dst), first ? 0 : node_slot_length(src, i), size);

		memcpy(cell, src + node_slot_offset(src, i), size);
	}
	if (from < to)
		node_widen(dst, fresh);
	return true;
}

/* Cells lie apart and, without dead bytes, fill the heap: they adjoin in slot order when each lies below the one before. */
static bool node_in_order(const uint8_t *page)
{
	unsigned count = layout_count(page), ascents = 0;

	for (unsigned i = 1; i < count; i++)
		ascents += node_slot_offset(page, i) > node_slot_offset(page, i - 1);
	return ascents == 0 && layout_dead(page) == 0;
}

void node_tidy(uint8_t *page, uint32_t page_size)
{
	if (!node_in_order(page))
		node_compact(page, page_size);
	node_widen(page, layout_count(page));
}
