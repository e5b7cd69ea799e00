/*
 * A child of fork has the parent's descriptors, and with them its locks (M4); and a reader that closes last must not make
 * the exit of a writer that died look like a clean one (I4, I10).
 */
#include "bed.h"

#include "cmocka.h"
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

static int fork_status(pid_t child)
{
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void fork_child_lets_go(void **unused)
{
	struct bts *second;
	struct bed bed;
	pid_t child;

	(void)unused;
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "1");
	child = fork();
	if (child == 0) { /* the handle is of no use here, and closing it does nothing to the parent */
		struct bts_txn *txn;
		int wrong = bts_begin(bed.db, BTS_READ, &txn, NULL) != BTS_INVALID ||
			bts_begin(bed.db, BTS_WRITE, &txn, NULL) != BTS_INVALID;

		bts_close(bed.db);
		_exit(wrong);
	}
	assert_int_equal(fork_status(child), 0);
	assert_int_equal(bed_try_open(&bed, 0, &second), BTS_OK);
	bts_close(second);
	bed_set(&bed, "b", "k", "2");
	bed_holds(&bed, "b", "k", "2");
	bed_fini(&bed);
}

/* The parent ends while a child of its lives on: the child must not hold its place. */
static void fork_child_holds_nothing(void **unused)
{
	struct bed bed;
	int pipes[2];
	pid_t child;
	char byte;

	(void)unused;
	bed_init_file(&bed);
	assert_int_equal(pipe(pipes), 0);
	child = fork();
	if (child == 0) {
		close(pipes[1]);
		_exit((int)read(pipes[0], &byte, 1));
	}
	close(pipes[0]);
	bed_reopen(&bed); /* BTS_BUSY, were the child to hold the writer's place */
	bed_set(&bed, "b", "k", "1");
	close(pipes[1]);
	assert_int_equal(fork_status(child), 0);
	bed_fini(&bed);
}

/* Both at the line, then off: spinning, because the race is in the first microseconds. */
static void fork_meet(_Atomic int *line)
{
	atomic_fetch_add(line, 1);
	while (atomic_load(line) < 2)
		;
}

/* Two processes that close in order, at the same moment: one of them must find itself the last, and seal. */
static void fork_close_together(void **unused)
{
	_Atomic int *line = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct bed bed;

	(void)unused;
	assert_true(line != MAP_FAILED);
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "1");
	bts_close(bed.db);
	for (int round = 0; round < 40; round++) {
		pid_t children[2];

		atomic_store(line, 0);
		for (int i = 0; i < 2; i++) {
			children[i] = fork();
			if (children[i] == 0) {
				enum bts_err err = bed_try_open(&bed, i ? BTS_OPEN_READ_ONLY : 0, &bed.db);

				if (!err && i == 0)
					bed_set(&bed, "b", "k", "changed: the seal of the round before no longer counts");
				fork_meet(line);
				bts_close(err ? NULL : bed.db);
				_exit(err != BTS_OK);
			}
		}
		assert_int_equal(fork_status(children[0]), 0);
		assert_int_equal(fork_status(children[1]), 0);
		bed_open(&bed);
		assert_int_equal(bed_stat(&bed).clean_open, 1);
		bts_close(bed.db);
	}
	bed_open(&bed);
	bed_fini(&bed);
	munmap((void *)line, 4096);
}

static struct bts_env_ops fork_ops;
static struct bts_env fork_env;

static int fork_die(struct bts_env *env, const char *point)
{
	(void)env;
	if (strcmp(point, "commit.slot") == 0)
		_exit(9);
	return 0;
}

static void fork_writer_dies_reader_closes(void **unused)
{
	struct bts_options options;
	struct bts_stat stat;
	struct bts *reader;
	struct bed bed;
	bts_txid before;
	pid_t child;

	(void)unused;
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "1");
	before = bed_stat(&bed).txid;
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_READ_ONLY, &reader), BTS_OK);
	bts_close(bed.db);
	child = fork();
	if (child == 0) {
		fork_env = *bts_env_posix();
		fork_ops = *fork_env.ops;
		fork_ops.fault = fork_die;
		fork_env.ops = &fork_ops;
		bts_options_init(&options);
		options.env = &fork_env;
		if (bts_open(bed.path, &options, &bed.db, NULL) == BTS_OK)
			bed_set(&bed, "b", "k", "2"); /* dies after its pages, before its meta page */
		_exit(1);
	}
	assert_int_equal(fork_status(child), 9);
	bts_close(reader);
	bed_open(&bed);
	stat = bed_stat(&bed);
	assert_int_equal(stat.clean_open, 0);
	assert_true(stat.txid > before + 1); /* the number the dead writer gave is not given again */
	bed_holds(&bed, "b", "k", "1");
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fork_child_lets_go),
		cmocka_unit_test(fork_child_holds_nothing),
		cmocka_unit_test(fork_writer_dies_reader_closes),
		cmocka_unit_test(fork_close_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
