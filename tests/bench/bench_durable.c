/*
 * How long does one durable put take, and how many a second do concurrent writers get through?  Each writer
 * is a thread, each put replaces the value of a random entry in a transaction of its own.
 */
#include "bench.h"
#include <pthread.h>
#include <stdlib.h>

#define DURABLE_WRITERS 64u
#define DURABLE_VERIFY 1000u

struct durable_job {
	struct bench *bench;
	struct bench_lane *lane;
	pthread_barrier_t *barrier;
	uint64_t seed, puts;
	double start, end;
};

static int durable_timed(struct durable_job *job, void *writer, struct bench_batch *batch)
{
	const struct bench_set *set = &job->bench->set;
	double limit = job->bench->options.seconds;
	uint64_t random = job->seed;
	int err = 0;

	job->start = job->end = bench_clock();
	while (!err && job->end - job->start < limit) {
		batch->count = 0;
		bench_batch_put(batch, set, bench_random(&random) % set->entries, job->lane->version);
		err = job->lane->store->write(writer, batch->ops, batch->count);
		job->puts += !err;
		job->end = bench_clock();
	}
	return err;
}

static int durable_thread(void *arg)
{
	struct durable_job *job = arg;
	const struct bench_store *store = job->lane->store;
	struct bench_batch batch;
	void *writer = store->writer(job->lane->handle);
	int err = bench_batch_init(&batch, &job->bench->set, 1);

	if (!writer)
		err = -1;
	pthread_barrier_wait(job->barrier);
	if (!err)
		err = durable_timed(job, writer, &batch);
	if (writer)
		store->writer_close(writer);
	bench_batch_fini(&batch);
	return err;
}

/* Note what was written, and look whether it is there. */
static int durable_after(
	struct bench *bench, struct bench_lane *lane, const struct durable_job *jobs, unsigned writers)
{
	int err = 0;

	for (unsigned w = 0; w < writers; w++) {
		uint64_t random = jobs[w].seed;

		for (uint64_t i = 0; i < jobs[w].puts; i++)
			lane->versions[bench_random(&random) % bench->set.entries] = lane->version;
	}
	if (lane->store->quiet)
		err = lane->store->quiet(lane->handle);
	return err ? err : bench_verify(bench, lane, DURABLE_VERIFY);
}

static int durable_slice(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	static struct durable_job jobs[DURABLE_WRITERS];
	pthread_barrier_t barrier;
	double start = 0, end = 0;
	uint64_t puts = 0;
	int err;

	lane->version++;
	pthread_barrier_init(&barrier, NULL, work->threads);
	for (unsigned i = 0; i < work->threads; i++)
		jobs[i] = (struct durable_job){.bench = bench,
			.lane = lane,
			.barrier = &barrier,
			.seed = bench->round_seed + i * 1000003};
	err = bench_threads(work->threads, durable_thread, jobs, sizeof(jobs[0]));
	pthread_barrier_destroy(&barrier);
	for (unsigned i = 0; i < work->threads; i++) {
		start = !i || jobs[i].start < start ? jobs[i].start : start;
		end = jobs[i].end > end ? jobs[i].end : end;
		puts += jobs[i].puts;
	}
	*sample = work->more ? (double)puts / (end - start) : (end - start) / (double)puts * 1e6;
	return err ? err : durable_after(bench, lane, jobs, work->threads);
}

#define DURABLE(count)                                                                                       \
	{                                                                                                    \
		.name = #count " concurrent durable writers", .unit = "ops/s", .more = true,                 \
		.threads = count, .slice = durable_slice                                                     \
	}

static const struct bench_work works[] = {
	{.name = "single durable put", .unit = "us", .threads = 1, .slice = durable_slice},
	DURABLE(2),
	DURABLE(4),
	DURABLE(8),
	DURABLE(16),
	DURABLE(32),
	DURABLE(64),
};

int main(int argc, char **argv)
{
	static const struct bench_program program = {
		.question = "durable", .about = "How fast are durable puts, alone and concurrent?"};
	static struct bench bench;
	int err = bench_init(&bench, argc, argv, &program);

	if (!err)
		err = bench_fill(&bench);
	if (!err)
		err = bench_run(&bench, works, BENCH_COUNT(works));
	return bench_end(&bench, err);
}
