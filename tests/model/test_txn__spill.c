/*
 * Transactions larger than memory: they spill into a temporary file, their memory stays bounded, and whatever ends them,
 * nothing is left.
 */
#include "bed.h"

#include "count.h"

#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <sys/wait.h>

enum {
	LIMIT = 1 << 20,
	ROUND = 2002, /* puts; a multiple of 7, see spill_write */
	ROUNDS = 6,
	LARGE_EVERY = 500 /* puts to a large value */
};

static void spill_open(struct bed *bed, struct bts_env *env)
{
	struct bts_options options;

	bts_options_init(&options);
	options.map_bytes = bed->mem ? (uint64_t)ENV_MEM_RESERVE_DEFAULT : UINT64_C(1) << 34;
	options.txn_memory = LIMIT;
	options.env = env;
	if (bts_open(bed->path, &options, &bed->db, &bed->error))
		fail_msg("open: %s", bed->error.text);
}

/* On the file system, with the counting environment. */
static void spill_init(struct bed *bed)
{
	bed_init_file(bed);
	bts_close(bed->db);
	count_begin();
	spill_open(bed, &count_env);
}

static uint32_t spill_key(char key[32], unsigned number)
{
	uint32_t scattered = number * 2654435761u;

	snprintf(key, 32, "%08x-%u", scattered, number);
	return scattered;
}

static size_t spill_size(unsigned number)
{
	return number % LARGE_EVERY == 0 ? 300000 + number : 500 + number % 500;
}

/* The value of a key in a version: every byte depends on both. */
static void spill_value(uint8_t *value, unsigned number, unsigned version)
{
	uint64_t word = (number * UINT64_C(16) + version) * UINT64_C(0x9e3779b97f4a7c15);

	for (size_t at = 0; at < spill_size(number); at += sizeof(word), word += UINT64_C(0x100010001000101))
		memcpy(value + at, &word, sizeof(word));
}

/* Puts, overwrites of some of them, deletes of a few. */
static void spill_write(struct bts_txn *txn, unsigned from, unsigned to, unsigned version)
{
	struct bts_bucket *bucket = bed_bucket(txn, "b");
	uint8_t *value = malloc(400000);
	char key[32];

	for (unsigned i = from; i < to; i++) {
		spill_key(key, i);
		spill_value(value, i, version);
		assert_int_equal(
			bts_put(txn, bucket, bed_text(key), (struct bts_slice){value, spill_size(i)}, 0),
			BTS_OK);
		if (i % 7 == 3) { /* put twice: the first one is given back */
			spill_value(value, i - 3, version);
			spill_key(key, i - 3);
			assert_int_equal(bts_put(txn, bucket, bed_text(key),
						 (struct bts_slice){value, spill_size(i - 3)}, 0),
				BTS_OK);
		}
		if (i % 7 == 6) {
			spill_key(key, i - 1);
			assert_int_equal(bts_del(txn, bucket, bed_text(key)), BTS_OK);
		}
	}
	free(value);
}

static void spill_verify(struct bts_txn *txn, unsigned from, unsigned to, unsigned version)
{
	struct bts_bucket *bucket = bed_find(txn, "b");
	uint8_t *value = malloc(400000);
	struct bts_slice found;
	char key[32];

	for (unsigned i = from; i < to; i++) {
		enum bts_err err;

		spill_key(key, i);
		err = bts_get(txn, bucket, bed_text(key), &found);
		if (i % 7 == 5 && i + 1 < to) {
			assert_int_equal(err, BTS_NOT_FOUND);
			continue;
		}
		assert_int_equal(err, BTS_OK);
		assert_int_equal(found.size, spill_size(i));
		spill_value(value, i, version);
		assert_memory_equal(found.data, value, found.size);
	}
	free(value);
}

static void spill_holds(struct bed *bed, unsigned from, unsigned to, unsigned version)
{
	struct bts_txn *txn = bed_begin(bed, BTS_READ);

	spill_verify(txn, from, to, version);
	bts_abort(txn);
}

/* What was promised: the limit, and an eighth of what was changed; besides some that the handle has anyway. */
static void spill_bounded(size_t before, uint64_t changed)
{
	size_t bound = LIMIT + changed / 8 + 400000;

	if (count_peak - before > bound)
		fail_msg("%zu bytes of memory, %zu are allowed", count_peak - before, bound);
	count_peak = count_live;
}

static uint64_t spill_changed(unsigned puts)
{
	return (uint64_t)puts * 900 + (uint64_t)puts / LARGE_EVERY * 300000;
}

