/*
 * Savepoints: going back gives exactly what was there, of entries, buckets and names, at any depth, in
 * transactions of their own, that are replayed, and of a group.
 */
#include "bed.h"

#include "oracle.h"
#include <rng.h>

#define DEPTH 6u

static uint64_t seed;

static uint32_t mark(struct bts_txn *txn)
{
	uint32_t id = 0;

	assert_int_equal(bts_savepoint(txn, &id, NULL), BTS_OK);
	return id;
}

static void back(struct bts_txn *txn, uint32_t id)
{
	assert_int_equal(bts_savepoint_rollback(txn, id, NULL), BTS_OK);
}

static void forth(struct bts_txn *txn, uint32_t id)
{
	assert_int_equal(bts_savepoint_release(txn, id, NULL), BTS_OK);
}

static void back_and_forth(void **state)
{
	uint32_t one, two, three;
	struct bts_txn *txn;
	struct bed bed;
	bts_txid before;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "0");
	before = bed_stat(&bed).txid;
	txn = bed_begin(&bed, BTS_WRITE);
	one = mark(txn);
	bed_put(txn, "b", "k", "1");
	two = mark(txn);
	bed_put(txn, "b", "k", "2");
	three = mark(txn);
	bed_put(txn, "b", "k", "3");
	assert_true(one != two && two != three && one != three);
	back(txn, two);
	bed_expect(txn, "b", "k", "1");
	assert_int_equal(bts_savepoint_rollback(txn, three, &bed.error), BTS_INVALID);
	assert_int_equal(bts_savepoint_release(txn, three, NULL), BTS_INVALID);
	bed_put(txn, "b", "k", "again");
	back(txn, two); /* still there */
	bed_expect(txn, "b", "k", "1");
	forth(txn, two);
	assert_int_equal(bts_savepoint_rollback(txn, two, NULL), BTS_INVALID);
	back(txn, one);
	bed_expect(txn, "b", "k", "0");
	bed_commit(&bed, txn); /* nothing was changed */
	assert_int_equal(bed_stat(&bed).txid, before);
	txn = bed_begin(&bed, BTS_WRITE);
	one = mark(txn);
	bed_put(txn, "b", "k", "1");
	mark(txn);
	bed_put(txn, "b", "l", "2");
	bed_commit(&bed, txn); /* keeps what is open */
	bed_holds(&bed, "b", "k", "1");
	bed_holds(&bed, "b", "l", "2");
	txn = bed_begin(&bed, BTS_READ);
	assert_int_equal(bts_savepoint(txn, &one, &bed.error), BTS_INVALID);
	bts_abort(txn);
	bed_fini(&bed);
}

/* Made, dropped, renamed and opened behind a savepoint. */
static void buckets(void **state)
{
	struct bts_bucket *opened, *made, *dropped;
	struct bts_bucket_info info;
	struct bts_slice value;
	struct bts_txn *txn;
	struct bed bed;
	uint32_t id;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "one", "k", "1");
	bed_set(&bed, "two", "k", "2");
	bed_set(&bed, "three", "k", "3");
	txn = bed_begin(&bed, BTS_WRITE);
	dropped = bed_find(txn, "two");
	id = mark(txn);
	for (int round = 0; round < 3; round++) {
		opened = bed_find(txn, "one");
		made = bed_bucket(txn, "made");
		assert_int_equal(bts_put(txn, made, bed_text("k"), bed_text("m"), 0), BTS_OK);
		assert_int_equal(bts_put(txn, opened, bed_text("k"), bed_text("m"), 0), BTS_OK);
		assert_int_equal(bts_bucket_set_meta(txn, opened, bed_text("note")), BTS_OK);
		assert_int_equal(bts_bucket_drop(txn, bed_text("two"), NULL), BTS_OK);
		bed_put(txn, "two", "other", "x");
		assert_int_equal(bts_bucket_rename(txn, bed_text("three"), bed_text("four"), NULL), BTS_OK);
		bed_put(txn, "three", "k", "new");
		assert_int_equal(bts_bucket_next(txn, bed_text("one"), &info), BTS_OK);
		assert_memory_equal(info.name.data, "three", 5);
		back(txn, id);
		bed_expect(txn, "made", "k", NULL);
		bed_expect(txn, "four", "k", NULL);
		bed_expect(txn, "three", "k", "3");
		bed_expect(txn, "two", "other", NULL);
		assert_int_equal(bts_get(txn, made, bed_text("k"), &value), BTS_INVALID);
		assert_int_equal(bts_get(txn, opened, bed_text("k"), &value), BTS_OK);
		assert_memory_equal(value.data, "1", 1);
		assert_int_equal(bts_get(txn, dropped, bed_text("k"), &value), BTS_OK);
		assert_memory_equal(value.data, "2", 1);
		assert_int_equal(bts_bucket_info(txn, opened, &info), BTS_OK);
		assert_int_equal(info.meta.size, 0);
		assert_int_equal(bts_bucket_next(txn, (struct bts_slice){0}, &info), BTS_OK);
		assert_memory_equal(info.name.data, "one", 3);
	}
	bed_put(txn, "made", "k", "at last");
	bed_commit(&bed, txn);
	assert_int_equal(bed_stat(&bed).buckets, 4);
	bed_holds(&bed, "made", "k", "at last");
	bed_holds(&bed, "one", "k", "1");
	bed_holds(&bed, "three", "k", "3");
	bed_fini(&bed);
}

