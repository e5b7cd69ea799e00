/*
 * What a serializable transaction has read (C3), and whether it is still so when it commits.
 *
 * Recorded is what its *snapshot* has where it looked, not what its own writes made of that: for keys,
 * found or not, and for ranges the leaves that cover them; for names the tree they mean; for listings each
 * name and its successor; for counters the root. Since pages are never changed in place, a leaf that is at
 * the same place with the same birth is the same; one that an earlier transaction of the batch has made
 * private is not.
 *
 * A record: u8 kind, u8 size of the bucket's name, u16 key size, u32 tree id, u48 page, u48 birth, then
 * name, key.
 */
#include "txn.h"

#include "error.h"
#include "node_cell.h"

#include <string.h>

#define READS_HEADER 20u

enum reads_kind { READS_LEAF, READS_OPEN, READS_NEXT, READS_WHOLE };

struct reads_record {
	enum reads_kind kind;
	uint32_t tree; /* id; READS_OPEN, _NEXT: 0 = there was none */
	struct page_ptr
		ptr; /* the leaf, or the root; READS_OPEN: birth is the version of the bucket's record */
	struct bts_slice name; /* of the bucket; READS_NEXT: the one found */
	struct bts_slice key;  /* one that the leaf covers; READS_NEXT: the name before */
};

struct reads {
	uint8_t *bytes;
	size_t size, cap;
	/* the newest leaf recorded: tree 0 = none; bounds, size 0 = none, lie in pages of the snapshot */
	uint32_t tree;
	struct bts_slice low, high;
};

void reads_fini(struct bts_txn *txn)
{
	struct bts_env *env = txn->db->env;

	if (txn->reads == NULL)
		return;
	env->ops->memory(env, txn->reads->bytes, 0);
	env->ops->memory(env, txn->reads, 0);
	txn->reads = NULL;
}

static enum bts_err reads_add(struct bts_txn *txn, const struct reads_record *record)
{
	size_t need = READS_HEADER + record->name.size + record->key.size;
	struct reads *reads = txn->reads;
	uint8_t *at;

	if (reads->cap - reads->size < need) {
		size_t cap = reads->cap == 0 ? 4096 : 2 * reads->cap;
		void *fresh = txn->db->env->ops->memory(txn->db->env, reads->bytes, cap);

		if (fresh == NULL)
			return error_set(&txn->error, BTS_MEMORY, 0,
				"no memory to remember what was read (%zu bytes held)", reads->cap);
		reads->bytes = fresh;
		reads->cap = cap;
	}
	at = reads->bytes + reads->size;
	at[0] = (uint8_t)record->kind;
	at[1] = (uint8_t)record->name.size;
	bytes_put_u16(at + 2, (uint16_t)record->key.size);
	bytes_put_u32(at + 4, record->tree);
	bytes_put_u48(at + 8, record->ptr.pgno);
	bytes_put_u48(at + 14, record->ptr.birth);
	at += READS_HEADER;
	if (record->name.size > 0)
		memcpy(at, record->name.data, record->name.size);
	if (record->key.size > 0)
		memcpy(at + record->name.size, record->key.data, record->key.size);
	reads->size += need;
	return BTS_OK;
}

static bool reads_next(const struct reads *reads, size_t *at, struct reads_record *record)
{
	const uint8_t *p = reads->bytes + *at;

	if (*at == reads->size)
		return false;
	record->kind = (enum reads_kind)p[0];
	record->tree = bytes_get_u32(p + 4);
	record->ptr = (struct page_ptr){bytes_get_u48(p + 8), bytes_get_u48(p + 14), 0};
	record->name = (struct bts_slice){p + READS_HEADER, p[1]};
	record->key = (struct bts_slice){p + READS_HEADER + p[1], bytes_get_u16(p + 2)};
	*at += READS_HEADER + record->name.size + record->key.size;
	return true;
}

