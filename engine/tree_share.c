/*
 * Choosing what becomes of a node that is full or thin.
 *
 * A node that overflows first shares what it has with the emptier of its neighbours, a private one before
 * others since that costs no page more; then with both; only when all three are full are they divided over
 * four.  So random insertion leaves leaves at 0.85 of their room, where halving each leaves 0.68.  A run is
 * divided where it is instead, so that the pages it leaves behind are full.  A node below a third full is
 * merged with a neighbour when both fit in one.  No leaf but the root is ever left empty (an empty one
 * always fits), and no branch with one child: when no neighbour can take that in, the two are divided anew.
 */
#include "tree_share.h"

#include "error.h"
#include "node_cell.h"

/* Bytes that sharing must leave free in each node, lest it is done again too soon. */
static uint32_t tree_slack(uint32_t page_size)
{
	return node_capacity(page_size) / 32;
}

static enum bts_err tree_source(
	struct tree_choice *choice, unsigned slot, struct page_ptr *ptr, const uint8_t **image)
{
	const struct tree_path *path = choice->path;
	const struct tree_step *node = &path->at[choice->step], *parent = node - 1;

	if (choice->step == 0 || slot == parent->index) {
		*ptr = node->ptr;
		*image = node->image;
		return BTS_OK;
	}
	*ptr = node_child(parent->image, slot);
	return pager_node(choice->ctx, ptr, choice->tree->id, (int)(path->depth - 1 - choice->step), image);
}

/*
 * Each node is in order itself.  What a file claims to be neighbours is not, perhaps; dividing that would
 * make nodes out of order, or release a page twice.  The outermost children have their bounds further up: a
 * separator that they bring forth is mixed with those of the parent's neighbours.
 */
static enum bts_err tree_source_check(
	struct tree_choice *choice, unsigned slot, const struct page_ptr *ptr, const uint8_t *image)
{
	struct bts_slice before = tree_path_bound(choice->path, choice->step - 1, slot, false);
	struct bts_slice behind = tree_path_bound(choice->path, choice->step - 1, slot, true);
	unsigned count = layout_count(image), first = node_first(image);
	int low = -1;  /* of the separator and the first key */
	int high = -1; /* of the last key and the next separator */

	if (!node_is_leaf(image) && count == 1) /* while a range is cut out */
		return BTS_OK;
	if (count == 0)
		return error_set(choice->ctx->error, BTS_CORRUPT, 0, "page %llu: a leaf without entries",
			(unsigned long long)ptr->pgno);
	if (before.data)
		low = node_compare(before, node_key(image, first), 0);
	if (behind.data)
		high = node_compare(node_key(image, count - 1), behind, 0);
	if (high < 0 && (low < 0 || (low == 0 && node_is_leaf(image))))
		return BTS_OK;
	return error_set(choice->ctx->error, BTS_CORRUPT, 0,
		"page %llu: keys outside the separators above it", (unsigned long long)ptr->pgno);
}

void tree_shift_rows(const struct tree_path *path, unsigned step, const struct tree_shift *shift,
	uint32_t page_size, struct tree_rows *rows)
{
	struct bts_slice separator = {NULL, 0};

	tree_rows_init(rows, shift->image[0], page_size);
	for (unsigned i = 0; i < shift->sources; i++) {
		bool own = step == 0 || shift->from + i == path->at[step - 1].index;

		if (i > 0)
			separator = node_key(path->at[step - 1].image, shift->from + i);
		tree_rows_add(rows, shift->image[i], separator, own ? shift->edit : NULL);
	}
}

/* Look at so many neighbours, the path's node one of them. */
static enum bts_err tree_choose_sources(struct tree_choice *choice, unsigned from, unsigned sources)
{
	struct tree_shift *shift = choice->shift;

