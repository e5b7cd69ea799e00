/*
 * bts_check: one snapshot verified completely, and the file around it.
 *
 * The snapshot is pinned like a reader's, so writers go on.  The walk has a pager of its own: with no page
 * remembered as verified, every byte is summed again.  All pages met on the way from the roots, then all free
 * ones, are marked in a bitmap; G2 holds when each is marked once and none is left.
 *
 * Named snapshots come after the head, newest first.  A page of one that is marked already is one it shares with
 * something newer, where all below it was verified: there its walk turns back.  What it has alone is marked when its
 * walk is over, so that a page it has twice is not taken for a shared one.
 */
#include "db.h"

#include "base/ensure.h"
#include "error.h"
#include "redirect.h"
#include "snapshot.h"
#include "traverse.h"
#include "txn.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define CHECK_SLOT_TRIES 8     /* a slot may be read in the middle of being written */
#define CHECK_LEAKS_NAMED 100u /* runs; the rest are counted */
#define CHECK_PROGRESS_PAGES 256u

struct check {
	struct bts *db;
	const struct bts_check_options *options;
	struct commit_record record;
	struct pager pager;
	struct tree_ctx ctx;
	struct bts_error why; /* ctx's */
	uint64_t *used;	      /* a bit a page from record.first on */
	uint64_t pages, done, told;
	const char *where; /* which tree is being walked, or "" */
	struct space_run *own; /* of the named snapshot being walked: what nothing newer has */
	size_t own_count, own_cap;
	uint64_t findings;
	char first[200]; /* finding */
	bool partial;	 /* some part could not be walked: what lies below it is unknown */
};

static void check_report(struct check *check, bts_pgno page, const char *text)
{
	char line[400];

	snprintf(line, sizeof(line), "%s%s", check->where, text);
	if (check->findings++ == 0)
		snprintf(check->first, sizeof(check->first), "%.*s", (int)sizeof(check->first) - 1, line);
	if (check->options->report != NULL)
		check->options->report(check->options->arg, page, line);
}

__attribute__((format(printf, 3, 4))) static void check_finding(
	struct check *check, bts_pgno page, const char *format, ...)
{
	char text[300];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	check_report(check, page, text);
}

static void check_progress(struct check *check, uint64_t pages)
{
	check->done += pages;
	if (check->done - check->told < CHECK_PROGRESS_PAGES && check->done < check->pages)
		return;
	check->told = check->done;
	if (check->options->progress != NULL)
		check->options->progress(check->options->arg,
			check->done < check->pages ? check->done : check->pages, check->pages);
}

/* Pages that are met a second time are told as runs. */
static void check_mark(struct check *check, struct space_run run, const char *twice)
{
	bts_pgno from = 0, end;

	if (run.pgno < check->record.first || run.pgno >= check->record.high_water ||
		run.count > check->record.high_water - run.pgno) {
		check_finding(check, run.pgno,
			"page %" PRIu64 ": %" PRIu64 " pages from here are not all in the file", run.pgno,
			run.count);
		return;
	}
	end = run.pgno + run.count;
	for (bts_pgno page = run.pgno; page <= end; page++) {
		uint64_t bit = page - check->record.first, mask = UINT64_C(1) << bit % 64;
		bool again = page < end && (check->used[bit / 64] & mask) != 0;

		if (again && from == 0)
			from = page;
		if (!again && from != 0) {
			check_finding(
				check, from, "pages %" PRIu64 " to %" PRIu64 ": %s", from, page - 1, twice);
			from = 0;
		}
		if (page < end)
			check->used[bit / 64] |= mask;
	}
}

static bool check_zero(const uint8_t *bytes, uint64_t from, uint64_t end)
{
	while (from < end && bytes[from] == 0)
		from++;
	return from >= end;
}

