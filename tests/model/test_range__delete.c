/*
 * Deleting ranges: random cuts of a bare tree at several page sizes against an array, with every invariant,
 * the counters, the account of pages and what is remembered of deletions checked after each; each
 * allocation failing; the same through the public interface.
 */
#include "bed.h"
#include "tree_bed.h"

#include <rng.h>

#define KEYS 4000u

struct cut_bed {
	struct rng rng;
	struct tree_bed *bed;
	unsigned keys;		/* of the universe used */
	uint32_t sizes[KEYS];	/* of values; 0: absent, else 1 more */
	bts_txid deleted[KEYS]; /* stamp of the newest deletion */
	uint64_t cuts, gone, failed;
};

/* Number order is key order; lengths vary, so that separators do. */
static struct bts_slice cut_key(unsigned number, uint8_t bytes[BTS_KEY_MAX])
{
	size_t size = (size_t)snprintf((char *)bytes, 16, "%05u", number);
	size_t more = number % 37 == 0 ? 1000 : number % 5 == 0 ? 60 : number % 3;

	memset(bytes + size, 'x', more);
	return (struct bts_slice){bytes, size + more};
}

static void cut_put(struct cut_bed *c, unsigned number)
{
	static uint8_t value[40000];
	uint8_t bytes[BTS_KEY_MAX];
	uint64_t dice = rng_below(&c->rng, 100);
	size_t size = dice < 80	  ? rng_below(&c->rng, 120)
		      : dice < 97 ? rng_below(&c->rng, 900)
				  : rng_below(&c->rng, 40000);

	memset(value, (int)number, size);
	assert_int_equal(tree_put(&c->bed->ctx, &c->bed->tree, cut_key(number, bytes),
				 (struct bts_slice){value, size}, c->bed->ctx.stamp),
		BTS_OK);
	c->sizes[number] = (uint32_t)size + 1;
}

static void cut_verify(struct cut_bed *c)
{
	struct tree_bed *bed = c->bed;
	uint64_t entries = 0, total = 0;
	struct tree_cursor cursor;
	struct node_cell cell;
	enum bts_err err;
	unsigned at = 0;

	tree_bed_check(bed, &bed->ctx, false);
	tree_cursor_init(&cursor, &bed->ctx, &bed->tree);
	for (err = tree_cursor_first(&cursor, &cell); err == BTS_OK; err = tree_cursor_next(&cursor, &cell)) {
		uint8_t bytes[BTS_KEY_MAX];
		struct bts_slice key;

		while (at < c->keys && c->sizes[at] == 0)
			at++;
		assert_true(at < c->keys);
		key = cut_key(at, bytes);
		assert_int_equal(cell.key.size, key.size);
		assert_memory_equal(cell.key.data, key.data, key.size);
		assert_int_equal(cell.extent ? cell.size : cell.value.size, c->sizes[at] - 1);
		total += key.size + c->sizes[at] - 1;
		entries++;
		at++;
	}
	assert_int_equal(err, BTS_NOT_FOUND);
	while (at < c->keys)
		assert_int_equal(c->sizes[at++], 0);
	assert_int_equal(bed->tree.entries, entries);
	assert_int_equal(bed->tree.bytes, total);
	for (unsigned i = 0; i < c->keys; i++) { /* C1 */
		uint8_t bytes[BTS_KEY_MAX];
		struct tree_hit hit;

		if (c->sizes[i] || c->deleted[i] == 0)
			continue;
		assert_int_equal(tree_get(&bed->ctx, &bed->tree, cut_key(i, bytes), &hit), BTS_NOT_FOUND);
		assert_true(hit.last_delete >= c->deleted[i]);
	}
}

/* A bound as a get gives it, in a page that the cut changes; a key that is not there as it is. */
static struct bts_slice cut_borrowed(struct cut_bed *c, struct bts_slice key)
{
	struct tree_hit hit;

	if (key.size == 0 || rng_one_in(&c->rng, 2) || tree_get(&c->bed->ctx, &c->bed->tree, key, &hit))
		return key;
	return hit.cell.key;
}

