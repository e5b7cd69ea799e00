/* What the two files of the access log share. */
#ifndef HTTPAPI_ACCESS_PRIVATE_H
#define HTTPAPI_ACCESS_PRIVATE_H

#include "access.h"
#include "buf.h"

enum access_where { ACCESS_TO_FILE, ACCESS_TO_LOG };

/* An empty buffer of the loop's own, for a line. */
struct buf *access_scratch(struct access_writer *, unsigned loop);
/* Hands the line in b to the thread, and empties b. */
void access_put(struct access_writer *, unsigned loop, enum access_where, struct buf *b);
#endif
