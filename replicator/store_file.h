/* A directory as a store: what its two files share. */
#ifndef STORE_FILE_H
#define STORE_FILE_H

#include "store_private.h"

/* An object before it is whole: this and 16 hexadecimal digits.  No key begins with '.', so it is none. */
#define STORE_FILE_TEMP ".tmp-"

struct store_file {
	struct store base;
	char root[STORE_URL_MAX + 1];
	char synced[STORE_KEY_MAX +
		    1]; /* the directory whose way down from the root this handle has flushed, with a / at the end */
};

enum bts_err store_file_list(struct store *store, const char *prefix, const char *after, store_key_fn *visit,
	void *arg, struct bts_error *error);

#endif
