/*
 * A graft (R4): a target commit is installed on a file whose position is not a base that the source can make a frame
 * from: the histories forked (rewind), or the source no longer knows the base.
 *
 * From the roots of the target's record down, each edge is either live here already or asked for.  It is live when the
 * durable state of this file has an equal pointer: in the tree of that id, found by going down to the edge's first key.
 * Which local state to look in is known: a page is reached by an unbroken run of states from its birth on (snapshot.h), so
 * if any reaches it, the oldest one with a number >= birth does.  After a fork only pages born up to it are believed: a
 * number above it may name two pages.  What has come is verified, and its own edges are examined in turn.  A miss costs a
 * page that was here already, never more: what is fetched is what differs, plus the left edge of
 * trees whose separators moved.
 *
 * Nothing here is proof: when all has come, apply_whole.c walks the target from its roots once more.
 */
#include "apply_fetch.h"

#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "live.h"
#include "node.h"
#include "txn.h"

static void *fetch_memory(struct bts_apply *apply, void *old, size_t size)
{
	return apply->db->env->ops->memory(apply->db->env, old, size);
}

static enum bts_err fetch_no_memory(struct bts_apply *apply)
{
	return error_set(&apply->error, BTS_MEMORY, 0, "no memory for a graft");
}

void apply_fetch_free(struct bts_apply *apply)
{
	struct apply_fetch *fetch = apply->fetch;

	if (!fetch)
		return;
	snapshot_list_fini(&fetch->states);
	fetch_memory(apply, fetch->trees, 0);
	fetch_memory(apply, fetch->edges, 0);
	fetch_memory(apply, fetch->places, 0);
	fetch_memory(apply, fetch->arrived, 0);
	fetch_memory(apply, fetch->page, 0);
	fetch_memory(apply, fetch->above, 0);
	fetch_memory(apply, fetch, 0);
	apply->fetch = NULL;
}

const struct bts_position *apply_fetch_fork(const struct bts_apply *apply, bts_txid *trust)
{
	*trust = apply->fetch->trust;
	return apply->fetch->forked ? &apply->fetch->fork : NULL;
}

/* ---- what is asked for ---- */

