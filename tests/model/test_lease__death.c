/*
 * Large values that are written before their commit, and then the process dies, or the machine: the state is the old one or the
 * new one, the value whole, and the pages are not lost.
 */
#include "lease_bed.h"

#include <rng.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* What a killed process had got to. */
enum moment { TAKEN, STREAMED, PAGES, BUILT, SLOT, FLUSHED, MOMENTS };
static const char *const points[MOMENTS] = {
	"", "", "commit.pages", "commit.built", "commit.slot", "commit.flushed"};

static uint64_t seed;

static struct bts_env_ops dying_ops;
static struct bts_env dying_env;
static const char *dying_at; /* NULL: not yet */

static int dying_fault(struct bts_env *env, const char *point)
{
	(void)env;
	if (dying_at != NULL && !strcmp(point, dying_at))
		raise(SIGKILL);
	return 0;
}

/* Never returns.  go: a byte is there when the others are ready. */
static void die(struct bed *bed, enum moment moment, int go, int told)
{
	struct bts_stream *stream;
	struct bts_txn *txn;
	struct bts *db;
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* when the test fails meanwhile */
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	dying_env = *bts_env_posix();
	dying_ops = *dying_env.ops;
	dying_ops.fault = dying_fault;
	dying_env.ops = &dying_ops;
	lease_open(bed, &dying_env, 0, &db);
	if (write(told, "o", 1) != 1 || read(go, &byte, 1) != 1)
		_exit(1);
	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	stream = lease_begin(txn, "large", LEASE_SIZE);
	assert_int_equal(lease_pour(stream, 0, LEASE_SIZE / 2, 2), BTS_OK);
	if (moment != TAKEN) {
		assert_int_equal(lease_pour(stream, LEASE_SIZE / 2, LEASE_SIZE, 2), BTS_OK);
		assert_int_equal(bts_put_end(stream, NULL), BTS_OK);
	}
	if (lease_count(txn) == 1 && write(told, "l", 1) == 1 && moment > STREAMED) {
		dying_at = points[moment];
		if (bts_commit(txn, NULL))
			_exit(2);
	}
	for (;;)
		pause();
}

static void judge_survivor(struct bed *bed, struct bts *third, enum moment moment)
{
	struct bts_stat first = {0}, last;
	struct bts_txn *txn;
	unsigned salt;

	for (unsigned i = 0; i < 14; i++) {
		lease_store(i % 2 ? third : bed->db, "other", LEASE_SIZE, 10 + i);
		if (i % 4 == 0)
			bed_check(bed);
		if (i == 5)
			first = bed_stat(bed);
	}
	lease_none_lost(bed->db);
	lease_none_lost(third);
	last = bed_stat(bed);
	assert_true(last.pages <= first.pages + 8);
	txn = bed_begin(bed, BTS_READ);
	salt = lease_salt(txn, "large", LEASE_SIZE, 2);
	bts_abort(txn);
	assert_int_equal(salt, moment >= SLOT ? 2 : 1);
	lease_holds(third, "other", LEASE_SIZE, 23);
}

