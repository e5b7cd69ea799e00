/*
 * How long until a store answers its first get, opened after a clean end and after a crash?  The crash is a
 * process of its own, killed with SIGKILL while it overwrites random entries in batches of 1000.  Pages stay
 * in the system's cache.  What the killed process had acknowledged must be there.
 */
#include "bench.h"
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPEN_BATCH 1000u
#define OPEN_BATCHES 20u /* acknowledged before the kill */

extern char **environ;

/* In the process that will be killed: the directory of the store, the version it writes, the seed of its entries. */
static const char *open_victim_dir;
static uint64_t open_victim_version, open_victim_seed;
static char **open_argv;
static int open_argc;

/* An entry of each store whose version is known: of those overwritten at the time of a kill it is not. */
static uint64_t open_known[BENCH_LANES];

static int open_option(const char *name, const char *value)
{
	if (strcmp(name, "--victim-dir") == 0)
		open_victim_dir = value;
	else if (strcmp(name, "--victim-version") == 0)
		open_victim_version = strtoull(value, NULL, 10);
	else if (strcmp(name, "--victim-seed") == 0)
		open_victim_seed = strtoull(value, NULL, 10);
	else
		return 0;
	return 1;
}

/* Overwrite for ever, a byte to stdout for each batch. */
static int open_victim(struct bench *bench)
{
	struct bench_lane *lane = &bench->lanes[0];
	uint64_t random = open_victim_seed;
	struct bench_batch batch;
	void *writer = NULL;
	int err = bench_batch_init(&batch, &bench->set, OPEN_BATCH);

	snprintf(lane->dir, sizeof(lane->dir), "%s", open_victim_dir);
	if (!err)
		err = bench_open(bench, lane);
	if (!err) {
		writer = lane->store->writer(lane->handle);
		err = writer ? 0 : -1;
	}
	while (!err) {
		for (batch.count = 0; batch.count < OPEN_BATCH;)
			bench_batch_put(&batch, &bench->set, bench_random(&random) % bench->set.entries,
				(uint8_t)open_victim_version);
		err = lane->store->write(writer, batch.ops, batch.count);
		if (!err && write(STDOUT_FILENO, "", 1) != 1)
			break;
	}
	fprintf(stderr, "the process to be killed: %s\n", bench_failure());
	return 1;
}

static pid_t open_spawn(struct bench *bench, struct bench_lane *lane, int fds[2])
{
	posix_spawn_file_actions_t actions;
	char version[8], seed[24], **argv = calloc((size_t)open_argc + 16, sizeof(*argv));
	const char *const more[] = {"--stores", lane->name, "--dir", bench->dir, "--victim-dir", lane->dir,
		"--victim-version", version, "--victim-seed", seed, "--quiet"};
	pid_t pid = -1;
	int err;

	if (!argv)
		return -1;
	snprintf(version, sizeof(version), "%u", lane->version);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)bench->round_seed);
	memcpy(argv, open_argv, (size_t)open_argc * sizeof(*argv));
	for (size_t i = 0; i < BENCH_COUNT(more); i++)
		argv[(size_t)open_argc + i] = (char *)(uintptr_t)more[i];
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclose(&actions, fds[0]);
	err = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	free(argv);
	if (err)
		return (pid_t)bench_fail("a process of its own: %s", strerror(err));
	return pid;
}

/* Let it acknowledge some batches, and kill it within the next. */
static int open_crash(struct bench *bench, struct bench_lane *lane)
{
	uint64_t random = bench->round_seed + lane->version;
	unsigned batches = 0;
	char byte;
	int fds[2];
	pid_t pid;

	if (pipe(fds))
		return bench_fail("pipe: %s", strerror(errno));
	pid = open_spawn(bench, lane, fds);
	close(fds[1]);
	while (pid > 0 && batches < OPEN_BATCHES && read(fds[0], &byte, 1) == 1)
		batches++;
	if (pid > 0) {
		usleep((useconds_t)(bench_random(&random) % 5000));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	close(fds[0]);
	if (pid <= 0)
		return -1;
	return batches == OPEN_BATCHES ? 0 : bench_fail("%s: the process to be killed failed", lane->name);
}

/* The clock runs until the value is there. */
static int open_timed(struct bench *bench, struct bench_lane *lane, uint64_t index, double *sample)
{
	const struct bench_store *store = lane->store;
	struct bench_slice value = {NULL, 0};
	double start = bench_clock();
	uint8_t key[BENCH_KEY_MAX];
	int found = -1, err = bench_open(bench, lane);
	void *reader;

	if (err)
		return err;
	reader = store->reader(lane->handle);
	err = reader ? store->begin(reader, true) : -1;
	if (!err) {
		bench_key(&bench->set, index, false, key);
		found = store->get(reader, key, &value);
		*sample = (bench_clock() - start) * 1e6;
		if (found > 0)
			err = bench_verify_value(bench, lane, index, &value);
		else
			err = found < 0 ? -1 : bench_fail("%s lost an entry", lane->name);
		store->end(reader);
	}
	if (reader)
		store->reader_close(reader);
	return err;
}

/* All that was acknowledged. */
static int open_check(struct bench *bench, struct bench_lane *lane)
{
	uint64_t random = bench->round_seed;
	void *reader = lane->store->reader(lane->handle);
	int err = reader ? lane->store->begin(reader, false) : -1;

	if (!err) {
		for (unsigned i = 0; i < OPEN_BATCH * OPEN_BATCHES && !err; i++) {
			uint64_t index = bench_random(&random) % bench->set.entries;
			struct bench_slice value;
			uint8_t key[BENCH_KEY_MAX];

			bench_key(&bench->set, index, false, key);
			if (lane->store->get(reader, key, &value) != 1)
				err = bench_fail("%s lost an entry in a crash", lane->name);
			else
				err = bench_verify_value(bench, lane, index, &value);
		}
		lane->store->end(reader);
	}
	if (reader)
		lane->store->reader_close(reader);
	return err;
}

/* a: after a crash */
static int open_slice(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	uint64_t random = bench->round_seed, *known = &open_known[lane - bench->lanes];
	int err = 0;

	if (work->a) {
		lane->version++;
		err = open_crash(bench, lane);
		*known = bench_random(&random) % bench->set.entries;
		random = bench->round_seed;
		for (unsigned i = 0; i < OPEN_BATCH * OPEN_BATCHES; i++)
			lane->versions[bench_random(&random) % bench->set.entries] = lane->version;
	}
	if (!err)
		err = open_timed(bench, lane, *known, sample);
	if (!err && work->a)
		err = open_check(bench, lane);
	if (!err)
		bench_close(lane);
	return err;
}

static const struct bench_work works[] = {
	{.name = "open and first get, after a clean end", .unit = "us", .slice = open_slice, .a = 0},
	{.name = "open and first get, after a crash", .unit = "us", .slice = open_slice, .a = 1},
};

int main(int argc, char **argv)
{
	static const struct bench_program program = {.question = "open",
		.about = "How long until a store answers its first get?",
		.option = open_option};
	static struct bench bench;
	int err;

	open_argc = argc;
	open_argv = argv;
	err = bench_init(&bench, argc, argv, &program);
	if (!err && open_victim_dir)
		return open_victim(&bench);
	if (!err)
		err = bench_fill(&bench);
	for (unsigned i = 0; i < bench.lane_count && !err; i++)
		bench_close(&bench.lanes[i]);
	if (!err)
		err = bench_run(&bench, works, BENCH_COUNT(works));
	return bench_end(&bench, err);
}
