/*
 * The tree case by case: how full its pages are left, values that lie in the page they are put into,
 * memory that runs out at every allocation, and each finding of tree_check.
 */
#include "base/ensure.h"
#include "cmocka.h"
#include "rng.h"
#include "tree_bed.h"
#include <stdlib.h>

static struct rng rng;

static struct bts_slice number(uint8_t *key, uint64_t value)
{
	bytes_put_be64(key, value);
	return (struct bts_slice){key, 8};
}

static struct bts_slice text(const char *string)
{
	return (struct bts_slice){string, strlen(string)};
}

static void put(struct tree_bed *bed, struct bts_slice key, struct bts_slice value)
{
	assert_int_equal(tree_put(&bed->ctx, &bed->tree, key, value, 0), BTS_OK);
}

static struct bts_slice get(struct tree_bed *bed, struct bts_slice key)
{
	struct tree_hit hit;
	struct bts_slice value = {NULL, 0};

	assert_int_equal(tree_get(&bed->ctx, &bed->tree, key, &hit), BTS_OK);
	assert_int_equal(tree_value(&bed->ctx, &hit.cell, &value), BTS_OK);
	return value;
}

static char found[200];

static void remember(void *arg, bts_pgno page, const char *finding)
{
	(void)arg;
	(void)page;
	if (!found[0])
		snprintf(found, sizeof(found), "%s", finding);
}

struct leaves {
	struct tree_bed *bed;
	uint64_t count, used;
};

static void measure_leaf(void *arg, const struct page_ptr *ptr, uint64_t pages)
{
	struct leaves *leaves = arg;
	const uint8_t *image;

	(void)pages; /* there are no extents */
	assert_int_equal(pager_node(&leaves->bed->ctx, ptr, leaves->bed->tree.id, -1, &image), BTS_OK);
	if (layout_level(image) > 0)
		return;
	leaves->count++;
	leaves->used += node_used(image, leaves->bed->pager.page_size);
}

/* Per cent of the leaves' room that is used; the tree is sound. */
static unsigned fill(struct tree_bed *bed)
{
	struct leaves leaves = {.bed = bed};
	struct tree_check check = {.visit = measure_leaf, .report = remember, .arg = &leaves};

	assert_int_equal(tree_check(&bed->ctx, &bed->tree, &check), BTS_OK);
	return (unsigned)(leaves.used * 100 / (leaves.count * node_capacity(bed->pager.page_size)));
}

enum order { UP, DOWN, MIDDLE, MIDDLE_DOWN, RANDOM };

/* The nth key of an order: 16 bytes. */
static struct bts_slice nth_key(uint8_t *key, enum order order, uint64_t n)
{
	struct rng scramble;
	uint64_t at = n;

	if (order == DOWN)
		at = UINT64_MAX / 2 - n;
	if (order == RANDOM || (order != UP && order != DOWN && n < 2000)) { /* a run inside random keys */
		rng_init(&scramble, n + 1);
		at = rng_next(&scramble);
	} else if (order != UP && order != DOWN) {
		at = (UINT64_C(1) << 63) + (order == MIDDLE ? n : 1000000 - n);
	}
	bytes_put_be64(key, at);
	bytes_put_be64(key + 8, n);
	return (struct bts_slice){key, 16};
}

/* Entries of 16 + size bytes; size 0: all sizes.  batch: entries a transaction. */
static struct tree_bed *loaded(enum order order, uint64_t count, uint32_t size, uint64_t batch)
{
	static const uint8_t value[1024];
	struct tree_bed *bed = tree_bed_new(4096);
	uint8_t key[16];

	for (uint64_t i = 0; i < count; i++) {
		struct bts_slice any = {value, size ? size : rng_below(&rng, sizeof(value))};

		assert_int_equal(tree_put(&bed->ctx, &bed->tree, nth_key(key, order, i), any,
					 batch < count ? bed->ctx.stamp : 0), BTS_OK);
		if (i % batch == batch - 1)
			tree_bed_commit(bed);
	}
	return bed;
}