/* The checksums of an extent end with its value; the rest of its last page is zero, and that of their table. */
static void check_padding(struct check *check, const struct page_ptr *ptr, uint64_t pages)
{
	const uint8_t *image = pager_image(&check->ctx, ptr, pages);
	uint32_t page_size = check->record.page_size;
	uint64_t size, headers;

	if (image == NULL)
		return;
	size = bytes_get_u64(image + LAYOUT_EXTENT_SIZE_AT);
	if (size > BTS_VALUE_MAX || layout_extent_pages(size, page_size) != pages)
		return; /* its header is wrong, and said to be */
	headers = layout_extent_header_pages(size, page_size) * page_size;
	if (!check_zero(image, headers + size, pages * page_size))
		check_finding(check, ptr->pgno + pages - 1,
			"page %" PRIu64 ": bytes behind the end of a large value", ptr->pgno + pages - 1);
	if (!check_zero(image, LAYOUT_EXTENT_TABLE_AT + 4 * layout_extent_chunks(size), headers))
		check_finding(check, ptr->pgno, "page %" PRIu64 ": bytes behind the checksums of a large value",
			ptr->pgno);
}

static void check_visit(void *arg, const struct page_ptr *ptr, uint64_t pages)
{
	struct check *check = arg;

	if (pages > 1)
		check_padding(check, ptr, pages);
	check_mark(check, (struct space_run){ptr->pgno, pages}, "used twice");
	check_progress(check, pages);
}

/* The page that an explanation begins with, which is nearer to the damage than what its walk was looking at.
 */
static bts_pgno check_page_of(const char *text, bts_pgno page)
{
	uint64_t named = 0;
	size_t at = strlen("page ");

	if (strncmp(text, "page ", at) != 0)
		return page;
	for (; text[at] >= '0' && text[at] <= '9'; at++)
		named = named * 10 + (uint64_t)(text[at] - '0');
	return text[at] == ':' ? named : page;
}

/* What failed is a finding when the file is to blame, else the end of the check. */
static enum bts_err check_failed(struct check *check, enum bts_err err, bts_pgno page)
{
	if (err != BTS_CORRUPT)
		return err;
	check_report(check, check_page_of(check->why.text, page), check->why.text);
	check->partial = true;
	return BTS_OK;
}

static void check_tree_report(void *arg, bts_pgno page, const char *text)
{
	if (strncmp(text, "page ", 5) == 0)
		check_report(arg, check_page_of(text, page), text);
	else
		check_finding(arg, page, "page %" PRIu64 ": %s", page, text);
}

static enum bts_err check_tree(struct check *check, const struct tree *tree, const char *where)
{
	struct tree_check how = {check_visit, check_tree_report, check, true};
	enum bts_err err;

	check->where = where;
	err = tree_check(&check->ctx, tree, &how);
	check->where = "";
	if (err != BTS_CORRUPT)
		return err;
	check->partial = true;
	return BTS_OK;
}

/* Names are bytes; printed ones must be safe to show. */
static void check_title(const char *what, struct bts_slice name, char title[200])
{
	const uint8_t *bytes = name.data;
	size_t at = (size_t)snprintf(title, 200, "%s \"", what);

	for (size_t i = 0; i < name.size && i < 40; i++)
		at += (size_t)snprintf(title + at, 200 - at,
			bytes[i] >= ' ' && bytes[i] < 127 && bytes[i] != '"' && bytes[i] != '\\' ? "%c"
												 : "\\x%02x",
			bytes[i]);
	snprintf(title + at, 200 - at, "%s\": ", name.size > 40 ? "..." : "");
}

static enum bts_err check_bucket(struct check *check, const struct node_cell *cell, bts_pgno leaf)
{
	struct bucket_state bucket;
	struct bts_slice bytes;
	const char *wrong;
	char title[200];
	enum bts_err err;

	check_title("bucket", cell->key, title);
	err = tree_value(&check->ctx, cell, &bytes);
	if (err)
		return check_failed(check, err, leaf);
	wrong = bucket_record_decode(cell->key, bytes, cell->version, &bucket);
	if (wrong == NULL && bucket.tree.id >= check->record.next_tree)
		wrong = "tree id was never given out";
	if (wrong == NULL && bucket.tree.pages > check->pages) /* what bounds the walk must be bounded */
		wrong = "counts more nodes than the file has pages";
	if (wrong != NULL) {
		check_finding(check, leaf, "page %" PRIu64 ": catalog: %s%s", leaf, title, wrong);
		check->partial = true;
		return BTS_OK;
	}
	return check_tree(check, &bucket.tree, title);
}

static enum bts_err check_catalog(struct check *check)
{
	struct tree catalog = check->record.catalog;
	struct tree_cursor cursor;
	struct node_cell cell;
	uint64_t buckets = 0;
	enum bts_err err;

