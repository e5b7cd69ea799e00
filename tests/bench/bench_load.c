/*
 * How long does it take to fill an empty store, how large is it then, and how much was written for it?
 * Entries in key order or at random, each batch a durable transaction; in bulk is what the store has for
 * entries in order.  The time is that until the store is closed, as closing is where some do what they put off; the
 * size and what was written are taken after it was opened again, has come to rest and was closed.  A load is
 * whole whatever --seconds says.
 *
 * What was written is what this process gave to write calls (wchar of /proc/self/io; all of these stores
 * write so), for a byte of keys and values.  As every transaction is flushed, all of it went to the disk;
 * what the file system adds is not in it, neither is the shared memory of SQLite's log.
 */
#include "bench.h"
#include <stdlib.h>

#define LOAD_SORTED_BATCH 10000u
#define LOAD_RANDOM_BATCH 1000u

enum load_how { LOAD_SORTED, LOAD_RANDOM, LOAD_BULK, LOAD_HOWS };
enum load_what { LOAD_TIME, LOAD_SIZE, LOAD_WRITTEN };

/* Of the load of this round. */
static struct load_done {
	unsigned round; /* + 1; 0: never */
	double us, bytes, written;
} load_done[LOAD_HOWS][BENCH_LANES];

/* With the closing. */
static int load_timed(struct bench *bench, struct bench_lane *lane, enum load_how how, double *us)
{
	uint32_t *order = how == LOAD_RANDOM ? bench_order(bench) : NULL;
	double start;
	int err;

	if (how == LOAD_RANDOM && !order)
		return -1;
	start = bench_clock();
	if (how == LOAD_BULK)
		err = lane->store->bulk(lane->handle, LOAD_SORTED_BATCH);
	else
		err = bench_load(bench, lane, order, order ? LOAD_RANDOM_BATCH : LOAD_SORTED_BATCH);
	bench_close(lane);
	*us = (bench_clock() - start) / (double)bench->set.entries * 1e6;
	free(order);
	return err;
}

static int load_once(struct bench *bench, struct bench_lane *lane, enum load_how how, struct load_done *done)
{
	const struct bench_set *set = &bench->set;
	uint64_t gets = set->entries < 10000 ? set->entries : 10000, before = 0, after = 0, bytes = 0;
	double logical = (double)(set->entries * (set->key_size + set->value_size));
	int written = bench_bytes_written(&before), err = bench_discard(bench, lane);

	if (!err)
		err = bench_open(bench, lane);
	if (!err)
		err = load_timed(bench, lane, how, &done->us);
	if (!err)
		err = bench_open(bench, lane);
	if (!err && lane->store->settle)
		err = lane->store->settle(lane->handle);
	if (!err)
		err = bench_verify(bench, lane, gets);
	if (err)
		return err;
	bench_close(lane);
	if (!written)
		written = bench_bytes_written(&after);
	done->written = written ? BENCH_SKIP : (double)(after - before) / logical;
	err = bench_dir_bytes(lane->dir, &bytes);
	done->bytes = (double)bytes;
	done->round = bench->round + 1;
	return err ? err : bench_discard(bench, lane);
}

/* a: how; b: what of it */
static int load_slice(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	struct load_done *done = &load_done[work->a][lane - bench->lanes];
	int err = 0;

	if (work->a == LOAD_BULK && !lane->store->bulk)
		return 0;
	if (done->round != bench->round + 1)
		err = load_once(bench, lane, (enum load_how)work->a, done);
	*sample = work->b == LOAD_TIME ? done->us : work->b == LOAD_SIZE ? done->bytes : done->written;
	return err;
}

#define LOAD(text, of, how, what)                                                                            \
	{                                                                                                    \
		.name = text, .unit = of, .slice = load_slice, .a = how, .b = what                           \
	}

static const struct bench_work works[] = {
	LOAD("sorted load, batches of 10000", "us", LOAD_SORTED, LOAD_TIME),
	LOAD("file size after sorted load", "bytes", LOAD_SORTED, LOAD_SIZE),
	LOAD("written for a byte, sorted load", "ratio", LOAD_SORTED, LOAD_WRITTEN),
	LOAD("random load, batches of 1000", "us", LOAD_RANDOM, LOAD_TIME),
	LOAD("file size after random load", "bytes", LOAD_RANDOM, LOAD_SIZE),
	LOAD("written for a byte, random load", "ratio", LOAD_RANDOM, LOAD_WRITTEN),
	LOAD("bulk load, batches of 10000", "us", LOAD_BULK, LOAD_TIME),
	LOAD("file size after bulk load", "bytes", LOAD_BULK, LOAD_SIZE),
	LOAD("written for a byte, bulk load", "ratio", LOAD_BULK, LOAD_WRITTEN),
};

int main(int argc, char **argv)
{
	static const struct bench_program program = {.question = "load",
		.about = "How long does it take to fill a store, and what does it cost on disk?"};
	static struct bench bench;
	int err = bench_init(&bench, argc, argv, &program);

	if (!err)
		err = bench_run(&bench, works, BENCH_COUNT(works));
	return bench_end(&bench, err);
}
