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

/* A bucket tree opened in a state; struct bts_bucket of the public header is this. */
struct bucket_state {
	uint8_t name_size;
	uint8_t meta_size;
	uint8_t name[BTS_BUCKET_NAME_MAX];
	uint8_t meta[BTS_BUCKET_META_MAX];
	struct tree tree;
	bts_txid version;  /* of the catalog record: creation or newest set_meta */
	bool changed;      /* the catalog record must be rewritten at the seal */
	bool created;      /* by this state: no catalog record before it */
	bool dropped;
	uint32_t saved_by; /* the group transaction whose undo list holds the former value */
};

struct bucket_undo {
	struct bucket_state *bucket;
	struct bucket_state before;
};

/* What a group needs to roll one of its transactions back. */
struct state_mark {
	struct tree catalog, history;
	uint32_t next_tree;
	uint64_t buckets;
	size_t bucket_count;
	bool changed;
};

/* A mutable (or read-only) state of the database: a record, private pages, the buckets opened in it. */
struct state {
	struct bts *db;
	struct tree base_catalog;    /* the snapshot's */
	struct tree_ctx ctx;
	struct dirty *dirty;         /* NULL: read only */
	bool changed;
	struct bucket_state **buckets;
	size_t bucket_count, bucket_cap;
	uint32_t nested;             /* number of the group transaction in progress; 0: none */
	struct state_mark mark;
	struct bucket_undo *undo;
	size_t undo_count, undo_cap;
	struct commit_record record; /* the snapshot; catalog and history trees move as the state changes; last: it is large */
};

/* record copied; error is where failing calls explain themselves and must live as long as the state. */
enum bts_err state_init(struct state *, struct bts *, const struct commit_record *, bool writing, struct bts_error *error);
void state_fini(struct state *);
/* Find or open a bucket; BTS_NOT_FOUND. */
enum bts_err state_bucket(struct state *, struct bts_slice name, bool create, struct bucket_state **out);
/* The bucket as the snapshot had it, whatever this state did since; BTS_NOT_FOUND. */
enum bts_err state_bucket_at(struct state *, struct bts_slice name, struct bucket_state *out);
/* To be called before a bucket is changed: keeps the former value for a rollback. */
enum bts_err state_touch(struct state *, struct bucket_state *);
enum bts_err state_bucket_drop(struct state *, struct bts_slice name, struct bucket_state **dropped);
/* Write the changed buckets' records into the catalog tree: after this the trees say everything. */
enum bts_err state_settle(struct state *);
/* The first bucket with name > after, decoded. */
enum bts_err state_bucket_after(struct state *, struct bts_slice after, struct bucket_state *out);
/* Transactions of a group. */
enum bts_err state_begin_nested(struct state *, bts_txid stamp);
void state_keep_nested(struct state *);
void state_rollback_nested(struct state *);

/* The operations of a private write transaction, to be validated and replayed when somebody committed before it. */
enum oplog_kind { OPLOG_PUT, OPLOG_DEL, OPLOG_CREATE, OPLOG_DROP, OPLOG_META };
struct oplog_op {
	enum oplog_kind kind;
	uint32_t tree;          /* id of the bucket's tree in the snapshot; 0 = made by this transaction */
	struct bts_slice bucket; /* name */
	struct bts_slice key;
	struct bts_slice value; /* of a put; the meta of OPLOG_META */
};
struct oplog {
	struct bts_env *env;
	uint8_t *bytes;
	size_t size, cap;
};
/* Copied.  BTS_MEMORY leaves the log as it was. */
enum bts_err oplog_add(struct oplog *, const struct oplog_op *);
/* In order; *at 0 to begin; false at the end.  Slices borrowed until the log changes. */
bool oplog_next(const struct oplog *, size_t *at, struct oplog_op *);
void oplog_fini(struct oplog *);

struct bts_cursor {
	struct tree_cursor core;
	struct bts_txn *txn;
	struct bucket_state *bucket;
	struct node_cell cell; /* of the entry it stands on */
	struct bts_cursor *next, **link;
};

struct bts_txn {
	struct bts *db;
	unsigned flags;
	bool writing;
	struct bts_error error;
	struct state *state;     /* own, or the group's */
	struct shared_reader reader;
	bool registered;         /* reader holds a slot */
	struct bts_group *group; /* NULL: private */
	bts_txid txid;           /* of a group's transaction: the number it will commit as */
	bool changed;
	struct oplog log;
	struct bts_cursor *cursors;
	/* in the commit queue: */
	struct bts_txn *queue_next;
	enum bts_err result;
	bool done;
	struct state own;        /* of a private transaction or a read; last: it is large, and not of a group's */
};

struct bts_group {
	struct bts *db;
	struct state state;
	struct bts_error error;
	struct bts_txn *txn;     /* in progress */
	bts_txid last;           /* assigned to the newest kept transaction; the base's when there is none */
	uint64_t count;          /* transactions kept */
};

/* group.c; build is held from _open to _close. */
enum bts_err group_open(struct bts_group *, struct bts *, struct bts_error *);
void group_close(struct bts_group *);
bts_txid group_newest(const struct bts_group *); /* of the newest transaction its state holds */
/* Make everything kept durable and published (seal.c, commit.c); nothing kept: does nothing. */
enum bts_err group_finish(struct bts_group *, struct bts_error *);
/* queue.c: commit a private transaction, alone or with others in one flush. */
enum bts_err queue_commit(struct bts_txn *, bts_txid *txid, struct bts_error *);
enum bts_err queue_new(struct bts *);
void queue_free(struct bts *);
/* validate.c: C1, C2 of a private transaction against the group's state; its log done again there. */
enum bts_err validate_txn(struct bts_group *, struct bts_txn *);
enum bts_err validate_replay(struct bts_group *, struct bts_txn *);
/* commit.c: build held. */
enum bts_err commit_state(struct bts *, struct state *, bts_txid txid, uint64_t transactions, struct bts_error *);

/* Catalog record bytes (FORMAT.md). */
#define BUCKET_RECORD_MAX (64 + BTS_BUCKET_META_MAX)
size_t bucket_record_encode(const struct bucket_state *, uint8_t bytes[BUCKET_RECORD_MAX]);
/* Hostile bytes.  NULL when sound, else what is wrong. */
const char *bucket_record_decode(struct bts_slice name, struct bts_slice bytes, bts_txid version, struct bucket_state *);

#endif
