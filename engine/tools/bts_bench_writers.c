/*
 * bts bench FILE writers: N writers of durable single puts on one small bucket, as threads of one process and as
 * processes, beside LMDB when built with it.
 *
 * A cell is a number of writers, threads or processes, and the keys they write: each writer its own, or all the same
 * hundred, to which they add.  Both stores have their crews, which work in turn for a moment each until both have worked
 * long enough, so that whatever the disk does falls on both.  The medians of the rounds are shown.  What is in the file
 * afterwards is compared with what was acknowledged.  The time of a flush on this disk is taken before every cell.
 */
#include "bts_bench.h"
#include "bts_tool.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WRITERS_MAX 64u
#define WRITERS_OWN_KEYS 16u /* of each writer */
#define WRITERS_HOT_KEYS 100u
#define WRITERS_HOT_FIRST (WRITERS_MAX * WRITERS_OWN_KEYS)
#define WRITERS_STORES_MAX 2
#define WRITERS_ROUNDS_MAX 99
#define WRITERS_FLUSHES 20
#define WRITERS_SLICE_US 50000

static const struct {
	unsigned writers;
	bool processes;
} writers_crews[] = {
	{1, false},
	{2, false},
	{4, false},
	{16, false},
	{64, false},
	{1, true},
	{2, true},
	{4, true},
	{16, true},
};
#define WRITERS_CREWS (sizeof(writers_crews) / sizeof(writers_crews[0]))
#define WRITERS_CELLS (2 * WRITERS_CREWS) /* own keys, then hot ones */

/* Memory of all the writers of a cell, threads or processes.  turn: the store that works now, or one of these. */
enum writers_turn { WRITERS_WAIT = -1, WRITERS_STOP = -2 };
struct writers_board {
	pthread_mutex_t lock;
	pthread_cond_t turned;
	_Atomic int turn;
	_Atomic unsigned ready, failed, busy;
	struct writers_count {
		uint64_t commits, conflicts, flushes;
		char text[256];
	} counts[WRITERS_STORES_MAX][WRITERS_MAX];
};

struct writers_result {
	double rate[WRITERS_ROUNDS_MAX]; /* commits a second */
	uint64_t commits, conflicts, flushes;
};

struct writers {
	const struct bts_args *args;
	const struct bts_bench_writer *stores[WRITERS_STORES_MAX];
	int store_count;
	char path[WRITERS_STORES_MAX][4096];
	struct writers_board *board;
	struct writers_result results[WRITERS_CELLS][WRITERS_STORES_MAX];
	double flush[WRITERS_CELLS * WRITERS_ROUNDS_MAX];
	size_t flush_count;
	struct bts_progress progress;
};

/* One writer of a cell. */
struct writers_job {
	struct writers *writers;
	int store;
	void *handle; /* NULL: a process, which opens its own */
	unsigned index;
	bool hot;
	pthread_t thread;
	pid_t pid;
};

/* A cell at work. */
struct writers_cell {
	unsigned count; /* writers of each store */
	bool processes, hot;
	void *handles[WRITERS_STORES_MAX];
	double seconds[WRITERS_STORES_MAX]; /* worked */
	unsigned started;
	struct writers_job jobs[WRITERS_STORES_MAX * WRITERS_MAX];
};

static uint32_t writers_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(*state >> 33);
}

static void writers_set_turn(struct writers_board *board, int turn)
{
	pthread_mutex_lock(&board->lock);
	atomic_store(&board->turn, turn);
	pthread_cond_broadcast(&board->turned);
	pthread_mutex_unlock(&board->lock);
}

/* Wait for the turn of this store; false: it is over. */
static bool writers_await(struct writers_board *board, int store)
{
	int turn;

	for (;;) {
		atomic_fetch_add(&board->busy, 1);
		if (atomic_load(&board->turn) == store)
			return true;
		atomic_fetch_sub(&board->busy, 1);
		pthread_mutex_lock(&board->lock);
		while ((turn = atomic_load(&board->turn)) != store && turn != WRITERS_STOP)
			pthread_cond_wait(&board->turned, &board->lock);
		pthread_mutex_unlock(&board->lock);
		if (turn == WRITERS_STOP)
			return false;
	}
}

