/*
 * What the original promised of several handles on one file: each sees what the others committed, the second
 * committer of a clash gets a conflict and can refresh and try again, and opening or beginning never waits
 * for a running transaction.
 *
 * In memory but for the last, where several handles are like several processes and a wait that would never end is an error.
 */
#include "bed.h"

#include <rng.h>

#define HANDLES 3u
#define KEYS 200u
#define TURNS 3000u

static uint64_t seed;

/* Handles on bed's file, the first of them bed's own. */
struct crew {
	struct bed beds[HANDLES];
};

static void crew_open(struct crew *crew)
{
	bed_init_memory(&crew->beds[0]);
	for (unsigned i = 1; i < HANDLES; i++) {
		crew->beds[i] = crew->beds[0];
		bed_open(&crew->beds[i]);
	}
}

static void crew_close(struct crew *crew)
{
	for (unsigned i = HANDLES; --i > 0;)
		bts_close(crew->beds[i].db);
	bed_reopen(&crew->beds[0]);
	assert_int_equal(bed_stat(&crew->beds[0]).clean_open, 1);
	bed_fini(&crew->beds[0]);
}

/* Each commits in turn and all see it at once, by get and by listing. */
static void see_each_other(void **state)
{
	struct bts_bucket_info info;
	struct bts_txn *txn;
	struct crew crew;
	char name[16];

	(void)state;
	crew_open(&crew);
	for (unsigned turn = 0; turn < 60; turn++) {
		snprintf(name, sizeof(name), "bucket %02u", turn);
		bed_set(&crew.beds[turn % HANDLES], name, "k", name);
		for (unsigned i = 0; i < HANDLES; i++) {
			bed_holds(&crew.beds[i], name, "k", name);
			assert_int_equal(bed_stat(&crew.beds[i]).buckets, turn + 1);
			txn = bed_begin(&crew.beds[i], i % 2 ? BTS_WRITE : BTS_READ);
			assert_int_equal(bts_bucket_next(txn, bed_text("bucket 00"), &info),
				turn ? BTS_OK : BTS_NOT_FOUND);
			for (unsigned k = 1; k <= turn; k++) {
				snprintf(name, sizeof(name), "bucket %02u", k);
				assert_memory_equal(info.name.data, name, info.name.size);
				assert_int_equal(bts_bucket_next(txn, bed_text(name), &info),
					k < turn ? BTS_OK : BTS_NOT_FOUND);
			}
			bts_abort(txn);
		}
	}
	crew_close(&crew);
}

static void second_committer(void **state)
{
	struct bts_txn *one, *two;
	struct bed *a, *b;
	struct crew crew;
	bts_txid winner;
	char number[32];

	(void)state;
	crew_open(&crew);
	a = &crew.beds[0];
	b = &crew.beds[1];
	bed_set(a, "bucket name", "the key", "0");
	one = bed_begin(a, BTS_WRITE);
	two = bed_begin(b, BTS_WRITE);
	bed_put(two, "bucket name", "the key", "2");
	bed_put(two, "bucket name", "its own", "2");
	bed_put(one, "bucket name", "the key", "1");
	assert_int_equal(bts_commit_id(one, &winner, NULL), BTS_OK);
	assert_int_equal(bts_commit(two, &b->error), BTS_CONFLICT);
	snprintf(number, sizeof(number), "%llu", (unsigned long long)winner);
	assert_non_null(strstr(b->error.text, "bucket"));
	assert_non_null(strstr(b->error.text, "the\\x20key"));
	assert_non_null(strstr(b->error.text, number));
	assert_int_equal(bts_refresh(two, NULL), BTS_OK);
	assert_int_equal(bts_txn_id(two), winner);
	bed_expect(two, "bucket name", "the key", "1");
	bed_expect(two, "bucket name", "its own", NULL);
	bed_put(two, "bucket name", "the other key", "2");
	bed_commit(b, two);
	for (unsigned i = 0; i < HANDLES; i++) {
		bed_holds(&crew.beds[i], "bucket name", "the key", "1");
		bed_holds(&crew.beds[i], "bucket name", "the other key", "2");
	}
	crew_close(&crew);
}

