/* The scenarios of the failure tests: see fail_scenario.h. */
#include "fail_scenario.h"

#include "cmocka.h"
#include <stdio.h>
#include <stdlib.h>

static uint8_t fail_bytes[3 << 20];

static struct bts_slice fail_text(const char *text)
{
	return (struct bts_slice){text, strlen(text)};
}

static struct bts_slice fail_number(char key[16], unsigned number)
{
	snprintf(key, 16, "key %06u", number);
	return fail_text(key);
}

static struct bts_slice fail_value(size_t size, unsigned salt)
{
	memset(fail_bytes, (int)salt, size);
	return (struct bts_slice){fail_bytes, size};
}

/* A call inside a scenario: an error ends it, unless it is lack of memory and shall be tried again. */
#define FAIL_TRY(bed, call)                                                                                  \
	do {                                                                                                 \
		err = (call);                                                                                \
		if (err == BTS_MEMORY && (bed)->again)                                                       \
			err = (call);                                                                        \
		if (err)                                                                                     \
			goto out;                                                                            \
	} while (0)

static void fail_armed(struct fail_bed *bed)
{
	if (bed->arm)
		bed->arm(bed, bed->mem);
}

/* Ends *txn whatever happens. */
static enum bts_err fail_commit(struct fail_bed *bed, struct bts_txn **txn)
{
	enum bts_err err = bts_commit(*txn, &bed->error);

	if (err == BTS_CONFLICT)
		return err;
	*txn = NULL;
	if (err == BTS_OK) {
		bed->commits++;
		if (bed->recording) {
			assert_true(bed->commits < FAIL_COMMITS);
			bed->hashes[bed->commits] = fail_hash(bed->db);
			bed->hash_count = bed->commits + 1;
		}
	}
	return err;
}

static enum bts_err fail_put(struct bts_txn *txn, struct bts_bucket *bucket, unsigned number, size_t size)
{
	char key[16];

	return bts_put(txn, bucket, fail_number(key, number), fail_value(size, number), 0);
}

static enum bts_err fail_del(struct bts_txn *txn, struct bts_bucket *bucket, unsigned number)
{
	char key[16];

	return bts_del(txn, bucket, fail_number(key, number));
}

static enum bts_err fail_bucket(
	struct fail_bed *bed, struct bts_txn *txn, const char *name, struct bts_bucket **bucket)
{
	return bts_bucket(txn, fail_text(name), BTS_CREATE, bucket, &bed->error);
}

static enum bts_err fail_puts(struct fail_bed *bed)
{
	struct bts_txn *txn = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;

	fail_armed(bed);
	FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &txn, &bed->error));
	FAIL_TRY(bed, fail_bucket(bed, txn, "small", &bucket));
	for (unsigned i = 0; i < 60; i++)
		FAIL_TRY(bed, fail_put(txn, bucket, i * 37 % 1000, 100 + i));
	err = fail_commit(bed, &txn);
out:
	bts_abort(txn);
	return err;
}

static enum bts_err fail_new_buckets(struct fail_bed *bed)
{
	struct bts_txn *txn = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;

	fail_armed(bed);
	FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &txn, &bed->error));
	for (unsigned i = 0; i < 12; i++) {
		char name[24];

		snprintf(name, sizeof(name), "new %u", i);
		FAIL_TRY(bed, fail_bucket(bed, txn, name, &bucket));
		FAIL_TRY(bed, bts_bucket_set_meta(txn, bucket, fail_text("application/json")));
		FAIL_TRY(bed, fail_put(txn, bucket, i, i * 10));
	}
	err = fail_commit(bed, &txn);
out:
	bts_abort(txn);
	return err;
}

static enum bts_err fail_large(struct fail_bed *bed)
{
	struct bts_txn *txn = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;

	fail_armed(bed);
	FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &txn, &bed->error));
	FAIL_TRY(bed, fail_bucket(bed, txn, "large", &bucket));
	FAIL_TRY(bed, fail_put(txn, bucket, 3, 300000)); /* there as a large value */
	FAIL_TRY(bed, fail_put(txn, bucket, 3, 5));
	FAIL_TRY(bed, fail_del(txn, bucket, 4));
	FAIL_TRY(bed, fail_put(txn, bucket, 100, 70000));
	FAIL_TRY(bed, fail_put(txn, bucket, 101, 20000));
	FAIL_TRY(bed, fail_del(txn, bucket, 101));
	err = fail_commit(bed, &txn);