	err = check_tree(check, &catalog, "catalog: ");
	if (err)
		return err;
	tree_cursor_init(&cursor, &check->ctx, &catalog);
	for (err = tree_cursor_first(&cursor, &cell); err == BTS_OK; err = tree_cursor_next(&cursor, &cell)) {
		err = check_bucket(check, &cell, layout_pgno(cursor.path[cursor.depth - 1].page));
		if (err)
			return err;
		buckets++;
	}
	if (err != BTS_NOT_FOUND) {
		check->partial = true; /* the walk of the tree has told why */
		return err == BTS_CORRUPT ? BTS_OK : err;
	}
	if (buckets != check->record.buckets)
		check_finding(check, check->record.catalog.root.pgno,
			"page %" PRIu64 ": the catalog has %" PRIu64
			" buckets, the commit record says %" PRIu64,
			check->record.catalog.root.pgno, buckets, check->record.buckets);
	return BTS_OK;
}

static enum bts_err check_own(struct check *check, const struct traverse_edge *edge)
{
	struct bts_env *env = check->db->env;

	if (check->own_count > check->pages) /* what bounds the walk */
		return error_set(&check->why, BTS_CORRUPT, 0, "more pages than the file has");
	if (check->own_count == check->own_cap) {
		size_t cap = check->own_cap ? check->own_cap * 2 : 256;
		void *fresh = env->ops->memory(env, check->own, cap * sizeof(*check->own));

		if (fresh == NULL)
			return error_set(&check->why, BTS_MEMORY, 0, "no memory to check a named snapshot");
		check->own = fresh;
		check->own_cap = cap;
	}
	check->own[check->own_count++] = (struct space_run){edge->ptr.pgno, edge->pages};
	return BTS_OK;
}

static bool check_marked(const struct check *check, bts_pgno page)
{
	uint64_t bit = page - check->record.first;

	return page >= check->record.first && page < check->record.high_water &&
	       (check->used[bit / 64] >> bit % 64 & 1) != 0;
}

/* One edge of a named snapshot: verified, and gone below, unless it is shared. */
static enum bts_err check_edge(struct check *check, struct tree_ctx *ctx, struct traverse *t)
{
	struct traverse_edge edge = t->edge;
	const uint8_t *image;
	struct bts_slice value;
	enum bts_err err;

	if (edge.kind == BTS_KIND_EXTENT)
		err = pager_extent(ctx, &edge.ptr, edge.size, &value);
	else
		err = pager_node(ctx, &edge.ptr, edge.tree, edge.level, &image);
	if (err == BTS_OK && edge.ptr.birth > edge.parent_birth)
		err = error_set(&check->why, BTS_CORRUPT, 0, "page %" PRIu64 ": born after the page that points to it",
			edge.ptr.pgno);
	if (err)
		return check_failed(check, err, edge.ptr.pgno);
	if (check_marked(check, edge.ptr.pgno))
		return BTS_OK;
	err = check_own(check, &edge);
	if (err == BTS_OK && edge.kind != BTS_KIND_EXTENT) {
		err = traverse_descend(t, image);
		if (err)
			err = check_failed(check, err, edge.ptr.pgno);
	} else if (err == BTS_OK) {
		check_padding(check, &edge.ptr, edge.pages);
	}
	return err;
}

static enum bts_err check_named(struct check *check, struct traverse *t, const struct snapshot *snapshot)
{
	struct tree_ctx ctx = check->ctx;
	const struct traverse_edge *edge;
	char title[60];
	enum bts_err err;

	snprintf(title, sizeof(title), "snapshot of transaction %" PRIu64 ": ", snapshot->txid);
	check->where = title;
	check->own_count = 0;
	ctx.newest = snapshot->txid;
	if (ctx.limit > snapshot->high_water)
		ctx.limit = snapshot->high_water;
	traverse_init_catalog(t, &check->record, &snapshot->catalog, snapshot->txid, &check->why);
	while ((err = traverse_next(t, &edge)) == BTS_OK) {
		err = check_edge(check, &ctx, t);
		if (err)
			break;
	}
	err = err == BTS_NOT_FOUND ? BTS_OK : check_failed(check, err, snapshot->catalog.root.pgno);
	for (size_t i = 0; i < check->own_count; i++) {
		check_mark(check, check->own[i], "used twice");
		check_progress(check, check->own[i].count);
	}
	check->where = "";
	return err;
}