static unsigned fill_after(enum order order, uint64_t count, uint32_t size, uint64_t batch)
{
	struct tree_bed *bed = loaded(order, count, size, batch);
	unsigned percent = fill(bed);

	tree_bed_check_private(bed);
	tree_bed_free(bed);
	return percent;
}

/* Runs leave full pages behind, wherever they are. */
static void test_fill_runs(void **state)
{
	(void)state;
	assert_in_range(fill_after(UP, 40000, 100, 100000), 95, 100);
	assert_in_range(fill_after(DOWN, 40000, 100, 100000), 95, 100);
	assert_in_range(fill_after(UP, 40000, 8, 100000), 98, 100);
	assert_in_range(fill_after(DOWN, 40000, 8, 100000), 98, 100);
	assert_in_range(fill_after(UP, 10000, 0, 100000), 85, 100);
	assert_in_range(fill_after(DOWN, 10000, 0, 100000), 85, 100);
	assert_in_range(fill_after(MIDDLE, 20000, 100, 100000), 90, 100);
	assert_in_range(fill_after(MIDDLE, 6000, 100, 20), 88, 100);
	assert_in_range(fill_after(MIDDLE, 3000, 100, 1), 85, 100);
	assert_in_range(fill_after(MIDDLE_DOWN, 20000, 100, 100000), 75, 100);
}

/* Random insertion shares with neighbours before it divides. */
static void test_fill_random(void **state)
{
	(void)state;
	assert_in_range(fill_after(RANDOM, 100000, 100, 100000), 84, 90);
	assert_in_range(fill_after(RANDOM, 40000, 8, 100000), 84, 92);
	assert_in_range(fill_after(RANDOM, 20000, 0, 100000), 76, 92);
	assert_in_range(fill_after(RANDOM, 20000, 1000, 100000), 65, 77);
}

/* Random deletion merges what is thin. */
static void test_fill_deleted(void **state)
{
	struct tree_bed *bed = loaded(RANDOM, 40000, 100, 40000);
	uint8_t key[16];

	(void)state;
	for (uint64_t i = 0; i < 39000; i++) {
		assert_int_equal(tree_del(&bed->ctx, &bed->tree, nth_key(key, RANDOM, i)), BTS_OK);
		if (i % 3000 == 0)
			assert_in_range(fill(bed), 40, 100);
	}
	tree_bed_commit(bed);
	tree_bed_free(bed);
}

/* What was just got may be put, although it lies in the page, or is the value, that the put changes. */
static void test_aliases(void **state)
{
	struct tree_bed *bed = tree_bed_new(4096);
	static uint8_t big[100000], small[900], other[900];
	struct bts_slice value;
	struct tree_cursor cursor;
	struct node_cell cell;
	char name[16];

	(void)state;
	rng_fill(&rng, big, sizeof(big));
	rng_fill(&rng, small, sizeof(small));
	rng_fill(&rng, other, sizeof(other));
	put(bed, text("a"), (struct bts_slice){other, sizeof(other)});
	put(bed, text("az"), (struct bts_slice){small, sizeof(small)});
	for (int i = 0; i < 60; i++) { /* splits that move the source, and compactions */
		snprintf(name, sizeof(name), "a%02d", i * 7 % 60);
		put(bed, text(name), get(bed, text(i % 2 ? "a" : "az")));
		value = get(bed, text(name));
		assert_memory_equal(value.data, i % 2 ? other : small, sizeof(small));
		put(bed, text(name), (struct bts_slice){small, i % 3});
		put(bed, text(name), get(bed, text(i % 2 ? "az" : "a")));
	}
	for (int i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "a%02d", i * 7 % 60);
		value = get(bed, text(name));
		assert_int_equal(value.size, sizeof(small));
		assert_memory_equal(value.data, i % 2 ? small : other, sizeof(small));
	}
	put(bed, text("b"), (struct bts_slice){big, sizeof(big)});
	value = get(bed, text("b"));
	put(bed, text("b"), (struct bts_slice){(const uint8_t *)value.data + 500, 400});
	assert_memory_equal(get(bed, text("b")).data, big + 500, 400);
	put(bed, text("b"), (struct bts_slice){big, sizeof(big)});
	value = get(bed, text("b"));
	put(bed, text("b"), (struct bts_slice){(const uint8_t *)value.data + 5, 90000});
	assert_memory_equal(get(bed, text("b")).data, big + 5, 90000);
	tree_cursor_init(&cursor, &bed->ctx, &bed->tree);
	while (tree_cursor_first(&cursor, &cell) == BTS_OK)
		assert_int_equal(tree_del(&bed->ctx, &bed->tree, cell.key), BTS_OK);
	assert_int_equal(bed->tree.entries, 0);
	tree_bed_check_private(bed);
	tree_bed_free(bed);
}