	shift->from = from;
	shift->sources = sources;
	for (unsigned i = 0; i < sources; i++) {
		enum bts_err err = tree_source(choice, from + i, &shift->source[i], &shift->image[i]);

		if (err == BTS_OK && choice->step > 0)
			err = tree_source_check(choice, from + i, &shift->source[i], shift->image[i]);
		if (err)
			return err;
	}
	tree_shift_rows(choice->path, choice->step, shift, choice->ctx->pager->page_size, &choice->rows);
	return BTS_OK;
}

static bool tree_choose_nodes(struct tree_choice *choice, unsigned nodes)
{
	choice->shift->nodes = nodes;
	choice->shift->points[nodes] = choice->rows.count;
	return tree_rows_divide(&choice->rows, nodes, choice->shift->points);
}

struct tree_side { /* a neighbour */
	unsigned slot;
	uint32_t used; /* with the separator between, in branches */
	bool dirty;
};

/* The neighbours, the better one first; how many there are. */
static enum bts_err tree_sides(struct tree_choice *choice, struct tree_side *sides, unsigned *count)
{
	const struct tree_step *node = &choice->path->at[choice->step], *parent = node - 1;
	uint32_t page_size = choice->ctx->pager->page_size;

	*count = 0;
	for (unsigned right = 0; right < 2; right++) {
		struct tree_side *side = &sides[*count];
		const uint8_t *image;
		struct page_ptr ptr;
		enum bts_err err;

		if (right ? parent->index + 1 == layout_count(parent->image) : parent->index == 0)
			continue;
		side->slot = right ? parent->index + 1 : parent->index - 1;
		err = tree_source(choice, side->slot, &ptr, &image);
		if (err)
			return err;
		side->dirty = layout_is_dirty(&ptr);
		side->used = node_used(image, page_size);
		if (!node_is_leaf(image))
			side->used += (uint32_t)node_key(parent->image, parent->index + right).size;
		++*count;
	}
	if (*count == 2 &&
		(sides[0].dirty != sides[1].dirty ? sides[1].dirty : sides[1].used < sides[0].used)) {
		struct tree_side left = sides[0];

		sides[0] = sides[1];
		sides[1] = left;
	}
	return BTS_OK;
}

/* Share with one neighbour: `nodes` nodes of at most `most` bytes in all. */
static enum bts_err tree_choose_pair(struct tree_choice *choice, unsigned nodes, uint32_t most, bool *found)
{
	struct tree_side sides[2];
	unsigned count, index = choice->path->at[choice->step - 1].index;
	enum bts_err err = tree_sides(choice, sides, &count);

	*found = false;
	for (unsigned i = 0; err == BTS_OK && i < count && !*found; i++) {
		if (choice->used + sides[i].used > most)
			continue;
		err = tree_choose_sources(choice, sides[i].slot < index ? sides[i].slot : index, 2);
		*found = err == BTS_OK && tree_choose_nodes(choice, nodes);
	}
	return err;
}

/* Share with all that are near, else let them become one more. */
static enum bts_err tree_choose_window(struct tree_choice *choice, bool *found)
{
	const struct tree_step *parent = &choice->path->at[choice->step - 1];
	uint32_t page_size = choice->ctx->pager->page_size, most;
	unsigned children = layout_count(parent->image);
	unsigned sources = children < TREE_WINDOW ? children : TREE_WINDOW;
	unsigned from = parent->index < TREE_WINDOW / 2 ? 0 : parent->index - TREE_WINDOW / 2;
	enum bts_err err;

	if (from + sources > children)
		from = children - sources;
	err = tree_choose_sources(choice, from, sources);
	if (err)
		return err;
	most = sources * (node_capacity(page_size) - tree_slack(page_size));
	*found = (choice->rows.total <= most && tree_choose_nodes(choice, sources)) ||
		 tree_choose_nodes(choice, sources + 1);
	return BTS_OK;
}

/* Divide the node alone: where a run is, or in the middle. */
static enum bts_err tree_choose_alone(struct tree_choice *choice, bool only_run, bool *found)
{
	const struct tree_step *node = &choice->path->at[choice->step];
	const struct tree_edit *edit = choice->shift->edit;
	bool leaf = node_is_leaf(node->image);
	unsigned point = 0;
	enum bts_err err = tree_choose_sources(choice, choice->step == 0 ? 0 : node[-1].index, 1);

