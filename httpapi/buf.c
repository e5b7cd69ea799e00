/* A growable run of bytes. */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *buf_room(struct buf *b, size_t size)
{
	if (b->failed)
		return NULL;
	if (b->cap - b->size < size) {
		size_t cap = b->cap ? b->cap : 256;
		char *data;

		while (cap - b->size < size) {
			if (cap > (size_t)-1 / 2)
				goto fail;
			cap *= 2;
		}
		data = realloc(b->data, cap);
		if (!data)
			goto fail;
		b->data = data;
		b->cap = cap;
	}
	return b->data + b->size;

fail:
	b->failed = 1;
	return NULL;
}

void buf_add(struct buf *b, const void *data, size_t size)
{
	char *room;

	if (!size)
		return;
	room = buf_room(b, size);
	if (room) {
		memcpy(room, data, size);
		b->size += size;
	}
}

void buf_str(struct buf *b, const char *text)
{
	buf_add(b, text, strlen(text));
}

void buf_printf(struct buf *b, const char *format, ...)
{
	char small[512];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(small, sizeof(small), format, args);
	va_end(args);
	if (n < 0) {
		b->failed = 1;
	} else if ((size_t)n < sizeof(small)) {
		buf_add(b, small, (size_t)n);
	} else {
		char *room = buf_room(b, (size_t)n + 1);

		if (!room)
			return;
		va_start(args, format);
		vsnprintf(room, (size_t)n + 1, format, args);
		va_end(args);
		b->size += (size_t)n;
	}
}

void buf_fini(struct buf *b)
{
	free(b->data);
	memset(b, 0, sizeof(*b));
}
