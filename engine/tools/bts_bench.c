/*
 * bts bench: this store, beside LMDB when built with it.
 *
 * Every measure is taken in turn on one store and on the other, so that whatever else the machine does falls
 * on both; each round begins with new files, and the median of the rounds is shown.  Keys and values are made
 * before the clock runs, both stores get the same ones in the same order.
 */
#include "bts_bench.h"
#include "bts_tool.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum measure { LOAD_SORTED, LOAD_BULK, LOAD_RANDOM, GET_ONE_TXN, GET_EACH_TXN, SCAN, PUT_DURABLE, MEASURES };

static const struct {
	const char *name, *json;
} measures[MEASURES] = {
	[LOAD_SORTED] = {"load, sorted, in batches", "load_sorted"},
	[LOAD_BULK] = {"load, sorted, in bulk, in batches", "load_bulk"},
	[LOAD_RANDOM] = {"load, random, in batches", "load_random"},
	[GET_ONE_TXN] = {"get, random, one transaction", "get_one_txn"},
	[GET_EACH_TXN] = {"get, random, a transaction each", "get_each_txn"},
	[SCAN] = {"scan, all in order", "scan"},
	[PUT_DURABLE] = {"put, durable, one at a time", "put_durable"},
};

#define BENCH_STORES_MAX 2
#define BENCH_ROUNDS_MAX 99

struct bench {
	const struct bts_args *args;
	const struct bts_bench_store *stores[BENCH_STORES_MAX];
	int store_count;
	struct bts_bench_set set;
	uint32_t *sorted, *shuffled;
	uint64_t random;
	double seconds[MEASURES][BENCH_STORES_MAX][BENCH_ROUNDS_MAX]; /* an operation */
	struct bts_progress progress;
	char path[BENCH_STORES_MAX][4096];
};