out:
	bts_abort(txn);
	return err;
}

/* More than a manifest may name: two flushes. */
static enum bts_err fail_two_flushes(struct fail_bed *bed)
{
	struct bts_txn *txn = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;

	fail_armed(bed);
	FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &txn, &bed->error));
	FAIL_TRY(bed, fail_bucket(bed, txn, "large", &bucket));
	FAIL_TRY(bed, fail_put(txn, bucket, 200, sizeof(fail_bytes) - 100));
	err = fail_commit(bed, &txn);
out:
	bts_abort(txn);
	return err;
}

static enum bts_err fail_deletes(struct fail_bed *bed)
{
	struct bts_txn *txn = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;

	fail_armed(bed);
	FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &txn, &bed->error));
	FAIL_TRY(bed, fail_bucket(bed, txn, "small", &bucket));
	for (unsigned i = 0; i < 400; i++)
		FAIL_TRY(bed, fail_del(txn, bucket, i));
	err = fail_commit(bed, &txn);
out:
	bts_abort(txn);
	return err;
}

static enum bts_err fail_drop(struct fail_bed *bed)
{
	struct bts_txn *txn = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;

	fail_armed(bed);
	FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &txn, &bed->error));
	FAIL_TRY(bed, fail_bucket(bed, txn, "small", &bucket));
	FAIL_TRY(bed, fail_put(txn, bucket, 5000, 50000));
	FAIL_TRY(bed, bts_bucket_drop(txn, fail_text("small"), &bed->error));
	FAIL_TRY(bed, fail_bucket(bed, txn, "small", &bucket));
	FAIL_TRY(bed, fail_put(txn, bucket, 1, 1));
	FAIL_TRY(bed, bts_bucket_drop(txn, fail_text("large"), &bed->error));
	err = fail_commit(bed, &txn);
out:
	bts_abort(txn);
	return err;
}

/* Kept, read and let go, while the bucket that it holds is dropped. */
static enum bts_err fail_snapshots(struct fail_bed *bed)
{
	struct bts_txn *txn = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;

	fail_armed(bed);
	for (unsigned i = 0; i < 2; i++) {
		FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &txn, &bed->error));
		FAIL_TRY(bed, fail_bucket(bed, txn, "small", &bucket));
		FAIL_TRY(bed, fail_put(txn, bucket, 5000 + i, 100));
		if (i > 0) {
			FAIL_TRY(bed, bts_bucket_drop(txn, fail_text("small"), &bed->error));
			FAIL_TRY(bed, bts_snapshot_delete(txn, fail_text("a"), &bed->error));
		}
		FAIL_TRY(bed, bts_snapshot_create(txn, fail_text(i > 0 ? "b" : "a"), &bed->error));
		err = fail_commit(bed, &txn);
		if (err)
			goto out;
		FAIL_TRY(bed, bts_begin_at(bed->db, fail_text(i > 0 ? "b" : "a"), &txn, &bed->error));
		bts_abort(txn);
		txn = NULL;
	}
out:
	bts_abort(txn);
	return err;
}

static enum bts_err fail_group_end(struct fail_bed *bed, struct bts_group **group)
{
	enum bts_err err = bts_group_commit(*group, &bed->error);

	*group = NULL;
	if (err)
		return err;
	bed->commits++;
	if (bed->recording) {
		bed->hashes[bed->commits] = fail_hash(bed->db);
		bed->hash_count = bed->commits + 1;
	}
	return BTS_OK;
}

/* Three transactions: kept, abandoned with a drop, kept. */
static enum bts_err fail_group(struct fail_bed *bed)
{
	struct bts_group *group = NULL;
	struct bts_txn *txn = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;

	fail_armed(bed);
	FAIL_TRY(bed, bts_group_begin(bed->db, &group, &bed->error));
	for (unsigned i = 0; i < 3; i++) {
		FAIL_TRY(bed, bts_group_txn(group, &txn, &bed->error));
		FAIL_TRY(bed, fail_bucket(bed, txn, "small", &bucket));
		for (unsigned k = 0; k < 20; k++)
			FAIL_TRY(bed, fail_put(txn, bucket, i * 100 + k, k * 40));
		FAIL_TRY(bed, fail_put(txn, bucket, i, 9000));
		if (i == 1) {
			FAIL_TRY(bed, bts_bucket_drop(txn, fail_text("small"), &bed->error));
			FAIL_TRY(bed, fail_bucket(bed, txn, "other", &bucket));
			bts_abort(txn);
		} else {
			err = bts_commit(txn, &bed->error);
		}
		txn = NULL;
		if (err)
			goto out;
	}
	err = fail_group_end(bed, &group);
out:
	bts_abort(txn);
	bts_group_abort(group);
	return err;
}

