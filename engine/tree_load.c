/* Bulk load: see tree_load.h. */
#include "tree_load.h"

#include "base/ensure.h"
#include "dirty.h"
#include "error.h"
#include "node_cell.h"
#include "tree_path.h"

#include <stdio.h>
#include <string.h>

#define TREE_LOAD_FANOUT 3u /* children a branch has at least before it is left, of which it gives one away */

static enum bts_err tree_load_room(struct tree_load *load, size_t more)
{
	struct bts_env *env = load->ctx->pager->env;
	size_t cap = load->made_cap;
	void *fresh;

	while (cap < load->made_count + more)
		cap = cap == 0 ? 64 : cap * 2;
	if (cap == load->made_cap)
		return BTS_OK;
	fresh = env->ops->memory(env, load->made, cap * sizeof(*load->made));
	if (fresh == NULL)
		return error_set(load->ctx->error, BTS_MEMORY, 0, "no memory to load %llu entries",
			(unsigned long long)load->grown.entries);
	load->made = fresh;
	load->made_cap = cap;
	return BTS_OK;
}

/* A page that an abort gives back; room was made for it. */
static enum bts_err tree_load_page(struct tree_load *load, struct tree_load_node *node)
{
	enum bts_err err = dirty_node(load->ctx, &node->ptr, &node->page);

	if (err == BTS_OK)
		load->made[load->made_count++] = node->ptr;
	return err;
}

/* Give back what was made since there were `from`; giving back one's own cannot fail. */
static void tree_load_undo(struct tree_load *load, size_t from)
{
	while (load->made_count > from)
		(void)dirty_release(load->ctx, &load->made[--load->made_count], 1);
}

static void tree_load_fini(struct tree_load *load)
{
	struct bts_env *env = load->ctx->pager->env;

	env->ops->memory(env, load->made, 0);
	load->made = NULL;
}

/* Copies of the last node of each level, from the root down. */
static enum bts_err tree_load_spine(struct tree_load *load)
{
	struct tree_ctx *ctx = load->ctx;
	struct page_ptr ptr = load->tree->root;
	const uint8_t *image;
	enum bts_err err;

	for (unsigned level = load->tree->depth; level-- > 0;) {
		struct tree_load_node *node = &load->spine[level];

		err = pager_node(ctx, &ptr, load->tree->id, (int)level, &image);
		if (err == BTS_OK)
			err = tree_load_page(load, node);
		if (err)
			return err;
		load->before[level] = ptr;
		memcpy(node->page, image, ctx->pager->page_size);
		if (level + 1 < load->tree->depth) {
			uint8_t *above = load->spine[level + 1].page;

			node_set_child(above, layout_count(above) - 1u, &node->ptr);
		} else {
			load->grown.root = node->ptr;
		}
		if (level > 0)
			ptr = node_child(image, layout_count(image) - 1u);
	}
	return BTS_OK;
}

enum bts_err tree_load_begin(struct tree_load *load, struct tree_ctx *ctx, struct tree *tree, unsigned fill)
{
	enum bts_err err = tree_sound(ctx, tree);

	if (err)
		return err;
	ENSURE(ctx->dirty && fill >= 50 && fill <= 100);
	memset(load, 0, sizeof(*load));
	load->ctx = ctx;
	load->tree = tree;
	load->grown = *tree;
	load->fill = node_capacity(ctx->pager->page_size) / 100 * fill;
	if (fill == 100)
		load->fill = node_capacity(ctx->pager->page_size);
	err = tree_load_room(load, TREE_DEPTH_MAX);
	if (err == BTS_OK)
		err = tree_load_spine(load);
	if (err)
		tree_load_abort(load);
	return err;
}

/* Does the entry go into the node, or is that left? */
static bool tree_load_fits(const struct tree_load *load, const uint8_t *page, uint32_t need, unsigned least)
{
	uint32_t page_size = load->ctx->pager->page_size;

	if (need > node_room(page, page_size))
		return false;
	return layout_count(page) < least || node_used(page, page_size) + need <= load->fill;
}