/* The same with an allocation failing until none does: nothing may have changed. */
static enum bts_err cut_try(struct cut_bed *c, const struct tree_range *range, uint64_t *count)
{
	struct tree before = c->bed->tree;
	size_t held = dirty_bytes(c->bed->ctx.dirty);
	enum bts_err err;

	for (uint64_t nth = 1 + rng_below(&c->rng, 3);; nth += 1 + rng_below(&c->rng, 5)) {
		struct tree_range borrowed = {cut_borrowed(c, range->from), cut_borrowed(c, range->to)};

		c->bed->fail_in = rng_one_in(&c->rng, 4) ? nth : 0;
		err = tree_cut(&c->bed->ctx, &c->bed->tree, &borrowed, count);
		c->bed->fail_in = 0;
		if (err != BTS_MEMORY)
			return err;
		c->failed++;
		assert_true(layout_ptr_equal(&before.root, &c->bed->tree.root));
		assert_true(before.depth == c->bed->tree.depth && before.entries == c->bed->tree.entries &&
			before.bytes == c->bed->tree.bytes && before.pages == c->bed->tree.pages);
		assert_int_equal(dirty_bytes(c->bed->ctx.dirty), held);
		tree_bed_check(c->bed, &c->bed->ctx, false);
	}
}

static void cut_range(struct cut_bed *c, unsigned from, unsigned to)
{
	uint8_t bytes[2][BTS_KEY_MAX];
	bool open_from = from == 0 && rng_one_in(&c->rng, 2), open_to = to >= c->keys;
	struct tree_range range = {{NULL, 0}, {NULL, 0}};
	uint64_t count = 99, expected = 0;

	if (!open_from)
		range.from = cut_key(from, bytes[0]);
	if (!open_to)
		range.to = cut_key(to, bytes[1]);
	for (unsigned i = from; i < to && i < c->keys; i++) {
		if (c->sizes[i] == 0)
			continue;
		expected++;
		c->sizes[i] = 0;
		c->deleted[i] = c->bed->ctx.stamp;
	}
	assert_int_equal(cut_try(c, &range, &count), BTS_OK);
	assert_int_equal(count, expected);
	c->cuts++;
	c->gone += count;
}

static void cut_random(struct cut_bed *c)
{
	unsigned from = (unsigned)rng_below(&c->rng, c->keys), most, to;

	switch (rng_below(&c->rng, 12)) {
	case 0:
		from = 0;
		to = (unsigned)rng_below(&c->rng, c->keys);
		break;
	case 1:
		to = c->keys;
		break;
	case 2:
		if (rng_one_in(&c->rng, 3)) {
			cut_range(c, 0, c->keys);
			return;
		}
		/* fallthrough */
	default:
		most = rng_one_in(&c->rng, 3) ? c->keys : 60;
		to = from + (unsigned)rng_below(&c->rng, most);
	}
	cut_range(c, from, to);
}

static void cut_fill(struct cut_bed *c)
{
	unsigned start = (unsigned)rng_below(&c->rng, c->keys), many = (unsigned)rng_below(&c->rng, c->keys);

	for (unsigned i = 0; i < many; i++)
		cut_put(c, rng_one_in(&c->rng, 4) ? (unsigned)rng_below(&c->rng, c->keys)
						  : (start + i) % c->keys);
}

/* A level around it, kept or rolled back. */
static void cut_nested(struct cut_bed *c)
{
	struct cut_bed *saved = malloc(sizeof(*saved));
	struct tree before = c->bed->tree;

	assert_non_null(saved);
	*saved = *c;
	assert_int_equal(dirty_begin(c->bed->ctx.dirty), BTS_OK);
	cut_random(c);
	for (unsigned i = 0; i < 30; i++)
		cut_put(c, (unsigned)rng_below(&c->rng, c->keys));
	cut_random(c);
	if (rng_one_in(&c->rng, 2)) {
		dirty_keep(c->bed->ctx.dirty);
	} else {
		dirty_rollback(c->bed->ctx.dirty);
		c->bed->tree = before;
		c->bed->ctx.changes++;
		memcpy(c->sizes, saved->sizes, sizeof(c->sizes));
		memcpy(c->deleted, saved->deleted, sizeof(c->deleted));
	}
	free(saved);
}