static uint32_t *fetch_place(const struct apply_fetch *fetch, bts_pgno pgno)
{
	size_t i = (size_t)(pgno * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (fetch->place_cap - 1);

	while (fetch->places[i] && fetch->edges[fetch->places[i] - 1].ptr.pgno != pgno)
		i = (i + 1) & (fetch->place_cap - 1);
	return &fetch->places[i];
}

static enum bts_err fetch_room(struct bts_apply *apply)
{
	struct apply_fetch *fetch = apply->fetch;
	uint32_t *old = fetch->places;
	size_t cap = fetch->place_cap;

	if (cap && (fetch->edge_count + 1) * 4 <= cap * 3)
		return BTS_OK;
	if (fetch->edge_count >= APPLY_UNITS_MAX)
		return error_set(&apply->error, BTS_LIMIT, 0, "a graft of more than %" PRIu64 " units", APPLY_UNITS_MAX);
	fetch->place_cap = cap ? cap * 2 : 256;
	fetch->places = fetch_memory(apply, NULL, fetch->place_cap * sizeof(*old));
	if (!fetch->places) {
		fetch->places = old;
		fetch->place_cap = cap;
		return fetch_no_memory(apply);
	}
	memset(fetch->places, 0, fetch->place_cap * sizeof(*old));
	for (size_t i = 0; i < fetch->edge_count; i++)
		*fetch_place(fetch, fetch->edges[i].ptr.pgno) = (uint32_t)i + 1;
	fetch_memory(apply, old, 0);
	return BTS_OK;
}

static const char *fetch_wrong(const struct bts_apply *apply, const struct fetch_edge *edge)
{
	const struct commit_record *record = &apply->fetch->record;

	if (edge->ptr.pgno < record->first || edge->ptr.pgno >= record->high_water || edge->pages < 1 ||
		edge->pages > record->high_water - edge->ptr.pgno)
		return "a pointer outside the file";
	if (edge->ptr.birth < 1 || edge->ptr.birth > edge->parent_birth)
		return "born after the page that points to it";
	return edge->pages > UINT32_MAX ? "a unit of too many pages" : NULL;
}

static bool fetch_equal(const struct fetch_edge *a, const struct fetch_edge *b)
{
	return layout_ptr_equal(&a->ptr, &b->ptr) && a->size == b->size && a->pages == b->pages && a->tree == b->tree &&
	       a->level == b->level && a->kind == b->kind;
}

/* An edge of the target: kept, asked for already, or to be asked for.  low: its first key. */
static enum bts_err fetch_want(struct bts_apply *apply, const struct fetch_edge *edge, struct bts_slice low)
{
	struct apply_fetch *fetch = apply->fetch;
	const char *wrong = fetch_wrong(apply, edge);
	uint32_t *place;
	enum bts_err err;
	bool kept;

	if (wrong)
		return apply_refuse_page(apply, edge->ptr.pgno, wrong);
	err = fetch_room(apply);
	if (err)
		return err;
	place = fetch_place(fetch, edge->ptr.pgno);
	if (*place)
		return fetch_equal(&fetch->edges[*place - 1], edge)
			       ? BTS_OK
			       : apply_refuse_page(apply, edge->ptr.pgno, "two pointers to it that differ");
	err = apply_fetch_kept(apply, edge, low, &kept);
	if (err || kept)
		return err;
	/* Each page has one place, so a target that asks for more lies. */
	fetch->asked += edge->pages;
	if (fetch->asked > fetch->record.high_water - fetch->record.first)
		return apply_refuse_page(apply, edge->ptr.pgno, "more pages than there are below the high-water mark");
	err = apply_grow(apply, (void **)&fetch->edges, fetch->edge_count, &fetch->edge_cap, sizeof(*fetch->edges));
	if (err)
		return err;
	fetch->edges[fetch->edge_count++] = *edge;
	*place = (uint32_t)fetch->edge_count;
	return BTS_OK;
}

static enum bts_err fetch_want_tree(struct bts_apply *apply, const struct tree *tree, bts_txid parent_birth)
{
	const struct fetch_edge edge = {
		.ptr = tree->root,
		.pages = 1,
		.parent_birth = parent_birth,
		.tree = tree->id,
		.level = (int8_t)((int)tree->depth - 1),
		.kind = BTS_KIND_NODE,
	};

	return tree->depth ? fetch_want(apply, &edge, (struct bts_slice){"", 0}) : BTS_OK;
}

static enum bts_err fetch_want_log(struct bts_apply *apply, const struct page_ptr *ptr, bts_txid parent_birth)
{
	const struct fetch_edge edge = {
		.ptr = *ptr,
		.pages = 1,
		.parent_birth = parent_birth,
		.tree = LAYOUT_TREE_FREE_LOG,
		.kind = BTS_KIND_FREE_LOG,
	};

	return ptr->pgno ? fetch_want(apply, &edge, (struct bts_slice){"", 0}) : BTS_OK;
}

static enum bts_err fetch_want_roots(struct bts_apply *apply)
{
	const struct commit_record *record = &apply->fetch->record;
	enum bts_err err = fetch_want_tree(apply, &record->catalog, record->txid);

	if (!err)
		err = fetch_want_tree(apply, &record->history, record->txid);
	if (!err)
		err = fetch_want_tree(apply, &record->snapshots, record->txid);
	return err ? err : fetch_want_log(apply, &record->free.head, record->txid);
}

/* ---- what has come ---- */

const struct commit_record *apply_fetch_record(const struct bts_apply *apply)
{
	return &apply->fetch->record;
}

const struct apply_unit *apply_fetch_unit(const struct bts_apply *apply, bts_pgno pgno)
{
	const struct apply_fetch *fetch = apply->fetch;
	uint32_t at = fetch->place_cap ? *fetch_place(fetch, pgno) : 0;

	return at && fetch->edges[at - 1].unit ? &apply->units[fetch->edges[at - 1].unit - 1] : NULL;
}

enum bts_err apply_fetch_take(struct bts_apply *apply, const struct bts_page_id *id, size_t place)
{
	struct apply_fetch *fetch = apply->fetch;
	uint32_t at = fetch->place_cap ? *fetch_place(fetch, id->pgno) : 0;
	struct fetch_edge *edge = at ? &fetch->edges[at - 1] : NULL;
	enum bts_err err;

	if (!edge || edge->unit || edge->ptr.birth != id->birth || edge->ptr.crc != id->crc || edge->pages != id->count ||
		edge->kind != id->kind)
		return apply_refuse_page(apply, id->pgno, "was not asked for");
	err = apply_grow(apply, (void **)&fetch->arrived, place, &fetch->arrived_cap, sizeof(*fetch->arrived));
	if (err)
		return err;
	fetch->arrived[place] = at - 1;
	edge->unit = (uint32_t)place + 1;
	return BTS_OK;
}

/* The first page of a unit, from where it was put. */
static enum bts_err fetch_read(struct bts_apply *apply, const struct apply_unit *unit, uint8_t *page)
{
	struct bts *db = apply->db;
	uint32_t page_size = db->slot.record.page_size;
	struct bts_file *file = unit->where ? db->log.file : db->file;
	size_t got = 0;
	int os = db->env->ops->file_pread(file, page, page_size, unit->where ? unit->where : unit->pgno * page_size, &got);

	if (os)
		return error_os(&apply->error, os, "page %" PRIu64 ": cannot read back what was received", unit->pgno);
	return got == page_size ? BTS_OK
				: error_set(&apply->error, BTS_IO, 0, "page %" PRIu64 ": cannot be read back", unit->pgno);
}

/* The first key of a node: the separator of the nearest one above it that has one on its left. */
static enum bts_err fetch_low(struct bts_apply *apply, const struct fetch_edge *edge, struct bts_slice *low)
{
	struct apply_fetch *fetch = apply->fetch;
	const struct fetch_edge *above;
	enum bts_err err;

	*low = (struct bts_slice){"", 0};
	while (edge->parent && edge->slot == 0)
		edge = &fetch->edges[edge->parent - 1];
	if (!edge->parent)
		return BTS_OK;
	above = &fetch->edges[edge->parent - 1];
	err = fetch_read(apply, &apply->units[above->unit - 1], fetch->above);
	if (err)
		return err;
	/* It was judged when it came; a disk may have lost it since. */
	if (pager_crc(fetch->above, apply->db->slot.record.page_size) != above->ptr.crc)
		return apply_refuse_page(apply, above->ptr.pgno, "cannot be read back as it came");
	*low = node_key(fetch->above, edge->slot);
	return BTS_OK;
}

static enum bts_err fetch_branch(struct bts_apply *apply, size_t at)
{
	const uint8_t *page = apply->fetch->page;
	struct fetch_edge from = apply->fetch->edges[at], edge;
	struct bts_slice low;
	enum bts_err err = fetch_low(apply, &from, &low);

	for (unsigned i = 0; !err && i < layout_count(page); i++) {
		edge = (struct fetch_edge){
			.ptr = node_child(page, i),
			.pages = 1,
			.parent_birth = from.ptr.birth,
			.parent = (uint32_t)at + 1,
			.slot = (uint16_t)i,
			.tree = from.tree,
			.level = (int8_t)(from.level - 1),
			.kind = BTS_KIND_NODE,
		};
		err = fetch_want(apply, &edge, i ? node_key(page, i) : low);
	}
	return err;
}

static enum bts_err fetch_cell(struct bts_apply *apply, const struct fetch_edge *from, const struct node_cell *cell)
{
	const struct commit_record *record = &apply->fetch->record;
	struct bucket_state bucket;
	struct snapshot snapshot;
	struct fetch_edge edge;
	const char *wrong = NULL;

	if (from->tree == LAYOUT_TREE_CATALOG) {
		wrong = cell->extent ? "a bucket's record outside its leaf"
				     : bucket_record_decode(cell->key, cell->value, cell->version, &bucket);
		return wrong ? apply_refuse_page(apply, from->ptr.pgno, wrong)
			     : fetch_want_tree(apply, &bucket.tree, from->ptr.birth);
	}
	if (from->tree == LAYOUT_TREE_SNAPSHOTS) {
		wrong = snapshot_decode(cell, record, false, &snapshot);
		return wrong ? apply_refuse_page(apply, from->ptr.pgno, wrong)
			     : fetch_want_tree(apply, &snapshot.catalog, snapshot.txid);
	}
	if (!cell->extent)
		return BTS_OK;
	edge = (struct fetch_edge){
		.ptr = cell->ptr,
		.size = cell->size,
		.pages = traverse_extent_pages(cell->size, record->page_size),
		.parent_birth = from->ptr.birth,
		.tree = from->tree,
		.kind = BTS_KIND_EXTENT,
	};
	return fetch_want(apply, &edge, cell->key);
}

/* The edges of a page that has come. */
static enum bts_err fetch_examine(struct bts_apply *apply, size_t at)
{
	struct apply_fetch *fetch = apply->fetch;
	struct fetch_edge from = fetch->edges[at];
	const struct bts_page_id id = {from.ptr.pgno, from.ptr.birth, from.ptr.crc, (uint32_t)from.pages, from.kind};
	struct node_cell cell;
	struct page_ptr previous;
	const char *wrong;
	enum bts_err err;

	if (from.kind == BTS_KIND_EXTENT)
		return BTS_OK;
	err = fetch_read(apply, &apply->units[from.unit - 1], fetch->page);
	if (err)
		return err;
	wrong = live_check(fetch->page, &id, fetch->record.page_size, fetch->record.high_water);
	if (!wrong && from.kind == BTS_KIND_NODE &&
		(layout_tree(fetch->page) != from.tree || layout_level(fetch->page) != from.level))
		wrong = "a node of another tree or level";
	if (wrong)
		return apply_refuse_page(apply, from.ptr.pgno, wrong);
	if (from.kind == BTS_KIND_FREE_LOG) {
		previous = layout_get_ptr(fetch->page + LAYOUT_HEADER_SIZE);
		return fetch_want_log(apply, &previous, from.ptr.birth);
	}
	if (from.level > 0)
		return fetch_branch(apply, at);
	for (unsigned i = 0; !err && i < layout_count(fetch->page); i++) {
		node_cell(fetch->page, i, &cell);
		err = fetch_cell(apply, &from, &cell);
	}
	return err;
}

static enum bts_err fetch_go_on(struct bts_apply *apply)
{
	struct apply_fetch *fetch = apply->fetch;
	size_t whole = apply->unit_count - (apply->taken ? 1 : 0);
	enum bts_err err = apply->failed ? apply->failed : apply_settle(apply);

	while (!err && fetch->examined < whole)
		err = fetch_examine(apply, fetch->arrived[fetch->examined++]);
	return err;
}

enum bts_err bts_apply_missing(
	struct bts_apply *apply, struct bts_page_id *ids, size_t cap, size_t *count, struct bts_error *error)
{
	struct apply_fetch *fetch = apply->fetch;
	enum bts_err err;

	*count = 0;
	if (!fetch)
		return error_set(error, BTS_INVALID, 0, "nothing is asked for by a frame");
	err = fetch_go_on(apply);
	if (err) {
		apply->failed = err;
		return apply_report(apply, err, error);
	}
	if (apply->taken && cap) /* cut off in the middle */
		ids[(*count)++] = apply->current;
	while (fetch->come < fetch->edge_count && fetch->edges[fetch->come].unit)
		fetch->come++;
	for (size_t i = fetch->come; i < fetch->edge_count && *count < cap; i++) {
		const struct fetch_edge *edge = &fetch->edges[i];

		if (!edge->unit)
			ids[(*count)++] = (struct bts_page_id){
				edge->ptr.pgno, edge->ptr.birth, edge->ptr.crc, (uint32_t)edge->pages, edge->kind};
	}
	return BTS_OK;
}

/* ---- begin ---- */

/* The fork is a commit of this file's own history. */
static enum bts_err fetch_check_fork(struct bts_apply *apply, const struct bts_position *fork)
{
	struct tree_ctx ctx = apply_old_ctx(apply);
	enum bts_standing standing = BTS_STANDING_KNOWN;
	enum bts_err err = BTS_OK;

	if (fork->txid)
		err = history_standing(&ctx, &apply->db->slot.record, fork, &standing);
	if (!err && standing != BTS_STANDING_KNOWN)
		err = error_set(&apply->error, BTS_DIVERGED, 0,
			"transaction %" PRIu64 " of epoch %" PRIu32 ", named as the fork, is not in the history of %s",
			fork->txid, fork->epoch, apply->db->path);
	return err;
}

static enum bts_err fetch_begin(struct bts_apply *apply, const struct bts_position *fork, struct bts_slice record)
{
	uint32_t page_size = apply->db->slot.record.page_size;
	struct apply_fetch *fetch = fetch_memory(apply, NULL, sizeof(*fetch));
	enum bts_err err;

	if (!fetch)
		return fetch_no_memory(apply);
	memset(fetch, 0, sizeof(*fetch));
	apply->fetch = fetch;
	fetch->trust = fork ? fork->txid : apply->db->slot.record.txid;
	fetch->forked = fork != NULL;
	if (fork)
		fetch->fork = *fork;
	fetch->page = fetch_memory(apply, NULL, page_size);
	fetch->above = fetch_memory(apply, NULL, page_size);
	if (!fetch->page || !fetch->above)
		return fetch_no_memory(apply);
	err = meta_record_decode(record.data, record.size, &fetch->record, &apply->error);
	if (err)
		return err;
	if (fetch->record.page_size != page_size || fetch->record.first != apply->db->slot.record.first ||
		fetch->record.txid != apply->target.txid ||
		memcmp(fetch->record.chain, apply->target.chain, sizeof(fetch->record.chain)))
		return error_set(&apply->error, BTS_CORRUPT, 0, "graft refused: its record is not of the commit announced");
	if (fork)
		err = fetch_check_fork(apply, fork);
	if (!err)
		err = apply_fetch_load_local(apply);
	return err ? err : fetch_want_roots(apply);
}

enum bts_err bts_apply_begin_graft(struct bts *db, const struct bts_position *fork, const struct bts_position *target,
	struct bts_slice record, struct bts_apply **out, struct bts_error *error)
{
	struct bts_apply *apply = NULL;
	enum bts_err err = apply_start(db, NULL, target, &apply, error);

	if (err)
		return err;
	err = fetch_begin(apply, fork, record);
	if (err) {
		apply_report(apply, err, error);
		bts_apply_abort(apply);
		return err;
	}
	*out = apply;
	return BTS_OK;
}
