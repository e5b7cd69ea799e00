/*
 * Transactions from the inside.
 *
 * A write transaction is private: it reads its snapshot, copies what it changes into its own dirty pages and logs its
 * operations.  At commit the leader either publishes its tree as it is (nobody committed since its snapshot) or
 * validates its keys (C1) and replays the log on the newest state.  A transaction of a group works directly on the
 * group's state.
 */
#ifndef TXN_H
#define TXN_H

#include "db.h"
#include "dirty.h"
#include "spill.h"
#include "tree_path.h"

#include <string.h>

/* A bucket tree opened in a state; struct bts_bucket of the public header is this. */
struct bucket_state {
	uint8_t name_size;
	uint8_t meta_size;
	uint8_t name[BTS_BUCKET_NAME_MAX];
	uint8_t meta[BTS_BUCKET_META_MAX];
	struct tree tree;
	bts_txid version;   /* of the catalog record: creation, newest set_meta or renaming */
	bool changed;       /* the catalog record must be rewritten at the seal */
	bool unsettled;     /* the catalog has not the present value of it yet */
	bool created;       /* by this state: no catalog record before it */
	bool dropped;
	uint8_t base_size;  /* of its name in the snapshot; 0: the present one */
	uint8_t base_name[BTS_BUCKET_NAME_MAX];
	uint32_t saved_by;  /* the level whose undo list holds the former value */
	struct tree base;   /* the snapshot's, unless created */
	bool logged;        /* that it was opened (reads.c) */
};

struct bucket_undo {
	struct bucket_state *bucket;
	struct bucket_state before;
};

/* What it takes to go back: where a transaction of a group began, or a savepoint. */
struct state_mark {
	uint32_t level;       /* its number, never given twice in a state */
	struct tree catalog, history, snapshots;
	uint32_t next_tree;
	uint64_t buckets;
	size_t bucket_count, undo_count;
	bool changed;
	size_t log_size;      /* of a savepoint: the log's and the transaction's */
	bool txn_changed;
};

/* A mutable (or read-only) state of the database: a record, private pages, the buckets opened in it. */
struct state {
	struct bts *db;
	struct tree base_catalog;    /* the snapshot's */
	struct tree base_snapshots;  /* likewise */
	struct tree_ctx ctx;
	struct redirect *redirect;   /* of a follower's snapshot: pages that are not home (redirect.h); or NULL */
	struct dirty *dirty;         /* NULL: read only */
	bool changed;
	struct bucket_state **buckets;
	size_t bucket_count, bucket_cap;
	size_t bucket_made;          /* of a state that reads: allocated, those behind bucket_count for use again */
	struct bucket_state *last;   /* of a state that reads: found last, or NULL */
	uint32_t *index;             /* of buckets by name: open addressing, 1 + place, 0 = free; dropped ones give way */
	size_t index_cap;            /* a power of two, at least twice bucket_cap */
	bool index_stale;            /* names have changed: to be made anew */
	uint32_t levels;             /* numbers given */
	struct state_mark *marks;    /* of the levels in progress, outermost first */
	size_t mark_count, mark_cap;
	struct bucket_undo *undo;
	size_t undo_count, undo_cap;
	/* Compaction: new pages go below this one, the lowest first (0: anywhere); the ready tail is given up; a new free log. */
	bts_pgno below;
	bool lower, condense;
	uint64_t raise; /* so many pages at the end are made ready, by raising the mark (lease.c) */
	struct commit_record record; /* the snapshot; catalog and history trees move as the state changes; last: it is large */
};

