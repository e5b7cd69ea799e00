/* Nodes against a sorted array: random changes at every page size, everything compared after each. */
#include "base/ensure.h"
#include "cmocka.h"
#include "node.h"
#include "rng.h"

#define ENTRIES_MAX 4096
#define LIMIT 1000000u
#define NEWEST 1000000u

struct entry {
	uint8_t key[BTS_KEY_MAX];
	size_t key_size;
	uint8_t value[BTS_PAGE_SIZE_MAX / 4];
	struct node_cell cell;
};

struct model {
	uint32_t page_size;
	unsigned level, count;
	struct entry *entries[ENTRIES_MAX];
	uint8_t page[BTS_PAGE_SIZE_MAX];
};

static struct rng rng;
static uint64_t seed;

static int compare(struct bts_slice a, struct bts_slice b)
{
	size_t size = a.size < b.size ? a.size : b.size;
	int order = size ? memcmp(a.data, b.data, size) : 0;

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

static struct bts_slice entry_key(const struct entry *entry)
{
	return (struct bts_slice){entry->key, entry->key_size};
}

/* Keys that share prefixes of several lengths, with zero bytes at their ends now and then. */
static void random_key(struct entry *entry)
{
	size_t shared = rng_one_in(&rng, 3) ? 0 : rng_below(&rng, 12), size;

	memset(entry->key, 'k', shared);
	size = shared + 1 + rng_below(&rng, rng_one_in(&rng, 20) ? BTS_KEY_MAX - shared : 8);
	for (size_t i = shared; i < size; i++)
		entry->key[i] = (uint8_t)(rng_one_in(&rng, 4)	? 0
					  : rng_one_in(&rng, 2) ? 'k'
								: rng_below(&rng, 256));
	entry->key_size = size;
}

static void random_value(const struct model *m, struct entry *entry)
{
	struct node_cell *cell = &entry->cell;
	uint64_t size = rng_below(&rng, rng_one_in(&rng, 8) ? m->page_size / 2 : 40);

	memset(cell, 0, sizeof(*cell));
	cell->version = rng_below(&rng, NEWEST);
	cell->ptr = (struct page_ptr){
		1 + rng_below(&rng, LIMIT / 2), rng_below(&rng, NEWEST), (uint32_t)rng_next(&rng)};
	cell->key = entry_key(entry);
	cell->extent = !node_fits_inline(m->page_size, entry->key_size, size);
	if (m->level > 0)
		return;
	if (cell->extent) {
		cell->size = size;
		return;
	}
	cell->ptr = (struct page_ptr){0, 0, 0};
	rng_fill(&rng, entry->value, size);
	cell->value = (struct bts_slice){entry->value, size};
}

static struct entry *new_entry(const struct model *m)
{
	struct entry *entry = calloc(1, sizeof(*entry));

	ENSURE(entry);
	random_key(entry);
	random_value(m, entry);
	return entry;
}

static unsigned model_search(const struct model *m, struct bts_slice key, bool *exact)
{
	unsigned first = m->level ? 1 : 0, at = first;

	*exact = false;
	while (at < m->count && compare(entry_key(m->entries[at]), key) < 0)
		at++;
	if (at < m->count)
		*exact = compare(entry_key(m->entries[at]), key) == 0;
	return at;
}

static void model_put(struct model *m, unsigned at, struct entry *entry)
{
	memmove(&m->entries[at + 1], &m->entries[at], (m->count - at) * sizeof(entry));
	m->entries[at] = entry;
	m->count++;
}

static void model_drop(struct model *m, unsigned at)
{
	if (m->level && at == 0 && m->count > 1) {
		m->entries[0]->cell.ptr = m->entries[1]->cell.ptr;
		at = 1;
	}
	free(m->entries[at]);
	m->count--;
	memmove(&m->entries[at], &m->entries[at + 1], (m->count - at) * sizeof(m->entries[0]));
}

static uint32_t model_used(const struct model *m)
{
	uint32_t used = 0;

	for (unsigned i = 0; i < m->count; i++)
		used += m->level ? node_branch_need(entry_key(m->entries[i]))
				 : node_leaf_need(&m->entries[i]->cell);
	return used;
}

static void verify_entry(const struct model *m, const uint8_t *page, unsigned at, const struct entry *entry)
{
	struct node_cell cell;
	struct page_ptr ptr;

	assert_int_equal(compare(node_key(page, at), entry_key(entry)), 0);
	if (m->level) {
		ptr = node_child(page, at);
		assert_true(layout_ptr_equal(&ptr, &entry->cell.ptr));
		assert_int_equal(node_need(page, at), node_branch_need(entry_key(entry)));
		return;
	}
	node_cell(page, at, &cell);
	assert_int_equal(cell.version, entry->cell.version);
	assert_int_equal(cell.extent, entry->cell.extent);
	assert_int_equal(cell.size, entry->cell.size);
	assert_true(layout_ptr_equal(&cell.ptr, &entry->cell.ptr));
	assert_int_equal(compare(cell.key, entry_key(entry)), 0);
	assert_int_equal(compare(cell.value, entry->cell.value), 0);
	assert_int_equal(node_need(page, at), node_leaf_need(&entry->cell));
}

static void verify_search(const struct model *m, struct bts_slice key)
{
	bool exact, expected;
	unsigned at = model_search(m, key, &expected);

	assert_int_equal(node_search(m->page, key, &exact), at);
	assert_int_equal(exact, expected);
	if (m->level)
		assert_int_equal(node_child_index(m->page, key), expected ? at : at - 1);
}

static void verify(const struct model *m)
{
	const char *wrong =
		m->level && m->count == 0 ? NULL : node_check_private(m->page, m->page_size, LIMIT, NEWEST);
	struct entry other;

	if (wrong)
		fail_msg("%s", wrong);
	assert_int_equal(layout_count(m->page), m->count);
	assert_int_equal(node_used(m->page, m->page_size), model_used(m));
	assert_int_equal(node_room(m->page, m->page_size), node_capacity(m->page_size) - model_used(m));
	for (unsigned i = 0; i < m->count; i++)
		if (m->count < 64 || rng_one_in(&rng, 16))
			verify_entry(m, m->page, i, m->entries[i]);
	for (int i = 0; m->count && i < 4; i++) {
		random_key(&other);
		verify_search(m, entry_key(&other));
		if (m->count > m->level)
			verify_search(
				m, entry_key(m->entries[m->level + rng_below(&rng, m->count - m->level)]));
	}
}

static bool page_insert(struct model *m, uint8_t *page, unsigned at, const struct entry *entry)
{
	if (m->level)
		return node_branch_insert(page, m->page_size, at, entry_key(entry), &entry->cell.ptr);
	return node_leaf_insert(page, m->page_size, at, &entry->cell);
}

static void change_insert(struct model *m)
{
	struct entry *entry = new_entry(m);
	uint32_t need = m->level ? node_branch_need(entry_key(entry)) : node_leaf_need(&entry->cell);
	bool exact, fits = need <= node_capacity(m->page_size) - model_used(m);
	unsigned at;

	if (m->level && m->count == 0)
		entry->key_size = 0;
	at = entry->key_size ? model_search(m, entry_key(entry), &exact) : 0;
	if (entry->key_size && exact) {
		free(entry);
		return;
	}
	assert_int_equal(page_insert(m, m->page, at, entry), fits);
	if (fits)
		model_put(m, at, entry);
	else
		free(entry);
}

static void change_replace(struct model *m, unsigned at)
{
	struct entry *entry = m->entries[at], before = *entry;

	random_value(m, entry);
	if (m->level)
		node_set_child(m->page, at, &entry->cell.ptr);
	else if (!node_leaf_replace(m->page, m->page_size, at, &entry->cell)) {
		assert_true(node_leaf_need(&entry->cell) >
			    node_room(m->page, m->page_size) + node_leaf_need(&before.cell));
		*entry = before;
	}
}

/* Divide in two and put together again. */
static void change_divide(struct model *m)
{
	unsigned at = 1 + (unsigned)rng_below(&rng, m->count - 1), from = 0;
	uint8_t right[BTS_PAGE_SIZE_MAX];

	node_init(right, m->page_size, 7, m->level);
	assert_true(node_append(right, m->page, m->page_size, at, m->count));
	assert_null(node_check_private(right, m->page_size, LIMIT, NEWEST));
	node_truncate(m->page, m->page_size, at);
	assert_null(node_check_private(m->page, m->page_size, LIMIT, NEWEST));
	if (rng_one_in(&rng, 2))
		node_tidy(m->page, m->page_size);
	if (m->level) {
		assert_true(page_insert(m, m->page, at, m->entries[at]));
		from = 1;
	}
	assert_true(node_append(m->page, right, m->page_size, from, m->count - at));
}

static void change_tidy(struct model *m)
{
	const char *wrong;

	node_tidy(m->page, m->page_size);
	layout_set_birth(m->page, NEWEST);
	wrong = node_check(m->page, m->page_size, LIMIT, NEWEST);
	if (wrong && !(m->level && m->count < 2))
		fail_msg("%s", wrong);
}

static void change(struct model *m, unsigned bias)
{
	unsigned kind = (unsigned)rng_below(&rng, 16);

	if (kind < bias)
		change_insert(m);
	else if (kind < 11 && m->count) {
		unsigned at = (unsigned)rng_below(&rng, m->count);

		node_remove(m->page, m->page_size, at);
		model_drop(m, at);
	} else if (kind < 13 && m->count)
		change_replace(m, (unsigned)rng_below(&rng, m->count));
	else if (kind == 13 && m->count > 1)
		change_divide(m);
	else if (kind == 14)
		change_tidy(m);
	else if (kind == 15 && rng_one_in(&rng, 16) && m->count > m->level) {
		unsigned at = m->level + (unsigned)rng_below(&rng, m->count - m->level);

		node_truncate(m->page, m->page_size, at);
		while (m->count > at)
			free(m->entries[--m->count]);
	}
}

static void run(uint32_t page_size, unsigned level, unsigned steps)
{
	static struct model m;

	memset(&m, 0, sizeof(m));
	m.page_size = page_size;
	m.level = level;
	rng_init(&rng, seed + page_size + level);
	node_init(m.page, page_size, 7, level);
	for (unsigned i = 0; i < steps; i++) {
		change(&m, i / 200 % 3 == 2 ? 3 : 8);
		verify(&m);
	}
	while (m.count)
		free(m.entries[--m.count]);
}

static void test_leaf(void **state)
{
	(void)state;
	run(4096, 0, 6000);
	run(16384, 0, 3000);
	run(65536, 0, 2000);
}

static void test_branch(void **state)
{
	(void)state;
	run(4096, 1, 6000);
	run(16384, 2, 3000);
	run(65536, 31, 2000);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leaf),
		cmocka_unit_test(test_branch),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
