/* One opened file: struct bts, and what the parts of the engine share through it. */
#ifndef DB_H
#define DB_H

#include "beside.h"
#include "history.h"
#include "meta.h"
#include "pager.h"
#include "shared.h"
#include "space.h"
#include <btree_store/env.h>
#include <pthread.h>

struct commit_queue; /* queue.c */
struct compact_memo;
struct async;
struct homes;
struct redirect;
struct bts_txn;

#define DB_PARKED_MAX 64u

/* A follower's, of the handle that applies: path.pending (pending.h). */
struct pending_log {
	struct bts_file *file; /* NULL: there is none */
	unsigned name;	       /* which of two */
	uint64_t salt;
	uint64_t size;	/* with what a frame in progress appended */
	uint32_t count; /* records, likewise */
	uint64_t kept_size;
	uint32_t kept_count; /* what the slot needs */
	bool unnamed;	     /* new: its name may not be durable yet */
	bts_txid retired;    /* of one that is kept to be written again: no later commit ever needed it */
};

struct bts {
	struct bts_env *env;
	struct beside beside; /* for what is opened beside it */
	const char *path;    /* as it was given: for texts */
	struct bts_file *file;
	bool read_only;      /* BTS_OPEN_READ_ONLY */
	bool unwritable;     /* this process has no permission to write the file */
	_Atomic bool follower; /* opened to take frames, and not promoted since */
	uint64_t txn_memory; /* bytes of ordinary memory for the private pages and the log of a transaction */
	struct pager pager;
	struct shared *shared;
	bool writer;
	bool late; /* build held: what is owed before the first page write (db_write.c) was put off at open for want of a deadline */
	unsigned lock_timeout_ms; /* 0: for ever */
	/*
	 * Threads of this handle, before they contend with other processes for the lock of the same name (shared.h).  build:
	 * whoever forms a batch (a group, the leader of the queue, an apply); flush: whoever makes one durable.
	 */
	pthread_mutex_t build, flush, publish;
	/* With build held: */
	struct space space;       /* a primary's: its replica of the allocator (ring.h) */
	struct commit_record tip; /* of a primary: the newest built commit */
	uint64_t tip_ring;        /* the ring's end with it */
	uint64_t ring;            /* how far space has followed the ring */
	bool replica;             /* space is one that can follow */
	uint64_t clean;           /* index of the page where cleaning goes on (clean.c); a hint */
	/*
	 * A follower: the slot that holds D, as written.  A primary: as it was at open, for what never changes in it (role,
	 * node, identity of the file).
	 */
	struct meta_slot slot;
	unsigned slot_index;
	struct meta_slot *envelope; /* with the flush lock held: the slot being written */
	struct async *async;      /* async.c */
	bool applying;            /* follower: between bts_apply_begin and its end */
	/*
	 * Of the handle that applies: the log, and those that nobody needs any more, by name, to be written again.  Files and salts
	 * change with build held; the rest is the frame's in progress.
	 */
	struct pending_log log, spare[2];
	struct homes *homes;      /* likewise: homes.h; NULL: none is needed */
	pthread_mutex_t redirect_lock;
	struct redirect *redirect; /* the table of the newest log that was read here, for the next reader (redirect.h) */
	struct bts_partial first; /* follower without a commit: what there is of a first transfer */
	struct commit_queue *queue;
	struct compact_memo *compact; /* compact.h */
	bts_txid *snapshots;      /* scratch for shared_readers, SHARED_READERS_MAX */
	struct page_ptr named_root; /* of a tree of named snapshots, and the newest of them */
	bts_txid named_newest;
	/* counters, atomics */
	_Atomic uint64_t commits, flushes, pages_written, conflicts;
	_Atomic uint64_t apply_frames, apply_pages, apply_redirected;
	_Atomic uint64_t pending_pages, pending_bytes, pending_expired; /* in the log now; readers told to end for it */
	_Atomic uint32_t transactions; /* open in this handle, but for those of parked; for ENSURE at close */
	_Atomic(struct bts_txn *) parked[DB_PARKED_MAX]; /* read transactions, open or kept for the next one (park.h) */
	struct bts_options limits;	  /* as given: those on readers (readers.c) */
	_Atomic uint64_t readers_next_ms; /* when they are looked at again */
};

/* Is it allowed to go on: BTS_POISONED, BTS_READ_ONLY (with text) for writers. */
enum bts_err db_usable(struct bts *, struct bts_error *);
/* And may it be written, or, of a follower, frames applied: BTS_FENCED. */
enum bts_err db_may_write(struct bts *, struct bts_error *);
/* And may a commit be begun: BTS_FENCED, when the deadline has passed (deadline.h) too. */
enum bts_err db_may_commit(struct bts *, struct bts_error *);
/*
 * Before the first page write, at open: after an unclean exit the opening commit (I4; a follower: an envelope write), for a
 * copied file a new epoch (R3).  A follower's allocator is loaded here, a primary's with its first commit (ring.h).
 */
enum bts_err db_start_writing(struct bts *, struct bts_error *);
/* The same later, where no deadline lay ahead at open: before the first batch of the handle, build held. */
enum bts_err db_start_late(struct bts *, struct bts_error *);
/* Role and identity from the slot that holds D, into db->slot; of a handle that is not new, flush held. */
enum bts_err db_learn_slot(struct bts *, struct bts_error *);
/* M2: what the writer of a follower before us may have written after its last publication. */
enum bts_err db_inherit(struct bts *, struct bts_error *);
/* Take or leave the build lock, which says nothing of the role; entered, the file is a primary's, tip and space are the newest. */
enum bts_err db_build_lock(struct bts *, struct bts_error *);
enum bts_err db_build_enter(struct bts *, struct bts_error *);
enum bts_err db_build_enter_within(struct bts *, unsigned timeout_ms, struct bts_error *); /* 0: for ever; else BTS_BUSY */
void db_build_leave(struct bts *);
/* The free set that a record describes, loaded into *space (owned: space_fini).  table: of the snapshot (redirect.h), or NULL. */
enum bts_err db_load_space(struct bts *, struct redirect *table, const struct commit_record *, struct space *space, struct bts_error *);
void db_free(struct bts *); /* close without a seal */
/* Poison every process on the file (I7) and say so in error. */
enum bts_err db_poison(struct bts *, struct bts_error *, int os, const char *what);
/* readers.c: after a commit, without locks: tell readers beyond the limits of this handle to end.  Cheap without limits. */
void readers_enforce(struct bts *);
/* Living readers of all processes: how many, the oldest snapshot (0: none), pages kept for any of them. */
enum bts_err readers_pinned(struct bts *, uint32_t *live, bts_txid *oldest, uint64_t *pinned, struct bts_error *);
/*
 * build held, D is the tip: numbers have run as far ahead of it as an opening commit would jump, by batches that found no space;
 * one is made, so that the jump after a crash stays above all of them (I4).
 */
enum bts_err db_jump(struct bts *, struct bts_error *);
/* The snapshots of living readers into db->snapshots, ascending, each once; how many.  build held. */
size_t db_snapshots(struct bts *);
/* Reclaim against the live readers of all processes (G1).  build held. */
void db_reclaim(struct bts *);
/* G5: what then reaches and the newest commit (freed by `freed` at the latest) does not is held back in space. */
enum bts_err db_hold_snapshot(struct bts *, struct redirect *table, const struct commit_record *then, bts_txid freed,
	struct bts_error *);
/* The allocator from record and what living readers need of it. */
enum bts_err db_load_allocator(struct bts *, const struct commit_record *record, struct bts_error *);

#endif
