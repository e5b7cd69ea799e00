/*
 * Changing a node, and what that sets off on the way up.
 *
 * Nodes divided anew (tree_share.c) are made from nothing and their sources released: so those need not be
 * made private, and cells come out in order.  Keys that are on their way up point into sources, which stay
 * until all is done.
 */
#include "tree_share.h"

#include "base/ensure.h"
#include "error.h"
#include "node_cell.h"

/* Made pages are given back, which cannot fail. */
static void tree_shift_cancel(struct tree_ctx *ctx, struct tree_shift *shift, unsigned made)
{
	for (unsigned i = 0; i < made; i++)
		(void)dirty_release(ctx, &shift->made[i], 1);
}

static void tree_change_cancel(struct tree_ctx *ctx, struct tree_change *change)
{
	for (unsigned step = change->first; step <= change->bottom; step++)
		tree_shift_cancel(ctx, &change->at[step], change->at[step].nodes);
	if (change->divides_root)
		(void)dirty_release(ctx, &change->root, 1);
}

static enum bts_err tree_shift_make(struct tree_ctx *ctx, struct tree_shift *shift)
{
	for (unsigned i = 0; i < shift->nodes; i++) {
		enum bts_err err = dirty_node(ctx, &shift->made[i], &shift->page[i]);

		if (err) {
			tree_shift_cancel(ctx, shift, i);
			return err;
		}
	}
	return BTS_OK;
}

/* What a shift means for the node above. */
static void tree_shift_above(const struct tree_choice *choice)
{
	struct tree_shift *shift = choice->shift;
	struct tree_edit *edit = &shift->above;

	edit->from = shift->from;
	edit->to = shift->from + shift->sources;
	edit->count = shift->nodes;
	edit->deleted = 0;
	edit->shrinks = shift->nodes < shift->sources;
	for (unsigned i = 0; i < shift->nodes; i++) {
		struct tree_row *row = &edit->rows[i];

		if (i > 0)
			row->key = tree_rows_separator(&choice->rows, shift->points[i]);
		else if (choice->step > 0)
			row->key = node_key(choice->path->at[choice->step - 1].image, shift->from);
		else
			row->key = (struct bts_slice){NULL, 0};
		row->cell = NULL;
		row->child = shift->made[i];
		row->need = node_branch_need(row->key);
	}
}

static enum bts_err tree_change_root(
	struct tree_ctx *ctx, const struct tree *tree, struct tree_change *change)
{
	enum bts_err err;

	if (tree->depth == TREE_DEPTH_MAX)
		return error_set(
			ctx->error, BTS_LIMIT, 0, "tree %u is %u levels deep", tree->id, tree->depth);
	err = dirty_node(ctx, &change->root, &change->root_page);
	change->divides_root = err == BTS_OK;
	return err;
}

/* One attempt; *found is false when neighbours can not be divided as this would need. */
static enum bts_err tree_change_try(struct tree_ctx *ctx, const struct tree *tree,
	const struct tree_path *path, bool simple, struct tree_change *change, bool *found)
{
	const struct tree_edit *edit = change->edit;
	unsigned step = change->bottom;
	struct tree_choice choice;
	enum bts_err err;
	bool shifts;

	choice.ctx = ctx;
	choice.tree = tree;
	choice.path = path;
	choice.simple = simple;
	for (;; step--) {
		choice.step = step;
		choice.shift = &change->at[step];
		choice.shift->edit = change->edit;
		choice.shift->above.run = false;
		err = tree_choose(&choice, &shifts, found);
		if (err == BTS_OK && *found && !shifts)
			return BTS_OK;
		if (err == BTS_OK && *found)
			err = tree_shift_make(ctx, choice.shift);
		if (err || !*found)
			goto fail;
		change->first = step;
		tree_shift_above(&choice);
		change->edit = &choice.shift->above;
		if (step == 0)
			break;
	}
	err = tree_change_root(ctx, tree, change);
	if (err == BTS_OK)
		return BTS_OK;
fail:
	tree_change_cancel(ctx, change);
	change->first = change->bottom + 1;
	change->edit = edit;
	return err;
}

enum bts_err tree_change_plan(struct tree_ctx *ctx, struct tree *tree, struct tree_path *path, unsigned step,
	const struct tree_edit *edit, struct tree_change *change)
{
	uint64_t releases = 2; /* a value that the edit takes out; a root that is left with one child */
	bool found = true;
	enum bts_err err = BTS_OK;

	change->bottom = step;
	change->first = step + 1;
	change->divides_root = false;
	change->edit = edit;
	if (!tree_stays(path->at[step].image, ctx->pager->page_size, edit, step == 0))
		err = tree_change_try(ctx, tree, path, false, change, &found);
	if (err == BTS_OK && !found) {
		err = tree_change_try(ctx, tree, path, true, change, &found);
		ENSURE(err || found); /* no row is over half a page, of a branch over a third */
	}
	if (err)
		return err;
	ctx->changes++;
	if (!change->divides_root)
		err = tree_path_own_to(ctx, tree, path, change->first - 1);
	for (step = change->first; step <= change->bottom; step++)
		releases += change->at[step].sources;
	if (err == BTS_OK)
		err = dirty_reserve(ctx, releases);
	if (err)
		tree_change_cancel(ctx, change);
	return err;
}

