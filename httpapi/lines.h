/* Cuts a stream that arrives in pieces into lines.  Only a line that is cut by a piece's end is copied. */
#ifndef HTTPAPI_LINES_H
#define HTTPAPI_LINES_H

#include <stdint.h>

#include "btree_store.h"
#include "buf.h"

struct lines {
	struct buf held; /* the beginning of a line whose end has not come */
	size_t max;	 /* bytes of a line */
	uint64_t number; /* of the line last returned, from 1 */
	int emitted;	 /* held was returned and is to be dropped */
};

enum lines_got { LINES_LINE, LINES_MORE, LINES_TOO_LONG, LINES_MEMORY };

void lines_init(struct lines *, size_t max);
void lines_fini(struct lines *);
/*
 * The next line (without LF or CRLF), borrowed until the next call; *used bytes of the input were consumed.
 * LINES_MORE: all was consumed and no line is complete.  LINES_TOO_LONG: number + 1 is the line.
 */
enum lines_got lines_next(
	struct lines *, const char *data, size_t size, size_t *used, struct bts_slice *line);
/* At the end of input: the last line when it had no LF.  LINES_MORE: there is none. */
enum lines_got lines_last(struct lines *, struct bts_slice *line);
#endif