static void writers_loop(struct writers_job *job, void *handle)
{
	const struct bts_bench_writer *store = job->writers->stores[job->store];
	struct writers_board *board = job->writers->board;
	struct writers_count *count = &board->counts[job->store][job->index];
	size_t value_size = job->writers->args->value_size;
	uint64_t random = job->writers->args->seed * WRITERS_MAX + job->index;
	int err = 0;

	while (!err && writers_await(board, job->store)) {
		uint32_t key = job->index * WRITERS_OWN_KEYS + (uint32_t)(count->commits % WRITERS_OWN_KEYS);

		if (job->hot)
			key = WRITERS_HOT_FIRST + writers_random(&random) % WRITERS_HOT_KEYS;
		err = store->put(handle, key, job->hot ? 1 : count->commits + 1, value_size, job->hot,
			&count->conflicts, count->text);
		if (err)
			atomic_fetch_add(&board->failed, 1);
		else
			count->commits++;
		atomic_fetch_sub(&board->busy, 1);
	}
}

static void *writers_run(void *arg)
{
	struct writers_job *job = arg;
	const struct bts_bench_writer *store = job->writers->stores[job->store];
	struct writers_board *board = job->writers->board;
	struct writers_count *count = &board->counts[job->store][job->index];
	void *handle = job->handle ? job->handle : store->open(job->writers->path[job->store], count->text);

	if (!handle)
		atomic_fetch_add(&board->failed, 1);
	atomic_fetch_add(&board->ready, 1);
	if (handle)
		writers_loop(job, handle);
	if (handle && !job->handle) {
		count->flushes = store->flushes ? store->flushes(handle) : 0;
		store->close(handle);
	}
	return NULL;
}

static bool writers_start(struct writers_cell *cell, struct writers_job *job)
{
	if (!cell->processes)
		return pthread_create(&job->thread, NULL, writers_run, job) == 0;
	job->pid = fork();
	if (job->pid == 0) {
		writers_run(job);
		_exit(0);
	}
	return job->pid > 0;
}

/* Both crews, each waiting for its turn. */
static void writers_hire(struct writers *writers, struct writers_cell *cell)
{
	struct writers_count *first = &writers->board->counts[0][0];
	unsigned total = cell->count * (unsigned)writers->store_count;

	fflush(NULL);
	while (cell->started < total) {
		struct writers_job *job = &cell->jobs[cell->started];
		int s = (int)(cell->started / cell->count);

		*job = (struct writers_job){.writers = writers,
			.store = s,
			.handle = cell->handles[s],
			.index = cell->started % cell->count,
			.hot = cell->hot};
		if (!writers_start(cell, job)) {
			atomic_fetch_add(&writers->board->failed, 1);
			snprintf(first->text, sizeof(first->text), "only %u writers could be started",
				cell->started);
			break;
		}
		cell->started++;
	}
	while (atomic_load(&writers->board->ready) < cell->started)
		usleep(100);
}

static void writers_dismiss(struct writers *writers, struct writers_cell *cell)
{
	writers_set_turn(writers->board, WRITERS_STOP);
	for (unsigned i = 0; i < cell->started; i++)
		if (cell->processes)
			waitpid(cell->jobs[i].pid, NULL, 0);
		else
			pthread_join(cell->jobs[i].thread, NULL);
}

/* A short while of work on one store; ends when its last commit is through. */
static void writers_slice(struct writers *writers, struct writers_cell *cell, int store)
{
	struct writers_board *board = writers->board;
	double start = bts_progress_clock();

	writers_set_turn(board, store);
	usleep(WRITERS_SLICE_US);
	writers_set_turn(board, WRITERS_WAIT);
	while (atomic_load(&board->busy) > 0)
		usleep(100);
	cell->seconds[store] += bts_progress_clock() - start;
}

static int writers_fail(struct writers *writers, const char *text)
{
	bts_progress_end(&writers->progress);
	bts_tool_fail(writers->args, BTS_IO, "%s", text);
	return -1;
}

/* Every acknowledged commit is in the file, and nothing else. */
static int writers_verify(
	struct writers *writers, const struct writers_cell *cell, int s, void *handle, char text[256])
{
	const struct bts_bench_writer *store = writers->stores[s];
	uint64_t found = 0, acknowledged = 0, number;

