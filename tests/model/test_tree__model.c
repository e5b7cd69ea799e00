/*
 * The tree against a sorted array: random puts, deletes, overwrites and cursor steps, transactions kept and
 * rolled back, commits; everything compared after each batch, on private and on clean pages.
 */
#include "base/ensure.h"
#include "cmocka.h"
#include "rng.h"
#include "tree_bed.h"

#define ENTRIES_MAX 20000u
#define VALUE_MAX (200u * 1024)
#define DELETED_MAX 256u
#define CURSORS 3u

struct entry {
	uint16_t key_size;
	uint32_t value_size, value_seed;
	bts_txid version;
	uint8_t key[];
};

struct oracle {
	size_t count;
	uint64_t bytes;
	struct entry **entries;
};

struct place { /* of a cursor */
	struct tree_cursor cursor;
	bool placed;
	uint16_t size;
	uint8_t key[BTS_KEY_MAX];
};

enum style { STYLE_SHORT, STYLE_ANY, STYLE_LONG, STYLE_RUNS, STYLES };

struct run {
	struct tree_bed *bed;
	struct oracle oracle;
	struct rng rng;
	enum style style;
	unsigned large; /* one value in so many is large; 0: none */
	uint64_t counter;
	struct place places[CURSORS];
	struct {
		uint16_t size;
		bts_txid stamp;
		uint8_t key[BTS_KEY_MAX];
	} deleted[DELETED_MAX];
	size_t deletes;
	uint8_t scratch[VALUE_MAX];
};

static uint64_t seed;

