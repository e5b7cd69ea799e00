/* What of a graft's target this file has already: the local state, and whether an edge is live in it (apply_fetch.c has the theory). */
#include "apply_fetch.h"

#include <stdlib.h>

#include "node.h"
#include "node_search.h"

static int fetch_tree_order(const void *a, const void *b)
{
	const struct fetch_tree *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return (x->state > y->state) - (x->state < y->state);
}

static enum bts_err fetch_add_tree(
	struct bts_apply *apply, const struct traverse_edge *edge, bts_txid before, bts_txid state)
{
	struct apply_fetch *fetch = apply->fetch;
	enum bts_err err;

	if (edge->ptr.birth <= before)
		return BTS_OK;
	err = apply_grow(apply, (void **)&fetch->trees, fetch->tree_count, &fetch->tree_cap, sizeof(*fetch->trees));
	if (!err)
		fetch->trees[fetch->tree_count++] =
			(struct fetch_tree){edge->tree, (uint32_t)edge->level + 1, state, edge->ptr};
	return err;
}

/*
 * Roots of the buckets in one local state, but those that the state before has too.  What is damaged is passed over: it is
 * asked for then.
 */
static enum bts_err fetch_add_state(
	struct bts_apply *apply, const struct tree *catalog, bts_txid before, bts_txid state)
{
	struct traverse *t = &apply->fetch->traverse;
	struct tree_ctx ctx = apply_old_ctx(apply);
	const struct traverse_edge *edge;
	const uint8_t *image;
	enum bts_err err;

	traverse_init_catalog(t, &apply->db->slot.record, catalog, state, &apply->error);
	while ((err = traverse_next(t, &edge)) == BTS_OK) {
		if (edge->tree != LAYOUT_TREE_CATALOG) {
			err = fetch_add_tree(apply, edge, before, state);
		} else if (edge->ptr.birth > before) {
			err = pager_node(&ctx, &edge->ptr, edge->tree, edge->level, &image);
			if (!err)
				err = traverse_descend(t, image);
			err = err == BTS_CORRUPT ? BTS_OK : err;
		}
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND || err == BTS_CORRUPT ? BTS_OK : err;
}

enum bts_err apply_fetch_load_local(struct bts_apply *apply)
{
	struct commit_record *old = &apply->db->slot.record;
	struct apply_fetch *fetch = apply->fetch;
	struct tree_ctx ctx = apply_old_ctx(apply);
	enum bts_err err = snapshot_list_load(&ctx, old, &old->snapshots, &fetch->states);
	bts_txid before = 0;

	if (err == BTS_CORRUPT) {
		snapshot_list_fini(&fetch->states);
		err = BTS_OK;
	}
	for (size_t i = 0; i < fetch->states.count && !err; i++) {
		const struct snapshot *state = &fetch->states.items[i];

		err = fetch_add_state(apply, &state->catalog, before, state->txid);
		before = state->txid;
	}
	if (!err)
		err = fetch_add_state(apply, &old->catalog, before, old->txid);
	if (!err && fetch->tree_count > 1)
		qsort(fetch->trees, fetch->tree_count, sizeof(*fetch->trees), fetch_tree_order);
	return err;
}

/* The catalog of the oldest local state with a number >= birth; *state is its number. */
static const struct tree *fetch_local_catalog(const struct bts_apply *apply, bts_txid birth, bts_txid *state)
{
	const struct snapshot_list *states = &apply->fetch->states;
	const struct commit_record *old = &apply->db->slot.record;
	size_t low = 0, high = states->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (states->items[middle].txid >= birth)
			high = middle;
		else
			low = middle + 1;
	}
	*state = low < states->count ? states->items[low].txid : old->txid;
	return low < states->count ? &states->items[low].catalog : &old->catalog;
}

/* Root and depth of a tree in the local state that would have a page of this birth; false: no such tree. */
static bool fetch_local_tree(
	const struct bts_apply *apply, uint32_t id, bts_txid birth, struct page_ptr *root, uint32_t *depth)
{
	const struct commit_record *old = &apply->db->slot.record;
	const struct apply_fetch *fetch = apply->fetch;
	const struct tree *tree;
	struct fetch_tree key = {.id = id};
	size_t low = 0, high = fetch->tree_count;

	tree = fetch_local_catalog(apply, birth, &key.state);
	if (id == LAYOUT_TREE_HISTORY || id == LAYOUT_TREE_SNAPSHOTS)
		tree = id == LAYOUT_TREE_HISTORY ? &old->history : &old->snapshots;
	if (id < LAYOUT_TREE_FIRST_BUCKET) {
		*root = tree->root;
		*depth = tree->depth;
		return tree->depth > 0;
	}
	while (low < high) { /* behind the newest root that this state can have */
		size_t middle = (low + high) / 2;

		if (fetch_tree_order(&fetch->trees[middle], &key) > 0)
			high = middle;
		else
			low = middle + 1;
	}
	if (low == 0 || fetch->trees[low - 1].id != id)
		return false;
	*root = fetch->trees[low - 1].root;
	*depth = fetch->trees[low - 1].depth;
	return true;
}

static enum bts_err fetch_kept_log(struct bts_apply *apply, const struct fetch_edge *edge, bool *kept)
{
	struct tree_ctx ctx = apply_old_ctx(apply);
	struct page_ptr at = apply->db->slot.record.free.head;
	const uint8_t *image;
	enum bts_err err;

	while (at.pgno && at.birth >= edge->ptr.birth) {
		*kept = layout_ptr_equal(&at, &edge->ptr);
		if (*kept)
			return BTS_OK;
		err = pager_free_log(&ctx, &at, &image);
		if (err)
			return err;
		at = layout_get_ptr(image + LAYOUT_HEADER_SIZE);
	}
	return BTS_OK;
}

static enum bts_err fetch_kept_tree(
	struct bts_apply *apply, const struct fetch_edge *edge, struct bts_slice low, bool *kept)
{
	struct tree_ctx ctx = apply_old_ctx(apply);
	int target = edge->kind == BTS_KIND_EXTENT ? -1 : edge->level;
	struct page_ptr at;
	struct node_cell cell;
	const uint8_t *image;
	uint32_t depth;
	enum bts_err err;
	int found;

	if (!fetch_local_tree(apply, edge->tree, edge->ptr.birth, &at, &depth))
		return BTS_OK;
	for (int level = (int)depth - 1; level > target; level--) {
		if (at.birth < edge->ptr.birth)
			return BTS_OK; /* nothing below is younger */
		err = pager_node(&ctx, &at, edge->tree, level, &image);
		if (err)
			return err;
		if (level > 0) {
			at = node_child(image, node_child_index(image, low));
			continue;
		}
		found = node_find(image, low);
		if (found < 0)
			return BTS_OK;
		node_cell(image, (unsigned)found, &cell);
		*kept = cell.extent && cell.size == edge->size && layout_ptr_equal(&cell.ptr, &edge->ptr);
		return BTS_OK;
	}
	*kept = (int)depth - 1 >= target && layout_ptr_equal(&at, &edge->ptr);
	return BTS_OK;
}

enum bts_err apply_fetch_kept(
	struct bts_apply *apply, const struct fetch_edge *edge, struct bts_slice low, bool *kept)
{
	enum bts_err err;

	*kept = false;
	if (edge->ptr.birth > apply->fetch->trust)
		return BTS_OK;
	err = edge->kind == BTS_KIND_FREE_LOG ? fetch_kept_log(apply, edge, kept)
					      : fetch_kept_tree(apply, edge, low, kept);
	return err == BTS_CORRUPT ? BTS_OK : err; /* a damaged way there: asked for */
}
