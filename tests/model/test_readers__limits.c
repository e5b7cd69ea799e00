/*
 * Who reads and what it costs: the list of readers against what the two snapshots reach, found by walking them; limits,
 * the callback, and that a reader told to end loses nothing but its next call.
 */
#include "bed.h"

#include "db.h"
#include <btree_store/ship.h>

#define KEYS 400
#define SEEN_MAX 16

struct seen {
	struct bts_reader_info info[SEEN_MAX];
	unsigned count;
};

static void seen_add(void *arg, const struct bts_reader_info *info)
{
	struct seen *seen = arg;

	assert_true(seen->count < SEEN_MAX);
	seen->info[seen->count++] = *info;
}

static struct seen list(struct bts *db)
{
	struct bts_error error;
	struct seen seen = {.count = 0};

	if (bts_readers(db, seen_add, &seen, &error))
		fail_msg("readers: %s", error.text);
	return seen;
}

static void put_number(struct bed *bed, struct bts_txn *txn, unsigned number, unsigned round, size_t size)
{
	static uint8_t bytes[40000];
	char key[16];

	(void)bed;
	snprintf(key, sizeof(key), "%06u", number);
	memset(bytes, (int)round, size);
	assert_int_equal(
		bts_put(txn, bed_bucket(txn, "b"), bed_text(key), (struct bts_slice){bytes, size}, 0),
		BTS_OK);
}

static void fill(struct bed *bed)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);

	for (unsigned i = 0; i < KEYS; i++)
		put_number(bed, txn, i, 1, i % 50 == 0 ? 40000 : 60);
	bed_commit(bed, txn);
}

/* Some keys anew, in a few commits: what they replace is what an old snapshot costs. */
static void change(struct bed *bed, unsigned round)
{
	for (unsigned commit = 0; commit < 5; commit++) {
		struct bts_txn *txn = bed_begin(bed, BTS_WRITE);

		for (unsigned i = commit; i < KEYS; i += 37 + round % 5)
			put_number(bed, txn, i, round, i % 3 == 0 ? 9000 : 70);
		bed_commit(bed, txn);
	}
}

/* One bit a page that the newest commit reaches. */
struct reach {
	uint8_t pages[1 << 16];
};

static struct reach *reach_new(struct bts *db)
{
	struct reach *reach = calloc(1, sizeof(*reach));
	struct bts_page_id id;
	struct bts_slice bytes;
	struct bts_walk *walk;
	enum bts_err err;

	assert_int_equal(bts_walk_open(db, 0, &walk, NULL), BTS_OK);
	while ((err = bts_walk_next(walk, &id, &bytes, NULL)) == BTS_OK)
		for (uint32_t i = 0; i < id.count; i++) {
			assert_true(id.pgno + i < sizeof(reach->pages));
			reach->pages[id.pgno + i] = 1;
		}
	assert_int_equal(err, BTS_NOT_FOUND);
	bts_walk_close(walk);
	return reach;
}

static uint64_t reach_without(const struct reach *then, const struct reach *now)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < sizeof(then->pages); i++)
		pages += then->pages[i] && !now->pages[i];
	return pages;
}

