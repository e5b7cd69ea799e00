/* Clock, random numbers, directories, threads and messages of the benchmark programs. */
#include "bench.h"
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static _Thread_local char util_text[512] = "failed";

int bench_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(util_text, sizeof(util_text), format, args);
	va_end(args);
	return -1;
}

const char *bench_failure(void)
{
	return util_text;
}

static volatile sig_atomic_t util_signal;

static void util_stop(int number)
{
	util_signal = number;
}

/* Once: the second one ends the program where it stands. */
void bench_catch(void)
{
	const struct sigaction action = {
		.sa_handler = util_stop, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

int bench_stopped(void)
{
	return util_signal ? bench_fail("stopped by signal %d", (int)util_signal) : 0;
}

double bench_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

uint64_t bench_random(uint64_t *state)
{
	*state += UINT64_C(0x9e3779b97f4a7c15);
	return bench_hash(*state);
}

uint32_t *bench_order(const struct bench *bench)
{
	uint64_t n = bench->set.entries, seed = bench->round_seed;
	uint32_t *order = malloc(n * sizeof(*order));

	if (!order) {
		bench_fail("no memory for %llu entries", (unsigned long long)n);
		return NULL;
	}
	for (uint64_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	for (uint64_t i = n; i > 1; i--) {
		uint64_t j = bench_random(&seed) % i;
		uint32_t kept = order[i - 1];

		order[i - 1] = order[j];
		order[j] = kept;
	}
	return order;
}

static _Thread_local uint64_t util_bytes;

/* Files that hold no data: locks and shared memory of processes, a log for people (RocksDB's). */
static bool util_aside(const char *name)
{
	static const char *const ends[] = {"-lock", "lock.mdb", "-shm", "LOCK", "LOG"};
	size_t length = strlen(name);

	for (size_t i = 0; i < BENCH_COUNT(ends); i++)
		if (length >= strlen(ends[i]) && strcmp(name + length - strlen(ends[i]), ends[i]) == 0)
			return true;
	return false;
}

static int util_add(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
	if (type == FTW_F && !util_aside(path + ftw->base))
		util_bytes += (uint64_t)stat->st_size;
	return 0;
}

/* A file that goes away meanwhile (RocksDB's) ends the walk: once more then. */
int bench_dir_bytes(const char *dir, uint64_t *bytes)
{
	for (int tries = 0; tries < 10; tries++) {
		util_bytes = 0;
		if (nftw(dir, util_add, 16, FTW_PHYS) == 0) {
			*bytes = util_bytes;
			return 0;
		}
	}
	return bench_fail("%s: %s", dir, strerror(errno));
}

int bench_bytes_written(uint64_t *bytes)
{
	FILE *file = fopen("/proc/self/io", "r");
	char line[128];
	unsigned long long written;
	int err = -1;

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "wchar: %llu", &written) == 1) {
			*bytes = written;
			err = 0;
		}
	}
	if (file)
		fclose(file);
	return err ? bench_fail("/proc/self/io does not say what was written") : 0;
}

struct util_thread {
	pthread_t thread;
	int (*fn)(void *);
	void *arg;
	int err;
	char text[sizeof(util_text)];
};

static void *util_thread_run(void *arg)
{
	struct util_thread *thread = arg;

	thread->err = thread->fn(thread->arg);
	if (thread->err)
		memcpy(thread->text, util_text, sizeof(util_text));
	return NULL;
}

int bench_threads(unsigned count, int (*fn)(void *), void *args, size_t size)
{
	struct util_thread *threads = calloc(count, sizeof(*threads));
	int err = 0;

	if (!threads)
		return bench_fail("no memory for threads");
	for (unsigned i = 0; i < count; i++) {
		threads[i] = (struct util_thread){.fn = fn, .arg = (uint8_t *)args + i * size};
		/* fn of the others may wait for all of them: there is no going on without one. */
		if (pthread_create(&threads[i].thread, NULL, util_thread_run, &threads[i])) {
			fprintf(stderr, "no thread: %s\n", strerror(errno));
			exit(1);
		}
	}
	for (unsigned i = 0; i < count; i++) {
		pthread_join(threads[i].thread, NULL);
		if (threads[i].err)
			err = bench_fail("%s", threads[i].text);
	}
	free(threads);
	return err;
}

static int util_order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(const double *samples, unsigned count)
{
	double sorted[BENCH_ROUNDS];

	if (!count)
		return 0;
	memcpy(sorted, samples, count * sizeof(*samples));
	qsort(sorted, count, sizeof(*sorted), util_order);
	return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

void bench_progress(struct bench *bench, const char *what, uint64_t done, uint64_t whole)
{
	static double next;
	bool terminal = isatty(STDERR_FILENO);
	double now = bench_clock();

	if (bench->quiet || (next > 0 && now < next))
		return;
	if (next > 0) {
		fprintf(stderr, terminal ? "\r\033[K%s: %s" : "%s: %s", bench->program->question, what);
		if (whole)
			fprintf(stderr, ", %.0f%%", 100.0 * (double)done / (double)whole);
		fputs(terminal ? "" : "\n", stderr);
	}
	next = now + (terminal ? 0.2 : 10);
}
