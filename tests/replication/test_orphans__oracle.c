/*
 * What a rewind leaves behind, against models of both histories: every change that is lost is told once and truly, and what
 * cannot be told is marked, never claimed.
 */
#include "graft_bed.h"

#include <stdlib.h>

#define KEYS 900u
#define BUCKETS 3u

/* Values are numbers given once; 0: no such key. */
struct model {
	unsigned value[BUCKETS][KEYS];
	bool put[BUCKETS][KEYS]; /* since the fork */
};

static uint64_t seed;
static unsigned next_value;
static struct model fork_model, ours, theirs;
static struct {
	unsigned lines;
	bool delete;
	enum bts_orphan_other other;
	unsigned value;
} told[BUCKETS][KEYS];
static char buckets_told[2000];

static struct bts_slice name_of(const char *prefix, unsigned number, char text[32])
{
	return (struct bts_slice){text, (size_t)snprintf(text, 32, "%s%05u", prefix, number)};
}

static void change(struct bts *db, struct model *model, struct rng *rng)
{
	char name[32], key[32], value[400];
	struct bts_bucket *bucket;
	struct bts_error error;
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, &error), BTS_OK);
	for (unsigned n = 1 + (unsigned)rng_below(rng, 30); n--;) {
		unsigned b = (unsigned)rng_below(rng, BUCKETS), k = (unsigned)rng_below(rng, KEYS);
		unsigned run = rng_one_in(rng, 8) ? 30 : 1;

		assert_int_equal(bts_bucket(txn, name_of("b", b, name), BTS_CREATE, &bucket, &error), BTS_OK);
		for (; run-- && k < KEYS; k++) {
			size_t size = 20 + rng_below(rng, rng_one_in(rng, 20) ? 380 : 80);

			if (rng_one_in(rng, 3)) {
				enum bts_err err = bts_del(txn, bucket, name_of("k", k, key));

				assert_int_equal(err, model->value[b][k] ? BTS_OK : BTS_NOT_FOUND);
				model->value[b][k] = 0;
				continue;
			}
			memset(value, 'v', sizeof(value));
			memcpy(value, &(unsigned){++next_value}, sizeof(next_value));
			assert_int_equal(bts_put(txn, bucket, name_of("k", k, key), (struct bts_slice){value, size}, 0), BTS_OK);
			model->value[b][k] = next_value;
			model->put[b][k] = true;
		}
	}
	assert_int_equal(bts_commit(txn, &error), BTS_OK);
}

static enum bts_err visit(void *arg, const struct bts_orphan *orphan, struct bts_error *error)
{
	char digits[6] = "";
	unsigned b, k;

	(void)arg;
	(void)error;
	if (orphan->kind != BTS_ORPHAN_PUT && orphan->kind != BTS_ORPHAN_DELETE) {
		size_t at = strlen(buckets_told);

		snprintf(buckets_told + at, sizeof(buckets_told) - at, "%d:%.*s%.*s<%.*s;", orphan->kind,
			(int)orphan->bucket.size, (const char *)orphan->bucket.data, (int)orphan->key.size,
			orphan->key.size ? (const char *)orphan->key.data : "", (int)orphan->was.size,
			orphan->was.size ? (const char *)orphan->was.data : "");
		return BTS_OK;
	}
	assert_true(orphan->bucket.size == 6 && orphan->key.size == 6);
	memcpy(digits, (const char *)orphan->key.data + 1, 5);
	k = (unsigned)atoi(digits);
	memcpy(digits, (const char *)orphan->bucket.data + 1, 5);
	b = (unsigned)atoi(digits);
	assert_true(b < BUCKETS && k < KEYS);
	told[b][k].lines++;
	told[b][k].delete = orphan->kind == BTS_ORPHAN_DELETE;
	told[b][k].other = orphan->other;
	told[b][k].value = 0;
	if (orphan->kind == BTS_ORPHAN_PUT)
		memcpy(&told[b][k].value, orphan->value.data, sizeof(told[b][k].value));
	return BTS_OK;
}

