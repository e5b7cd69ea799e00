/*
 * Memory of a write transaction: ordinary memory up to a limit, from then on pieces of a temporary file beside the
 * database, mapped shared, which the kernel writes back when memory is short.
 *
 * The file has no name, so that nothing is left of a transaction that was interrupted, and nothing in it is ever read
 * by anybody else.  Its blocks are reserved before they are touched: a full disk is BTS_FULL, not a signal.  Pieces do
 * not move.  A child of fork shares the file with its parent and must not touch what is in pieces (ops.c refuses).
 */
#ifndef SPILL_H
#define SPILL_H

#include "beside.h"
#include "slots.h"

#include <btree_store.h>
#include <btree_store/env.h>
#include <stdbool.h>

struct spill_file;

struct spill {
	struct bts_env *env;
	const struct beside *near; /* borrowed: the database; NULL: ordinary memory only */
	uint64_t limit;	  /* bytes of ordinary memory */
	uint64_t held;	  /* of these, in use */
	uint32_t slot;	  /* bytes of the most frequent piece */
	struct slots slots; /* pieces of that size in ordinary memory */
	bool ending;
	struct spill_file *file; /* NULL until it is needed */
};

void spill_init(struct spill *, struct bts_env *, uint32_t slot);
/* Before this nothing spills.  near borrowed until spill_fini. */
void spill_near(struct spill *, const struct beside *near, uint64_t limit);
/* From now on pieces are only given back: those in the file go with the file. */
void spill_ending(struct spill *);
/* Pieces of ordinary memory must have been given back.  It can be used again, beside the same file, with the same limit. */
void spill_fini(struct spill *);

/*
 * A piece, its content undefined (owned: spill_give).  BTS_MEMORY, BTS_FULL, BTS_IO leave everything as it was; the text
 * of the first is the caller's to write.
 */
enum bts_err spill_take(struct spill *, uint64_t size, uint8_t **data, struct bts_error *);
/* NULL is fine.  size as it was taken. */
void spill_give(struct spill *, uint8_t *data, uint64_t size);
/* Another size with the content kept; it may move. */
enum bts_err spill_resize(struct spill *, uint8_t **data, uint64_t from, uint64_t to, struct bts_error *);

#endif
