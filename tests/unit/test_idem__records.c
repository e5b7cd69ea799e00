/* Idempotency keys: what is kept is found by the same key and body, ends with its time, and what is not a record is believed by nobody. */
#include "cmocka.h"

#include <stdlib.h>
#include <string.h>

#include "env_mem.h"
#include "idem.h"
#include "ttl.h"

static struct bts *db;
static struct env_mem *mem;

static struct bts_slice text(const char *s)
{
	return (struct bts_slice){s, strlen(s)};
}

static int open_db(void **state)
{
	struct bts_options options;

	(void)state;
	mem = env_mem_new(0);
	bts_options_init(&options);
	options.env = env_mem_env(mem);
	return bts_open("db", &options, &db, NULL);
}

static int close_db(void **state)
{
	(void)state;
	bts_close(db);
	env_mem_free(mem);
	return 0;
}

static struct idem_key key(const char *name, const char *body)
{
	struct idem_key k;

	assert_int_equal(idem_key_init(&k, name, text(body)), 0);
	return k;
}

static enum bts_err keep(const char *name, const char *body, const char *reply, struct idem_limits limits)
{
	struct idem_key k = key(name, body);
	struct bts_txn *txn;
	enum bts_err err;

	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	err = idem_keep(txn, &k, &limits, text(reply));
	if (err)
		bts_abort(txn);
	else
		assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	return err;
}

/* With reply NULL: not looked at. */
static enum idem_state find(const char *name, const char *body, const char *reply)
{
	struct idem_key k = key(name, body);
	struct bts_slice got = {NULL, 0};
	enum idem_state state;
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_READ, &txn, NULL), BTS_OK);
	assert_int_equal(idem_find(txn, &k, &state, &got), BTS_OK);
	if (reply) {
		assert_int_equal(got.size, strlen(reply));
		assert_memory_equal(got.data, reply, got.size);
	}
	bts_abort(txn);
	return state;
}

static const struct idem_limits day = {86400000, 1000};

static void test_kept_and_found(void **state)
{
	(void)state;
	assert_int_equal(find("a", "body", NULL), IDEM_NEW);
	assert_int_equal(keep("a", "body", "answer", day), BTS_OK);
	assert_int_equal(keep("b", "", "", day), BTS_OK);
	assert_int_equal(find("a", "body", "answer"), IDEM_KEPT);
	assert_int_equal(find("b", "", ""), IDEM_KEPT);
	assert_int_equal(find("a", "bodY", NULL), IDEM_REUSED);
	assert_int_equal(find("A", "body", NULL), IDEM_NEW);
}

static void test_ends(void **state)
{
	struct ttl_swept swept;
	struct bts_txn *txn;

	(void)state;
	assert_int_equal(keep("a", "body", "answer", (struct idem_limits){0, 10}), BTS_OK); /* ends at once */
	assert_int_equal(find("a", "body", NULL), IDEM_NEW);
	assert_int_equal(keep("a", "other", "new", day), BTS_OK);
	assert_int_equal(find("a", "other", "new"), IDEM_KEPT);
	assert_int_equal(keep("b", "", "", (struct idem_limits){0, 10}), BTS_OK);
	/* Removed as any entry with a time to live is; until then it counts. */
	assert_int_equal(keep("c", "", "", (struct idem_limits){1000, 2}), BTS_LIMIT);
	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(ttl_sweep_batch(txn, ttl_now_ms(), &swept), BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	assert_int_equal(swept.entries, 1);
	assert_int_equal(keep("c", "", "", (struct idem_limits){1000, 2}), BTS_OK);
	assert_int_equal(find("a", "other", "new"), IDEM_KEPT);
}

static void test_foreign_records(void **state)
{
	struct bts_bucket *bucket;
	struct bts_txn *txn;

	(void)state;
	assert_int_equal(keep("a", "body", "answer", day), BTS_OK);
	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"\0idem", 5}, 0, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_put(txn, bucket, text("a"), text("\2"), 0), BTS_OK);
	assert_int_equal(bts_put(txn, bucket, text("e"), text(""), 0), BTS_OK);
	assert_int_equal(
		bts_put(txn, bucket, text("v"), text("\2 a record of a later version, perhaps"), 0), BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	assert_int_equal(find("a", "body", NULL), IDEM_REUSED);
	assert_int_equal(find("e", "body", NULL), IDEM_REUSED);
	assert_int_equal(find("v", "body", NULL), IDEM_REUSED);
}

static void test_bounds(void **state)
{
	char name[IDEM_KEY_MAX + 2], *reply = calloc(1, IDEM_REPLY_MAX + 2);
	struct idem_key k;

	(void)state;
	assert_int_equal(idem_key_init(&k, "", text("")), -1);
	assert_int_equal(idem_key_init(&k, "a\tb", text("")), -1);
	assert_int_equal(idem_key_init(&k, "a\x7f", text("")), -1);
	assert_int_equal(idem_key_init(&k, "\xc3\xa9", text("")), -1);
	memset(name, 'k', sizeof(name));
	name[IDEM_KEY_MAX + 1] = '\0';
	assert_int_equal(idem_key_init(&k, name, text("")), -1);
	name[IDEM_KEY_MAX] = '\0';
	memset(reply, 'r', IDEM_REPLY_MAX + 1);
	assert_int_equal(keep(name, "", reply, day), BTS_INVALID);
	reply[IDEM_REPLY_MAX] = '\0';
	assert_int_equal(keep(name, "", reply, day), BTS_OK);
	assert_int_equal(find(name, "", reply), IDEM_KEPT);
	free(reply);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kept_and_found, open_db, close_db),
		cmocka_unit_test_setup_teardown(test_ends, open_db, close_db),
		cmocka_unit_test_setup_teardown(test_foreign_records, open_db, close_db),
		cmocka_unit_test_setup_teardown(test_bounds, open_db, close_db),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
