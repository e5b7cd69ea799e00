/*
 * The walk of a first transfer, in page order.
 *
 * Everything that is not free is sent, so the free set and each page's own header say what to send next, and a page number says
 * how far a transfer has come.  A peer whose transfer broke off has all pages below its cursor that were live at commit T.
 * At the newest commit N it lacks two things: what lies at the cursor and above, and what was born after T below it.  A page
 * below that is live at N and was born up to T was live at T too, since a page that was freed never comes back with its
 * old birth (snapshot.h); so the peer has it, and nothing that it received since lies on it.
 *
 * What was born after T is found along the pointers, as ever, but is not sent in that order: it is marked, a bit a page,
 * and sent in page order with the rest, so that a transfer that breaks again has come further all the same.  Its pages below
 * the place where it broke are then as of N, those from there to the first cursor as of T.  If it broke below an
 * earlier such place, it has come nowhere, and what was known before stays true.  So two cursors are always enough.
 */
#include "diff.h"

#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "history.h"
#include "redirect.h"

#define ORDER_STEP 1024u /* edges looked at in one call */

/* Born after what the peer has there? */
static bool order_lacks(const struct bts_walk *walk, bts_pgno pgno, bts_txid birth)
{
	const struct bts_partial *partial = &walk->partial;

	return birth > (pgno < partial->cursor ? partial->position.txid : partial->older);
}

/* The page begins a unit, by its header. */
static const char *order_begins(struct bts_walk *walk, bts_pgno pgno, const uint8_t *image)
{
	if (!image)
		return "cannot be read";
	if (layout_pgno(image) != pgno || layout_type(image) < LAYOUT_LEAF || layout_type(image) > LAYOUT_FREE_LOG)
		return "in use, and its header is of no page that can stand here";
	if (layout_birth(image) == 0 || layout_birth(image) > walk->record.txid)
		return "in use, and born at no commit up to this one";
	return NULL;
}

/* From `from` on the first page in use that the peer lacks; the mark at the end. */
static bts_pgno order_find(const struct bts_walk *walk, bts_pgno from)
{
	bts_pgno first = walk->record.first, mark = walk->record.high_water;

	while (from < walk->known) {
		uint64_t at = from - first, word = walk->marked[at / 64] >> at % 64;

		if (word)
			return from + (unsigned)__builtin_ctzll(word);
		from += 64 - at % 64;
		if (from > walk->known)
			from = walk->known;
	}
	return from >= mark ? mark : first + space_find(&walk->free, from - first, mark - first, false);
}

enum bts_err diff_order_begin(struct bts_walk *walk)
{
	struct bts_partial *partial = &walk->partial;
	struct commit_record *record = &walk->record;
	struct bts_env *env = walk->db->env;
	enum bts_standing standing = BTS_STANDING_KNOWN;
	enum bts_err err = BTS_OK;
	uint64_t words;

	walk->ordered = true;
	walk->at = walk->known = record->first;
	if (partial->position.txid) {
		err = history_standing(&walk->ctx, record, &partial->position, &standing);
		if (!err && (standing != BTS_STANDING_KNOWN || partial->older >= partial->position.txid))
			return BTS_NOT_FOUND;
		walk->known = partial->older ? partial->older_cursor : partial->cursor;
		if (!err && (partial->cursor < record->first || walk->known < partial->cursor))
			return BTS_NOT_FOUND;
		if (walk->known > record->high_water)
			walk->known = record->high_water;
	}
	if (!err)
		err = db_load_space(walk->db, walk->redirect, record, &walk->free, &walk->error);
	if (err)
		return err;
	words = (walk->known - record->first + 63) / 64 + 1;
	walk->marked = env->ops->memory(env, NULL, words * sizeof(*walk->marked));
	if (!walk->marked)
		return error_set(&walk->error, BTS_MEMORY, 0, "no memory for a walk");
	memset(walk->marked, 0, words * sizeof(*walk->marked));
	walk->marking = walk->known > record->first;
	if (walk->marking) {
		walk->base = partial->older ? partial->older : partial->position.txid;
		diff_begin(walk);
	}
	return BTS_OK;
}

/* The unit that begins there, as its own header has it. */
static enum bts_err order_edge(struct bts_walk *walk, bts_pgno pgno, struct traverse_edge *edge)
{
	const struct pending_entry *record =
		walk->redirect ? redirect_newest(walk->redirect, pgno, walk->reader.pending_count) : NULL;
	const uint8_t *image = record ? redirect_bytes(walk->redirect, record) : pager_raw(walk->ctx.pager, pgno, 1);
	const char *wrong = order_begins(walk, pgno, image);