	for (unsigned i = 0; i < cell->count; i++) {
		uint64_t commits = writers->board->counts[s][i].commits;

		acknowledged += commits;
		if (cell->hot || commits == 0)
			continue;
		number = (commits - 1) % WRITERS_OWN_KEYS;
		if (store->get(handle, i * WRITERS_OWN_KEYS + (uint32_t)number, &number, text))
			return -1;
		found += number;
	}
	for (uint32_t key = 0; key < WRITERS_HOT_KEYS && cell->hot; key++) {
		if (store->get(handle, WRITERS_HOT_FIRST + key, &number, text))
			return -1;
		found += number;
	}
	if (found == acknowledged)
		return 0;
	snprintf(text, 256, "%s holds %llu of %llu acknowledged commits", store->name,
		(unsigned long long)found, (unsigned long long)acknowledged);
	return -1;
}

static void writers_remove(struct writers *writers, int store)
{
	char lock[sizeof(writers->path[0]) + 8];

	unlink(writers->path[store]);
	snprintf(lock, sizeof(lock), "%s-lock", writers->path[store]);
	unlink(lock);
}

/* A new file with all keys. */
static int writers_prepare(struct writers *writers, struct writers_cell *cell, int s,
	struct writers_result *result, char text[256])
{
	const struct bts_bench_writer *store = writers->stores[s];
	void *handle = store->open(writers->path[s], text);

	cell->handles[s] = handle;
	if (!handle ||
		store->fill(handle, WRITERS_HOT_FIRST + WRITERS_HOT_KEYS, writers->args->value_size, text))
		return -1;
	if (!cell->processes) {
		result->flushes -= store->flushes ? store->flushes(handle) : 0;
		return 0;
	}
	store->close(handle);
	cell->handles[s] = NULL;
	return 0;
}

static int writers_sum(struct writers *writers, struct writers_cell *cell, int s,
	struct writers_result *result, int round, char text[256])
{
	const struct bts_bench_writer *store = writers->stores[s];
	uint64_t commits = 0;

	for (unsigned i = 0; i < cell->count; i++) {
		const struct writers_count *one = &writers->board->counts[s][i];

		if (one->text[0]) {
			memcpy(text, one->text, sizeof(one->text));
			return -1;
		}
		commits += one->commits;
		result->conflicts += one->conflicts;
		result->flushes += one->flushes;
	}
	result->commits += commits;
	result->rate[round] = (double)commits / cell->seconds[s];
	if (cell->handles[s])
		result->flushes += store->flushes ? store->flushes(cell->handles[s]) : 0;
	else
		cell->handles[s] = store->open(writers->path[s], text);
	return cell->handles[s] ? writers_verify(writers, cell, s, cell->handles[s], text) : -1;
}

static void writers_clear(struct writers_board *board)
{
	atomic_store(&board->turn, WRITERS_WAIT);
	atomic_store(&board->ready, 0);
	atomic_store(&board->failed, 0);
	atomic_store(&board->busy, 0);
	memset(board->counts, 0, sizeof(board->counts));
}

static int writers_measure(struct writers *writers, size_t which, int round)
{
	struct writers_cell cell = {
		.count = writers_crews[which % WRITERS_CREWS].writers,
		.processes = writers_crews[which % WRITERS_CREWS].processes,
		.hot = which >= WRITERS_CREWS,
	};
	struct writers_result *results = writers->results[which];
	int count = writers->store_count, err = 0;
	char text[256] = "no memory";

	writers_clear(writers->board);
	for (int s = 0; s < count && !err; s++)
		err = writers_prepare(writers, &cell, s, &results[s], text);
	if (!err) {
		writers_hire(writers, &cell);
		for (int turn = round; cell.seconds[count - 1] < (double)writers->args->seconds ||
				       cell.seconds[0] < (double)writers->args->seconds;
			turn++) {
			if (atomic_load(&writers->board->failed))
				break;
			writers_slice(writers, &cell, turn % count);
		}
		writers_dismiss(writers, &cell);
	}
	for (int s = 0; s < count && !err; s++)
		err = writers_sum(writers, &cell, s, &results[s], round, text);
	for (int s = 0; s < count; s++) {
		if (cell.handles[s])
			writers->stores[s]->close(cell.handles[s]);
		writers_remove(writers, s);
	}
	return err ? writers_fail(writers, text) : 0;
}

