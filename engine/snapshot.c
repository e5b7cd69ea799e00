/* Named snapshots: their records, and what is free when they go.  See snapshot.h. */
#include "snapshot.h"

#include "base/fault.h"
#include "error.h"
#include "traverse.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SNAPSHOT_FIXED 82u
#define SNAPSHOT_CATALOG_AT 32u
#define SNAPSHOT_ROOM_MAX 512u
#define SNAPSHOT_SET_FIRST 256u /* places, a power of two */

size_t snapshot_encode(const struct snapshot *snapshot, uint8_t bytes[SNAPSHOT_RECORD_MAX])
{
	memset(bytes, 0, SNAPSHOT_FIXED);
	bytes_put_u48(bytes, snapshot->txid);
	bytes_put_u64(bytes + 8, snapshot->time_ms);
	bytes_put_u48(bytes + 16, snapshot->high_water);
	bytes_put_u64(bytes + 24, snapshot->buckets);
	meta_put_tree(bytes + SNAPSHOT_CATALOG_AT, &snapshot->catalog);
	return SNAPSHOT_FIXED;
}

static const char *snapshot_check(const struct snapshot *s, const struct commit_record *record)
{
	const struct tree *tree = &s->catalog;
	bool none = tree->depth == 0;

	if (s->txid > record->txid)
		return "named snapshot of a commit to come";
	if (tree->id != LAYOUT_TREE_CATALOG || tree->depth > TREE_DEPTH_MAX ||
		none != (tree->root.pgno == 0) || none != (tree->root.birth == 0) ||
		tree->root.birth > s->txid)
		return "named snapshot: impossible catalog";
	if (s->buckets != tree->entries || tree->pages < tree->depth ||
		(none && (tree->entries || tree->pages)))
		return "named snapshot: impossible counters";
	if (s->high_water < record->first || s->high_water > LAYOUT_PGNO_LIMIT / 2 ||
		tree->root.pgno >= s->high_water || tree->root.pgno >= record->high_water)
		return "named snapshot: its catalog is out of bounds";
	return NULL;
}

const char *snapshot_decode(
	const struct node_cell *cell, const struct commit_record *record, bool built, struct snapshot *out)
{
	const uint8_t *at = cell->value.data;
	const char *wrong;
	size_t room;

	if (cell->key.size < 1 || cell->key.size > BTS_SNAPSHOT_NAME_MAX)
		return "named snapshot: name of a wrong length";
	if (cell->extent || cell->value.size < SNAPSHOT_FIXED)
		return "named snapshot: record cut short";
	room = bytes_get_u16(at + SNAPSHOT_CATALOG_AT + META_TREE_SIZE);
	if (room > SNAPSHOT_ROOM_MAX || SNAPSHOT_FIXED + room != cell->value.size)
		return "named snapshot: length does not add up";
	if (bytes_get_u16(at + 6) || bytes_get_u16(at + 22))
		return "named snapshot: reserved bytes are not zero";
	wrong = meta_room_check(at + SNAPSHOT_FIXED, room);
	if (wrong != NULL)
		return wrong;
	out->txid = bytes_get_u48(at);
	out->time_ms = bytes_get_u64(at + 8);
	out->high_water = bytes_get_u48(at + 16);
	out->buckets = bytes_get_u64(at + 24);
	meta_get_tree(at + SNAPSHOT_CATALOG_AT, &out->catalog);
	if (out->txid == 0 && !built)
		return "named snapshot of no commit";
	return snapshot_check(out, record);
}

static int snapshot_order(const void *a, const void *b)
{
	const struct snapshot *x = a, *y = b;

	return (x->txid > y->txid) - (x->txid < y->txid);
}

static enum bts_err snapshot_list_add(
	struct tree_ctx *ctx, struct snapshot_list *list, const struct snapshot *snapshot)
{
	if (list->count == list->cap) {
		size_t cap = list->cap ? list->cap * 2 : 16;
		void *fresh = list->env->ops->memory(list->env, list->items, cap * sizeof(*list->items));

		if (!fresh)
			return error_set(ctx->error, BTS_MEMORY, 0, "no memory for %zu named snapshots", cap);
		list->items = fresh;
		list->cap = cap;
	}
	list->items[list->count++] = *snapshot;
	return BTS_OK;
}

