/*
 * The counters of every tree in a frame's record: entries, bytes and nodes are what they were, plus the
 * frame's nodes, minus the released ones (kept subtrees count the same on both sides).
 *
 * One running sum a tree id.  A catalog leaf adds the buckets' counters with the opposite sign of its own
 * nodes, so that in the end every sum is zero: for a bucket that was made, changed, dropped, or moved to
 * another leaf alike.
 */
#include "apply.h"

#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "node.h"
#include "txn.h"

static struct apply_sum *tally_place(const struct bts_apply *apply, uint32_t tree)
{
	size_t i = tree * 2654435761u & (apply->sum_cap - 1);

	while (apply->sums[i].tree && apply->sums[i].tree != tree)
		i = (i + 1) & (apply->sum_cap - 1);
	return &apply->sums[i];
}

static enum bts_err tally_room(struct bts_apply *apply)
{
	struct bts_env *env = apply->db->env;
	struct apply_sum *old = apply->sums;
	size_t cap = apply->sum_cap;

	if (cap && (apply->sum_count + 1) * 4 <= cap * 3)
		return BTS_OK;
	apply->sum_cap = cap ? cap * 2 : 64;
	apply->sums = env->ops->memory(env, NULL, apply->sum_cap * sizeof(*old));
	if (!apply->sums) {
		apply->sums = old;
		apply->sum_cap = cap;
		return error_set(&apply->error, BTS_MEMORY, 0, "no memory for a frame over %zu trees",
			apply->sum_count);
	}
	memset(apply->sums, 0, apply->sum_cap * sizeof(*old));
	for (size_t i = 0; i < cap; i++)
		if (old[i].tree)
			*tally_place(apply, old[i].tree) = old[i];
	env->ops->memory(env, old, 0);
	return BTS_OK;
}

/* Sums wrap around, and come back. */
static enum bts_err tally_add(
	struct bts_apply *apply, uint32_t tree, uint64_t entries, uint64_t bytes, uint64_t pages, bool plus)
{
	enum bts_err err = tally_room(apply);
	struct apply_sum *sum;

	if (err)
		return err;
	sum = tally_place(apply, tree);
	if (!sum->tree) {
		sum->tree = tree;
		apply->sum_count++;
	}
	sum->entries += plus ? entries : -entries;
	sum->bytes += plus ? bytes : -bytes;
	sum->pages += plus ? pages : -pages;
	return BTS_OK;
}

enum bts_err apply_tally_node(
	struct bts_apply *apply, const struct traverse_edge *edge, const uint8_t *image, bool brought)
{
	unsigned count = edge->level == 0 ? layout_count(image) : 0;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < count; i++) {
		struct node_cell cell;
		struct bucket_state bucket;
		enum bts_err err;

		node_cell(image, i, &cell);
		bytes += cell.key.size + (cell.extent ? cell.size : cell.value.size);
		/* A record that is not sound is refused where it is traversed. */
		if (edge->tree != LAYOUT_TREE_CATALOG || cell.extent ||
			bucket_record_decode(cell.key, cell.value, cell.version, &bucket))
			continue;
		err = tally_add(apply, bucket.tree.id, bucket.tree.entries, bucket.tree.bytes,
			bucket.tree.pages, !brought);
		if (err)
			return err;
	}
	return tally_add(apply, edge->tree, count, bytes, 1, brought);
}

enum bts_err apply_tally_claim(struct bts_apply *apply, const struct tree *now, const struct tree *old)
{
	enum bts_err err = tally_add(apply, now->id, now->entries, now->bytes, now->pages, false);

	return err ? err : tally_add(apply, old->id, old->entries, old->bytes, old->pages, true);
}

enum bts_err apply_tally_close(struct bts_apply *apply)
{
	for (size_t i = 0; i < apply->sum_cap; i++) {
		const struct apply_sum *sum = &apply->sums[i];

		if (sum->entries || sum->bytes || sum->pages)
			return error_set(&apply->error, BTS_CORRUPT, 0,
				"frame refused: the counters of tree %" PRIu32 " are off by %" PRId64
				" entries, %" PRId64 " bytes, %" PRId64 " nodes",
				sum->tree, -(int64_t)sum->entries, -(int64_t)sum->bytes,
				-(int64_t)sum->pages);
	}
	if (apply->sum_cap)
		memset(apply->sums, 0, apply->sum_cap * sizeof(*apply->sums));
	apply->sum_count = 0;
	return BTS_OK;
}
