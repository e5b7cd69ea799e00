/*
 * Sealing a commit turned private pointers of large values into final ones with the cell that node_cell had
 * given for the very slot it replaced.  The replacement removed the cell first, and when that was the lowest
 * of the heap its key was zeroed before it was copied: the commit held keys out of order.
 */
#include "cmocka.h"
#include "node.h"

#define PAGE 4096u

static void node__replace_extent_with_its_own_cell(void **state)
{
	static uint8_t page[PAGE];
	struct node_cell cell;

	(void)state;
	node_init(page, PAGE, LAYOUT_TREE_FIRST_BUCKET, 0);
	for (unsigned i = 0; i < 3; i++) {
		char key[3] = {'k', '0', (char)('0' + i)};

		cell = (struct node_cell){
			.key = {key, sizeof(key)}, .version = 7, .extent = true, .size = 50000};
		cell.ptr = (struct page_ptr){100 + i, 9, 1};
		assert_true(node_leaf_insert(page, PAGE, i, &cell));
	}
	for (unsigned i = 3; i-- > 0;) {
		node_cell(page, i, &cell);
		cell.ptr = (struct page_ptr){200 + i, 9, 2};
		assert_true(node_leaf_replace(page, PAGE, i, &cell));
	}
	node_tidy(page, PAGE);
	layout_set_birth(page, 9);
	layout_set_pages(page, 1);
	assert_null(node_check(page, PAGE, 1000, 9));
	for (unsigned i = 0; i < 3; i++) {
		node_cell(page, i, &cell);
		assert_int_equal(((const char *)cell.key.data)[2], '0' + (int)i);
		assert_int_equal(cell.ptr.pgno, 200 + i);
		assert_int_equal(cell.size, 50000);
		assert_int_equal(cell.version, 7);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(node__replace_extent_with_its_own_cell),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
