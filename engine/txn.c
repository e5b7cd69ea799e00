/* Transactions: begin, end, and what can be done with keys and buckets in between.  Commit itself is in queue.c. */
#include "txn.h"

#include "base/ensure.h"
#include "error.h"

#include <string.h>

#define TXN_UPDATE_TRIES 1000 /* conflicts bts_update meets before it gives up */

static enum bts_err txn_snapshot(struct bts_txn *txn)
{
	struct bts *db = txn->db;
	struct commit_record record;
	enum bts_err err;

	txn->state = &txn->own;
	err = txn->writing ? shared_reader_enter(db->shared, &txn->reader, &record, &txn->error) :
			     shared_reader_enter_light(db->shared, &txn->reader, &record, &txn->error);
	if (err)
		return err;
	err = state_init(&txn->own, db, &record, txn->writing, &txn->error);
	if (err) {
		shared_reader_leave(db->shared, &txn->reader);
		return err;
	}
	txn->own.ctx.stamp = shared_assigned(db->shared) + 1;
	txn->registered = true;
	return BTS_OK;
}

static void txn_drop_snapshot(struct bts_txn *txn)
{
	state_fini(&txn->own);
	if (txn->registered)
		shared_reader_leave(txn->db->shared, &txn->reader);
	txn->registered = false;
}

static enum bts_err txn_check_flags(unsigned flags, struct bts_error *error)
{
	unsigned kind = flags & (BTS_READ | BTS_WRITE);

	if (kind != BTS_READ && kind != BTS_WRITE)
		return error_set(error, BTS_INVALID, 0, "bts_begin: exactly one of BTS_READ and BTS_WRITE");
	if (flags & (BTS_EXCLUSIVE | BTS_SERIALIZABLE | BTS_ASYNC))
		return error_set(error, BTS_INVALID, 0,
			"bts_begin: BTS_EXCLUSIVE, BTS_SERIALIZABLE and BTS_ASYNC are not in this version");
	if (flags & ~(BTS_READ | BTS_WRITE | BTS_CONFLICT_DATABASE))
		return error_set(error, BTS_INVALID, 0, "bts_begin: unknown flags %#x", flags);
	return BTS_OK;
}

static struct bts_txn *txn_new(struct bts *db, unsigned flags)
{
	struct bts_txn *txn = db->env->ops->memory(db->env, NULL, sizeof(*txn));

	if (txn == NULL)
		return NULL;
	memset(txn, 0, offsetof(struct bts_txn, own));
	txn->db = db;
	txn->flags = flags;
	txn->writing = (flags & BTS_WRITE) != 0;
	txn->log.env = db->env;
	return txn;
}

enum bts_err bts_begin(struct bts *db, unsigned flags, struct bts_txn **out, struct bts_error *error)
{
	struct bts_txn *txn;
	enum bts_err err;

	err = txn_check_flags(flags, error);
	if (err)
		return err;
	if (flags & BTS_WRITE) {
		err = db_may_write(db, error);
		if (err)
			return err;
		if (db->follower)
			return error_set(error, BTS_READ_ONLY, 0, "a follower's file takes no write transactions");
	}
	txn = txn_new(db, flags);
	if (txn == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a transaction");
	err = txn_snapshot(txn);
	if (err) {
		if (error != NULL)
			*error = txn->error;
		db->env->ops->memory(db->env, txn, 0);
		return err;
	}
	atomic_fetch_add(&db->transactions, 1);
	*out = txn;
	return BTS_OK;
}

static void txn_close_cursors(struct bts_txn *txn)
{
	while (txn->cursors != NULL)
		bts_cursor_close(txn->cursors);
}

/* Everything but the snapshot is over: frees txn. */
static void txn_free(struct bts_txn *txn)
{
	struct bts *db = txn->db;

	oplog_fini(&txn->log);
	db->env->ops->memory(db->env, txn, 0);
	atomic_fetch_sub(&db->transactions, 1);
}

enum bts_err bts_group_txn(struct bts_group *group, struct bts_txn **out, struct bts_error *error)
{
	struct bts *db = group->db;
	struct bts_txn *txn;
	enum bts_err err;

