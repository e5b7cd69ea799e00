/* The frame of the benchmark programs: options, rounds, what they print. */
#include "bench.h"
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct bench_store *const frame_stores[] = {
	&store_ours,
#ifdef HAVE_LMDB
	&store_lmdb,
#endif
#ifdef HAVE_SQLITE
	&store_sqlite,
#endif
#ifdef HAVE_ROCKSDB
	&store_rocksdb,
#endif
};

/* Peers that may be missing, to say which are. */
static const char *const frame_peers[] = {"lmdb", "sqlite", "rocksdb"};

static void frame_help(const struct bench_program *program)
{
	printf("usage: bench_%s [OPTION VALUE]...\n\n%s\n\n", program->question, program->about);
	if (!program->machine)
		puts("  --entries N    entries in a store (100000)\n"
		     "  --key B        bytes of a key (16), --value B of a value (100)\n"
		     "  --prefix B     bytes at the front of keys that are all the same (0)\n"
		     "  --stores LIST  of ours,lmdb,sqlite,rocksdb (all that were there at build)\n"
		     "  --fill HOW     sorted or random: how a store is filled before (random)\n"
		     "  --aged         change entries at random before measuring, --age N of them (1000000)");
	printf("  --rounds R     slices of each workload and store (%u)\n"
	       "  --seconds S    of a slice (0.3)\n"
	       "  --only TEXT    only workloads with this in their names\n"
	       "  --dir DIR      where to make a directory for the files ($TMPDIR or /tmp)\n"
	       "  --json FILE    append one line of JSON a workload\n"
	       "  --seed S       of the random numbers (1)\n"
	       "  --quiet        no table, no progress\n"
	       "  --list         print the stores and their versions\n",
		program->rounds ? program->rounds : 5);
	if (program->option_help)
		puts(program->option_help);
}

static const struct bench_store *frame_store(const char *name, size_t length)
{
	if (length == 4 && memcmp(name, "ours", 4) == 0)
		return &store_ours;
	for (size_t i = 0; i < BENCH_COUNT(frame_stores); i++)
		if (strlen(frame_stores[i]->name) == length &&
			memcmp(frame_stores[i]->name, name, length) == 0)
			return frame_stores[i];
	return store_wrong(name, length);
}

static void frame_list(void)
{
	for (size_t i = 0; i < BENCH_COUNT(frame_stores); i++)
		printf("%s %s\n", frame_stores[i]->name, frame_stores[i]->version());
	for (size_t i = 0; i < BENCH_COUNT(frame_peers); i++)
		if (!frame_store(frame_peers[i], strlen(frame_peers[i])))
			printf("%s missing: not there when this was built\n", frame_peers[i]);
}

static int frame_number(const char *name, const char *value, uint64_t least, uint64_t most, uint64_t *number)
{
	char *end;
	unsigned long long n = strtoull(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || n < least || n > most)
		return bench_fail("%s: '%s' is no number from %llu to %llu", name, value,
			(unsigned long long)least, (unsigned long long)most);
	*number = n;
	return 0;
}

/* 1: taken, 0: unknown, -1: bad */
static int frame_number_option(struct bench_options *o, const char *name, const char *value)
{
	uint64_t number = 0;
	int err;

	if (strcmp(name, "--entries") == 0)
		err = frame_number(name, value, 2, UINT64_C(1) << 30, &o->entries);
	else if (strcmp(name, "--age") == 0)
		err = frame_number(name, value, 0, UINT64_C(1) << 40, &o->age);
	else if (strcmp(name, "--seed") == 0)
		err = frame_number(name, value, 0, UINT64_MAX, &o->seed);
	else if (strcmp(name, "--key") == 0) {
		err = frame_number(name, value, 8, BENCH_KEY_MAX, &number);
		o->key_size = number;
	} else if (strcmp(name, "--value") == 0) {
		err = frame_number(name, value, 1, UINT64_C(1) << 24, &number);
		o->value_size = number;
	} else if (strcmp(name, "--prefix") == 0) {
		err = frame_number(name, value, 0, BENCH_KEY_MAX - 8, &number);
		o->prefix = number;
	} else if (strcmp(name, "--rounds") == 0) {
		err = frame_number(name, value, 1, BENCH_ROUNDS, &number);
		o->rounds = (unsigned)number;
	} else {
		return 0;
	}
	return err ? -1 : 1;
}

