/* What can be done with keys and buckets in a transaction: checked, logged for a replay, done. */
#include "ops.h"

#include "error.h"

#include <string.h>

enum bts_err ops_check_key(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice key)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;
	enum bts_err err = txn_live(txn);

	if (err)
		return err;
	if (key.size < 1 || key.size > BTS_KEY_MAX)
		return error_set(&txn->error, BTS_INVALID, 0, "key of %zu bytes (1 to %d are allowed)", key.size, BTS_KEY_MAX);
	if (bucket->dropped)
		return error_set(&txn->error, BTS_INVALID, 0, "the bucket was dropped in this transaction");
	return BTS_OK;
}

enum bts_err ops_check_fork(struct bts_txn *txn)
{
	if (txn->writing && shared_foreign(txn->db->shared)) /* its private pages may be the parent's, too (spill.h) */
		return error_set(&txn->error, BTS_INVALID, 0, "a write in a transaction that was begun before a fork");
	return txn_live(txn);
}

enum bts_err ops_check_write(struct bts_txn *txn)
{
	if (!txn->writing)
		return error_set(&txn->error, BTS_INVALID, 0, "a write in a read transaction");
	if (txn->load != NULL)
		return error_set(&txn->error, BTS_INVALID, 0, "a load is open: nothing else may be written until it ends");
	return ops_check_fork(txn);
}

/* The tree id a replay must find under the name: 0 when this transaction makes the bucket. */
static uint32_t ops_tree_seen(const struct bucket_state *bucket)
{
	return bucket->created ? 0 : bucket->tree.id;
}

enum bts_err ops_log_op(struct bts_txn *txn, const struct oplog_op *op)
{
	enum bts_err err = txn->group != NULL ? BTS_OK : oplog_add(&txn->log, op, &txn->error);

	if (err == BTS_MEMORY)
		return error_set(&txn->error, BTS_MEMORY, 0, "no memory for the transaction's log");
	return err;
}

/*
 * Logged before it is done, and cut from the log when it fails (ops_done): done and not logged, it would be lost by a
 * commit that replays.
 */
static enum bts_err ops_log(struct bts_txn *txn, enum oplog_kind kind, const struct bucket_state *bucket,
	struct bts_slice key, struct bts_slice value)
{
	struct oplog_op op = { .kind = kind, .tree = ops_tree_seen(bucket), .bucket = { bucket->name, bucket->name_size },
		.key = key, .value = value, .base = bucket_base_name(bucket) };

	return ops_log_op(txn, &op);
}

enum bts_err ops_log_put(struct bts_txn *txn, const struct bucket_state *bucket, struct bts_slice key,
	struct bts_slice value, const struct page_ptr *made)
{
	struct oplog_op op = { .kind = OPLOG_PUT, .tree = ops_tree_seen(bucket),
		.bucket = { bucket->name, bucket->name_size }, .key = key, .value = value,
		.base = bucket_base_name(bucket) };

	if (made != NULL && txn->group == NULL) {
		op.made = *made;
		op.serial = dirty_serial(txn->state->dirty, made);
	}
	return ops_log_op(txn, &op);
}

/* What was logged from `from` on has been done, or failed. */
static enum bts_err ops_done(struct bts_txn *txn, size_t from, enum bts_err err)
{
	if (err)
		txn->log.size = from;
	else
		txn->changed = txn->state->changed = true;
	return err;
}

static enum bts_err ops_open(struct bts_txn *txn, struct bts_slice name, unsigned flags, struct bts_bucket **out,
	struct bts_error *error)
{
	struct bucket_state *bucket = NULL;
	bool create = (flags & BTS_CREATE) != 0;
	uint32_t next = txn->state->record.next_tree;
	struct oplog_op op = { .kind = OPLOG_CREATE, .bucket = name };
	size_t from = txn->log.size;
	enum bts_err read;
	enum bts_err err = create ? ops_check_write(txn) : txn_live(txn);

	if (err == BTS_OK && flags & ~BTS_CREATE)
		err = error_set(&txn->error, BTS_INVALID, 0, "bts_bucket: unknown flags %#x", flags);
	if (err == BTS_OK && create && name.size <= BTS_BUCKET_NAME_MAX)
		err = ops_log_op(txn, &op);
	if (err == BTS_OK)
		err = state_bucket(txn->state, name, create, &bucket);
	if (err == BTS_OK && next != txn->state->record.next_tree)
		err = ops_done(txn, from, BTS_OK);
	else
		txn->log.size = from;
	if (err == BTS_OK || err == BTS_NOT_FOUND) {
		read = reads_open(txn, name, err ? NULL : bucket);
		err = read ? read : err;
	}
	if (err) {
		if (error != NULL)
			*error = txn->error;
		return err;
	}
	*out = (struct bts_bucket *)bucket;
	return BTS_OK;
}