/* A bucket whose record was written into the catalog behind the savepoint is listed as it is after it. */
static void listed(void **state)
{
	struct bts_bucket_info info;
	struct bts_txn *txn;
	struct bed bed;
	uint32_t id;

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	bed_put(txn, "b", "k", "1");
	id = mark(txn);
	assert_int_equal(bts_bucket_next(txn, (struct bts_slice){0}, &info), BTS_OK);
	bed_put(txn, "b", "l", "1");
	back(txn, id);
	assert_int_equal(bts_bucket_next(txn, (struct bts_slice){0}, &info), BTS_OK);
	assert_int_equal(info.entries, 1);
	bed_commit(&bed, txn);
	bed_fini(&bed);
}

static void under_cursors(void **state)
{
	struct bts_cursor *cursor;
	struct bts_slice key;
	struct bts_txn *txn;
	struct bed bed;
	uint32_t id;
	char text[16];

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	for (unsigned i = 0; i < 2000; i++) {
		snprintf(text, sizeof(text), "%06u", i);
		bed_put(txn, "b", text, "v");
	}
	assert_int_equal(bts_cursor_open(txn, bed_find(txn, "b"), &cursor, NULL), BTS_OK);
	assert_int_equal(bts_cursor_seek(cursor, bed_text("000500"), &key, NULL), BTS_OK);
	id = mark(txn);
	assert_int_equal(
		bts_del_range(txn, bed_find(txn, "b"), bed_text("0002"), bed_text("0015"), NULL), BTS_OK);
	assert_int_equal(bts_cursor_next(cursor, &key, NULL), BTS_OK);
	assert_memory_equal(key.data, "001500", 6);
	back(txn, id);
	assert_int_equal(bts_cursor_prev(cursor, &key, NULL), BTS_OK);
	assert_memory_equal(key.data, "001499", 6);
	assert_int_equal(bts_bucket_drop(txn, bed_text("b"), NULL), BTS_OK);
	assert_int_equal(bts_cursor_next(cursor, &key, NULL), BTS_INVALID);
	back(txn, id);
	assert_int_equal(bts_cursor_seek(cursor, bed_text("001999"), &key, NULL), BTS_OK);
	assert_int_equal(bts_cursor_next(cursor, &key, NULL), BTS_NOT_FOUND);
	bed_commit(&bed, txn);
	bed_fini(&bed);
}

/* What was undone is not made again when the race was lost, and conflicts with nothing. */
static void replayed(void **state)
{
	struct bts_txn *txn;
	struct bed bed;
	uint32_t id;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "theirs", "0");
	txn = bed_begin(&bed, BTS_WRITE);
	bed_put(txn, "b", "mine", "1");
	id = mark(txn);
	bed_put(txn, "b", "theirs", "1");
	bed_put(txn, "new", "k", "1");
	assert_int_equal(bts_bucket_rename(txn, bed_text("b"), bed_text("c"), NULL), BTS_OK);
	back(txn, id);
	bed_put(txn, "b", "mine too", "2");
	forth(txn, id);
	bed_set(&bed, "b", "theirs", "2");
	bed_set(&bed, "new", "k", "2");
	bed_commit(&bed, txn);
	bed_holds(&bed, "b", "mine", "1");
	bed_holds(&bed, "b", "mine too", "2");
	bed_holds(&bed, "b", "theirs", "2");
	bed_holds(&bed, "new", "k", "2");
	bed_fini(&bed);
}

