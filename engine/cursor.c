/* Public cursors: a tree cursor bound to a transaction and a bucket. */
#include "txn.h"

#include "error.h"
#include "node_cell.h"

#include <string.h>

enum bts_err bts_cursor_open(struct bts_txn *txn, struct bts_bucket *handle, struct bts_cursor **out,
	struct bts_error *error)
{
	struct bts_env *env = txn->db->env;
	struct bucket_state *bucket = (struct bucket_state *)handle;
	struct bts_cursor *cursor;

	if (txn_live(txn))
		goto fail;
	if (bucket->dropped) {
		error_set(&txn->error, BTS_INVALID, 0, "the bucket was dropped in this transaction");
		goto fail;
	}
	cursor = env->ops->memory(env, NULL, sizeof(*cursor));
	if (cursor == NULL) {
		error_set(&txn->error, BTS_MEMORY, 0, "no memory for a cursor");
		goto fail;
	}
	memset(cursor, 0, sizeof(*cursor));
	cursor->txn = txn;
	cursor->bucket = bucket;
	tree_cursor_init(&cursor->core, &txn->state->ctx, &bucket->tree);
	cursor->next = txn->cursors;
	cursor->link = &txn->cursors;
	if (cursor->next != NULL)
		cursor->next->link = &cursor->next;
	txn->cursors = cursor;
	*out = cursor;
	return BTS_OK;
fail:
	if (error != NULL)
		*error = txn->error;
	return txn->error.code;
}

void bts_cursor_close(struct bts_cursor *cursor)
{
	struct bts_env *env;

	if (cursor == NULL)
		return;
	env = cursor->txn->db->env;
	*cursor->link = cursor->next;
	if (cursor->next != NULL)
		cursor->next->link = cursor->link;
	env->ops->memory(env, cursor, 0);
}

static enum bts_err cursor_give(struct bts_cursor *cursor, enum bts_err err, const struct node_cell *cell,
	struct bts_slice *key, struct bts_slice *value)
{
	struct bts_slice bytes;

	if (err == BTS_NOT_FOUND)
		return error_set(&cursor->txn->error, err, 0, "no further entry");
	if (err)
		return err;
	if (value != NULL) {
		err = tree_value(cursor->core.ctx, cell, &bytes);
		if (err)
			return err;
		*value = bytes;
	}
	if (key != NULL)
		*key = cell->key;
	cursor->version = cell->version;
	return BTS_OK;
}

/*
 * A step within a leaf of a transaction that only reads, to an entry whose value is there: most steps of a scan.  false:
 * nothing was done, take the long way.
 */
static inline bool cursor_near(struct bts_cursor *cursor, int step, struct bts_slice *key, struct bts_slice *value)
{
	const struct tree_cursor *core = &cursor->core;
	const uint8_t *page, *cell;
	unsigned index, length;

	if (core->depth == 0 || core->before || core->ctx->dirty != NULL || txn_live(cursor->txn))
		return false;
	page = core->path[core->depth - 1].page;
	index = core->path[core->depth - 1].index + (unsigned)step;
	if (index >= layout_count(page))
		return false;
	length = node_slot_length(page, index);
	if (length & NODE_EXTENT_BIT)
		return false;
	cursor->core.path[core->depth - 1].index = index;
	cell = page + node_slot_offset(page, index);
	if (index + 4u * (unsigned)step < layout_count(page))
		__builtin_prefetch(page + node_slot_offset(page, index + 4u * (unsigned)step));
	cursor->version = bytes_get_u48_wide(cell);
	if (key != NULL)
		*key = (struct bts_slice){ cell + NODE_LEAF_CELL, length };
	if (value != NULL)
		*value = (struct bts_slice){ cell + NODE_LEAF_CELL + length, bytes_get_u16(cell + 6) };
	return true;
}

static enum bts_err cursor_usable(struct bts_cursor *cursor)
{
	if (cursor->bucket->dropped)
		return error_set(&cursor->txn->error, BTS_INVALID, 0, "the bucket was dropped in this transaction");
	return txn_live(cursor->txn);
}

typedef enum bts_err cursor_step(struct tree_cursor *, struct node_cell *);

