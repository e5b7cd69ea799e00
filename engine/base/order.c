/* Ordering by a number: see order.h. */
#include "order.h"

#include <string.h>

#define ORDER_FEW 32u /* so many are put in their places one by one in less than it takes to count bytes */

static void order_few(struct order_key *keys, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		struct order_key key = keys[i];
		size_t at = i;

		for (; at > 0 && keys[at - 1].number > key.number; at--)
			keys[at] = keys[at - 1];
		keys[at] = key;
	}
}

/* By one byte of the numbers. */
static void order_byte(const struct order_key *from, struct order_key *to, size_t count, unsigned shift)
{
	size_t next[256] = { 0 }, before = 0;

	for (size_t i = 0; i < count; i++)
		next[from[i].number >> shift & 0xff]++;
	for (unsigned byte = 0; byte < 256; byte++) {
		size_t of_byte = next[byte];

		next[byte] = before;
		before += of_byte;
	}
	for (size_t i = 0; i < count; i++)
		to[next[from[i].number >> shift & 0xff]++] = from[i];
}

void order_keys(struct order_key *keys, struct order_key *room, size_t count)
{
	struct order_key *from = keys, *to = room, *swap;
	uint64_t differ = 0;

	if (count <= ORDER_FEW) {
		order_few(keys, count);
		return;
	}
	for (size_t i = 1; i < count; i++)
		differ |= keys[i].number ^ keys[0].number;
	for (unsigned shift = 0; shift < 64; shift += 8) {
		if ((differ >> shift & 0xff) == 0)
			continue;
		order_byte(from, to, count, shift);
		swap = from;
		from = to;
		to = swap;
	}
	if (from != keys)
		memcpy(keys, from, count * sizeof(*keys));
}