/* A tree that had nothing gets its first leaf. */
static enum bts_err tree_load_plant(struct tree_load *load)
{
	struct tree_load_node *leaf = &load->spine[0];
	enum bts_err err;

	if (load->grown.depth > 0)
		return BTS_OK;
	err = tree_load_page(load, leaf);
	if (err)
		return err;
	node_init(leaf->page, load->ctx->pager->page_size, load->tree->id, 0);
	load->grown.root = leaf->ptr;
	load->grown.depth = 1;
	load->grown.pages = 1;
	return BTS_OK;
}

/* The open branch at level is left: it gives its last child to fresh, which has the new one behind it. */
static void tree_load_leave(struct tree_load *load, unsigned level, const struct tree_load_node *fresh,
	struct bts_slice key, const struct page_ptr *child)
{
	uint32_t page_size = load->ctx->pager->page_size;
	uint8_t *left = load->spine[level].page;
	struct page_ptr last = node_child(left, layout_count(left) - 1u);
	bool done;

	node_init(fresh->page, page_size, load->tree->id, level);
	done = node_branch_insert(fresh->page, page_size, 0, (struct bts_slice){NULL, 0}, &last) &&
	       node_branch_insert(fresh->page, page_size, 1, key, child);
	ENSURE(done);
	node_truncate(left, page_size, layout_count(left) - 1u);
	tree_paranoid(load->ctx, left);
	tree_paranoid(load->ctx, fresh->page);
}

static void tree_load_root(struct tree_load *load, const struct tree_load_node *root, struct bts_slice key,
	const struct page_ptr *child)
{
	uint32_t page_size = load->ctx->pager->page_size;
	unsigned level = load->grown.depth;
	bool done;

	node_init(root->page, page_size, load->tree->id, level);
	done = node_branch_insert(
		       root->page, page_size, 0, (struct bts_slice){NULL, 0}, &load->spine[level - 1].ptr) &&
	       node_branch_insert(root->page, page_size, 1, key, child);
	ENSURE(done);
	load->spine[level] = *root;
	load->grown.root = root->ptr;
	load->grown.depth++;
	load->grown.pages++;
}

/*
 * Leave the leaf and every branch above it that has no room for one more child.  All pages are made first; then from
 * the top down, since separators lie in the nodes below.
 */
static enum bts_err tree_load_next_leaf(struct tree_load *load, struct bts_slice separator)
{
	struct tree_load_node fresh[TREE_DEPTH_MAX + 1] = {0};
	struct bts_slice keys[TREE_DEPTH_MAX + 1];
	size_t from = load->made_count;
	unsigned top, depth = load->grown.depth;
	uint8_t *page = load->spine[0].page;
	enum bts_err err = BTS_OK;

	keys[1] = separator;
	for (top = 1; top < depth; top++) {
		page = load->spine[top].page;
		if (tree_load_fits(load, page, node_branch_need(keys[top]), TREE_LOAD_FANOUT))
			break;
		keys[top + 1] = node_key(page, layout_count(page) - 1u);
	}
	if (top == TREE_DEPTH_MAX)
		return error_set(
			load->ctx->error, BTS_LIMIT, 0, "tree %u is %u levels deep", load->tree->id, depth);
	for (unsigned i = 0; err == BTS_OK && i < top + (top == depth); i++)
		err = tree_load_page(load, &fresh[i]);
	if (err) {
		tree_load_undo(load, from);
		return err;
	}
	if (top == depth) {
		tree_load_root(load, &fresh[top], keys[top], &fresh[top - 1].ptr);
	} else {
		bool done = node_branch_insert(page, load->ctx->pager->page_size, layout_count(page),
			keys[top], &fresh[top - 1].ptr);

		ENSURE(done);
	}
	for (unsigned level = top - 1; level > 0; level--) {
		tree_load_leave(load, level, &fresh[level], keys[level], &fresh[level - 1].ptr);
		load->spine[level] = fresh[level];
	}
	tree_paranoid(load->ctx, load->spine[0].page);
	node_init(fresh[0].page, load->ctx->pager->page_size, load->tree->id, 0);
	layout_set_last_delete(
		fresh[0].page, layout_last_delete(load->spine[0].page)); /* C1: it inherits of that range */
	load->spine[0] = fresh[0];
	load->grown.pages += top;
	return BTS_OK;
}