/* record copied; error is where failing calls explain themselves and must live as long as the state. */
enum bts_err state_init(struct state *, struct bts *, const struct commit_record *, bool writing, struct bts_error *error);
void state_fini(struct state *);
/* Pages are looked for in table first (owned), or nowhere but at home. */
void state_redirect(struct state *, struct redirect *table);
/* One that reads, in use before: as anew, on the record that has been put into it.  Keeps its memory. */
void state_again(struct state *);
/* Find or open a bucket; BTS_NOT_FOUND. */
enum bts_err state_bucket(struct state *, struct bts_slice name, bool create, struct bucket_state **out);
/* The one found last when it is that, in a state that reads; else NULL. */
static inline struct bucket_state *state_bucket_last(const struct state *state, struct bts_slice name)
{
	struct bucket_state *last = state->last;

	return last != NULL && last->name_size == name.size && memcmp(last->name, name.data, name.size) == 0 ? last : NULL;
}
/* The bucket as the snapshot had it, whatever this state did since; BTS_NOT_FOUND. */
enum bts_err state_bucket_at(struct state *, struct bts_slice name, struct bucket_state *out);
/* To be called before a bucket is changed: keeps the former value for a rollback. */
enum bts_err state_touch(struct state *, struct bucket_state *);
enum bts_err state_bucket_drop(struct state *, struct bts_slice name, struct bucket_state **dropped);
/* BTS_EXISTS: there is a bucket of the name `to`. */
enum bts_err state_bucket_rename(struct state *, struct bucket_state *, struct bts_slice to);
static inline void state_bucket_changed(struct state *state, struct bucket_state *bucket)
{
	bucket->changed = bucket->unsettled = state->changed = true;
}
/* The name at the snapshot, where it differs from the present one; else empty. */
static inline struct bts_slice bucket_base_name(const struct bucket_state *bucket)
{
	return (struct bts_slice){ bucket->base_name, bucket->base_size };
}
/* Write the changed buckets' records into the catalog tree: after this the trees say everything. */
enum bts_err state_settle(struct state *);
/* The first bucket with name > after, decoded. */
enum bts_err state_bucket_after(struct state *, struct bts_slice after, struct bucket_state *out);
/*
 * Levels (savepoint.c): transactions of a group and, within a transaction, savepoints.  _keep and _rollback end the
 * innermost one.  A failing _begin has changed nothing; after a _rollback the next one does not fail.  Buckets created
 * in a level that is rolled back count as dropped; others that were opened in it stay.
 */
enum bts_err state_begin_nested(struct state *, bts_txid stamp);
void state_keep_nested(struct state *);
void state_rollback_nested(struct state *);
/* A transaction ends: its savepoints are over. */
void savepoint_end(struct bts_txn *);

/* The operations of a private write transaction, to be validated and replayed when somebody committed before it. */
enum oplog_kind { OPLOG_PUT, OPLOG_DEL, OPLOG_CREATE, OPLOG_DROP, OPLOG_META, OPLOG_DEL_RANGE, OPLOG_RENAME,
	OPLOG_SNAPSHOT, OPLOG_UNSNAPSHOT };
struct oplog_op {
	enum oplog_kind kind;
	uint32_t tree;           /* id of the bucket's tree in the snapshot; 0 = made by this transaction */
	struct bts_slice bucket; /* name; the snapshot's in operations on named snapshots */
	struct bts_slice key;    /* of a range: where it begins */
	struct bts_slice value;  /* of a put; the meta of OPLOG_META; the end of a range; a new name */
	struct bts_slice base;   /* the bucket's name in the snapshot; empty: the same */
	uint64_t serial;         /* of a put of a large value: dirty_serial of `made`, which is the value; else 0 */
	struct page_ptr made;
};
#define TXN_LOG_SHARE 4u /* the log may have one part in so many of a transaction's memory */
#define OPLOG_FEW 4u
struct oplog_chunk {
	uint8_t *bytes;
	size_t start, cap; /* position of its first record; bytes */
};
struct oplog {
	struct bts_env *env;
	struct spill spill;
	size_t size;                /* position of the end; to cut the log, set it to a former one */
	struct oplog_chunk *chunks;
	size_t count, cap;
	struct oplog_chunk few[OPLOG_FEW]; /* chunks of most logs */
};
/* Beyond memory bytes it goes to a temporary file beside that file (borrowed until oplog_fini; NULL: never). */
void oplog_init(struct oplog *, struct bts_env *, const struct beside *near, uint64_t memory);
/* Copied; a private value is only referred to.  A failure leaves the log as it was; BTS_MEMORY is not explained. */
enum bts_err oplog_add(struct oplog *, const struct oplog_op *, struct bts_error *);
/* In order; *at 0 to begin; false at the end.  Slices borrowed until the log changes. */
bool oplog_next(const struct oplog *, size_t *at, struct oplog_op *);
/*
 * Fill op->value of a put that refers to a private value, from the private pages of the transaction that logged it.  When
 * that value is gone a later operation of the log replaced or removed it, and an empty one will do in its place.
 */
void oplog_value(const struct dirty *, struct oplog_op *);
void oplog_fini(struct oplog *); /* empties it; it can be used again */

struct bts_cursor {
	struct tree_cursor core;
	struct bts_txn *txn;
	struct bucket_state *bucket;
	bts_txid version; /* of the entry it stands on */
	struct bts_cursor *next, **link;
};

enum queue_place { QUEUE_WAITING, QUEUE_LEADS, QUEUE_DONE };