enum bts_err bts_bucket(struct bts_txn *txn, struct bts_slice name, unsigned flags, struct bts_bucket **out,
	struct bts_error *error)
{
	struct bucket_state *last = flags == 0 ? state_bucket_last(txn->state, name) : NULL;

	if (last == NULL || shared_reader_expired(&txn->reader))
		return ops_open(txn, name, flags, out, error);
	*out = (struct bts_bucket *)last; /* in a read transaction: nothing is noted of it */
	return BTS_OK;
}

enum bts_err bts_bucket_set_meta(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice meta)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;
	size_t from = txn->log.size;
	enum bts_err err = ops_check_write(txn);

	if (err)
		return err;
	if (bucket->dropped)
		return error_set(&txn->error, BTS_INVALID, 0, "the bucket was dropped in this transaction");
	if (meta.size > BTS_BUCKET_META_MAX)
		return error_set(&txn->error, BTS_INVALID, 0, "bucket meta of %zu bytes (at most %d)", meta.size,
			BTS_BUCKET_META_MAX);
	if (bucket->meta_size == meta.size && (meta.size == 0 || memcmp(bucket->meta, meta.data, meta.size) == 0))
		return BTS_OK;
	err = ops_log(txn, OPLOG_META, bucket, (struct bts_slice){ 0 }, meta);
	if (err == BTS_OK)
		err = state_touch(txn->state, bucket);
	if (err == BTS_OK) {
		bucket->meta_size = (uint8_t)meta.size;
		if (meta.size > 0)
			memmove(bucket->meta, meta.data, meta.size); /* perhaps a part of what it is now */
		bucket->version = txn->state->ctx.stamp;
		state_bucket_changed(txn->state, bucket);
	}
	return ops_done(txn, from, err);
}

/* The bucket that is to be changed; that there is none has been read, too. */
static enum bts_err ops_bucket(struct bts_txn *txn, struct bts_slice name, struct bucket_state **bucket)
{
	enum bts_err read, err = state_bucket(txn->state, name, false, bucket);

	if (err != BTS_NOT_FOUND)
		return err;
	read = reads_open(txn, name, NULL);
	return read ? read : err;
}

enum bts_err bts_bucket_rename(struct bts_txn *txn, struct bts_slice from, struct bts_slice to, struct bts_error *error)
{
	struct bucket_state *bucket = NULL;
	size_t log = txn->log.size;
	enum bts_err err = ops_check_write(txn);

	if (err == BTS_OK)
		err = ops_bucket(txn, from, &bucket);
	if (err == BTS_OK && to.size > BTS_BUCKET_NAME_MAX)
		err = error_set(&txn->error, BTS_INVALID, 0, "bucket name of %zu bytes", to.size);
	if (err == BTS_OK)
		err = reads_open(txn, to, NULL);
	if (err == BTS_OK)
		err = ops_log(txn, OPLOG_RENAME, bucket, (struct bts_slice){ 0 }, to);
	if (err == BTS_OK)
		err = state_bucket_rename(txn->state, bucket, to);
	err = ops_done(txn, log, err);
	if (err && error != NULL)
		*error = txn->error;
	return err;
}

enum bts_err bts_bucket_drop(struct bts_txn *txn, struct bts_slice name, struct bts_error *error)
{
	struct bucket_state *bucket = NULL;
	size_t from = txn->log.size;
	enum bts_err err = ops_check_write(txn);

	if (err == BTS_OK)
		err = ops_bucket(txn, name, &bucket);
	if (err == BTS_OK)
		err = ops_log(txn, OPLOG_DROP, bucket, (struct bts_slice){ 0 }, (struct bts_slice){ 0 });
	if (err == BTS_OK)
		err = state_bucket_drop(txn->state, name, &bucket);
	err = ops_done(txn, from, err);
	if (err && error != NULL)
		*error = txn->error;
	return err;
}

static void ops_fill_info(const struct bucket_state *bucket, struct bts_bucket_info *info)
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
	enum bts_err err = txn_live(txn);

	if (err)
		return err;
	if (bucket->dropped)
		return error_set(&txn->error, BTS_INVALID, 0, "the bucket was dropped in this transaction");
	err = reads_whole(txn, bucket);
	if (err)
		return err;
	ops_fill_info(bucket, info);
	return BTS_OK;
}

