/*
 * How long does reading in order take?  All entries, forward and back, in nanoseconds an entry; and 100
 * entries from a random one on.  Each slice is one transaction, the values' first bytes are read.
 */
#include "bench.h"

#define SCAN_SHORT 100u

struct scan_job {
	struct bench *bench;
	struct bench_lane *lane;
	void *reader;
	bool back;
	uint64_t random;
	uint64_t scans, seen, sum;
	double seconds;
};

static int scan_full_once(struct scan_job *job)
{
	uint64_t seen = 0, sum = 0;
	int err = job->lane->store->scan(job->reader, NULL, job->back, UINT64_MAX, &seen, &sum);

	job->seen += seen;
	job->sum += sum;
	job->scans++;
	return err;
}

static int scan_short_once(struct scan_job *job)
{
	const struct bench_set *set = &job->bench->set;
	uint64_t seen = 0, sum = 0;
	uint8_t key[BENCH_KEY_MAX];
	int err;

	bench_key(set, bench_random(&job->random) % set->entries, false, key);
	err = job->lane->store->scan(job->reader, key, job->back, SCAN_SHORT, &seen, &sum);
	job->seen += seen;
	job->sum += sum;
	job->scans++;
	return err;
}

static int scan_timed(struct scan_job *job, int (*once)(struct scan_job *), double limit)
{
	double start = bench_clock();
	int err;

	job->random = job->bench->round_seed;
	job->scans = job->seen = job->sum = 0;
	do {
		err = once(job);
		job->seconds = bench_clock() - start;
	} while (!err && job->seconds < limit);
	return err;
}

static uint64_t scan_sum(const struct scan_job *job, uint64_t from, uint64_t count)
{
	uint64_t sum = 0;

	for (uint64_t i = from; i < from + count; i++)
		sum += *bench_value(&job->bench->set, i, job->lane->versions[i]);
	return sum;
}

/* What the same scans should have given. */
static int scan_check(const struct scan_job *job, bool full)
{
	uint64_t entries = job->bench->set.entries, random = job->bench->round_seed, seen = 0, sum = 0;

	if (full) {
		seen = entries * job->scans;
		sum = scan_sum(job, 0, entries) * job->scans;
	}
	for (uint64_t i = 0; !full && i < job->scans; i++) {
		uint64_t at = bench_random(&random) % entries, count = job->back ? at + 1 : entries - at;

		count = count < SCAN_SHORT ? count : SCAN_SHORT;
		seen += count;
		sum += scan_sum(job, job->back ? at + 1 - count : at, count);
	}
	if (seen == job->seen && sum == job->sum)
		return 0;
	return bench_fail("%s gave %llu entries where %llu are, or others than were stored", job->lane->name,
		(unsigned long long)job->seen, (unsigned long long)seen);
}

/* a: full; b: back.  Something first, to bring the caches back from the store before. */
static int scan_slice(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	const struct bench_store *store = lane->store;
	struct scan_job job = {.bench = bench, .lane = lane, .back = work->b};
	double limit = bench->options.seconds;
	int err;

	job.reader = store->reader(lane->handle);
	if (!job.reader)
		return -1;
	err = store->begin(job.reader, false);
	if (!err) {
		err = scan_timed(&job, scan_short_once, limit / 10);
		if (!err)
			err = scan_timed(&job, work->a ? scan_full_once : scan_short_once, limit);
		store->end(job.reader);
	}
	store->reader_close(job.reader);
	if (!err)
		err = scan_check(&job, work->a);
	if (work->a)
		*sample = job.seconds / (double)job.seen * 1e9;
	else
		*sample = job.seconds / (double)job.scans * 1e6;
	return err;
}

static const struct bench_work works[] = {
	{.name = "full scan forward", .unit = "ns", .slice = scan_slice, .a = 1, .b = 0},
	{.name = "full scan back", .unit = "ns", .slice = scan_slice, .a = 1, .b = 1},
	{.name = "100 entries from a random key forward", .unit = "us", .slice = scan_slice, .a = 0, .b = 0},
	{.name = "100 entries from a random key back", .unit = "us", .slice = scan_slice, .a = 0, .b = 1},
};

int main(int argc, char **argv)
{
	static const struct bench_program program = {
		.question = "scan", .about = "How long does reading in order take?"};
	static struct bench bench;
	int err = bench_init(&bench, argc, argv, &program);

	if (!err)
		err = bench_fill(&bench);
	if (!err)
		err = bench_run(&bench, works, BENCH_COUNT(works));
	return bench_end(&bench, err);
}
