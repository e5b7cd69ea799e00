/* Every pointer of a committed state: see traverse.h. */
#include "traverse.h"

#include <inttypes.h>
#include <string.h>

#include "base/ensure.h"
#include "error.h"
#include "node.h"
#include "snapshot.h"
#include "txn.h"

#define TRAVERSE_PREVIOUS_AT 48u /* of a free-log page: pointer to the one before (freelog.h) */

bool traverse_is_aside(const struct traverse_edge *edge)
{
	return edge->tree == LAYOUT_TREE_HISTORY || edge->tree == LAYOUT_TREE_SNAPSHOTS ||
	       edge->tree == LAYOUT_TREE_FREE_LOG;
}

uint64_t traverse_extent_pages(uint64_t size, uint32_t page_size)
{
	return size > BTS_VALUE_MAX ? 0 : layout_extent_pages(size, page_size);
}

static enum bts_err traverse_give(
	struct traverse *t, const struct traverse_edge *edge, const struct traverse_edge **out)
{
	t->edge = *edge;
	t->may_descend = edge->kind != BTS_KIND_EXTENT;
	*out = &t->edge;
	return BTS_OK;
}

static struct traverse_edge traverse_tree_edge(const struct tree *tree, bts_txid parent_birth)
{
	struct traverse_edge edge = {
		.ptr = tree->root,
		.kind = BTS_KIND_NODE,
		.tree = tree->id,
		.level = (int)tree->depth - 1,
		.pages = 1,
		.parent_birth = parent_birth,
		.low = {"", 0},
	};

	return edge;
}

static struct traverse_edge traverse_log_edge(const struct page_ptr *ptr, bts_txid parent_birth)
{
	struct traverse_edge edge = {
		.ptr = *ptr,
		.kind = BTS_KIND_FREE_LOG,
		.tree = LAYOUT_TREE_FREE_LOG,
		.pages = 1,
		.parent_birth = parent_birth,
	};

	return edge;
}

static void traverse_add(struct traverse *t, const struct tree *tree, bts_txid txid)
{
	if (tree->depth > 0)
		t->roots[t->root_count++] = traverse_tree_edge(tree, txid);
}

static void traverse_reset(struct traverse *t, const struct commit_record *record, struct bts_error *error)
{
	t->record = record;
	t->error = error;
	t->page_size = record->page_size;
	t->root = 0;
	t->root_count = 0;
	t->depth = 0;
	t->may_descend = false;
}

void traverse_init(
	struct traverse *t, const struct commit_record *record, enum traverse_part part, struct bts_error *error)
{
	traverse_reset(t, record, error);
	if (part != TRAVERSE_ASIDE)
		traverse_add(t, &record->catalog, record->txid);
	if (part == TRAVERSE_CATALOG)
		return;
	traverse_add(t, &record->history, record->txid);
	traverse_add(t, &record->snapshots, record->txid);
	if (record->free.head.pgno)
		t->roots[t->root_count++] = traverse_log_edge(&record->free.head, record->txid);
}

void traverse_init_catalog(struct traverse *t, const struct commit_record *record, const struct tree *catalog,
	bts_txid txid, struct bts_error *error)
{
	traverse_reset(t, record, error);
	traverse_add(t, catalog, txid);
}

static enum bts_err traverse_root(struct traverse *t, const struct traverse_edge **out)
{
	return t->root == t->root_count ? BTS_NOT_FOUND : traverse_give(t, &t->roots[t->root++], out);
}

static void traverse_child(const struct traverse_level *at, unsigned index, struct traverse_edge *edge)
{
	unsigned count = layout_count(at->image);

	*edge = (struct traverse_edge){
		.ptr = node_child(at->image, index),
		.kind = BTS_KIND_NODE,
		.tree = at->edge.tree,
		.level = at->edge.level - 1,
		.pages = 1,
		.parent_birth = at->edge.ptr.birth,
		.low = index ? node_key(at->image, index) : at->edge.low,
		.high = index + 1 < count ? node_key(at->image, index + 1) : at->edge.high,
	};
}

/* A bucket's record in the catalog: the edge to its tree, if any.  NULL, or what is wrong with it. */
static const char *traverse_bucket(struct traverse *t, const struct traverse_level *at,
	const struct node_cell *cell, struct traverse_edge *edge, bool *any)
{
	struct bucket_state bucket;
	const char *wrong = cell->extent ? "bucket record outside its leaf"
					 : bucket_record_decode(cell->key, cell->value, cell->version, &bucket);

	if (!wrong && bucket.tree.id >= t->record->next_tree)
		wrong = "bucket with a tree id that was not given yet";
	if (wrong)
		return wrong;
	*any = bucket.tree.depth != 0;
	*edge = traverse_tree_edge(&bucket.tree, at->edge.ptr.birth);
	return NULL;
}

