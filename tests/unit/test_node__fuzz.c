/*
 * Hostile pages: whatever the bytes, the check answers, and when it finds nothing wrong every accessor is
 * safe (run with the address sanitizer: the page ends where its memory ends) and changes keep the node sound.
 */
#include "base/ensure.h"
#include "cmocka.h"
#include "node.h"
#include "rng.h"

#define LIMIT 100000u
#define NEWEST 5000u

static struct rng rng;
static unsigned sound; /* mutated pages that passed */

static void make_valid(uint8_t *page, uint32_t page_size, unsigned level)
{
	uint8_t key[16] = "common";
	unsigned target = (unsigned)rng_below(&rng, 60) + 2;

	node_init(page, page_size, 7, level);
	layout_set_birth(page, NEWEST);
	for (unsigned i = 0; i < target; i++) {
		struct page_ptr ptr = {1 + rng_below(&rng, LIMIT / 2), rng_below(&rng, NEWEST), 9};
		struct node_cell cell = {
			.version = rng_below(&rng, NEWEST), .key = {key, 6 + rng_below(&rng, 4)}};
		bool exact;
		unsigned at;

		rng_fill(&rng, key + 6, 4);
		at = node_search(page, cell.key, &exact);
		if (level && layout_count(page) == 0) {
			assert_true(
				node_branch_insert(page, page_size, 0, (struct bts_slice){NULL, 0}, &ptr));
			continue;
		}
		if (exact)
			continue;
		if (level) {
			node_branch_insert(page, page_size, at, cell.key, &ptr);
			continue;
		}
		cell.extent = rng_one_in(&rng, 4);
		cell.size = page_size + rng_below(&rng, 100000);
		cell.ptr = ptr;
		cell.value = (struct bts_slice){key, rng_below(&rng, 16)};
		node_leaf_insert(page, page_size, at, &cell);
	}
	node_tidy(page, page_size);
}

static void mutate(uint8_t *page, uint32_t page_size)
{
	unsigned changes = 1 + (unsigned)rng_below(&rng, 3);
	unsigned slots = 48 + 8 * layout_count(page);

	while (changes--) {
		unsigned at = (unsigned)rng_below(&rng, rng_one_in(&rng, 2)   ? slots
							: rng_one_in(&rng, 2) ? 48
									      : page_size);

		switch (rng_below(&rng, 4)) {
		case 0:
			page[at] ^= (uint8_t)(1u << rng_below(&rng, 8));
			break;
		case 1:
			page[at] = (uint8_t)rng_next(&rng);
			break;
		case 2:
			page[at] = (uint8_t)(page[at] + (rng_one_in(&rng, 2) ? 1 : -1));
			break;
		default:
			bytes_put_u16(page + at % (page_size - 1),
				bytes_get_u16(page + rng_below(&rng, page_size - 1)));
			break;
		}
	}
}

static void touch(struct bts_slice slice, uint64_t *sum)
{
	const uint8_t *p = slice.data;

	for (size_t i = 0; i < slice.size; i++)
		*sum += p[i];
}

static void read_all(const uint8_t *page, uint32_t page_size)
{
	unsigned count = layout_count(page);
	uint8_t random[20];
	struct bts_slice key = {random, 1 + rng_below(&rng, sizeof(random) - 1)};
	uint64_t sum = 0;
	bool exact;

	rng_fill(&rng, random, sizeof(random));
	sum += node_search(page, key, &exact) + node_room(page, page_size) + node_used(page, page_size);
	for (unsigned i = 0; i < count; i++) {
		struct node_cell cell;

		touch(node_key(page, i), &sum);
		sum += node_need(page, i);
		if (layout_level(page)) {
			sum += node_child(page, i).pgno + node_child_index(page, key);
			continue;
		}
		node_cell(page, i, &cell);
		touch(cell.key, &sum);
		if (!cell.extent)
			touch(cell.value, &sum);
		assert_int_equal(node_search(page, cell.key, &exact), i);
		assert_true(exact);
	}
	assert_true(sum < UINT64_MAX);
}

static void change_all(uint8_t *page, uint32_t page_size)
{
	unsigned level = layout_level(page);
	uint8_t other[BTS_PAGE_SIZE_MAX];

	node_init(other, page_size, 7, level);
	assert_true(node_append(other, page, page_size, 0, layout_count(page)));
	assert_null(node_check_private(other, page_size, LIMIT, NEWEST));
	if (level == 0) {
		struct node_cell cell = {.key = {"\x01", 1}, .value = {"v", 1}};
		bool exact;
		unsigned at = node_search(page, cell.key, &exact);

		if (exact)
			node_leaf_replace(page, page_size, at, &cell);
		else
			node_leaf_insert(page, page_size, at, &cell);
		assert_null(node_check_private(page, page_size, LIMIT, NEWEST));
	}
	node_tidy(page, page_size);
	assert_null(node_check_private(page, page_size, LIMIT, NEWEST));
	while (layout_count(page) > (level ? 1 : 0)) {
		node_remove(page, page_size, (unsigned)rng_below(&rng, layout_count(page)));
		assert_null(node_check_private(page, page_size, LIMIT, NEWEST));
	}
}