/* false: not to be logged.  *err: there is no memory for a log. */
static bool reads_begin(struct bts_txn *txn, enum bts_err *err)
{
	struct bts_env *env = txn->db->env;

	*err = BTS_OK;
	if (!reads_wanted(txn))
		return false;
	if (txn->reads != NULL)
		return true;
	txn->reads = env->ops->memory(env, NULL, sizeof(*txn->reads));
	if (txn->reads == NULL) {
		*err = error_set(&txn->error, BTS_MEMORY, 0, "no memory to remember what was read");
		return false;
	}
	memset(txn->reads, 0, sizeof(*txn->reads));
	return true;
}

/* The snapshot without the transaction's own pages. */
static struct tree_ctx reads_snapshot(const struct bts_txn *txn)
{
	struct tree_ctx ctx = txn->own.ctx;

	ctx.dirty = NULL;
	return ctx;
}

enum bts_err reads_open(struct bts_txn *txn, struct bts_slice name, struct bucket_state *bucket)
{
	struct reads_record record = {.kind = READS_OPEN, .name = name};
	struct bucket_state then;
	enum bts_err err;

	if (!reads_begin(txn, &err) || (bucket != NULL && bucket->logged))
		return err;
	err = state_bucket_at(&txn->own, name, &then);
	if (err && err != BTS_NOT_FOUND)
		return err;
	if (err == BTS_OK) {
		record.tree = then.tree.id;
		record.ptr.birth = then.version;
	}
	err = reads_add(txn, &record);
	if (err == BTS_OK && bucket != NULL)
		bucket->logged = true;
	return err;
}

/* All that the snapshot has between: the transaction itself may have dropped or renamed some. */
enum bts_err reads_list(struct bts_txn *txn, struct bts_slice after, struct bts_slice found)
{
	struct reads_record record = {.kind = READS_NEXT, .key = after};
	struct tree_cursor cursor;
	struct tree_ctx ctx;
	struct node_cell cell;
	enum bts_err err;

	if (!reads_begin(txn, &err))
		return err;
	ctx = reads_snapshot(txn);
	tree_cursor_init(&cursor, &ctx, &txn->own.base_catalog);
	err = after.size == 0 ? tree_cursor_first(&cursor, &cell) : tree_cursor_seek(&cursor, after, &cell);
	if (err == BTS_OK && after.size > 0 && node_compare(cell.key, after, 0) == 0)
		err = tree_cursor_next(&cursor, &cell);
	for (;; err = tree_cursor_next(&cursor, &cell)) {
		bool end = err == BTS_NOT_FOUND;

		if (err && !end)
			return err;
		record.name = end ? (struct bts_slice){0} : cell.key;
		err = reads_add(txn, &record);
		if (err || end || (found.size > 0 && node_compare(record.name, found, 0) >= 0))
			return err;
		record.key = record.name;
	}
}

static struct bts_slice reads_name(const struct bucket_state *bucket)
{
	return bucket->base_size > 0 ? bucket_base_name(bucket)
				     : (struct bts_slice){bucket->name, bucket->name_size};
}

enum bts_err reads_whole(struct bts_txn *txn, struct bucket_state *bucket)
{
	struct reads_record record = {.kind = READS_WHOLE, .tree = bucket->base.id, .ptr = bucket->base.root};
	enum bts_err err;

	if (!reads_begin(txn, &err) || bucket->created)
		return err;
	record.name = reads_name(bucket);
	return reads_add(txn, &record);
}

/* The pointer to the leaf that covers key, with its bounds; pgno 0: the tree has none. */
static enum bts_err reads_leaf(struct tree_ctx *ctx, const struct tree *tree, struct bts_slice key,
	struct page_ptr *leaf, struct bts_slice *low, struct bts_slice *high)
{
	*leaf = tree->root;
	*low = *high = (struct bts_slice){0};
	for (unsigned level = tree->depth; level > 1; level--) {
		const uint8_t *page;
		unsigned index;
		enum bts_err err = pager_node(ctx, leaf, tree->id, (int)level - 1, &page);

		if (err)
			return err;
		index = node_child_index(page, key);
		if (index > 0)
			*low = node_key(page, index);
		if (index + 1 < layout_count(page))
			*high = node_key(page, index + 1);
		*leaf = node_child(page, index);
	}
	return BTS_OK;
}