/* Other keys of the same leaf, other buckets, counters of one bucket: no conflict. */
static void no_clash(void **state)
{
	struct bts_txn *txns[HANDLES];
	struct bts_bucket_info info;
	struct crew crew;

	(void)state;
	crew_open(&crew);
	for (unsigned round = 0; round < 50; round++) {
		char key[16], own[16];

		bed_set(&crew.beds[round % HANDLES], "shared", "first", "0");
		for (unsigned i = 0; i < HANDLES; i++)
			txns[i] = bed_begin(&crew.beds[i], BTS_WRITE);
		for (unsigned i = 0; i < HANDLES; i++) {
			snprintf(key, sizeof(key), "%u of %u", i, round);
			snprintf(own, sizeof(own), "own %u", i);
			bed_put(txns[i], "shared", key, own);
			bed_put(txns[i], own, key, own);
		}
		for (unsigned i = 0; i < HANDLES; i++)
			bed_commit(&crew.beds[(round + i) % HANDLES], txns[(round + i) % HANDLES]);
	}
	for (unsigned i = 0; i < HANDLES; i++)
		assert_int_equal(bed_stat(&crew.beds[i]).conflicts, 0);
	txns[0] = bed_begin(&crew.beds[0], BTS_READ);
	assert_int_equal(bts_bucket_info(txns[0], bed_find(txns[0], "shared"), &info), BTS_OK);
	assert_int_equal(info.entries, 1 + 50 * HANDLES);
	bts_abort(txns[0]);
	crew_close(&crew);
}

/* Values are the same again, versions are not; absent and absent again; a bucket that is another by now. */
static void clashes(void **state)
{
	struct bts_txn *mine, *theirs;
	struct crew crew;

	(void)state;
	crew_open(&crew);
	for (unsigned how = 0; how < 5; how++) {
		struct bed *a = &crew.beds[how % HANDLES], *b = &crew.beds[(how + 1) % HANDLES];

		bed_set(a, "b", "k", "A");
		mine = bed_begin(b, BTS_WRITE);
		bed_put(mine, "b", how == 1 ? "absent" : "k", "mine");
		if (how == 0) {
			bed_set(a, "b", "k", "B");
			bed_set(a, "b", "k", "A");
		}
		if (how == 1)
			bed_set(a, "b", "absent", "A");
		theirs = bed_begin(a, BTS_WRITE);
		if (how == 1 || how == 2)
			assert_int_equal(
				bts_del(theirs, bed_find(theirs, "b"), bed_text(how == 1 ? "absent" : "k")),
				BTS_OK);
		if (how == 3 || how == 4)
			assert_int_equal(bts_bucket_drop(theirs, bed_text("b"), NULL), BTS_OK);
		if (how == 4)
			bed_put(theirs, "b", "k", "A");
		bed_commit(a, theirs);
		assert_int_equal(bts_commit(mine, &b->error), BTS_CONFLICT);
		bts_abort(mine);
	}
	crew_close(&crew);
}

/* A snapshot of one handle stays what it is while another writes, and moves when it is told to. */
static void snapshots_and_refresh(void **state)
{
	struct bts_txn *reader, *writer;
	struct crew crew;

	(void)state;
	crew_open(&crew);
	bed_set(&crew.beds[0], "b", "k", "0");
	reader = bed_begin(&crew.beds[1], BTS_READ);
	writer = bed_begin(&crew.beds[2], BTS_WRITE);
	for (unsigned i = 0; i < 100; i++)
		bed_set(&crew.beds[0], "b", "k", i % 2 ? "1" : "2");
	bed_expect(reader, "b", "k", "0");
	bed_expect(writer, "b", "k", "0");
	assert_int_equal(bts_refresh(writer, NULL), BTS_OK);
	bed_expect(writer, "b", "k", "1");
	bed_put(writer, "b", "k", "3");
	bed_commit(&crew.beds[2], writer);
	bed_expect(reader, "b", "k", "0");
	bts_abort(reader);
	bed_holds(&crew.beds[1], "b", "k", "3");
	crew_close(&crew);
}