	if (wrong)
		return error_set(&walk->error, BTS_CORRUPT, 0, "page %" PRIu64 ": %s", pgno, wrong);
	*edge = (struct traverse_edge){.ptr = {pgno, layout_birth(image), layout_crc(image)},
		.kind = BTS_KIND_NODE,
		.tree = layout_tree(image),
		.level = layout_level(image),
		.pages = 1};
	if (layout_type(image) == LAYOUT_FREE_LOG)
		edge->kind = BTS_KIND_FREE_LOG;
	if (layout_type(image) != LAYOUT_EXTENT)
		return BTS_OK;
	edge->kind = BTS_KIND_EXTENT;
	edge->size = bytes_get_u64(image + LAYOUT_EXTENT_SIZE_AT);
	edge->pages = traverse_extent_pages(edge->size, walk->record.page_size);
	if (!edge->pages || edge->pages != layout_pages(image) ||
		!space_is_live(&walk->free, (struct space_run){pgno, edge->pages}))
		return error_set(&walk->error, BTS_CORRUPT, 0, "page %" PRIu64 ": a large value of impossible size", pgno);
	return BTS_OK;
}

/*
 * What was received ends where a unit ends, so at the cursor another begins, or in the middle of one that the peer lacks, unless the
 * cursor was made up.  Said before anything is sent: one that gets pages each time would ask for ever.
 */
static enum bts_err order_check_cursor(struct bts_walk *walk)
{
	bts_pgno at = order_find(walk, walk->spans > walk->known ? walk->spans : walk->known);
	struct traverse_edge edge;
	enum bts_err err = at < walk->record.high_water ? order_edge(walk, at, &edge) : BTS_OK;

	return err == BTS_CORRUPT ?
		error_set(&walk->error, BTS_INVALID, 0, "page %" PRIu64 ": no page begins at that cursor", at) : err;
}

/* Some steps along the pointers. */
static enum bts_err order_mark(struct bts_walk *walk)
{
	const struct traverse_edge *edge;
	const uint8_t *image;
	enum bts_err err = BTS_OK;

	for (unsigned i = 0; i < ORDER_STEP && !err; i++) {
		err = diff_step(walk, &edge, &image);
		if (!err && edge->ptr.pgno < walk->record.first)
			return error_set(&walk->error, BTS_CORRUPT, 0, "page %" PRIu64 ": a pointer outside the file", edge->ptr.pgno);
		if (!err && edge->ptr.pgno < walk->known && order_lacks(walk, edge->ptr.pgno, edge->ptr.birth)) {
			uint64_t at = edge->ptr.pgno - walk->record.first;

			walk->marked[at / 64] |= UINT64_C(1) << at % 64;
			if (walk->spans < edge->ptr.pgno + edge->pages)
				walk->spans = edge->ptr.pgno + edge->pages;
		}
	}
	if (err != BTS_NOT_FOUND)
		return err ? err : BTS_BUSY;
	walk->marking = false;
	return order_check_cursor(walk);
}

enum bts_err diff_order_next(struct bts_walk *walk, struct bts_page_id *id, struct bts_slice *bytes)
{
	struct traverse_edge edge;
	const uint8_t *image;
	enum bts_err err;

	if (walk->marking) {
		err = order_mark(walk);
		if (err)
			return err;
	}
	walk->at = order_find(walk, walk->at);
	if (walk->at >= walk->record.high_water)
		return BTS_NOT_FOUND;
	err = order_edge(walk, walk->at, &edge);
	if (!err)
		err = diff_verify(walk, &edge, &image);
	/* What was received ends where a unit ends, so at the cursor another begins, unless the cursor was made up. */
	if (err == BTS_CORRUPT && walk->partial.position.txid && walk->at >= walk->known && !walk->beyond)
		return error_set(&walk->error, BTS_INVALID, 0, "page %" PRIu64 ": no page begins at that cursor", walk->at);
	if (err)
		return err;
	walk->beyond = walk->at >= walk->known;
	*id = (struct bts_page_id){
		.pgno = edge.ptr.pgno,
		.birth = edge.ptr.birth,
		.crc = edge.ptr.crc,
		.count = (uint32_t)edge.pages,
		.kind = edge.kind,
	};
	*bytes = (struct bts_slice){image, edge.pages * walk->record.page_size};
	walk->at += edge.pages;
	return BTS_OK;
}

void diff_order_fini(struct bts_walk *walk)
{
	struct bts_env *env = walk->db->env;

	if (!walk->ordered)
		return;
	space_fini(&walk->free);
	env->ops->memory(env, walk->marked, 0);
}