static void tree_shift_do(struct tree_ctx *ctx, struct tree *tree, const struct tree_path *path,
	unsigned step, const struct tree_shift *shift)
{
	uint32_t page_size = ctx->pager->page_size;
	bts_txid deleted = shift->edit->deleted;
	struct tree_rows rows;

	tree_shift_rows(path, step, shift, page_size, &rows);
	for (unsigned i = 0; i < shift->sources; i++)
		if (layout_last_delete(shift->image[i]) > deleted)
			deleted = layout_last_delete(shift->image[i]);
	for (unsigned i = 0; i < shift->nodes; i++) {
		node_init(shift->page[i], page_size, tree->id, path->depth - 1 - step);
		layout_set_last_delete(shift->page[i], deleted);
		tree_rows_fill(&rows, shift->page[i], shift->points[i], shift->points[i + 1]);
		tree_paranoid(ctx, shift->page[i]);
	}
	tree->pages += shift->nodes;
	tree->pages -= shift->sources;
}

static void tree_edit_leaf(struct tree_ctx *ctx, uint8_t *page, const struct tree_edit *edit)
{
	uint32_t page_size = ctx->pager->page_size;
	bool done = true;

	if (edit->count == 0 && edit->from < edit->to)
		node_remove(page, page_size, edit->from);
	else if (edit->count > 0 && edit->from < edit->to)
		done = node_leaf_replace(page, page_size, edit->from, edit->rows[0].cell);
	else if (edit->count > 0)
		done = node_leaf_insert(page, page_size, edit->from, edit->rows[0].cell);
	ENSURE(done);
	if (edit->deleted > layout_last_delete(page))
		layout_set_last_delete(page, edit->deleted);
}

/* Keys may lie in the page: separators that came down and go up again. */
static void tree_edit_branch(struct tree_ctx *ctx, uint8_t *page, const struct tree_edit *edit)
{
	uint32_t page_size = ctx->pager->page_size;
	uint8_t copies[TREE_SPREAD][BTS_KEY_MAX];
	unsigned to = edit->to;

	if (edit->count == 0)
		return;
	node_set_child(page, edit->from, &edit->rows[0].child);
	for (unsigned i = 1; i < edit->count; i++)
		memcpy(copies[i], edit->rows[i].key.data, edit->rows[i].key.size);
	while (to > edit->from + 1)
		node_remove(page, page_size, --to);
	for (unsigned i = 1; i < edit->count; i++) {
		struct bts_slice key = {copies[i], edit->rows[i].key.size};
		bool done = node_branch_insert(page, page_size, edit->from + i, key, &edit->rows[i].child);

		ENSURE(done);
	}
}

static void tree_new_root(struct tree_ctx *ctx, struct tree *tree, const struct tree_change *change)
{
	uint32_t page_size = ctx->pager->page_size;

	node_init(change->root_page, page_size, tree->id, tree->depth);
	for (unsigned i = 0; i < change->edit->count; i++) {
		const struct tree_row *row = &change->edit->rows[i];
		bool done = node_branch_insert(change->root_page, page_size, i, row->key, &row->child);

		ENSURE(done);
	}
	tree_paranoid(ctx, change->root_page);
	tree->root = change->root;
	tree->depth++;
	tree->pages++;
}

/* A root that is left with one child: that is the root now. */
static void tree_lower_root(struct tree_ctx *ctx, struct tree *tree, const uint8_t *page)
{
	struct page_ptr child = node_child(page, 0);

	(void)dirty_release(ctx, &tree->root, 1);
	tree->root = child;
	tree->depth--;
	tree->pages--;
}

void tree_change_do(
	struct tree_ctx *ctx, struct tree *tree, struct tree_path *path, const struct tree_change *change)
{
	for (unsigned step = change->bottom + 1; step-- > change->first;)
		tree_shift_do(ctx, tree, path, step, &change->at[step]);
	if (change->divides_root) {
		tree_new_root(ctx, tree, change);
	} else {
		uint8_t *page = path->at[change->first - 1].page;

		if (node_is_leaf(page))
			tree_edit_leaf(ctx, page, change->edit);
		else
			tree_edit_branch(ctx, page, change->edit);
		tree_paranoid(ctx, page);
		if (change->first == 1 && !node_is_leaf(page) && layout_count(page) == 1)
			tree_lower_root(ctx, tree, page);
	}
	for (unsigned step = change->first; step <= change->bottom; step++) /* room was made for that */
		for (unsigned i = 0; i < change->at[step].sources; i++)
			(void)dirty_release(ctx, &change->at[step].source[i], 1);
}