enum bts_err bts_bucket_next(struct bts_txn *txn, struct bts_slice after, struct bts_bucket_info *info)
{
	struct bucket_state found, *bucket;
	struct bts_slice name = { 0 };
	enum bts_err read, err = ops_check_fork(txn); /* the catalog is brought up to date for it */

	if (err)
		return err;
	if (after.size > BTS_BUCKET_NAME_MAX)
		return error_set(&txn->error, BTS_INVALID, 0, "bucket name of %zu bytes", after.size);
	err = state_bucket_after(txn->state, after, &found);
	if (err == BTS_OK) { /* opened: so that what info borrows lives as long as the transaction */
		name = (struct bts_slice){ found.name, found.name_size };
		err = state_bucket(txn->state, name, false, &bucket);
	}
	if (err && err != BTS_NOT_FOUND)
		return err;
	read = reads_list(txn, after, name);
	if (read == BTS_OK && err == BTS_OK)
		read = reads_open(txn, name, bucket);
	if (read == BTS_OK && err == BTS_OK)
		read = reads_whole(txn, bucket);
	if (read)
		return read;
	if (err)
		return error_set(&txn->error, err, 0, "no further bucket");
	ops_fill_info(bucket, info);
	return BTS_OK;
}

static enum bts_err ops_look(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice key)
{
	enum bts_err err = ops_check_key(txn, handle, key);

	if (err == BTS_OK && reads_wanted(txn))
		err = reads_key(txn, (struct bucket_state *)handle, key);
	return err;
}

static enum bts_err ops_find(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice key, struct tree_hit *hit)
{
	enum bts_err err = ops_look(txn, handle, key);

	if (err)
		return err;
	err = tree_get(&txn->state->ctx, &((struct bucket_state *)handle)->tree, key, hit);
	return err == BTS_NOT_FOUND ? error_no_key(&txn->error) : err;
}

void bts_expect(struct bts_txn *txn, struct bts_bucket *handle, const struct bts_slice *keys, size_t count)
{
	const struct bucket_state *bucket = (struct bucket_state *)handle;

	if (bucket->dropped || shared_reader_expired(&txn->reader))
		return;
	for (size_t i = 0; i < count; i++)
		if (keys[i].size < 1 || keys[i].size > BTS_KEY_MAX)
			return;
	tree_expect(&txn->state->ctx, &bucket->tree, keys, count);
}

static bts_txid ops_version(const struct bts_txn *txn, const struct tree_hit *hit)
{
	return txn->group == NULL && hit->cell.version > txn->own.record.txid ? 0 : hit->cell.version;
}

enum bts_err bts_get_version(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key, struct bts_slice *value,
	bts_txid *version)
{
	struct tree_hit hit;
	enum bts_err err = ops_find(txn, bucket, key, &hit);

	if (err)
		return err;
	err = tree_value(&txn->state->ctx, &hit.cell, value);
	if (err == BTS_OK && version != NULL)
		*version = ops_version(txn, &hit);
	return err;
}

enum bts_err bts_peek(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key, struct bts_slice *value,
	bts_txid *version)
{
	struct tree_hit hit;
	enum bts_err err = ops_look(txn, bucket, key);

	if (err == BTS_OK)
		err = tree_peek(&txn->state->ctx, &((struct bucket_state *)bucket)->tree, key, &hit);
	if (err)
		return err == BTS_NOT_FOUND ? error_no_key(&txn->error) : err;
	*value = hit.cell.extent ? (struct bts_slice){NULL, (size_t)hit.cell.size} : hit.cell.value;
	if (version != NULL)
		*version = ops_version(txn, &hit);
	return BTS_OK;
}

enum bts_err bts_get_bounded(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key, uint64_t most,
	struct bts_get_state *state, struct bts_slice *value)
{
	struct tree_hit hit;
	enum bts_err err = ops_find(txn, bucket, key, &hit);

	if (err)
		return err;
	if (hit.cell.extent)
		return pager_extent_bounded(&txn->state->ctx, &hit.cell.ptr, hit.cell.size, most, state, value);
	*value = hit.cell.value;
	return BTS_OK;
}

enum bts_err bts_get(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key, struct bts_slice *value)
{
	return bts_get_version(txn, bucket, key, value, NULL);
}

enum bts_err ops_check_presence(struct bts_txn *txn, struct bucket_state *bucket, struct bts_slice key, unsigned flags)
{
	struct tree_hit hit;
	enum bts_err err;

