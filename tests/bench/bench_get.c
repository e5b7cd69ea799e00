/*
 * How long does a get take?  Random entries, entries that are not there, and a few hot ones among all
 * (zipfian, theta 0.99, scattered over the keys); many gets in one transaction, or one in each; one thread or
 * two.  With threads the time is a thread's own for a get.
 */
#include "bench.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { GET_RANDOM, GET_MISSING, GET_ZIPFIAN };
#define GET_ORDER ((size_t)1 << 21) /* indexes made before the clock runs, then repeated */
#define GET_STRETCH 64u		    /* gets between two looks at the clock */
#define GET_THREADS 2u

/* The indexes of a round, the same for all stores. */
static struct {
	uint32_t *order;
	uint64_t seed;
	bool zipfian;
} get_plan;

struct get_job {
	struct bench *bench;
	struct bench_lane *lane;
	pthread_barrier_t *barrier;
	size_t first; /* in the order */
	bool each, missing;
	uint64_t gets, sum;
	double seconds;
};

/* J. Gray et al., Quickly Generating Billion-Record Synthetic Databases, 1994. */
static void get_zipfian(uint64_t entries, uint64_t seed)
{
	const double theta = 0.99, n = (double)entries, alpha = 1 / (1 - theta), half = 1 + pow(0.5, theta);
	double zeta = 0, eta;

	for (uint64_t i = 1; i <= entries; i++)
		zeta += pow((double)i, -theta);
	eta = (1 - pow(2 / n, 1 - theta)) / (1 - half / zeta);
	for (size_t i = 0; i < GET_ORDER; i++) {
		double u = (double)(bench_random(&seed) >> 11) / 9007199254740992.0, at = u * zeta;
		uint64_t rank = at < 1 ? 0 : at < half ? 1 : (uint64_t)(n * pow(eta * u - eta + 1, alpha));

		get_plan.order[i] = (uint32_t)(bench_hash(rank) % entries);
	}
}

static int get_prepare(struct bench *bench, bool zipfian)
{
	uint64_t entries = bench->set.entries, seed = bench->round_seed;

	if (get_plan.order && get_plan.seed == seed && get_plan.zipfian == zipfian)
		return 0;
	if (!get_plan.order)
		get_plan.order = malloc(GET_ORDER * sizeof(*get_plan.order));
	if (!get_plan.order)
		return bench_fail("no memory");
	get_plan.seed = seed;
	get_plan.zipfian = zipfian;
	if (zipfian) {
		get_zipfian(entries, seed);
		return 0;
	}
	for (size_t i = 0; i < GET_ORDER; i++)
		get_plan.order[i] = (uint32_t)(bench_random(&seed) % entries);
	return 0;
}

/* Keys are made before the clock runs: what is measured is the store. */
static void get_keys(const struct get_job *job, uint8_t *keys)
{
	const struct bench_set *set = &job->bench->set;

	for (unsigned i = 0; i < GET_STRETCH; i++)
		bench_key(set, get_plan.order[(job->first + job->gets + i) % GET_ORDER], job->missing,
			keys + i * set->key_size);
}

static int get_some(struct get_job *job, void *reader)
{
	const struct bench_store *store = job->lane->store;
	struct bench_slice value = {NULL, 0};
	uint8_t keys[GET_STRETCH * BENCH_KEY_MAX];
	size_t stride = job->bench->set.key_size;
	uint64_t sum = 0;
	double start;

	get_keys(job, keys);
	start = bench_clock();
	for (unsigned i = 0; i < GET_STRETCH; i++) {
		int found;

		if (job->each && store->begin(reader, true))
			return -1;
		found = store->get(reader, keys + i * stride, &value);
		if (found != !job->missing)
			return found < 0 ? -1
					 : bench_fail("%s %s entry %u", job->lane->name, found ? "made up an" : "lost",
						   get_plan.order[(job->first + job->gets + i) % GET_ORDER]);
		if (found)
			sum += *(const uint8_t *)value.data;
		if (job->each)
			store->end(reader);
	}
	job->seconds += bench_clock() - start;
	job->gets += GET_STRETCH;
	job->sum += sum;
	return 0;
}

