/*
 * Every allocation fails in turn (T2): the call says BTS_MEMORY, nothing leaks, the database is right and
 * usable.
 *
 * The first ones each, later ones sampled; with the argument 1, or more, every one, every second one, ...
 */
#include "fail_scenario.h"

#include "cmocka.h"
#include <stdio.h>
#include <stdlib.h>

static struct env_mem *base;
static uint64_t failures, every;

static void arm_once(struct fail_bed *bed, struct env_mem *mem)
{
	env_mem_fail_memory(mem, bed->nth, 0);
}

static void arm_sticky(struct fail_bed *bed, struct env_mem *mem)
{
	env_mem_fail_memory(mem, bed->nth, ENV_MEM_STICKY);
}

static void must_be_memory(const struct fail_bed *bed, enum bts_err err)
{
	if (err && err != BTS_MEMORY)
		fail_msg("allocation %llu: %s: %s", (unsigned long long)bed->nth, bts_err_name(err),
			bed->error.text);
}

/* It holds what was acknowledged, before and after reopening, and takes a commit. */
static void must_hold(struct fail_bed *bed)
{
	struct bts_bucket *bucket;
	struct bts_txn *txn;

	if (bed->db == NULL)
		assert_int_equal(fail_open(bed), BTS_OK);
	assert_true(fail_hash(bed->db) == bed->hashes[bed->commits]);
	bts_close(bed->db);
	assert_int_equal(env_mem_counters(bed->mem)->live_blocks, 0);
	assert_int_equal(fail_open(bed), BTS_OK);
	fail_sound(bed->db);
	assert_true(fail_hash(bed->db) == bed->hashes[bed->commits]);
	assert_int_equal(bts_begin(bed->db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"probe", 5}, BTS_CREATE, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	fail_sound(bed->db);
	bts_close(bed->db);
	assert_int_equal(env_mem_counters(bed->mem)->live_blocks, 0);
}

/* The handle that met the failure takes a commit as well. */
static void must_be_usable(struct fail_bed *bed)
{
	struct bts_bucket *bucket;
	struct bts_txn *txn;

	if (bed->db == NULL)
		return;
	for (int i = 0; i < 2; i++) {
		struct bts_slice name = {"probe", 5};

		assert_int_equal(bts_begin(bed->db, BTS_WRITE, &txn, NULL), BTS_OK);
		if (i == 0)
			assert_int_equal(bts_bucket(txn, name, BTS_CREATE, &bucket, NULL), BTS_OK);
		else
			assert_int_equal(bts_bucket_drop(txn, name, NULL), BTS_OK);
		assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	}
}

static bool run_once(struct fail_bed *bed, fail_scenario *run)
{
	enum bts_err err;
	bool failed;

	bed->mem = env_mem_clone(base);
	bed->db = NULL;
	bed->commits = 0;
	assert_int_equal(fail_open(bed), BTS_OK);
	err = run(bed);
	failed = env_mem_failed(bed->mem) > 0;
	env_mem_fail_clear(bed->mem);
	must_be_memory(bed, err);
	if (!failed)
		assert_int_equal(err, BTS_OK);
	must_be_usable(bed);
	must_hold(bed);
	env_mem_free(bed->mem);
	failures += failed;
	return failed;
}

static void run_all(const struct fail_named *scenario, fail_arm *arm, bool again, uint64_t step)
{
	struct fail_bed bed = {.arm = arm, .again = again};

	fail_record(&bed, base, scenario->run);
	for (bed.nth = 1; run_once(&bed, scenario->run); bed.nth += every ? every : bed.nth < 8 ? 1 : step)
		;
}

static void fails_once(void **state)
{
	run_all(*state, arm_once, false, 23);
}

static void fails_once_and_is_repeated(void **state)
{
	run_all(*state, arm_once, true, 41);
}

static void fails_from_then_on(void **state)
{
	run_all(*state, arm_sticky, false, 97);
}

static void creating(void **state)
{
	struct fail_bed bed = {.nth = 1};
	bool failed = true;

	(void)state;
	for (; failed; bed.nth++) {
		enum bts_err err;

		bed.mem = env_mem_new(64 << 20);
		bed.db = NULL;
		env_mem_fail_memory(bed.mem, bed.nth, 0);
		err = fail_open(&bed);
		failed = env_mem_failed(bed.mem) > 0;
		env_mem_fail_clear(bed.mem);
		if (!failed)
			assert_int_equal(err, BTS_OK);
		must_be_memory(&bed, err);
		if (err) {
			assert_int_equal(env_mem_counters(bed.mem)->live_blocks, 0);
			assert_int_equal(fail_open(&bed), BTS_OK);
		}
		fail_sound(bed.db);
		bts_close(bed.db);
		assert_int_equal(env_mem_counters(bed.mem)->live_blocks, 0);
		env_mem_free(bed.mem);
		failures += failed;
	}
}

int main(int argc, char **argv)
{
	struct CMUnitTest *tests = calloc(fail_scenario_count * 3 + 1, sizeof(*tests));
	static char names[3][64][64];
	static CMUnitTestFunction const runs[3] = {
		fails_once, fails_once_and_is_repeated, fails_from_then_on};
	static const char *const how[3] = {"once", "once and is repeated", "from then on"};
	size_t count = 0;
	int result;

	if (!tests)
		return 1;
	if (argc > 1)
		every = strtoull(argv[1], NULL, 0);
	base = fail_base();
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(creating);
	for (unsigned k = 0; k < 3; k++)
		for (unsigned i = 0; i < fail_scenario_count; i++) {
			snprintf(names[k][i], sizeof(names[k][i]), "%s: fails %s", fail_scenarios[i].name,
				how[k]);
			tests[count++] = (struct CMUnitTest){
				names[k][i], runs[k], NULL, NULL, (void *)(uintptr_t)&fail_scenarios[i]};
		}
	result = _cmocka_run_group_tests("allocations", tests, count, NULL, NULL);
	printf("%llu failed allocations survived\n", (unsigned long long)failures);
	env_mem_free(base);
	free(tests);
	return result;
}
