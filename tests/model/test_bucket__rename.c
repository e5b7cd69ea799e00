/* Renaming buckets: names, handles, chains and exchanges, replays, and many buckets at once. */
#include "bed.h"

#define MANY 3000u

static enum bts_err name_as(struct bts_txn *txn, const char *from, const char *to)
{
	return bts_bucket_rename(txn, bed_text(from), bed_text(to), NULL);
}

static struct bts_bucket_info info_of(struct bts_txn *txn, const char *name)
{
	struct bts_bucket_info info;

	assert_int_equal(bts_bucket_info(txn, bed_find(txn, name), &info), BTS_OK);
	return info;
}

static void one(void **state)
{
	struct bts_bucket *handle;
	struct bts_cursor *cursor;
	struct bts_slice key;
	struct bts_txn *txn;
	struct bed bed;
	bts_txid put, renamed, version;
	uint64_t pages;

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	bed_put(txn, "old", "k", "v");
	assert_int_equal(bts_bucket_set_meta(txn, bed_find(txn, "old"), bed_text("note")), BTS_OK);
	assert_int_equal(bts_commit_id(txn, &put, NULL), BTS_OK);
	txn = bed_begin(&bed, BTS_WRITE);
	handle = bed_find(txn, "old");
	pages = info_of(txn, "old").pages;
	assert_int_equal(bts_cursor_open(txn, handle, &cursor, NULL), BTS_OK);
	assert_int_equal(name_as(txn, "old", "new"), BTS_OK);
	bed_expect(txn, "old", "k", NULL);
	bed_expect(txn, "new", "k", "v");
	assert_ptr_equal(bed_find(txn, "new"), handle);
	assert_int_equal(bts_cursor_next(cursor, &key, NULL), BTS_OK);
	assert_int_equal(bts_put(txn, handle, bed_text("l"), bed_text("w"), 0), BTS_OK);
	assert_int_equal(bts_commit_id(txn, &renamed, NULL), BTS_OK);
	txn = bed_begin(&bed, BTS_READ);
	assert_int_equal(info_of(txn, "new").version, renamed);
	assert_int_equal(info_of(txn, "new").pages, pages);
	assert_memory_equal(info_of(txn, "new").meta.data, "note", 4);
	assert_int_equal(bts_get_version(txn, bed_find(txn, "new"), bed_text("k"), &key, &version), BTS_OK);
	assert_int_equal(version, put);
	assert_int_equal(name_as(txn, "new", "old"), BTS_INVALID);
	bts_abort(txn);
	assert_int_equal(bed_stat(&bed).buckets, 1);
	bed_reopen(&bed);
	bed_holds(&bed, "new", "l", "w");
	bed_holds(&bed, "old", "k", NULL);
	bed_fini(&bed);
}

static void refused(void **state)
{
	char text[BTS_BUCKET_NAME_MAX + 2];
	struct bts_txn *txn;
	struct bed bed;
	bts_txid before;

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	bed_init_memory(&bed);
	bed_set(&bed, "a", "k", "1");
	bed_set(&bed, "b", "k", "2");
	before = bed_stat(&bed).txid;
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(name_as(txn, "a", "b"), BTS_EXISTS);
	assert_int_equal(name_as(txn, "a", "a"), BTS_EXISTS);
	assert_int_equal(name_as(txn, "c", "d"), BTS_NOT_FOUND);
	assert_int_equal(name_as(txn, "a", ""), BTS_INVALID);
	assert_int_equal(name_as(txn, "a", text), BTS_INVALID);
	bed_commit(&bed, txn);
	assert_int_equal(bed_stat(&bed).txid, before);
	text[BTS_BUCKET_NAME_MAX] = '\0';
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(name_as(txn, "a", text), BTS_OK);
	bed_commit(&bed, txn);
	bed_holds(&bed, text, "k", "1");
	bed_fini(&bed);
}