static void run_cuts(uint32_t page_size, unsigned keys, unsigned rounds, uint64_t seed)
{
	struct cut_bed *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	rng_init(&c->rng, seed + page_size);
	c->keys = keys;
	c->bed = tree_bed_new(page_size);
	for (unsigned round = 0; round < rounds; round++) {
		if (c->bed->tree.entries < keys / 4 || rng_one_in(&c->rng, 6))
			cut_fill(c);
		if (rng_one_in(&c->rng, 5))
			cut_nested(c);
		else
			cut_random(c);
		cut_verify(c);
		tree_bed_check_private(c->bed);
		if (rng_one_in(&c->rng, 3))
			tree_bed_commit(c->bed);
	}
	tree_bed_commit(c->bed);
	cut_verify(c);
	printf("page size %u: %llu cuts, %llu keys, %llu failures\n", page_size, (unsigned long long)c->cuts,
		(unsigned long long)c->gone, (unsigned long long)c->failed);
	assert_true(c->failed > 0 && c->gone > keys);
	tree_bed_free(c->bed);
	free(c);
}

static uint64_t seed;

static void random_cuts(void **state)
{
	(void)state;
	run_cuts(4096, KEYS, 100, seed);
	run_cuts(4096, 300, 150, seed + 1);
	run_cuts(8192, KEYS, 50, seed);
	run_cuts(65536, KEYS, 25, seed);
}

/* The tree is hardly larger then than one made of what is left. */
static void a_cut_shrinks(void **state)
{
	struct cut_bed *c = calloc(1, sizeof(*c));
	uint64_t pages;

	(void)state;
	assert_non_null(c);
	rng_init(&c->rng, seed);
	c->keys = KEYS;
	c->bed = tree_bed_new(4096);
	for (unsigned i = 0; i < KEYS; i++)
		cut_put(c, i);
	tree_bed_commit(c->bed);
	pages = c->bed->tree.pages;
	cut_range(c, 20, KEYS - 20);
	assert_int_equal(c->bed->tree.entries, 40);
	assert_true(pages > 150 && c->bed->tree.pages < 10 && c->bed->tree.depth <= 2);
	cut_verify(c);
	cut_range(c, 0, KEYS);
	assert_int_equal(c->bed->tree.entries, 0);
	assert_int_equal(c->bed->tree.depth, 1);
	assert_int_equal(c->bed->tree.pages, 1);
	cut_verify(c);
	tree_bed_commit(c->bed);
	cut_verify(c);
	tree_bed_free(c->bed);
	free(c);
}

static struct bts_slice number(unsigned i, char text[16])
{
	snprintf(text, 16, "%06u", i);
	return bed_text(text);
}

static uint64_t del_range(struct bts_txn *txn, const char *bucket, unsigned from, unsigned to)
{
	char low[16], high[16];
	uint64_t count = 1000000;

	assert_int_equal(
		bts_del_range(txn, bed_find(txn, bucket), number(from, low), number(to, high), &count),
		BTS_OK);
	return count;
}

static void fill(struct bed *bed, const char *bucket, unsigned many)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	char key[16];

	for (unsigned i = 0; i < many; i++)
		assert_int_equal(bts_put(txn, bed_bucket(txn, bucket), number(i, key),
					 (struct bts_slice){key, i % 97 ? 6 : 0}, 0),
			BTS_OK);
	bed_commit(bed, txn);
}

static uint64_t entries(struct bed *bed, const char *bucket)
{
	struct bts_txn *txn = bed_begin(bed, BTS_READ);
	struct bts_bucket_info info;

	assert_int_equal(bts_bucket_info(txn, bed_find(txn, bucket), &info), BTS_OK);
	bts_abort(txn);
	return info.entries;
}

