/*
 * A put that follows a look at its key goes by the way that the look took, and what a level changes of the pages around it is
 * taken back: so whatever comes in between - other writes, deleted ranges, savepoints gone back to or released, a bucket dropped
 * and made anew, the next transaction of the group - each step must leave what an oracle says.  The tree has three levels.  What
 * fails for want of memory has changed nothing; keeping a level and going back need none.
 * Argument: seed.
 */
#include "bed.h"

#include "oracle.h"
#include <rng.h>

#define KEYS 4000u
#define KEY_TEXT 24u
#define VALUE_MOST 400u
#define LARGE 9000u
#define DEPTH 4u
#define EXPECTED 20u /* more than bts_expect looks at */

static uint64_t seed;

struct field {
	struct rng rng;
	struct bed bed;
	struct oracle now; /* what the transaction sees */
	char looked[KEY_TEXT]; /* looked at last */
	uint64_t failures;     /* for want of memory */
};

/* One call in four meets a failing allocation: alone, or with all later ones. */
static void memory_fails(struct field *f)
{
	if (rng_one_in(&f->rng, 4))
		env_mem_fail_memory(f->bed.mem, 1 + rng_below(&f->rng, 6), rng_one_in(&f->rng, 2) ? ENV_MEM_STICKY : 0);
}

/* After such a call: whether it happened. */
static bool happened(struct field *f, enum bts_err err, enum bts_err expected)
{
	env_mem_fail_clear(f->bed.mem);
	if (err == BTS_MEMORY) {
		f->failures++;
		return false;
	}
	assert_int_equal(err, expected);
	return true;
}

static struct bts_slice random_key(struct field *f, char text[KEY_TEXT])
{
	snprintf(text, KEY_TEXT, "key%05u", (unsigned)rng_below(&f->rng, KEYS));
	return bed_text(text);
}

static struct bts_bucket *handle_of(struct field *f, struct bts_txn *txn)
{
	struct bts_bucket *handle;

	assert_int_equal(bts_bucket(txn, bed_text("b"), BTS_CREATE, &handle, NULL), BTS_OK);
	if (!oracle_bucket(&f->now, bed_text("b")))
		oracle_create(&f->now, bed_text("b"), 0, 0);
	return handle;
}

static void look(struct field *f, struct bts_txn *txn)
{
	struct bts_slice key = random_key(f, f->looked), value;
	struct bts_bucket *handle = handle_of(f, txn);
	const struct oracle_entry *entry = oracle_get(oracle_bucket(&f->now, bed_text("b")), key);
	enum bts_err err = bts_peek(txn, handle, key, &value, NULL);

	assert_int_equal(err, entry ? BTS_OK : BTS_NOT_FOUND);
	if (!entry)
		return;
	assert_int_equal(value.size, entry->value.size);
	if (value.data)
		assert_memory_equal(value.data, entry->value.data, value.size);
}

static void put(struct field *f, struct bts_txn *txn, struct bts_slice key)
{
	static uint8_t bytes[LARGE];
	size_t size = rng_one_in(&f->rng, 40) ? LARGE : rng_one_in(&f->rng, 3) ? rng_below(&f->rng, VALUE_MOST) : 100;
	struct bts_bucket *handle = handle_of(f, txn);
	struct oracle_bucket *bucket = oracle_bucket(&f->now, bed_text("b"));
	unsigned flags = !rng_one_in(&f->rng, 4) ? 0 : oracle_get(bucket, key) ? BTS_PUT_EXISTING : BTS_PUT_NEW;

	memset(bytes, (int)rng_below(&f->rng, 256), size);
	memory_fails(f);
	if (happened(f, bts_put(txn, handle, key, (struct bts_slice){bytes, size}, flags), BTS_OK))
		oracle_put(bucket, key, (struct bts_slice){bytes, size}, bts_txn_id(txn));
}

/* Bounds that lie in the tree's own pages, as a cursor gives them. */
static void cut(struct field *f, struct bts_txn *txn)
{
	struct bts_bucket *handle = handle_of(f, txn);
	struct oracle_bucket *bucket = oracle_bucket(&f->now, bed_text("b"));
	uint64_t most = rng_one_in(&f->rng, 8) ? 1000 : 20, count;
	struct bts_slice from, to;
	struct bts_cursor *cursor;
	char text[KEY_TEXT];
	size_t at, end;
	bool exact;

	at = oracle_at(bucket, random_key(f, text), &exact);
	end = at + rng_below(&f->rng, most);
	if (end >= bucket->count)
		return;
	assert_int_equal(bts_cursor_open(txn, handle, &cursor, NULL), BTS_OK);
	assert_int_equal(bts_cursor_seek(cursor, bucket->entries[end]->key, &to, NULL), BTS_OK);
	assert_int_equal(bts_cursor_seek(cursor, bed_text(text), &from, NULL), BTS_OK);
	bts_cursor_close(cursor);
	memory_fails(f);
	if (!happened(f, bts_del_range(txn, handle, from, to, &count), BTS_OK))
		return;
	assert_int_equal(count, end - at);
	while (end > at)
		oracle_del(bucket, bucket->entries[--end]->key);
}

static void drop(struct field *f, struct bts_txn *txn)
{
	handle_of(f, txn);
	assert_int_equal(bts_bucket_drop(txn, bed_text("b"), NULL), BTS_OK);
	oracle_drop(&f->now, bed_text("b"));
	handle_of(f, txn);
}