	if (err)
		return err;
	if (edit->count == edit->to - edit->from + 1 && (leaf || edit->run))
		point = tree_rows_run(&choice->rows, node->image, leaf ? edit->from : edit->from + 1);
	choice->shift->above.run = point > 0;
	if (point) {
		choice->shift->nodes = 2;
		choice->shift->points[0] = 0;
		choice->shift->points[1] = point;
		choice->shift->points[2] = choice->rows.count;
	}
	*found = point || (!only_run && tree_choose_nodes(choice, 2));
	return BTS_OK;
}

static enum bts_err tree_choose_for_room(struct tree_choice *choice, bool *found)
{
	uint32_t page_size = choice->ctx->pager->page_size;
	bool alone = choice->step == 0 || choice->simple;
	enum bts_err err = tree_choose_alone(choice, !alone, found);

	if (err || *found || alone)
		return err;
	err = tree_choose_pair(choice, 2, 2 * (node_capacity(page_size) - tree_slack(page_size)), found);
	if (err == BTS_OK && !*found)
		err = tree_choose_window(choice, found);
	if (err == BTS_OK && !*found)
		err = tree_choose_alone(choice, false, found);
	return err;
}

/* *found is false when the node is to stay thin, which it must not when it has too few rows. */
static enum bts_err tree_choose_for_thin(struct tree_choice *choice, bool least, bool *found)
{
	enum bts_err err = tree_choose_pair(choice, 1, node_capacity(choice->ctx->pager->page_size), found);

	if (err == BTS_OK && !*found && least)
		err = tree_choose_pair(choice, 2, UINT32_MAX, found);
	return err;
}

/* Bytes of a node after its edit. */
static uint32_t tree_edit_used(const uint8_t *image, uint32_t page_size, const struct tree_edit *edit)
{
	uint32_t used = node_used(image, page_size);

	for (unsigned i = edit->from; i < edit->to; i++)
		used -= node_need(image, i);
	for (unsigned i = 0; i < edit->count; i++)
		used += edit->rows[i].need;
	return used;
}

/* What becomes of a node after its edit. */
enum tree_fate { TREE_STAYS, TREE_FULL, TREE_THIN, TREE_POOR /* has too few rows to be a node */ };

static enum tree_fate tree_edit_fate(
	const uint8_t *image, uint32_t page_size, const struct tree_edit *edit, uint32_t used, bool root)
{
	unsigned count = layout_count(image) + edit->count - (edit->to - edit->from);

	if (used > node_capacity(page_size))
		return TREE_FULL;
	if (!edit->shrinks || root)
		return TREE_STAYS;
	if (count < (node_is_leaf(image) ? 1 : 2))
		return TREE_POOR;
	return tree_is_thin(used, page_size) ? TREE_THIN : TREE_STAYS;
}

bool tree_stays(const uint8_t *image, uint32_t page_size, const struct tree_edit *edit, bool root)
{
	uint32_t used = tree_edit_used(image, page_size, edit);

	return tree_edit_fate(image, page_size, edit, used, root) == TREE_STAYS;
}

enum bts_err tree_choose(struct tree_choice *choice, bool *shifts, bool *found)
{
	const uint8_t *image = choice->path->at[choice->step].image;
	uint32_t page_size = choice->ctx->pager->page_size;
	const struct tree_edit *edit = choice->shift->edit;
	enum tree_fate fate;
	enum bts_err err;

	choice->used = tree_edit_used(image, page_size, edit);
	fate = tree_edit_fate(image, page_size, edit, choice->used, choice->step == 0);
	*shifts = fate != TREE_STAYS;
	*found = true;
	if (fate == TREE_STAYS)
		return BTS_OK;
	if (fate == TREE_FULL)
		return tree_choose_for_room(choice, found);
	err = tree_choose_for_thin(choice, fate == TREE_POOR, shifts);
	*found = *shifts || fate == TREE_THIN;
	return err;
}
