/*
 * The difference of two snapshots: bts_diff_*.
 *
 * Each side is a path from a root to where it stands: before a subtree that is not entered yet, or on an entry.  Both sides
 * move in key order.  Where both stand before the same page (pgno, birth, crc), all below it is the same, and both go past it
 * unread.  Otherwise the side that is behind goes on: it enters its subtree, or its entry is one that the other side has not.
 * At the same key the higher subtree is entered, so that trees of different depth come to pages that they share.  A subtree is
 * entered only when it differs from all that stands in its place on the other side, so the pages read are those that changed
 * and the ways to them.
 *
 * The catalogs are compared in this way, and for each bucket whose records differ its trees.
 */
#include "txn.h"

#include "error.h"

#include <inttypes.h>

#define CHANGES_END_MAX (BTS_KEY_MAX + 1u) /* a key, and the next one after it: with a zero byte behind */
#define CHANGES_OVER "no further change"

enum changes_at { CHANGES_END, CHANGES_SUBTREE, CHANGES_ENTRY };

struct changes_level {
	const uint8_t *page;
	unsigned index, level;
	struct bts_slice low, high; /* keys lie in between; high.data NULL: no bound */
};

struct changes_side {
	struct tree_ctx *ctx; /* NULL: nothing is on this side */
	uint32_t tree;
	enum changes_at at;
	struct page_ptr ptr;	    /* of the subtree */
	int level;		    /* its root's; -1: on an entry */
	struct bts_slice low, high; /* of the subtree; low: of an entry its key */
	struct node_cell cell;
	unsigned depth;
	struct changes_level path[TREE_DEPTH_MAX];
};

/* The keys from .. below to; size 0: no bound. */
struct changes_range {
	struct bts_slice from, to;
};

struct changes_pair {
	struct changes_range range;
	uint64_t *pages;
	struct changes_side side[2];
};

enum changes_which { CHANGES_OLDER, CHANGES_NEWER };

struct bts_diff {
	struct bts_env *env;
	struct bts_txn *txn[2]; /* older: may be NULL */
	struct tree_ctx ctx[2];
	struct tree catalog[2];
	struct bts_error error;
	uint64_t pages;
	bool over;	       /* the end was met, or an error */
	bool inside;	       /* entries of a bucket are compared */
	bool resumed;	       /* this bucket was told of before: resume goes on in it */
	bool put;	       /* the last change was one */
	bool single;	       /* one bucket alone */
	struct node_cell last; /* of it: where its value is */
	struct changes_pair buckets, entries;
	struct changes_range range; /* of entries */
	struct bucket_state bucket[2];
	uint8_t from[BTS_KEY_MAX], to[BTS_KEY_MAX];
	uint8_t name[BTS_BUCKET_NAME_MAX], one[BTS_BUCKET_NAME_MAX + 1]; /* one: with a zero byte behind */
	size_t name_size, one_size;
	uint8_t resume_name[BTS_BUCKET_NAME_MAX],
		resume[CHANGES_END_MAX]; /* of a seek; resume: where to go on */
	size_t resume_name_size, resume_size;
};