static int get_timed(struct get_job *job, void *reader, double limit)
{
	int err;

	job->gets = job->sum = 0;
	job->seconds = 0;
	do
		err = get_some(job, reader);
	while (!err && job->seconds < limit);
	return err;
}

static int get_check(const struct get_job *job)
{
	const struct bench_lane *lane = job->lane;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < job->gets && !job->missing; i++) {
		uint32_t index = get_plan.order[(job->first + i) % GET_ORDER];

		sum += *bench_value(&job->bench->set, index, lane->versions[index]);
	}
	return sum == job->sum ? 0 : bench_fail("%s gave back other values than were stored", lane->name);
}

/* A tenth of the time first, to bring the caches back from the store before. */
static int get_thread(void *arg)
{
	struct get_job *job = arg;
	const struct bench_store *store = job->lane->store;
	double limit = job->bench->options.seconds;
	void *reader = store->reader(job->lane->handle);
	int err = !reader || (!job->each && store->begin(reader, false)) ? -1 : 0;

	pthread_barrier_wait(job->barrier);
	if (!err)
		err = get_timed(job, reader, limit / 10);
	if (!err)
		err = get_timed(job, reader, limit);
	if (!err && !job->each)
		store->end(reader);
	if (reader)
		store->reader_close(reader);
	return err ? err : get_check(job);
}

/* a: what is got; b: a transaction each */
static int get_slice(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	unsigned threads = work->threads ? work->threads : 1;
	struct get_job jobs[GET_THREADS];
	pthread_barrier_t barrier;
	double seconds = 0;
	uint64_t gets = 0;
	int err = get_prepare(bench, work->a == GET_ZIPFIAN);

	if (err)
		return err;
	pthread_barrier_init(&barrier, NULL, threads);
	for (unsigned i = 0; i < threads; i++)
		jobs[i] = (struct get_job){.bench = bench,
			.lane = lane,
			.barrier = &barrier,
			.first = GET_ORDER / threads * i,
			.each = work->b,
			.missing = work->a == GET_MISSING};
	err = bench_threads(threads, get_thread, jobs, sizeof(jobs[0]));
	pthread_barrier_destroy(&barrier);
	for (unsigned i = 0; i < threads; i++) {
		seconds += jobs[i].seconds;
		gets += jobs[i].gets;
	}
	*sample = seconds / (double)gets * 1e6;
	return err;
}

#define GET(text, what, each, count)                                                                         \
	{                                                                                                    \
		.name = text, .unit = "us", .threads = count, .slice = get_slice, .a = what, .b = each       \
	}

static const struct bench_work works[] = {
	GET("random get, one transaction", GET_RANDOM, 0, 1),
	GET("random get, a transaction each", GET_RANDOM, 1, 1),
	GET("missing get, one transaction", GET_MISSING, 0, 1),
	GET("missing get, a transaction each", GET_MISSING, 1, 1),
	GET("zipfian get, one transaction", GET_ZIPFIAN, 0, 1),
	GET("zipfian get, a transaction each", GET_ZIPFIAN, 1, 1),
	GET("random get, one transaction, 2 threads", GET_RANDOM, 0, GET_THREADS),
	GET("random get, a transaction each, 2 threads", GET_RANDOM, 1, GET_THREADS),
	GET("missing get, one transaction, 2 threads", GET_MISSING, 0, GET_THREADS),
	GET("missing get, a transaction each, 2 threads", GET_MISSING, 1, GET_THREADS),
	GET("zipfian get, one transaction, 2 threads", GET_ZIPFIAN, 0, GET_THREADS),
	GET("zipfian get, a transaction each, 2 threads", GET_ZIPFIAN, 1, GET_THREADS),
};

int main(int argc, char **argv)
{
	static const struct bench_program program = {.question = "get", .about = "How long does a get take?"};
	static struct bench bench;
	int err = bench_init(&bench, argc, argv, &program);

	if (!err)
		err = bench_fill(&bench);
	if (!err)
		err = bench_run(&bench, works, BENCH_COUNT(works));
	free(get_plan.order);
	return bench_end(&bench, err);
}