static uint64_t bench_random(struct bench *bench)
{
	uint64_t x = bench->random += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static void bench_shuffle(struct bench *bench)
{
	for (uint64_t i = bench->set.count; i > 1; i--) {
		uint64_t j = bench_random(bench) % i;
		uint32_t kept = bench->shuffled[i - 1];

		bench->shuffled[i - 1] = bench->shuffled[j];
		bench->shuffled[j] = kept;
	}
}

/* Keys: the number, big-endian and spread over the 64-bit range, padded in front of it. */
static bool bench_make(struct bench *bench)
{
	const struct bts_args *args = bench->args;
	struct bts_bench_set *set = &bench->set;
	uint64_t stride;

	*set = (struct bts_bench_set){
		.key_size = args->key_size, .value_size = args->value_size, .count = args->count};
	set->keys = calloc(set->count, set->key_size);
	set->value = malloc(set->value_size + 1);
	bench->sorted = calloc(set->count, sizeof(uint32_t));
	bench->shuffled = calloc(set->count, sizeof(uint32_t));
	if (!set->keys || !set->value || !bench->sorted || !bench->shuffled)
		return false;
	stride = UINT64_MAX / set->count;
	for (uint64_t i = 0; i < set->count; i++) {
		uint8_t *key = set->keys + i * set->key_size;
		uint64_t number = i * stride;

		memset(key, 'k', set->key_size - 8);
		for (int byte = 0; byte < 8; byte++)
			key[set->key_size - 8 + (size_t)byte] = (uint8_t)(number >> (56 - 8 * byte));
		bench->sorted[i] = bench->shuffled[i] = (uint32_t)i;
	}
	for (size_t i = 0; i < set->value_size; i++)
		set->value[i] = (uint8_t)bench_random(bench);
	return true;
}

static void bench_remove(struct bench *bench, int store)
{
	char lock[sizeof(bench->path[0]) + 8];

	unlink(bench->path[store]);
	snprintf(lock, sizeof(lock), "%s-lock", bench->path[store]);
	unlink(lock);
}

static int bench_fail(struct bench *bench, const char *text)
{
	bts_progress_end(&bench->progress);
	bts_tool_fail(bench->args, BTS_IO, "%s", text);
	return -1;
}

/* One measure on one open store. */
static int bench_measure(struct bench *bench, enum measure measure, int store, int round, void *handle)
{
	const struct bts_bench_store *ops = bench->stores[store];
	const struct bts_bench_set *set = &bench->set;
	uint64_t operations = set->count, seen = set->count, sum = 0;
	uint64_t expected = set->value_size ? set->count * set->value[0] : 0;
	char text[256] = "";
	double start = bts_progress_clock();
	int err = 0;

	switch (measure) {
	case LOAD_SORTED:
		err = ops->load(handle, set, bench->sorted, set->count, bench->args->batch, text);
		break;
	case LOAD_BULK:
		err = ops->load_bulk(handle, set, bench->args->batch, text);
		break;
	case LOAD_RANDOM:
		err = ops->load(handle, set, bench->shuffled, set->count, bench->args->batch, text);
		break;
	case GET_ONE_TXN:
	case GET_EACH_TXN:
		err = ops->get(handle, set, bench->shuffled, set->count, measure == GET_EACH_TXN, &sum, text);
		break;
	case SCAN:
		err = ops->scan(handle, &seen, &sum, text);
		break;
	case PUT_DURABLE:
		operations = bench->args->puts < set->count ? bench->args->puts : set->count;
		err = ops->load(handle, set, bench->shuffled, operations, 1, text);
		break;
	case MEASURES:
		break;
	}
	bench->seconds[measure][store][round] = (bts_progress_clock() - start) / (double)operations;
	if (!err && measure >= GET_ONE_TXN && measure <= SCAN && (sum != expected || seen != set->count)) {
		snprintf(text, sizeof(text), "%s did not give back what was stored", ops->name);
		err = -1;
	}
	return err ? bench_fail(bench, text) : 0;
}

/* Open new files, take the measures from first to last in turn on each store, remove the files. */
static int bench_stretch(struct bench *bench, int round, enum measure first, enum measure last)
{
	void *handles[BENCH_STORES_MAX] = {NULL};
	char text[256] = "no memory";
	int err = 0, count = bench->store_count;

	for (int s = 0; s < count && !err; s++) {
		handles[s] = bench->stores[s]->open(bench->path[s], &bench->set, text);
		err = handles[s] ? 0 : bench_fail(bench, text);
	}
	for (enum measure m = first; m <= last && !err; m++) {
		for (int turn = 0; turn < count && !err; turn++) {
			int s = (turn + round) % count;

			err = bench_measure(bench, m, s, round, handles[s]);
		}
		bts_progress_step(&bench->progress, (uint64_t)round * MEASURES + m + 1,
			(uint64_t)round * MEASURES + m + 1, bench->args->rounds * MEASURES);
	}
	for (int s = 0; s < count; s++) {
		if (handles[s])
			bench->stores[s]->close(handles[s]);
		bench_remove(bench, s);
	}
	return err;
}

static int bench_order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double bench_median(struct bench *bench, enum measure measure, int store)
{
	double *all = bench->seconds[measure][store];
	size_t rounds = bench->args->rounds;

	qsort(all, rounds, sizeof(*all), bench_order);
	return rounds % 2 ? all[rounds / 2] : (all[rounds / 2 - 1] + all[rounds / 2]) / 2;
}

static void bench_print(struct bench *bench)
{
	const struct bts_args *args = bench->args;

	printf("%llu records, keys of %llu bytes, values of %llu, batches of %llu, median of %llu rounds\n",
		(unsigned long long)args->count, (unsigned long long)args->key_size,
		(unsigned long long)args->value_size, (unsigned long long)args->batch,
		(unsigned long long)args->rounds);
	if (bench->store_count > 1)
		printf("%-34s%12s%14s%14s\n", "microseconds an operation", "LMDB : ours", "ours", "LMDB");
	else
		printf("%-34s%14s\n", "microseconds an operation", "ours");
	for (enum measure m = 0; m < MEASURES; m++) {
		double ours = bench_median(bench, m, 0) * 1e6;

		printf("%-34s", measures[m].name);
		if (bench->store_count > 1) {
			double other = bench_median(bench, m, 1) * 1e6;

			printf("%12.2f%14.3f%14.3f\n", other / ours, ours, other);
		} else {
			printf("%14.3f\n", ours);
		}
	}
}

static void bench_print_json(struct bench *bench)
{
	const struct bts_args *args = bench->args;

	printf("{\"count\":%llu,\"key_size\":%llu,\"value_size\":%llu,\"batch\":%llu,\"rounds\":%llu",
		(unsigned long long)args->count, (unsigned long long)args->key_size,
		(unsigned long long)args->value_size, (unsigned long long)args->batch,
		(unsigned long long)args->rounds);
	for (enum measure m = 0; m < MEASURES; m++) {
		double ours = bench_median(bench, m, 0) * 1e6;

		printf(",\"%s\":{\"us\":%.4f", measures[m].json, ours);
		if (bench->store_count > 1) {
			double other = bench_median(bench, m, 1) * 1e6;

			printf(",\"lmdb_us\":%.4f,\"lmdb_to_ours\":%.3f", other, other / ours);
		}
		putchar('}');
	}
	puts("}");
}

static int bench_run(struct bench *bench)
{
	if (!bench_make(bench))
		return bts_tool_fail(bench->args, BTS_MEMORY, "no memory for %llu records",
			(unsigned long long)bench->args->count);
	bts_progress_begin(&bench->progress, bench->args, "measures");
	for (int round = 0; round < (int)bench->args->rounds; round++) {
		bench_shuffle(bench);
		if (bench_stretch(bench, round, LOAD_SORTED, LOAD_SORTED) ||
			bench_stretch(bench, round, LOAD_BULK, LOAD_BULK) ||
			bench_stretch(bench, round, LOAD_RANDOM, PUT_DURABLE))
			return BTS_EXIT_FAILURE;
	}
	bts_progress_end(&bench->progress);
	if (bench->args->json)
		bench_print_json(bench);
	else
		bench_print(bench);
	return BTS_EXIT_OK;
}

int bts_bench(const struct bts_args *args)
{
	struct bench *bench;
	int status;

	if (args->word_count)
		return bts_bench_writers(args);
	bench = calloc(1, sizeof(*bench));
	if (!bench)
		return bts_tool_fail(args, BTS_MEMORY, "no memory");
	bench->args = args;
	bench->random = args->seed;
	bench->stores[bench->store_count++] = &bts_bench_ours;
#ifdef HAVE_LMDB
	if (!args->no_lmdb)
		bench->stores[bench->store_count++] = &bts_bench_lmdb;
#endif
	snprintf(bench->path[0], sizeof(bench->path[0]), "%s", args->file);
	snprintf(bench->path[1], sizeof(bench->path[1]), "%s.lmdb", args->file);
	if (strlen(args->file) > sizeof(bench->path[0]) - 16)
		status = bts_tool_fail(args, BTS_INVALID, "the path is too long");
	else if (access(bench->path[0], F_OK) == 0 || access(bench->path[1], F_OK) == 0)
		status = bts_tool_fail(
			args, BTS_EXISTS, "is there already: bench makes and removes its own files");
	else
		status = bench_run(bench);
	free(bench->set.keys);
	free(bench->set.value);
	free(bench->sorted);
	free(bench->shuffled);
	free(bench);
	return status;
}