static void private_transaction(void **state)
{
	const unsigned puts = ROUNDS * ROUND * 4;
	struct bts_txn *txn;
	size_t before;
	struct bed bed;

	(void)state;
	spill_init(&bed);
	before = count_peak = count_live;
	txn = bed_begin(&bed, BTS_WRITE);
	spill_write(txn, 0, ROUND, 1);
	bts_abort(txn);
	assert_int_equal(count_live, before);
	txn = bed_begin(&bed, BTS_WRITE);
	spill_write(txn, 0, puts, 2);
	spill_verify(txn, 0, puts, 2);
	bed_commit(&bed, txn);
	spill_bounded(before, spill_changed(puts));
	spill_holds(&bed, 0, puts, 2);
	bed_check(&bed);
	bts_close(bed.db);
	assert_int_equal(count_live, 0);
	spill_open(&bed, &count_env);
	spill_holds(&bed, 0, puts, 2);
	bed_fini(&bed);
	assert_int_equal(count_live, 0);
}

static void group_of_transactions(void **state)
{
	struct bts_group *group;
	struct bts_txn *txn;
	size_t before;
	struct bed bed;

	(void)state;
	spill_init(&bed);
	before = count_peak = count_live;
	assert_int_equal(bts_group_begin(bed.db, &group, &bed.error), BTS_OK);
	for (unsigned round = 0; round < ROUNDS; round++) {
		assert_int_equal(bts_group_txn(group, &txn, &bed.error), BTS_OK);
		spill_write(txn, round * ROUND, (round + 1) * ROUND, 1);
		bts_abort(txn);
		assert_int_equal(bts_group_txn(group, &txn, &bed.error), BTS_OK);
		spill_write(txn, round * ROUND, (round + 1) * ROUND, 2);
		bed_commit(&bed, txn);
	}
	assert_int_equal(bts_group_commit(group, &bed.error), BTS_OK);
	spill_bounded(before, 2 * spill_changed(ROUNDS * ROUND));
	for (unsigned round = 0; round < ROUNDS; round++)
		spill_holds(&bed, round * ROUND, (round + 1) * ROUND, 2);
	bed_fini(&bed);
	assert_int_equal(count_live, 0);
}

/* Somebody commits first: validated and replayed from the log, once without and once with a conflict. */
static void replayed(void **state)
{
	struct bts_txn *txn;
	uint32_t point;
	struct bed bed;

	(void)state;
	spill_init(&bed);
	bed_set(&bed, "b", "other", "1");
	for (unsigned round = 0; round < 2; round++) {
		size_t before = count_peak = count_live;

		txn = bed_begin(&bed, BTS_WRITE);
		spill_write(txn, 0, ROUND, 7);
		assert_int_equal(bts_savepoint(txn, &point, NULL), BTS_OK);
		spill_write(txn, ROUND, ROUND * 4, 8); /* the log is cut by many chunks */
		assert_int_equal(bts_savepoint_rollback(txn, point, NULL), BTS_OK);
		spill_write(txn, 0, ROUND * 4, round);
		if (round == 1)
			bed_put(txn, "b", "other", "3");
		bed_set(&bed, "b", "other", "2");
		if (round == 0) {
			bed_commit(&bed, txn);
			/* twice: as it is, and done again on the new state */
			spill_bounded(before, 3 * spill_changed(ROUND * 4) + 8 * LIMIT);
		} else {
			assert_int_equal(bts_commit(txn, &bed.error), BTS_CONFLICT);
			assert_int_equal(bts_refresh(txn, &bed.error), BTS_OK);
			spill_write(txn, 0, ROUND * 4, 5);
			bed_commit(&bed, txn);
		}
		spill_holds(&bed, 0, ROUND * 4, round == 0 ? 0 : 5);
		bed_holds(&bed, "b", "other", "2");
	}
	bed_fini(&bed);
	assert_int_equal(count_live, 0);
}

/* The n-th reservation of blocks, or the making of the file, fails. */
static enum bts_err spill_until_full(struct bed *bed, struct bts_txn *txn, unsigned *done)
{
	struct bts_bucket *bucket = bed_bucket(txn, "b");
	uint8_t *value = malloc(400000);
	enum bts_err err = BTS_OK;
	char key[32];

	(void)bed;
	for (*done = 0; *done < ROUND * 4 && err == BTS_OK; (*done)++) {
		spill_key(key, *done);
		spill_value(value, *done, 1);
		err = bts_put(txn, bucket, bed_text(key), (struct bts_slice){value, spill_size(*done)}, 0);
	}
	*done -= err != BTS_OK;
	free(value);
	return err;
}