	if (flags & ~(BTS_PUT_NEW | BTS_PUT_EXISTING) || flags == (BTS_PUT_NEW | BTS_PUT_EXISTING))
		return error_set(&txn->error, BTS_INVALID, 0, "bts_put: impossible flags %#x", flags);
	if (flags == 0)
		return BTS_OK;
	err = reads_key(txn, bucket, key);
	if (err)
		return err;
	err = tree_peek(&txn->state->ctx, &bucket->tree, key, &hit);
	if (err == BTS_OK && flags == BTS_PUT_NEW)
		return error_set(&txn->error, BTS_EXISTS, 0, "the key is already there");
	if (err == BTS_NOT_FOUND)
		return flags == BTS_PUT_NEW ? BTS_OK : error_no_key(&txn->error);
	return err;
}

enum bts_err ops_put(struct bts_txn *txn, struct bucket_state *bucket, struct bts_slice key, struct bts_slice value,
	const struct page_ptr *made)
{
	struct tree_ctx *ctx = &txn->state->ctx;
	size_t from = txn->log.size;
	enum bts_err err = ops_log_put(txn, bucket, key, value, made);

	if (err == BTS_OK)
		err = state_touch(txn->state, bucket);
	if (err == BTS_OK) {
		/* Even if it fails: no content has changed then, but the root may have moved. */
		bucket->changed = bucket->unsettled = true;
		err = made != NULL ? tree_put_made(ctx, &bucket->tree, key, made, value.size, ctx->stamp) :
				     tree_put(ctx, &bucket->tree, key, value, ctx->stamp);
	}
	if (err && made != NULL)
		(void)dirty_release(ctx, made, 1); /* else it goes with the transaction */
	return ops_done(txn, from, err);
}

enum bts_err bts_put(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice key, struct bts_slice value,
	unsigned flags)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;
	struct page_ptr made;
	enum bts_err err = ops_check_write(txn);

	if (err == BTS_OK)
		err = ops_check_key(txn, handle, key);
	if (err)
		return err;
	if (value.size > BTS_VALUE_MAX)
		return error_set(&txn->error, BTS_INVALID, 0, "value of %zu bytes (at most 2^40 - 1)", value.size);
	err = ops_check_presence(txn, bucket, key, flags);
	if (err)
		return err;
	if (node_fits_inline(txn->db->pager.page_size, key.size, value.size))
		return ops_put(txn, bucket, key, value, NULL);
	err = dirty_extent(&txn->state->ctx, value, &made); /* first, for the log refers to it */
	return err ? err : ops_put(txn, bucket, key, value, &made);
}

enum bts_err bts_del(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice key)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;
	size_t from = txn->log.size;
	enum bts_err err = ops_check_write(txn);

	if (err == BTS_OK)
		err = ops_check_key(txn, handle, key);
	if (err == BTS_OK)
		err = reads_key(txn, bucket, key);
	if (err == BTS_OK)
		err = ops_log(txn, OPLOG_DEL, bucket, key, (struct bts_slice){ 0 });
	if (err == BTS_OK)
		err = state_touch(txn->state, bucket);
	if (err == BTS_OK) {
		err = tree_del(&txn->state->ctx, &bucket->tree, key);
		if (err == BTS_NOT_FOUND)
			error_no_key(&txn->error);
		else
			bucket->changed = bucket->unsettled = true; /* as in bts_put */
	}
	return ops_done(txn, from, err);
}

enum bts_err bts_del_range(struct bts_txn *txn, struct bts_bucket *handle, struct bts_slice from, struct bts_slice to,
	uint64_t *deleted)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;
	struct tree_range range = { from, to };
	size_t log = txn->log.size;
	uint64_t count = 0;
	enum bts_err err = ops_check_write(txn);

	if (err == BTS_OK && (from.size > BTS_KEY_MAX || to.size > BTS_KEY_MAX))
		err = error_set(&txn->error, BTS_INVALID, 0, "a range of keys of over %d bytes", BTS_KEY_MAX);
	if (err == BTS_OK && bucket->dropped)
		err = error_set(&txn->error, BTS_INVALID, 0, "the bucket was dropped in this transaction");
	if (err == BTS_OK)
		err = reads_range(txn, bucket, from, to);
	if (err == BTS_OK)
		err = ops_log(txn, OPLOG_DEL_RANGE, bucket, from, to);
	if (err == BTS_OK)
		err = state_touch(txn->state, bucket);
	if (err == BTS_OK)
		err = tree_cut(&txn->state->ctx, &bucket->tree, &range, &count);
	if (err == BTS_OK && count == 0) {
		txn->log.size = log;
	} else {
		if (err == BTS_OK)
			state_bucket_changed(txn->state, bucket);
		err = ops_done(txn, log, err);
	}
	if (err == BTS_OK && deleted != NULL)
		*deleted = count;
	return err;
}

bts_txid bts_conflict_winner(const struct bts_txn *txn)
{
	return txn->winner;
}
