/*
 * A transaction of the engine beside its oracle: every operation is done to both and compared, and at commit
 * the oracle tells which conflicts there must be and which there may be.
 */
#ifndef MODEL_TXN_H
#define MODEL_TXN_H

#include "oracle.h"
#include <rng.h>

/* A range is logged as itself, for what it conflicts with, and as the deletions it was. */
enum model_kind { MODEL_PUT, MODEL_DEL, MODEL_CREATE, MODEL_DROP, MODEL_META, MODEL_RANGE, MODEL_RENAME };

struct model_op {
	enum model_kind kind;
	bts_txid txid;	   /* in the log of commits: who did it */
	uint64_t identity; /* of the bucket as the transaction saw it, 0: its own */
	struct bts_slice name;
	uint8_t name_bytes[BTS_BUCKET_NAME_MAX];
	struct bts_slice base; /* its name when the transaction began */
	uint8_t base_bytes[BTS_BUCKET_NAME_MAX];
	struct oracle_entry *entry; /* key and value; meta in value; ends of a range; the new name in value */
};

struct model_ops {
	struct model_op *ops;
	size_t count, cap;
};

#define MODEL_CURSORS 2
#define MODEL_MARKS 3

struct model_cursor {
	struct bts_cursor *cursor; /* NULL: not open */
	struct bts_slice name;
	uint8_t name_bytes[BTS_BUCKET_NAME_MAX];
	bool placed;
	uint8_t key[BTS_KEY_MAX];
	size_t key_size;
};

struct model_mark { /* a savepoint */
	uint32_t id;
	struct oracle view;
	size_t ops, extra;
};

struct model_txn {
	struct bts_txn *txn; /* NULL: none */
	struct oracle view;
	bts_txid snapshot;
	bool nested; /* of a group */
	bool writing, whole_database;
	struct model_ops ops;
	struct model_cursor cursors[MODEL_CURSORS];
	struct model_mark marks[MODEL_MARKS];
	unsigned mark_count;
	size_t extra; /* of the test: how much it did besides; a rollback takes it back */
};

struct model {
	struct rng rng;
	struct bts *db;
	struct oracle now;
	struct model_ops log; /* of all commits since the last reopening */
	uint64_t identities;
	uint32_t page_size;
	uint64_t commits, conflicts, puts, dels, gets, steps, buckets, ranges, marks;
};

void model_begin(struct model *, struct model_txn *, unsigned flags);
void model_adopt(
	struct model *, struct model_txn *, struct bts_txn *, const struct oracle *view); /* of a group */
/* One random operation. */
void model_step(struct model *, struct model_txn *);
/* Commit, or refresh and abandon after a conflict. */
void model_commit(struct model *, struct model_txn *);
/* Of a group: the changes go into *view, which becomes the next one's. */
void model_keep(struct model *, struct model_txn *, struct oracle *view);
void model_abort(struct model_txn *);
/* The parts of model_commit and model_keep, for a test that does more in a transaction than model_step. */
bool model_clash(const struct model *, const struct model_txn *, const struct model_op *, bool *may);
void model_apply(struct model *, const struct model_ops *, struct oracle *, bts_txid txid);
void model_end(struct model_txn *);
void model_ops_fini(struct model_ops *);

/* Between the files of the model: model_rework.c has ranges, renaming and savepoints. */
struct bts_slice model_name(struct model *);
struct bts_slice model_key(struct model *, uint8_t key[BTS_KEY_MAX]);
bts_txid model_stamp(const struct model_txn *);
void model_log(struct model_ops *, enum model_kind, const struct oracle_bucket *, struct bts_slice key,
	struct bts_slice value);
void model_ops_cut(struct model_ops *, size_t count);
void model_close_cursors(struct model_txn *, struct bts_slice name); /* name empty: all */
void model_range(struct model *, struct model_txn *, struct oracle_bucket *, struct bts_bucket *);
void model_rename(struct model *, struct model_txn *);
void model_savepoint(struct model *, struct model_txn *);
void model_marks_fini(struct model_txn *);

#endif