/* A step of a serializable transaction: it has read from where it stood, or the end, to where it comes. */
static enum bts_err cursor_step_read(struct bts_cursor *cursor, cursor_step *step, struct node_cell *cell)
{
	bool relative = step == tree_cursor_next || step == tree_cursor_prev;
	bool back = step == tree_cursor_last || step == tree_cursor_prev;
	struct bts_slice start = { 0 }, end = { 0 };
	uint8_t copy[BTS_KEY_MAX];
	enum bts_err read, err;

	if (relative && cursor->core.depth > 0) {
		memcpy(copy, cursor->core.key, cursor->core.key_size);
		start = (struct bts_slice){ copy, cursor->core.key_size };
	}
	err = step(&cursor->core, cell);
	if (err && err != BTS_NOT_FOUND)
		return err;
	if (err == BTS_OK)
		end = cell->key;
	read = back ? reads_range(cursor->txn, cursor->bucket, end, start) :
		      reads_range(cursor->txn, cursor->bucket, start, end);
	return read ? read : err;
}

static enum bts_err cursor_move(struct bts_cursor *cursor, cursor_step *step, struct bts_slice *key,
	struct bts_slice *value)
{
	struct node_cell cell;
	enum bts_err err = cursor_usable(cursor);

	if (err == BTS_OK)
		err = reads_wanted(cursor->txn) ? cursor_step_read(cursor, step, &cell) : step(&cursor->core, &cell);
	return cursor_give(cursor, err, &cell, key, value);
}

enum bts_err bts_cursor_first(struct bts_cursor *cursor, struct bts_slice *key, struct bts_slice *value)
{
	return cursor_move(cursor, tree_cursor_first, key, value);
}

enum bts_err bts_cursor_last(struct bts_cursor *cursor, struct bts_slice *key, struct bts_slice *value)
{
	return cursor_move(cursor, tree_cursor_last, key, value);
}

enum bts_err bts_cursor_next(struct bts_cursor *cursor, struct bts_slice *key, struct bts_slice *value)
{
	if (cursor_near(cursor, 1, key, value))
		return BTS_OK;
	return cursor_move(cursor, tree_cursor_next, key, value);
}

enum bts_err bts_cursor_prev(struct bts_cursor *cursor, struct bts_slice *key, struct bts_slice *value)
{
	if (cursor_near(cursor, -1, key, value))
		return BTS_OK;
	return cursor_move(cursor, tree_cursor_prev, key, value);
}

enum bts_err bts_cursor_seek(struct bts_cursor *cursor, struct bts_slice at, struct bts_slice *key, struct bts_slice *value)
{
	struct node_cell cell;
	enum bts_err read = BTS_OK, err = cursor_usable(cursor);

	if (err == BTS_OK && at.size > BTS_KEY_MAX)
		err = error_set(&cursor->txn->error, BTS_INVALID, 0, "key of %zu bytes (at most %d)", at.size, BTS_KEY_MAX);
	if (err == BTS_OK && at.size == 0)
		return bts_cursor_first(cursor, key, value);
	if (err == BTS_OK)
		err = tree_cursor_seek(&cursor->core, at, &cell);
	if (err == BTS_OK || err == BTS_NOT_FOUND)
		read = reads_range(cursor->txn, cursor->bucket, at, err ? (struct bts_slice){ 0 } : cell.key);
	err = read ? read : err;
	return cursor_give(cursor, err, &cell, key, value);
}

bts_txid bts_cursor_version(const struct bts_cursor *cursor)
{
	const struct bts_txn *txn = cursor->txn;

	return txn->group == NULL && cursor->version > txn->own.record.txid ? 0 : cursor->version;
}

enum bts_err bts_cursor_peek(struct bts_cursor *cursor, struct bts_slice *value)
{
	const struct tree_cursor *core = &cursor->core;
	unsigned leaf = core->depth - 1;
	enum bts_err err = cursor_usable(cursor);
	struct node_cell cell;

	if (err)
		return err;
	if (core->depth == 0 || core->before || core->changes != core->ctx->changes ||
		core->path[leaf].index >= layout_count(core->path[leaf].page))
		return error_set(&cursor->txn->error, BTS_INVALID, 0, "the cursor stands on no entry");
	node_cell(core->path[leaf].page, core->path[leaf].index, &cell);
	*value = cell.extent ? (struct bts_slice){ NULL, (size_t)cell.size } : cell.value;
	return BTS_OK;
}