static void test_held_is_exact(void **state)
{
	struct bts_txn *first, *second, *again;
	struct reach *at_first, *at_second, *now;
	uint64_t both = 0;
	struct bed bed;
	struct bts *other;
	struct seen seen;

	(void)state;
	bed_init_memory(&bed);
	assert_int_equal(list(bed.db).count, 0);
	fill(&bed);
	first = bed_begin(&bed, BTS_READ);
	again = bed_begin(&bed, BTS_WRITE);
	at_first = reach_new(bed.db);
	assert_int_equal(list(bed.db).info[0].held_pages, 0);
	env_mem_advance(bed.mem, 1500);
	change(&bed, 2);
	second = bed_begin(&bed, BTS_READ);
	at_second = reach_new(bed.db);
	change(&bed, 3);
	now = reach_new(bed.db);
	/* Told the same by a process that only reads. */
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_READ_ONLY, &other), BTS_OK);
	for (int i = 0; i < 2; i++) {
		seen = list(i ? other : bed.db);
		assert_int_equal(seen.count, 3);
		assert_int_equal(seen.info[0].txid, bts_txn_id(first));
		assert_int_equal(seen.info[0].age_ms, 1500);
		assert_int_equal(seen.info[0].own, !i);
		assert_int_equal(seen.info[0].expired, 0);
		assert_int_equal(seen.info[0].held_pages, reach_without(at_first, now));
		assert_int_equal(seen.info[0].held_bytes, 4096 * seen.info[0].held_pages);
		assert_memory_equal(&seen.info[0], &seen.info[1], sizeof(seen.info[0]));
		assert_int_equal(seen.info[2].txid, bts_txn_id(second));
		assert_int_equal(seen.info[2].age_ms, 0);
		assert_int_equal(seen.info[2].held_pages, reach_without(at_second, now));
		assert_true(seen.info[0].held_pages > 20 && seen.info[2].held_pages > 20);
	}
	for (size_t i = 0; i < sizeof(now->pages); i++)
		both += (at_first->pages[i] || at_second->pages[i]) && !now->pages[i];
	assert_int_equal(bed_stat(&bed).pinned_pages, both);
	assert_int_equal(bed_stat(&bed).oldest_reader, bts_txn_id(first));
	assert_int_equal(bed_stat(&bed).readers, 3);
	bts_close(other);
	bts_abort(first);
	bts_abort(second);
	bts_abort(again);
	assert_int_equal(bed_stat(&bed).pinned_pages, 0);
	free(at_first);
	free(at_second);
	free(now);
	bed_fini(&bed);
}

struct judge {
	int verdict;
	unsigned calls;
	struct bts_reader_info last;
};

static int judge_reader(void *arg, const struct bts_reader_info *info)
{
	struct judge *judge = arg;

	judge->calls++;
	judge->last = *info;
	return judge->verdict;
}

static void open_limited(struct bed *bed, uint64_t pages, uint64_t age, struct judge *judge)
{
	struct bts_options options;

	memset(bed, 0, sizeof(*bed));
	bed->mem = env_mem_new(0);
	strcpy(bed->path, "/db");
	bts_options_init(&options);
	options.map_bytes = ENV_MEM_RESERVE_DEFAULT;
	options.env = env_mem_env(bed->mem);
	options.reader_pages_max = pages;
	options.reader_age_max_ms = age;
	if (judge) {
		options.on_reader = judge_reader;
		options.on_reader_arg = judge;
	}
	assert_int_equal(bts_open(bed->path, &options, &bed->db, &bed->error), BTS_OK);
}

/* A commit, so much later that readers are looked at again. */
static void change_later(struct bed *bed, unsigned round, uint64_t ms)
{
	env_mem_advance(bed->mem, ms);
	change(bed, round);
}

static void test_callback_decides(void **state)
{
	struct judge judge = {.verdict = BTS_READER_KEEP};
	struct bts_txn *reader;
	struct bts_slice value;
	struct bed bed;

	(void)state;
	open_limited(&bed, 20, 0, &judge);
	fill(&bed);
	reader = bed_begin(&bed, BTS_READ);
	assert_int_equal(judge.calls, 0);
	change_later(&bed, 2, 300);
	change_later(&bed, 3, 300);
	assert_int_equal(judge.calls, 1);
	assert_int_equal(judge.last.txid, bts_txn_id(reader));
	assert_true(judge.last.held_pages > 20);
	change_later(&bed, 4, 300); /* not again within a second */
	assert_int_equal(judge.calls, 1);
	change_later(&bed, 5, 1000);
	assert_int_equal(judge.calls, 2);
	assert_int_equal(bts_get(reader, bed_find(reader, "b"), bed_text("000001"), &value), BTS_OK);
	judge.verdict = BTS_READER_EXPIRE;
	change_later(&bed, 6, 1000);
	assert_int_equal(judge.calls, 3);
	assert_int_equal(
		bts_bucket_next(reader, (struct bts_slice){0}, &(struct bts_bucket_info){.depth = 0}),
		BTS_EXPIRED);
	assert_int_equal(list(bed.db).info[0].expired, 1);
	change_later(&bed, 7, 5000); /* it has been told */
	assert_int_equal(judge.calls, 3);
	bts_abort(reader);
	reader = bed_begin(&bed, BTS_READ); /* in the same slot */
	assert_int_equal(bts_get(reader, bed_find(reader, "b"), bed_text("000001"), &value), BTS_OK);
	assert_int_equal(list(bed.db).info[0].expired, 0);
	bts_abort(reader);
	bed_fini(&bed);
}