static void nothing_in_it(void **state)
{
	struct bts_txn *txn;
	struct bed bed;
	bts_txid before;
	uint64_t count = 7;

	(void)state;
	bed_init_memory(&bed);
	fill(&bed, "b", 3000);
	before = bed_stat(&bed).txid;
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(del_range(txn, "b", 5000, 6000), 0);
	assert_int_equal(del_range(txn, "b", 7, 7), 0);
	assert_int_equal(del_range(txn, "b", 70, 7), 0);
	bed_commit(&bed, txn);
	txn = bed_begin(&bed, BTS_WRITE);
	bed_bucket(txn, "empty");
	assert_int_equal(del_range(txn, "empty", 0, 100), 0);
	assert_int_equal(bts_bucket_drop(txn, bed_text("empty"), NULL), BTS_OK);
	bts_abort(txn);
	assert_int_equal(bed_stat(&bed).txid, before);
	txn = bed_begin(&bed, BTS_READ);
	assert_int_equal(
		bts_del_range(txn, bed_find(txn, "b"), bed_text("0"), bed_text("1"), &count), BTS_INVALID);
	assert_int_equal(count, 7);
	bts_abort(txn);
	assert_int_equal(entries(&bed, "b"), 3000);
	bed_fini(&bed);
}

/* Adopted, replayed, and in a group with one that is abandoned. */
static void in_transactions(void **state)
{
	struct bts_group *group;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	fill(&bed, "b", 20000);
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(del_range(txn, "b", 10, 5010), 5000);
	bed_expect(txn, "b", "000009", "000009");
	bed_expect(txn, "b", "000010", NULL);
	bed_put(txn, "b", "000100", "again");
	bed_commit(&bed, txn);
	assert_int_equal(entries(&bed, "b"), 15001);
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(del_range(txn, "b", 6000, 8000), 2000);
	bed_set(&bed, "b", "019999", "else");
	bed_commit(&bed, txn);
	assert_int_equal(entries(&bed, "b"), 13001);
	bed_holds(&bed, "b", "006000", NULL);
	bed_holds(&bed, "b", "008000", "008000");
	bed_holds(&bed, "b", "019999", "else");
	bed_check(&bed);
	assert_int_equal(bts_group_begin(bed.db, &group, NULL), BTS_OK);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
		assert_int_equal(del_range(txn, "b", 9000 + i * 1000, 10000 + i * 1000), 1000);
		if (i == 1)
			bts_abort(txn);
		else
			bed_commit(&bed, txn);
	}
	assert_int_equal(bts_group_commit(group, NULL), BTS_OK);
	assert_int_equal(entries(&bed, "b"), 11001);
	bed_holds(&bed, "b", "010500", "010500");
	bed_holds(&bed, "b", "011500", NULL);
	bed_reopen(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(
		bts_del_range(txn, bed_find(txn, "b"), (struct bts_slice){0}, (struct bts_slice){0}, NULL),
		BTS_OK);
	bed_commit(&bed, txn);
	assert_int_equal(entries(&bed, "b"), 0);
	bed_fini(&bed);
}

/* A cursor over what is cut goes on behind it. */
static void under_a_cursor(void **state)
{
	struct bts_cursor *cursor;
	struct bts_slice key;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	fill(&bed, "b", 5000);
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_cursor_open(txn, bed_find(txn, "b"), &cursor, NULL), BTS_OK);
	assert_int_equal(bts_cursor_seek(cursor, bed_text("001000"), &key, NULL), BTS_OK);
	assert_int_equal(del_range(txn, "b", 500, 4000), 3500);
	assert_int_equal(bts_cursor_next(cursor, &key, NULL), BTS_OK);
	assert_memory_equal(key.data, "004000", 6);
	assert_int_equal(bts_cursor_prev(cursor, &key, NULL), BTS_OK);
	assert_memory_equal(key.data, "000499", 6);
	assert_int_equal(bts_del_range(txn, bed_find(txn, "b"), (struct bts_slice){0}, key, NULL), BTS_OK);
	assert_int_equal(bts_cursor_first(cursor, &key, NULL), BTS_OK);
	assert_memory_equal(key.data, "000499", 6);
	bed_commit(&bed, txn);
	assert_int_equal(entries(&bed, "b"), 1001);
	bed_fini(&bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_cuts),
		cmocka_unit_test(a_cut_shrinks),
		cmocka_unit_test(nothing_in_it),
		cmocka_unit_test(in_transactions),
		cmocka_unit_test(under_a_cursor),
	};

	seed = rng_seed_from(argc, argv, 20261122);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
