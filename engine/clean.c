/*
 * Cleaning: see clean.h.
 *
 * What it costs and when it pays.  A stretch as long as a batch of n pages with l live ones among them: moving costs l copies,
 * checksums and pages written in one piece, about 3 us each here; left alone, the next batch is cut into about l pieces, 14 us
 * each.  In a file of twice its live pages, changed at random and written stretch after stretch, a fifth of a stretch is still
 * live when its turn comes, and the least live one of the next few less.  Beyond CLEAN_DENSE nothing is moved: the file is too full
 * for it, and the batch may as well grow it.
 *
 * What is moved: nodes of the trees that this batch changes, whose upper levels it has mostly copied already.  Not what a
 * reader of an older commit or a named snapshot still needs, which would stay where it is and be there twice; nor extents,
 * the catalog and the free log, which are few.  A moved leaf keeps its versions and its last delete, so to conflict
 * detection nothing happened (a serializable reader of that leaf may be told of a conflict).
 *
 * Only a hint is kept, where the sweep stands: nothing here needs recovery.  The pages left are retired like any others and may be
 * taken when D has passed this batch (I1).
 */
#include "clean.h"

#include "node.h"
#include "tree_path.h"

#define CLEAN_LARGE 64u /* pages that a batch must replace */
#define CLEAN_AHEAD 100u /* pages of a batch of middle size */
#define CLEAN_MOST 8192u /* pages of a stretch */
#define CLEAN_LOOKS 64u /* so many times its length is looked through */
#define CLEAN_DENSE 40u /* per cent of a stretch that may be live */
#define CLEAN_LINES 64u /* of 64 bytes, asked for ahead: a page of the least size */
#define CLEAN_FILE 4u /* stretches that a file must have room for */

struct clean {
	struct bts *db;
	struct state *state;
	bts_txid held; /* pages born by then are needed by somebody who stays */
	struct bts_error why; /* of what could not be moved */
	struct bucket_state *bucket; /* of the page before */
};

struct clean_stretch {
	uint64_t from, count, live; /* index, a multiple of 64 as the count; pages */
};

/* Live pages of a word of the bitmaps. */
static uint64_t clean_live(const struct space *space, uint64_t word)
{
	return space_popcount(~(space->bits[word] | space->waiting[word]));
}

/* The least live stretch within words [from, end) but for where this batch goes, if it is less live than *best. */
static void clean_look(const struct space *space, uint64_t from, uint64_t end, const struct space_run *now,
	struct clean_stretch *best)
{
	uint64_t words = best->count / 64, live = 0;

	for (uint64_t word = from; word < end; word++) {
		uint64_t at = 64 * (word + 1) - best->count;

		live += clean_live(space, word);
		if (word - from >= words)
			live -= clean_live(space, word - words);
		if (word + 1 - from < words || live >= best->live ||
			(at < now->pgno + now->count && now->pgno < at + best->count))
			continue;
		best->from = at;
		best->live = live;
	}
}

/* The least live of the stretches from where the last one ended on; false: none is worth it. */
static bool clean_choose(struct clean *clean, uint64_t pages, struct clean_stretch *best)
{
	const struct space *space = &clean->db->space;
	uint64_t mark = (space->high_water - space->first) / 64, at = clean->db->clean / 64;
	uint64_t most = CLEAN_LOOKS * pages / 64, bound = pages * CLEAN_DENSE / 100, end;
	struct space_run now;

	*best = (struct clean_stretch){.count = pages, .live = bound + 1};
	if (64 * mark < CLEAN_FILE * pages || !space_window(space, pages, &now))
		return false;
	if (at >= mark)
		at = 0;
	end = mark - at < most ? mark : at + most;
	clean_look(space, at, end, &now, best);
	most -= end - at; /* and on from the beginning */
	clean_look(space, 0, most < at ? most : at, &now, best);
	clean->db->clean = best->live <= bound ? best->from + pages : 64 * end;
	return best->live <= bound;
}

/* The bucket of a tree that this batch has changed. */
static struct bucket_state *clean_bucket(struct clean *clean, uint32_t tree)
{
	const struct state *state = clean->state;

	if (clean->bucket != NULL && clean->bucket->tree.id == tree)
		return clean->bucket;
	for (size_t i = 0; i < state->bucket_count; i++) {
		struct bucket_state *bucket = state->buckets[i];

		if (bucket->tree.id == tree && bucket->changed && !bucket->dropped && layout_is_dirty(&bucket->tree.root))
			return clean->bucket = bucket;
	}
	return NULL;
}

