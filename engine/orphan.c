/*
 * What a rewind is about to leave behind (R11): the net effect of the commits after the fork, as changes.
 *
 * Called between the last piece of a graft and its finish, when both histories are here: ours is the durable state, the
 * other's has come and is not installed.  Ours is walked where it is younger than the fork, leaf by leaf: an entry whose version
 * is above the fork was put since; a key that the other side has, with a version up to the fork, and our leaf of its range
 * has not, was deleted since.  So both are certain.  What the state at the fork would have to tell is only marked: a key
 * the other side has put since and we do not have may be one that we deleted; one that we put and it does not have may be one
 * that it deleted.  They are marked when the leaf in question lost a key since the fork.
 *
 * A bucket is the same on both sides when name and tree id are, or the id alone and one of the records is not younger than the
 * fork: ids given before it are given to nobody else.
 */
#include "apply.h"

#include <string.h>

#include "error.h"
#include "node.h"
#include "node_search.h"
#include "snapshot.h"
#include "txn.h"

struct orphan {
	struct bts_apply *apply;
	bts_txid fork;
	bts_orphan_fn *visit;
	void *arg;
	struct tree_ctx ours, theirs;
	struct tree our_catalog, their_catalog;
	const uint8_t *map; /* of path.pending, or NULL */
	size_t map_bytes;
	struct bucket_state mine, other; /* large: off the stack */
};

static const uint8_t *orphan_redirect(void *arg, const struct page_ptr *ptr, uint64_t count, _Atomic bool **verified)
{
	struct orphan *o = arg;
	const struct apply_unit *unit = apply_fetch_unit(o->apply, ptr->pgno);

	if (unit && unit->where && count <= unit->count) {
		*verified = apply_unverified(o->apply);
		return o->map + unit->where;
	}
	return o->apply->redirect ? redirect_find(o->apply->redirect, ptr, count, verified) : NULL;
}

static enum bts_err orphan_tell(struct orphan *o, const struct bts_orphan *orphan)
{
	enum bts_err err = o->visit(o->arg, orphan, &o->apply->error);

	if (err && !o->apply->error.text[0])
		error_set(&o->apply->error, err, 0, "what a rewind leaves behind cannot be written");
	return err;
}

static enum bts_orphan_other orphan_other(bool there, bts_txid version, bts_txid last_delete, bts_txid fork)
{
	if (there)
		return version > fork ? BTS_ORPHAN_CHANGED : BTS_ORPHAN_SAME;
	return last_delete > fork ? BTS_ORPHAN_MAYBE : BTS_ORPHAN_SAME;
}

/* Entries of our leaf that were put since the fork.  gone: the other side has no such bucket any more. */
static enum bts_err orphan_puts(struct orphan *o, struct bts_slice bucket, const uint8_t *leaf, struct tree *theirs, bool gone)
{
	for (unsigned i = 0; i < layout_count(leaf); i++) {
		struct bts_orphan orphan = {.size = sizeof(orphan), .kind = BTS_ORPHAN_PUT, .bucket = bucket};
		struct tree_hit hit = {.last_delete = 0};
		struct node_cell cell;
		enum bts_err err;

		node_cell(leaf, i, &cell);
		if (cell.version <= o->fork)
			continue;
		orphan.key = cell.key;
		orphan.txid = cell.version;
		err = tree_get(&o->theirs, theirs, cell.key, &hit);
		if (err && err != BTS_NOT_FOUND)
			return err;
		orphan.other = gone ? BTS_ORPHAN_CHANGED : orphan_other(!err, hit.cell.version, hit.last_delete, o->fork);
		err = tree_value(&o->ours, &cell, &orphan.value);
		if (!err)
			err = orphan_tell(o, &orphan);
		if (err)
			return err;
	}
	return BTS_OK;
}