/* Names exchanged, made again, dropped under the new one; alone (0), replayed (1), in a group (2). */
static void chains(void **state)
{
	struct bts_group *group = NULL;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	for (int way = 0; way < 3; way++) {
		bed_init_memory(&bed);
		bed_set(&bed, "a", "k", "a");
		bed_set(&bed, "b", "k", "b");
		bed_set(&bed, "c", "k", "c");
		if (way == 2) {
			assert_int_equal(bts_group_begin(bed.db, &group, NULL), BTS_OK);
			assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
		} else {
			txn = bed_begin(&bed, BTS_WRITE);
		}
		assert_int_equal(name_as(txn, "a", "x"), BTS_OK); /* a and b exchanged */
		assert_int_equal(name_as(txn, "b", "a"), BTS_OK);
		assert_int_equal(name_as(txn, "x", "b"), BTS_OK);
		bed_put(txn, "a", "l", "in what was b");
		bed_put(txn, "b", "l", "in what was a");
		assert_int_equal(name_as(txn, "c", "d"), BTS_OK);
		bed_put(txn, "c", "k", "a new c");
		assert_int_equal(name_as(txn, "c", "e"), BTS_OK);
		bed_put(txn, "e", "l", "e");
		assert_int_equal(bts_bucket_drop(txn, bed_text("d"), NULL), BTS_OK);
		bed_put(txn, "d", "k", "a new d");
		if (way == 1)
			bed_set(&bed, "else", "k", "v");
		bed_commit(&bed, txn);
		if (way == 2)
			assert_int_equal(bts_group_commit(group, NULL), BTS_OK);
		bed_holds(&bed, "a", "k", "b");
		bed_holds(&bed, "a", "l", "in what was b");
		bed_holds(&bed, "b", "k", "a");
		bed_holds(&bed, "b", "l", "in what was a");
		bed_holds(&bed, "c", "k", NULL);
		bed_holds(&bed, "d", "k", "a new d");
		bed_holds(&bed, "e", "k", "a new c");
		bed_holds(&bed, "x", "k", NULL);
		assert_int_equal(bed_stat(&bed).buckets, way == 1 ? 5 : 4);
		bed_check(&bed);
		bed_fini(&bed);
	}
}

/* A handle of a bucket that was dropped stays useless, whatever gets its name. */
static void after_a_drop(void **state)
{
	struct bts_bucket *dropped;
	struct bts_slice value;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "a", "k", "a");
	bed_set(&bed, "b", "k", "b");
	txn = bed_begin(&bed, BTS_WRITE);
	dropped = bed_find(txn, "a");
	assert_int_equal(bts_bucket_drop(txn, bed_text("a"), NULL), BTS_OK);
	assert_int_equal(name_as(txn, "b", "a"), BTS_OK);
	assert_int_equal(bts_get(txn, dropped, bed_text("k"), &value), BTS_INVALID);
	bed_expect(txn, "a", "k", "b");
	bed_expect(txn, "b", "k", NULL);
	assert_int_equal(name_as(txn, "a", "c"), BTS_OK);
	bed_expect(txn, "a", "k", NULL);
	bed_put(txn, "a", "k", "again");
	bed_commit(&bed, txn);
	bed_holds(&bed, "a", "k", "again");
	bed_holds(&bed, "c", "k", "b");
	bed_fini(&bed);
}

/* All opened in one transaction: found by name, listed, renamed while the listing goes on. */
static void many(void **state)
{
	struct bts_slice after = {0};
	struct bts_bucket_info info;
	char name[BTS_BUCKET_NAME_MAX + 1], to[BTS_BUCKET_NAME_MAX + 1];
	struct bts_txn *txn;
	struct bed bed;
	unsigned count = 0;

	(void)state;
	bed_init_memory(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "a%06u", i);
		bed_put(txn, name, "k", name);
	}
	while (bts_bucket_next(txn, after, &info) == BTS_OK) {
		assert_int_equal(info.entries, 1);
		after = info.name;
		count++;
	}
	assert_int_equal(count, MANY);
	bed_commit(&bed, txn);
	txn = bed_begin(&bed, BTS_WRITE);
	count = 0;
	while (bts_bucket_next(txn, count ? bed_text(name) : (struct bts_slice){0}, &info) == BTS_OK &&
		*(const char *)info.name.data == 'a') {
		memcpy(name, info.name.data, info.name.size);
		name[info.name.size] = '\0';
		if (count++ % 10 != 0)
			continue;
		snprintf(to, sizeof(to), "b%s", name + 1);
		assert_int_equal(name_as(txn, name, to), BTS_OK);
	}
	assert_int_equal(count, MANY);
	bed_commit(&bed, txn);
	for (unsigned i = 0; i < MANY; i += 97) {
		snprintf(name, sizeof(name), "a%06u", i);
		snprintf(to, sizeof(to), "%c%06u", i % 10 ? 'a' : 'b', i);
		bed_holds(&bed, to, "k", name);
	}
	assert_int_equal(bed_stat(&bed).buckets, MANY);
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one),
		cmocka_unit_test(refused),
		cmocka_unit_test(chains),
		cmocka_unit_test(after_a_drop),
		cmocka_unit_test(many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
