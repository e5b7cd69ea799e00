/*
 * What the original promised of work that was not committed: it is invisible while it is done and gone
 * afterwards, with every page it may have taken, whether the transaction is given up, fails, or its process
 * or the machine dies.
 *
 * The work is what changes most: values of many pages overwritten, deleted and made, a root that splits, a
 * bucket dropped and one made.
 */
#include "bed.h"

#include <errno.h>
#include <rng.h>
#include <signal.h>
#include <sys/wait.h>

#define LARGE 300000u
#define SMALL 12u

static uint64_t seed;
static uint8_t bytes[LARGE * 2];

static struct bts_slice filled(uint8_t with, size_t size)
{
	memset(bytes, with, size);
	return (struct bts_slice){bytes, size};
}

static void put(struct bts_txn *txn, const char *bucket, const char *key, uint8_t with, size_t size)
{
	assert_int_equal(bts_put(txn, bed_bucket(txn, bucket), bed_text(key), filled(with, size), 0), BTS_OK);
}

static void expect(struct bts_txn *txn, const char *bucket, const char *key, uint8_t with, size_t size)
{
	struct bts_slice found;

	assert_int_equal(bts_get(txn, bed_find(txn, bucket), bed_text(key), &found), BTS_OK);
	assert_int_equal(found.size, size);
	assert_memory_equal(found.data, filled(with, size).data, size);
}

/* One leaf of small values, large ones beside, a bucket to drop. */
static void commit_state(struct bed *bed)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);

	for (unsigned i = 0; i < SMALL; i++) {
		char key[16];

		snprintf(key, sizeof(key), "small %u", i);
		put(txn, "b", key, (uint8_t)i, 100);
	}
	put(txn, "b", "large", 'L', LARGE);
	put(txn, "b", "other large", 'O', LARGE / 3);
	put(txn, "dropped", "large", 'D', LARGE);
	bed_commit(bed, txn);
}

static void expect_state(struct bed *bed)
{
	struct bts_txn *txn = bed_begin(bed, BTS_READ);
	struct bts_bucket_info info;

	assert_int_equal(bts_bucket_info(txn, bed_find(txn, "b"), &info), BTS_OK);
	assert_int_equal(info.entries, SMALL + 2);
	assert_int_equal(info.depth, 1);
	for (unsigned i = 0; i < SMALL; i++) {
		char key[16];

		snprintf(key, sizeof(key), "small %u", i);
		expect(txn, "b", key, (uint8_t)i, 100);
	}
	expect(txn, "b", "large", 'L', LARGE);
	expect(txn, "b", "other large", 'O', LARGE / 3);
	expect(txn, "dropped", "large", 'D', LARGE);
	bed_expect(txn, "made", "k", NULL);
	bts_abort(txn);
	assert_int_equal(bed_stat(bed).buckets, 2);
	bed_check(bed);
}

static void do_work(struct bts_txn *txn)
{
	struct bts_bucket_info info;

	put(txn, "b", "large", 'x', LARGE * 2);
	assert_int_equal(bts_del(txn, bed_find(txn, "b"), bed_text("other large")), BTS_OK);
	put(txn, "b", "new large", 'y', LARGE);
	for (unsigned i = 0; i < 500; i++) {
		char key[16];

		snprintf(key, sizeof(key), "new %u", i);
		put(txn, "b", key, 'z', 100);
	}
	assert_int_equal(bts_bucket_info(txn, bed_find(txn, "b"), &info), BTS_OK);
	assert_true(info.depth > 1); /* the root was split */
	put(txn, "made", "k", 'm', LARGE);
	assert_int_equal(bts_bucket_drop(txn, bed_text("dropped"), NULL), BTS_OK);
	expect(txn, "b", "large", 'x', LARGE * 2);
}

static uint64_t pages_used(struct bed *bed)
{
	struct bts_stat stat = bed_stat(bed);

	return stat.pages - stat.first_page - stat.free_pages;
}

static enum bts_err work_and_fail(struct bts_txn *txn, void *arg)
{
	do_work(txn);
	return *(enum bts_err *)arg;
}

static void given_up(void **state)
{
	enum bts_err wanted = BTS_EXISTS;
	struct bts_stat before, after;
	struct bts_txn *txn;
	struct bts *second;
	struct bed bed, other;

	(void)state;
	bed_init_memory(&bed);
	commit_state(&bed);
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_READ_ONLY, &second), BTS_OK);
	other = bed;
	other.db = second;
	before = bed_stat(&bed);
	for (unsigned round = 0; round < 10; round++) {
		txn = bed_begin(&bed, BTS_WRITE);
		do_work(txn);
		expect_state(&bed); /* by other transactions, of this handle and of another */
		expect_state(&other);
		if (round % 2)
			assert_int_equal(bts_refresh(txn, NULL), BTS_OK);
		bts_abort(txn);
		assert_int_equal(bts_update(bed.db, work_and_fail, &wanted, NULL), wanted);
		expect_state(&bed);
	}
	after = bed_stat(&bed);
	assert_int_equal(after.txid, before.txid);
	assert_int_equal(after.pages, before.pages);
	assert_int_equal(after.free_pages, before.free_pages);
	bts_close(second);
	bed_fini(&bed);
}