struct bts_txn {
	struct bts *db;
	unsigned flags;
	bool writing;
	struct bts_error error;
	struct state *state;     /* own, or the group's */
	struct shared_reader reader;
	bool registered;         /* reader holds a slot, and a snapshot */
	unsigned kept;           /* in db->parked, + 1; 0: it is freed when it ends */
	bool exclusive;          /* holds the build lock */
	uint32_t fences;         /* shared_fences when it began */
	struct bts_group *group; /* NULL: private */
	bts_txid txid;           /* of a group's transaction: the number it will commit as */
	bool changed;
	struct oplog log;
	struct reads *reads;     /* NULL: nothing yet, or not serializable */
	struct bts_cursor *cursors;
	struct bts_load *load;   /* open, or NULL */
	struct bts_stream *streams;
	struct lease *leases;    /* lease.h */
	/* in the commit queue: */
	struct bts_txn *queue_next;
	enum bts_err result;
	_Atomic uint32_t place;  /* enum queue_place; its thread sleeps on it */
	bts_txid winner;         /* of the newest BTS_CONFLICT: the transaction that came first; 0: none */
	struct state own;        /* of a private transaction or a read; it and what follows: large, and not of a group's */
	struct tree_way way;     /* for own when it writes */
};

struct bts_group {
	struct bts *db;
	struct state state;
	struct bts_error error;
	struct bts_txn *txn;     /* in progress */
	struct bts_txn *spare;   /* the memory of each transaction in turn; NULL before the first */
	struct lease *leases;    /* of all its transactions */
	bts_txid last;           /* assigned to the newest kept transaction; the base's when there is none */
	uint64_t count;          /* transactions kept */
	struct tree_way way;     /* for the state, of bts_group_begin */
};

/* For txn_live alone. */
enum bts_err txn_expired(struct bts_txn *);
/* BTS_EXPIRED when this transaction's snapshot was told to end: before every operation, one load (readers.c). */
static inline enum bts_err txn_live(struct bts_txn *txn)
{
	return shared_reader_expired(&txn->reader) ? txn_expired(txn) : BTS_OK;
}

/* group.c; build is held from _open to _close. */
enum bts_err group_open(struct bts_group *, struct bts *, struct bts_error *);
void group_close(struct bts_group *);
/* commit.c: how much longer than need bytes a file that grows is made, and a file that shrinks is left. */
uint64_t commit_step(uint64_t need);
bts_txid group_newest(const struct bts_group *); /* of the newest transaction its state holds */
/* Everything kept becomes the tip; nothing kept: does nothing.  built tells flush_to about it. */
struct commit_built;
enum bts_err group_build(struct bts_group *, struct commit_built *built, struct bts_error *);
/* queue.c: commit a private transaction, alone or with others in one flush. */
enum bts_err queue_commit(struct bts_txn *, bts_txid *txid, struct bts_error *);
/* The same for an exclusive transaction, which holds the build lock: left here. */
enum bts_err queue_commit_exclusive(struct bts_txn *, bts_txid *txid, struct bts_error *);
enum bts_err queue_new(struct bts *);
void queue_free(struct bts *);
/*
 * reads.c: what a serializable transaction has read (C3), as its snapshot has it, whatever it changed itself.  For any
 * other transaction these do nothing.
 */
struct reads;
static inline bool reads_wanted(const struct bts_txn *txn)
{
	return (txn->flags & BTS_SERIALIZABLE) && txn->writing && txn->group == NULL;
}
void reads_fini(struct bts_txn *);
/* A bucket was looked for; NULL: not found. */
enum bts_err reads_open(struct bts_txn *, struct bts_slice name, struct bucket_state *);
/* The names after `after` up to found; size 0: to the end. */
enum bts_err reads_list(struct bts_txn *, struct bts_slice after, struct bts_slice found);
enum bts_err reads_whole(struct bts_txn *, struct bucket_state *); /* counters */
enum bts_err reads_key(struct bts_txn *, struct bucket_state *, struct bts_slice key);
/* From .. up to and including to; size 0: no bound. */
enum bts_err reads_range(struct bts_txn *, struct bucket_state *, struct bts_slice from, struct bts_slice to);
enum bts_err reads_validate(struct bts_group *, struct bts_txn *);

/* validate.c: C1, C2, C3 of a private transaction against the group's state; its log done again there. */
enum bts_err validate_txn(struct bts_group *, struct bts_txn *);
enum bts_err validate_replay(struct bts_group *, struct bts_txn *);
/* BTS_CONFLICT: what (in words) was done by the winner, or by the newest transaction when that is not known (0). */
enum bts_err validate_conflict(struct bts_group *, struct bts_txn *, struct bts_slice bucket, struct bts_slice key,
	bts_txid winner, const char *what);
/* Catalog record bytes (FORMAT.md). */
#define BUCKET_RECORD_MAX (64 + BTS_BUCKET_META_MAX)
size_t bucket_record_encode(const struct bucket_state *, uint8_t bytes[BUCKET_RECORD_MAX]);
/* Hostile bytes.  NULL when sound, else what is wrong. */
const char *bucket_record_decode(struct bts_slice name, struct bts_slice bytes, bts_txid version, struct bucket_state *);

#endif