	if (group->txn != NULL)
		return error_set(error, BTS_INVALID, 0, "bts_group_txn: the group's former transaction has not ended");
	if (group->count >= META_JUMP - 1)
		return error_set(error, BTS_LIMIT, 0, "a group holds at most %llu transactions",
			(unsigned long long)META_JUMP - 1);
	txn = txn_new(db, BTS_WRITE);
	if (txn == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a transaction");
	txn->group = group;
	txn->state = &group->state;
	txn->txid = group->last + 1;
	err = state_begin_nested(&group->state, txn->txid);
	if (err) {
		db->env->ops->memory(db->env, txn, 0);
		return error_set(error, err, 0, "no memory for a transaction");
	}
	group->state.ctx.error = &txn->error;
	group->txn = txn;
	atomic_fetch_add(&db->transactions, 1);
	*out = txn;
	return BTS_OK;
}

static void txn_end_nested(struct bts_txn *txn, bool keep)
{
	struct bts_group *group = txn->group;

	txn_close_cursors(txn);
	if (keep) {
		state_keep_nested(&group->state);
		group->last = txn->txid;
		group->count++;
	} else {
		state_rollback_nested(&group->state);
	}
	group->state.ctx.error = &group->error;
	group->txn = NULL;
	txn_free(txn);
}

void bts_abort(struct bts_txn *txn)
{
	if (txn == NULL)
		return;
	if (txn->group != NULL) {
		txn_end_nested(txn, false);
		return;
	}
	txn_close_cursors(txn);
	txn_drop_snapshot(txn);
	txn_free(txn);
}

enum bts_err bts_commit_id(struct bts_txn *txn, bts_txid *txid, struct bts_error *error)
{
	enum bts_err err;
	bts_txid id;

	if (txn->group != NULL) {
		id = txn->changed ? txn->txid : group_newest(txn->group);
		txn_end_nested(txn, txn->changed);
		if (txid != NULL)
			*txid = id;
		return BTS_OK;
	}
	id = txn->own.record.txid;
	if (!txn->changed) {
		bts_abort(txn);
		if (txid != NULL)
			*txid = id;
		return BTS_OK;
	}
	err = queue_commit(txn, &id, error);
	if (err == BTS_CONFLICT)
		return err;
	txn_close_cursors(txn);
	txn_drop_snapshot(txn);
	txn_free(txn);
	if (err == BTS_OK && txid != NULL)
		*txid = id;
	return err;
}

enum bts_err bts_commit(struct bts_txn *txn, struct bts_error *error)
{
	return bts_commit_id(txn, NULL, error);
}

enum bts_err bts_refresh(struct bts_txn *txn, struct bts_error *error)
{
	enum bts_err err;

	if (txn->group != NULL)
		return error_set(error, BTS_INVALID, 0, "bts_refresh: a group's transaction is always the newest");
	txn_close_cursors(txn);
	txn_drop_snapshot(txn);
	oplog_fini(&txn->log);
	txn->changed = false;
	txn->writing = (txn->flags & BTS_WRITE) != 0;
	err = txn_snapshot(txn);
	if (err) {
		/* There is no snapshot to stand on: an empty state that finds nothing and takes no write. */
		if (error != NULL)
			*error = txn->error;
		memset(&txn->own.record, 0, sizeof(txn->own.record));
		txn->writing = false;
	}
	return err;
}

bts_txid bts_txn_id(const struct bts_txn *txn)
{
	return txn->group != NULL ? txn->txid : txn->own.record.txid;
}

const struct bts_error *bts_txn_error(const struct bts_txn *txn)
{
	return &txn->error;
}

static enum bts_err txn_check_key(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice key)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;

	if (key.size < 1 || key.size > BTS_KEY_MAX)
		return error_set(&txn->error, BTS_INVALID, 0, "key of %zu bytes (1 to %d are allowed)", key.size, BTS_KEY_MAX);
	if (bucket->dropped)
		return error_set(&txn->error, BTS_INVALID, 0, "the bucket was dropped in this transaction");
	return BTS_OK;
}

static enum bts_err txn_check_write(struct bts_txn *txn)
{
	if (!txn->writing)
		return error_set(&txn->error, BTS_INVALID, 0, "a write in a read transaction");
	return BTS_OK;
}

/* The tree id a replay must find under the name: 0 when this transaction makes the bucket. */
static uint32_t txn_tree_seen(const struct bucket_state *bucket)
{
	return bucket->created ? 0 : bucket->tree.id;
}

static enum bts_err txn_log_op(struct bts_txn *txn, const struct oplog_op *op)
{
	if (txn->group != NULL || oplog_add(&txn->log, op) == BTS_OK)
		return BTS_OK;
	return error_set(&txn->error, BTS_MEMORY, 0, "no memory for the transaction's log");
}

/*
 * Logged before it is done, and cut from the log when it fails (txn_done): done and not logged, it would be lost by a
 * commit that replays.
 */
static enum bts_err txn_log(struct bts_txn *txn, enum oplog_kind kind, const struct bucket_state *bucket,
	struct bts_slice key, struct bts_slice value)
{
	struct oplog_op op = { kind, txn_tree_seen(bucket), { bucket->name, bucket->name_size }, key, value };

