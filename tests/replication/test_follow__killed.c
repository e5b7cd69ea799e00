/*
 * bts-replicator and a follower as processes of their own, each killed -9 again and again while the primary
 * commits: at the end the follower has the primary's state, and at each start it was openable.
 *
 * This program is the follower too: called with --follow FILE URL it follows until it is killed.
 */
#include "cmocka.h"

#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "replica.h"
#include "rng.h"

#define ROUNDS 15

extern char **environ;
static uint64_t seed;
static char self[PATH_MAX];

static int follow_for_ever(const char *path, const char *url)
{
	const struct follow_options options = {.path = path, .upstream = url, .node = "killed"};
	struct bts_error error;
	struct follow *follow;

	if (follow_start(&options, &follow, &error)) {
		fprintf(stderr, "follower: %s\n", error.text);
		return 1;
	}
	for (;;)
		pause();
}

static pid_t start(char *const argv[])
{
	pid_t pid;

	assert_int_equal(posix_spawn(&pid, argv[0], NULL, NULL, argv, environ), 0);
	return pid;
}

static pid_t start_follower(char *path, char *url)
{
	char option[] = "--follow";
	char *const argv[] = {self, option, path, url, NULL};

	return start(argv);
}

static pid_t start_replicator(char *path, unsigned port)
{
	static char program[PATH_MAX + 20];
	char copy[PATH_MAX], listen[32], data_option[] = "--data", listen_option[] = "--listen";
	char *const argv[] = {program, data_option, path, listen_option, listen, NULL};

	strcpy(copy, self);
	snprintf(program, sizeof(program), "%s/bts-replicator", dirname(copy));
	snprintf(listen, sizeof(listen), "127.0.0.1:%u", port);
	return start(argv);
}

/* It must have died of the signal, not before. */
static void kill_hard(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static unsigned free_port(void)
{
	unsigned port;
	int fd;

	assert_int_equal(serve_listen("127.0.0.1:0", false, &fd, &port, NULL), BTS_OK);
	close(fd);
	return port;
}

static void some_commits(struct bts *db, struct rng *rng, unsigned *round)
{
	unsigned commits = 1 + (unsigned)rng_below(rng, 30), i;

	for (i = 0; i < commits; i++) {
		++*round;
		replica_put(db, (unsigned)rng_below(rng, 5000), 1 + (unsigned)rng_below(rng, 40), *round,
			rng_below(rng, rng_one_in(rng, 20) ? 100000 : 200));
	}
}

static void killed_again_and_again(void **state)
{
	char dir[128], primary[160], copy[160], url[64];
	unsigned port = free_port(), round = 0, i;
	pid_t replicator, follower;
	struct timespec nap = {0};
	struct follow *follow;
	struct bts *db;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	replica_enter(dir, sizeof(dir));
	replica_path(primary, sizeof(primary), dir, "primary");
	replica_path(copy, sizeof(copy), dir, "copy");
	snprintf(url, sizeof(url), "http://127.0.0.1:%u", port);
	db = replica_open(primary, 0);
	replica_put(db, 0, 5000, 0, 100);
	replicator = start_replicator(primary, port);
	follower = start_follower(copy, url);
	for (i = 0; i < ROUNDS; i++) {
		some_commits(db, &rng, &round);
		/* Not waiting for anything: a random moment of whatever goes on. */
		nap.tv_nsec = (long)rng_below(&rng, 150000000);
		nanosleep(&nap, NULL);
		if (i % 3 == 1) {
			kill_hard(replicator);
			replicator = start_replicator(primary, port);
		} else {
			kill_hard(follower);
			follower = start_follower(copy, url);
		}
	}
	kill_hard(follower);
	follow = replica_follow(copy, url, "killed");
	replica_await(follow, replica_txid(db));
	replica_assert_same(db, follow_db(follow));
	follow_stop(follow);
	kill_hard(replicator);
	bts_close(db);
	replica_leave(dir);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed_again_and_again),
	};
	ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (size < 0)
		return 1;
	if (argc == 4 && strcmp(argv[1], "--follow") == 0)
		return follow_for_ever(argv[2], argv[3]);
	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
