/* What a bucket is made of: a walk over its tree.  Reads every leaf; large values are counted, not read. */
#include "txn.h"

#include "error.h"
#include "node.h"

#include <string.h>

struct stat_bucket_walk {
	struct bts_txn *txn;
	uint32_t tree;
	uint32_t page_size;
	struct bts_bucket_stat stat;
};

static void stat_bucket_leaf(struct stat_bucket_walk *walk, const uint8_t *page)
{
	struct bts_bucket_stat *stat = &walk->stat;
	struct node_cell cell;

	stat->leaf_pages++;
	stat->leaf_bytes_used += node_used(page, walk->page_size);
	stat->leaf_bytes += node_capacity(walk->page_size);
	for (unsigned i = 0; i < layout_count(page); i++) {
		node_cell(page, i, &cell);
		if (!cell.extent)
			continue;
		stat->large_values++;
		stat->large_bytes += cell.size;
		stat->large_pages += layout_extent_pages(cell.size, walk->page_size);
	}
}

/* The tree's depth bounds the recursion (TREE_DEPTH_MAX). */
static enum bts_err stat_bucket_node(
	struct stat_bucket_walk *walk, const struct page_ptr *ptr, unsigned level)
{
	struct bts_bucket_stat *stat = &walk->stat;
	const uint8_t *page;
	enum bts_err err = txn_live(walk->txn);

	if (err == BTS_OK)
		err = pager_node(&walk->txn->state->ctx, ptr, walk->tree, (int)level, &page);
	if (err)
		return err;
	if (level == 0) {
		stat_bucket_leaf(walk, page);
		return BTS_OK;
	}
	stat->branch_pages++;
	stat->branch_bytes_used += node_used(page, walk->page_size);
	stat->branch_bytes += node_capacity(walk->page_size);
	for (unsigned i = 0; i < layout_count(page) && err == BTS_OK; i++) {
		struct page_ptr child = node_child(page, i);

		err = stat_bucket_node(walk, &child, level - 1);
	}
	return err;
}

enum bts_err bts_bucket_stat(struct bts_txn *txn, struct bts_bucket *handle, struct bts_bucket_stat *out)
{
	struct bucket_state *bucket = (struct bucket_state *)handle;
	struct stat_bucket_walk walk = {
		.txn = txn, .tree = bucket->tree.id, .page_size = txn->db->pager.page_size};
	size_t size = out->size;
	enum bts_err err;

	if (size < sizeof(size) || size > sizeof(walk.stat))
		return error_set(&txn->error, BTS_INVALID, 0,
			"struct bts_bucket_stat of %zu bytes: set size first", size);
	if (bucket->dropped)
		return error_set(&txn->error, BTS_INVALID, 0, "the bucket was dropped in this transaction");
	if (bucket->tree.depth > TREE_DEPTH_MAX)
		return error_set(&txn->error, BTS_CORRUPT, 0, "tree %u says it is %u levels deep",
			bucket->tree.id, bucket->tree.depth);
	err = reads_whole(txn, bucket);
	if (err == BTS_OK && bucket->tree.depth > 0)
		err = stat_bucket_node(&walk, &bucket->tree.root, bucket->tree.depth - 1);
	if (err)
		return err;
	walk.stat.size = size;
	walk.stat.entries = bucket->tree.entries;
	walk.stat.bytes = bucket->tree.bytes;
	walk.stat.depth = bucket->tree.depth;
	memcpy(out, &walk.stat, size);
	return BTS_OK;
}
