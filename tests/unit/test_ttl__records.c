/* Records of times to live: which count, what a sweep removes, by a file in memory and a model. */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env_mem.h"
#include "ttl.h"

static struct bts_slice text(const char *s)
{
	return (struct bts_slice){s, strlen(s)};
}

static struct bts *open_db(struct env_mem **mem)
{
	struct bts_options options;
	struct bts *db;

	*mem = env_mem_new(0);
	bts_options_init(&options);
	options.env = env_mem_env(*mem);
	assert_int_equal(bts_open("db", &options, &db, NULL), BTS_OK);
	return db;
}

static void close_db(struct bts *db, struct env_mem *mem)
{
	bts_close(db);
	env_mem_free(mem);
}

/* Put as a writer does that knows of times to live (expires 0: for ever), or as one that does not (UINT64_MAX). */
static void put(struct bts *db, const char *bucket, const char *key, uint64_t expires)
{
	struct bts_bucket *b;
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, text(bucket), BTS_CREATE, &b, NULL), BTS_OK);
	assert_int_equal(bts_put(txn, b, text(key), text("v"), 0), BTS_OK);
	if (expires != UINT64_MAX)
		assert_int_equal(ttl_set(txn, text(bucket), text(key), expires), BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
}

/* UINT64_MAX: absent. */
static uint64_t look(struct bts *db, const char *bucket, const char *key)
{
	uint64_t expires = 7;
	struct bts_slice value;
	struct bts_bucket *b;
	struct ttl_view view;
	struct bts_txn *txn;
	bts_txid version;
	enum bts_err err;

	assert_int_equal(bts_begin(db, BTS_READ, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, text(bucket), 0, &b, NULL), BTS_OK);
	assert_int_equal(ttl_open(&view, txn), BTS_OK);
	err = ttl_get(&view, b, text(bucket), text(key), &value, &version, &expires);
	assert_true(err == BTS_OK || err == BTS_NOT_FOUND);
	bts_abort(txn);
	return err ? UINT64_MAX : expires;
}

static struct ttl_swept sweep(struct bts *db, uint64_t now, uint64_t *pending)
{
	struct ttl_swept swept;
	struct bts_txn *txn;
	int due;

	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(ttl_sweep_batch(txn, now, &swept), BTS_OK);
	assert_int_equal(ttl_sweep_due(txn, now, &due, pending), BTS_OK);
	assert_int_equal(due, swept.more);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	return swept;
}

static void test_counts_only_with_its_version(void **state)
{
	uint64_t later = ttl_now_ms() + 3600000;
	struct env_mem *mem;
	struct bts *db = open_db(&mem);

	(void)state;
	put(db, "b", "k", UINT64_MAX);
	assert_int_equal(look(db, "b", "k"), 0);
	put(db, "b", "k", later);
	assert_int_equal(look(db, "b", "k"), later);
	put(db, "b", "other", UINT64_MAX);
	assert_int_equal(look(db, "b", "other"), 0);
	put(db, "b", "k", UINT64_MAX);
	assert_int_equal(look(db, "b", "k"), 0);
	put(db, "b", "k", 1);
	assert_int_equal(look(db, "b", "k"), UINT64_MAX);
	put(db, "b", "k", 0);
	assert_int_equal(look(db, "b", "k"), 0);
	close_db(db, mem);
}

static void test_within_one_transaction(void **state)
{
	struct bts_slice value;
	struct env_mem *mem;
	struct bts *db = open_db(&mem);
	struct bts_bucket *b;
	struct ttl_view view;
	struct bts_txn *txn;
	uint64_t expires;
	bts_txid version;

	(void)state;
	put(db, "b", "k", 1);
	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, text("b"), 0, &b, NULL), BTS_OK);
	assert_int_equal(ttl_open(&view, txn), BTS_OK);
	assert_int_equal(ttl_get(&view, b, text("b"), text("k"), &value, &version, &expires), BTS_NOT_FOUND);
	assert_int_equal(bts_put(txn, b, text("k"), text("w"), 0), BTS_OK);
	assert_int_equal(ttl_get(&view, b, text("b"), text("k"), &value, &version, &expires), BTS_OK);
	assert_int_equal(expires, 0);
	assert_int_equal(ttl_set(txn, text("b"), text("k"), UINT64_C(9) << 40), BTS_OK);
	assert_int_equal(ttl_get(&view, b, text("b"), text("k"), &value, &version, &expires), BTS_OK);
	assert_int_equal(expires, UINT64_C(9) << 40);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	assert_int_equal(look(db, "b", "k"), UINT64_C(9) << 40);
	close_db(db, mem);
}