static enum bts_err fail_cursor(struct fail_bed *bed)
{
	struct bts_cursor *cursor = NULL;
	struct bts_bucket_info info;
	struct bts_txn *txn = NULL;
	struct bts_bucket *bucket;
	struct bts_slice key;
	enum bts_err err;

	fail_armed(bed);
	FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &txn, &bed->error));
	FAIL_TRY(bed, fail_bucket(bed, txn, "small", &bucket));
	FAIL_TRY(bed, bts_cursor_open(txn, bucket, &cursor, &bed->error));
	for (unsigned i = 0; i < 30; i++) {
		FAIL_TRY(bed, bts_cursor_next(cursor, &key, NULL));
		FAIL_TRY(bed, fail_put(txn, bucket, i * 20, 300));
		FAIL_TRY(bed, bts_bucket_next(txn, (struct bts_slice){0}, &info));
	}
	bts_cursor_close(cursor);
	err = fail_commit(bed, &txn);
out:
	bts_abort(txn);
	return err;
}

/* Somebody else commits between: on the same key (refresh and once more) or on another one (replay). */
static enum bts_err fail_overtaken(struct fail_bed *bed, unsigned theirs)
{
	struct bts_txn *txn = NULL, *other = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;

	FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &txn, &bed->error));
	FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &other, &bed->error));
	FAIL_TRY(bed, fail_bucket(bed, other, "small", &bucket));
	FAIL_TRY(bed, fail_put(other, bucket, theirs, 77));
	fail_armed(bed);
	FAIL_TRY(bed, fail_bucket(bed, txn, "small", &bucket));
	FAIL_TRY(bed, fail_put(txn, bucket, 7, 66));
	FAIL_TRY(bed, fail_put(txn, bucket, 8, 6666));
	FAIL_TRY(bed, fail_del(txn, bucket, 9));
	err = fail_commit(bed, &other);
	if (err == BTS_OK)
		err = fail_commit(bed, &txn);
	if (err == BTS_CONFLICT) {
		FAIL_TRY(bed, bts_refresh(txn, &bed->error));
		FAIL_TRY(bed, fail_bucket(bed, txn, "small", &bucket));
		FAIL_TRY(bed, fail_put(txn, bucket, 7, 55));
		err = fail_commit(bed, &txn);
	}
out:
	bts_abort(txn);
	bts_abort(other);
	return err;
}

static enum bts_err fail_conflict(struct fail_bed *bed)
{
	return fail_overtaken(bed, 7);
}

static enum bts_err fail_replay(struct fail_bed *bed)
{
	return fail_overtaken(bed, 700);
}

static enum bts_err fail_range(struct bts_txn *txn, struct bts_bucket *bucket, unsigned from, unsigned to)
{
	char low[16], high[16];

	return bts_del_range(txn, bucket, fail_number(low, from), fail_number(high, to), NULL);
}

/* Ranges, renamings and savepoints that are kept, undone and left open. */
static enum bts_err fail_rework(struct fail_bed *bed, struct bts_txn *txn)
{
	struct bts_bucket *small, *large;
	uint32_t outer, inner;
	enum bts_err err;

	FAIL_TRY(bed, fail_bucket(bed, txn, "small", &small));
	FAIL_TRY(bed, fail_bucket(bed, txn, "large", &large));
	FAIL_TRY(bed, fail_range(txn, small, 100, 300));
	FAIL_TRY(bed, bts_savepoint(txn, &outer, &bed->error));
	FAIL_TRY(bed, fail_range(txn, large, 2, 4));
	FAIL_TRY(bed, fail_range(txn, small, 310, 950));
	FAIL_TRY(bed, bts_bucket_rename(txn, fail_text("small"), fail_text("renamed"), &bed->error));
	FAIL_TRY(bed, bts_savepoint(txn, &inner, &bed->error));
	FAIL_TRY(bed, fail_put(txn, small, 400, 9000));
	FAIL_TRY(bed, fail_bucket(bed, txn, "small", &small));
	FAIL_TRY(bed, fail_put(txn, small, 1, 10));
	FAIL_TRY(bed, bts_savepoint_rollback(txn, inner, &bed->error));
	FAIL_TRY(bed, fail_bucket(bed, txn, "renamed", &small));
	FAIL_TRY(bed, fail_put(txn, small, 500, 100));
	FAIL_TRY(bed, bts_savepoint_release(txn, inner, &bed->error));
	FAIL_TRY(bed, bts_savepoint_rollback(txn, outer, &bed->error));
	FAIL_TRY(bed, fail_put(txn, small, 320, 100));
	FAIL_TRY(bed, bts_bucket_rename(txn, fail_text("large"), fail_text("larger"), &bed->error));
	FAIL_TRY(bed, fail_range(txn, large, 1, 3));
out:
	return err;
}

