/*
 * Random operations through the public interface against a naive oracle (T5): buckets, keys, cursors, groups,
 * private transactions that conflict, snapshots kept over many commits, reopening, every page size.
 *
 * Arguments: seed, operations (all configurations together).
 */
#include "model_txn.h"

#include "cmocka.h"
#include <env_mem.h>
#include <unistd.h>

#define WRITERS 3
#define PINS 5
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer)
#define OPERATIONS 200000
#else
#define OPERATIONS 2000000
#endif

static uint64_t seed, operations = OPERATIONS;

struct config {
	const char *what;
	uint32_t page_size;
	bool memory;
	unsigned share; /* of the operations, in 16ths */
};

struct bed {
	struct model m;
	const struct config *config;
	struct env_mem *mem;
	char path[64];
	struct model_txn writers[WRITERS], pins[PINS];
	struct bts_group *group;
	struct oracle group_view;
	struct model_txn group_txn;
};

static void bed_open(struct bed *bed)
{
	struct bts_options options;
	struct bts_error error = {0};
	enum bts_err err;

	bts_options_init(&options);
	options.page_size = bed->config->page_size;
	options.map_bytes = bed->mem ? 256 << 20 : UINT64_C(1) << 36;
	if (bed->mem)
		options.env = env_mem_env(bed->mem);
	err = bts_open(bed->path, &options, &bed->m.db, &error);
	if (err)
		fail_msg("open: %s: %s", bts_err_name(err), error.text);
}

static void bed_verify(struct bed *bed)
{
	struct model_txn t;

	model_begin(&bed->m, &t, BTS_READ);
	oracle_verify(t.txn, &t.view);
	model_abort(&t);
}

static void bed_report(void *arg, bts_pgno page, const char *text)
{
	(void)arg;
	fprintf(stderr, "check: page %llu: %s\n", (unsigned long long)page, text);
}

static void bed_check(struct bed *bed)
{
	struct bts_check_options options = {.report = bed_report};
	struct bts_error error = {0};
	enum bts_err err = bts_check(bed->m.db, &options, &error);

	if (err)
		fail_msg("check: %s: %s", bts_err_name(err), error.text);
}

static void bed_end_group(struct bed *bed)
{
	if (bed->group_txn.txn)
		model_abort(&bed->group_txn);
	if (rng_one_in(&bed->m.rng, 5)) {
		size_t kept = bed->m.log.count;

		while (kept > 0 && bed->m.log.ops[kept - 1].txid > bed->m.now.txid)
			oracle_entry_drop(bed->m.log.ops[--kept].entry);
		bed->m.log.count = kept;
		bts_group_abort(bed->group);
		oracle_fini(&bed->group_view);
	} else {
		assert_int_equal(bts_group_commit(bed->group, NULL), BTS_OK);
		oracle_fini(&bed->m.now);
		bed->m.now = bed->group_view;
	}
	bed->group = NULL;
	bed->group_view = (struct oracle){0};
}

static void bed_step_group(struct bed *bed)
{
	struct bts_txn *txn;

	if (!bed->group) {
		assert_int_equal(bts_group_begin(bed->m.db, &bed->group, NULL), BTS_OK);
		oracle_copy(&bed->group_view, &bed->m.now);
	}
	if (!bed->group_txn.txn) {
		assert_int_equal(bts_group_txn(bed->group, &txn, NULL), BTS_OK);
		model_adopt(&bed->m, &bed->group_txn, txn, &bed->group_view);
	}
	for (uint64_t n = rng_below(&bed->m.rng, 20); n > 0; n--)
		model_step(&bed->m, &bed->group_txn);
	if (rng_one_in(&bed->m.rng, 3))
		model_abort(&bed->group_txn);
	else if (rng_one_in(&bed->m.rng, 2))
		model_keep(&bed->m, &bed->group_txn, &bed->group_view);
	if (rng_one_in(&bed->m.rng, 8))
		bed_end_group(bed);
}

static void bed_step_writer(struct bed *bed)
{
	struct model_txn *t = &bed->writers[rng_below(&bed->m.rng, WRITERS)];

	if (!t->txn)
		model_begin(&bed->m, t,
			rng_one_in(&bed->m.rng, 8) ? BTS_WRITE | BTS_CONFLICT_DATABASE : BTS_WRITE);
	for (uint64_t n = rng_below(&bed->m.rng, 25); n > 0; n--)
		model_step(&bed->m, t);
	if (rng_one_in(&bed->m.rng, 10))
		model_abort(t);
	else if (!bed->group && rng_one_in(&bed->m.rng, 2)) /* a group in progress keeps commits waiting */
		model_commit(&bed->m, t);
}

