/*
 * Buckets: the catalog tree maps a name to a record of the bucket's own tree; a state keeps the buckets it has opened.
 *
 * Catalog record, little-endian (the cell's version is the bucket's):
 *	 0 u32 tree id     4 u32 depth     8 root pointer 16     24 u64 entries     32 u64 bytes     40 u64 pages
 *	48 u16 meta size  50 meta         then u16 size of typed room (0 in version 0) and the room
 */
#include "txn.h"

#include "base/ensure.h"
#include "error.h"

#include <string.h>

#define BUCKET_FIXED 50u
#define BUCKET_ROOM_MAX 1024u

static void *bucket_memory(struct state *state, void *old, size_t size)
{
	return state->db->env->ops->memory(state->db->env, old, size);
}

size_t bucket_record_encode(const struct bucket_state *bucket, uint8_t bytes[BUCKET_RECORD_MAX])
{
	bytes_put_u32(bytes, bucket->tree.id);
	bytes_put_u32(bytes + 4, bucket->tree.depth);
	layout_put_ptr(bytes + 8, &bucket->tree.root);
	bytes_put_u64(bytes + 24, bucket->tree.entries);
	bytes_put_u64(bytes + 32, bucket->tree.bytes);
	bytes_put_u64(bytes + 40, bucket->tree.pages);
	bytes_put_u16(bytes + 48, bucket->meta_size);
	memcpy(bytes + BUCKET_FIXED, bucket->meta, bucket->meta_size);
	bytes_put_u16(bytes + BUCKET_FIXED + bucket->meta_size, 0);
	return BUCKET_FIXED + bucket->meta_size + 2;
}

const char *bucket_record_decode(struct bts_slice name, struct bts_slice bytes, bts_txid version, struct bucket_state *out)
{
	const uint8_t *at = bytes.data;
	size_t meta, room;

	if (name.size < 1 || name.size > BTS_BUCKET_NAME_MAX)
		return "bucket name of a wrong length";
	if (bytes.size < BUCKET_FIXED + 2)
		return "bucket record cut short";
	meta = bytes_get_u16(at + 48);
	if (meta > BTS_BUCKET_META_MAX || BUCKET_FIXED + meta + 2 > bytes.size)
		return "bucket record: meta longer than the record";
	room = bytes_get_u16(at + BUCKET_FIXED + meta);
	if (room > BUCKET_ROOM_MAX || BUCKET_FIXED + meta + 2 + room != bytes.size)
		return "bucket record: length does not add up";
	memset(out, 0, sizeof(*out));
	out->name_size = (uint8_t)name.size;
	memcpy(out->name, name.data, name.size);
	out->meta_size = (uint8_t)meta;
	memcpy(out->meta, at + BUCKET_FIXED, meta);
	out->version = version;
	out->tree.id = bytes_get_u32(at);
	out->tree.depth = bytes_get_u32(at + 4);
	out->tree.root = layout_get_ptr(at + 8);
	out->tree.entries = bytes_get_u64(at + 24);
	out->tree.bytes = bytes_get_u64(at + 32);
	out->tree.pages = bytes_get_u64(at + 40);
	if (out->tree.id < LAYOUT_TREE_FIRST_BUCKET || out->tree.depth > TREE_DEPTH_MAX ||
		(out->tree.depth == 0) != (out->tree.root.pgno == 0))
		return "bucket record: impossible tree";
	return NULL;
}

enum bts_err state_init(struct state *state, struct bts *db, const struct commit_record *record, bool writing,
	struct bts_error *error)
{
	memset(state, 0, offsetof(struct state, record));
	state->db = db;
	if (writing)
		state->record = *record;
	else
		meta_record_copy_reader(&state->record, record);
	state->base_catalog = record->catalog;
	state->ctx.pager = &db->pager;
	state->ctx.limit = record->high_water;
	state->ctx.newest = record->txid;
	state->ctx.error = error;
	if (!writing)
		return BTS_OK;
	if (dirty_new(db->env, db->pager.page_size, &state->dirty))
		return error_set(error, BTS_MEMORY, 0, "no memory for a transaction");
	state->ctx.dirty = state->dirty;
	return BTS_OK;
}

void state_fini(struct state *state)
{
	for (size_t i = 0; i < state->bucket_count; i++)
		bucket_memory(state, state->buckets[i], 0);
	bucket_memory(state, state->buckets, 0);
	bucket_memory(state, state->undo, 0);
	dirty_free(state->dirty);
	state->buckets = NULL;
	state->undo = NULL;
	state->dirty = NULL;
	state->bucket_count = state->undo_count = 0;
}