/* The same where the put divides the leaf, and the source goes to the other half. */
static void test_alias_split(void **state)
{
	struct tree_bed *bed = tree_bed_new(4096);
	static const char *const names[] = {"y", "d", "c", "b"};
	static uint8_t filler[900], source[900];

	(void)state;
	rng_fill(&rng, filler, sizeof(filler));
	rng_fill(&rng, source, sizeof(source));
	put(bed, text("z"), (struct bts_slice){source, sizeof(source)});
	for (int i = 0; i < 4; i++)
		put(bed, text(names[i]), (struct bts_slice){filler, i ? 600 : 900});
	assert_int_equal(bed->tree.pages, 1);
	put(bed, text("bb"), get(bed, text("z")));
	assert_int_equal(bed->tree.pages, 3);
	assert_memory_equal(get(bed, text("bb")).data, source, sizeof(source));
	assert_memory_equal(get(bed, text("z")).data, source, sizeof(source));
	tree_bed_free(bed);
}

/* A tree whose branches hold few and long separators, so that one put can split several levels. */
static struct bts_slice long_key(uint8_t *key, uint64_t value)
{
	memset(key, 'x', BTS_KEY_MAX);
	bytes_put_be64(key + BTS_KEY_MAX - 8, value);
	return (struct bts_slice){key, BTS_KEY_MAX};
}

static uint64_t digest(struct tree_bed *bed)
{
	struct tree_cursor cursor;
	struct node_cell cell;
	uint64_t sum = bed->tree.entries * 31 + bed->tree.bytes;

	tree_cursor_init(&cursor, &bed->ctx, &bed->tree);
	while (tree_cursor_next(&cursor, &cell) == BTS_OK) {
		struct bts_slice value;

		assert_int_equal(tree_value(&bed->ctx, &cell, &value), BTS_OK);
		for (size_t i = 0; i < value.size; i++)
			sum = sum * 31 + ((const uint8_t *)value.data)[i];
		for (size_t i = cell.key.size - 8; i < cell.key.size; i++)
			sum = sum * 31 + ((const uint8_t *)cell.key.data)[i];
	}
	return sum;
}

/* Fail the first, second, ... allocation of a change until none is left to fail; nothing may change before.
 */
static void change_without_memory(
	struct tree_bed *bed, bool deletion, struct bts_slice key, struct bts_slice value)
{
	uint64_t before = digest(bed);
	enum bts_err err;

	for (uint64_t nth = 1;; nth++) {
		bed->fail_in = nth;
		err = deletion ? tree_del(&bed->ctx, &bed->tree, key)
			       : tree_put(&bed->ctx, &bed->tree, key, value, 0);
		if (bed->fail_in)
			break;
		assert_int_equal(err, BTS_MEMORY);
		tree_bed_check_private(bed);
		assert_true(digest(bed) == before);
	}
	bed->fail_in = 0;
	assert_int_equal(err, BTS_OK);
}

static void test_memory(void **state)
{
	struct tree_bed *bed = tree_bed_new(4096);
	static uint8_t value[9000];
	uint8_t key[BTS_KEY_MAX];

	(void)state;
	for (uint64_t i = 0; i < 150; i++) {
		uint64_t at = i * 37 % 150;

		change_without_memory(bed, false, long_key(key, at),
			(struct bts_slice){value, rng_below(&rng, i % 5 ? 500 : sizeof(value))});
		if (i % 40 == 39)
			tree_bed_commit(bed);
	}
	for (uint64_t i = 0; i < 50; i++)
		change_without_memory(bed, false, long_key(key, i),
			(struct bts_slice){value, rng_below(&rng, i % 3 ? 500 : sizeof(value))});
	tree_bed_commit(bed);
	for (uint64_t i = 0; i < 150; i++)
		change_without_memory(bed, true, long_key(key, i * 61 % 150), (struct bts_slice){NULL, 0});
	assert_int_equal(bed->tree.entries, 0);
	tree_bed_commit(bed);
	tree_bed_free(bed);
}

