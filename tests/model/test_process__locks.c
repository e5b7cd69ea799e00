/*
 * Who holds a lock and what becomes of the others: a holder that lives is waited for, or named when the time is up, be it
 * stopped; one that is killed is out of the way; other pid namespaces make no difference; a handle of a forked child holds
 * nothing.  Reading without permission to write the lock file (M3).
 */
#include "bed.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

static enum bts_err open_patient(const struct bed *bed, unsigned flags, unsigned timeout_ms, struct bts **db, struct bts_error *error)
{
	struct bts_options options;

	bts_options_init(&options);
	options.flags = flags;
	options.lock_timeout_ms = timeout_ms;
	return bts_open(bed->path, &options, db, error);
}

static void put_number(struct bts *db, const char *key, uint64_t number)
{
	struct bts_bucket *bucket;
	struct bts_txn *txn;

	if (bts_begin(db, BTS_WRITE, &txn, NULL) || bts_bucket(txn, bed_text("b"), BTS_CREATE, &bucket, NULL) ||
		bts_put(txn, bucket, bed_text(key), (struct bts_slice){ &number, sizeof(number) }, 0) ||
		bts_commit(txn, NULL))
		abort();
}

/* A child that opens the file, begins an exclusive transaction, says so, and holds it until it is killed. */
static pid_t holder_start(const struct bed *bed)
{
	int ready[2];
	pid_t pid;
	char byte;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		struct bts_bucket *bucket;
		struct bts_txn *txn;
		struct bts *db;

		if (open_patient(bed, 0, 0, &db, NULL) || bts_begin(db, BTS_WRITE | BTS_EXCLUSIVE, &txn, NULL) ||
			bts_bucket(txn, bed_text("b"), BTS_CREATE, &bucket, NULL) ||
			bts_put(txn, bucket, bed_text("held"), bed_text("never"), 0))
			abort();
		if (write(ready[1], "r", 1) != 1)
			abort();
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static void kill_child(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* One that lives, and one that is stopped, are waited for and named. */
static void a_holder_is_named(void **state)
{
	struct bts_error error;
	struct bts_txn *txn;
	struct bts *impatient;
	struct bed bed;
	char name[32];
	pid_t pid;

	(void)state;
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "1");
	assert_int_equal(open_patient(&bed, 0, 50, &impatient, &error), BTS_OK);
	pid = holder_start(&bed);
	snprintf(name, sizeof(name), "process %d ", (int)pid);
	for (unsigned stopped = 0; stopped < 2; stopped++) {
		if (stopped) {
			int status;

			kill(pid, SIGSTOP);
			assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
		}
		assert_int_equal(bts_begin(impatient, BTS_WRITE | BTS_EXCLUSIVE, &txn, &error), BTS_BUSY);
		assert_non_null(strstr(error.text, name));
		assert_int_equal(bts_begin(impatient, BTS_WRITE, &txn, &error), BTS_OK);
		bed_put(txn, "b", "k", "2");
		assert_int_equal(bts_commit(txn, &error), BTS_BUSY);
		assert_non_null(strstr(error.text, name));
		bed_holds(&bed, "b", "k", "1"); /* readers do not wait */
	}
	kill_child(pid);
	bts_close(impatient);
	bed_set(&bed, "b", "k", "3");
	bed_holds(&bed, "b", "k", "3");
	bed_holds(&bed, "b", "held", NULL);
	bed_fini(&bed);
}

/* Opening for writing does not wait for a batch that somebody is forming. */
static void opening_waits_for_nobody(void **state)
{
	struct bts_group *group;
	struct bts *second;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "1");
	assert_int_equal(bts_group_begin(bed.db, &group, &bed.error), BTS_OK);
	assert_int_equal(open_patient(&bed, 0, 1, &second, &bed.error), BTS_OK);
	bts_group_abort(group);
	put_number(second, "n", 1);
	bts_close(second);
	bed_fini(&bed);
}

/* Killed while it holds the build lock: nobody waits for it, nothing of it is there, and the exit is not called clean. */
static void the_dead_hold_nothing(void **state)
{
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	for (unsigned i = 0; i < 5; i++) {
		kill_child(holder_start(&bed));
		bed_set(&bed, "b", "k", "1");
		bed_check(&bed);
	}
	bed_reopen(&bed);
	bed_holds(&bed, "b", "held", NULL);
	bed_holds(&bed, "b", "k", "1");
	bed_fini(&bed);
}

