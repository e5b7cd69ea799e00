/*
 * A frame out of an archive: its parts in order, each compared in size, and all of them by their sum, with what the manifest said of
 * it.
 */
#ifndef FETCH_H
#define FETCH_H

#include "manifest.h"
#include "store.h"

/* An object of at most `most` bytes, whole (owned: free the data).  BTS_CORRUPT: it is larger. */
BTS_MUST_CHECK enum bts_err fetch_object(
	struct store *, const char *key, size_t most, struct bts_slice *bytes, struct bts_error *error);

/* A part, borrowed for the call.  What is not BTS_OK ends the fetch. */
typedef enum bts_err fetch_part_fn(void *arg, struct bts_slice bytes, struct bts_error *error);
/*
 * Holds one part in memory.  The last part is given out only when the sum was right, so who needs the whole frame to do anything
 * does nothing with a wrong one.  BTS_CORRUPT: a part is missing, or not what it should be.  Every error's text begins with the part's key.
 */
BTS_MUST_CHECK enum bts_err fetch_frame(struct store *, const struct manifest_entry *entry,
	fetch_part_fn *visit, void *arg, struct bts_error *error);

#endif