static void expect(struct tree_bed *bed, const char *finding)
{
	struct tree_check check = {.report = remember, .extents = true};

	found[0] = 0;
	assert_int_equal(tree_check(&bed->ctx, &bed->tree, &check), finding ? BTS_CORRUPT : BTS_OK);
	if (finding && !strstr(found, finding))
		fail_msg("expected \"%s\", found \"%s\"", finding, found);
}

static uint8_t *private_page(struct tree_bed *bed, const struct page_ptr *ptr)
{
	return (uint8_t *)(uintptr_t)dirty_image(bed->ctx.dirty, ptr);
}

/* Break each invariant once and be told. */
static void test_findings(void **state)
{
	struct tree_bed *bed = tree_bed_new(4096);
	uint8_t key[8], value[400] = {0}, saved[4096], *root, *leaf;
	struct page_ptr child, other;

	(void)state;
	for (uint64_t i = 0; i < 30; i++)
		put(bed, number(key, i), (struct bts_slice){value, sizeof(value)});
	assert_int_equal(bed->tree.depth, 2);
	root = private_page(bed, &bed->tree.root);
	child = node_child(root, 1);
	other = node_child(root, 2);
	leaf = private_page(bed, &child);
	expect(bed, NULL);

	bed->tree.entries++;
	expect(bed, "counts");
	bed->tree.entries--;
	bed->tree.bytes--;
	expect(bed, "counts");
	bed->tree.bytes++;
	bed->tree.pages++;
	expect(bed, "counts");
	bed->tree.pages -= 3;
	expect(bed, "more nodes");
	bed->tree.pages += 2;
	bed->tree.depth++;
	expect(bed, "level");
	bed->tree.depth = 40;
	expect(bed, "depth");
	bed->tree.depth = 2;

	node_set_child(root, 1, &other); /* the same leaf twice, out of its place */
	expect(bed, "above the separator");
	node_set_child(root, 1, &child);
	node_set_child(root, 2, &child);
	expect(bed, "below the separator");
	node_set_child(root, 2, &other);

	memcpy(saved, leaf, sizeof(saved));
	while (layout_count(leaf))
		node_remove(leaf, 4096, 0);
	expect(bed, "too few");
	memcpy(leaf, saved, sizeof(saved));
	leaf[48 + 4] ^= 1;
	expect(bed, "head");
	memcpy(leaf, saved, sizeof(saved));
	layout_set_tree(leaf, 5);
	expect(bed, "tree 5");
	memcpy(leaf, saved, sizeof(saved));
	expect(bed, NULL);

	tree_bed_commit(bed);
	expect(bed, NULL);
	root = (uint8_t *)(uintptr_t)pager_raw(&bed->pager, bed->tree.root.pgno, 1);
	child = node_child(root, 0);
	env_mem_flip(bed->mem, "tree", child.pgno * 4096 + 4000, 1);
	expect(bed, NULL); /* verified before, and remembered */
	tree_bed_forget(bed);
	expect(bed, "checksum");
	tree_bed_free(bed);
}

