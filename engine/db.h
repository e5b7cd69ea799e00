/* One opened file: struct bts, and what the parts of the engine share through it. */
#ifndef DB_H
#define DB_H

#include "history.h"
#include "meta.h"
#include "pager.h"
#include "shared.h"
#include "space.h"
#include <btree_store/env.h>
#include <pthread.h>

struct commit_queue; /* commit.c */

struct bts {
	struct bts_env *env;
	char *path;
	struct bts_file *file;
	bool read_only;      /* BTS_OPEN_READ_ONLY */
	bool unwritable;     /* this process has no permission to write the file */
	bool follower;       /* role in the file */
	struct pager pager;
	struct shared *shared;
	/*
	 * Writing process only.  build: held by whoever forms a commit (a group, the leader of the queue, an apply); all
	 * below it is touched only with build held.
	 */
	pthread_mutex_t build;
	bool writer;
	struct space space;
	struct meta_slot slot;    /* the slot that holds D, as written */
	unsigned slot_index;
	bool applying;            /* follower: between bts_apply_begin and its end */
	struct commit_queue *queue;
	bts_txid *snapshots;      /* scratch for shared_readers, SHARED_READERS_MAX */
	/* counters, atomics */
	_Atomic uint64_t commits, flushes, pages_written, conflicts, pinned;
	_Atomic uint64_t apply_frames, apply_pages, apply_redirected;
	_Atomic uint32_t transactions; /* open in this handle, for ENSURE at close */
};

/* Is it allowed to go on: BTS_POISONED, BTS_READ_ONLY (with text) for writers. */
enum bts_err db_may_write(struct bts *, struct bts_error *);
/*
 * The writer's allocator from the newest record: free set loaded, what live readers of other processes still need held back (G5).
 * Called once, before the first page write; after an unclean exit it makes the opening commit first (I4; a follower: an
 * envelope write).
 */
enum bts_err db_start_writing(struct bts *, struct bts_error *);
/* The free set that a record describes, loaded into *space (owned: space_fini). */
enum bts_err db_load_space(struct bts *, const struct commit_record *, struct space *space, struct bts_error *);
void db_free(struct bts *); /* close without a seal */
/* Poison every process on the file (I7) and say so in error. */
enum bts_err db_poison(struct bts *, struct bts_error *, int os, const char *what);
/* Reclaim against the live readers of all processes (G1).  build held. */
void db_reclaim(struct bts *);

#endif