static void test_sweep_spares_what_is_not_the_records(void **state)
{
	struct ttl_swept swept;
	struct env_mem *mem;
	struct bts *db = open_db(&mem);
	struct bts_txn *txn;
	uint64_t pending;

	(void)state;
	assert_int_equal(sweep(db, 1000, &pending).rows, 0);
	put(db, "b", "expired", 500);
	put(db, "b", "due later", 1500);
	put(db, "b", "kept by an unknowing writer", 600);
	put(db, "b", "kept by an unknowing writer", UINT64_MAX);
	put(db, "b", "renewed", 700);
	put(db, "b", "renewed", UINT64_C(8) << 40);
	put(db, "b", "cleared", 700);
	put(db, "b", "cleared", 0);
	put(db, "dropped", "k", 800);
	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket_drop(txn, text("dropped"), NULL), BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);

	swept = sweep(db, 1000, &pending);
	assert_int_equal(swept.rows, 3);
	assert_int_equal(swept.entries, 1);
	assert_int_equal(swept.more, 0);
	assert_int_equal(pending, 2);
	assert_int_equal(look(db, "b", "kept by an unknowing writer"), 0);
	assert_int_equal(look(db, "b", "renewed"), UINT64_C(8) << 40);
	assert_int_equal(look(db, "b", "cleared"), 0);
	assert_int_equal(sweep(db, 1500, &pending).entries, 1);
	assert_int_equal(pending, 1);
	close_db(db, mem);
}

/* What stands in the server's buckets may have been written by anybody. */
static void test_forged_records(void **state)
{
	static const char *const rows[] = {
		"x", "\1\2\3", "0123456789abcdef01234567", "a long row that is none at all"};
	struct env_mem *mem;
	struct bts *db = open_db(&mem);
	struct bts_bucket *b;
	struct bts_txn *txn;
	uint64_t pending;
	size_t i;

	(void)state;
	put(db, "b", "k", 1);
	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"\0expiry", 7}, 0, &b, NULL), BTS_OK);
	for (i = 0; i < 4; i++)
		assert_int_equal(bts_put(txn, b, text(rows[i]), text("junk"), 0), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"\0ttl", 4}, 0, &b, NULL), BTS_OK);
	for (i = 0; i < 4; i++)
		assert_int_equal(bts_put(txn, b, text(rows[i]), text(rows[3 - i]), 0), BTS_OK);
	assert_int_equal(bts_put(txn, b, text("89abcdef01234567"), text("01234567\377"), 0), BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	assert_int_equal(sweep(db, UINT64_MAX, &pending).entries, 1);
	assert_int_equal(pending, 0);
	close_db(db, mem);
}

static void test_batches_are_bounded(void **state)
{
	uint64_t pending, entries = 0;
	struct ttl_swept swept;
	struct env_mem *mem;
	struct bts *db = open_db(&mem);
	unsigned i, batches = 0;
	char key[16];

	(void)state;
	for (i = 0; i < 600; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		put(db, "b", key, 1 + i % 7);
	}
	do {
		swept = sweep(db, 100, &pending);
		entries += swept.entries;
		assert_true(swept.rows <= TTL_SWEEP_ROWS);
		assert_int_equal(pending, 600 - entries);
		batches++;
	} while (swept.more);
	assert_int_equal(entries, 600);
	assert_int_equal(batches, 3);
	assert_int_equal(look(db, "b", "k0"), UINT64_MAX);
	close_db(db, mem);
}

static void test_text(void **state)
{
	char at[TTL_TEXT_MAX];

	(void)state;
	ttl_text(UINT64_C(1700000000123), at);
	assert_string_equal(at, "2023-11-14T22:13:20.123Z");
	ttl_text(UINT64_C(253402300799999), at);
	assert_string_equal(at, "9999-12-31T23:59:59.999Z");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_only_with_its_version),
		cmocka_unit_test(test_within_one_transaction),
		cmocka_unit_test(test_sweep_spares_what_is_not_the_records),
		cmocka_unit_test(test_forged_records),
		cmocka_unit_test(test_batches_are_bounded),
		cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