/* The same file from processes whose pids are equal, in namespaces of their own. */
static void pid_namespaces(void **state)
{
	struct bed bed;
	pid_t pids[2];

	(void)state;
	bed_init_file(&bed);
	put_number(bed.db, "first", 0); /* or both would create the bucket, which is a conflict */
	for (unsigned i = 0; i < 2; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			struct bts *db;
			pid_t inner;
			int status;

			if (unshare(CLONE_NEWPID))
				_exit(77);
			inner = fork();
			if (inner == 0) { /* pid 1 there */
				if (open_patient(&bed, 0, 0, &db, NULL))
					_exit(1);
				for (uint64_t n = 0; n < 100; n++)
					put_number(db, i ? "one" : "zero", n);
				if (i)
					kill(getpid(), SIGKILL); /* pid 1 ignores it from within */
				bts_close(db);
				_exit(0);
			}
			waitpid(inner, &status, 0);
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
		}
	}
	for (unsigned i = 0; i < 2; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
			puts("SKIP: pid namespaces: not permitted here");
			continue;
		}
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
	bed_fini(&bed);
}

#define NOBODY 65534

/* In a child that is nobody: what bts_open answers; when it opens, does the key hold the value. */
static int as_nobody(const struct bed *bed, const char *value, struct bts_error *error, int hold)
{
	struct bts *db;
	struct bts_txn *txn;
	struct bts_bucket *bucket;
	struct bts_slice found;
	enum bts_err err;
	int same;

	(void)hold;
	if (setgid(NOBODY) || setuid(NOBODY))
		return 77;
	err = open_patient(bed, BTS_OPEN_READ_ONLY, 0, &db, error);
	if (err)
		return (int)err;
	if (bts_begin(db, BTS_READ, &txn, NULL) || bts_bucket(txn, bed_text("b"), 0, &bucket, NULL) ||
		bts_get(txn, bucket, bed_text("k"), &found))
		return 100;
	same = found.size == strlen(value) && memcmp(found.data, value, found.size) == 0;
	bts_abort(txn);
	if (hold >= 0) {
		char byte = 'h';

		if (write(hold, &byte, 1) != 1)
			return 101;
		pause();
	}
	bts_close(db);
	return same ? 0 : 102;
}

static int nobody_opens(const struct bed *bed, const char *value)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct bts_error error = { 0 };

		_exit(as_nobody(bed, value, &error, -1));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void reading_without_permission(void **state)
{
	struct bts_error error;
	struct bed bed;
	struct bts *db;
	char lock[80], byte;
	int ready[2];
	pid_t pid;

	(void)state;
	if (geteuid() != 0) {
		puts("SKIP: reading without permission: needs root, to become somebody else");
		return;
	}
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "v");
	snprintf(lock, sizeof(lock), "%s-lock", bed.path);
	assert_int_equal(chmod(bed.path, 0644), 0);
	assert_int_equal(chmod(lock, 0644), 0);
	/* Beside a writer it would not be seen: refused. */
	assert_int_equal(nobody_opens(&bed, "v"), BTS_BUSY);
	bts_close(bed.db);
	/* At rest and clean: read. */
	assert_int_equal(nobody_opens(&bed, "v"), 0);
	/* With no lock file that could be made here, too. */
	unlink(lock);
	assert_int_equal(nobody_opens(&bed, "v"), 0);
	/* While it reads nobody may write. */
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0)
		_exit(as_nobody(&bed, "v", &error, ready[1]));
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(open_patient(&bed, 0, 0, &db, &error), BTS_BUSY);
	assert_int_equal(open_patient(&bed, BTS_OPEN_READ_ONLY, 0, &db, &error), BTS_OK);
	bts_close(db);
	kill_child(pid);
	close(ready[0]);
	close(ready[1]);
	/* Not closed in order: somebody who may write must recover it. */
	pid = fork();
	if (pid == 0) {
		if (open_patient(&bed, 0, 0, &db, NULL))
			_exit(1);
		put_number(db, "n", 1);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(chmod(lock, 0644), 0);
	assert_int_equal(nobody_opens(&bed, "v"), BTS_NEEDS_RECOVERY);
	bed_open(&bed);
	bed_holds(&bed, "b", "k", "v");
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_holder_is_named),
		cmocka_unit_test(opening_waits_for_nobody),
		cmocka_unit_test(the_dead_hold_nothing),
		cmocka_unit_test(pid_namespaces),
		cmocka_unit_test(reading_without_permission),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