	return txn_log_op(txn, &op);
}

/* What was logged from `from` on has been done, or failed. */
static enum bts_err txn_done(struct bts_txn *txn, size_t from, enum bts_err err)
{
	if (err)
		txn->log.size = from;
	else
		txn->changed = txn->state->changed = true;
	return err;
}

enum bts_err bts_bucket(struct bts_txn *txn, struct bts_slice name, unsigned flags, struct bts_bucket **out,
	struct bts_error *error)
{
	struct bucket_state *bucket = NULL;
	bool create = (flags & BTS_CREATE) != 0;
	uint32_t next = txn->state->record.next_tree;
	struct oplog_op op = { .kind = OPLOG_CREATE, .bucket = name };
	size_t from = txn->log.size;
	enum bts_err err = BTS_OK;

	if (create)
		err = txn_check_write(txn);
	if (err == BTS_OK && create && name.size <= BTS_BUCKET_NAME_MAX)
		err = txn_log_op(txn, &op);
	if (err == BTS_OK)
		err = state_bucket(txn->state, name, create, &bucket);
	if (err == BTS_OK && next != txn->state->record.next_tree)
		err = txn_done(txn, from, BTS_OK);
	else
		txn->log.size = from;
	if (err) {
		if (error != NULL)
			*error = txn->error;
		return err;
	}
	*out = (struct bts_bucket *)bucket;
	return BTS_OK;
}

enum bts_err bts_bucket_set_meta(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice meta)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;
	size_t from = txn->log.size;
	enum bts_err err = txn_check_write(txn);

	if (err)
		return err;
	if (bucket->dropped)
		return error_set(&txn->error, BTS_INVALID, 0, "the bucket was dropped in this transaction");
	if (meta.size > BTS_BUCKET_META_MAX)
		return error_set(&txn->error, BTS_INVALID, 0, "bucket meta of %zu bytes (at most %d)", meta.size,
			BTS_BUCKET_META_MAX);
	if (bucket->meta_size == meta.size && (meta.size == 0 || memcmp(bucket->meta, meta.data, meta.size) == 0))
		return BTS_OK;
	err = txn_log(txn, OPLOG_META, bucket, (struct bts_slice){ 0 }, meta);
	if (err == BTS_OK)
		err = state_touch(txn->state, bucket);
	if (err == BTS_OK) {
		bucket->meta_size = (uint8_t)meta.size;
		if (meta.size > 0)
			memcpy(bucket->meta, meta.data, meta.size);
		bucket->version = txn->state->ctx.stamp;
		bucket->changed = true;
	}
	return txn_done(txn, from, err);
}

enum bts_err bts_bucket_drop(struct bts_txn *txn, struct bts_slice name, struct bts_error *error)
{
	struct bucket_state *bucket = NULL;
	size_t from = txn->log.size;
	enum bts_err err = txn_check_write(txn);

	if (err == BTS_OK)
		err = state_bucket(txn->state, name, false, &bucket);
	if (err == BTS_OK)
		err = txn_log(txn, OPLOG_DROP, bucket, (struct bts_slice){ 0 }, (struct bts_slice){ 0 });
	if (err == BTS_OK)
		err = state_bucket_drop(txn->state, name, &bucket);
	err = txn_done(txn, from, err);
	if (err && error != NULL)
		*error = txn->error;
	return err;
}

static void txn_fill_info(const struct bucket_state *bucket, struct bts_bucket_info *info)
{
	*info = (struct bts_bucket_info){
		.name = { bucket->name, bucket->name_size },
		.meta = { bucket->meta, bucket->meta_size },
		.entries = bucket->tree.entries,
		.bytes = bucket->tree.bytes,
		.pages = bucket->tree.pages,
		.depth = bucket->tree.depth,
		.version = bucket->version,
	};
}

enum bts_err bts_bucket_info(struct bts_txn *txn, struct bts_bucket *handle, struct bts_bucket_info *info)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;

	if (bucket->dropped)
		return error_set(&txn->error, BTS_INVALID, 0, "the bucket was dropped in this transaction");
	txn_fill_info(bucket, info);
	return BTS_OK;
}

enum bts_err bts_bucket_next(struct bts_txn *txn, struct bts_slice after, struct bts_bucket_info *info)
{
	struct bucket_state found, *bucket;
	enum bts_err err;

	if (after.size > BTS_BUCKET_NAME_MAX)
		return error_set(&txn->error, BTS_INVALID, 0, "bucket name of %zu bytes", after.size);
	err = state_bucket_after(txn->state, after, &found);
	if (err == BTS_OK) /* opened: so that what info borrows lives as long as the transaction */
		err = state_bucket(txn->state, (struct bts_slice){ found.name, found.name_size }, false, &bucket);
	if (err)
		return err;
	txn_fill_info(bucket, info);
	return BTS_OK;
}

