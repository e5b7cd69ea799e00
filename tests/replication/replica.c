/* What the tests over real HTTP share. */
#include "cmocka.h"

#include "replica.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

void replica_enter(char *dir, size_t size)
{
	const char *base = getenv("TMPDIR");

	snprintf(dir, size, "%s/bts-replica-XXXXXX", base && *base ? base : "/tmp");
	assert_non_null(mkdtemp(dir));
}

static int replica_remove(const char *path, const struct stat *stat, int kind, struct FTW *at)
{
	(void)stat;
	(void)kind;
	(void)at;
	return remove(path);
}

void replica_leave(const char *dir)
{
	nftw(dir, replica_remove, 16, FTW_DEPTH | FTW_PHYS);
}

void replica_path(char *out, size_t size, const char *dir, const char *name)
{
	snprintf(out, size, "%s/%s", dir, name);
}

struct bts *replica_open(const char *path, unsigned flags)
{
	struct bts_options options;
	struct bts_error error;
	struct bts *db;

	bts_options_init(&options);
	options.flags = flags;
	if (bts_open(path, &options, &db, &error))
		fail_msg("open %s: %s", path, error.text);
	return db;
}

struct bts *replica_open_in(const char *dir, const char *name, unsigned flags)
{
	char path[160];

	replica_path(path, sizeof(path), dir, name);
	return replica_open(path, flags);
}

void replica_copy(const char *dir, const char *from, const char *to)
{
	char a[160], b[160], buffer[65536];
	FILE *in, *out;
	size_t got;

	replica_path(a, sizeof(a), dir, from);
	replica_path(b, sizeof(b), dir, to);
	in = fopen(a, "rb");
	out = fopen(b, "wb");
	assert_true(in && out);
	while ((got = fread(buffer, 1, sizeof(buffer), in)) > 0)
		assert_int_equal(fwrite(buffer, 1, got, out), got);
	fclose(in);
	fclose(out);
}

struct replica_work {
	unsigned from, count, round;
	size_t size;
};

static enum bts_err replica_write(struct bts_txn *txn, void *arg)
{
	const struct replica_work *work = arg;
	struct bts_bucket *bucket;
	enum bts_err err;
	uint8_t *value;
	char key[32];
	unsigned i;
	size_t j;

	err = bts_bucket(txn, (struct bts_slice){"b", 1}, BTS_CREATE, &bucket, NULL);
	value = malloc(work->size + 1);
	for (i = work->from; !err && i < work->from + work->count; i++) {
		snprintf(key, sizeof(key), "key-%08u", i);
		for (j = 0; j < work->size; j++)
			value[j] = (uint8_t)(i * 31 + work->round * 7 + j + (j >> 8));
		err = bts_put(txn, bucket, (struct bts_slice){key, strlen(key)},
			(struct bts_slice){value, work->size}, 0);
	}
	free(value);
	return err;
}

void replica_put(struct bts *db, unsigned from, unsigned count, unsigned round, size_t size)
{
	struct replica_work work = {from, count, round, size};
	struct bts_error error = {.text = ""};

	if (bts_update(db, replica_write, &work, &error))
		fail_msg("put: %s", error.text);
}

bts_txid replica_txid(struct bts *db)
{
	struct bts_position position;

	assert_int_equal(bts_ship_position(db, &position, NULL), BTS_OK);
	return position.txid;
}

static void replica_event(void *arg, const struct repl_event *event)
{
	if (event->level != REPL_INFO && getenv("BTS_VERBOSE"))
		printf("%s: %s: %s\n", (const char *)arg, event->name, event->text);
}

struct serve *replica_serve(struct bts *db, char *url, size_t size)
{
	const struct serve_options options = {
		.db = db, .listen = "127.0.0.1:0", .events = {replica_event, (void *)(uintptr_t) "serve"}};
	struct bts_error error;
	struct serve *serve;

	if (serve_start(&options, &serve, &error))
		fail_msg("serve: %s", error.text);
	snprintf(url, size, "http://127.0.0.1:%u", serve_port(serve));
	return serve;
}

struct follow *replica_follow(const char *path, const char *url, const char *node)
{
	const struct follow_options options = {.path = path,
		.upstream = url,
		.node = node,
		.url = "http://127.0.0.1:1",
		.events = {replica_event, (void *)(uintptr_t) "follow"}};
	struct bts_error error;
	struct follow *follow;

	if (follow_start(&options, &follow, &error))
		fail_msg("follow: %s", error.text);
	return follow;
}

static void replica_pause(void)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	nanosleep(&pause, NULL);
}

