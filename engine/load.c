/* Bulk load through the public interface: a tree load (tree_load.h) bound to a transaction and a bucket. */
#include "ops.h"

#include "error.h"
#include "node.h"
#include "tree_load.h"

#include <string.h>

struct bts_load {
	struct bts_txn *txn;
	struct bucket_state *bucket;
	struct tree_load core;
	size_t log_from; /* where the log of the transaction is cut when the load does not happen */
	size_t log_end;
};

static void load_free(struct bts_load *load)
{
	struct bts_env *env = load->txn->db->env;

	load->txn->load = NULL;
	env->ops->memory(env, load, 0);
}

/* That nothing lies behind its last key is what a load relies on. */
static enum bts_err load_read(struct bts_load *load)
{
	const uint8_t *leaf = load->core.spine[0].page;
	struct bts_slice last = {0}, end = {0};

	if (leaf != NULL && layout_count(leaf) > 0)
		last = node_key(leaf, layout_count(leaf) - 1u);
	return reads_range(load->txn, load->bucket, last, end);
}

static enum bts_err load_begin(
	struct bts_txn *txn, struct bts_bucket *handle, unsigned fill, struct bts_load **out)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;
	struct bts_env *env = txn->db->env;
	struct bts_load *load;
	enum bts_err err = ops_check_write(txn);

	if (err)
		return err;
	if (bucket->dropped)
		return error_set(&txn->error, BTS_INVALID, 0, "the bucket was dropped in this transaction");
	if (fill != 0 && (fill < 50 || fill > 100))
		return error_set(&txn->error, BTS_INVALID, 0,
			"bts_load_begin: fill of %u percent (50 to 100 are allowed)", fill);
	load = env->ops->memory(env, NULL, sizeof(*load));
	if (load == NULL)
		return error_set(&txn->error, BTS_MEMORY, 0, "no memory for a load");
	load->txn = txn;
	load->bucket = bucket;
	load->log_from = load->log_end = txn->log.size;
	err = state_touch(txn->state, bucket);
	if (err == BTS_OK)
		err = tree_load_begin(&load->core, &txn->state->ctx, &bucket->tree, fill == 0 ? 100 : fill);
	if (err == BTS_OK) {
		err = load_read(load);
		if (err)
			tree_load_abort(&load->core);
	}
	if (err) {
		env->ops->memory(env, load, 0);
		return err;
	}
	txn->load = load;
	*out = load;
	return BTS_OK;
}

enum bts_err bts_load_begin(struct bts_txn *txn, struct bts_bucket *bucket, unsigned fill,
	struct bts_load **load, struct bts_error *error)
{
	enum bts_err err = load_begin(txn, bucket, fill, load);

	if (err && error != NULL)
		*error = txn->error;
	return err;
}

enum bts_err bts_load_add(struct bts_load *load, struct bts_slice key, struct bts_slice value)
{
	struct bts_txn *txn = load->txn;
	struct tree_ctx *ctx = &txn->state->ctx;
	struct page_ptr made;
	bool large;
	enum bts_err err = ops_check_fork(txn);

	if (err == BTS_OK)
		err = ops_check_key(txn, (struct bts_bucket *)load->bucket, key);
	if (err)
		return err;
	if (value.size > BTS_VALUE_MAX)
		return error_set(
			&txn->error, BTS_INVALID, 0, "value of %zu bytes (at most 2^40 - 1)", value.size);
	large = !node_fits_inline(ctx->pager->page_size, key.size, value.size);
	if (large) {
		err = dirty_extent(ctx, value, &made);
		if (err)
			return err;
	}
	err = ops_log_put(txn, load->bucket, key, value, large ? &made : NULL);
	if (err) {
		if (large)
			(void)dirty_release(ctx, &made, 1); /* just made: cannot fail */
		return err;
	}
	err = tree_load_add(&load->core, key, value, large ? &made : NULL, ctx->stamp);
	if (err)
		txn->log.size = load->log_end;
	else
		load->log_end = txn->log.size;
	return err;
}

enum bts_err bts_load_end(struct bts_load *load, struct bts_error *error)
{
	struct bts_txn *txn = load->txn;
	uint64_t before = load->bucket->tree.entries;
	enum bts_err err = tree_load_end(&load->core);

	if (err) {
		txn->log.size = load->log_from;
		if (error != NULL)
			*error = txn->error;
	} else if (load->bucket->tree.entries != before) {
		state_bucket_changed(txn->state, load->bucket);
		txn->changed = true;
	}
	load_free(load);
	return err;
}

void bts_load_abort(struct bts_load *load)
{
	if (load == NULL)
		return;
	tree_load_abort(&load->core);
	load->txn->log.size = load->log_from;
	load_free(load);
}

void load_drop(struct bts_txn *txn)
{
	bts_load_abort(txn->load);
}