/* What moves gets a new sum, which must not cover damage since the first touch: so the old one is computed again. */
static bool clean_whole(const struct clean *clean, const struct tree_path *path, unsigned step)
{
	uint32_t page_size = clean->db->pager.page_size;

	for (unsigned i = 0; i <= step; i++)
		if (!layout_is_dirty(&path->at[i].ptr) && pager_crc(path->at[i].image, page_size) != path->at[i].ptr.crc)
			return false;
	return true;
}

/* The way to the node that stands at this page; false when the tree has none there (any more). */
static bool clean_find(struct clean *clean, const struct tree *tree, const uint8_t *image, struct tree_path *path, unsigned *step)
{
	struct tree_ctx *ctx = &clean->state->ctx;
	struct page_ptr ptr = {layout_pgno(image), layout_birth(image), layout_crc(image)};
	unsigned level = layout_level(image), first = level > 0;
	bool exact;

	if (level >= tree->depth || pager_node(ctx, &ptr, tree->id, (int)level, &image) || layout_count(image) <= first ||
		tree_path_find(ctx, tree, node_key(image, first), path, &exact))
		return false;
	*step = path->depth - 1 - level;
	return path->at[*step].ptr.pgno == ptr.pgno && clean_whole(clean, path, *step);
}

static void clean_page(struct clean *clean, bts_pgno pgno)
{
	const uint8_t *image = pager_raw(&clean->db->pager, pgno, 1);
	struct bucket_state *bucket;
	struct tree_path path;
	unsigned step;

	if (image == NULL || layout_type(image) > LAYOUT_BRANCH || layout_pgno(image) != pgno ||
		layout_birth(image) <= clean->held)
		return;
	bucket = clean_bucket(clean, layout_tree(image));
	if (bucket != NULL && clean_find(clean, &bucket->tree, image, &path, &step))
		(void)tree_path_own_to(&clean->state->ctx, &bucket->tree, &path, step); /* failed: it stays, in a sound tree */
}

/* None of the pages was touched lately: while one is moved, the next is on its way from memory. */
static void clean_all(struct clean *clean, const struct clean_stretch *stretch)
{
	const struct space *space = &clean->db->space;
	bts_pgno before = 0;

	for (uint64_t at = stretch->from; at < stretch->from + stretch->count; at++) {
		struct space_run page = {space->first + at, 1};

		if (!space_is_live(space, page))
			continue;
		pager_prefetch(&clean->state->ctx, &(struct page_ptr){.pgno = page.pgno}, 0, CLEAN_LINES);
		if (before != 0)
			clean_page(clean, before);
		before = page.pgno;
	}
	if (before != 0)
		clean_page(clean, before);
}

/* Readers that have seen a commit go by, and named snapshots; false when that is not known yet. */
static bool clean_held(struct clean *clean)
{
	struct bts *db = clean->db;
	struct state *state = clean->state;
	size_t count = db_snapshots(db);

	for (size_t i = 0; i < count && db->snapshots[i] < state->record.txid; i++)
		clean->held = db->snapshots[i];
	if (state->base_snapshots.entries == 0)
		return true;
	if (!layout_ptr_equal(&db->named_root, &state->base_snapshots.root))
		return false;
	if (db->named_newest > clean->held)
		clean->held = db->named_newest;
	return true;
}

/* What is in the way of the next batches' leaves. */
static void clean_heads(struct clean *clean)
{
	struct clean_stretch stretch = {0};
	uint64_t end;

	while (space_head_ahead(&clean->db->space, &stretch.from, &end)) {
		stretch.count = end - stretch.from;
		clean_all(clean, &stretch);
	}
}

void clean_ahead(struct bts *db, struct state *state)
{
	struct clean clean = {.db = db, .state = state};
	struct bts_error *error = state->ctx.error;
	struct clean_stretch stretch = {0};
	bool heads;
	size_t replaced, written = dirty_bytes(state->dirty) >> db->pager.page_shift;

	(void)dirty_freed(state->dirty, &replaced);
	if (replaced > written) /* a batch that deletes leaves holes enough, and is a small one itself */
		replaced = written;
	/* Leased pages may hold nodes of old, and are written by others while they are looked at. */
	if (shared_leases(db->shared) > 0)
		return;
	heads = space_has_heads(&db->space, written) && !db->space.heads.lost;
	if (heads ? written < CLEAN_AHEAD : replaced < CLEAN_LARGE || replaced > CLEAN_MOST)
		return;
	if (state->below != 0 || state->lower || !clean_held(&clean))
		return;
	state->ctx.error = &clean.why;
	if (heads)
		clean_heads(&clean);
	else if (clean_choose(&clean, (replaced + replaced / 4 + 63) / 64 * 64, &stretch))
		clean_all(&clean, &stretch);
	state->ctx.error = error;
}