static void in_a_group(void **state)
{
	struct bts_group *group;
	struct bts_txn *txn;
	struct bed bed;
	uint32_t id;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "0");
	assert_int_equal(bts_group_begin(bed.db, &group, NULL), BTS_OK);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
		bed_put(txn, "b", "k", i % 2 ? "odd" : "even");
		id = mark(txn);
		assert_int_equal(
			bts_savepoint_rollback(txn, id - 1, NULL), BTS_INVALID); /* the transaction itself */
		bed_put(txn, "b", "k", "undone");
		bed_put(txn, "c", "k", "undone");
		mark(txn);
		bed_put(txn, "b", "k", "undone too");
		if (i < 3)
			back(txn, id);
		if (i == 3)
			bts_abort(txn);
		else
			bed_commit(&bed, txn);
	}
	assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
	id = mark(txn);
	bed_put(txn, "b", "k", "undone");
	back(txn, id);
	bed_commit(&bed, txn); /* without a change */
	assert_int_equal(bts_group_commit(group, NULL), BTS_OK);
	bed_holds(&bed, "b", "k", "even");
	bed_holds(&bed, "c", "k", NULL);
	assert_int_equal(bed_stat(&bed).buckets, 1);
	bed_fini(&bed);
}

struct level {
	uint32_t id;
	struct oracle view;
};

static struct bts_slice random_key(struct rng *rng, char text[16])
{
	snprintf(text, 16, "%04u", (unsigned)rng_below(rng, 3000));
	return bed_text(text);
}

/* Versions of entries: those of a group's transaction are known at once. */
static bts_txid stamp;

static void random_change(struct rng *rng, struct bts_txn *txn, struct oracle *view)
{
	static const char *const names[] = {"a", "b", "c", "d", "e"};
	static uint8_t bytes[9000];
	struct bts_slice name = bed_text(names[rng_below(rng, 5)]), to = bed_text(names[rng_below(rng, 5)]),
			 key, end;
	struct oracle_bucket *old = oracle_bucket(view, name);
	size_t size = rng_one_in(rng, 30) ? rng_below(rng, sizeof(bytes)) : rng_below(rng, 90);
	uint64_t dice = rng_below(rng, 100), count, expected = 0;
	struct bts_bucket *handle;
	char text[2][16];

	if (dice < 3) {
		assert_int_equal(bts_bucket_drop(txn, name, NULL), old ? BTS_OK : BTS_NOT_FOUND);
		if (old)
			oracle_drop(view, name);
		return;
	}
	if (dice < 8) {
		enum bts_err err = bts_bucket_rename(txn, name, to, NULL);

		assert_int_equal(err, !old ? BTS_NOT_FOUND : oracle_bucket(view, to) ? BTS_EXISTS : BTS_OK);
		if (err == BTS_OK)
			oracle_rename(view, name, to, 0);
		return;
	}
	assert_int_equal(bts_bucket(txn, name, BTS_CREATE, &handle, NULL), BTS_OK);
	if (!old)
		old = oracle_create(view, name, 0, 0);
	key = random_key(rng, text[0]);
	end = random_key(rng, text[1]);
	if (dice < 12) {
		size_t from, till;
		bool exact;

		from = oracle_at(old, key, &exact);
		till = oracle_at(old, end, &exact);
		for (; from < till; till--, expected++)
			oracle_del(old, old->entries[till - 1]->key);
		assert_int_equal(bts_del_range(txn, handle, key, end, &count), BTS_OK);
		assert_int_equal(count, expected);
		return;
	}
	if (dice < 30) {
		assert_int_equal(bts_del(txn, handle, key), oracle_del(old, key) ? BTS_OK : BTS_NOT_FOUND);
		return;
	}
	memset(bytes, (int)dice, size);
	oracle_put(old, key, (struct bts_slice){bytes, size}, stamp);
	assert_int_equal(bts_put(txn, handle, key, (struct bts_slice){bytes, size}, 0), BTS_OK);
}