static int changes_compare(struct bts_slice a, struct bts_slice b)
{
	size_t common = a.size < b.size ? a.size : b.size;
	int order = common ? memcmp(a.data, b.data, common) : 0;

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

static void changes_stop(struct changes_side *side)
{
	side->at = CHANGES_END;
	side->depth = 0;
}

/* What the path names; nothing below range->to counts. */
static void changes_settle(struct changes_side *side, const struct changes_range *range)
{
	struct changes_level *top;

	while (side->depth > 0 &&
		side->path[side->depth - 1].index == layout_count(side->path[side->depth - 1].page)) {
		side->depth--;
		if (side->depth > 0)
			side->path[side->depth - 1].index++;
	}
	if (side->depth == 0) {
		changes_stop(side);
		return;
	}
	top = &side->path[side->depth - 1];
	side->level = (int)top->level - 1;
	if (top->level > 0) {
		side->at = CHANGES_SUBTREE;
		side->ptr = node_child(top->page, top->index);
		side->low = top->index > 0 ? node_key(top->page, top->index) : top->low;
		side->high = top->index + 1 < layout_count(top->page) ? node_key(top->page, top->index + 1)
								      : top->high;
	} else {
		side->at = CHANGES_ENTRY;
		node_cell(top->page, top->index, &side->cell);
		side->low = side->cell.key;
	}
	if (changes_compare(side->low, range->from) < 0)
		side->low = range->from;
	if (range->to.size > 0 && changes_compare(side->low, range->to) >= 0)
		changes_stop(side);
}

/* Past the subtree or the entry. */
static void changes_pass(struct changes_side *side, const struct changes_range *range)
{
	if (side->depth > 0)
		side->path[side->depth - 1].index++;
	changes_settle(side, range);
}

static void changes_start(struct changes_side *side, struct tree_ctx *ctx, const struct tree *tree,
	const struct changes_range *range)
{
	side->ctx = ctx;
	side->depth = 0;
	side->at = CHANGES_END;
	if (ctx == NULL || tree->depth == 0)
		return;
	side->tree = tree->id;
	side->at = CHANGES_SUBTREE;
	side->ptr = tree->root;
	side->level = (int)tree->depth - 1;
	side->low = range->from;
	side->high = (struct bts_slice){0};
}

/* First and last key (of a branch: separator) lie within the bounds of the way here. */
static enum bts_err changes_bounds(const struct changes_side *side, const struct changes_level *at)
{
	unsigned count = layout_count(at->page), first = at->level > 0 ? 1 : 0;

	if (count <= first)
		return side->depth == 0
			       ? BTS_OK
			       : error_set(side->ctx->error, BTS_CORRUPT, 0,
					 "page %" PRIu64 ": an empty node below a branch", side->ptr.pgno);
	if (changes_compare(node_key(at->page, first), at->low) < 0 ||
		(at->high.data && changes_compare(node_key(at->page, count - 1), at->high) >= 0))
		return error_set(side->ctx->error, BTS_CORRUPT, 0,
			"page %" PRIu64 ": keys outside the separators above it", side->ptr.pgno);
	return BTS_OK;
}

/* Into the subtree, to what lies at range->from or behind. */
static enum bts_err changes_enter(struct changes_side *side, struct changes_pair *pair)
{
	const struct changes_level *above = side->depth > 0 ? &side->path[side->depth - 1] : NULL;
	struct changes_level at = {.level = (unsigned)side->level, .high = side->high};
	bool exact;
	enum bts_err err = pager_node(side->ctx, &side->ptr, side->tree, side->level, &at.page);

	if (err)
		return err;
	++*pair->pages;
	if (above != NULL)
		at.low = above->index > 0 ? node_key(above->page, above->index) : above->low;
	err = changes_bounds(side, &at);
	if (err)
		return err;
	if (pair->range.from.size > 0 && layout_count(at.page) > 0)
		at.index = at.level > 0 ? node_child_index(at.page, pair->range.from)
					: node_search(at.page, pair->range.from, &exact);
	side->path[side->depth++] = at;
	changes_settle(side, &pair->range);
	return BTS_OK;
}

/* The same entry?  One that was only moved has another pointer. */
static bool changes_same(const struct node_cell *a, const struct node_cell *b)
{
	if (a->version != b->version || a->extent != b->extent)
		return false;
	if (a->extent)
		return a->size == b->size;
	return a->value.size == b->value.size && memcmp(a->value.data, b->value.data, a->value.size) == 0;
}

/* The sides' next difference: cell[..] of each side that has the entry, NULL of one that has not. */
static enum bts_err changes_step(
	struct changes_pair *pair, const struct node_cell *cell[2], struct node_cell copy[2])
{
	struct changes_side *older = &pair->side[CHANGES_OLDER], *newer = &pair->side[CHANGES_NEWER];
	enum bts_err err = BTS_OK;

	while (!err && (older->at != CHANGES_END || newer->at != CHANGES_END)) {
		bool both = older->at == CHANGES_SUBTREE && newer->at == CHANGES_SUBTREE;
		int order = older->at == CHANGES_END   ? 1
			    : newer->at == CHANGES_END ? -1
						       : changes_compare(older->low, newer->low);

		if (both && layout_ptr_equal(&older->ptr, &newer->ptr)) {
			changes_pass(older, &pair->range);
			changes_pass(newer, &pair->range);
		} else if (older->at == CHANGES_SUBTREE &&
			   (order < 0 || (order == 0 && older->level >= newer->level))) {
			err = changes_enter(older, pair);
		} else if (newer->at == CHANGES_SUBTREE && order >= 0) {
			err = changes_enter(newer, pair);
		} else {
			copy[CHANGES_OLDER] = older->cell;
			copy[CHANGES_NEWER] = newer->cell;
			cell[CHANGES_OLDER] = order <= 0 ? &copy[CHANGES_OLDER] : NULL;
			cell[CHANGES_NEWER] = order >= 0 ? &copy[CHANGES_NEWER] : NULL;
			if (order <= 0)
				changes_pass(older, &pair->range);
			if (order >= 0)
				changes_pass(newer, &pair->range);
			if (order != 0 || !changes_same(cell[CHANGES_OLDER], cell[CHANGES_NEWER]))
				return BTS_OK;
		}
	}
	return err ? err : BTS_NOT_FOUND;
}

static void changes_pair(struct bts_diff *diff, struct changes_pair *pair, const struct tree *older,
	const struct tree *newer, const struct changes_range *range)
{
	pair->range = *range;
	pair->pages = &diff->pages;
	changes_start(&pair->side[CHANGES_OLDER], older ? &diff->ctx[CHANGES_OLDER] : NULL, older, range);
	changes_start(&pair->side[CHANGES_NEWER], newer ? &diff->ctx[CHANGES_NEWER] : NULL, newer, range);
}

static struct bts_slice changes_greater(struct bts_slice a, struct bts_slice b)
{
	return changes_compare(a, b) < 0 ? b : a;
}

/* Entries of the bucket whose records are at hand, from where a seek left off if it was to there. */
static void changes_entries(struct bts_diff *diff, bool older, bool newer)
{
	struct changes_range range = diff->range;

	if (diff->resumed)
		range.from = changes_greater(range.from, (struct bts_slice){diff->resume, diff->resume_size});
	changes_pair(diff, &diff->entries, older ? &diff->bucket[CHANGES_OLDER].tree : NULL,
		newer ? &diff->bucket[CHANGES_NEWER].tree : NULL, &range);
	diff->inside = true;
}

static enum bts_err changes_decode(
	struct bts_diff *diff, const struct node_cell *cell, struct bucket_state *out)
{
	const char *wrong = cell->extent ? "a bucket's record outside its leaf"
					 : bucket_record_decode(cell->key, cell->value, cell->version, out);

	return wrong ? error_set(&diff->error, BTS_CORRUPT, 0, "catalog: %s", wrong) : BTS_OK;
}

static struct bts_slice changes_meta(const struct bucket_state *bucket)
{
	return (struct bts_slice){bucket->meta, bucket->meta_size};
}

/* A bucket whose records differ.  *tell: there is something to say of it, besides its entries. */
static enum bts_err changes_bucket(
	struct bts_diff *diff, const struct node_cell *cell[2], struct bts_change *change, bool *tell)
{
	const struct bucket_state *older = &diff->bucket[CHANGES_OLDER],
				  *newer = &diff->bucket[CHANGES_NEWER];
	const struct node_cell *named = cell[CHANGES_NEWER] ? cell[CHANGES_NEWER] : cell[CHANGES_OLDER];
	enum bts_err err = BTS_OK;

	for (unsigned i = 0; i < 2 && !err; i++)
		if (cell[i] != NULL)
			err = changes_decode(diff, cell[i], &diff->bucket[i]);
	if (err)
		return err;
	diff->resumed = diff->resumed && changes_compare(named->key, (struct bts_slice){diff->resume_name,
									     diff->resume_name_size}) == 0;
	memcpy(diff->name, named->key.data, named->key.size);
	diff->name_size = named->key.size;
	*tell = !diff->resumed;
	change->version = named->version;
	if (cell[CHANGES_NEWER] == NULL) {
		change->kind = BTS_CHANGE_BUCKET_DROPPED;
		return BTS_OK;
	}
	change->meta = changes_meta(newer);
	change->kind = cell[CHANGES_OLDER] ? BTS_CHANGE_BUCKET_META : BTS_CHANGE_BUCKET_CREATED;
	if (cell[CHANGES_OLDER] != NULL && changes_compare(changes_meta(older), changes_meta(newer)) == 0)
		*tell = false;
	changes_entries(diff, cell[CHANGES_OLDER] != NULL, true);
	diff->resumed = false;
	return BTS_OK;
}

static void changes_entry(struct bts_diff *diff, const struct node_cell *cell[2], struct bts_change *change)
{
	const struct node_cell *now = cell[CHANGES_NEWER];

	diff->put = now != NULL;
	if (now == NULL) {
		change->kind = BTS_CHANGE_DELETE;
		change->key = cell[CHANGES_OLDER]->key;
		change->version = cell[CHANGES_OLDER]->version;
		return;
	}
	diff->last = *now;
	change->kind = BTS_CHANGE_PUT;
	change->key = now->key;
	change->version = now->version;
	change->value_size = now->extent ? now->size : now->value.size;
	if (!now->extent)
		change->value = now->value;
}

static enum bts_err changes_find(struct bts_diff *diff, struct bts_change *change)
{
	const struct node_cell *cell[2];
	struct node_cell copy[2];
	bool tell = false;
	enum bts_err err = BTS_NOT_FOUND;

	for (;;) {
		if (diff->inside)
			err = changes_step(&diff->entries, cell, copy);
		if (diff->inside && err != BTS_NOT_FOUND)
			break;
		diff->inside = false;
		err = changes_step(&diff->buckets, cell, copy);
		if (!err)
			err = changes_bucket(diff, cell, change, &tell);
		if (err || tell)
			return err;
	}
	if (!err)
		changes_entry(diff, cell, change);
	return err;
}

static enum bts_err changes_live_both(struct bts_txn *older, struct bts_txn *newer, struct bts_error *error)
{
	if (older != NULL && txn_live(older))
		return error_set(error, BTS_EXPIRED, 0, "%s", older->error.text);
	return txn_live(newer) ? error_set(error, BTS_EXPIRED, 0, "%s", newer->error.text) : BTS_OK;
}

static enum bts_err changes_live(struct bts_diff *diff)
{
	return changes_live_both(diff->txn[CHANGES_OLDER], diff->txn[CHANGES_NEWER], &diff->error);
}

enum bts_err bts_diff_next(struct bts_diff *diff, struct bts_change *change, struct bts_error *error)
{
	struct bts_change found = {.size = sizeof(found)};
	size_t size = change->size;
	enum bts_err err;

	if (size < sizeof(size) || size > sizeof(found))
		return error_set(error, BTS_INVALID, 0, "struct bts_change of %zu bytes: set size first", size);
	if (diff->over)
		return diff->error.code
			       ? error_set(error, diff->error.code, diff->error.os, "%s", diff->error.text)
			       : error_set(error, BTS_NOT_FOUND, 0, CHANGES_OVER);
	diff->put = false;
	err = changes_live(diff);
	if (!err)
		err = changes_find(diff, &found);
	if (err) {
		diff->over = true;
		return err == BTS_NOT_FOUND
			       ? error_set(error, err, 0, CHANGES_OVER)
			       : error_set(error, err, diff->error.os, "%s", diff->error.text);
	}
	found.bucket = (struct bts_slice){diff->name, diff->name_size};
	found.size = size;
	memcpy(change, &found, size);
	return BTS_OK;
}

enum bts_err bts_diff_value(struct bts_diff *diff, struct bts_slice *value, struct bts_error *error)
{
	struct bts_slice bytes;
	enum bts_err err;

	if (!diff->put)
		return error_set(error, BTS_INVALID, 0, "bts_diff_value: the last change was no put");
	err = changes_live(diff);
	if (!err)
		err = tree_value(&diff->ctx[CHANGES_NEWER], &diff->last, &bytes);
	if (err) {
		diff->over = true;
		return error_set(error, err, diff->error.os, "%s", diff->error.text);
	}
	*value = bytes;
	return BTS_OK;
}

/* Buckets from this name on; size 0: all. */
static void changes_buckets(struct bts_diff *diff, struct bts_slice name)
{
	struct changes_range range = {.from = name};

	if (diff->single) {
		range.from = changes_greater(name, (struct bts_slice){diff->one, diff->one_size - 1});
		range.to = (struct bts_slice){diff->one, diff->one_size};
	}
	diff->inside = diff->over = diff->put = false;
	changes_pair(diff, &diff->buckets, diff->txn[CHANGES_OLDER] ? &diff->catalog[CHANGES_OLDER] : NULL,
		&diff->catalog[CHANGES_NEWER], &range);
}

enum bts_err bts_diff_seek(
	struct bts_diff *diff, struct bts_slice bucket, struct bts_slice key, struct bts_error *error)
{
	if (bucket.size < 1 || bucket.size > BTS_BUCKET_NAME_MAX)
		return error_set(error, BTS_INVALID, 0, "bucket name of %zu bytes (1 to %d are allowed)",
			bucket.size, BTS_BUCKET_NAME_MAX);
	if (key.size > BTS_KEY_MAX)
		return error_set(
			error, BTS_INVALID, 0, "key of %zu bytes (at most %d)", key.size, BTS_KEY_MAX);
	if (diff->error.code)
		return error_set(error, diff->error.code, diff->error.os, "%s", diff->error.text);
	memcpy(diff->resume_name, bucket.data, bucket.size);
	diff->resume_name_size = bucket.size;
	diff->resume_size = 0;
	if (key.size > 0) {
		memcpy(diff->resume, key.data, key.size);
		diff->resume[key.size] = 0;
		diff->resume_size = key.size + 1;
	}
	diff->resumed = true;
	changes_buckets(diff, (struct bts_slice){diff->resume_name, diff->resume_name_size});
	return BTS_OK;
}

uint64_t bts_diff_pages(const struct bts_diff *diff)
{
	return diff->pages;
}

static enum bts_err changes_check(const struct bts_txn *older, const struct bts_txn *newer,
	const struct bts_diff_options *options, struct bts_error *error)
{
	if (newer->writing || (older != NULL && (older->writing || older->db != newer->db || older == newer)))
		return error_set(
			error, BTS_INVALID, 0, "bts_diff_open: of two read transactions of one handle");
	if (options != NULL && options->size != sizeof(*options))
		return error_set(error, BTS_INVALID, 0, "struct bts_diff_options of %zu bytes: set size first",
			options->size);
	if (options != NULL && (options->bucket.size > BTS_BUCKET_NAME_MAX ||
				       options->from.size > BTS_KEY_MAX || options->to.size > BTS_KEY_MAX))
		return error_set(
			error, BTS_INVALID, 0, "bts_diff_open: a bucket name or key that is too long");
	return BTS_OK;
}

static struct bts_slice changes_keep(uint8_t *bytes, struct bts_slice what)
{
	if (what.size > 0)
		memcpy(bytes, what.data, what.size);
	return (struct bts_slice){bytes, what.size};
}

static void changes_restrict(struct bts_diff *diff, const struct bts_diff_options *options)
{
	diff->single = options->bucket.size > 0;
	if (diff->single) {
		changes_keep(diff->one, options->bucket);
		diff->one[options->bucket.size] = 0;
		diff->one_size = options->bucket.size + 1;
	}
	diff->range.from = changes_keep(diff->from, options->from);
	diff->range.to = changes_keep(diff->to, options->to);
}

enum bts_err bts_diff_open(struct bts_txn *older, struct bts_txn *newer,
	const struct bts_diff_options *options, struct bts_diff **out, struct bts_error *error)
{
	struct bts_env *env = newer->db->env;
	struct bts_diff *diff;
	enum bts_err err = changes_check(older, newer, options, error);

	if (err == BTS_OK)
		err = changes_live_both(older, newer, error);
	if (err)
		return err;
	diff = env->ops->memory(env, NULL, sizeof(*diff));
	if (diff == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a diff");
	memset(diff, 0, sizeof(*diff));
	diff->env = env;
	diff->txn[CHANGES_OLDER] = older;
	diff->txn[CHANGES_NEWER] = newer;
	for (unsigned i = 0; i < 2; i++) {
		if (diff->txn[i] == NULL)
			continue;
		diff->ctx[i] = diff->txn[i]->state->ctx;
		diff->ctx[i].error = &diff->error;
		diff->catalog[i] = diff->txn[i]->state->record.catalog;
	}
	if (options != NULL)
		changes_restrict(diff, options);
	changes_buckets(diff, (struct bts_slice){0});
	*out = diff;
	return BTS_OK;
}

void bts_diff_close(struct bts_diff *diff)
{
	if (diff != NULL)
		diff->env->ops->memory(diff->env, diff, 0);
}
