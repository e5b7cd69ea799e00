/*
 * Buckets: the catalog tree maps a name to a record of the bucket's own tree; a state keeps the buckets it has opened.
 *
 * Catalog record, little-endian (the cell's version is the bucket's):
 *	 0 u32 tree id     4 u32 depth     8 root pointer 16     24 u64 entries     32 u64 bytes     40 u64 pages
 *	48 u16 meta size  50 meta         then u16 size of the room for options and the room (FORMAT.md); none is written
 */
#include "txn.h"

#include "base/ensure.h"
#include "error.h"
#include "redirect.h"

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
	if (meta_room_check(at + BUCKET_FIXED + meta + 2, room) != NULL)
		return meta_room_check(at + BUCKET_FIXED + meta + 2, room);
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
	state->base_snapshots = record->snapshots;
	state->ctx.pager = &db->pager;
	state->ctx.limit = record->high_water;
	state->ctx.newest = record->txid;
	state->ctx.error = error;
	if (!writing)
		return BTS_OK;
	if (dirty_new(db->env, db->pager.page_size, &state->dirty))
		return error_set(error, BTS_MEMORY, 0, "no memory for a transaction");
	dirty_spill(state->dirty, &db->beside, db->txn_memory - db->txn_memory / TXN_LOG_SHARE);
	state->ctx.dirty = state->dirty;
	return BTS_OK;
}

void state_redirect(struct state *state, struct redirect *table)
{
	redirect_drop(state->db, state->redirect);
	state->redirect = table;
	redirect_use(&state->ctx, table);
}

void state_again(struct state *state)
{
	const struct commit_record *record = &state->record;

	state->base_catalog = record->catalog;
	state->base_snapshots = record->snapshots;
	state->ctx.limit = record->high_water;
	state->ctx.newest = record->txid;
	state->ctx.changes++;
	state->bucket_count = 0;
	state->last = NULL;
	if (state->index != NULL)
		memset(state->index, 0, state->index_cap * sizeof(*state->index));
}

void state_fini(struct state *state)
{
	size_t made = state->bucket_made > state->bucket_count ? state->bucket_made : state->bucket_count;

	for (size_t i = 0; i < made; i++)
		bucket_memory(state, state->buckets[i], 0);
	bucket_memory(state, state->buckets, 0);
	bucket_memory(state, state->index, 0);
	bucket_memory(state, state->marks, 0);
	bucket_memory(state, state->undo, 0);
	dirty_free(state->dirty);
	if (state->redirect != NULL)
		state_redirect(state, NULL);
	state->buckets = NULL;
	state->index = NULL;
	state->marks = NULL;
	state->undo = NULL;
	state->dirty = NULL;
	state->last = NULL;
	state->bucket_count = state->bucket_cap = state->bucket_made = state->undo_count = state->mark_count = 0;
}

static bool bucket_is(const struct bucket_state *bucket, struct bts_slice name)
{
	return bucket->name_size == name.size && memcmp(bucket->name, name.data, name.size) == 0;
}

/* The slot of the index that has the name or, when none has, would take it. */
static uint32_t *bucket_slot(struct state *state, struct bts_slice name)
{
	const uint8_t *p = name.data;
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	size_t at;

	for (size_t i = 0; i < name.size; i++)
		hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
	for (at = (size_t)(hash ^ hash >> 32);; at++) {
		uint32_t *slot = &state->index[at & (state->index_cap - 1)];

		if (*slot == 0 || bucket_is(state->buckets[*slot - 1], name))
			return slot;
	}
}

/* A name may have been left by a bucket that was dropped, and stays with it only until another takes it. */
static void bucket_enter(struct state *state, size_t place)
{
	const struct bucket_state *bucket = state->buckets[place];
	uint32_t *slot = bucket_slot(state, (struct bts_slice){ bucket->name, bucket->name_size });

	if (*slot == 0 || state->buckets[*slot - 1]->dropped)
		*slot = (uint32_t)place + 1;
}

static void bucket_index(struct state *state)
{
	memset(state->index, 0, state->index_cap * sizeof(*state->index));
	for (size_t i = 0; i < state->bucket_count; i++)
		bucket_enter(state, i);
	state->index_stale = false;
}

static struct bucket_state *bucket_find(struct state *state, struct bts_slice name)
{
	uint32_t *slot;

	if (state->bucket_count == 0)
		return NULL;
	if (state->index_stale)
		bucket_index(state);
	slot = bucket_slot(state, name);
	return *slot == 0 ? NULL : state->buckets[*slot - 1];
}

static bool bucket_grow(struct state *state)
{
	size_t cap = state->bucket_cap == 0 ? 8 : state->bucket_cap * 2;
	void *fresh = bucket_memory(state, state->buckets, cap * sizeof(*state->buckets));

	if (fresh == NULL)
		return false;
	state->buckets = fresh;
	fresh = bucket_memory(state, NULL, 2 * cap * sizeof(*state->index));
	if (fresh == NULL)
		return false;
	bucket_memory(state, state->index, 0);
	state->index = fresh;
	state->index_cap = 2 * cap;
	state->bucket_cap = cap;
	bucket_index(state);
	return true;
}

static enum bts_err bucket_add(struct state *state, const struct bucket_state *value, struct bucket_state **out)
{
	struct bucket_state *bucket;