static void killed(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 2 * MOMENTS; round++) {
		enum moment moment = round % MOMENTS;
		int go[2], told[2], status;
		struct bts *third;
		struct bed bed;
		char byte;
		pid_t pid;

		bed_init_file(&bed);
		if (round >= MOMENTS) { /* with room below the mark, else it is raised */
			lease_store(bed.db, "room", 2 * LEASE_SIZE, 1);
			bed_set(&bed, "b", "room", "gone");
		}
		lease_store(bed.db, "large", LEASE_SIZE, 1);
		bts_close(bed.db);
		assert_int_equal(pipe(go), 0);
		assert_int_equal(pipe(told), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			die(&bed, moment, go[0], told[1]);
		assert_int_equal(read(told[0], &byte, 1), 1);
		bed_open(&bed);
		lease_open(&bed, NULL, 0, &third);
		bed_set(&bed, "b", "small", "v");
		lease_store(third, "other", LEASE_SIZE, 9);
		assert_int_equal(write(go[1], "g", 1), 1);
		assert_int_equal(read(told[0], &byte, 1), 1);
		if (moment <= STREAMED) {
			lease_store(third, "other", LEASE_SIZE, 8);
			bed_set(&bed, "b", "small", "w");
			assert_int_equal(kill(pid, SIGKILL), 0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		judge_survivor(&bed, third, moment);
		bts_close(third);
		for (int i = 0; i < 2; i++) {
			close(go[i]);
			close(told[i]);
		}
		bed_fini(&bed);
	}
}

struct cut {
	struct bed *bed;
	struct rng rng;
	unsigned acked; /* salt of "large" that was acknowledged */
	unsigned going; /* of the one that may be there as well */
	unsigned seen[2], events, every;
	uint64_t gap;
};

static struct env_mem_choice choose(void *arg, size_t index, const struct env_mem_unit *unit)
{
	struct rng *rng = &((struct cut *)arg)->rng;

	(void)index;
	return (struct env_mem_choice){.version = (unsigned)rng_below(rng, unit->versions)};
}

static struct env_mem_choice choose_most(void *arg, size_t index, const struct env_mem_unit *unit)
{
	struct rng *rng = &((struct cut *)arg)->rng;

	(void)index;
	return (struct env_mem_choice){.version = rng_one_in(rng, 40) ? 0 : unit->versions - 1};
}

/* All arrived but a few neighbours. */
static struct env_mem_choice choose_gap(void *arg, size_t index, const struct env_mem_unit *unit)
{
	const struct cut *cut = arg;

	return (struct env_mem_choice){.version = index / 16 == cut->gap ? 0 : unit->versions - 1};
}

/* The power fails now. */
static void cut(struct cut *cut, env_mem_choose_fn *how)
{
	struct bed after = {.mem = env_mem_crash(cut->bed->mem, how, cut)};
	struct bts_txn *txn;
	unsigned salt;

	strcpy(after.path, cut->bed->path);
	bed_open(&after);
	txn = bed_begin(&after, BTS_READ);
	salt = lease_salt(txn, "large", LEASE_SIZE, cut->going);
	bts_abort(txn);
	if (salt != cut->acked && salt != cut->going)
		fail_msg("large is %u after %u was acknowledged, and %u begun", salt, cut->acked, cut->going);
	cut->seen[salt == cut->acked ? 0 : 1]++;
	bed_check(&after);
	lease_store(after.db, "large", LEASE_SIZE, 1);
	bed_set(&after, "b", "small", "goes on");
	lease_holds(after.db, "large", LEASE_SIZE, 1);
	bed_fini(&after);
}

static void cut_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	struct cut *c = arg;

	(void)mem;
	(void)event;
	if (c->events++ % c->every != 0)
		return;
	c->gap = rng_below(&c->rng, LEASE_SIZE / ENV_MEM_SECTOR / 16);
	cut(c, choose_gap);
	cut(c, c->events % 3 == 0 ? choose : c->events % 3 == 1 ? choose_most : env_mem_choose_newest);
}

static void rival(struct bts *db)
{
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	bed_put(txn, "b", "small", "v");
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
}

/* Alone; with a commit in between; shown and flushed by the next commit of another. */
static void power_fails(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 6; round++) {
		struct cut c = {.acked = 3, .going = 4, .every = 9};
		struct bts *second;
		struct bts_txn *txn;
		struct bed bed;

		rng_init(&c.rng, seed + round);
		c.bed = &bed;
		bed_init_memory(&bed);
		bts_close(bed.db);
		lease_open(&bed, NULL, 0, &bed.db);
		lease_open(&bed, NULL, 0, &second);
		for (unsigned i = 1; i <= (round < 3 ? 3 : 1); i++) /* then there is room below the mark */
			lease_store(second, "large", LEASE_SIZE, round < 3 ? i : 3);
		env_mem_set_hook(bed.mem, cut_hook, &c);
		txn = bed_begin(&bed, BTS_WRITE | (round % 3 == 2 ? BTS_ASYNC : 0));
		lease_stream(txn, "large", LEASE_SIZE, 4);
		assert_int_equal(lease_count(txn), 1);
		c.every = 1;
		if (round % 3 == 1)
			rival(second);
		bed_commit(&bed, txn);
		if (round % 3 == 2)
			rival(second);
		c.acked = 4;
		bed_set(&bed, "b", "another", "x");
		env_mem_set_hook(bed.mem, NULL, NULL);
		assert_true(c.events > 20 && c.seen[0] > 10);
		bts_close(second);
		bed_fini(&bed);
	}
}

/* Every process dies with pages leased; the machine goes on. */
static void all_die(void **state)
{
	struct bed bed, after = {0};
	struct bts_stat before;
	struct bts_txn *txn;

	(void)state;
	bed_init_memory(&bed);
	lease_store(bed.db, "large", LEASE_SIZE, 1);
	before = bed_stat(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	lease_stream(txn, "large", LEASE_SIZE, 2);
	assert_int_equal(lease_count(txn), 1);
	after.mem = env_mem_clone(bed.mem);
	strcpy(after.path, bed.path);
	bts_abort(txn);
	bed_open(&after);
	bed_check(&after);
	lease_holds(after.db, "large", LEASE_SIZE, 1);
	lease_store(after.db, "large", LEASE_SIZE, 3);
	lease_store(after.db, "large", LEASE_SIZE, 4);
	assert_true(bed_stat(&after).pages < 2 * before.pages + 50);
	bed_fini(&after);
	bed_fini(&bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed),
		cmocka_unit_test(power_fails),
		cmocka_unit_test(all_die),
	};

	seed = rng_seed_from(argc, argv, 7);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
