/* A growable run of bytes.  A failed allocation sticks: check buf.failed once, at the end. */
#ifndef HTTPAPI_BUF_H
#define HTTPAPI_BUF_H

#include <stddef.h>

struct buf {
	char *data;
	size_t size, cap;
	int failed;
};

void buf_add(struct buf *, const void *data, size_t size);
void buf_str(struct buf *, const char *text);
void buf_printf(struct buf *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Room for size more bytes at data + size, not yet counted; NULL when there is no memory. */
char *buf_room(struct buf *, size_t size);
void buf_fini(struct buf *); /* empties it for another use */
#endif