/* Without a callback a limit means the end; what was borrowed stays whole for as long as the transaction is there. */
static void test_expired_reader_is_not_robbed(void **state)
{
	struct bts_slice value, key, large;
	struct bts_bucket_info info;
	struct bts_cursor *cursor;
	struct bts_bucket *bucket;
	struct bts_diff *diff;
	struct bts_txn *reader;
	struct bed bed;

	(void)state;
	open_limited(&bed, 0, 2000, NULL);
	fill(&bed);
	reader = bed_begin(&bed, BTS_READ);
	bucket = bed_find(reader, "b");
	assert_int_equal(bts_get(reader, bucket, bed_text("000007"), &value), BTS_OK);
	assert_int_equal(bts_get(reader, bucket, bed_text("000050"), &large), BTS_OK);
	assert_int_equal(bts_cursor_open(reader, bucket, &cursor, NULL), BTS_OK);
	change_later(&bed, 2, 1900);
	assert_int_equal(bts_cursor_first(cursor, &key, NULL), BTS_OK);
	for (unsigned round = 3; round < 20; round++)
		change_later(&bed, round, 300);
	assert_int_equal(bts_get(reader, bucket, bed_text("000007"), &key), BTS_EXPIRED);
	assert_int_equal(bts_txn_error(reader)->code, BTS_EXPIRED);
	assert_string_equal(bts_err_name(BTS_EXPIRED), "snapshot-expired");
	assert_int_equal(bts_cursor_next(cursor, &key, NULL), BTS_EXPIRED);
	assert_int_equal(bts_bucket(reader, bed_text("b"), 0, &bucket, NULL), BTS_EXPIRED);
	assert_int_equal(bts_bucket_info(reader, bucket, &info), BTS_EXPIRED);
	assert_int_equal(bts_cursor_open(reader, bucket, &cursor, NULL), BTS_EXPIRED);
	assert_int_equal(bts_diff_open(NULL, reader, NULL, &diff, NULL), BTS_EXPIRED);
	assert_int_equal(value.size, 60);
	for (size_t i = 0; i < value.size; i++)
		assert_int_equal(((const uint8_t *)value.data)[i], 1);
	assert_int_equal(large.size, 40000);
	for (size_t i = 0; i < large.size; i++)
		assert_int_equal(((const uint8_t *)large.data)[i], 1);
	assert_true(bed_stat(&bed).pinned_pages > 0);
	bts_abort(reader);
	bed_fini(&bed);
}

/* The limits of one process end the readers of another; write transactions are readers too. */
static void test_other_process(void **state)
{
	struct bts_txn *reader, *writer, *committing;
	struct bts_slice value;
	struct bts *other;
	struct bed bed;

	(void)state;
	open_limited(&bed, 20, 0, NULL);
	fill(&bed);
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_READ_ONLY, &other), BTS_OK);
	assert_int_equal(bts_begin(other, BTS_READ, &reader, NULL), BTS_OK);
	writer = bed_begin(&bed, BTS_WRITE);
	put_number(&bed, writer, KEYS + 1, 1, 10);
	committing = bed_begin(&bed, BTS_WRITE);
	put_number(&bed, committing, KEYS + 2, 1, 10);
	change_later(&bed, 2, 300);
	change_later(&bed, 3, 300);
	change_later(&bed, 4, 300);
	assert_int_equal(
		bts_bucket(reader, bed_text("b"), 0, &(struct bts_bucket *){NULL}, NULL), BTS_EXPIRED);
	bts_abort(reader);
	bts_close(other);
	assert_int_equal(
		bts_bucket(writer, bed_text("b"), 0, &(struct bts_bucket *){NULL}, NULL), BTS_EXPIRED);
	assert_int_equal(bts_bucket_drop(writer, bed_text("b"), NULL), BTS_EXPIRED);
	assert_int_equal(bts_refresh(writer, NULL), BTS_OK);
	put_number(&bed, writer, KEYS + 1, 2, 10);
	bed_commit(&bed, writer);
	bed_commit(&bed, committing); /* what was done before may still be committed */
	reader = bed_begin(&bed, BTS_READ);
	for (unsigned i = 1; i <= 2; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%06u", KEYS + i);
		assert_int_equal(bts_get(reader, bed_find(reader, "b"), bed_text(key), &value), BTS_OK);
		assert_int_equal(*(const uint8_t *)value.data, i == 1 ? 2 : 1);
	}
	bts_abort(reader);
	bed_fini(&bed);
}