static void no_room(void **state)
{
	for (int how = 0; how < 4; how++) {
		struct bts_txn *txn, *other;
		struct bts_slice found;
		unsigned done;
		struct bed bed;
		char key[32];

		(void)state;
		bed_init_memory(&bed);
		bts_close(bed.db);
		spill_open(&bed, env_mem_env(bed.mem));
		bed_set(&bed, "b", "k", "1");
		txn = bed_begin(&bed, BTS_WRITE);
		if (how == 0)
			env_mem_fail(bed.mem, ENV_MEM_CREATE, 1, ENOSPC, 0);
		else
			env_mem_fail(bed.mem, ENV_MEM_RESERVE, 3, how == 3 ? EIO : ENOSPC, ENV_MEM_STICKY);
		assert_int_equal(spill_until_full(&bed, txn, &done), how == 3 ? BTS_IO : BTS_FULL);
		assert_non_null(strstr(bts_txn_error(txn)->text, "temporary file"));
		assert_true(done > 100);
		env_mem_fail_clear(bed.mem);
		/* Nothing was changed by the failing call, and the transaction goes on. */
		spill_key(key, done);
		assert_int_equal(bts_get(txn, bed_find(txn, "b"), bed_text(key), &found), BTS_NOT_FOUND);
		if (how == 2) {
			bed_put(txn, "b", "k", "2");
			bed_commit(&bed, txn);
			txn = bed_begin(&bed, BTS_READ);
			for (unsigned i = 0; i < done; i++) {
				spill_key(key, i);
				assert_int_equal(
					bts_get(txn, bed_find(txn, "b"), bed_text(key), &found), BTS_OK);
			}
		}
		bts_abort(txn);
		bed_holds(&bed, "b", "k", how == 2 ? "2" : "1");
		bed_check(&bed);
		other = bed_begin(&bed, BTS_WRITE);
		spill_write(other, 0, ROUND * 2, 3);
		bed_commit(&bed, other);
		spill_holds(&bed, 0, ROUND * 2, 3);
		bed_fini(&bed);
	}
}

/* The machine stops in a transaction that has spilled, and in the commit of it: nothing of the file counts. */
static void interrupted(void **state)
{
	struct env_mem *before, *after;
	struct bts_txn *txn;
	struct bed bed, heir;

	(void)state;
	bed_init_memory(&bed);
	heir = bed;
	bts_close(bed.db);
	spill_open(&bed, env_mem_env(bed.mem));
	bed_set(&bed, "b", "k", "1");
	txn = bed_begin(&bed, BTS_WRITE);
	spill_write(txn, 0, ROUND, 1);
	before = env_mem_crash(bed.mem, env_mem_choose_newest, NULL);
	bed_commit(&bed, txn);
	after = env_mem_clone(bed.mem);
	bed_fini(&bed);
	heir.mem = before;
	bed_open(&heir);
	bed_holds(&heir, "b", "k", "1");
	bed_fini(&heir);
	heir.mem = after;
	bed_open(&heir);
	spill_holds(&heir, 0, ROUND, 1);
	bed_fini(&heir);
}