enum bts_err bts_get_version(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice key, struct bts_slice *value,
	bts_txid *version)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;
	struct tree_hit hit;
	enum bts_err err = txn_check_key(txn, handle, key);

	if (err)
		return err;
	err = tree_get(&txn->state->ctx, &bucket->tree, key, &hit);
	if (err)
		return err;
	err = tree_value(&txn->state->ctx, &hit.cell, value);
	if (err == BTS_OK && version != NULL)
		*version = txn->group == NULL && hit.cell.version > txn->own.record.txid ? 0 : hit.cell.version;
	return err;
}

enum bts_err bts_get(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key, struct bts_slice *value)
{
	return bts_get_version(txn, bucket, key, value, NULL);
}

static enum bts_err txn_check_presence(struct bts_txn *txn, struct bucket_state *bucket, struct bts_slice key,
	unsigned flags)
{
	struct tree_hit hit;
	enum bts_err err;

	if (flags & ~(BTS_PUT_NEW | BTS_PUT_EXISTING) || flags == (BTS_PUT_NEW | BTS_PUT_EXISTING))
		return error_set(&txn->error, BTS_INVALID, 0, "bts_put: impossible flags %#x", flags);
	if (flags == 0)
		return BTS_OK;
	err = tree_get(&txn->state->ctx, &bucket->tree, key, &hit);
	if (err == BTS_OK && flags == BTS_PUT_NEW)
		return error_set(&txn->error, BTS_EXISTS, 0, "the key is already there");
	if (err == BTS_NOT_FOUND && flags == BTS_PUT_NEW)
		return BTS_OK;
	return err;
}

enum bts_err bts_put(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice key, struct bts_slice value,
	unsigned flags)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;
	size_t from = txn->log.size;
	enum bts_err err = txn_check_write(txn);

	if (err == BTS_OK)
		err = txn_check_key(txn, handle, key);
	if (err)
		return err;
	if (value.size > BTS_VALUE_MAX)
		return error_set(&txn->error, BTS_INVALID, 0, "value of %zu bytes (at most 2^40 - 1)", value.size);
	err = txn_check_presence(txn, bucket, key, flags);
	if (err == BTS_OK)
		err = txn_log(txn, OPLOG_PUT, bucket, key, value);
	if (err == BTS_OK)
		err = state_touch(txn->state, bucket);
	if (err == BTS_OK) {
		bucket->changed = true; /* even if it fails: no content has changed then, but the root may have moved */
		err = tree_put(&txn->state->ctx, &bucket->tree, key, value, txn->state->ctx.stamp);
	}
	return txn_done(txn, from, err);
}

enum bts_err bts_del(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice key)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;
	size_t from = txn->log.size;
	enum bts_err err = txn_check_write(txn);

	if (err == BTS_OK)
		err = txn_check_key(txn, handle, key);
	if (err == BTS_OK)
		err = txn_log(txn, OPLOG_DEL, bucket, key, (struct bts_slice){ 0 });
	if (err == BTS_OK)
		err = state_touch(txn->state, bucket);
	if (err == BTS_OK) {
		err = tree_del(&txn->state->ctx, &bucket->tree, key);
		bucket->changed = bucket->changed || err != BTS_NOT_FOUND; /* as in bts_put */
	}
	return txn_done(txn, from, err);
}

/* What a callback gave back: in the words of its last failing call when that failed so, else by name. */
static void txn_explain(const struct bts_txn *txn, enum bts_err err, struct bts_error *error)
{
	if (error == NULL)
		return;
	*error = txn->error;
	if (error->code != err)
		error_set(error, err, 0, "%s", bts_err_name(err));
}

enum bts_err bts_update(struct bts *db, bts_txn_fn *fn, void *arg, struct bts_error *error)
{
	struct bts_txn *txn;
	enum bts_err err = bts_begin(db, BTS_WRITE, &txn, error);

	if (err)
		return err;
	for (int i = 0; i < TXN_UPDATE_TRIES; i++) {
		err = fn(txn, arg);
		if (err) {
			txn_explain(txn, err, error);
			break;
		}
		err = bts_commit(txn, error);
		if (err != BTS_CONFLICT)
			return err;
		err = bts_refresh(txn, error);
		if (err)
			break;
		err = BTS_CONFLICT;
	}
	bts_abort(txn);
	return err;
}

enum bts_err bts_view(struct bts *db, bts_txn_fn *fn, void *arg, struct bts_error *error)
{
	struct bts_txn *txn;
	enum bts_err err = bts_begin(db, BTS_READ, &txn, error);

	if (err)
		return err;
	err = fn(txn, arg);
	if (err)
		txn_explain(txn, err, error);
	bts_abort(txn);
	return err;
}