static void judge(unsigned b, unsigned k, unsigned *counts)
{
	unsigned before = fork_model.value[b][k], mine = ours.value[b][k], other = theirs.value[b][k];
	bool put = mine != before && mine;

	assert_true(told[b][k].lines <= 1);
	if (put) {
		assert_true(told[b][k].lines == 1 && !told[b][k].delete && told[b][k].value == mine);
		if (other)
			assert_int_equal(told[b][k].other, other != before ? BTS_ORPHAN_CHANGED : BTS_ORPHAN_SAME);
		else if (before)
			assert_int_equal(told[b][k].other, BTS_ORPHAN_MAYBE);
		else
			assert_int_not_equal(told[b][k].other, BTS_ORPHAN_CHANGED);
		counts[0]++;
	} else if (!mine && before && other) {
		assert_true(told[b][k].lines == 1 && told[b][k].delete);
		assert_int_equal(told[b][k].other, other == before ? BTS_ORPHAN_SAME : BTS_ORPHAN_MAYBE);
		counts[1]++;
	} else if (told[b][k].lines) {
		assert_true(!mine && !before && other && told[b][k].delete && told[b][k].other == BTS_ORPHAN_MAYBE);
		counts[2]++;
	}
}

static void commit_buckets(struct bts *db, bool lost)
{
	struct bts_bucket *bucket;
	struct bts_error error;
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, &error), BTS_OK);
	if (!lost) {
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(bts_bucket(txn, (struct bts_slice){i == 0 ? "drop" : i == 1 ? "name" : "stay", 4},
						 BTS_CREATE, &bucket, &error),
				BTS_OK);
	} else {
		assert_int_equal(bts_bucket_drop(txn, (struct bts_slice){"drop", 4}, &error), BTS_OK);
		assert_int_equal(
			bts_bucket_rename(txn, (struct bts_slice){"name", 4}, (struct bts_slice){"other", 5}, &error), BTS_OK);
		assert_int_equal(bts_bucket(txn, (struct bts_slice){"made", 4}, BTS_CREATE, &bucket, &error), BTS_OK);
		assert_int_equal(bts_snapshot_create(txn, (struct bts_slice){"snap", 4}, &error), BTS_OK);
	}
	assert_int_equal(bts_commit(txn, &error), BTS_OK);
}

static void run(uint64_t number)
{
	struct env_mem *mem = env_mem_new(0);
	struct bts_env *env = env_mem_env(mem);
	unsigned counts[3] = {0};
	struct graft_count count;
	struct bts_position at_fork;
	struct bts *p, *q, *f;
	struct bts_pages *pages;
	struct bts_apply *apply;
	struct bts_error error;
	struct rng rng;

	rng_init(&rng, number);
	env_mem_seed(mem, number);
	memset(&fork_model, 0, sizeof(fork_model));
	memset(told, 0, sizeof(told));
	buckets_told[0] = '\0';
	p = bed_open(env, "/p", 0, 4096);
	bed_create(env, "/f", p, 4096);
	for (unsigned i = 0; i < 25; i++)
		change(p, &fork_model, &rng);
	commit_buckets(p, false);
	at_fork = bed_position(p);
	memset(fork_model.put, 0, sizeof(fork_model.put));
	ours = theirs = fork_model;
	bts_close(p);
	graft_copy(mem, "/p", "/q");
	p = bed_open(env, "/p", 0, 0);
	q = bed_open(env, "/q", 0, 0);
	for (unsigned i = 0; i < 6; i++)
		change(p, &ours, &rng);
	commit_buckets(p, true);
	for (unsigned i = 0; i < 6; i++)
		change(q, &theirs, &rng);
	f = bed_open(env, "/f", BTS_OPEN_FOLLOWER, 0);
	bed_ship(p, f, &rng);
	assert_int_equal(bts_pages_open(q, &pages, &error), BTS_OK);
	if (graft_fetch(f, pages, &at_fork, &rng, &count, &apply, &error))
		fail_msg("graft: %s", error.text);
	if (bts_apply_orphans(apply, visit, NULL, &error))
		fail_msg("orphans: %s", error.text);
	if (bts_apply_finish(apply, bts_pages_record(pages), &error))
		fail_msg("finish: %s", error.text);
	bts_pages_close(pages);
	bed_assert_same(q, f);
	for (unsigned b = 0; b < BUCKETS; b++)
		for (unsigned k = 0; k < KEYS; k++)
			judge(b, k, counts);
	printf("seed %llu: %u puts, %u deletes, %u that may be; %s\n", (unsigned long long)number, counts[0], counts[1],
		counts[2], buckets_told);
	assert_true(counts[0] > 0 && counts[1] > 0);
	assert_string_equal(buckets_told, "2:made<;3:other<name;4:drop<;5:snap<;");
	bts_close(f);
	bts_close(p);
	bts_close(q);
	env_mem_free(mem);
}

static void test_oracle(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 10; i++)
		run(seed + i);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_oracle),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