static int writers_order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double writers_median(double *all, size_t count)
{
	qsort(all, count, sizeof(*all), writers_order);
	return count % 2 ? all[count / 2] : (all[count / 2 - 1] + all[count / 2]) / 2;
}

/* Overwriting 4 KiB in place. */
static int writers_flush_time(struct writers *writers)
{
	static const uint8_t page[4096];
	double times[WRITERS_FLUSHES], start;
	int fd = open(writers->path[0], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	bool ok = fd >= 0 && pwrite(fd, page, sizeof(page), 0) == sizeof(page) && fdatasync(fd) == 0;

	for (size_t i = 0; i < WRITERS_FLUSHES && ok; i++) {
		start = bts_progress_clock();
		ok = pwrite(fd, page, sizeof(page), 0) == sizeof(page) && fdatasync(fd) == 0;
		times[i] = bts_progress_clock() - start;
	}
	if (fd >= 0)
		close(fd);
	unlink(writers->path[0]);
	if (!ok)
		return writers_fail(writers, strerror(errno));
	writers->flush[writers->flush_count++] = writers_median(times, WRITERS_FLUSHES);
	return 0;
}

static double writers_ratio(struct writers *writers, size_t cell)
{
	double ratios[WRITERS_ROUNDS_MAX];

	for (size_t round = 0; round < writers->args->rounds; round++)
		ratios[round] = writers->results[cell][0].rate[round] / writers->results[cell][1].rate[round];
	return writers_median(ratios, writers->args->rounds);
}

static void writers_name(char name[64], size_t cell)
{
	unsigned count = writers_crews[cell % WRITERS_CREWS].writers;

	snprintf(name, 64, "%u %s%s, %s", count,
		writers_crews[cell % WRITERS_CREWS].processes ? "process" : "thread",
		count == 1					? ""
		: writers_crews[cell % WRITERS_CREWS].processes ? "es"
								: "s",
		cell < WRITERS_CREWS ? "own keys" : "adding to 100 keys");
}

static void writers_print(struct writers *writers, double flush)
{
	const struct bts_args *args = writers->args;
	bool both = writers->store_count > 1;

	printf("durable single puts on one bucket, values of %llu bytes, median of %llu rounds of %llu s;\n"
	       "overwriting 4 KiB and flushing takes %.0f microseconds\n%-34s",
		(unsigned long long)args->value_size, (unsigned long long)args->rounds,
		(unsigned long long)args->seconds, flush * 1e6, "commits a second");
	if (both)
		printf("%12s%14s%14s", "ours : LMDB", "ours", "LMDB");
	else
		printf("%14s", "ours");
	printf("%18s%11s\n", "commits a flush", "conflicts");
	for (size_t c = 0; c < WRITERS_CELLS; c++) {
		struct writers_result *ours = &writers->results[c][0], *other = &writers->results[c][1];
		double ratio = both ? writers_ratio(writers, c) : 0;
		char name[64];

		writers_name(name, c);
		printf("%-34s", name);
		if (both)
			printf("%12.2f%14.0f%14.0f", ratio, writers_median(ours->rate, args->rounds),
				writers_median(other->rate, args->rounds));
		else
			printf("%14.0f", writers_median(ours->rate, args->rounds));
		printf("%18.2f%10.1f%%\n",
			(double)ours->commits / (double)(ours->flushes ? ours->flushes : 1),
			100.0 * (double)ours->conflicts / (double)(ours->commits ? ours->commits : 1));
	}
}

static void writers_print_json(struct writers *writers, double flush)
{
	const struct bts_args *args = writers->args;

	printf("{\"value_size\":%llu,\"rounds\":%llu,\"seconds\":%llu,\"flush_us\":%.1f,\"cells\":[",
		(unsigned long long)args->value_size, (unsigned long long)args->rounds,
		(unsigned long long)args->seconds, flush * 1e6);
	for (size_t c = 0; c < WRITERS_CELLS; c++) {
		struct writers_result *ours = &writers->results[c][0];
		double ratio = writers->store_count > 1 ? writers_ratio(writers, c) : 0;

		printf("%s{\"writers\":%u,\"as\":\"%s\",\"keys\":\"%s\",\"commits_a_second\":%.1f",
			c ? "," : "", writers_crews[c % WRITERS_CREWS].writers,
			writers_crews[c % WRITERS_CREWS].processes ? "processes" : "threads",
			c < WRITERS_CREWS ? "own" : "hot", writers_median(ours->rate, args->rounds));
		if (writers->store_count > 1)
			printf(",\"lmdb_commits_a_second\":%.1f,\"ours_to_lmdb\":%.3f",
				writers_median(writers->results[c][1].rate, args->rounds), ratio);
		printf(",\"commits\":%llu,\"flushes\":%llu,\"conflicts\":%llu}",
			(unsigned long long)ours->commits, (unsigned long long)ours->flushes,
			(unsigned long long)ours->conflicts);
	}
	puts("]}");
}

/* Usable by all processes that share the memory. */
static void writers_share(struct writers_board *board)
{
	pthread_mutexattr_t lock;
	pthread_condattr_t turned;

	pthread_mutexattr_init(&lock);
	pthread_mutexattr_setpshared(&lock, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&board->lock, &lock);
	pthread_mutexattr_destroy(&lock);
	pthread_condattr_init(&turned);
	pthread_condattr_setpshared(&turned, PTHREAD_PROCESS_SHARED);
	pthread_cond_init(&board->turned, &turned);
	pthread_condattr_destroy(&turned);
}

static int writers_bench(struct writers *writers)
{
	uint64_t done = 0, whole = writers->args->rounds * WRITERS_CELLS;
	double flush;

	writers_share(writers->board);
	bts_progress_begin(&writers->progress, writers->args, "cells");
	for (int round = 0; round < (int)writers->args->rounds; round++) {
		for (size_t c = 0; c < WRITERS_CELLS; c++) {
			if (writers_flush_time(writers))
				return BTS_EXIT_FAILURE;
			if (writers_measure(writers, c, round))
				return BTS_EXIT_FAILURE;
			done++;
			bts_progress_step(&writers->progress, done, done, whole);
		}
	}
	bts_progress_end(&writers->progress);
	flush = writers_median(writers->flush, writers->flush_count);
	if (writers->args->json)
		writers_print_json(writers, flush);
	else
		writers_print(writers, flush);
	return BTS_EXIT_OK;
}

int bts_bench_writers(const struct bts_args *args)
{
	struct writers *writers = calloc(1, sizeof(*writers));
	int status;

	if (!writers)
		return bts_tool_fail(args, BTS_MEMORY, "no memory");
	writers->args = args;
	writers->stores[writers->store_count++] = &bts_bench_writer_ours;
#ifdef HAVE_LMDB
	if (!args->no_lmdb)
		writers->stores[writers->store_count++] = &bts_bench_writer_lmdb;
#endif
	snprintf(writers->path[0], sizeof(writers->path[0]), "%s", args->file);
	snprintf(writers->path[1], sizeof(writers->path[1]), "%s.lmdb", args->file);
	writers->board = mmap(
		NULL, sizeof(*writers->board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (strcmp(args->words[0], "writers") != 0)
		status = bts_tool_fail(args, BTS_INVALID, "bench knows 'writers', not '%s'", args->words[0]);
	else if (args->value_size < 8 || args->value_size > BTS_BENCH_VALUE_MAX)
		status = bts_tool_fail(
			args, BTS_INVALID, "with 'writers' a value has 8 to %d bytes", BTS_BENCH_VALUE_MAX);
	else if (strlen(args->file) > sizeof(writers->path[0]) - 16)
		status = bts_tool_fail(args, BTS_INVALID, "the path is too long");
	else if (access(writers->path[0], F_OK) == 0 || access(writers->path[1], F_OK) == 0)
		status = bts_tool_fail(
			args, BTS_EXISTS, "is there already: bench makes and removes its own files");
	else if (writers->board == MAP_FAILED)
		status = bts_tool_fail(args, BTS_MEMORY, "no memory");
	else
		status = writers_bench(writers);
	if (writers->board != MAP_FAILED)
		munmap(writers->board, sizeof(*writers->board));
	free(writers);
	return status;
}