static void expect(struct field *f, struct bts_txn *txn, struct bts_bucket *handle)
{
	static char text[EXPECTED][KEY_TEXT];
	struct bts_slice keys[EXPECTED];

	for (unsigned i = 0; i < EXPECTED; i++)
		keys[i] = random_key(f, text[i]);
	bts_expect(txn, handle, keys, rng_below(&f->rng, EXPECTED + 1));
	keys[0].size = 0; /* no key: ignored */
	bts_expect(txn, handle, keys, 1);
}

static void remove_key(struct field *f, struct bts_txn *txn, struct bts_slice key)
{
	struct bts_bucket *handle = handle_of(f, txn);
	struct oracle_bucket *bucket = oracle_bucket(&f->now, bed_text("b"));
	bool there = oracle_get(bucket, key) != NULL;

	memory_fails(f);
	if (happened(f, bts_del(txn, handle, key), there ? BTS_OK : BTS_NOT_FOUND) && there)
		oracle_del(bucket, key);
}

static void change(struct field *f, struct bts_txn *txn)
{
	uint64_t dice = rng_below(&f->rng, 1000);
	struct bts_slice key;
	char text[KEY_TEXT];

	if (dice < 500) {
		look(f, txn);
		if (dice < 400)
			put(f, txn, bed_text(f->looked));
	} else if (dice < 600) { /* whatever has come in between */
		put(f, txn, bed_text(f->looked));
	} else if (dice < 800) {
		put(f, txn, random_key(f, text));
	} else if (dice < 900) {
		key = rng_one_in(&f->rng, 2) ? bed_text(f->looked) : random_key(f, text);
		remove_key(f, txn, key);
	} else if (dice < 960) {
		expect(f, txn, handle_of(f, txn));
	} else if (dice < 998) {
		cut(f, txn);
	} else if (rng_one_in(&f->rng, 10)) {
		drop(f, txn);
	}
}

/* In this level and, savepoints, in those inside it. */
static void changes(struct field *f, struct bts_txn *txn, unsigned depth)
{
	struct oracle before;
	uint32_t id;

	for (uint64_t n = rng_below(&f->rng, 30); n > 0; n--)
		change(f, txn);
	if (depth == DEPTH)
		return;
	for (uint64_t n = rng_below(&f->rng, 3); n > 0; n--) {
		oracle_copy(&before, &f->now);
		assert_int_equal(bts_savepoint(txn, &id, NULL), BTS_OK);
		changes(f, txn, depth + 1);
		if (rng_one_in(&f->rng, 2)) {
			env_mem_fail_memory(f->bed.mem, 1, ENV_MEM_STICKY);
			assert_true(happened(f, bts_savepoint_rollback(txn, id, NULL), BTS_OK));
			oracle_fini(&f->now);
			oracle_copy(&f->now, &before);
		}
		if (rng_one_in(&f->rng, 2)) { /* else it stays open, with those that follow inside it */
			env_mem_fail_memory(f->bed.mem, 1, ENV_MEM_STICKY);
			assert_true(happened(f, bts_savepoint_release(txn, id, NULL), BTS_OK));
		}
		oracle_fini(&before);
		for (uint64_t few = rng_below(&f->rng, 4); few > 0; few--)
			change(f, txn);
	}
	if (rng_one_in(&f->rng, 4))
		oracle_verify(txn, &f->now);
}

static void group(struct field *f)
{
	struct bts_group *g;
	struct oracle before;
	struct bts_txn *txn;

	assert_int_equal(bts_group_begin(f->bed.db, &g, &f->bed.error), BTS_OK);
	for (uint64_t n = rng_below(&f->rng, 12); n > 0; n--) {
		oracle_copy(&before, &f->now);
		assert_int_equal(bts_group_txn(g, &txn, &f->bed.error), BTS_OK);
		changes(f, txn, 0);
		oracle_verify(txn, &f->now);
		if (rng_one_in(&f->rng, 3)) {
			bts_abort(txn);
			oracle_fini(&f->now);
			oracle_copy(&f->now, &before);
		} else {
			bed_commit(&f->bed, txn);
		}
		oracle_fini(&before);
	}
	assert_int_equal(bts_group_commit(g, &f->bed.error), BTS_OK);
}

static void fill(struct field *f)
{
	struct bts_txn *txn;
	struct bts_group *g;

	assert_int_equal(bts_group_begin(f->bed.db, &g, &f->bed.error), BTS_OK);
	assert_int_equal(bts_group_txn(g, &txn, &f->bed.error), BTS_OK);
	for (unsigned i = 0; i < KEYS; i++) {
		char text[KEY_TEXT];

		put(f, txn, random_key(f, text));
	}
	bed_commit(&f->bed, txn);
	assert_int_equal(bts_group_commit(g, &f->bed.error), BTS_OK);
}

static void random_groups(void **state)
{
	static struct field f;
	struct bts_txn *txn;

	(void)state;
	memset(&f, 0, sizeof(f));
	rng_init(&f.rng, seed);
	bed_init_memory(&f.bed);
	fill(&f);
	snprintf(f.looked, sizeof(f.looked), "key");
	for (unsigned round = 0; round < 150; round++) {
		group(&f);
		txn = bed_begin(&f.bed, BTS_READ);
		if (oracle_bucket(&f.now, bed_text("b")))
			expect(&f, txn, bed_find(txn, "b"));
		oracle_verify(txn, &f.now);
		bts_abort(txn);
		if (rng_one_in(&f.rng, 6))
			bed_check(&f.bed);
	}
	assert_true(f.failures > 0);
	oracle_fini(&f.now);
	bed_fini(&f.bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_groups),
	};

	seed = rng_seed_from(argc, argv, 20261123);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
