/*
 * The tree case by case: how full runs leave their pages, values that lie in the page they are put into,
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

/* Per cent of the leaves' and branches' room that entries of `size` bytes fill. */
static unsigned fill(const struct tree_bed *bed, unsigned size)
{
	return (unsigned)(bed->tree.entries * size * 100 /
			  (bed->tree.pages * node_capacity(bed->pager.page_size)));
}

enum order { UP, DOWN, MIDDLE, RANDOM };

static unsigned fill_after(enum order order)
{
	struct tree_bed *bed = tree_bed_new(4096);
	uint8_t key[8], value[16] = {0};
	unsigned percent;

	for (uint64_t i = 0; i < 20000; i++) {
		uint64_t at = order == UP ? i : order == DOWN ? 20000 - i : rng_next(&rng);

		if (order == MIDDLE) /* one run inside random keys */
			at = i < 2000 ? rng_next(&rng) : (UINT64_C(1) << 63) + i;
		put(bed, number(key, at), (struct bts_slice){value, sizeof(value)});
	}
	tree_bed_check(bed, &bed->ctx, true);
	percent = fill(bed, 8 + 8 + 8 + 16);
	tree_bed_free(bed);
	return percent;
}

static void test_fill(void **state)
{
	(void)state;
	assert_in_range(fill_after(UP), 96, 100);
	assert_in_range(fill_after(DOWN), 93, 100);
	assert_in_range(fill_after(MIDDLE), 88, 100);
	assert_in_range(fill_after(RANDOM), 62, 80);
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

static char found[200];

static void remember(void *arg, bts_pgno page, const char *finding)
{
	(void)arg;
	(void)page;
	if (!found[0])
		snprintf(found, sizeof(found), "%s", finding);
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

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill),
		cmocka_unit_test(test_aliases),
		cmocka_unit_test(test_alias_split),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_findings),
	};

	rng_init(&rng, rng_seed_from(argc, argv, 1));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