/* A parent that has its children in the wrong order, as no writer makes it: said, and nothing is divided anew by it. */
static void test_disorder(void **state)
{
	struct tree_bed *bed = tree_bed_new(4096);
	uint8_t key[8], value[400] = {0}, *root;
	struct page_ptr child, other;
	uint64_t entries, pages;
	enum bts_err err = BTS_OK;

	(void)state;
	for (uint64_t i = 0; i < 30; i++)
		put(bed, number(key, i << 8), (struct bts_slice){value, sizeof(value)});
	root = private_page(bed, &bed->tree.root);
	child = node_child(root, 1);
	other = node_child(root, 2);
	node_set_child(root, 1, &other);
	node_set_child(root, 2, &child);
	entries = bed->tree.entries;
	pages = bed->tree.pages;
	for (uint64_t i = 0; i < 20 && !err; i++) { /* into the first leaf, which is full then */
		err = tree_put(&bed->ctx, &bed->tree, number(key, 2 + i * 5 % 20), (struct bts_slice){value, sizeof(value)}, 0);
		entries += !err;
	}
	assert_int_equal(err, BTS_CORRUPT);
	assert_non_null(strstr(bed->error.text, "separators"));
	err = BTS_OK;
	for (uint64_t i = 0; i < 9 && !err; i++) { /* out of it, until it is thin */
		err = tree_del(&bed->ctx, &bed->tree, number(key, i << 8));
		entries -= !err;
	}
	assert_int_equal(err, BTS_CORRUPT);
	assert_int_equal(bed->tree.entries, entries);
	assert_int_equal(bed->tree.pages, pages);
	tree_bed_free(bed);
}

/* Is each node below a private one in order itself? */
static void expect_order(struct tree_bed *bed, const struct page_ptr *ptr)
{
	const uint8_t *page = private_page(bed, ptr);

	assert_null(node_check_private(page, bed->pager.page_size, bed->ctx.limit, LAYOUT_TXID_LIMIT));
	for (unsigned i = 0; layout_level(page) > 0 && i < layout_count(page); i++) {
		struct page_ptr child = node_child(page, i);

		expect_order(bed, &child);
	}
}

/*
 * The outermost leaf of a branch, below the nth branch of level 2, gets keys that belong far outside; then it is filled.
 * Its separators must not be mixed with those of the branch's neighbours.  false: there is no such branch.
 */
static bool outer_disorder(unsigned nth, bool first, unsigned *corrupt)
{
	struct tree_bed *bed = tree_bed_new(4096);
	uint8_t key[BTS_KEY_MAX], value[40] = {0}, *page, *leaf;
	struct page_ptr child;
	uint64_t base;
	enum bts_err err = BTS_OK;

	for (uint64_t i = 0; i < 400; i++)
		put(bed, long_key(key, (i * 79 % 400) << 16), (struct bts_slice){value, sizeof(value)});
	page = private_page(bed, &bed->tree.root);
	while (layout_level(page) > 2) {
		child = node_child(page, nth % layout_count(page));
		nth /= layout_count(page);
		page = private_page(bed, &child);
	}
	child = node_child(page, first ? 1 : 0);
	page = private_page(bed, &child);
	child = node_child(page, first ? 0 : layout_count(page) - 1u);
	leaf = private_page(bed, &child);
	base = bytes_get_be64((const uint8_t *)node_key(leaf, 0).data + BTS_KEY_MAX - 8);
	for (unsigned i = 0; i < layout_count(leaf); i++)
		bytes_put_be64((uint8_t *)(uintptr_t)node_key(leaf, i).data + BTS_KEY_MAX - 8,
			(first ? 1 : UINT64_MAX / 2) + i);
	node_tidy(leaf, 4096);
	for (uint64_t i = 1; i < 6 && !err; i++) {
		err = tree_put(&bed->ctx, &bed->tree, long_key(key, base + i),
			(struct bts_slice){value, sizeof(value)}, 0);
		expect_order(bed, &bed->tree.root);
	}
	*corrupt += err == BTS_CORRUPT;
	tree_bed_free(bed);
	return nth == 0;
}

static void test_outer_disorder(void **state)
{
	unsigned corrupt = 0, nth = 0;

	(void)state;
	while (outer_disorder(nth, false, &corrupt) && outer_disorder(nth, true, &corrupt))
		nth++;
	assert_true(nth > 4);
	assert_true(corrupt >= 2 * nth);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill_runs),
		cmocka_unit_test(test_fill_random),
		cmocka_unit_test(test_fill_deleted),
		cmocka_unit_test(test_aliases),
		cmocka_unit_test(test_alias_split),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_findings),
		cmocka_unit_test(test_disorder),
		cmocka_unit_test(test_outer_disorder),
	};

	rng_init(&rng, rng_seed_from(argc, argv, 1));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
