/*
 * From two meta slots to one believable state, and the envelope writes around it (I3 to I6, I10, M2).
 *
 * All work on the open data file alone; db.c calls them with the locks held that shared.h describes.
 */
#ifndef RECOVER_H
#define RECOVER_H

#include "meta.h"
#include <btree_store/env.h>

struct recover_state {
	struct meta_slot slot;  /* the accepted one */
	unsigned index;         /* 0 A, 1 B: where it stands */
	bool clean;             /* both slots name one state by a seal */
	bool fell_back;         /* the newest slot was rejected and the one it names taken */
	bts_txid highest;       /* in any crc-valid slot */
	uint64_t sequence;      /* highest in any crc-valid slot */
};

/*
 * Read and judge both slots (I3).  Reads only.  A read error fails and never falls back.  BTS_INVALID: not a database; BTS_VERSION;
 * BTS_CORRUPT with what is wrong with each slot; file too short for the high-water mark: BTS_CORRUPT.
 */
enum bts_err recover_choose(struct bts_env *, struct bts_file *, struct recover_state *, struct bts_error *);
/*
 * For an heir (M2): D is known (slot index and txid from shared memory).  Takes the other slot's commit when it is valid, newer and
 * its manifest verifies; else D.
 */
enum bts_err recover_inherit(struct bts_env *, struct bts_file *, unsigned durable_index, bts_txid durable,
	struct recover_state *, struct bts_error *);
/* I6: rewrite the accepted commit's manifest pages and slot from verified bytes, flush. */
enum bts_err recover_rewrite(struct bts_env *, struct bts_file *, const struct recover_state *, struct bts_error *);
/*
 * An envelope write of state->slot with mode two-flush (or seal) into the other slot: flush, write, flush.  state then describes the
 * written slot.  Used for the opening commit (the caller has changed the record, I4), for follower checkpoints and seals.
 */
enum bts_err recover_envelope(struct bts_env *, struct bts_file *, struct recover_state *, enum meta_mode mode,
	struct bts_error *);
/* I4 on a primary: txid = highest + J, segment noted, chain continued, then recover_envelope. */
enum bts_err recover_opening_commit(struct bts_env *, struct bts_file *, struct recover_state *, struct bts_error *);
/*
 * R3 on a primary: the file has become another one (a copy), so what is written from here on is a new epoch: number + 1 and
 * this random value, txid = highest + META_EPOCH_JUMP for each epoch passed + an odd 16-bit part of it; otherwise like an
 * opening commit.
 */
struct recover_epoch {
	uint32_t number; /* above the record's; 0: the next */
	uint64_t random;
	uint64_t inode, birth_ns; /* of the file as it is now */
};
enum bts_err recover_new_epoch(struct bts_env *, struct bts_file *, struct recover_state *, const struct recover_epoch *,
	struct bts_error *);
/* Write a slot at index (0, 1), no flush. */
enum bts_err recover_write_slot(struct bts_env *, struct bts_file *, unsigned index, const struct meta_slot *,
	struct bts_error *);

/*
 * I11: create path with both slots valid and durable: path.tmp, flush, link without clobbering, flush the directory.
 * BTS_EXISTS when path is there (also when another process won the race).
 */
#define RECOVER_CREATED 2u /* the highest slot sequence of a file that nobody has written since */
struct recover_create {
	uint32_t page_size;
	enum meta_role role;
	const struct bts_position *source; /* follower: whose database; NULL: a new database id and epoch 1 */
	/* NULL, or who fills path.tmp, verifies and flushes it instead (restore.c). */
	enum bts_err (*fill)(void *arg, struct bts_file *file, const char *tmp, struct bts_error *error);
	void *fill_arg;
};
enum bts_err recover_create(struct bts_env *, const char *path, const struct recover_create *, struct bts_error *);
/* Its last step: tmp, complete and flushed, gets its name for good.  *tmp_there: it still has the other one, too. */
enum bts_err recover_link(struct bts_env *, const char *path, const char *tmp, bool *tmp_there, struct bts_error *);

#endif
