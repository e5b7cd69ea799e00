/*
 * How long after its commit a transaction is visible on followers: for tests/bench/lag, which starts them.
 *
 *	lag_watch SECONDS RATE PRIMARY-FILE FOLLOWER-FILE...
 *
 * Writers commit RATE transactions a second, durably, in equal steps; a thread for each follower's file sleeps in
 * bts_ship_wait and notes when which transaction was the newest.  The lag of a transaction is from the return of its
 * commit to the moment the follower's newest is at or above it; all on one clock.
 */
#include <btree_store/ship.h>

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WRITERS 16
#define FOLLOWERS_MAX 8
#define FLUSHES 200

struct sample {
	bts_txid txid;
	double ms;
};

struct lag_follower {
	struct bts *db;
	pthread_t thread;
	struct sample *samples;
	size_t count;
};

struct lag_writer {
	pthread_t thread;
	unsigned index;
	struct sample *samples;
	size_t count;
};

static struct bts *primary;
static unsigned seconds, rate;
static size_t most;
static double begin_ms;
static atomic_bool stopping;
static struct lag_follower followers[FOLLOWERS_MAX];
static struct lag_writer writers[WRITERS];

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void die(const char *what, const struct bts_error *error)
{
	fprintf(stderr, "lag_watch: %s: %s\n", what, error ? error->text : "failed");
	exit(1);
}

static void sleep_until(double ms)
{
	struct timespec at = {(time_t)(ms / 1e3), 0};

	at.tv_nsec = (long)((ms - (double)at.tv_sec * 1e3) * 1e6);
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void *watch(void *arg)
{
	struct lag_follower *f = arg;
	bts_txid head = 0;

	while (!atomic_load(&stopping) && f->count < most) {
		if (bts_ship_wait(f->db, head, 100, &head))
			continue;
		f->samples[f->count++] = (struct sample){head, now_ms()};
	}
	return NULL;
}

static void write_one(struct lag_writer *w, unsigned step)
{
	struct bts_error error = {0};
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	char key[32], value[100];
	bts_txid txid;

	snprintf(key, sizeof(key), "%u", (step * 2654435761u) % 100000);
	memset(value, 'v', sizeof(value));
	if (bts_begin(primary, BTS_WRITE, &txn, &error) || bts_bucket(txn, (struct bts_slice){"b", 1}, BTS_CREATE, &bucket, &error) ||
		bts_put(txn, bucket, (struct bts_slice){key, strlen(key)}, (struct bts_slice){value, sizeof(value)}, 0))
		die("put", &error);
	if (bts_commit_id(txn, &txid, &error)) {
		if (error.code != BTS_CONFLICT)
			die("commit", &error);
		bts_abort(txn);
		return;
	}
	w->samples[w->count++] = (struct sample){txid, now_ms()};
}

static void *writer_main(void *arg)
{
	struct lag_writer *w = arg;
	unsigned step;

	for (step = w->index; step < seconds * rate; step += WRITERS) {
		sleep_until(begin_ms + (double)step * 1e3 / rate);
		write_one(w, step);
	}
	return NULL;
}

static int compare_ms(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void report(const char *name, double *ms, size_t n)
{
	if (!n)
		die(name, NULL);
	qsort(ms, n, sizeof(*ms), compare_ms);
	printf("%s n=%zu min=%.2f p50=%.2f p90=%.2f p99=%.2f p999=%.2f max=%.2f ms\n", name, n, ms[0], ms[n / 2], ms[n * 9 / 10],
		ms[n * 99 / 100], ms[n * 999 / 1000], ms[n - 1]);
}

/* Each commit's first moment on the follower; its samples are ordered by both members. */
static void report_follower(unsigned index, double *ms)
{
	const struct lag_follower *f = &followers[index];
	size_t n = 0, i, k;
	char name[32];

	for (i = 0; i < WRITERS; i++) {
		size_t at = 0;

		for (k = 0; k < writers[i].count; k++) {
			while (at < f->count && f->samples[at].txid < writers[i].samples[k].txid)
				at++;
			/* Seen before its writer was told is not late. */
			if (at < f->count)
				ms[n++] = f->samples[at].ms > writers[i].samples[k].ms ? f->samples[at].ms - writers[i].samples[k].ms : 0;
		}
	}
	snprintf(name, sizeof(name), "lag follower=%u frames=%zu", index + 1, f->count);
	report(name, ms, n);
}

/* What one flush costs on this disk, alone: appended pages and fdatasync. */
static void report_flush(const char *path, double *ms)
{
	static char page[4096];
	char beside[4096];
	size_t i;
	int fd;

	snprintf(beside, sizeof(beside), "%s.flush", path);
	fd = open(beside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		die(beside, NULL);
	for (i = 0; i < FLUSHES; i++) {
		double start = now_ms();

		if (pwrite(fd, page, sizeof(page), (off_t)(i % 16 * sizeof(page))) != (ssize_t)sizeof(page) || fdatasync(fd))
			die(beside, NULL);
		ms[i] = now_ms() - start;
	}
	close(fd);
	unlink(beside);
	report("flush", ms, FLUSHES);
}

int main(int argc, char **argv)
{
	struct bts_options options;
	struct bts_error error;
	double *ms;
	int i, count = argc - 4;

	if (count < 1 || count > FOLLOWERS_MAX) {
		fprintf(stderr, "usage: lag_watch SECONDS RATE PRIMARY-FILE FOLLOWER-FILE...\n");
		return 2;
	}
	seconds = (unsigned)strtoul(argv[1], NULL, 10);
	rate = (unsigned)strtoul(argv[2], NULL, 10);
	most = (size_t)seconds * rate * 2 + FLUSHES;
	ms = calloc(most, sizeof(*ms));
	bts_options_init(&options);
	if (!ms || bts_open(argv[3], &options, &primary, &error))
		die(argv[3], &error);
	report_flush(argv[3], ms);
	options.flags = BTS_OPEN_READ_ONLY | BTS_OPEN_EXISTING;
	for (i = 0; i < count; i++) {
		followers[i].samples = calloc(most, sizeof(struct sample));
		if (!followers[i].samples || bts_open(argv[4 + i], &options, &followers[i].db, &error) ||
			pthread_create(&followers[i].thread, NULL, watch, &followers[i]))
			die(argv[4 + i], &error);
	}
	begin_ms = now_ms() + 100;
	for (i = 0; i < WRITERS; i++) {
		writers[i].index = (unsigned)i;
		writers[i].samples = calloc(most, sizeof(struct sample));
		if (!writers[i].samples || pthread_create(&writers[i].thread, NULL, writer_main, &writers[i]))
			die("writer", NULL);
	}
	for (i = 0; i < WRITERS; i++)
		pthread_join(writers[i].thread, NULL);
	printf("rate wanted=%u seconds=%u took=%.2f\n", rate, seconds, (now_ms() - begin_ms) / 1e3);
	sleep_until(now_ms() + 1000); /* the last ones arrive */
	atomic_store(&stopping, true);
	for (i = 0; i < count; i++) {
		pthread_join(followers[i].thread, NULL);
		report_follower((unsigned)i, ms);
		bts_close(followers[i].db);
	}
	bts_close(primary);
	return 0;
}