/* A leaf's cell: the edge it holds, if any.  A named snapshot's is not followed from here. */
static enum bts_err traverse_cell(struct traverse *t, const struct traverse_level *at, unsigned index,
	struct traverse_edge *edge, bool *any)
{
	struct node_cell cell;
	struct snapshot snapshot;
	const char *wrong = NULL;

	node_cell(at->image, index, &cell);
	*any = false;
	if (at->edge.tree == LAYOUT_TREE_CATALOG)
		wrong = traverse_bucket(t, at, &cell, edge, any);
	else if (at->edge.tree == LAYOUT_TREE_SNAPSHOTS)
		wrong = snapshot_decode(&cell, t->record, false, &snapshot);
	if (wrong)
		return error_set(t->error, BTS_CORRUPT, 0, "page %" PRIu64 ": slot %u: %s", at->edge.ptr.pgno, index,
			wrong);
	if (at->edge.tree == LAYOUT_TREE_CATALOG || at->edge.tree == LAYOUT_TREE_SNAPSHOTS)
		return BTS_OK;
	if (!cell.extent)
		return BTS_OK;
	*edge = (struct traverse_edge){
		.ptr = cell.ptr,
		.kind = BTS_KIND_EXTENT,
		.tree = at->edge.tree,
		.size = cell.size,
		.pages = traverse_extent_pages(cell.size, t->page_size),
		.parent_birth = at->edge.ptr.birth,
	};
	if (!edge->pages)
		return error_set(t->error, BTS_CORRUPT, 0,
			"page %" PRIu64 ": slot %u: value of %" PRIu64 " bytes", at->edge.ptr.pgno, index,
			cell.size);
	*any = true;
	return BTS_OK;
}

enum bts_err traverse_next(struct traverse *t, const struct traverse_edge **out)
{
	struct traverse_edge edge;
	enum bts_err err;
	bool any;

	while (t->depth > 0) {
		struct traverse_level *at = &t->path[t->depth - 1];

		if (at->edge.kind == BTS_KIND_FREE_LOG) {
			struct page_ptr previous = layout_get_ptr(at->image + TRAVERSE_PREVIOUS_AT);

			edge = traverse_log_edge(&previous, at->edge.ptr.birth);
			t->depth--;
			if (!previous.pgno)
				continue;
			return traverse_give(t, &edge, out);
		}
		if (at->index == layout_count(at->image)) {
			t->depth--;
			continue;
		}
		if (at->edge.level > 0) {
			traverse_child(at, at->index++, &edge);
			return traverse_give(t, &edge, out);
		}
		err = traverse_cell(t, at, at->index++, &edge, &any);
		if (err)
			return err;
		if (any)
			return traverse_give(t, &edge, out);
	}
	return traverse_root(t, out);
}

static int traverse_compare(struct bts_slice a, struct bts_slice b)
{
	int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

/* The node's first and last key (of a branch: separator) lie within the bounds of the edge that led here. */
static enum bts_err traverse_bounds(
	struct traverse *t, const struct traverse_edge *edge, const uint8_t *image)
{
	unsigned count = layout_count(image), first = edge->level > 0 ? 1 : 0;

	/* Only a root may be empty, and only a root has no bound on either side: every branch has two children. */
	if (count <= first && (edge->low.size > 0 || edge->high.data))
		return error_set(t->error, BTS_CORRUPT, 0, "page %" PRIu64 ": an empty node below a branch",
			edge->ptr.pgno);
	if (count <= first)
		return BTS_OK;
	if (traverse_compare(node_key(image, first), edge->low) < 0 ||
		(edge->high.data && traverse_compare(node_key(image, count - 1), edge->high) >= 0))
		return error_set(t->error, BTS_CORRUPT, 0,
			"page %" PRIu64 ": keys outside the separators above it", edge->ptr.pgno);
	return BTS_OK;
}

enum bts_err traverse_descend(struct traverse *t, const uint8_t *image)
{
	const struct traverse_edge *edge = &t->edge;
	struct traverse_level *at;
	enum bts_err err;

	ENSURE(t->may_descend);
	t->may_descend = false;
	if (edge->kind == BTS_KIND_NODE) {
		err = traverse_bounds(t, edge, image);
		if (err)
			return err;
	}
	/* Levels fall by one and trees have a bounded depth, so that the path is long enough for sound nodes.
	 */
	if (t->depth == TRAVERSE_DEPTH || (edge->kind == BTS_KIND_NODE && layout_level(image) != edge->level))
		return error_set(t->error, BTS_CORRUPT, 0,
			"page %" PRIu64 ": a node of level %u where %d belongs", edge->ptr.pgno,
			layout_level(image), edge->level);
	at = &t->path[t->depth++];
	at->image = image;
	at->edge = *edge;
	at->index = 0;
	return BTS_OK;
}