void replica_await(struct follow *follow, bts_txid txid)
{
	struct follow_status status;
	unsigned tries;

	for (tries = 0; tries < REPLICA_TIMEOUT_MS; tries++) {
		follow_status(follow, &status);
		if (status.txid >= txid)
			return;
		if (strcmp(status.state, "stopped") == 0)
			break;
		replica_pause();
	}
	fail_msg("follower is %s at %llu, not at %llu: %s", status.state, (unsigned long long)status.txid,
		(unsigned long long)txid, status.error);
}

void replica_await_stopped(struct follow *follow, struct follow_status *status)
{
	unsigned tries;

	for (tries = 0; tries < REPLICA_TIMEOUT_MS; tries++) {
		follow_status(follow, status);
		if (strcmp(status->state, "stopped") == 0)
			return;
		replica_pause();
	}
	fail_msg("follower is still %s", status->state);
}

void replica_await_retries(struct follow *follow, uint64_t retries)
{
	struct follow_status status;
	unsigned tries;

	for (tries = 0; tries < REPLICA_TIMEOUT_MS; tries++) {
		follow_status(follow, &status);
		if (status.retries >= retries)
			return;
		replica_pause();
	}
	fail_msg("only %llu requests failed", (unsigned long long)status.retries);
}

static void replica_finding(void *arg, bts_pgno page, const char *text)
{
	(void)arg;
	printf("check: page %llu: %s\n", (unsigned long long)page, text);
}

void replica_assert_clean(struct bts *db)
{
	const struct bts_check_options options = {.report = replica_finding};
	struct bts_error error = {.text = ""};

	if (bts_check(db, &options, &error))
		fail_msg("check: %s", error.text);
}

static void replica_assert_same_content(struct bts_txn *a, struct bts_txn *b)
{
	const struct bts_slice name = {"b", 1};
	struct bts_bucket *bucket_a, *bucket_b;
	struct bts_cursor *cursor_a, *cursor_b;
	struct bts_slice key_a, key_b, value_a, value_b;
	enum bts_err err_a, err_b;

	assert_int_equal(bts_bucket(a, name, 0, &bucket_a, NULL), BTS_OK);
	assert_int_equal(bts_bucket(b, name, 0, &bucket_b, NULL), BTS_OK);
	assert_int_equal(bts_cursor_open(a, bucket_a, &cursor_a, NULL), BTS_OK);
	assert_int_equal(bts_cursor_open(b, bucket_b, &cursor_b, NULL), BTS_OK);
	err_a = bts_cursor_first(cursor_a, &key_a, &value_a);
	err_b = bts_cursor_first(cursor_b, &key_b, &value_b);
	while (!err_a && !err_b) {
		assert_int_equal(key_a.size, key_b.size);
		assert_memory_equal(key_a.data, key_b.data, key_a.size);
		assert_int_equal(value_a.size, value_b.size);
		assert_memory_equal(value_a.data, value_b.data, value_a.size);
		assert_true(bts_cursor_version(cursor_a) == bts_cursor_version(cursor_b));
		err_a = bts_cursor_next(cursor_a, &key_a, &value_a);
		err_b = bts_cursor_next(cursor_b, &key_b, &value_b);
	}
	assert_int_equal(err_a, BTS_NOT_FOUND);
	assert_int_equal(err_b, BTS_NOT_FOUND);
	bts_cursor_close(cursor_a);
	bts_cursor_close(cursor_b);
}

void replica_assert_same(struct bts *a, struct bts *b)
{
	struct bts_stat stat_a = {.size = sizeof(stat_a)}, stat_b = {.size = sizeof(stat_b)};
	struct bts_txn *txn_a, *txn_b;

	assert_int_equal(bts_stat(a, &stat_a, NULL), BTS_OK);
	assert_int_equal(bts_stat(b, &stat_b, NULL), BTS_OK);
	assert_true(stat_a.durable_txid == stat_b.durable_txid);
	assert_memory_equal(stat_a.root_digest, stat_b.root_digest, 16);
	assert_memory_equal(stat_a.chain, stat_b.chain, 16);
	assert_memory_equal(stat_a.database, stat_b.database, 16);
	assert_int_equal(bts_begin(a, BTS_READ, &txn_a, NULL), BTS_OK);
	assert_int_equal(bts_begin(b, BTS_READ, &txn_b, NULL), BTS_OK);
	replica_assert_same_content(txn_a, txn_b);
	bts_abort(txn_a);
	bts_abort(txn_b);
	replica_assert_clean(a);
	replica_assert_clean(b);
}
