/*
 * The way that a look at a key leaves for a put is believed no more than any other touch of its pages: what came back from the
 * disk as something else in between is found (P1), and a leaf whose order is broken does not lead a put astray.
 */
#include "tree_bed.h"

#include "cmocka.h"
#include "node.h"
#include "tree_path.h"

#include <stdio.h>
#include <string.h>

#define PAGE 4096u
#define ENTRIES 300u

static uint8_t filler[100];

static struct bts_slice text(const char *s)
{
	return (struct bts_slice){s, strlen(s)};
}

static enum bts_err put(struct tree_bed *bed, const char *key, struct bts_slice value)
{
	return tree_put(&bed->ctx, &bed->tree, text(key), value, bed->ctx.stamp);
}

/* a0000 to a0011, b0012 to b0023, ... */
static struct tree_bed *bed_of_entries(void)
{
	struct tree_bed *bed = tree_bed_new(PAGE);
	char key[16];

	for (unsigned i = 0; i < ENTRIES; i++) {
		snprintf(key, sizeof(key), "%c%04u", 'a' + i / 12, i);
		assert_int_equal(put(bed, key, (struct bts_slice){filler, sizeof(filler)}), BTS_OK);
	}
	return bed;
}

static struct tree_step leaf_of(struct tree_bed *bed, const char *key)
{
	struct tree_ctx ctx = tree_bed_reader(bed);
	struct tree_path path;
	bool exact;

	assert_int_equal(tree_path_find(&ctx, &bed->tree, text(key), &path, &exact), BTS_OK);
	return path.at[path.depth - 1];
}

static void peek(struct tree_bed *bed, struct tree_way *way, const char *key, enum bts_err expected)
{
	struct tree_hit hit;

	tree_way_begin(&bed->ctx, way);
	assert_int_equal(tree_peek(&bed->ctx, &bed->tree, text(key), &hit), expected);
}

/* A lost write: the page is again what it was before the newest commit. */
static void test_page_comes_back_older(void **state)
{
	static struct tree_way way;
	struct tree_bed *bed = bed_of_entries();
	uint8_t old[PAGE];
	struct iovec iov = {old, sizeof(old)};
	struct tree_step leaf;

	(void)state;
	tree_bed_commit(bed);
	memcpy(old, leaf_of(bed, "i0100").image, sizeof(old));
	assert_int_equal(put(bed, "i0100", text("newer")), BTS_OK);
	tree_bed_commit(bed);
	leaf = leaf_of(bed, "i0100");
	peek(bed, &way, "i0101", BTS_OK);
	assert_int_equal(bed->ops.file_pwritev(bed->file, &iov, 1, leaf.ptr.pgno * PAGE), 0);
	assert_int_equal(put(bed, "i0101", text("x")), BTS_CORRUPT);
	tree_bed_free(bed);
}

/* A leaf with a last key that lies behind its separator: what lies between them is not this leaf's. */
static void test_key_behind_the_separator(void **state)
{
	static struct tree_way way;
	struct node_cell astray = {.key = text("z9999"), .value = text("z")}, last;
	struct tree_bed *bed = bed_of_entries();
	struct tree_hit hit;
	struct tree_path path;
	char between[16];
	unsigned count;
	uint8_t *page;
	bool exact;

	(void)state;
	assert_int_equal(tree_path_find(&bed->ctx, &bed->tree, text("c0024"), &path, &exact), BTS_OK);
	page = dirty_own(bed->ctx.dirty, &path.at[path.depth - 1].ptr);
	assert_non_null(page);
	count = layout_count(page);
	node_cell(page, count - 2, &last);
	snprintf(between, sizeof(between), "%.*s!", (int)last.key.size, (const char *)last.key.data);
	node_remove(page, PAGE, count - 1);
	astray.version = bed->ctx.stamp;
	assert_true(node_leaf_insert(page, PAGE, count - 1, &astray));
	peek(bed, &way, between, BTS_NOT_FOUND);
	assert_int_equal(put(bed, "p5555", text("mine")), BTS_OK);
	assert_int_equal(tree_get(&bed->ctx, &bed->tree, text("p5555"), &hit), BTS_OK);
	assert_memory_equal(hit.cell.value.data, "mine", 4);
	tree_bed_free(bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_page_comes_back_older),
		cmocka_unit_test(test_key_behind_the_separator),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
