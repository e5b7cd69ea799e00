/*
 * Every file operation fails in turn (T3, T11): with EIO, ENOSPC and EDQUOT, once and from then on, writes
 * half done, flushes that drop what they should have written.
 *
 * No space before the meta page is written aborts the commit and nothing else (BTS_FULL); an error in a
 * commit poisons (I7).  In every case what is there afterwards, reopened or after a power cut at that moment,
 * is what the last acknowledged commit left, or the one in flight.
 *
 * The first ones each, later ones sampled; with the argument 1, or more, every one, every second one, ...
 */
#include "fail_scenario.h"

#include "cmocka.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct harm {
	const char *name;
	enum env_mem_op op;
	int os;
	unsigned flags;
};

static const struct harm harms[] = {
	{"EIO", ENV_MEM_ANY, EIO, 0},
	{"EIO from then on", ENV_MEM_ANY, EIO, ENV_MEM_STICKY},
	{"ENOSPC", ENV_MEM_ANY, ENOSPC, 0},
	{"EDQUOT from then on", ENV_MEM_ANY, EDQUOT, ENV_MEM_STICKY},
	{"half a write, then EIO", ENV_MEM_WRITE, EIO, ENV_MEM_PARTIAL},
	{"half a write, then ENOSPC", ENV_MEM_WRITE, ENOSPC, ENV_MEM_PARTIAL},
	{"a flush that drops", ENV_MEM_SYNC, EIO, ENV_MEM_DROP},
};
#define HARMS (sizeof(harms) / sizeof(*harms))

static struct env_mem *base;
static uint64_t failures, poisons, every;
static const struct harm *harm;

static void arm(struct fail_bed *bed, struct env_mem *mem)
{
	env_mem_fail(mem, harm->op, bed->nth, harm->os, harm->flags);
}

static void must_be_io(const struct fail_bed *bed, enum bts_err err)
{
	if (err == BTS_OK || err == BTS_IO || err == BTS_FULL || err == BTS_POISONED)
		return;
	fail_msg("operation %llu: %s: %s", (unsigned long long)bed->nth, bts_err_name(err), bed->error.text);
}

static void must_hold(const struct fail_bed *bed, uint64_t hash, bool in_flight)
{
	if (hash == bed->hashes[bed->commits])
		return;
	if (in_flight && bed->commits + 1 < bed->hash_count && hash == bed->hashes[bed->commits + 1])
		return;
	fail_msg("operation %llu: neither the state after commit %u nor the next (%s)",
		(unsigned long long)bed->nth, bed->commits, bed->error.text);
}

static void must_reopen(const struct fail_bed *bed, struct env_mem *mem, bool in_flight)
{
	struct fail_bed after = {.mem = mem};

	if (fail_open(&after))
		fail_msg("operation %llu: reopening: %s", (unsigned long long)bed->nth, after.error.text);
	must_hold(bed, fail_hash(after.db), in_flight);
	fail_sound(after.db);
	bts_close(after.db);
	assert_int_equal(env_mem_counters(mem)->live_blocks, 0);
}

static void must_survive_power_loss(const struct fail_bed *bed, env_mem_choose_fn *choose, bool in_flight)
{
	struct env_mem *mem = env_mem_crash(bed->mem, choose, NULL);

	must_reopen(bed, mem, in_flight);
	env_mem_free(mem);
}

/* The handle that met the failure: it says that it is poisoned, or goes on. */
static bool must_stand(struct fail_bed *bed, enum bts_err err)
{
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	enum bts_err begun;

	if (bed->db == NULL)
		return false;
	must_hold(bed, fail_hash(bed->db), false);
	begun = bts_begin(bed->db, BTS_WRITE, &txn, &bed->error);
	if (begun == BTS_POISONED) {
		assert_int_not_equal(err, BTS_OK);
		assert_int_not_equal(err, BTS_FULL);
		poisons++;
		return true;
	}
	assert_int_equal(begun, BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"probe", 5}, BTS_CREATE, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_commit(txn, &bed->error), BTS_OK);
	assert_int_equal(bts_begin(bed->db, BTS_WRITE, &txn, &bed->error), BTS_OK);
	assert_int_equal(bts_bucket_drop(txn, (struct bts_slice){"probe", 5}, NULL), BTS_OK);
	assert_int_equal(bts_commit(txn, &bed->error), BTS_OK);
	fail_sound(bed->db);
	return false;
}

