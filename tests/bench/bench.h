/*
 * What the benchmark programs share: options, the stores filled and aged, interleaved rounds, medians, table,
 * JSON.
 *
 * A program is a list of workloads.  In every round each workload is run for a slice of time on every store,
 * in an order that rotates; a sample comes of each slice, and the median of the rounds is shown.
 *
 *	static const struct bench_work works[] = {{.name = "...", .unit = "us", .slice = get_slice}, ...};
 *	int main(int argc, char **argv)
 *	{
 *		static struct bench bench;
 *		int err = bench_init(&bench, argc, argv, &program);
 *
 *		if (!err)
 *			err = bench_fill(&bench);
 *		if (!err)
 *			err = bench_run(&bench, works, COUNT(works));
 *		return bench_end(&bench, err);
 *	}
 *
 * Functions return 0, or -1 after bench_fail().
 */
#ifndef BENCH_H
#define BENCH_H

#include "bench_store.h"

#define BENCH_LANES 4
#define BENCH_ROUNDS 99
#define BENCH_WORKS 64
#define BENCH_COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct bench;
struct bench_lane;

struct bench_program {
	const char *question; /* "get": the JSON's name, and bench_<question> the program's */
	const char *about;    /* one line for --help */
	unsigned rounds;      /* default of --rounds; 0: 5 */
	bool machine;	      /* no stores: one lane, called "machine" */
	/* An option of the program's own, "--name" and its value: 1 taken, 0 unknown.  NULL: none.  And its lines of --help. */
	int (*option)(const char *name, const char *value);
	const char *option_help;
};

struct bench_options {
	uint64_t entries, age, seed;
	size_t key_size, value_size, prefix;
	unsigned rounds;
	double seconds; /* of a slice */
	bool aged, fill_sorted;
	const char *dir, *stores, *json, *only;
};

struct bench_work {
	const char *name; /* the JSON's workload */
	const char *unit; /* "us", "bytes", "ops/s", "ratio", ... */
	bool more;	  /* more is better */
	unsigned threads; /* 0 means 1 */
	/* *sample as it is; BENCH_SKIP: this store has no such thing. */
	int (*slice)(
		struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample);
	int a, b; /* slice's own */
};
#define BENCH_SKIP (-1.0)

/* A store at work. */
struct bench_lane {
	const struct bench_store *store; /* NULL: the machine */
	const char *name;
	void *handle;	   /* open or NULL */
	uint8_t *versions; /* of each entry's value; changed outside the clock */
	uint8_t version;   /* the newest given */
	char dir[4096];
};

struct bench_result {
	const struct bench_work *work;
	double samples[BENCH_LANES][BENCH_ROUNDS];
	unsigned count[BENCH_LANES];
};

struct bench {
	const struct bench_program *program;
	struct bench_options options;
	struct bench_set set;
	struct bench_lane lanes[BENCH_LANES];
	unsigned lane_count;
	unsigned round;	     /* now running, from 0 */
	uint64_t round_seed; /* the same for all stores, another in each round */
	char dir[4096];	     /* fresh, removed by bench_end */
	struct bench_result results[BENCH_WORKS];
	unsigned result_count;
	bool quiet;
};

/* Options, directory, the set and the chosen stores, not opened.  --help and --list exit. */
int bench_init(struct bench *bench, int argc, char **argv, const struct bench_program *program);
/* Open every store, load it, age it if asked, verify it. */
int bench_fill(struct bench *bench);
/* The rounds.  Several calls add up. */
int bench_run(struct bench *bench, const struct bench_work *works, size_t count);
/* Close, print or report the failure, remove the directory; returns the exit status. */
int bench_end(struct bench *bench, int err);

/* Parts of the above, for programs that do it otherwise. */
int bench_open(struct bench *bench, struct bench_lane *lane);
void bench_close(struct bench_lane *lane); /* NULL handles are fine */
/* Close, remove its files, make the empty directory. */
int bench_discard(struct bench *bench, struct bench_lane *lane);
/* Put all entries as in order (NULL: the keys'), in transactions of batch; versions become 0. */
int bench_load(struct bench *bench, struct bench_lane *lane, const uint32_t *order, uint64_t batch);
/* Random updates, the same for the same seed, in transactions of 1000; with a new version. */
int bench_age(struct bench *bench, struct bench_lane *lane, uint64_t updates, uint64_t seed);
/* Random gets compared byte by byte, and misses. */
int bench_verify(struct bench *bench, struct bench_lane *lane, uint64_t gets);
int bench_verify_value(
	struct bench *bench, struct bench_lane *lane, uint64_t index, const struct bench_slice *value);

/* A transaction being put together; its size is bounded by the batch it was made for. */
struct bench_batch {
	struct bench_op *ops;
	uint8_t *keys;
	size_t count;
};
int bench_batch_init(struct bench_batch *batch, const struct bench_set *set, size_t size);
void bench_batch_fini(struct bench_batch *batch);
void bench_batch_put(struct bench_batch *batch, const struct bench_set *set, uint64_t index, uint8_t version);
void bench_batch_del(struct bench_batch *batch, const struct bench_set *set, uint64_t index);

/* SIGINT and SIGTERM from now on make bench_stopped() fail. */
void bench_catch(void);
double bench_clock(void); /* seconds, monotonic */
uint64_t bench_random(uint64_t *state);
/* All indexes in a random order, that of the round (owned: free); NULL: failed. */
uint32_t *bench_order(const struct bench *bench);
/* Sum of the sizes of the files below dir, locks and shared memory left out. */
int bench_dir_bytes(const char *dir, uint64_t *bytes);
/* Given to write calls by this process so far (wchar of /proc/self/io).  -1: the kernel does not say. */
int bench_bytes_written(uint64_t *bytes);
/* Run fn(arg + i * size) in count threads and wait; -1 when one of them returned nonzero, with its text. */
int bench_threads(unsigned count, int (*fn)(void *), void *args, size_t size);
double bench_median(const double *samples, unsigned count);
/* To stderr, now and then; whole 0: not known. */
void bench_progress(struct bench *bench, const char *what, uint64_t done, uint64_t whole);

#endif
