/* Rows of neighbouring nodes as one sequence: see tree_rows.h. */
#include "tree_rows.h"

#include "base/ensure.h"
#include "node_cell.h"

#define TREE_RUN_MIN 8u /* entries a node must have before a run inside it is believed */

void tree_rows_init(struct tree_rows *rows, const uint8_t *page, uint32_t page_size)
{
	rows->leaf = node_is_leaf(page);
	rows->least = rows->leaf ? 1 : 2;
	rows->page_size = page_size;
	rows->count = rows->total = rows->parts = rows->pulls = 0;
}

static void tree_rows_part(
	struct tree_rows *rows, const uint8_t *page, const struct tree_row *row, unsigned from, unsigned to)
{
	if (from >= to)
		return;
	ENSURE(rows->parts < sizeof(rows->at) / sizeof(rows->at[0]));
	rows->at[rows->parts++] = (struct tree_part){page, row, from, to};
	rows->count += to - from;
}

void tree_rows_add(
	struct tree_rows *rows, const uint8_t *page, struct bts_slice separator, const struct tree_edit *edit)
{
	static const struct tree_edit none;
	unsigned from = 0, first = 0;

	if (edit == NULL)
		edit = &none;
	rows->total += node_used(page, rows->page_size);
	for (unsigned i = edit->from; i < edit->to; i++)
		rows->total -= node_need(page, i);
	for (unsigned i = 0; i < edit->count; i++)
		rows->total += edit->rows[i].need;
	if (!rows->leaf && rows->count > 0) { /* the separator comes down */
		struct tree_row *row = &rows->pulled[rows->pulls++];
		bool edited = edit->count > 0 && edit->from == 0;

		row->key = separator;
		row->child = edited ? edit->rows[0].child : node_child(page, 0);
		row->need = node_branch_need(separator);
		rows->total += (uint32_t)separator.size;
		tree_rows_part(rows, NULL, row, 0, 1);
		from = !edited;
		first = edited;
	}
	tree_rows_part(rows, page, NULL, from, edit->from);
	tree_rows_part(rows, NULL, edit->rows, first, edit->count);
	tree_rows_part(rows, page, NULL, edit->to > from ? edit->to : from, layout_count(page));
}

static struct bts_slice tree_rows_key(const struct tree_rows *rows, unsigned row)
{
	const struct tree_part *part = rows->at;

	for (; row >= part->to - part->from; part++)
		row -= part->to - part->from;
	return part->page ? node_key(part->page, part->from + row) : part->rows[part->from + row].key;
}

static uint32_t tree_part_need(const struct tree_part *part, unsigned at)
{
	const uint8_t *page = part->page;

	if (page == NULL)
		return part->rows[at].need;
	return NODE_SLOT_SIZE +
	       node_cell_size(page + node_slot_offset(page, at), node_is_leaf(page), node_slot_length(page, at));
}

struct bts_slice tree_rows_separator(const struct tree_rows *rows, unsigned point)
{
	struct bts_slice key = tree_rows_key(rows, point);

	if (rows->leaf)
		key.size = node_common(tree_rows_key(rows, point - 1), key) + 1;
	return key;
}

/* So near to the even division the shortest separator is chosen. */
static uint32_t tree_rows_near(const struct tree_rows *rows)
{
	return node_capacity(rows->page_size) / 32;
}

struct tree_division { /* the state of dividing rows */
	const struct tree_rows *rows;
	unsigned nodes, done; /* points that are known */
	uint32_t start;	      /* bytes before the last of them */
	uint64_t best;	      /* rank of the best candidate for the next one; UINT64_MAX: none yet */
	unsigned best_row;
	uint32_t best_start;
};

/* Consider dividing before a row, with `before` bytes in front of it. */
static void tree_division_try(
	struct tree_division *division, unsigned last, unsigned row, uint32_t before, uint32_t ideal)
{
	const struct tree_rows *rows = division->rows;
	uint32_t capacity = node_capacity(rows->page_size), start = before, off;
	unsigned rest = division->nodes - division->done; /* nodes behind the point */
	uint64_t rank = BTS_KEY_MAX + 1;

	if (row < last + rows->least || rows->count - row < rest * rows->least ||
		before - division->start > capacity)
		return;
	if (!rows->leaf) /* the key that moves up */
		start += (uint32_t)tree_rows_key(rows, row).size;
	if (rows->total - start > rest * capacity)
		return;
	off = before > ideal ? before - ideal : ideal - before;
	if (off <= tree_rows_near(rows))
		rank = tree_rows_separator(rows, row).size;
	rank = rank << 32 | off;
	if (rank >= division->best)
		return;
	division->best = rank;
	division->best_row = row;
	division->best_start = start;
}

static void tree_division_take(struct tree_division *division, unsigned *points)
{
	points[division->done++] = division->best_row;
	division->start = division->best_start;
	division->best = UINT64_MAX;
}