/* Whatever runs in one handle, another is opened, used and closed. */
static void opened_inside_a_transaction(void **state)
{
	struct bts_txn *writer, *reader;
	struct bed bed, other;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "0");
	for (unsigned round = 0; round < 6; round++) {
		writer = bed_begin(&bed, BTS_WRITE);
		reader = bed_begin(&bed, BTS_READ);
		bed_put(writer, "b", "k", "mine");
		other = bed;
		assert_int_equal(bed_try_open(&other, round % 2 ? BTS_OPEN_READ_ONLY : 0, &other.db), BTS_OK);
		bed_expect(reader, "b", "k", "0");
		bed_holds(&other, "b", "k", "0");
		if (round % 2 == 0)
			bed_set(&other, "b", "other", "1");
		if (round < 3) {
			bts_close(other.db); /* what it locked goes with it, and nothing else */
			bed_commit(&bed, writer);
		} else {
			bed_commit(&bed, writer);
			bed_holds(&other, "b", "k", "mine");
			bts_close(other.db);
		}
		bts_abort(reader);
		bed_holds(&bed, "b", "k", "mine");
		bed_set(&bed, "b", "k", "0");
	}
	bed_fini(&bed);
}

/* Page size and address range are each handle's own wish; the file has its page size already. */
static void other_options(void **state)
{
	struct bts_options options;
	struct bed bed, other;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "0");
	bts_options_init(&options);
	options.env = env_mem_env(bed.mem);
	options.flags = BTS_OPEN_EXISTING;
	options.page_size = 16384;
	options.map_bytes = 16 << 20;
	other = bed;
	assert_int_equal(bts_open(bed.path, &options, &other.db, &other.error), BTS_OK);
	assert_int_equal(bed_stat(&other).page_size, 4096);
	bed_set(&other, "b", "k", "1");
	bed_set(&bed, "b", "l", "2");
	bed_holds(&bed, "b", "k", "1");
	bed_holds(&other, "b", "l", "2");
	options.page_size = 5000;
	assert_int_equal(bts_open(bed.path, &options, &bed.db, &bed.error), BTS_INVALID);
	bts_close(other.db);
	bed_fini(&bed);
}

/*
 * How often and when each key was written; of absent keys only the leaf remembers, so any deletion may clash.
 */
struct turn_model {
	uint32_t writes[KEYS];
	bts_txid version[KEYS], deletion;
};

struct turn_txn {
	struct bts_txn *txn;
	bts_txid snapshot;
	uint32_t base[KEYS], seen[KEYS]; /* of the snapshot, and with its own changes */
	uint32_t mine[KEYS];		 /* what it wrote, UINT32_MAX nothing */
	bool deleted;			 /* anything, be it put again */
};

static struct bts_slice turn_key(char key[16], unsigned number)
{
	snprintf(key, 16, "key %06u", number);
	return bed_text(key);
}

static void turn_begin(struct bed *bed, const struct turn_model *m, struct turn_txn *t)
{
	t->txn = bed_begin(bed, BTS_WRITE);
	t->snapshot = bts_txn_id(t->txn);
	memcpy(t->base, m->writes, sizeof(t->base));
	memcpy(t->seen, m->writes, sizeof(t->seen));
	memset(t->mine, 0xff, sizeof(t->mine));
	t->deleted = false;
}

static void turn_step(struct rng *rng, struct turn_txn *t, uint32_t *number)
{
	unsigned k = (unsigned)rng_below(rng, KEYS);
	struct bts_bucket *bucket = bed_find(t->txn, "b");
	uint8_t value[400];
	struct bts_slice found;
	enum bts_err err;
	char key[16];

	err = bts_get(t->txn, bucket, turn_key(key, k), &found);
	assert_int_equal(err, t->seen[k] ? BTS_OK : BTS_NOT_FOUND);
	if (err == BTS_OK)
		assert_memory_equal(found.data, &t->seen[k], 4);
	if (rng_one_in(rng, 3) && t->seen[k]) {
		assert_int_equal(bts_del(t->txn, bucket, bed_text(key)), BTS_OK);
		t->seen[k] = t->mine[k] = 0;
		t->deleted = true;
	} else if (rng_one_in(rng, 2)) {
		t->seen[k] = t->mine[k] = ++*number;
		memset(value, 0, sizeof(value));
		memcpy(value, number, 4);
		assert_int_equal(bts_put(t->txn, bucket, bed_text(key),
					 (struct bts_slice){value, 4 + rng_below(rng, 390)}, 0),
			BTS_OK);
	}
}