/* Savepoints made, gone back to and released at random; levels[0] is the transaction itself. */
static void random_savepoints(struct rng *rng, struct bts_txn *txn, struct oracle *view, unsigned steps)
{
	struct level levels[DEPTH];
	unsigned depth = 0, at;

	for (unsigned i = 0; i < steps; i++) {
		for (uint64_t n = rng_below(rng, 40); n > 0; n--)
			random_change(rng, txn, view);
		if (depth < DEPTH && rng_one_in(rng, 2)) {
			oracle_copy(&levels[depth].view, view);
			levels[depth++].id = mark(txn);
		} else if (depth > 0) {
			bool keep = rng_one_in(rng, 2);

			at = (unsigned)rng_below(rng, depth);
			if (keep)
				forth(txn, levels[at].id);
			else
				back(txn, levels[at].id);
			if (!keep) {
				oracle_fini(view);
				oracle_copy(view, &levels[at].view);
			}
			while (depth > at + !keep)
				oracle_fini(&levels[--depth].view);
		}
		if (rng_one_in(rng, 4))
			oracle_verify(txn, view);
	}
	oracle_verify(txn, view);
	while (depth > 0)
		oracle_fini(&levels[--depth].view);
}

static void set_other(struct oracle *o, bts_txid txid)
{
	struct oracle_bucket *bucket = oracle_bucket(o, bed_text("z"));

	if (!bucket)
		bucket = oracle_create(o, bed_text("z"), 0, 0);
	oracle_put(bucket, bed_text("k"), bed_text("v"), txid);
}

/* What was written has its number now. */
static void give_versions(struct oracle *o, bts_txid txid)
{
	for (size_t i = 0; i < o->count; i++)
		for (size_t k = 0; k < o->buckets[i]->count; k++)
			if (o->buckets[i]->entries[k]->version == 0)
				o->buckets[i]->entries[k]->version = txid;
}

static void random_transaction(struct rng *rng, struct bed *bed, struct oracle *now)
{
	bool grouped = rng_one_in(rng, 3), keep = !rng_one_in(rng, 5),
	     overtaken = !grouped && rng_one_in(rng, 2);
	struct bts_group *group = NULL;
	struct bts_txn *txn, *other;
	struct oracle view;
	bts_txid txid, theirs = 0;

	oracle_copy(&view, now);
	if (grouped) {
		assert_int_equal(bts_group_begin(bed->db, &group, NULL), BTS_OK);
		assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
	} else {
		txn = bed_begin(bed, BTS_WRITE);
	}
	stamp = grouped ? bts_txn_id(txn) : 0;
	if (overtaken) {
		other = bed_begin(bed, BTS_WRITE);
		bed_put(other, "z", "k", "v");
		assert_int_equal(bts_commit_id(other, &theirs, NULL), BTS_OK);
		set_other(now, theirs);
	}
	random_savepoints(rng, txn, &view, 12);
	if (keep) {
		assert_int_equal(bts_commit_id(txn, &txid, &bed->error), BTS_OK);
		give_versions(&view, txid);
		if (overtaken)
			set_other(&view, theirs);
		oracle_fini(now);
		oracle_copy(now, &view);
	} else {
		bts_abort(txn);
	}
	if (grouped)
		assert_int_equal(bts_group_commit(group, NULL), BTS_OK);
	oracle_fini(&view);
}

static void random_transactions(void **state)
{
	struct oracle now = {0};
	struct bts_txn *txn;
	struct rng rng;
	struct bed bed;

	(void)state;
	rng_init(&rng, seed);
	bed_init_memory(&bed);
	for (unsigned round = 0; round < 60; round++) {
		random_transaction(&rng, &bed, &now);
		txn = bed_begin(&bed, BTS_READ);
		oracle_verify(txn, &now);
		bts_abort(txn);
		if (rng_one_in(&rng, 8))
			bed_check(&bed);
	}
	oracle_fini(&now);
	bed_fini(&bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(back_and_forth),
		cmocka_unit_test(buckets),
		cmocka_unit_test(listed),
		cmocka_unit_test(under_cursors),
		cmocka_unit_test(replayed),
		cmocka_unit_test(in_a_group),
		cmocka_unit_test(random_transactions),
	};

	seed = rng_seed_from(argc, argv, 20261122);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