/* A child of fork has the parent's file mapped: it may end the transaction, not write in it. */
static void forked(void **state)
{
	struct bts_txn *txn;
	struct bed bed;
	pid_t child;
	int status;

	(void)state;
	bed_init_file(&bed);
	bts_close(bed.db);
	spill_open(&bed, NULL);
	txn = bed_begin(&bed, BTS_WRITE);
	spill_write(txn, 0, ROUND, 1);
	child = fork();
	if (child == 0) {
		enum bts_err err = bts_put(txn, bed_find(txn, "b"), bed_text("k"), bed_text("v"), 0);

		bts_abort(txn);
		_exit(err == BTS_INVALID ? 7 : 1);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	spill_verify(txn, 0, ROUND, 1);
	bed_commit(&bed, txn);
	spill_holds(&bed, 0, ROUND, 1);
	bed_fini(&bed);
}

/* A load's open pages are the parent's, too. */
static void forked_load(void **state)
{
	struct bts_bucket *bucket;
	struct bts_load *load;
	struct bts_txn *txn;
	struct bed bed;
	pid_t child;
	int status;

	(void)state;
	bed_init_file(&bed);
	bts_close(bed.db);
	spill_open(&bed, NULL);
	txn = bed_begin(&bed, BTS_WRITE);
	spill_write(txn, 0, ROUND, 1);
	assert_int_equal(bts_bucket(txn, bed_text("loaded"), BTS_CREATE, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_load_begin(txn, bucket, 0, &load, NULL), BTS_OK);
	assert_int_equal(bts_load_add(load, bed_text("a"), bed_text("1")), BTS_OK);
	child = fork();
	if (child == 0) {
		enum bts_err err = bts_load_add(load, bed_text("child"), bed_text("its"));
		struct bts_bucket_info info;
		enum bts_err next = bts_bucket_next(txn, (struct bts_slice){0}, &info);

		bts_abort(txn);
		_exit(err == BTS_INVALID && next == BTS_INVALID ? 7 : 1);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	assert_int_equal(bts_load_add(load, bed_text("b"), bed_text("2")), BTS_OK);
	assert_int_equal(bts_load_end(load, NULL), BTS_OK);
	bed_commit(&bed, txn);
	bed_holds(&bed, "loaded", "a", "1");
	bed_holds(&bed, "loaded", "b", "2");
	spill_holds(&bed, 0, ROUND, 1);
	bed_fini(&bed);
}

/* A file system that can not reserve: blocks come by writing. */
static int spill_no_reserve(struct bts_file *file, uint64_t size)
{
	(void)file;
	(void)size;
	return EOPNOTSUPP;
}

static void without_reserving(void **state)
{
	struct bts_txn *txn;
	struct bed bed;
	glob_t found;
	char pattern[100];

	(void)state;
	spill_init(&bed);
	count_ops.file_reserve = spill_no_reserve;
	txn = bed_begin(&bed, BTS_WRITE);
	spill_write(txn, 0, ROUND, 1);
	snprintf(pattern, sizeof(pattern), "%s.spill*", bed.path);
	assert_int_equal(glob(pattern, 0, NULL, &found), GLOB_NOMATCH);
	bed_commit(&bed, txn);
	spill_holds(&bed, 0, ROUND, 1);
	bed_fini(&bed);
}

/* The directory of the database, not the one that the program has gone to since: what it had opened by a relative path. */
static void another_directory(void **state)
{
	char home[PATH_MAX], *slash;
	struct bed bed, whole;
	struct bts_txn *txn;

	(void)state;
	assert_non_null(getcwd(home, sizeof(home)));
	bed_init_file(&bed);
	bts_close(bed.db);
	whole = bed;
	slash = strrchr(bed.path, '/');
	*slash = '\0';
	assert_int_equal(chdir(bed.path), 0);
	strcpy(bed.path, strrchr(whole.path, '/') + 1);
	spill_open(&bed, NULL);
	assert_int_equal(chdir("/proc"), 0); /* no file can be made here */
	txn = bed_begin(&bed, BTS_WRITE);
	spill_write(txn, 0, ROUND, 1);
	bed_commit(&bed, txn);
	spill_holds(&bed, 0, ROUND, 1);
	bed_check(&bed);
	bts_close(bed.db);
	bed_remove(&whole);
	assert_int_equal(chdir(home), 0);
}

/* It gets another name, the program being in it; then what has the old one is no directory. */
static void a_directory_renamed(void **state)
{
	char home[PATH_MAX], old[] = "/tmp/bts-spill-XXXXXX", moved[sizeof(old) + 8];
	struct bed bed = {.path = "db"};
	struct bts_txn *txn;
	FILE *file;

	(void)state;
	assert_non_null(getcwd(home, sizeof(home)));
	assert_non_null(mkdtemp(old));
	snprintf(moved, sizeof(moved), "%s-moved", old);
	assert_int_equal(chdir(old), 0);
	spill_open(&bed, NULL);
	assert_int_equal(rename(old, moved), 0);
	txn = bed_begin(&bed, BTS_WRITE);
	spill_write(txn, 0, ROUND, 1);
	bed_commit(&bed, txn);
	file = fopen(old, "w");
	assert_non_null(file);
	fclose(file);
	txn = bed_begin(&bed, BTS_WRITE);
	spill_write(txn, 0, ROUND, 2);
	bed_commit(&bed, txn);
	spill_holds(&bed, 0, ROUND, 2);
	bts_close(bed.db);
	bed_remove(&bed);
	assert_int_equal(chdir(home), 0);
	assert_int_equal(unlink(old), 0);
	assert_int_equal(rmdir(moved), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(private_transaction),
		cmocka_unit_test(group_of_transactions),
		cmocka_unit_test(replayed),
		cmocka_unit_test(no_room),
		cmocka_unit_test(interrupted),
		cmocka_unit_test(forked),
		cmocka_unit_test(forked_load),
		cmocka_unit_test(without_reserving),
		cmocka_unit_test(another_directory),
		cmocka_unit_test(a_directory_renamed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