static int frame_text_option(struct bench_options *o, const char *name, const char *value)
{
	char *end;

	if (strcmp(name, "--dir") == 0)
		o->dir = value;
	else if (strcmp(name, "--stores") == 0)
		o->stores = value;
	else if (strcmp(name, "--json") == 0)
		o->json = value;
	else if (strcmp(name, "--only") == 0)
		o->only = value;
	else if (strcmp(name, "--fill") == 0) {
		o->fill_sorted = strcmp(value, "sorted") == 0;
		if (!o->fill_sorted && strcmp(value, "random") != 0)
			return bench_fail("--fill: 'sorted' or 'random', not '%s'", value);
	} else if (strcmp(name, "--seconds") == 0) {
		o->seconds = strtod(value, &end);
		if (*end || end == value || !(o->seconds > 0 && o->seconds < 1e6))
			return bench_fail("--seconds: '%s' is no time", value);
	} else {
		return 0;
	}
	return 1;
}

static int frame_options(struct bench *bench, int argc, char **argv)
{
	struct bench_options *o = &bench->options;

	for (int i = 1; i < argc; i++) {
		const char *name = argv[i], *value = argv[i + 1];
		int taken;

		if (strcmp(name, "--help") == 0) {
			frame_help(bench->program);
			exit(0);
		} else if (strcmp(name, "--list") == 0) {
			frame_list();
			exit(0);
		} else if (strcmp(name, "--aged") == 0) {
			o->aged = true;
			continue;
		} else if (strcmp(name, "--quiet") == 0) {
			bench->quiet = true;
			continue;
		}
		taken = value ? frame_number_option(o, name, value) : 0;
		if (!taken && value)
			taken = frame_text_option(o, name, value);
		if (!taken && value && bench->program->option)
			taken = bench->program->option(name, value);
		if (!taken)
			return bench_fail("%s: unknown, or without a value; --help says more", name);
		if (taken < 0)
			return -1;
		i++;
	}
	if (o->prefix + 8 > o->key_size)
		return bench_fail("a key needs 8 bytes behind the prefix");
	return 0;
}

static int frame_lane(struct bench *bench, const struct bench_store *store, const char *name)
{
	struct bench_lane *lane = &bench->lanes[bench->lane_count];

	*lane = (struct bench_lane){.store = store, .name = name};
	if ((size_t)snprintf(lane->dir, sizeof(lane->dir), "%s/%s", bench->dir, name) >= sizeof(lane->dir))
		return bench_fail("the path is too long");
	bench->lane_count++;
	if (!store)
		return 0;
	lane->versions = calloc(bench->set.entries, 1);
	return lane->versions ? 0 : bench_fail("no memory");
}

static int frame_lanes(struct bench *bench)
{
	const char *list = bench->options.stores;
	int err = 0;

	if (bench->program->machine)
		return frame_lane(bench, NULL, "machine");
	for (size_t i = 0; !list && i < BENCH_COUNT(frame_stores) && !err; i++)
		err = frame_lane(bench, frame_stores[i], frame_stores[i]->name);
	while (list && *list && !err) {
		size_t length = strcspn(list, ",");
		const struct bench_store *store = frame_store(list, length);

		if (!store)
			return bench_fail("--stores: there is no '%.*s' in this build", (int)length, list);
		for (unsigned i = 0; i < bench->lane_count; i++)
			if (bench->lanes[i].store == store)
				return bench_fail("--stores: '%.*s' twice", (int)length, list);
		err = frame_lane(bench, store, store->name);
		list += length + (list[length] == ',');
	}
	return err;
}

