/* Writes JSON into a buffer as it goes; nothing is kept but what was written. */
#ifndef HTTPAPI_JSONOUT_H
#define HTTPAPI_JSONOUT_H

#include "btree_store.h"

struct buf;

/* The inside of a JSON string.  The bytes must be UTF-8, but may be cut anywhere: pieces join up. */
void jsonout_escape(struct buf *, const void *data, size_t size);
/* A quoted string; bytes that are not UTF-8 come out as U+FFFD. */
void jsonout_string(struct buf *, const char *text);
/* "name":"..." when the bytes are plain UTF-8, else "name_base64":"...". */
void jsonout_bytes(struct buf *, const char *name, struct bts_slice bytes);

/* The same for bytes of any length, in pieces: begin, then pieces until it says that it was the last. */
struct jsonout_pieces {
	struct bts_slice bytes;
	size_t sent;
	int plain;
};
void jsonout_pieces(struct jsonout_pieces *, struct buf *, const char *name, struct bts_slice bytes);
int jsonout_piece(struct jsonout_pieces *, struct buf *);
/* The begin where it is known whether the bytes are plain UTF-8, which is not looked at again. */
void jsonout_pieces_known(struct jsonout_pieces *, struct buf *, const char *name, struct bts_slice bytes, int plain);
#endif