static enum bts_err tree_load_refuse(struct tree_load *load, struct bts_slice key)
{
	const uint8_t *bytes = key.data;
	char text[4 * 40 + 3] = "";
	size_t at = 0, shown = key.size < 40 ? key.size : 40;

	for (size_t i = 0; i < shown; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at,
			bytes[i] > 0x20 && bytes[i] < 0x7f && bytes[i] != '\\' ? "%c" : "\\x%02x", bytes[i]);
	if (shown < key.size)
		strcpy(text + at, "..");
	return error_set(load->ctx->error, BTS_INVALID, 0,
		"a load's keys must ascend: %s is not above the last one", text);
}

static enum bts_err tree_load_order(struct tree_load *load, struct bts_slice key, size_t *common)
{
	const uint8_t *leaf = load->spine[0].page;
	struct bts_slice last;

	*common = 0;
	if (load->grown.depth == 0 || layout_count(leaf) == 0)
		return BTS_OK;
	last = node_key(leaf, layout_count(leaf) - 1u);
	*common = node_common(last, key);
	if (*common == key.size || (*common < last.size && node_compare(key, last, *common) < 0))
		return tree_load_refuse(load, key);
	return BTS_OK;
}

enum bts_err tree_load_add(struct tree_load *load, struct bts_slice key, struct bts_slice value,
	const struct page_ptr *made, bts_txid version)
{
	struct tree_ctx *ctx = load->ctx;
	struct node_cell cell = {.key = key, .version = version, .extent = made != NULL};
	uint8_t *leaf;
	size_t common;
	enum bts_err err;
	bool done;

	ENSURE(key.size > 0 && key.size <= BTS_KEY_MAX &&
		(made || node_fits_inline(ctx->pager->page_size, key.size, value.size)));
	cell.value = value;
	cell.size = value.size;
	if (made)
		cell.ptr = *made;
	err = tree_load_order(load, key, &common);
	if (err == BTS_OK)
		err = tree_load_room(load, TREE_DEPTH_MAX + 2);
	if (err == BTS_OK)
		err = tree_load_plant(load);
	if (err == BTS_OK && !tree_load_fits(load, load->spine[0].page, node_leaf_need(&cell), 1))
		err = tree_load_next_leaf(load, (struct bts_slice){key.data, common + 1});
	if (err) {
		if (made)
			(void)dirty_release(ctx, made, 1);
		return err;
	}
	leaf = load->spine[0].page;
	done = node_leaf_insert(leaf, ctx->pager->page_size, layout_count(leaf), &cell);
	ENSURE(done);
	if (made)
		load->made[load->made_count++] = *made;
	load->grown.entries++;
	load->grown.bytes += key.size + value.size;
	return BTS_OK;
}

enum bts_err tree_load_end(struct tree_load *load)
{
	enum bts_err err = BTS_OK;

	if (load->grown.entries == load->tree->entries) {
		tree_load_abort(load);
		return BTS_OK;
	}
	err = dirty_reserve(load->ctx, load->tree->depth);
	if (err) {
		tree_load_abort(load);
		return err;
	}
	for (unsigned i = 0; i < load->tree->depth; i++)
		(void)dirty_release(load->ctx, &load->before[i], 1); /* room was made */
	*load->tree = load->grown;
	load->ctx->changes++;
	tree_load_fini(load);
	return BTS_OK;
}

void tree_load_abort(struct tree_load *load)
{
	tree_load_undo(load, 0);
	tree_load_fini(load);
}