static int frame_dir(struct bench *bench)
{
	const char *parent = bench->options.dir ? bench->options.dir : getenv("TMPDIR");
	char dir[sizeof(bench->dir)];

	if (!parent || !*parent)
		parent = "/tmp";
	if (snprintf(dir, sizeof(dir), "%s/bts_bench.XXXXXX", parent) > (int)sizeof(dir) - 64)
		return bench_fail("the path is too long");
	if (!mkdtemp(dir))
		return bench_fail("%s: %s", dir, strerror(errno));
	memcpy(bench->dir, dir, sizeof(dir));
	return 0;
}

static int frame_set(struct bench *bench)
{
	const struct bench_options *o = &bench->options;
	struct bench_set *set = &bench->set;
	uint64_t seed = o->seed;

	*set = (struct bench_set){.entries = o->entries,
		.key_size = o->key_size,
		.value_size = o->value_size,
		.prefix = o->prefix,
		.stride = UINT64_MAX / o->entries,
		.pool = malloc(BENCH_POOL + o->value_size + 8)};
	if (!set->pool)
		return bench_fail("no memory");
	for (size_t i = 0; i < BENCH_POOL + o->value_size; i += 8) {
		uint64_t random = bench_random(&seed);

		memcpy(set->pool + i, &random, 8);
	}
	return 0;
}

int bench_init(struct bench *bench, int argc, char **argv, const struct bench_program *program)
{
	int err;

	bench->program = program;
	bench->options = (struct bench_options){.entries = 100000,
		.age = 1000000,
		.seed = 1,
		.key_size = 16,
		.value_size = 100,
		.rounds = program->rounds ? program->rounds : 5,
		.seconds = 0.3};
	err = frame_options(bench, argc, argv);
	bench_catch();
	if (!err)
		err = frame_dir(bench);
	if (!err)
		err = frame_set(bench);
	if (!err)
		err = frame_lanes(bench);
	bench->round_seed = bench_hash(bench->options.seed);
	return err;
}

static int frame_sample(struct bench *bench, struct bench_result *result, unsigned at)
{
	double sample = BENCH_SKIP;

	if (bench_stopped() || result->work->slice(bench, &bench->lanes[at], result->work, &sample))
		return -1;
	if (sample >= 0)
		result->samples[at][result->count[at]++] = sample;
	return 0;
}

int bench_run(struct bench *bench, const struct bench_work *works, size_t count)
{
	unsigned first = bench->result_count, rounds = bench->options.rounds;
	int err = 0;

	for (size_t i = 0; i < count; i++) {
		if (bench->options.only && !strstr(works[i].name, bench->options.only))
			continue;
		if (bench->result_count == BENCH_WORKS)
			return bench_fail("more than %d workloads", BENCH_WORKS);
		bench->results[bench->result_count++] = (struct bench_result){.work = &works[i]};
	}
	for (bench->round = 0; bench->round < rounds && !err; bench->round++) {
		bench->round_seed = bench_hash(bench->options.seed * 1000 + bench->round);
		for (unsigned r = first; r < bench->result_count && !err; r++) {
			for (unsigned turn = 0; turn < bench->lane_count && !err; turn++)
				err = frame_sample(bench, &bench->results[r],
					(turn + bench->round + r) % bench->lane_count);
			bench_progress(bench, bench->results[r].work->name,
				bench->round * (bench->result_count - first) + r - first + 1,
				rounds * (bench->result_count - first));
		}
	}
	return err;
}