/* Every allocation failing in turn: an error, nothing lost, nothing told; a commit does not fail for the limits. */
static void test_no_memory(void **state)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_error error;
	struct bts_txn *reader;
	struct seen seen;
	struct bed bed;
	unsigned failures = 0;
	enum bts_err err;

	(void)state;
	open_limited(&bed, 1, 0, NULL);
	fill(&bed);
	reader = bed_begin(&bed, BTS_READ);
	change(&bed, 2);
	for (unsigned n = 1;; n++) {
		memset(&seen, 0, sizeof(seen));
		env_mem_fail_memory(bed.mem, n, 0);
		err = n % 2 ? bts_readers(bed.db, seen_add, &seen, &error) : bts_stat(bed.db, &stat, &error);
		if (err == BTS_OK && env_mem_failed(bed.mem) == failures)
			break;
		failures = (unsigned)env_mem_failed(bed.mem);
		assert_int_equal(err, BTS_MEMORY);
		assert_int_equal(error.code, BTS_MEMORY);
		assert_int_equal(seen.count, 0);
		env_mem_fail_clear(bed.mem);
	}
	env_mem_fail_clear(bed.mem);
	assert_true(failures > 8);
	env_mem_advance(bed.mem, 300);
	for (unsigned n = 1; n <= 12; n++) {
		env_mem_advance(bed.mem, 300);
		env_mem_fail_memory(bed.mem, n, 0);
		readers_enforce(bed.db);
		env_mem_fail_clear(bed.mem);
	}
	env_mem_advance(bed.mem, 300);
	readers_enforce(bed.db);
	assert_int_equal(
		bts_bucket(reader, bed_text("b"), 0, &(struct bts_bucket *){NULL}, NULL), BTS_EXPIRED);
	bts_abort(reader);
	bed_fini(&bed);
}

/*
 * The last reader of a snapshot leaves while it is measured, and what the snapshot's free log stood on is overwritten: at
 * whichever allocation that happens, it is no damage.
 */
static struct {
	struct bts_env_ops ops;
	const struct bts_env_ops *real;
	struct bed *bed;
	struct bts_txn *reader;
	unsigned countdown; /* allocations until then; 0: never */
} leaving;

#define SCATTERED 12000
/* A page here and a page there: a free set of so many runs that it fills pages of its own. */
static void scatter(struct bed *bed, unsigned round)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);

	for (unsigned i = round * 7 % 80; i < SCATTERED; i += 80)
		put_number(bed, txn, i, round, 60);
	bed_commit(bed, txn);
}

/* Until the free log is written anew: a snapshot from before it has a log of its own. */
static void scatter_until_condensed(struct bed *bed)
{
	struct commit_record *record = malloc(sizeof(*record));
	unsigned round = 0;
	uint32_t generation;

	shared_head(bed->db->shared, record);
	generation = record->free.generation;
	for (; round < 500 && record->free.generation == generation; round++) {
		scatter(bed, round);
		shared_head(bed->db->shared, record);
	}
	assert_true(record->free.generation != generation);
	free(record);
}

static void *leaving_memory(struct bts_env *env, void *old, size_t size)
{
	if (size > 0 && leaving.countdown > 0 && --leaving.countdown == 0) {
		bts_abort(leaving.reader);
		for (unsigned round = 0; round < 10; round++)
			scatter(leaving.bed, round);
	}
	return leaving.real->memory(env, old, size);
}

static int no_flush(struct bts_file *file)
{
	(void)file;
	return 0;
}

static void test_leaves_while_measured(void **state)
{
	struct bts_env env = {&leaving.ops};
	struct bts_options options;
	struct bts_error error;
	struct bts_txn *txn;
	struct seen seen;
	struct bed bed;
	unsigned at = 1;

	(void)state;
	bed_init_file(&bed);
	bts_close(bed.db);
	leaving.real = bts_env_posix()->ops;
	leaving.ops = *leaving.real;
	leaving.ops.memory = leaving_memory;
	leaving.bed = &bed;
	leaving.ops.file_sync = no_flush;
	bts_options_init(&options);
	options.env = &env;
	assert_int_equal(bts_open(bed.path, &options, &bed.db, &bed.error), BTS_OK);
	txn = bed_begin(&bed, BTS_WRITE);
	for (unsigned i = 0; i < SCATTERED; i++)
		put_number(&bed, txn, i, 1, 60);
	bed_commit(&bed, txn);
	scatter(&bed, 1);
	for (;; at += 3) {
		leaving.reader = bed_begin(&bed, BTS_READ);
		scatter_until_condensed(&bed);
		memset(&seen, 0, sizeof(seen));
		leaving.countdown = at;
		if (bts_readers(bed.db, seen_add, &seen, &error))
			fail_msg("readers: %s", error.text);
		if (leaving.countdown > 0)
			break;
		assert_true(seen.count <= 1);
	}
	leaving.countdown = 0;
	assert_int_equal(seen.count, 1);
	assert_true(at > 5);
	bts_abort(leaving.reader);
	bed_fini(&bed);
}