/* Alone, made again on what somebody else committed, and by two transactions of a group, one abandoned. */
static enum bts_err fail_reworks(struct fail_bed *bed, bool overtaken)
{
	struct bts_txn *txn = NULL, *other = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;

	FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE | BTS_SERIALIZABLE, &txn, &bed->error));
	if (overtaken) {
		FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &other, &bed->error));
		FAIL_TRY(bed, fail_bucket(bed, other, "other", &bucket));
		FAIL_TRY(bed, fail_put(other, bucket, 7, 77));
		err = fail_commit(bed, &other);
		if (err)
			goto out;
	}
	fail_armed(bed);
	err = fail_rework(bed, txn);
	if (err)
		goto out;
	err = fail_commit(bed, &txn);
out:
	bts_abort(txn);
	bts_abort(other);
	return err;
}

static enum bts_err fail_rework_alone(struct fail_bed *bed)
{
	return fail_reworks(bed, false);
}

static enum bts_err fail_rework_overtaken(struct fail_bed *bed)
{
	return fail_reworks(bed, true);
}

static enum bts_err fail_rework_group(struct fail_bed *bed)
{
	struct bts_group *group = NULL;
	struct bts_txn *txn = NULL;
	enum bts_err err;

	fail_armed(bed);
	FAIL_TRY(bed, bts_group_begin(bed->db, &group, &bed->error));
	for (unsigned i = 0; i < 2; i++) {
		FAIL_TRY(bed, bts_group_txn(group, &txn, &bed->error));
		err = fail_rework(bed, txn);
		if (err)
			goto out;
		if (i == 1)
			err = bts_commit(txn, &bed->error);
		else
			bts_abort(txn);
		txn = NULL;
		if (err)
			goto out;
	}
	err = fail_group_end(bed, &group);
out:
	bts_abort(txn);
	bts_group_abort(group);
	return err;
}

/* Enough commits for the history and the free log to go through their turns, while a reader keeps pages. */
static enum bts_err fail_churn(struct fail_bed *bed)
{
	struct bts_txn *txn = NULL, *reader = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;

	fail_armed(bed);
	FAIL_TRY(bed, bts_begin(bed->db, BTS_READ, &reader, &bed->error));
	for (unsigned i = 0; i < 60; i++) {
		FAIL_TRY(bed, bts_begin(bed->db, BTS_WRITE, &txn, &bed->error));
		FAIL_TRY(bed, fail_bucket(bed, txn, "small", &bucket));
		for (unsigned k = 0; k < 8; k++)
			FAIL_TRY(bed, fail_put(txn, bucket, (i * 83 + k * 127) % 1000, 100 + k));
		err = fail_commit(bed, &txn);
		if (err)
			goto out;
		if (i == 30) {
			bts_abort(reader);
			reader = NULL;
		}
	}
out:
	bts_abort(reader);
	bts_abort(txn);
	return err;
}

static enum bts_err fail_reopen(struct fail_bed *bed)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	enum bts_err err;

	bts_close(bed->db);
	bed->db = NULL;
	fail_armed(bed);
	FAIL_TRY(bed, fail_open(bed));
	FAIL_TRY(bed, bts_stat(bed->db, &stat, &bed->error));
	err = bts_check(bed->db, NULL, &bed->error);
	if (err == BTS_CORRUPT) /* a page that cannot be read is a finding too */
		err = BTS_IO;
	if (err)
		goto out;
	err = fail_puts(bed);
	if (bed->db && err == BTS_OK) {
		bts_close(bed->db);
		bed->db = NULL;
	}
out:
	return err;
}