static void frame_json(struct bench *bench, FILE *file, const struct bench_result *result)
{
	const struct bench_options *o = &bench->options;
	const struct bench_work *work = result->work;
	const char *comma = "";

	fprintf(file,
		"{\"question\":\"%s\",\"workload\":\"%s\",\"entries\":%llu,\"key\":%zu,\"value\":%zu,"
		"\"threads\":%u,"
		"\"state\":\"%s\",\"unit\":\"%s\",\"better\":\"%s\",\"stores\":{",
		bench->program->question, work->name, (unsigned long long)o->entries, o->key_size,
		o->value_size, work->threads ? work->threads : 1, o->aged ? "aged" : "fresh", work->unit,
		work->more ? "more" : "less");
	for (unsigned i = 0; i < bench->lane_count; i++) {
		if (!result->count[i])
			continue;
		fprintf(file, "%s\"%s\":[", comma, bench->lanes[i].name);
		for (unsigned s = 0; s < result->count[i]; s++)
			fprintf(file, "%s%.10g", s ? "," : "", result->samples[i][s]);
		fputs("]", file);
		comma = ",";
	}
	fputs("}}\n", file);
}

static void frame_head(const struct bench *bench)
{
	const struct bench_options *o = &bench->options;
	bool ours = bench->lanes[0].store == &store_ours;

	if (!bench->program->machine)
		printf("%s: %llu entries, keys of %zu bytes, values of %zu, %s, median of %u rounds of %g "
		       "s\n",
			bench->program->question, (unsigned long long)o->entries, o->key_size, o->value_size,
			o->aged ? "aged" : "fresh", o->rounds, o->seconds);
	printf("%-44s%7s", "", "unit");
	for (unsigned i = 1; ours && i < bench->lane_count; i++)
		printf("%8.8s:us", bench->lanes[i].name);
	for (unsigned i = 0; i < bench->lane_count; i++)
		printf("%14s", bench->lanes[i].name);
	putchar('\n');
}

static void frame_row(const struct bench *bench, const struct bench_result *result)
{
	double first = bench_median(result->samples[0], result->count[0]);

	printf("%-44s%7s", result->work->name, result->work->unit);
	for (unsigned i = 1; bench->lanes[0].store == &store_ours && i < bench->lane_count; i++) {
		double peer = bench_median(result->samples[i], result->count[i]);
		double ratio = result->work->more ? first / peer : peer / first;

		if (result->count[0] && result->count[i] && isfinite(ratio))
			printf("%11.2f", ratio);
		else
			printf("%11s", "-");
	}
	for (unsigned i = 0; i < bench->lane_count; i++) {
		double median = bench_median(result->samples[i], result->count[i]);

		if (result->count[i])
			printf("%14.*f", median < 100 ? 3 : median < 10000 ? 1 : 0, median);
		else
			printf("%14s", "-");
	}
	putchar('\n');
}

static int frame_print(struct bench *bench)
{
	FILE *file;

	if (!bench->quiet) {
		if (isatty(STDERR_FILENO))
			fputs("\r\033[K", stderr);
		frame_head(bench);
		for (unsigned i = 0; i < bench->result_count; i++)
			frame_row(bench, &bench->results[i]);
	}
	if (!bench->options.json)
		return 0;
	file = fopen(bench->options.json, "a");
	for (unsigned i = 0; file && i < bench->result_count; i++)
		frame_json(bench, file, &bench->results[i]);
	if (!file || fclose(file))
		return bench_fail("%s: %s", bench->options.json, strerror(errno));
	return 0;
}

static int frame_remove(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
	(void)stat;
	(void)type;
	(void)ftw;
	return remove(path);
}

int bench_end(struct bench *bench, int err)
{
	for (unsigned i = 0; i < bench->lane_count; i++) {
		/* After a failure a reader or writer may still stand on it. */
		if (!err)
			bench_close(&bench->lanes[i]);
		free(bench->lanes[i].versions);
	}
	if (!err)
		err = frame_print(bench);
	if (err)
		fprintf(stderr, "bench_%s: %s\n", bench->program->question, bench_failure());
	if (bench->dir[0])
		nftw(bench->dir, frame_remove, 16, FTW_DEPTH | FTW_PHYS);
	free(bench->set.pool);
	return err ? 1 : 0;
}