static enum bts_err check_snapshots(struct check *check)
{
	struct bts_env *env = check->db->env;
	struct snapshot_list list = {.env = env};
	struct traverse *t = env->ops->memory(env, NULL, sizeof(*t));
	enum bts_err err;

	if (t == NULL)
		return error_set(&check->why, BTS_MEMORY, 0, "no memory to check named snapshots");
	err = check_tree(check, &check->record.snapshots, "snapshots: ");
	if (err == BTS_OK) {
		err = snapshot_list_load(&check->ctx, &check->record, &check->record.snapshots, &list);
		if (err)
			err = check_failed(check, err, check->record.snapshots.root.pgno);
	}
	for (size_t i = list.count; i-- > 0 && err == BTS_OK;)
		err = check_named(check, t, &list.items[i]);
	snapshot_list_fini(&list);
	env->ops->memory(env, check->own, 0);
	env->ops->memory(env, t, 0);
	return err;
}

static enum bts_err check_log_page(void *arg, const struct page_ptr *ptr)
{
	check_visit(arg, ptr, 1);
	return BTS_OK;
}

static enum bts_err check_free(struct check *check)
{
	struct bts_env *env = check->db->env;
	struct space space;
	struct space_run run;
	bts_pgno state = 0;
	enum bts_err err;

	err = freelog_pages(&check->ctx, &check->record.free, check_log_page, check);
	if (err)
		return check_failed(check, err, check->record.free.head.pgno);
	err = space_init(&space, env, check->record.first, check->record.high_water);
	if (err)
		return error_set(&check->why, err, 0, "no memory to check the free pages");
	err = freelog_load(&check->ctx, &check->record.free, &space);
	if (err)
		err = check_failed(check, err, check->record.free.head.pgno);
	while (!err && space_next_free(&space, &state, &run)) {
		check_mark(check, run, "free, but in use");
		check_progress(check, run.count);
	}
	space_fini(&space);
	return err;
}

/* G2: what is neither reachable nor free is lost. */
static void check_leaks(struct check *check)
{
	uint64_t first = check->record.first, leaked = 0, named = 0;

	for (uint64_t at = 0; at < check->pages; at++) {
		uint64_t from = at;

		if (at % 64 == 0 && check->used[at / 64] == UINT64_MAX) {
			at += 63;
			continue;
		}
		while (at < check->pages && (check->used[at / 64] >> at % 64 & 1) == 0)
			at++;
		leaked += at - from;
		if (at > from && !check->partial && named++ < CHECK_LEAKS_NAMED)
			check_finding(check, first + from,
				"pages %" PRIu64 " to %" PRIu64 ": leaked, neither reachable nor free",
				first + from, first + at - 1);
	}
	if (leaked > 0 && check->partial)
		check_finding(
			check, 0, "%" PRIu64 " pages are neither free nor reachable past the damage", leaked);
	if (named > CHECK_LEAKS_NAMED)
		check_finding(
			check, 0, "%" PRIu64 " pages leaked in all, in %" PRIu64 " runs", leaked, named);
}

static enum bts_err check_read(struct check *check, uint8_t *bytes, size_t size, uint64_t offset)
{
	struct bts *db = check->db;
	size_t got = 0;
	int os = db->env->ops->file_pread(db->file, bytes, size, offset, &got);

	if (os != 0)
		return error_os(&check->why, os, "cannot read the header area");
	memset(bytes + got, 0, size - got);
	return BTS_OK;
}

static enum bts_err check_slot(struct check *check, const char *name, uint64_t offset)
{
	uint8_t bytes[LAYOUT_META_SIZE];
	bts_pgno page = offset / check->record.page_size;
	struct bts_error why = {0};
	struct meta_slot slot;
	enum bts_err err;

	for (int tries = 0; tries < CHECK_SLOT_TRIES; tries++) {
		err = check_read(check, bytes, sizeof(bytes), offset);
		if (err)
			return err;
		err = meta_slot_decode(bytes, &slot, &why);
		if (!err)
			break;
	}
	if (err)
		check_finding(check, page, "page %" PRIu64 ": %s: %s", page, name, why.text);
	else if (memcmp(slot.record.database, check->record.database, sizeof(slot.record.database)) != 0)
		check_finding(check, page, "page %" PRIu64 ": %s: of another database", page, name);
	else if (slot.record.page_size != check->record.page_size)
		check_finding(check, page, "page %" PRIu64 ": %s: page size %u, the commit's is %u", page,
			name, slot.record.page_size, check->record.page_size);
	return BTS_OK;
}