static int compare(struct bts_slice a, struct bts_slice b)
{
	int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

static struct bts_slice entry_key(const struct entry *entry)
{
	return (struct bts_slice){entry->key, entry->key_size};
}

/* Index of the first entry >= key. */
static size_t oracle_find(const struct oracle *oracle, struct bts_slice key, bool *exact)
{
	size_t low = 0, high = oracle->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (compare(entry_key(oracle->entries[middle]), key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*exact = low < oracle->count && compare(entry_key(oracle->entries[low]), key) == 0;
	return low;
}

static void oracle_put(struct oracle *oracle, struct bts_slice key, uint32_t value_size, uint32_t value_seed,
	bts_txid version)
{
	bool exact;
	size_t at = oracle_find(oracle, key, &exact);
	struct entry *entry;

	if (!exact) {
		ENSURE(oracle->count < ENTRIES_MAX);
		entry = calloc(1, sizeof(*entry) + key.size);
		ENSURE(entry);
		memcpy(entry->key, key.data, key.size);
		entry->key_size = (uint16_t)key.size;
		memmove(&oracle->entries[at + 1], &oracle->entries[at], (oracle->count - at) * sizeof(entry));
		oracle->entries[at] = entry;
		oracle->count++;
		oracle->bytes += key.size;
	}
	entry = oracle->entries[at];
	oracle->bytes += value_size - (uint64_t)entry->value_size;
	entry->value_size = value_size;
	entry->value_seed = value_seed;
	entry->version = version;
}

static void oracle_del(struct oracle *oracle, size_t at)
{
	oracle->bytes -= oracle->entries[at]->key_size + (uint64_t)oracle->entries[at]->value_size;
	free(oracle->entries[at]);
	oracle->count--;
	memmove(&oracle->entries[at], &oracle->entries[at + 1],
		(oracle->count - at) * sizeof(oracle->entries[0]));
}

static void oracle_clear(struct oracle *oracle)
{
	while (oracle->count)
		oracle_del(oracle, oracle->count - 1);
	free(oracle->entries);
	oracle->entries = NULL;
}

static struct oracle oracle_copy(const struct oracle *from)
{
	struct oracle copy = {.count = from->count, .bytes = from->bytes};

	copy.entries = calloc(ENTRIES_MAX, sizeof(*copy.entries));
	ENSURE(copy.entries);
	for (size_t i = 0; i < from->count; i++) {
		size_t size = sizeof(struct entry) + from->entries[i]->key_size;

		copy.entries[i] = malloc(size);
		ENSURE(copy.entries[i]);
		memcpy(copy.entries[i], from->entries[i], size);
	}
	return copy;
}

static void fill_value(uint8_t *value, uint32_t size, uint32_t value_seed)
{
	struct rng rng;
	uint32_t at = 0;

	rng_init(&rng, value_seed);
	for (; at + 8 <= size; at += 8)
		bytes_put_u64(value + at, rng_next(&rng));
	for (; at < size; at++)
		value[at] = (uint8_t)value_seed;
}

static struct bts_slice random_key(struct run *r, uint8_t *key)
{
	size_t shared = 0, size = 0;

	switch (r->style) {
	case STYLE_SHORT:
		size = 1 + rng_below(&r->rng, 4);
		break;
	case STYLE_ANY:
		shared = rng_one_in(&r->rng, 2) ? rng_below(&r->rng, 40) : 0;
		size = shared + 1 + rng_below(&r->rng, rng_one_in(&r->rng, 10) ? BTS_KEY_MAX - shared : 12);
		break;
	case STYLE_LONG: /* separators cannot be cut */
		shared = 960 + rng_below(&r->rng, 60);
		size = BTS_KEY_MAX - rng_below(&r->rng, 3);
		break;
	default: /* runs beginning at random places */
		if (rng_one_in(&r->rng, 300))
			r->counter = rng_next(&r->rng);
		bytes_put_be64(key, r->counter++);
		return (struct bts_slice){key, 8};
	}
	memset(key, 'p', shared);
	rng_fill(&r->rng, key + shared, size - shared);
	for (size_t i = shared; i < size; i++)
		key[i] = (uint8_t)(rng_one_in(&r->rng, 8) ? 0 : key[i] & 31);
	return (struct bts_slice){key, size};
}

static struct bts_slice some_key(struct run *r, uint8_t *key)
{
	if (r->oracle.count && rng_one_in(&r->rng, 2))
		return entry_key(r->oracle.entries[rng_below(&r->rng, r->oracle.count)]);
	return random_key(r, key);
}

static void verify_cell(
	struct run *r, struct tree_ctx *ctx, const struct node_cell *cell, const struct entry *entry)
{
	struct bts_slice value;

	assert_int_equal(compare(cell->key, entry_key(entry)), 0);
	assert_int_equal(cell->version, entry->version);
	assert_int_equal(tree_value(ctx, cell, &value), BTS_OK);
	assert_int_equal(value.size, entry->value_size);
	fill_value(r->scratch, entry->value_size, entry->value_seed);
	assert_memory_equal(value.data, r->scratch, value.size);
}

static void do_get(struct run *r, struct tree_ctx *ctx, struct bts_slice key)
{
	struct tree_hit hit;
	bool exact;
	size_t at = oracle_find(&r->oracle, key, &exact);
	enum bts_err err = tree_get(ctx, &r->bed->tree, key, &hit);

	assert_int_equal(err, exact ? BTS_OK : BTS_NOT_FOUND);
	if (exact)
		verify_cell(r, ctx, &hit.cell, r->oracle.entries[at]);
}

static void do_put(struct run *r)
{
	uint8_t memory[BTS_KEY_MAX];
	struct bts_slice key = some_key(r, memory);
	uint32_t value_seed = (uint32_t)rng_next(&r->rng);
	bool large = r->large && rng_one_in(&r->rng, r->large);
	uint32_t size = (uint32_t)rng_below(&r->rng, large ? VALUE_MAX : rng_one_in(&r->rng, 10) ? 1200 : 60);
	bts_txid version = r->bed->ctx.stamp;

	if (r->oracle.count == ENTRIES_MAX)
		return;
	fill_value(r->scratch, size, value_seed);
	assert_int_equal(
		tree_put(&r->bed->ctx, &r->bed->tree, key, (struct bts_slice){r->scratch, size}, version),
		BTS_OK);
	oracle_put(&r->oracle, key, size, value_seed, version);
}

static void remember_delete(struct run *r, struct bts_slice key)
{
	size_t at = r->deletes++ % DELETED_MAX;

	memcpy(r->deleted[at].key, key.data, key.size);
	r->deleted[at].size = (uint16_t)key.size;
	r->deleted[at].stamp = r->bed->ctx.stamp;
}

static void do_del_key(struct run *r, struct bts_slice key)
{
	bool exact;
	size_t at = oracle_find(&r->oracle, key, &exact);

	assert_int_equal(tree_del(&r->bed->ctx, &r->bed->tree, key), exact ? BTS_OK : BTS_NOT_FOUND);
	if (!exact)
		return;
	remember_delete(r, key);
	oracle_del(&r->oracle, at);
}

/* One key, or a stretch of neighbours. */
static void do_del(struct run *r)
{
	uint8_t memory[BTS_KEY_MAX];
	struct bts_slice key = some_key(r, memory);
	size_t at, count = rng_one_in(&r->rng, 20) ? rng_below(&r->rng, 60) : 0;
	bool exact;

	at = oracle_find(&r->oracle, key, &exact);
	do_del_key(r, key);
	while (count-- && at < r->oracle.count)
		do_del_key(r, entry_key(r->oracle.entries[at]));
}

/* C1: the leaf that would hold a deleted key remembers a deletion at least as new. */
static void verify_deleted(struct run *r, struct tree_ctx *ctx)
{
	size_t count = r->deletes < DELETED_MAX ? r->deletes : DELETED_MAX;

	for (size_t i = 0; i < count; i++) {
		struct bts_slice key = {r->deleted[i].key, r->deleted[i].size};
		struct tree_hit hit;

		if (tree_get(ctx, &r->bed->tree, key, &hit) == BTS_NOT_FOUND)
			assert_true(hit.last_delete >= r->deleted[i].stamp);
	}
}

static void place_at(struct place *place, struct bts_slice key)
{
	memcpy(place->key, key.data, key.size);
	place->size = (uint16_t)key.size;
	place->placed = true;
}

/* What a step must give: index in the oracle, or its count for none. */
static size_t expected_step(const struct run *r, const struct place *place, bool forward)
{
	struct bts_slice key = {place->key, place->size};
	bool exact;
	size_t at;

	if (!place->placed)
		return forward || !r->oracle.count ? 0 : r->oracle.count - 1;
	at = oracle_find(&r->oracle, key, &exact);
	if (forward)
		return at + exact;
	return at ? at - 1 : r->oracle.count;
}

static void do_cursor(struct run *r, struct tree_ctx *ctx, struct place *place)
{
	struct tree_cursor *cursor = &place->cursor;
	struct node_cell cell;
	uint8_t memory[BTS_KEY_MAX];
	struct bts_slice key;
	size_t at;
	bool exact;
	enum bts_err err;

	switch (rng_below(&r->rng, 10)) {
	case 0:
		at = 0;
		place->placed = false;
		err = tree_cursor_first(cursor, &cell);
		break;
	case 1:
		at = r->oracle.count ? r->oracle.count - 1 : 0;
		place->placed = false;
		err = tree_cursor_last(cursor, &cell);
		break;
	case 2:
		key = some_key(r, memory);
		at = oracle_find(&r->oracle, key, &exact);
		place->placed = false;
		if (r->bed->tree.depth) /* even when nothing is found: then behind the last entry */
			place_at(place, key);
		err = tree_cursor_seek(cursor, key, &cell);
		break;
	case 3:
	case 4:
	case 5:
		at = expected_step(r, place, false);
		err = tree_cursor_prev(cursor, &cell);
		break;
	default:
		at = expected_step(r, place, true);
		err = tree_cursor_next(cursor, &cell);
		break;
	}
	assert_int_equal(err, at < r->oracle.count ? BTS_OK : BTS_NOT_FOUND);
	if (!err) {
		verify_cell(r, ctx, &cell, r->oracle.entries[at]);
		place_at(place, cell.key);
	}
}

static void walk_both_ways(struct run *r, struct tree_ctx *ctx)
{
	struct tree_cursor cursor;
	struct node_cell cell;
	size_t at = 0;

	tree_cursor_init(&cursor, ctx, &r->bed->tree);
	while (tree_cursor_next(&cursor, &cell) == BTS_OK)
		verify_cell(r, ctx, &cell, r->oracle.entries[at++]);
	assert_int_equal(at, r->oracle.count);
	tree_cursor_init(&cursor, ctx, &r->bed->tree);
	while (tree_cursor_prev(&cursor, &cell) == BTS_OK)
		verify_cell(r, ctx, &cell, r->oracle.entries[--at]);
	assert_int_equal(at, 0);
	assert_int_equal(tree_cursor_prev(&cursor, &cell), BTS_NOT_FOUND);
}

static void verify(struct run *r, struct tree_ctx *ctx)
{
	assert_int_equal(r->bed->tree.entries, r->oracle.count);
	assert_int_equal(r->bed->tree.bytes, r->oracle.bytes);
	tree_bed_check(r->bed, ctx, true);
	verify_deleted(r, ctx);
	walk_both_ways(r, ctx);
}

static void batch(struct run *r, unsigned steps, unsigned puts)
{
	uint8_t memory[BTS_KEY_MAX];

	while (steps--) {
		unsigned kind = (unsigned)rng_below(&r->rng, 16);

		if (kind < puts)
			do_put(r);
		else if (kind < 10)
			do_del(r);
		else if (kind < 12)
			do_get(r, &r->bed->ctx, some_key(r, memory));
		else
			do_cursor(r, &r->bed->ctx, &r->places[rng_below(&r->rng, CURSORS)]);
	}
}

/* All at once: what is deleted by it is not remembered (the tree's creation is, by its owner). */
static void drop(struct run *r)
{
	assert_int_equal(tree_drop(&r->bed->ctx, &r->bed->tree), BTS_OK);
	while (r->oracle.count)
		oracle_del(&r->oracle, r->oracle.count - 1);
	r->deletes = 0;
	for (unsigned i = 0; i < CURSORS; i++) {
		tree_cursor_init(&r->places[i].cursor, &r->bed->ctx, &r->bed->tree);
		r->places[i].placed = false;
	}
	assert_int_equal(r->bed->tree.depth, 0);
	verify(r, &r->bed->ctx);
}

/* A transaction of a group: kept, or rolled back to exactly what was before. */
static void nested(struct run *r, unsigned steps, unsigned puts)
{
	struct tree before = r->bed->tree;
	struct oracle saved = oracle_copy(&r->oracle);
	size_t deletes = r->deletes, bytes = dirty_bytes(r->bed->ctx.dirty), freed, freed_after;

	dirty_freed(r->bed->ctx.dirty, &freed);
	assert_int_equal(dirty_begin(r->bed->ctx.dirty), BTS_OK);
	batch(r, steps, puts);
	if (rng_one_in(&r->rng, 2)) {
		dirty_keep(r->bed->ctx.dirty);
		oracle_clear(&saved);
	} else {
		dirty_rollback(r->bed->ctx.dirty);
		r->bed->tree = before;
		r->bed->ctx.changes++;
		oracle_clear(&r->oracle);
		r->oracle = saved;
		dirty_freed(r->bed->ctx.dirty, &freed_after);
		assert_int_equal(dirty_bytes(r->bed->ctx.dirty), bytes);
		assert_int_equal(freed_after, freed);
		if (r->deletes != deletes)
			r->deletes = 0;
	}
	verify(r, &r->bed->ctx);
	tree_bed_check_private(r->bed);
}

static void read_clean(struct run *r)
{
	struct tree_ctx reader = tree_bed_reader(r->bed);
	struct place place = {.placed = false};
	uint8_t memory[BTS_KEY_MAX];

	verify(r, &reader);
	tree_cursor_init(&place.cursor, &reader, &r->bed->tree);
	for (unsigned i = 0; i < 100; i++) {
		do_get(r, &reader, some_key(r, memory));
		do_cursor(r, &reader, &place);
	}
}

static void run(uint32_t page_size, enum style style, unsigned large, unsigned rounds, unsigned steps)
{
	struct run *r = calloc(1, sizeof(*r));
	bool grouped = false;

	ENSURE(r);
	r->style = style;
	r->large = large;
	rng_init(&r->rng, seed + page_size + style);
	r->oracle.entries = calloc(ENTRIES_MAX, sizeof(*r->oracle.entries));
	r->bed = tree_bed_new(page_size);
	for (unsigned i = 0; i < CURSORS; i++)
		tree_cursor_init(&r->places[i].cursor, &r->bed->ctx, &r->bed->tree);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned puts = round % 6 < 4 ? 8 : 2;

		if (!grouped && rng_one_in(&r->rng, 3))
			grouped = true; /* until the next commit */
		if (grouped) {
			for (unsigned i = 0; i < 3; i++)
				nested(r, steps / 3, puts);
		} else {
			batch(r, steps, puts);
			verify(r, &r->bed->ctx);
			tree_bed_check_private(r->bed);
		}
		if (!grouped && rng_one_in(&r->rng, 16))
			drop(r);
		if (rng_one_in(&r->rng, 2)) {
			tree_bed_commit(r->bed);
			grouped = false;
			read_clean(r);
		}
	}
	do_put(r);
	while (r->oracle.count)
		do_del_key(r, entry_key(r->oracle.entries[rng_below(&r->rng, r->oracle.count)]));
	verify(r, &r->bed->ctx);
	assert_int_equal(r->bed->tree.depth, 1);
	assert_int_equal(r->bed->tree.pages, 1);
	tree_bed_commit(r->bed);
	assert_int_equal(tree_drop(&r->bed->ctx, &r->bed->tree), BTS_OK);
	tree_bed_commit(r->bed);
	tree_bed_free(r->bed);
	oracle_clear(&r->oracle);
	free(r);
}

static void test_short(void **state)
{
	(void)state;
	run(4096, STYLE_SHORT, 0, 40, 1500);
}

static void test_any(void **state)
{
	(void)state;
	run(4096, STYLE_ANY, 100, 40, 1000);
	run(65536, STYLE_ANY, 100, 6, 1500);
}

static void test_long(void **state)
{
	(void)state;
	run(4096, STYLE_LONG, 0, 60, 400);
	run(16384, STYLE_LONG, 0, 12, 1000);
}

static void test_runs(void **state)
{
	(void)state;
	run(4096, STYLE_RUNS, 300, 30, 1500);
	run(16384, STYLE_RUNS, 300, 12, 2000);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_short),
		cmocka_unit_test(test_any),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_runs),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
