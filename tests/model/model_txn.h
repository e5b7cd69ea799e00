/*
 * A transaction of the engine beside its oracle: every operation is done to both and compared, and at commit
 * the oracle tells which conflicts there must be and which there may be.
 */
#ifndef MODEL_TXN_H
#define MODEL_TXN_H

#include "oracle.h"
#include <rng.h>

enum model_kind { MODEL_PUT, MODEL_DEL, MODEL_CREATE, MODEL_DROP, MODEL_META };

struct model_op {
	enum model_kind kind;
	bts_txid txid;	   /* in the log of commits: who did it */
	uint64_t identity; /* of the bucket as the transaction saw it, 0: its own */
	struct bts_slice name;
	uint8_t name_bytes[BTS_BUCKET_NAME_MAX];
	struct oracle_entry *entry; /* key and value; meta in value */
};

struct model_ops {
	struct model_op *ops;
	size_t count, cap;
};

#define MODEL_CURSORS 2

struct model_cursor {
	struct bts_cursor *cursor; /* NULL: not open */
	struct bts_slice name;
	uint8_t name_bytes[BTS_BUCKET_NAME_MAX];
	bool placed;
	uint8_t key[BTS_KEY_MAX];
	size_t key_size;
};

struct model_txn {
	struct bts_txn *txn; /* NULL: none */
	struct oracle view;
	bts_txid snapshot;
	bool nested; /* of a group */
	bool writing, whole_database;
	struct model_ops ops;
	struct model_cursor cursors[MODEL_CURSORS];
};

struct model {
	struct rng rng;
	struct bts *db;
	struct oracle now;
	struct model_ops log; /* of all commits since the last reopening */
	uint64_t identities;
	uint32_t page_size;
	uint64_t commits, conflicts, puts, dels, gets, steps, buckets;
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
void model_ops_fini(struct model_ops *);

#endif
