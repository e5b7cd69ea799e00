/* Cuts a stream that arrives in pieces into lines. */
#include "lines.h"

#include <string.h>

void lines_init(struct lines *l, size_t max)
{
	memset(l, 0, sizeof(*l));
	l->max = max;
}

void lines_fini(struct lines *l)
{
	buf_fini(&l->held);
}

static struct bts_slice lines_trim(const char *data, size_t size)
{
	if (size && data[size - 1] == '\r')
		size--;
	return (struct bts_slice){data, size};
}

static void lines_drop_emitted(struct lines *l)
{
	if (l->emitted)
		l->held.size = 0;
	l->emitted = 0;
}

enum lines_got lines_next(
	struct lines *l, const char *data, size_t size, size_t *used, struct bts_slice *line)
{
	const char *end = size ? memchr(data, '\n', size) : NULL;
	size_t n = end ? (size_t)(end - data) : size;

	lines_drop_emitted(l);
	*used = 0;
	if (l->held.size + n > l->max)
		return LINES_TOO_LONG;
	*used = end ? n + 1 : n;
	if (end && !l->held.size) {
		*line = lines_trim(data, n);
	} else {
		buf_add(&l->held, data, n);
		if (l->held.failed)
			return LINES_MEMORY;
		if (!end)
			return LINES_MORE;
		*line = lines_trim(l->held.data, l->held.size);
		l->emitted = 1;
	}
	l->number++;
	return LINES_LINE;
}

enum lines_got lines_last(struct lines *l, struct bts_slice *line)
{
	lines_drop_emitted(l);
	if (!l->held.size)
		return LINES_MORE;
	*line = lines_trim(l->held.data, l->held.size);
	l->emitted = 1;
	l->number++;
	return LINES_LINE;
}
