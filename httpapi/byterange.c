/* Which part of a value a Range header asks for. */
#include "byterange.h"

#include <string.h>
#include <strings.h>

/* Digits at *at; those beyond 64 bits count as the most there is.  0 when there is none. */
static int byterange_number(const char **at, uint64_t *value)
{
	const char *digit = *at;

	for (*value = 0; *digit >= '0' && *digit <= '9'; digit++) {
		uint64_t d = (uint64_t)(*digit - '0');

		*value = *value > (UINT64_MAX - d) / 10 ? UINT64_MAX : *value * 10 + d;
	}
	if (digit == *at)
		return 0;
	*at = digit;
	return 1;
}

static const char *byterange_spaces(const char *at)
{
	return at + strspn(at, " \t");
}

enum byterange byterange_parse(const char *text, uint64_t size, uint64_t *from, uint64_t *count)
{
	uint64_t first, last;
	int begins, ends;

	if (!text || strncasecmp(text, "bytes=", 6))
		return BYTERANGE_ALL;
	text = byterange_spaces(text + 6);
	begins = byterange_number(&text, &first);
	if (*text++ != '-')
		return BYTERANGE_ALL;
	ends = byterange_number(&text, &last);
	if (*byterange_spaces(text) || (!begins && !ends) || (begins && ends && last < first))
		return BYTERANGE_ALL;
	if (!begins) {
		*count = last < size ? last : size;
		*from = size - *count;
		return *count ? BYTERANGE_PART : BYTERANGE_NONE;
	}
	if (first >= size)
		return BYTERANGE_NONE;
	*from = first;
	*count = (ends && last < size ? last + 1 : size) - first;
	return BYTERANGE_PART;
}
