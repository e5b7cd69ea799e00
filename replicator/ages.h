/* When commits were made, for the age of what a follower lacks.  No clock of its own; one thread at a time. */
#ifndef AGES_H
#define AGES_H

#include <stddef.h>

#include <btree_store.h>

#define AGES_MAX 8192
#define AGES_STEP_MS 50 /* at most one entry in so long: those between are as old as the one before */

struct ages {
	struct ages_entry {
		bts_txid txid;
		uint64_t ms;
	} entries[AGES_MAX]; /* a ring */
	size_t first, count;
	uint64_t since_ms; /* set it: what is older than all entries is as old as that */
};

void ages_note(struct ages *, bts_txid txid, uint64_t now_ms);
/* Milliseconds since the first commit after txid, about. */
uint64_t ages_after(const struct ages *, bts_txid txid, uint64_t now_ms);

#endif