static bool bucket_is(const struct bucket_state *bucket, struct bts_slice name)
{
	return bucket->name_size == name.size && memcmp(bucket->name, name.data, name.size) == 0;
}

static enum bts_err bucket_add(struct state *state, const struct bucket_state *value, struct bucket_state **out)
{
	struct bucket_state *bucket;

	if (state->bucket_count == state->bucket_cap) {
		size_t cap = state->bucket_cap == 0 ? 8 : state->bucket_cap * 2;
		void *fresh = bucket_memory(state, state->buckets, cap * sizeof(*state->buckets));

		if (fresh == NULL)
			return error_set(state->ctx.error, BTS_MEMORY, 0, "no memory to open a bucket");
		state->buckets = fresh;
		state->bucket_cap = cap;
	}
	bucket = bucket_memory(state, NULL, sizeof(*bucket));
	if (bucket == NULL)
		return error_set(state->ctx.error, BTS_MEMORY, 0, "no memory to open a bucket");
	*bucket = *value;
	state->buckets[state->bucket_count++] = bucket;
	*out = bucket;
	return BTS_OK;
}

static enum bts_err bucket_load(struct state *state, struct tree *catalog, struct bts_slice name,
	struct bucket_state *value)
{
	struct bts_slice bytes;
	struct tree_hit hit;
	const char *wrong;
	enum bts_err err;

	err = tree_get(&state->ctx, catalog, name, &hit);
	if (err)
		return err;
	err = tree_value(&state->ctx, &hit.cell, &bytes);
	if (err)
		return err;
	wrong = bucket_record_decode(name, bytes, hit.cell.version, value);
	if (wrong != NULL)
		return error_set(state->ctx.error, BTS_CORRUPT, 0, "catalog: %s", wrong);
	return BTS_OK;
}

enum bts_err state_bucket_at(struct state *state, struct bts_slice name, struct bucket_state *out)
{
	return bucket_load(state, &state->base_catalog, name, out);
}

static void bucket_create(struct state *state, struct bts_slice name, struct bucket_state *value)
{
	memset(value, 0, sizeof(*value));
	value->name_size = (uint8_t)name.size;
	memcpy(value->name, name.data, name.size);
	value->tree.id = state->record.next_tree++;
	value->version = state->ctx.stamp;
	value->changed = true;
	value->created = true;
	state->record.buckets++;
	state->changed = true;
	state->ctx.changes++;
}

enum bts_err state_bucket(struct state *state, struct bts_slice name, bool create, struct bucket_state **out)
{
	struct bucket_state value, *bucket = NULL;
	enum bts_err err;

	if (name.size < 1 || name.size > BTS_BUCKET_NAME_MAX)
		return error_set(state->ctx.error, BTS_INVALID, 0, "bucket name of %zu bytes (1 to %d are allowed)",
			name.size, BTS_BUCKET_NAME_MAX);
	for (size_t i = 0; i < state->bucket_count && bucket == NULL; i++)
		if (bucket_is(state->buckets[i], name))
			bucket = state->buckets[i];
	if (bucket != NULL && !bucket->dropped) {
		*out = bucket;
		return BTS_OK;
	}
	err = bucket != NULL ? BTS_NOT_FOUND : bucket_load(state, &state->record.catalog, name, &value);
	if (err == BTS_NOT_FOUND && !create)
		return error_set(state->ctx.error, BTS_NOT_FOUND, 0, "no such bucket");
	if (err && err != BTS_NOT_FOUND)
		return err;
	if (bucket != NULL) { /* dropped here before: the name gets a new tree */
		err = state_touch(state, bucket);
		if (err)
			return err;
		bucket_create(state, name, &value);
		value.saved_by = bucket->saved_by;
		*bucket = value;
		*out = bucket;
		return BTS_OK;
	}
	if (err == BTS_OK)
		return bucket_add(state, &value, out);
	if (state->record.next_tree == UINT32_MAX)
		return error_set(state->ctx.error, BTS_FULL, 0, "no bucket ids left");
	memset(&value, 0, sizeof(value));
	err = bucket_add(state, &value, out);
	if (err == BTS_OK)
		bucket_create(state, name, *out);
	return err;
}