/* Reverted in place: the same handle goes on, and what it does next takes the pages that were free before. */
static void failed_commits_revert(void **state)
{
	struct bts_stat before, after;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	commit_state(&bed);
	before = bed_stat(&bed);
	for (unsigned round = 0; round < 10; round++) {
		txn = bed_begin(&bed, BTS_WRITE);
		do_work(txn);
		env_mem_fail(bed.mem, ENV_MEM_WRITE, 1, round % 3 ? ENOSPC : EDQUOT,
			round % 2 ? ENV_MEM_PARTIAL : 0);
		assert_int_equal(bts_commit(txn, &bed.error), BTS_FULL);
		env_mem_fail_clear(bed.mem);
		after = bed_stat(&bed);
		assert_int_equal(after.txid, before.txid);
		assert_int_equal(after.pages, before.pages);
		assert_int_equal(after.free_pages, before.free_pages);
		expect_state(&bed);
		bed_set(&bed, "dropped", "k", "v");
		before = bed_stat(&bed);
		assert_true(before.pages <= after.pages + 12);
	}
	txn = bed_begin(&bed, BTS_WRITE);
	do_work(txn);
	bed_commit(&bed, txn);
	bed_reopen(&bed);
	txn = bed_begin(&bed, BTS_READ);
	expect(txn, "b", "large", 'x', LARGE * 2);
	expect(txn, "made", "k", 'm', LARGE);
	bts_abort(txn);
	bed_fini(&bed);
}

/* In a process of its own: work that is never committed, after a commit or not; told of by one byte. */
static void work_until_killed(const struct bed *bed, const char *commit, int to)
{
	struct bed own = *bed;

	bed_open(&own);
	if (commit)
		bed_set(&own, "dropped", "k", commit);
	do_work(bed_begin(&own, BTS_WRITE));
	if (write(to, "w", 1) == 1)
		pause();
	_exit(1);
}

static void killed(void **state)
{
	uint64_t before = 0, pages = 0;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	commit_state(&bed);
	for (unsigned round = 0; round < 8; round++) {
		const char *commit = round % 2 ? "v" : NULL;
		int pipes[2];
		pid_t pid;
		char told;

		bts_close(bed.db);
		assert_int_equal(pipe(pipes), 0);
		fflush(NULL);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			work_until_killed(&bed, commit, pipes[1]);
		assert_int_equal(read(pipes[0], &told, 1), 1);
		close(pipes[0]);
		close(pipes[1]);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		bed_open(&bed);
		assert_int_equal(bed_stat(&bed).clean_open, commit == NULL); /* nothing was written */
		expect_state(&bed);
		if (commit)
			bed_holds(&bed, "dropped", "k", commit);
		if (round == 1) {
			before = pages_used(&bed);
			pages = bed_stat(&bed).pages;
		}
		assert_true(round < 1 || pages_used(&bed) <= before + 4);
		assert_true(round < 1 || bed_stat(&bed).pages <= pages + 8);
	}
	bed_fini(&bed);
}

/* The power goes while the work is done: whatever was flushed of it, nothing of it is there. */
static void power_lost(void **state)
{
	struct bts_txn *txn;
	struct rng rng;
	struct bed bed;

	(void)state;
	rng_init(&rng, seed);
	bed_init_memory(&bed);
	commit_state(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	do_work(txn);
	for (unsigned round = 0; round < 20; round++) {
		size_t words = env_mem_units(bed.mem, NULL, 0) / 64 + 1;
		uint64_t *bits = malloc(words * sizeof(*bits));
		struct bed heir = bed;

		assert_non_null(bits);
		rng_fill(&rng, bits, words * sizeof(*bits));
		heir.mem = round == 0	? env_mem_crash(bed.mem, env_mem_choose_durable, NULL)
			   : round == 1 ? env_mem_crash(bed.mem, env_mem_choose_newest, NULL)
					: env_mem_crash(bed.mem, env_mem_choose_bits, bits);
		free(bits);
		bed_open(&heir);
		expect_state(&heir);
		assert_in_range(bed_stat(&heir).pages, bed_stat(&bed).pages, bed_stat(&bed).pages + 4);
		bed_fini(&heir);
	}
	bts_abort(txn);
	expect_state(&bed);
	bed_fini(&bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(given_up),
		cmocka_unit_test(failed_commits_revert),
		cmocka_unit_test(killed),
		cmocka_unit_test(power_lost),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