static void judge(const uint8_t *image, uint32_t page_size)
{
	uint8_t *page = malloc(page_size);
	bool clean, private;

	ENSURE(page);
	memcpy(page, image, page_size);
	clean = node_check(page, page_size, LIMIT, NEWEST) == NULL;
	private = node_check_private(page, page_size, LIMIT, NEWEST) == NULL;
	assert_true(private || !clean);
	if (private) {
		sound++;
		read_all(page, page_size);
		change_all(page, page_size);
	}
	free(page);
}

static void test_mutated(void **state)
{
	static const uint32_t sizes[] = {4096, 4096, 4096, 16384, 65536};
	static uint8_t valid[BTS_PAGE_SIZE_MAX], page[BTS_PAGE_SIZE_MAX];

	(void)state;
	for (unsigned i = 0; i < 400; i++) {
		uint32_t page_size = sizes[i % 5];
		const char *wrong;

		make_valid(valid, page_size, i % 3 == 2 ? 1 : 0);
		wrong = node_check(valid, page_size, LIMIT, NEWEST);
		if (wrong)
			fail_msg("%s", wrong);
		for (unsigned j = 0; j < (page_size > 4096 ? 20 : 150); j++) {
			memcpy(page, valid, page_size);
			mutate(page, page_size);
			judge(page, page_size);
		}
	}
	printf("%u mutated pages were sound\n", sound);
	assert_true(sound > 100);
}

static void test_random(void **state)
{
	static uint8_t page[4096];

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		rng_fill(&rng, page, 48 + rng_below(&rng, 400));
		page[4] = (uint8_t)(1 + rng_below(&rng, 2));
		page[5] = page[4] == LAYOUT_LEAF ? 0 : 1;
		if (rng_one_in(&rng, 2)) {
			layout_set_count(page, (uint16_t)rng_below(&rng, 40));
			layout_set_pages(page, 1);
			layout_set_heap(page, 2048);
			layout_set_dead(page, 0);
			layout_set_last_delete(page, 0);
			bytes_put_u16(page + 30, 0);
		}
		judge(page, sizeof(page));
	}
}

/* Each rule of the check by itself: break it, and be told so. */
static void expect(uint8_t *page, const char *text)
{
	const char *wrong = node_check(page, 4096, LIMIT, NEWEST);

	assert_non_null(wrong);
	assert_string_equal(wrong, text);
}

static void leaf_of_two(uint8_t *page)
{
	struct node_cell cell = {.key = {"aaaa", 4}, .version = 3, .value = {"value", 5}};

	node_init(page, 4096, 7, 0);
	layout_set_birth(page, NEWEST);
	assert_true(node_leaf_insert(page, 4096, 0, &cell));
	cell.key.data = "aabb";
	assert_true(node_leaf_insert(page, 4096, 1, &cell));
	assert_null(node_check(page, 4096, LIMIT, NEWEST));
}

static void test_rules(void **state)
{
	uint8_t page[4096];
	unsigned second = 4096 - 34; /* offset of the second cell */

	(void)state;
	leaf_of_two(page);
	page[5] = 1;
	expect(page, "level does not suit the type of node");
	leaf_of_two(page);
	layout_set_last_delete(page, NEWEST + 1);
	expect(page, "last delete is in the future");
	leaf_of_two(page);
	layout_set_heap(page, second + 1);
	expect(page, "cell outside the heap");
	leaf_of_two(page);
	layout_set_dead(page, 1);
	expect(page, "dead bytes on disk");
	leaf_of_two(page);
	bytes_put_u16(page + 56, (uint16_t)(second + 17));
	expect(page, "cells do not adjoin");
	leaf_of_two(page);
	bytes_put_u16(page + 58, 0);
	expect(page, "key of a wrong size");
	for (unsigned bit = 11; bit < 15; bit++) {
		leaf_of_two(page);
		bytes_put_u16(page + 58, (uint16_t)(bytes_get_u16(page + 58) | 1u << bit));
		expect(page, "reserved bits of a key's length are set");
	}
	leaf_of_two(page);
	bytes_put_u48(page + second, NEWEST + 1);
	expect(page, "version in the future");
	leaf_of_two(page);
	bytes_put_u16(page + second + 6, 2000);
	expect(page, "cell beyond the page");
	leaf_of_two(page);
	page[second + 10] = 'a';
	page[second + 11] = 'a';
	expect(page, "keys out of order");
	leaf_of_two(page);
	layout_set_prefix(page, 3);
	expect(page, "prefix wider than what keys share");
	leaf_of_two(page);
	page[60] ^= 1;
	expect(page, "head differs from its key");
	leaf_of_two(page);
	page[2000] = 1;
	expect(page, "unused bytes are not zero");
	leaf_of_two(page);
	bytes_put_u16(page + 56, (uint16_t)(second + 17));
	assert_string_equal(node_check_private(page, 4096, LIMIT, NEWEST), "cells overlap");
	leaf_of_two(page);
	page[30] = 1;
	expect(page, "reserved header bytes are not zero");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mutated),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_rules),
	};

	rng_init(&rng, rng_seed_from(argc, argv, 1));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