	if (state->bucket_count == state->bucket_cap && !bucket_grow(state))
		return error_set(state->ctx.error, BTS_MEMORY, 0, "no memory to open a bucket");
	bucket = state->bucket_count < state->bucket_made ? state->buckets[state->bucket_count] :
							    bucket_memory(state, NULL, sizeof(*bucket));
	if (bucket == NULL)
		return error_set(state->ctx.error, BTS_MEMORY, 0, "no memory to open a bucket");
	*bucket = *value;
	state->buckets[state->bucket_count++] = bucket;
	if (state->dirty == NULL && state->bucket_made < state->bucket_count)
		state->bucket_made = state->bucket_count;
	bucket_enter(state, state->bucket_count - 1);
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
	value->created = true;
	state_bucket_changed(state, value);
	state->record.buckets++;
	state->ctx.changes++;
}

static enum bts_err bucket_check_name(struct state *state, struct bts_slice name)
{
	if (name.size < 1 || name.size > BTS_BUCKET_NAME_MAX)
		return error_set(state->ctx.error, BTS_INVALID, 0, "bucket name of %zu bytes (1 to %d are allowed)",
			name.size, BTS_BUCKET_NAME_MAX);
	return BTS_OK;
}

static enum bts_err bucket_found(struct state *state, struct bucket_state *bucket, struct bucket_state **out)
{
	if (state->dirty == NULL)
		state->last = bucket;
	*out = bucket;
	return BTS_OK;
}

enum bts_err state_bucket(struct state *state, struct bts_slice name, bool create, struct bucket_state **out)
{
	struct bucket_state value, *bucket;
	enum bts_err err = bucket_check_name(state, name);

	if (err)
		return err;
	bucket = bucket_find(state, name);
	if (bucket != NULL && !bucket->dropped)
		return bucket_found(state, bucket, out);
	err = bucket != NULL ? BTS_NOT_FOUND : bucket_load(state, &state->record.catalog, name, &value);
	if (err == BTS_NOT_FOUND && !create)
		return error_set(state->ctx.error, BTS_NOT_FOUND, 0, "no such bucket");
	if (err && err != BTS_NOT_FOUND)
		return err;
	if (err == BTS_OK) {
		value.base = value.tree;
		err = bucket_add(state, &value, &bucket);
		return err ? err : bucket_found(state, bucket, out);
	}
	if (state->record.next_tree == UINT32_MAX)
		return error_set(state->ctx.error, BTS_FULL, 0, "no bucket ids left");
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
	memset(&value, 0, sizeof(value));
	value.name_size = (uint8_t)name.size;
	memcpy(value.name, name.data, name.size);
	err = bucket_add(state, &value, out);
	if (err == BTS_OK)
		bucket_create(state, name, *out);
	return err;
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
		state_bucket_changed(state, bucket); /* the next settling enters it in the catalog again */
		return err;
	}
	bucket->dropped = true;
	bucket->changed = bucket->unsettled = false;
	state->record.buckets--;
	state->changed = true;
	state->ctx.changes++;
	*dropped = bucket;
	return BTS_OK;
}

enum bts_err state_bucket_rename(struct state *state, struct bucket_state *bucket, struct bts_slice to)
{
	struct bts_slice from = { bucket->name, bucket->name_size };
	struct bucket_state *other;
	enum bts_err err = state_bucket(state, to, false, &other);

	if (err == BTS_OK)
		return error_set(state->ctx.error, BTS_EXISTS, 0, "there is a bucket of the new name");
	if (err != BTS_NOT_FOUND)
		return err;
	err = state_touch(state, bucket);
	if (err == BTS_OK)
		err = tree_del(&state->ctx, &state->record.catalog, from);
	if (err && err != BTS_NOT_FOUND) /* it has no record yet */
		return err;
	if (!bucket->created && bucket->base_size == 0) {
		bucket->base_size = bucket->name_size;
		memcpy(bucket->base_name, bucket->name, bucket->name_size);
	}
	bucket->name_size = (uint8_t)to.size;
	memmove(bucket->name, to.data, to.size);
	bucket->version = state->ctx.stamp;
	state_bucket_changed(state, bucket);
	state->index_stale = true;
	state->ctx.changes++;
	return BTS_OK;
}

static enum bts_err bucket_settle(struct state *state, bool again)
{
	uint8_t bytes[BUCKET_RECORD_MAX];

	for (size_t i = 0; i < state->bucket_count; i++) {
		struct bucket_state *bucket = state->buckets[i];
		struct bts_slice value = { bytes, 0 };
		enum bts_err err;

		if (!(again ? bucket->changed : bucket->unsettled) || bucket->dropped)
			continue;
		value.size = bucket_record_encode(bucket, bytes);
		err = tree_put(&state->ctx, &state->record.catalog,
			(struct bts_slice){ bucket->name, bucket->name_size }, value, bucket->version);
		if (err)
			return err;
		bucket->unsettled = false;
	}
	return BTS_OK;
}

enum bts_err state_settle(struct state *state)
{
	return bucket_settle(state, true);
}

enum bts_err state_bucket_after(struct state *state, struct bts_slice after, struct bucket_state *out)
{
	struct tree_cursor cursor;
	struct node_cell cell;
	struct bts_slice bytes;
	const char *wrong;
	enum bts_err err;

	if (state->dirty != NULL) {
		err = bucket_settle(state, false);
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