enum bts_err state_touch(struct state *state, struct bucket_state *bucket)
{
	if (state->nested == 0 || bucket->saved_by == state->nested)
		return BTS_OK;
	if (state->undo_count == state->undo_cap) {
		size_t cap = state->undo_cap == 0 ? 8 : state->undo_cap * 2;
		void *fresh = bucket_memory(state, state->undo, cap * sizeof(*state->undo));

		if (fresh == NULL)
			return error_set(state->ctx.error, BTS_MEMORY, 0, "no memory for a transaction");
		state->undo = fresh;
		state->undo_cap = cap;
	}
	state->undo[state->undo_count++] = (struct bucket_undo){ bucket, *bucket };
	bucket->saved_by = state->nested;
	return BTS_OK;
}

enum bts_err state_bucket_drop(struct state *state, struct bts_slice name, struct bucket_state **dropped)
{
	struct bucket_state *bucket;
	enum bts_err err;

	err = state_bucket(state, name, false, &bucket);
	if (err)
		return err;
	err = state_touch(state, bucket);
	if (err)
		return err;
	err = tree_del(&state->ctx, &state->record.catalog, name);
	if (err && err != BTS_NOT_FOUND)
		return err;
	err = tree_drop(&state->ctx, &bucket->tree);
	if (err) {
		bucket->changed = true; /* the next settling enters it in the catalog again */
		return err;
	}
	bucket->dropped = true;
	bucket->changed = false;
	state->record.buckets--;
	state->changed = true;
	state->ctx.changes++;
	*dropped = bucket;
	return BTS_OK;
}

enum bts_err state_settle(struct state *state)
{
	uint8_t bytes[BUCKET_RECORD_MAX];

	for (size_t i = 0; i < state->bucket_count; i++) {
		struct bucket_state *bucket = state->buckets[i];
		struct bts_slice value = { bytes, 0 };
		enum bts_err err;

		if (!bucket->changed || bucket->dropped)
			continue;
		value.size = bucket_record_encode(bucket, bytes);
		err = tree_put(&state->ctx, &state->record.catalog,
			(struct bts_slice){ bucket->name, bucket->name_size }, value, bucket->version);
		if (err)
			return err;
	}
	return BTS_OK;
}

enum bts_err state_bucket_after(struct state *state, struct bts_slice after, struct bucket_state *out)
{
	struct tree_cursor cursor;
	struct node_cell cell;
	struct bts_slice bytes;
	const char *wrong;
	enum bts_err err;

	if (state->dirty != NULL) {
		err = state_settle(state);
		if (err)
			return err;
	}
	tree_cursor_init(&cursor, &state->ctx, &state->record.catalog);
	err = after.size == 0 ? tree_cursor_first(&cursor, &cell) : tree_cursor_seek(&cursor, after, &cell);
	if (err == BTS_OK && after.size != 0 && cell.key.size == after.size &&
		memcmp(cell.key.data, after.data, after.size) == 0)
		err = tree_cursor_next(&cursor, &cell);
	if (err)
		return err;
	err = tree_value(&state->ctx, &cell, &bytes);
	if (err)
		return err;
	wrong = bucket_record_decode(cell.key, bytes, cell.version, out);
	if (wrong != NULL)
		return error_set(state->ctx.error, BTS_CORRUPT, 0, "catalog: %s", wrong);
	return BTS_OK;
}

enum bts_err state_begin_nested(struct state *state, bts_txid stamp)
{
	static const uint32_t first = 1;

	ENSURE(state->mark.next_tree == 0);
	state->nested = state->nested == 0 ? first : state->nested;
	state->mark = (struct state_mark){ state->record.catalog, state->record.history, state->record.next_tree,
		state->record.buckets, state->bucket_count, state->changed };
	state->undo_count = 0;
	state->ctx.stamp = stamp;
	return dirty_begin(state->dirty);
}

static void state_end_nested(struct state *state)
{
	state->mark.next_tree = 0;
	state->undo_count = 0;
	state->nested++;
}

void state_keep_nested(struct state *state)
{
	dirty_keep(state->dirty);
	state_end_nested(state);
}

void state_rollback_nested(struct state *state)
{
	dirty_rollback(state->dirty);
	for (size_t i = state->undo_count; i-- > 0;)
		*state->undo[i].bucket = state->undo[i].before;
	while (state->bucket_count > state->mark.bucket_count)
		bucket_memory(state, state->buckets[--state->bucket_count], 0);
	state->record.catalog = state->mark.catalog;
	state->record.history = state->mark.history;
	state->record.next_tree = state->mark.next_tree;
	state->record.buckets = state->mark.buckets;
	state->changed = state->mark.changed;
	state->ctx.changes++;
	state_end_nested(state);
}