/* Within `reach` bytes of the even division only. */
static bool tree_rows_divide_near(
	const struct tree_rows *rows, unsigned nodes, uint32_t reach, unsigned *points)
{
	struct tree_division division = {.rows = rows, .nodes = nodes, .done = 1, .best = UINT64_MAX};
	uint32_t before = 0, ideal = rows->total / nodes;
	unsigned row = 0;

	points[0] = 0;
	for (const struct tree_part *part = rows->at; part < rows->at + rows->parts; part++) {
		for (unsigned at = part->from; at < part->to; at++, row++) {
			if (before + reach >= ideal)
				tree_division_try(&division, points[division.done - 1], row, before, ideal);
			if (before > ideal + tree_rows_near(rows) && division.best != UINT64_MAX) {
				tree_division_take(&division, points);
				if (division.done == nodes)
					return true;
				ideal = (uint32_t)((uint64_t)rows->total * division.done / nodes);
			}
			before += tree_part_need(part, at);
		}
	}
	if (division.best != UINT64_MAX)
		tree_division_take(&division, points);
	return division.done == nodes;
}

bool tree_rows_divide(const struct tree_rows *rows, unsigned nodes, unsigned *points)
{
	points[0] = 0;
	if (nodes == 1)
		return rows->total <= node_capacity(rows->page_size);
	return tree_rows_divide_near(rows, nodes, tree_rows_near(rows), points) ||
	       tree_rows_divide_near(rows, nodes, rows->page_size * TREE_WINDOW, points);
}

/* Was the cell of a slot put into the leaf after another's, as far as versions and places tell? */
static bool tree_run_later(const uint8_t *leaf, unsigned slot, unsigned other)
{
	unsigned at = node_slot_offset(leaf, slot), other_at = node_slot_offset(leaf, other);
	bts_txid version = bytes_get_u48(leaf + at), other_version = bytes_get_u48(leaf + other_at);

	if (version == other_version)
		return version != 0 || at < other_at;
	return version == 0 || (other_version != 0 && version > other_version);
}

/*
 * One entry beside the last one inserted is no run yet: of random ones every fifteenth comes so.  The one
 * that the run had before must be the second youngest of the leaf.
 */
static bool tree_run_credible(const uint8_t *leaf, unsigned last, unsigned second)
{
	unsigned count = layout_count(leaf);

	if (last >= count || second >= count)
		return false;
	for (unsigned i = 0; i < count; i++)
		if (i != last && i != second && !tree_run_later(leaf, second, i))
			return false;
	return true;
}

/* Can the rows be divided at point, with `left` bytes before it? */
static bool tree_run_fits(const struct tree_rows *rows, unsigned point, uint32_t left)
{
	uint32_t capacity = node_capacity(rows->page_size), right = rows->total - left;

	if (point < rows->least || point > rows->count - rows->least)
		return false;
	if (!rows->leaf)
		right -= (uint32_t)tree_rows_key(rows, point).size;
	return left <= capacity && right <= capacity;
}

unsigned tree_rows_run(const struct tree_rows *rows, const uint8_t *page, unsigned index)
{
	unsigned hint = layout_hint(page), row = 0;
	bool up = index == hint + 1, down = index == hint;
	uint32_t left = 0, need = 0;

	if (!up && !down)
		return 0;
	if (up && index == rows->count - 1)
		return rows->count - rows->least;
	if (down && index < rows->least)
		return rows->least;
	if (rows->count <= TREE_RUN_MIN)
		return 0;
	if (rows->leaf && !tree_run_credible(page, hint, up ? hint - 1 : hint + 1))
		return 0;
	for (const struct tree_part *part = rows->at; row <= index; part++)
		for (unsigned at = part->from; at < part->to && row <= index; at++, row++) {
			left += need;
			need = tree_part_need(part, at);
		}
	if (tree_run_fits(rows, index + 1, left + need))
		return index + 1;
	return tree_run_fits(rows, index, left) ? index : 0;
}

static void tree_rows_enter(const struct tree_rows *rows, uint8_t *page, const struct tree_row *row)
{
	unsigned count = layout_count(page);
	bool done;

	if (rows->leaf)
		done = node_leaf_insert(page, rows->page_size, count, row->cell);
	else
		done = node_branch_insert(page, rows->page_size, count,
			count ? row->key : (struct bts_slice){NULL, 0}, &row->child);
	ENSURE(done);
}

void tree_rows_fill(const struct tree_rows *rows, uint8_t *page, unsigned from, unsigned to)
{
	for (const struct tree_part *part = rows->at; to > 0; part++) {
		unsigned size = part->to - part->from, end = to < size ? to : size;

		if (from < end && part->page) {
			bool done = node_append(
				page, part->page, rows->page_size, part->from + from, part->from + end);

			ENSURE(done);
		} else {
			for (unsigned i = from; i < end; i++)
				tree_rows_enter(rows, page, &part->rows[part->from + i]);
		}
		from = from > size ? from - size : 0;
		to = to > size ? to - size : 0;
	}
}
