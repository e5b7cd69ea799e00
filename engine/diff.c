/*
 * What changed since a commit: bts_walk_* (ship.h).
 *
 * Every pointer carries the birth of its page, so the pages with birth > base are found by going down from
 * every root and turning back wherever birth <= base: below such a pointer nothing is newer (child birth <=
 * parent's).  The snapshot is held like a reader's, which keeps its pages where they are.
 *
 * Named snapshots above the base are roots too, oldest first, the head last.  What two of these states share is
 * what the newer one has with births up to the older one's number (snapshot.h): there the newer one turns back.  So
 * each page comes once, and nothing needs to be remembered.
 *
 * From the empty state on, for a first transfer, the walk is another one: diff_order.c.
 */
#include "diff.h"

#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "redirect.h"

/* The catalog of the next snapshot, or what is left of the head. */
static void diff_begin_state(struct bts_walk *walk)
{
	const struct snapshot *snapshot;

	if (walk->next == walk->snapshots.count) {
		traverse_init(&walk->traverse, &walk->record, TRAVERSE_ALL, &walk->error);
		return;
	}
	snapshot = &walk->snapshots.items[walk->next];
	traverse_init_catalog(
		&walk->traverse, &walk->record, &snapshot->catalog, snapshot->txid, &walk->error);
}

/* The next edge of all states; BTS_NOT_FOUND at the end. */
static enum bts_err diff_next(struct bts_walk *walk, const struct traverse_edge **edge)
{
	enum bts_err err = traverse_next(&walk->traverse, edge);

	while (err == BTS_NOT_FOUND && walk->next < walk->snapshots.count) {
		walk->floor = walk->snapshots.items[walk->next++].txid;
		diff_begin_state(walk);
		err = traverse_next(&walk->traverse, edge);
	}
	return err;
}

static bool diff_turns_back(const struct bts_walk *walk, const struct traverse_edge *edge)
{
	return edge->ptr.birth <= (traverse_is_aside(edge) ? walk->base : walk->floor);
}

void diff_begin(struct bts_walk *walk)
{
	walk->floor = walk->base;
	while (walk->next < walk->snapshots.count && walk->snapshots.items[walk->next].txid <= walk->base)
		walk->next++;
	diff_begin_state(walk);
}

/* The snapshot is entered. */
static enum bts_err diff_open(struct bts_walk *walk)
{
	enum bts_err err;

	meta_position(&walk->record, &walk->position);
	walk->record_size = meta_record_encode(&walk->record, walk->record_bytes);
	walk->ctx = (struct tree_ctx){
		.pager = &walk->db->pager,
		.limit = walk->record.high_water,
		.newest = walk->record.txid,
		.error = &walk->error,
	};
	redirect_use(&walk->ctx, walk->redirect);
	err = snapshot_list_load(&walk->ctx, &walk->record, &walk->record.snapshots, &walk->snapshots);
	if (err)
		return err;
	if (!walk->base)
		return diff_order_begin(walk);
	diff_begin(walk);
	return BTS_OK;
}

static enum bts_err diff_new(struct bts *db, bts_txid base, const struct bts_partial *partial, struct bts_walk **out,
	struct bts_error *error)
{
	struct bts_walk *walk = db->env->ops->memory(db->env, NULL, sizeof(*walk));
	enum bts_err err;

	if (!walk)
		return error_set(error, BTS_MEMORY, 0, "no memory for a walk");
	memset(walk, 0, sizeof(*walk));
	walk->db = db;
	walk->base = base;
	if (partial)
		walk->partial = *partial;
	err = redirect_enter(db, REDIRECT_DURABLE, &walk->reader, &walk->record, &walk->redirect, error);
	if (err) {
		db->env->ops->memory(db->env, walk, 0);
		return err;
	}
	err = diff_open(walk);
	if (err) {
		if (err == BTS_NOT_FOUND)
			error_set(error, err, 0, "the position of the broken transfer is not in this history");
		else
			error_set(error, err, walk->error.os, "%s", walk->error.text);
		bts_walk_close(walk);
		return err;
	}
	*out = walk;
	return BTS_OK;
}