static enum bts_err check_reserved(struct check *check, uint64_t from, uint64_t end)
{
	uint8_t bytes[LAYOUT_META_SIZE];

	for (uint64_t at = from; at < end; at += sizeof(bytes)) {
		enum bts_err err = check_read(check, bytes, sizeof(bytes), at);

		if (err)
			return err;
		for (size_t i = 0; i < sizeof(bytes); i++) {
			bts_pgno page = (at + i) / check->record.page_size;

			if (bytes[i] == 0)
				continue;
			check_finding(check, page,
				"page %" PRIu64 ": header area: byte %" PRIu64 " is not zero", page, at + i);
			break;
		}
	}
	return BTS_OK;
}

static enum bts_err check_header(struct check *check)
{
	struct bts *db = check->db;
	struct bts_file_identity id;
	enum bts_err err;
	int os;

	err = check_slot(check, "meta A", 0);
	if (!err)
		err = check_slot(check, "meta B", LAYOUT_META_B_OFFSET);
	if (!err)
		err = check_reserved(check, LAYOUT_META_SIZE, LAYOUT_META_B_OFFSET);
	if (!err)
		err = check_reserved(check, LAYOUT_META_B_OFFSET + LAYOUT_META_SIZE, LAYOUT_RESERVED_BYTES);
	if (err)
		return err;
	os = db->env->ops->file_identity(db->file, &id);
	if (os != 0)
		return error_os(&check->why, os, "cannot read the size of the file");
	if (id.size / check->record.page_size < check->record.high_water)
		check_finding(check, id.size / check->record.page_size,
			"page %" PRIu64 ": the file ends here, before the high-water mark %" PRIu64,
			id.size / check->record.page_size, check->record.high_water);
	return BTS_OK;
}

static enum bts_err check_all(struct check *check)
{
	enum bts_err err;

	err = check_header(check);
	if (!err)
		err = check_catalog(check);
	if (!err)
		err = check_tree(check, &check->record.history, "history: ");
	if (!err)
		err = check_snapshots(check);
	if (!err)
		err = check_free(check);
	if (!err)
		check_leaks(check);
	return err;
}

static enum bts_err check_run(struct check *check)
{
	struct bts_env *env = check->db->env;
	const struct commit_record *record = &check->record;
	size_t bytes;
	enum bts_err err;

	check->pages = record->high_water - record->first;
	bytes = (check->pages / 64 + 1) * sizeof(*check->used);
	err = pager_init(&check->pager, env, check->db->file, record->page_size,
		(record->high_water + 1) * record->page_size, &check->why);
	if (err)
		return err;
	check->used = env->ops->memory(env, NULL, bytes);
	if (check->used == NULL) {
		err = error_set(
			&check->why, BTS_MEMORY, 0, "no memory to check %" PRIu64 " pages", check->pages);
	} else {
		memset(check->used, 0, bytes);
		err = check_all(check);
	}
	env->ops->memory(env, check->used, 0);
	pager_fini(&check->pager);
	return err;
}

enum bts_err bts_check(struct bts *db, const struct bts_check_options *options, struct bts_error *error)
{
	static const struct bts_check_options silent;
	struct check check = {.db = db, .options = options != NULL ? options : &silent, .where = ""};
	struct shared_reader reader;
	struct redirect_afresh afresh = {.table = NULL};
	enum bts_err err;

	err = redirect_enter(db, REDIRECT_HEAD, &reader, &check.record, &afresh.table, error);
	if (err)
		return err;
	check.ctx = (struct tree_ctx){.pager = &check.pager,
		.limit = check.record.high_water,
		.newest = check.record.txid,
		.error = &check.why};
	redirect_use_afresh(&check.ctx, &afresh);
	err = check_run(&check);
	redirect_drop(db, afresh.table);
	shared_reader_leave(db->shared, &reader);
	if (err)
		return error_set(error, err, check.why.os, "check: %s", check.why.text);
	if (check.findings > 0)
		return error_set(error, BTS_CORRUPT, 0, "check: %" PRIu64 " findings, the first: %s",
			check.findings, check.first);
	return BTS_OK;
}