/* A process that stops while it holds up commits is named. */
static void test_stopped_owner(void **state)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_group *group;
	struct bts *other;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	fill(&bed);
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_READ_ONLY, &other), BTS_OK);
	assert_int_equal(bts_group_begin(bed.db, &group, &bed.error), BTS_OK);
	env_mem_advance(bed.mem, 900);
	assert_int_equal(bts_stat(other, &stat, NULL), BTS_OK);
	assert_int_equal(stat.stuck_pid, 0);
	env_mem_advance(bed.mem, 600);
	assert_int_equal(bts_stat(other, &stat, NULL), BTS_OK);
	assert_int_equal(stat.stuck_pid, env_mem_env(bed.mem)->ops->process_id(env_mem_env(bed.mem)));
	assert_int_equal(stat.stuck_ms, 1500);
	bts_group_abort(group);
	assert_int_equal(bts_stat(other, &stat, NULL), BTS_OK);
	assert_int_equal(stat.stuck_pid, 0);
	bts_close(other);
	bed_fini(&bed);
}

static void test_bucket_stat(void **state)
{
	struct bts_bucket_stat stat = {.size = sizeof(stat)};
	struct bts_bucket_info info;
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	fill(&bed);
	for (int writing = 0; writing < 2; writing++) {
		txn = bed_begin(&bed, writing ? BTS_WRITE : BTS_READ);
		for (unsigned i = 0; writing && i < 2 * KEYS; i += 3)
			put_number(&bed, txn, KEYS + i, 4, i % 30 == 0 ? 5000 : 100);
		bucket = bed_find(txn, "b");
		assert_int_equal(bts_bucket_info(txn, bucket, &info), BTS_OK);
		assert_int_equal(bts_bucket_stat(txn, bucket, &stat), BTS_OK);
		assert_int_equal(stat.entries, info.entries);
		assert_int_equal(stat.bytes, info.bytes);
		assert_int_equal(stat.depth, info.depth);
		assert_int_equal(stat.leaf_pages + stat.branch_pages, info.pages);
		assert_true(stat.depth > 1 && stat.branch_pages >= 1);
		/* Each entry: a slot of 8, a cell of 8, key, value. */
		assert_int_equal(stat.leaf_bytes_used,
			stat.entries * 16 + stat.bytes - stat.large_bytes + 24 * stat.large_values);
		assert_int_equal(stat.leaf_bytes, stat.leaf_pages * (4096 - 48));
		assert_true(stat.branch_bytes_used > 0 && stat.branch_bytes_used < stat.branch_bytes);
		assert_int_equal(stat.large_values, writing ? 8 + 27 : 8);
		assert_int_equal(stat.large_bytes, writing ? 8 * 40000 + 27 * 5000 : 8 * 40000);
		assert_int_equal(stat.large_pages, writing ? 8 * 11 + 27 * 3 : 8 * 11);
		bts_abort(txn);
	}
	txn = bed_begin(&bed, BTS_WRITE);
	bucket = bed_bucket(txn, "empty");
	stat.size = sizeof(size_t) + sizeof(uint64_t); /* a caller of an older header */
	stat.bytes = 77;
	assert_int_equal(bts_bucket_stat(txn, bucket, &stat), BTS_OK);
	assert_int_equal(stat.entries, 0);
	assert_int_equal(stat.bytes, 77);
	stat.size = 0;
	assert_int_equal(bts_bucket_stat(txn, bucket, &stat), BTS_INVALID);
	bts_abort(txn);
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_held_is_exact),
		cmocka_unit_test(test_callback_decides),
		cmocka_unit_test(test_expired_reader_is_not_robbed),
		cmocka_unit_test(test_other_process),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_leaves_while_measured),
		cmocka_unit_test(test_stopped_owner),
		cmocka_unit_test(test_bucket_stat),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
