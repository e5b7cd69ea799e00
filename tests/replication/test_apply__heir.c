/*
 * The applying process is killed at each named step while another process reads the follower's file.  The
 * reader's open snapshot stays what it was, byte for byte, through all of it; new ones are of the base or of the target, never
 * refused and never torn.  The heir stands at base or target, and the reader sees what he sees.
 */
#include "apply_bed.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t seed;
static char directory[64];
static const char *kill_point;

static int fault_kills(struct bts_env *env, const char *point)
{
	(void)env;
	if (!strcmp(point, kill_point))
		kill(getpid(), SIGKILL);
	return 0;
}

static struct bts_env_ops killing_ops;
static struct bts_env killing = {&killing_ops};

/* Handles are not inherited: the child opens both files itself. */
static pid_t applier(const char *source, const char *path, const char *point)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct bts *follower, *primary;
		struct bts_options options;
		struct bts_position base;
		struct bed_frame *frame;
		struct bts_error error;

		kill_point = point;
		bts_options_init(&options);
		options.env = &killing;
		options.flags = BTS_OPEN_FOLLOWER;
		options.map_bytes = UINT64_C(256) << 20;
		if (bts_open(path, &options, &follower, &error) || bts_ship_position(follower, &base, &error))
			goto failed;
		primary = bed_open(bts_env_posix(), source, BTS_OPEN_READ_ONLY, 0);
		frame = bed_frame_new(primary, &base);
		if (!bed_apply(follower, frame, NULL, &error))
			_exit(0);
	failed:
		fprintf(stderr, "%s: %s\n", point, error.text);
		_exit(1);
	}
	assert_true(pid > 0);
	return pid;
}

/* True when it was killed at the point, false when it finished without coming there. */
static bool applied_until(const char *source, const char *path, const char *point)
{
	pid_t pid = applier(source, path, point);
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status)) {
		assert_int_equal(WTERMSIG(status), SIGKILL);
		return true;
	}
	assert_int_equal(WEXITSTATUS(status), 0);
	return false;
}

static enum bts_err read_digest(struct bts *db, uint8_t digest[16])
{
	struct bts_error error;
	struct bts_txn *txn;
	enum bts_err err = bts_begin(db, BTS_READ, &txn, &error);

	if (err)
		return err;
	bed_digest(txn, digest);
	bts_abort(txn);
	return BTS_OK;
}

static bool same(const uint8_t a[16], const uint8_t b[16])
{
	return !memcmp(a, b, 16);
}

/* Whoever takes a log's name away has said before that nobody needs it: who begins to read right after finds all there is. */
static struct bts *newcomer;
static unsigned newcomers;

static int unlink_then_read(struct bts_env *env, const char *path)
{
	uint8_t digest[16];
	int os = bts_env_posix()->ops->path_unlink(env, path);

	if (!os && newcomer) {
		assert_int_equal(read_digest(newcomer, digest), BTS_OK);
		newcomers++;
	}
	return os;
}

static struct bts_env_ops watching_ops;
static struct bts_env watching = {&watching_ops};

/* Kill at the point, read, inherit, read, all the while with a snapshot of before open. */
static void killed_at(struct bts *primary, struct bts *reader, const char *source, const char *path,
	const char *point, struct rng *rng)
{
	uint8_t before[16], after[16], found[16], inherited[16], holding[16];
	struct bts_txn *held;
	struct bts *heir;

	assert_int_equal(bts_begin(reader, BTS_READ, &held, NULL), BTS_OK);
	bed_digest(held, holding);
	do { /* a frame of which nothing is redirected passes some points by */
		assert_int_equal(read_digest(reader, before), BTS_OK);
		for (unsigned i = 0; i < 12; i++)
			bed_commit(primary, rng);
		assert_int_equal(read_digest(primary, after), BTS_OK);
	} while (!applied_until(source, path, point));
	assert_int_equal(read_digest(reader, found), BTS_OK);
	assert_true(same(found, before) || same(found, after));

	newcomer = bed_open(bts_env_posix(), path, BTS_OPEN_READ_ONLY, 0);
	heir = bed_open(&watching, path, BTS_OPEN_FOLLOWER, 0);
	bts_close(newcomer);
	newcomer = NULL;
	assert_int_equal(read_digest(heir, inherited), BTS_OK);
	assert_true(same(inherited, before) || same(inherited, after));
	assert_true(same(found, inherited) || same(inherited, after));
	assert_int_equal(read_digest(reader, found), BTS_OK);
	assert_true(same(found, inherited));
	bed_assert_clean(heir);
	if (bed_position(heir).txid != bed_position(primary).txid)
		bed_ship(primary, heir, rng);
	bed_assert_same(primary, heir);
	bed_digest(held, found);
	assert_true(same(found, holding));
	bts_close(heir);
	assert_int_equal(read_digest(reader, found), BTS_OK);
	assert_true(same(found, after));
	bed_digest(held, found);
	assert_true(same(found, holding));
	bts_abort(held);
}

