/* Making the file smaller in the background, in steps beside readers and writers (bts_compact_step), at a rate. */
#ifndef HTTPAPI_COMPACTION_H
#define HTTPAPI_COMPACTION_H

#include <stdint.h>

#include "btree_store.h"

struct compaction;
struct role;

struct compaction_status {
	int begun;	     /* one was, since the process began; else the rest is 0 */
	int running, ended;  /* ended: all that could be done is; neither: it was stopped, or failed */
	uint64_t steps, pages_moved, pages_truncated;
	uint64_t bytes_before; /* of the file */
	struct bts_compact_info last; /* of the last step: size, and what holds the end */
	struct bts_error error;	      /* code 0: none */
};

struct compaction *compaction_new(struct role *); /* NULL: no memory */
void compaction_free(struct compaction *);	  /* stops it; NULL is fine */
/* At most so many bytes a second are moved.  BTS_BUSY: one runs.  BTS_NOT_FOUND: no file here. */
enum bts_err compaction_start(struct compaction *, uint64_t rate, struct bts_error *);
int compaction_stop(struct compaction *); /* waits for the step under way; 0: none ran */
void compaction_status(struct compaction *, struct compaction_status *);
#endif