static bool run_once(struct fail_bed *bed, fail_scenario *run)
{
	enum bts_err err;
	bool failed, poisoned;

	bed->mem = env_mem_clone(base);
	bed->db = NULL;
	bed->commits = 0;
	assert_int_equal(fail_open(bed), BTS_OK);
	err = run(bed);
	failed = env_mem_failed(bed->mem) > 0;
	env_mem_fail_clear(bed->mem);
	must_be_io(bed, err);
	if (!failed)
		assert_int_equal(err, BTS_OK);
	must_survive_power_loss(bed, env_mem_choose_durable, err != BTS_OK);
	must_survive_power_loss(bed, env_mem_choose_newest, err != BTS_OK && err != BTS_FULL);
	poisoned = must_stand(bed, err);
	bts_close(bed->db);
	assert_int_equal(env_mem_counters(bed->mem)->live_blocks, 0);
	must_reopen(bed, bed->mem, poisoned);
	env_mem_free(bed->mem);
	failures += failed;
	return failed;
}

static void run_all(void **state)
{
	const struct fail_named *scenario = *state;
	struct fail_bed bed = {.arm = arm};

	fail_record(&bed, base, scenario->run);
	for (unsigned i = 0; i < HARMS; i++) {
		harm = &harms[i];
		for (bed.nth = 1; run_once(&bed, scenario->run);)
			bed.nth += every ? every : bed.nth < 6 ? 1 : 41;
	}
}

static void creating(void **state)
{
	(void)state;
	for (unsigned i = 0; i < HARMS; i++) {
		struct fail_bed bed = {.nth = 1};
		bool failed = true;

		for (harm = &harms[i]; failed; bed.nth++) {
			enum bts_err err;

			bed.mem = env_mem_new(64 << 20);
			bed.db = NULL;
			arm(&bed, bed.mem);
			err = fail_open(&bed);
			failed = env_mem_failed(bed.mem) > 0;
			env_mem_fail_clear(bed.mem);
			must_be_io(&bed, err);
			if (err) {
				assert_int_equal(env_mem_counters(bed.mem)->live_blocks, 0);
				assert_int_equal(fail_open(&bed), BTS_OK);
			}
			fail_sound(bed.db);
			bts_close(bed.db);
			env_mem_free(bed.mem);
			failures += failed;
		}
	}
}

/* A disk that is full for a while: commits fail one after the other, readers go on, later commits work. */
static void full_for_a_while(void **state)
{
	struct fail_bed bed = {.mem = env_mem_clone(base)};
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	uint64_t before;

	(void)state;
	assert_int_equal(fail_open(&bed), BTS_OK);
	before = fail_hash(bed.db);
	env_mem_fail(bed.mem, ENV_MEM_WRITE, 1, ENOSPC, ENV_MEM_STICKY);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(bts_begin(bed.db, BTS_WRITE, &txn, NULL), BTS_OK);
		assert_int_equal(
			bts_bucket(txn, (struct bts_slice){"full", 4}, BTS_CREATE, &bucket, NULL), BTS_OK);
		assert_int_equal(bts_commit(txn, &bed.error), BTS_FULL);
		assert_int_equal(bed.error.os, ENOSPC);
		assert_true(fail_hash(bed.db) == before);
	}
	env_mem_fail_clear(bed.mem);
	assert_int_equal(bts_begin(bed.db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"full", 4}, BTS_CREATE, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	fail_sound(bed.db);
	bts_close(bed.db);
	env_mem_free(bed.mem);
}

int main(int argc, char **argv)
{
	struct CMUnitTest *tests = calloc(fail_scenario_count + 2, sizeof(*tests));
	size_t count = 0;
	int result;

	if (!tests)
		return 1;
	if (argc > 1)
		every = strtoull(argv[1], NULL, 0);
	base = fail_base();
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(creating);
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(full_for_a_while);
	for (unsigned i = 0; i < fail_scenario_count; i++)
		tests[count++] = (struct CMUnitTest){
			fail_scenarios[i].name, run_all, NULL, NULL, (void *)(uintptr_t)&fail_scenarios[i]};
	result = _cmocka_run_group_tests("file operations", tests, count, NULL, NULL);
	printf("%llu failed operations survived, %llu of them poisoned\n", (unsigned long long)failures,
		(unsigned long long)poisons);
	env_mem_free(base);
	free(tests);
	return result;
}