static bool reads_covered(const struct reads *reads, uint32_t tree, struct bts_slice key)
{
	return reads->tree == tree && (reads->low.size == 0 || node_compare(key, reads->low, 0) >= 0) &&
	       (reads->high.size == 0 || node_compare(key, reads->high, 0) < 0);
}

enum bts_err reads_range(
	struct bts_txn *txn, struct bucket_state *bucket, struct bts_slice from, struct bts_slice to)
{
	struct reads_record record = {.kind = READS_LEAF, .tree = bucket->base.id, .key = from};
	struct reads *reads;
	struct tree_ctx ctx;
	enum bts_err err;

	if (!reads_begin(txn, &err) || bucket->created)
		return err;
	reads = txn->reads;
	ctx = reads_snapshot(txn);
	record.name = reads_name(bucket);
	if (from.size == 0)
		record.key = (struct bts_slice){"", 1}; /* nothing is less */
	for (;;) {
		if (!reads_covered(reads, record.tree, record.key)) {
			reads->tree = 0;
			err = reads_leaf(
				&ctx, &bucket->base, record.key, &record.ptr, &reads->low, &reads->high);
			if (err == BTS_OK)
				err = reads_add(txn, &record);
			if (err)
				return err;
			reads->tree = record.tree;
		}
		if (reads->high.size == 0 || (to.size > 0 && node_compare(to, reads->high, 0) < 0))
			return BTS_OK;
		record.key = reads->high;
	}
}

enum bts_err reads_key(struct bts_txn *txn, struct bucket_state *bucket, struct bts_slice key)
{
	return reads_range(txn, bucket, key, key);
}

static enum bts_err reads_conflict(struct bts_group *group, struct bts_txn *txn,
	const struct reads_record *record, const struct page_ptr *now)
{
	bts_txid winner = now == NULL || layout_is_dirty(now) ? 0 : now->birth;

	return validate_conflict(group, txn, record->name, record->key, winner, "read, and changed");
}

static enum bts_err reads_validate_next(
	struct bts_group *group, struct bts_txn *txn, const struct reads_record *record)
{
	struct bucket_state now = {0};
	enum bts_err err = state_bucket_after(&group->state, record->key, &now);

	if (err && err != BTS_NOT_FOUND)
		return err;
	if (now.name_size == record->name.size && memcmp(now.name, record->name.data, now.name_size) == 0)
		return BTS_OK;
	return reads_conflict(group, txn, record, NULL);
}

static enum bts_err reads_validate_one(
	struct bts_group *group, struct bts_txn *txn, const struct reads_record *record)
{
	struct bts_slice low, high;
	struct bucket_state *bucket;
	struct page_ptr now;
	enum bts_err err;

	if (record->kind == READS_NEXT)
		return reads_validate_next(group, txn, record);
	err = state_bucket(&group->state, record->name, false, &bucket);
	if (err && err != BTS_NOT_FOUND)
		return err;
	if ((err == BTS_OK ? bucket->tree.id : 0) != record->tree)
		return reads_conflict(group, txn, record, NULL);
	if (record->kind == READS_OPEN) {
		if (record->tree == 0 || bucket->version == record->ptr.birth)
			return BTS_OK;
		now = (struct page_ptr){.birth = bucket->version};
	} else if (record->kind == READS_WHOLE) {
		now = bucket->tree.root;
	} else {
		err = reads_leaf(&group->state.ctx, &bucket->tree, record->key, &now, &low, &high);
		if (err)
			return err;
	}
	if (record->kind != READS_OPEN && now.pgno == record->ptr.pgno && now.birth == record->ptr.birth)
		return BTS_OK;
	return reads_conflict(group, txn, record, &now);
}

enum bts_err reads_validate(struct bts_group *group, struct bts_txn *txn)
{
	struct reads_record record;
	size_t at = 0;
	enum bts_err err = BTS_OK;

	while (err == BTS_OK && txn->reads != NULL && reads_next(txn->reads, &at, &record))
		err = reads_validate_one(group, txn, &record);
	return err;
}
