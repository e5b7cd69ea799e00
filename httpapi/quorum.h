/* What a write asks for beyond its commit (durability=replicated:K, archived), and how far that is.  Pure. */
#ifndef HTTPAPI_QUORUM_H
#define HTTPAPI_QUORUM_H

#include <stddef.h>

#include "btree_store/ship.h"

#define QUORUM_MAX 64			/* nodes that the lock file keeps acknowledgements of */
#define QUORUM_ARCHIVE (QUORUM_MAX + 1) /* in place of a number of copies: the archive has it */
#define QUORUM_LEVELS QUORUM_ARCHIVE
#define QUORUM_TEXT_SIZE 24

/* Whose acknowledgements count. */
struct quorum {
	char self[BTS_ACK_NAME_MAX + 1];	       /* never counts */
	char members[QUORUM_MAX][BTS_ACK_NAME_MAX + 1]; /* sorted, without self */
	size_t count;				       /* of members; 0: any named node counts */
};

/* members: "a,b,c", or NULL.  0, or -1: a name that is malformed or there twice, or too many. */
int quorum_init(struct quorum *, const char *self, const char *members);
/* How many copies can be asked for at most. */
unsigned quorum_most(const struct quorum *);

/*
 * levels[K - 1]: the newest transaction of that epoch that K counting nodes have, 0 = none; levels[QUORUM_ARCHIVE - 1]: that the archive
 * has, which counts as no node.
 */
void quorum_levels(const struct quorum *, const struct bts_ack *acks, size_t count,
	const struct bts_position *epoch, bts_txid levels[QUORUM_LEVELS]);

/* "local": 0 copies; "replicated:K": K from 1 to QUORUM_MAX; "archived": QUORUM_ARCHIVE.  0, or -1: none of these. */
int quorum_parse(const char *text, size_t size, unsigned *copies);
/* The same back. */
void quorum_text(unsigned copies, char out[QUORUM_TEXT_SIZE]);
#endif