/* First committer wins, key by key: what must clash clashes, what can not does not. */
static bool turn_commit(struct bed *bed, struct turn_model *m, struct turn_txn *t)
{
	bool must = false, may = false;
	bts_txid txid;
	enum bts_err err;

	for (unsigned k = 0; k < KEYS; k++) {
		if (t->mine[k] == UINT32_MAX)
			continue;
		must |= m->version[k] > t->snapshot;
		may |= m->writes[k] == 0 && m->deletion > t->snapshot;
	}
	err = bts_commit_id(t->txn, &txid, &bed->error);
	if (must || (err && may)) {
		assert_int_equal(err, BTS_CONFLICT);
		bts_abort(t->txn);
		t->txn = NULL;
		return false;
	}
	assert_int_equal(err, BTS_OK);
	if (t->deleted)
		m->deletion = txid;
	for (unsigned k = 0; k < KEYS; k++) {
		if (t->mine[k] == UINT32_MAX)
			continue;
		if (t->mine[k] || t->base[k])
			m->version[k] = txid;
		m->writes[k] = t->mine[k];
	}
	t->txn = NULL;
	return true;
}

static void turn_expect(struct bed *bed, const struct turn_model *m)
{
	struct bts_txn *txn = bed_begin(bed, BTS_READ);

	for (unsigned k = 0; k < KEYS; k++) {
		struct bts_slice found;
		char key[16];
		enum bts_err err = bts_get(txn, bed_find(txn, "b"), turn_key(key, k), &found);

		assert_int_equal(err, m->writes[k] ? BTS_OK : BTS_NOT_FOUND);
		if (err == BTS_OK)
			assert_memory_equal(found.data, &m->writes[k], 4);
	}
	bts_abort(txn);
}

/* Handles at work in turns, their transactions open side by side, against a model; some come and go. */
static void taking_turns(void **state)
{
	struct turn_txn *txns = calloc(HANDLES, sizeof(*txns));
	struct turn_model *m = calloc(1, sizeof(*m));
	unsigned committed = 0, clashed = 0;
	uint32_t number = 0;
	struct crew crew;
	struct rng rng;

	(void)state;
	assert_true(txns && m);
	rng_init(&rng, seed);
	crew_open(&crew);
	bed_set(&crew.beds[0], "b", "first", "0");
	for (unsigned turn = 0; turn < TURNS; turn++) {
		unsigned who = (unsigned)rng_below(&rng, HANDLES);

		if (txns[who].txn == NULL) {
			if (rng_one_in(&rng, 20))
				bed_reopen(&crew.beds[who]);
			turn_begin(&crew.beds[who], m, &txns[who]);
		}
		for (uint64_t n = rng_below(&rng, 4); n > 0; n--)
			turn_step(&rng, &txns[who], &number);
		if (!rng_one_in(&rng, 3))
			continue;
		*(turn_commit(&crew.beds[who], m, &txns[who]) ? &committed : &clashed) += 1;
		turn_expect(&crew.beds[rng_below(&rng, HANDLES)], m);
		if (rng_one_in(&rng, 50))
			bed_check(&crew.beds[rng_below(&rng, HANDLES)]);
	}
	for (unsigned i = 0; i < HANDLES; i++)
		bts_abort(txns[i].txn);
	printf("%u committed, %u clashed\n", committed, clashed);
	assert_true(committed > 100 && clashed > 5);
	turn_expect(&crew.beds[1], m);
	crew_close(&crew);
	free(txns);
	free(m);
}

/* Each took 4 TiB of address space, what was left was halved until the 56th found none. */
static void many_of_them(void **state)
{
	enum { MANY = 150 };
	static struct bts *handles[MANY];
	struct bts_slice value;
	struct bts_txn *txn;
	struct bed bed;
	void *room;

	(void)state;
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "v");
	for (unsigned i = 0; i < MANY; i++)
		if (bts_open(bed.path, NULL, &handles[i], &bed.error))
			fail_msg("handle %u: %s", i, bed.error.text);
	room = malloc((size_t)1 << 32);
	assert_non_null(room);
	free(room);
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(bts_begin(handles[i], BTS_READ, &txn, &bed.error), BTS_OK);
		assert_int_equal(bts_get(txn, bed_find(txn, "b"), bed_text("k"), &value), BTS_OK);
		bts_abort(txn);
		bts_close(handles[i]);
	}
	bed_fini(&bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(see_each_other),
		cmocka_unit_test(second_committer),
		cmocka_unit_test(no_clash),
		cmocka_unit_test(clashes),
		cmocka_unit_test(snapshots_and_refresh),
		cmocka_unit_test(opened_inside_a_transaction),
		cmocka_unit_test(other_options),
		cmocka_unit_test(taking_turns),
		cmocka_unit_test(many_of_them),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