static void bed_step_pin(struct bed *bed)
{
	struct model_txn *t = &bed->pins[rng_below(&bed->m.rng, PINS)];

	if (!t->txn) {
		model_begin(&bed->m, t, BTS_READ);
	} else if (rng_one_in(&bed->m.rng, 30)) {
		oracle_verify(t->txn, &t->view);
		model_abort(t);
	}
	for (uint64_t n = rng_below(&bed->m.rng, 20); n > 0 && t->txn; n--)
		model_step(&bed->m, t);
}

static void bed_quiet(struct bed *bed)
{
	if (bed->group)
		bed_end_group(bed);
	for (unsigned i = 0; i < WRITERS; i++)
		if (bed->writers[i].txn)
			model_abort(&bed->writers[i]);
	for (unsigned i = 0; i < PINS; i++)
		if (bed->pins[i].txn) {
			oracle_verify(bed->pins[i].txn, &bed->pins[i].view);
			model_abort(&bed->pins[i]);
		}
}

static void bed_reopen(struct bed *bed)
{
	bed_quiet(bed);
	model_ops_fini(&bed->m.log);
	bts_close(bed->m.db);
	bed_open(bed);
	bed_verify(bed);
	bed_check(bed);
}

static uint64_t bed_done(const struct bed *bed)
{
	return bed->m.puts + bed->m.dels + bed->m.gets + bed->m.steps + bed->m.buckets;
}

static void bed_run(struct bed *bed, uint64_t count)
{
	while (bed_done(bed) < count) {
		uint64_t dice = rng_below(&bed->m.rng, 1000);

		if (dice == 0)
			bed_reopen(bed);
		else if (dice < 8)
			bed_verify(bed);
		else if (dice < 150)
			bed_step_pin(bed);
		else if (dice < (bed->group ? 700 : 170))
			bed_step_group(bed);
		else
			bed_step_writer(bed);
	}
	bed_reopen(bed);
}

static void bed_remove(struct bed *bed)
{
	char lock[80];

	if (bed->mem)
		return;
	snprintf(lock, sizeof(lock), "%s-lock", bed->path);
	unlink(bed->path);
	unlink(lock);
}

static void run_config(void **state)
{
	const struct config *config = *state;
	struct bed *bed = calloc(1, sizeof(*bed));
	struct bts_stat stat = {.size = sizeof(stat)};

	assert_non_null(bed);
	bed->config = config;
	bed->m.page_size = config->page_size;
	rng_init(&bed->m.rng, seed ^ config->page_size ^ config->memory);
	bed->mem = config->memory ? env_mem_new(0) : NULL;
	snprintf(bed->path, sizeof(bed->path), "%s/bts-model-%d", bed->mem ? "" : "/tmp", (int)getpid());
	bed_remove(bed);
	bed_open(bed);
	assert_int_equal(bts_stat(bed->m.db, &stat, NULL), BTS_OK);
	bed->m.now.txid = stat.txid;
	bed_run(bed, operations * config->share / 16);
	assert_int_equal(bts_stat(bed->m.db, &stat, NULL), BTS_OK);
	assert_true(bed->m.ranges > 0 && bed->m.marks > 0);
	printf("%s: %llu operations, %llu commits, %llu conflicts, %llu pages, %llu free\n", config->what,
		(unsigned long long)bed_done(bed), (unsigned long long)bed->m.commits,
		(unsigned long long)bed->m.conflicts, (unsigned long long)stat.pages,
		(unsigned long long)stat.free_pages);
	bts_close(bed->m.db);
	oracle_fini(&bed->m.now);
	model_ops_fini(&bed->m.log);
	if (bed->mem)
		assert_int_equal(env_mem_counters(bed->mem)->live_blocks, 0);
	env_mem_free(bed->mem);
	bed_remove(bed);
	free(bed);
}

int main(int argc, char **argv)
{
	static struct config configs[] = {
		{"4 KiB in memory", 4096, true, 6},
		{"8 KiB in memory", 8192, true, 4},
		{"16 KiB in memory", 16384, true, 2},
		{"64 KiB in memory", 65536, true, 2},
		{"4 KiB in a file", 4096, false, 1},
		{"16 KiB in a file", 16384, false, 1},
	};
	struct CMUnitTest tests[sizeof(configs) / sizeof(*configs)];

	seed = rng_seed_from(argc, argv, 20240607);
	if (argc > 2)
		operations = strtoull(argv[2], NULL, 0);
	for (size_t i = 0; i < sizeof(configs) / sizeof(*configs); i++)
		tests[i] = (struct CMUnitTest){configs[i].what, run_config, NULL, NULL, &configs[i]};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