static void test_killed_at_each_step(void **state)
{
	static const char *const points[] = {"apply.unit", "apply.received", "apply.proven", "apply.flush",
		"apply.slot", "apply.slot_flush", "apply.publish", "apply.copy", "apply.checkpoint",
		"recover.envelope", "recover.envelope.written", "recover.envelope.done", "apply.truncate"};
	struct bts *primary, *reader, *follower;
	struct bts_env *env = bts_env_posix();
	char source[96], path[96];
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	snprintf(source, sizeof(source), "%s/primary", directory);
	snprintf(path, sizeof(path), "%s/follower", directory);
	primary = bed_open(env, source, 0, 4096);
	bed_create(env, path, primary, 4096);
	follower = bed_open(env, path, BTS_OPEN_FOLLOWER, 0);
	for (unsigned i = 0; i < 25; i++) {
		bed_commit(primary, &rng);
		bed_ship(primary, follower, &rng);
	}
	reader = bed_open(env, path, BTS_OPEN_READ_ONLY, 0);
	bts_close(follower);
	for (size_t i = 0; i < sizeof(points) / sizeof(*points); i++)
		killed_at(primary, reader, source, path, points[i], &rng);
	assert_true(newcomers > 0);
	bts_close(reader);
	bts_close(primary);
}

/* A frame does not wait for the snapshot of another process, which dies with it. */
static void test_reader_dies(void **state)
{
	struct bts *primary, *follower;
	struct bts_env *env = bts_env_posix();
	char source[96], path[96], byte;
	struct bts_apply_stat stat;
	struct rng rng;
	int ready[2];
	pid_t pid;

	(void)state;
	rng_init(&rng, seed + 1);
	snprintf(source, sizeof(source), "%s/primary2", directory);
	snprintf(path, sizeof(path), "%s/follower2", directory);
	primary = bed_open(env, source, 0, 4096);
	bed_create(env, path, primary, 4096);
	follower = bed_open(env, path, BTS_OPEN_FOLLOWER, 0);
	for (unsigned i = 0; i < 20; i++)
		bed_commit(primary, &rng);
	bed_ship(primary, follower, &rng);
	for (unsigned i = 0; i < 20; i++)
		bed_commit(primary, &rng);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		struct bts *reader = bed_open(env, path, BTS_OPEN_READ_ONLY, 0);
		struct bts_txn *txn;

		if (bts_begin(reader, BTS_READ, &txn, NULL) || write(ready[1], "r", 1) != 1)
			_exit(1);
		alarm(1); /* longer than the frame takes to arrive; then it dies by the signal */
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	bed_ship(primary, follower, &rng);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	bts_apply_stat(follower, &stat);
	assert_true(stat.redirected_pages > 0);
	bed_assert_same(primary, follower);
	bts_close(follower);
	bts_close(primary);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed_at_each_step),
		cmocka_unit_test(test_reader_dies),
	};
	char command[128];
	int failed;

	seed = rng_seed_from(argc, argv, 1);
	killing_ops = *bts_env_posix()->ops;
	killing_ops.fault = fault_kills;
	watching_ops = *bts_env_posix()->ops;
	watching_ops.path_unlink = unlink_then_read;
	snprintf(directory, sizeof(directory), "/tmp/test_apply__heir.XXXXXX");
	if (!mkdtemp(directory))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -r %s", directory);
	return system(command) || failed;
}