/* Names of one batch are one state. */
static enum bts_err snapshot_list_sort(struct tree_ctx *ctx, struct snapshot_list *list)
{
	size_t kept = 0;

	if (list->count > 1)
		qsort(list->items, list->count, sizeof(*list->items), snapshot_order);
	for (size_t i = 0; i < list->count; i++) {
		if (kept == 0 || list->items[kept - 1].txid != list->items[i].txid)
			list->items[kept++] = list->items[i];
		else if (!layout_ptr_equal(&list->items[kept - 1].catalog.root, &list->items[i].catalog.root))
			return error_set(ctx->error, BTS_CORRUPT, 0,
				"two named snapshots of transaction %" PRIu64 " that differ",
				list->items[i].txid);
	}
	list->count = kept;
	return BTS_OK;
}

enum bts_err snapshot_list_load(struct tree_ctx *ctx, const struct commit_record *record, struct tree *tree,
	struct snapshot_list *list)
{
	struct tree_cursor cursor;
	struct snapshot snapshot;
	struct node_cell cell;
	const char *wrong;
	enum bts_err err;

	*list = (struct snapshot_list){.env = ctx->pager->env};
	if (tree->entries == 0)
		return BTS_OK;
	tree_cursor_init(&cursor, ctx, tree);
	for (err = tree_cursor_first(&cursor, &cell); !err; err = tree_cursor_next(&cursor, &cell)) {
		if (list->count == BTS_SNAPSHOTS_MAX)
			return error_set(ctx->error, BTS_CORRUPT, 0, "more than %d named snapshots",
				BTS_SNAPSHOTS_MAX);
		wrong = snapshot_decode(&cell, record, ctx->dirty != NULL, &snapshot);
		if (wrong)
			return error_set(ctx->error, BTS_CORRUPT, 0, "snapshots: %s", wrong);
		if (snapshot.txid == 0)
			continue;
		err = snapshot_list_add(ctx, list, &snapshot);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? snapshot_list_sort(ctx, list) : err;
}

void snapshot_list_fini(struct snapshot_list *list)
{
	if (list->items)
		list->env->ops->memory(list->env, list->items, 0);
	list->items = NULL;
	list->count = list->cap = 0;
}

bts_txid snapshot_newest(const struct snapshot_list *list)
{
	return list->count > 0 ? list->items[list->count - 1].txid : 0;
}

const struct snapshot *snapshot_find(const struct snapshot_list *list, bts_txid txid)
{
	struct snapshot key = {.txid = txid};

	return list->count > 0 ? bsearch(&key, list->items, list->count, sizeof(key), snapshot_order) : NULL;
}

/* Page numbers: where a newer state turns back to what it shares. */
struct snapshot_set {
	bts_pgno *places;
	size_t count, cap;
};

static bts_pgno *snapshot_place(const struct snapshot_set *set, bts_pgno pgno)
{
	size_t i = (size_t)(pgno * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (set->cap - 1);

	while (set->places[i] && set->places[i] != pgno)
		i = (i + 1) & (set->cap - 1);
	return &set->places[i];
}

static enum bts_err snapshot_set_add(struct tree_ctx *ctx, struct snapshot_set *set, bts_pgno pgno)
{
	struct bts_env *env = ctx->pager->env;
	struct snapshot_set old = *set;

	if (!set->cap || (set->count + 1) * 4 > set->cap * 3) {
		set->cap = old.cap ? old.cap * 2 : SNAPSHOT_SET_FIRST;
		set->places = env->ops->memory(env, NULL, set->cap * sizeof(*set->places));
		if (!set->places) {
			*set = old;
			return error_set(ctx->error, BTS_MEMORY, 0, "no memory to delete a named snapshot");
		}
		memset(set->places, 0, set->cap * sizeof(*set->places));
		for (size_t i = 0; i < old.cap; i++)
			if (old.places[i])
				*snapshot_place(set, old.places[i]) = old.places[i];
		env->ops->memory(env, old.places, 0);
	}
	*snapshot_place(set, pgno) = pgno;
	set->count++;
	return BTS_OK;
}

struct snapshot_pair {
	const struct snapshot_orphans *how;
	const struct tree *newer;
	bts_txid newer_txid, older; /* older: number of the next older snapshot that stays; 0: none */
	const struct snapshot *gone;
	struct traverse traverse;
	struct snapshot_set frontier;
};

static enum bts_err snapshot_below(struct tree_ctx *ctx, struct traverse *t, const struct traverse_edge *edge)
{
	const uint8_t *image;
	enum bts_err err;

	if (edge->kind == BTS_KIND_EXTENT)
		return BTS_OK;
	err = pager_node(ctx, &edge->ptr, edge->tree, edge->level, &image);
	return err ? err : traverse_descend(t, image);
}

static enum bts_err snapshot_frontier(struct tree_ctx *ctx, struct snapshot_pair *pair)
{
	struct traverse *t = &pair->traverse;
	const struct traverse_edge *edge;
	enum bts_err err;

	traverse_init_catalog(t, pair->how->record, pair->newer, pair->newer_txid, ctx->error);
	while ((err = traverse_next(t, &edge)) == BTS_OK) {
		if (edge->ptr.birth > pair->gone->txid)
			err = snapshot_below(ctx, t, edge);
		else
			err = snapshot_set_add(ctx, &pair->frontier, edge->ptr.pgno);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err snapshot_only(struct tree_ctx *ctx, struct snapshot_pair *pair)
{
	struct traverse *t = &pair->traverse;
	const struct traverse_edge *edge;
	enum bts_err err;

	traverse_init_catalog(t, pair->how->record, &pair->gone->catalog, pair->gone->txid, ctx->error);
	while ((err = traverse_next(t, &edge)) == BTS_OK) {
		if (edge->ptr.birth <= pair->older ||
			(pair->frontier.cap && !SABOTAGE(FAULT_G3_NO_FRONTIER) && *snapshot_place(&pair->frontier, edge->ptr.pgno)))
			continue;
		err = pair->how->visit(pair->how->arg, &edge->ptr, edge->pages);
		if (!err)
			err = snapshot_below(ctx, t, edge);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

/*
 * From the newest down, each snapshot that goes against its neighbours at that moment: above, what stays or
 * the head; below, the next older one of `before`, whether it stays or goes after it.  A page that several of
 * those that go reach is met at the oldest of them only: at the others its birth is <= the neighbour below.
 */
enum bts_err snapshot_orphans(struct tree_ctx *ctx, const struct snapshot_orphans *how)
{
	struct snapshot_pair *pair;
	enum bts_err err = BTS_OK;

	if (how->before->count == how->after->count)
		return BTS_OK;
	pair = ctx->pager->env->ops->memory(ctx->pager->env, NULL, sizeof(*pair));
	if (!pair)
		return error_set(ctx->error, BTS_MEMORY, 0, "no memory to delete a named snapshot");
	pair->how = how;
	pair->newer = how->head;
	pair->newer_txid = how->record->txid;
	for (size_t i = how->before->count; i-- > 0 && !err;) {
		pair->gone = &how->before->items[i];
		if (snapshot_find(how->after, pair->gone->txid)) {
			pair->newer = &pair->gone->catalog;
			pair->newer_txid = pair->gone->txid;
			continue;
		}
		pair->older = i > 0 ? how->before->items[i - 1].txid : 0;
		pair->frontier = (struct snapshot_set){0};
		err = snapshot_frontier(ctx, pair);
		if (!err)
			err = snapshot_only(ctx, pair);
		ctx->pager->env->ops->memory(ctx->pager->env, pair->frontier.places, 0);
	}
	ctx->pager->env->ops->memory(ctx->pager->env, pair, 0);
	return err;
}