enum bts_err bts_walk_open(struct bts *db, bts_txid base, struct bts_walk **out, struct bts_error *error)
{
	return diff_new(db, base, NULL, out, error);
}

enum bts_err bts_walk_open_from(struct bts *db, const struct bts_partial *partial, struct bts_walk **out,
	struct bts_error *error)
{
	return diff_new(db, 0, partial, out, error);
}

const struct bts_position *bts_walk_position(const struct bts_walk *walk)
{
	return &walk->position;
}

struct bts_slice bts_walk_record(const struct bts_walk *walk)
{
	return (struct bts_slice){walk->record_bytes, walk->record_size};
}

void bts_walk_digest(const struct bts_walk *walk, uint8_t digest[16])
{
	meta_root_digest(&walk->record, digest);
}

uint32_t bts_walk_page_size(const struct bts_walk *walk)
{
	return walk->record.page_size;
}

enum bts_err diff_verify(struct bts_walk *walk, const struct traverse_edge *edge, const uint8_t **image)
{
	struct bts_slice value;
	enum bts_err err;

	switch (edge->kind) {
	case BTS_KIND_NODE:
		return pager_node(&walk->ctx, &edge->ptr, edge->tree, edge->level, image);
	case BTS_KIND_FREE_LOG:
		return pager_free_log(&walk->ctx, &edge->ptr, image);
	case BTS_KIND_EXTENT:
		break;
	}
	err = pager_extent(&walk->ctx, &edge->ptr, edge->size, &value);
	if (!err)
		*image = pager_image(&walk->ctx, &edge->ptr, edge->pages);
	return err;
}

enum bts_err diff_step(struct bts_walk *walk, const struct traverse_edge **edge, const uint8_t **image)
{
	enum bts_err err;

	do {
		err = diff_next(walk, edge);
		if (err)
			return err;
	} while (diff_turns_back(walk, *edge));
	/* A large value that is only to be marked is read when it is sent. */
	if ((*edge)->kind == BTS_KIND_EXTENT && walk->ordered)
		return BTS_OK;
	err = diff_verify(walk, *edge, image);
	return err || (*edge)->kind == BTS_KIND_EXTENT ? err : traverse_descend(&walk->traverse, *image);
}

enum bts_err bts_walk_next(
	struct bts_walk *walk, struct bts_page_id *id, struct bts_slice *bytes, struct bts_error *error)
{
	const struct traverse_edge *edge;
	const uint8_t *image;
	enum bts_err err;

	err = walk->ordered ? diff_order_next(walk, id, bytes) : diff_step(walk, &edge, &image);
	if (err == BTS_NOT_FOUND)
		return error_set(error, err, 0, "no further page");
	if (err == BTS_BUSY)
		return error_set(error, err, 0, "still looking for what changed");
	if (err)
		return error_set(error, err, walk->error.os, "%s", walk->error.text);
	if (walk->ordered)
		return BTS_OK;
	*id = (struct bts_page_id){
		.pgno = edge->ptr.pgno,
		.birth = edge->ptr.birth,
		.crc = edge->ptr.crc,
		.count = (uint32_t)edge->pages,
		.kind = edge->kind,
	};
	*bytes = (struct bts_slice){image, edge->pages * walk->record.page_size};
	return BTS_OK;
}

void bts_walk_close(struct bts_walk *walk)
{
	struct bts_env *env;

	if (!walk)
		return;
	env = walk->db->env;
	diff_order_fini(walk);
	snapshot_list_fini(&walk->snapshots);
	redirect_drop(walk->db, walk->redirect);
	shared_reader_leave(walk->db->shared, &walk->reader);
	env->ops->memory(env, walk, 0);
}
