/*
 * Work to be counted: count_work FILE KIND TIMES does what KIND names that often; count_work FILE make makes FILE.
 *
 * Everything before and after the work is the same for every TIMES, and clock and random numbers stand still, so that the difference
 * of two runs is the work's alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <btree_store.h>
#include <btree_store/env.h>

#define ENTRIES 20000u
#define KEYS_BEYOND 100000u /* for appending */
#define BATCH 1000u
#define KEY 16

static struct bts *db;
static const char *file;
static struct bts_error error;

static void must(enum bts_err err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "%s: %s: %s\n", what, bts_err_name(err), error.text);
	exit(1);
}

static uint64_t still_ms(struct bts_env *env)
{
	(void)env;
	return 1700000000000;
}

static int still_random(struct bts_env *env, void *data, size_t size)
{
	(void)env;
	memset(data, 7, size);
	return 0;
}

static struct bts *open_db(const char *path)
{
	struct bts *opened;
	static struct bts_env_ops ops;
	static struct bts_env env = {&ops};
	struct bts_options options;

	ops = *bts_env_posix()->ops;
	ops.clock_ms = ops.tick_ms = ops.realtime_ms = still_ms;
	ops.random = still_random;
	bts_options_init(&options);
	options.env = &env;
	must(bts_open(path, &options, &opened, &error), path);
	return opened;
}

static struct bts_txn *begin(unsigned flags)
{
	struct bts_txn *txn;

	must(bts_begin(db, flags, &txn, &error), "begin");
	return txn;
}

static struct bts_bucket *bucket(struct bts_txn *txn)
{
	struct bts_bucket *b;

	must(bts_bucket(txn, (struct bts_slice){"bucket", 6}, 0, &b, &error), "bucket");
	return b;
}

/* Written before the work, or their making would drown a get: numbers of KEY digits. */
static char keys[ENTRIES + KEYS_BEYOND][KEY];

static void write_keys(void)
{
	for (uint64_t i = 0; i < ENTRIES + KEYS_BEYOND; i++) {
		uint64_t number = i;

		for (int at = KEY; at-- > 0; number /= 10)
			keys[i][at] = (char)('0' + number % 10);
	}
}

static struct bts_slice key_of(uint64_t number)
{
	return (struct bts_slice){keys[number % (ENTRIES + KEYS_BEYOND)], KEY};
}

static struct bts_slice key_random(uint64_t step)
{
	return key_of(step * 7919 % ENTRIES);
}

static const struct bts_slice value = {
	"0123456789012345678901234567890123456789012345678901234567890123456789"
	"012345678901234567890123456789",
	100};

static void make(void)
{
	struct bts_txn *txn = begin(BTS_WRITE);
	struct bts_bucket *b;

	must(bts_bucket(txn, (struct bts_slice){"bucket", 6}, BTS_CREATE, &b, &error), "bucket");
	for (uint64_t i = 0; i < ENTRIES; i++)
		must(bts_put(txn, b, key_random(i), value, 0), "put");
	must(bts_commit(txn, &error), "commit");
}

static void gets(unsigned times)
{
	struct bts_txn *txn = begin(BTS_READ);
	struct bts_bucket *b = bucket(txn);
	struct bts_slice found;

	for (unsigned i = 0; i < times; i++)
		must(bts_get(txn, b, key_random(i), &found), "get");
	bts_abort(txn);
}

static void get_transactions(unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		struct bts_txn *txn = begin(BTS_READ);
		struct bts_slice found;

		must(bts_get(txn, bucket(txn), key_random(i), &found), "get");
		bts_abort(txn);
	}
}

static void begins(unsigned times)
{
	for (unsigned i = 0; i < times; i++)
		bts_abort(begin(BTS_READ));
}

static void scan(unsigned times, int back)
{
	struct bts_txn *txn = begin(BTS_READ);
	struct bts_slice key, found;
	struct bts_cursor *cursor;
	enum bts_err err = BTS_NOT_FOUND;

	must(bts_cursor_open(txn, bucket(txn), &cursor, &error), "cursor");
	for (unsigned i = 0; i < times; i++) {
		if (err)
			err = back ? bts_cursor_last(cursor, &key, &found)
				   : bts_cursor_first(cursor, &key, &found);
		else
			err = back ? bts_cursor_prev(cursor, &key, &found)
				   : bts_cursor_next(cursor, &key, &found);
	}
	bts_cursor_close(cursor);
	bts_abort(txn);
}

static void nexts(unsigned times)
{
	scan(times, 0);
}

static void prevs(unsigned times)
{
	scan(times, 1);
}

/* In batches that are given up, so that no commit is counted. */
static void puts_in(unsigned times, uint64_t beyond)
{
	struct bts_txn *txn = NULL;
	struct bts_bucket *b = NULL;

	for (unsigned i = 0; i < times; i++) {
		if (i % BATCH == 0) {
			bts_abort(txn);
			txn = begin(BTS_WRITE);
			b = bucket(txn);
		}
		must(bts_put(txn, b, beyond ? key_of(beyond + i) : key_random(i), value, 0), "put");
	}
	bts_abort(txn);
}

static void puts_random(unsigned times)
{
	puts_in(times, 0);
}

static void puts_sorted(unsigned times)
{
	puts_in(times, ENTRIES);
}

static void commits(unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		struct bts_txn *txn = begin(BTS_WRITE);

		must(bts_put(txn, bucket(txn), key_random(i), value, 0), "put");
		must(bts_commit(txn, &error), "commit");
	}
}

static void commit_random(struct bts *handle, unsigned from, unsigned puts)
{
	struct bts *own = db;
	struct bts_txn *txn;

	db = handle;
	txn = begin(BTS_WRITE);
	for (unsigned i = 0; i < puts; i++)
		must(bts_put(txn, bucket(txn), key_random(from + i), value, 0), "put");
	must(bts_commit(txn, &error), "commit");
	db = own;
}

/* Two handles, each of which learns from the other's commits, beside a reader who keeps what 300 of them replaced. */
static void follows(unsigned times)
{
	struct bts *other = open_db(file);
	struct bts_txn *reader = begin(BTS_READ);

	for (unsigned i = 0; i < 300; i++)
		commit_random(i % 2 ? db : other, 100 * i, 100);
	for (unsigned i = 0; i < times; i++)
		commit_random(i % 2 ? db : other, 8 * i, 8);
	bts_abort(reader);
	bts_close(other);
}

static const struct {
	const char *name;
	void (*work)(unsigned times);
} kinds[] = {
	{"get", gets},
	{"get-transaction", get_transactions},
	{"begin-abort", begins},
	{"scan-next", nexts},
	{"scan-prev", prevs},
	{"put-random", puts_random},
	{"put-sorted", puts_sorted},
	{"commit-one-put", commits},
	{"commit-followed", follows},
};

int main(int argc, char **argv)
{
	unsigned found = 0;

	if (argc < 3) {
		fprintf(stderr, "usage: count_work FILE make | count_work FILE KIND TIMES\n");
		return 2;
	}
	write_keys();
	file = argv[1];
	db = open_db(file);
	if (!strcmp(argv[2], "make"))
		make();
	else
		nexts(ENTRIES); /* every page is verified once */
	for (size_t i = 0; argc > 3 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(argv[2], kinds[i].name))
			continue;
		kinds[i].work((unsigned)atoi(argv[3]));
		found++;
	}
	bts_close(db);
	return found || !strcmp(argv[2], "make") ? 0 : 2;
}
