/* A range of keys made of bounds. */
#include "range.h"

#include <string.h>

int range_compare(struct bts_slice key, const struct range_bound *bound)
{
	size_t n = key.size < bound->size ? key.size : bound->size;
	int order = memcmp(key.data, bound->bytes, n);

	return order ? order : key.size < bound->size ? -1 : key.size > bound->size;
}

static void range_set(struct range_bound *bound, struct bts_slice key)
{
	memcpy(bound->bytes, key.data, key.size);
	bound->size = key.size;
}

void range_from(struct range *range, struct bts_slice key)
{
	if (!range->low.size || range_compare(key, &range->low) > 0)
		range_set(&range->low, key);
}

void range_to(struct range *range, struct bts_slice key)
{
	if (!range->high.size || range_compare(key, &range->high) < 0)
		range_set(&range->high, key);
}

void range_past(struct bts_slice prefix, struct range_bound *past)
{
	size_t n = prefix.size;

	memcpy(past->bytes, prefix.data, n);
	while (n && (unsigned char)past->bytes[n - 1] == 0xff)
		n--;
	if (n)
		past->bytes[n - 1]++;
	past->size = n;
}

void range_prefix(struct range *range, struct bts_slice prefix)
{
	struct range_bound past;

	range_from(range, prefix);
	range_past(prefix, &past);
	if (past.size)
		range_to(range, range_slice(&past));
}

struct bts_slice range_slice(const struct range_bound *bound)
{
	return (struct bts_slice){bound->bytes, bound->size};
}

int range_empty(const struct range *range)
{
	return range->low.size && range->high.size &&
	       range_compare(range_slice(&range->low), &range->high) >= 0;
}