const struct fail_named fail_scenarios[] = {
	{"puts", fail_puts},
	{"new buckets", fail_new_buckets},
	{"large values", fail_large},
	{"a commit of two flushes", fail_two_flushes},
	{"deletes", fail_deletes},
	{"drop", fail_drop},
	{"named snapshots", fail_snapshots},
	{"group", fail_group},
	{"cursor", fail_cursor},
	{"conflict", fail_conflict},
	{"replay", fail_replay},
	{"ranges, names, savepoints", fail_rework_alone},
	{"the same, overtaken", fail_rework_overtaken},
	{"the same in a group", fail_rework_group},
	{"pieces, loads, exclusive", fail_pieces},
	{"two handles in turns", fail_turns},
	{"differences", fail_diff},
	{"churn", fail_churn},
	{"reopen", fail_reopen},
};
const unsigned fail_scenario_count = sizeof(fail_scenarios) / sizeof(*fail_scenarios);

enum bts_err fail_open(struct fail_bed *bed)
{
	struct bts_options options;

	bts_options_init(&options);
	options.env = env_mem_env(bed->mem);
	options.map_bytes = 64 << 20;
	return bts_open(FAIL_PATH, &options, &bed->db, &bed->error);
}

struct env_mem *fail_base(void)
{
	struct fail_bed bed = {.mem = env_mem_new(64 << 20)};
	struct bts_bucket *small, *large;
	struct bts_txn *txn;

	assert_int_equal(fail_open(&bed), BTS_OK);
	for (unsigned i = 0; i < 1000; i++) {
		if (i % 50 == 0) {
			assert_int_equal(bts_begin(bed.db, BTS_WRITE, &txn, NULL), BTS_OK);
			assert_int_equal(fail_bucket(&bed, txn, "small", &small), BTS_OK);
			assert_int_equal(fail_bucket(&bed, txn, "large", &large), BTS_OK);
		}
		assert_int_equal(fail_put(txn, small, i, 80 + i % 40), BTS_OK);
		if (i < 6)
			assert_int_equal(fail_put(txn, large, i, 30000 * i), BTS_OK);
		if (i % 50 == 49)
			assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	}
	bts_close(bed.db);
	assert_int_equal(env_mem_counters(bed.mem)->live_blocks, 0);
	return bed.mem;
}

static uint64_t fail_mix(uint64_t hash, struct bts_slice bytes)
{
	const uint8_t *p = bytes.data;

	hash = (hash ^ bytes.size) * UINT64_C(0x100000001b3);
	for (size_t i = 0; i < bytes.size; i++)
		hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
	return hash;
}

uint64_t fail_hash(struct bts *db)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	struct bts_slice after = {0}, key, value;
	struct bts_bucket_info info;
	struct bts_cursor *cursor;
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	enum bts_err err;

	assert_int_equal(bts_begin(db, BTS_READ, &txn, NULL), BTS_OK);
	while ((err = bts_bucket_next(txn, after, &info)) == BTS_OK) {
		hash = fail_mix(fail_mix(hash, info.name), info.meta);
		after = info.name;
		assert_int_equal(bts_bucket(txn, after, 0, &bucket, NULL), BTS_OK);
		assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
		while ((err = bts_cursor_next(cursor, &key, &value)) == BTS_OK)
			hash = fail_mix(fail_mix(hash, key), value);
		assert_int_equal(err, BTS_NOT_FOUND);
		bts_cursor_close(cursor);
	}
	assert_int_equal(err, BTS_NOT_FOUND);
	bts_abort(txn);
	return hash;
}

void fail_record(struct fail_bed *bed, const struct env_mem *base, fail_scenario *run)
{
	struct fail_bed quiet = {.mem = env_mem_clone(base), .recording = true};

	assert_int_equal(fail_open(&quiet), BTS_OK);
	quiet.hashes[0] = fail_hash(quiet.db);
	quiet.hash_count = 1;
	assert_int_equal(run(&quiet), BTS_OK);
	bts_close(quiet.db);
	env_mem_free(quiet.mem);
	memcpy(bed->hashes, quiet.hashes, sizeof(bed->hashes));
	bed->hash_count = quiet.hash_count;
}

static void fail_report(void *arg, bts_pgno page, const char *text)
{
	(void)arg;
	fprintf(stderr, "check: page %llu: %s\n", (unsigned long long)page, text);
}

void fail_sound(struct bts *db)
{
	struct bts_check_options options = {.report = fail_report};
	struct bts_error error = {0};

	if (bts_check(db, &options, &error))
		fail_msg("check: %s", error.text);
}