static int orphan_compare(struct bts_slice a, struct bts_slice b)
{
	int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

/* Keys of the other side within the leaf's range that the leaf has not. */
static enum bts_err orphan_deletes(struct orphan *o, struct bts_slice bucket, const uint8_t *leaf,
	const struct traverse_edge *range, struct tree *theirs)
{
	struct tree_cursor cursor;
	struct node_cell cell;
	enum bts_err err;

	if (theirs->entries == 0)
		return BTS_OK;
	tree_cursor_init(&cursor, &o->theirs, theirs);
	err = range->low.size ? tree_cursor_seek(&cursor, range->low, &cell) : tree_cursor_first(&cursor, &cell);
	for (; !err; err = tree_cursor_next(&cursor, &cell)) {
		struct bts_orphan orphan = {.size = sizeof(orphan), .kind = BTS_ORPHAN_DELETE, .bucket = bucket, .key = cell.key};

		if (range->high.data && orphan_compare(cell.key, range->high) >= 0)
			return BTS_OK;
		if (node_find(leaf, cell.key) >= 0 || (cell.version > o->fork && layout_last_delete(leaf) <= o->fork))
			continue;
		orphan.other = cell.version > o->fork ? BTS_ORPHAN_MAYBE : BTS_ORPHAN_SAME;
		err = orphan_tell(o, &orphan);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

/* theirs: the same bucket's tree on the other side; empty when it has none. */
static enum bts_err orphan_bucket(
	struct orphan *o, struct bts_slice name, const struct tree *ours, struct tree *theirs, bool gone)
{
	struct traverse *t = &o->apply->traverse;
	const struct traverse_edge *edge;
	const uint8_t *image;
	enum bts_err err;

	traverse_init_catalog(t, &o->apply->db->slot.record, ours, o->apply->base.txid, &o->apply->error);
	while ((err = traverse_next(t, &edge)) == BTS_OK) {
		struct traverse_edge leaf = *edge;

		if (edge->kind != BTS_KIND_NODE || edge->ptr.birth <= o->fork)
			continue;
		err = pager_node(&o->ours, &edge->ptr, edge->tree, edge->level, &image);
		if (!err && leaf.level > 0)
			err = traverse_descend(t, image);
		if (!err && leaf.level == 0)
			err = orphan_puts(o, name, image, theirs, gone);
		if (!err && leaf.level == 0)
			err = orphan_deletes(o, name, image, &leaf, theirs);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err orphan_decode(struct orphan *o, const struct node_cell *cell, struct bucket_state *out)
{
	const char *wrong = cell->extent ? "a bucket's record outside its leaf"
					 : bucket_record_decode(cell->key, cell->value, cell->version, out);

	return wrong ? error_set(&o->apply->error, BTS_CORRUPT, 0, "catalog: %s", wrong) : BTS_OK;
}

static enum bts_err orphan_by_name(struct orphan *o, struct tree_ctx *ctx, struct tree *catalog, struct bts_slice name,
	struct bucket_state *out)
{
	struct tree_hit hit;
	enum bts_err err = tree_get(ctx, catalog, name, &hit);

	return err ? err : orphan_decode(o, &hit.cell, out);
}

static enum bts_err orphan_by_id(
	struct orphan *o, struct tree_ctx *ctx, struct tree *catalog, uint32_t id, struct bucket_state *out)
{
	struct tree_cursor cursor;
	struct node_cell cell;
	enum bts_err err;

	tree_cursor_init(&cursor, ctx, catalog);
	for (err = tree_cursor_first(&cursor, &cell); !err; err = tree_cursor_next(&cursor, &cell)) {
		err = orphan_decode(o, &cell, out);
		if (err || out->tree.id == id)
			return err;
	}
	return err;
}

static struct bts_slice orphan_name(const struct bucket_state *bucket)
{
	return (struct bts_slice){bucket->name, bucket->name_size};
}

/* One of our buckets (o->mine): what was done to it, then to its entries. */
static enum bts_err orphan_mine(struct orphan *o)
{
	struct bts_orphan orphan = {.size = sizeof(orphan), .bucket = orphan_name(&o->mine), .txid = o->mine.version};
	struct tree none = {.id = o->mine.tree.id};
	bool fresh = o->mine.version > o->fork, gone = false;
	enum bts_err named, err;

	named = orphan_by_name(o, &o->theirs, &o->their_catalog, orphan.bucket, &o->other);
	if (named && named != BTS_NOT_FOUND)
		return named;
	if (!named && o->other.tree.id == o->mine.tree.id)
		return orphan_bucket(o, orphan.bucket, &o->mine.tree, &o->other.tree, false);
	err = orphan_by_id(o, &o->theirs, &o->their_catalog, o->mine.tree.id, &o->other);
	if (err && err != BTS_NOT_FOUND)
		return err;
	if (!err && (!fresh || o->other.version <= o->fork)) {
		orphan.kind = BTS_ORPHAN_RENAME;
		orphan.was = orphan_name(&o->other);
		err = fresh ? orphan_tell(o, &orphan) : BTS_OK;
		return err ? err : orphan_bucket(o, orphan.bucket, &o->mine.tree, &o->other.tree, false);
	}
	if (fresh) {
		orphan.kind = BTS_ORPHAN_BUCKET;
		orphan.other = named ? BTS_ORPHAN_SAME : BTS_ORPHAN_CHANGED;
		err = orphan_tell(o, &orphan);
		if (err)
			return err;
	} else {
		gone = true;
	}
	if (!named) { /* both made one of that name */
		err = orphan_by_name(o, &o->theirs, &o->their_catalog, orphan.bucket, &o->other);
		if (err)
			return err;
		/* Deletes are of keys that were there at the fork: there was no such bucket. */
		return orphan_bucket(o, orphan.bucket, &o->mine.tree, &o->other.tree, false);
	}
	return orphan_bucket(o, orphan.bucket, &o->mine.tree, &none, gone);
}

static enum bts_err orphan_buckets(struct orphan *o)
{
	struct tree_cursor cursor;
	struct node_cell cell;
	enum bts_err err;

	tree_cursor_init(&cursor, &o->ours, &o->our_catalog);
	for (err = tree_cursor_first(&cursor, &cell); !err; err = tree_cursor_next(&cursor, &cell)) {
		err = orphan_decode(o, &cell, &o->mine);
		if (!err)
			err = orphan_mine(o);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

/* Buckets that were there at the fork, and are not here. */
static enum bts_err orphan_drops(struct orphan *o)
{
	struct tree_cursor cursor;
	struct node_cell cell;
	enum bts_err err;

	tree_cursor_init(&cursor, &o->theirs, &o->their_catalog);
	for (err = tree_cursor_first(&cursor, &cell); !err; err = tree_cursor_next(&cursor, &cell)) {
		struct bts_orphan orphan = {.size = sizeof(orphan), .kind = BTS_ORPHAN_DROP, .bucket = cell.key};

		err = orphan_decode(o, &cell, &o->other);
		if (!err && o->other.version > o->fork)
			continue;
		if (!err)
			err = orphan_by_name(o, &o->ours, &o->our_catalog, cell.key, &o->mine);
		if (err == BTS_NOT_FOUND || (!err && o->mine.tree.id != o->other.tree.id))
			err = orphan_by_id(o, &o->ours, &o->our_catalog, o->other.tree.id, &o->mine);
		if (err == BTS_NOT_FOUND)
			err = orphan_tell(o, &orphan);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err orphan_snapshots(struct orphan *o)
{
	struct commit_record *record = &o->apply->db->slot.record;
	struct tree_cursor cursor;
	struct snapshot snapshot;
	struct node_cell cell;
	enum bts_err err;

	if (record->snapshots.entries == 0)
		return BTS_OK;
	tree_cursor_init(&cursor, &o->ours, &record->snapshots);
	for (err = tree_cursor_first(&cursor, &cell); !err; err = tree_cursor_next(&cursor, &cell)) {
		struct bts_orphan orphan = {.size = sizeof(orphan), .kind = BTS_ORPHAN_SNAPSHOT, .key = cell.key};

		if (snapshot_decode(&cell, record, false, &snapshot) || snapshot.txid <= o->fork)
			continue;
		orphan.txid = snapshot.txid;
		err = orphan_tell(o, &orphan);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err orphan_run(struct orphan *o)
{
	struct bts_apply *apply = o->apply;
	const struct commit_record *ours = &apply->db->slot.record, *theirs = apply_fetch_record(apply);
	enum bts_err err = BTS_OK;
	int os;

	o->ours = (struct tree_ctx){.pager = &apply->db->pager, .limit = ours->high_water, .newest = ours->txid, .error = &apply->error};
	o->theirs = (struct tree_ctx){.pager = &apply->db->pager,
		.limit = theirs->high_water,
		.newest = theirs->txid,
		.error = &apply->error,
		.redirect = orphan_redirect,
		.redirect_arg = o};
	redirect_use(&o->ours, apply->redirect);
	o->our_catalog = ours->catalog;
	o->their_catalog = theirs->catalog;
	if (apply->redirected) {
		o->map_bytes = apply->db->log.size;
		os = apply->db->env->ops->file_map(apply->db->log.file, o->map_bytes, &o->map);
		if (os)
			return error_os(&apply->error, os, "cannot map what was received");
	}
	if (ours->catalog.entries)
		err = orphan_buckets(o);
	if (!err && theirs->catalog.entries)
		err = orphan_drops(o);
	if (!err)
		err = orphan_snapshots(o);
	if (apply->redirected)
		apply->db->env->ops->file_unmap(apply->db->log.file, o->map, o->map_bytes);
	return err;
}

enum bts_err bts_apply_orphans(
	struct bts_apply *apply, bts_orphan_fn *visit, void *arg, struct bts_error *error)
{
	const struct bts_position *fork;
	struct bts_page_id id;
	struct orphan *o;
	bts_txid trust;
	size_t missing;
	enum bts_err err;

	err = bts_apply_missing(apply, &id, 1, &missing, error);
	if (err)
		return err;
	fork = apply_fetch_fork(apply, &trust);
	if (missing || !fork)
		return error_set(error, BTS_INVALID, 0,
			missing ? "pages of the graft are still missing" : "a graft without a fork leaves nothing behind");
	o = apply->db->env->ops->memory(apply->db->env, NULL, sizeof(*o));
	if (!o)
		return error_set(error, BTS_MEMORY, 0, "no memory to tell what a rewind leaves behind");
	memset(o, 0, sizeof(*o));
	o->apply = apply;
	o->fork = fork->txid;
	o->visit = visit;
	o->arg = arg;
	err = orphan_run(o);
	apply->db->env->ops->memory(apply->db->env, o, 0);
	if (err)
		apply_report(apply, err, error);
	return err;
}
