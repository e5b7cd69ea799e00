/*
 * Pieces of memory of one size, each on cache lines of its own, cut from chunks: what a transaction takes and gives back
 * most, a page at a time, and in the end all at once.
 *
 * The first chunk is for a transaction of a few pages, later ones are larger.  Where addresses are checked, pieces that are
 * not taken cannot be touched; paranoid builds fill what is given back.
 */
#ifndef SLOTS_H
#define SLOTS_H

#include <btree_store/env.h>
#include <stddef.h>
#include <stdint.h>

struct slots_chunk;
struct slots_free;

struct slots {
	struct bts_env *env;
	size_t size; /* bytes of a piece: a multiple of a line */
	struct slots_chunk *chunks; /* newest first */
	struct slots_free *given; /* pieces that were given back */
	uint8_t *next; /* pieces of the newest chunk that were never taken: `left` of them */
	size_t left;
};

void slots_init(struct slots *, struct bts_env *, size_t size);
/* All pieces at once, taken or not.  It can be used again. */
void slots_fini(struct slots *);
/* A piece, its content undefined; NULL: no memory. */
uint8_t *slots_take(struct slots *);
void slots_give(struct slots *, uint8_t *piece);

#endif
