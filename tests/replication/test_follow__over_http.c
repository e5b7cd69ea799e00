/* Source to follower through real HTTP on loopback, both in this process. */
#include "cmocka.h"

#include <poll.h>
#include <stdio.h>

#include "replica.h"

struct fixture {
	char dir[128], primary[160], follower[160], url[64];
	struct bts *db;
	struct serve *serve;
};

static int set_up(void **state)
{
	static struct fixture fixture;

	memset(&fixture, 0, sizeof(fixture));
	replica_enter(fixture.dir, sizeof(fixture.dir));
	replica_path(fixture.primary, sizeof(fixture.primary), fixture.dir, "primary");
	replica_path(fixture.follower, sizeof(fixture.follower), fixture.dir, "follower");
	fixture.db = replica_open(fixture.primary, 0);
	replica_put(fixture.db, 0, 2000, 0, 100);
	fixture.serve = replica_serve(fixture.db, fixture.url, sizeof(fixture.url));
	*state = &fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	serve_stop(fixture->serve);
	bts_close(fixture->db);
	replica_leave(fixture->dir);
	return 0;
}

static void first_sync_and_each_commit(void **state)
{
	struct fixture *fixture = *state;
	struct follow *follow = replica_follow(fixture->follower, fixture->url, "n1");
	struct bts_ack acks[4];
	unsigned i;

	replica_await(follow, replica_txid(fixture->db));
	replica_assert_same(fixture->db, follow_db(follow));
	for (i = 1; i <= 40; i++) {
		replica_put(fixture->db, i * 13, i, i, i * 10);
		if (i % 4 == 0) {
			replica_await(follow, replica_txid(fixture->db));
			replica_assert_same(fixture->db, follow_db(follow));
		}
	}
	/* A value of many chunks, and then a small one in its place. */
	replica_put(fixture->db, 5, 1, 1, 5 << 20);
	replica_await(follow, replica_txid(fixture->db));
	replica_assert_same(fixture->db, follow_db(follow));
	replica_put(fixture->db, 5, 1, 2, 10);
	replica_await(follow, replica_txid(fixture->db));
	replica_assert_same(fixture->db, follow_db(follow));
	/* What it has was acknowledged by asking for more, at the latest by the request before. */
	assert_int_equal(bts_ack_list(fixture->db, acks, 4), 1);
	assert_string_equal(acks[0].node, "n1");
	assert_true(acks[0].txid >= replica_txid(fixture->db) - 1);
	assert_int_equal(acks[0].alarms, 0);
	follow_stop(follow);
}

/* Pages and units of a frame from base, counted apart from the replicator. */
static void count_walk(struct bts *db, bts_txid base, uint64_t *pages)
{
	struct bts_page_id id;
	struct bts_walk *walk;
	struct bts_slice bytes;
	enum bts_err err;

	*pages = 0;
	assert_int_equal(bts_walk_open(db, base, &walk, NULL), BTS_OK);
	while ((err = bts_walk_next(walk, &id, &bytes, NULL)) == BTS_OK) {
		assert_true(id.birth > base);
		*pages += id.count;
	}
	assert_int_equal(err, BTS_NOT_FOUND);
	bts_walk_close(walk);
}

static void asleep_for_a_thousand_commits(void **state)
{
	struct fixture *fixture = *state;
	struct follow_status status;
	struct follow *follow;
	uint64_t changed, all;
	bts_txid base;
	unsigned i;

	replica_put(fixture->db, 10000, 20000, 0, 100);
	follow = replica_follow(fixture->follower, fixture->url, "sleeper");
	base = replica_txid(fixture->db);
	replica_await(follow, base);
	follow_stop(follow);

	for (i = 0; i < 1000; i++)
		replica_put(fixture->db, 10000 + i % 50, 1, i + 1, 100);
	count_walk(fixture->db, base, &changed);
	count_walk(fixture->db, 0, &all);

	follow = replica_follow(fixture->follower, fixture->url, "sleeper");
	replica_await(follow, replica_txid(fixture->db));
	follow_status(follow, &status);
	print_message("1000 commits: %llu pages in %llu frame, %llu pages in all\n",
		(unsigned long long)status.pages, (unsigned long long)status.frames, (unsigned long long)all);
	assert_int_equal(status.frames, 1);
	assert_int_equal(status.pages, changed);
	assert_true(changed * 10 < all);
	replica_assert_same(fixture->db, follow_db(follow));
	follow_stop(follow);
}

static void cascade(void **state)
{
	struct fixture *fixture = *state;
	struct follow *first, *second;
	struct serve *serve;
	char path[160], url[64];

	first = replica_follow(fixture->follower, fixture->url, "first");
	replica_await(first, replica_txid(fixture->db));
	serve = replica_serve(follow_db(first), url, sizeof(url));
	replica_path(path, sizeof(path), fixture->dir, "second");
	second = replica_follow(path, url, "second");
	replica_put(fixture->db, 0, 50, 9, 300);
	replica_await(second, replica_txid(fixture->db));
	replica_assert_same(fixture->db, follow_db(second));
	follow_stop(second);
	serve_stop(serve);
	follow_stop(first);
}

static void cut_and_damaged_frames(void **state)
{
	static const uint64_t at[] = {10, 250, 400, 5000, 70000, 200000};
	struct fixture *fixture = *state;
	struct follow *follow;
	struct proxy *proxy;
	char url[64];
	unsigned i;

	proxy = proxy_start(serve_port(fixture->serve), url, sizeof(url));
	/* The first sync too: it leaves an empty file, which the next request fills. */
	proxy_harm(proxy, 2, 100000, false);
	follow = replica_follow(fixture->follower, url, "n1");
	replica_await(follow, replica_txid(fixture->db));
	follow_stop(follow);
	for (i = 0; i < 2 * sizeof(at) / sizeof(at[0]); i++) {
		unsigned before = proxy_harmed(proxy);

		/* Enough changed pages that every place is within the frame. */
		replica_put(fixture->db, 0, 2000, i + 1, 100);
		proxy_harm(proxy, 2, at[i / 2], i % 2);
		follow = replica_follow(fixture->follower, url, "n1");
		replica_await(follow, replica_txid(fixture->db));
		replica_assert_same(fixture->db, follow_db(follow));
		assert_true(proxy_harmed(proxy) > before);
		follow_stop(follow);
	}
	proxy_stop(proxy);
}

static void source_of_another_database(void **state)
{
	struct fixture *fixture = *state;
	struct bts_position before, after;
	struct follow_status status;
	struct follow *follow;
	struct serve *serve;
	char path[160], url[64];
	struct bts *other;

	follow = replica_follow(fixture->follower, fixture->url, "n1");
	replica_await(follow, replica_txid(fixture->db));
	assert_int_equal(bts_ship_position(follow_db(follow), &before, NULL), BTS_OK);
	follow_stop(follow);

	replica_path(path, sizeof(path), fixture->dir, "other");
	other = replica_open(path, 0);
	replica_put(other, 0, 10, 0, 10);
	serve = replica_serve(other, url, sizeof(url));
	follow = replica_follow(fixture->follower, url, "n1");
	replica_await_stopped(follow, &status);
	assert_non_null(strstr(status.error, "wrong-database"));
	assert_int_equal(bts_ack_list(other, NULL, 0), 0);
	assert_int_equal(bts_ship_position(follow_db(follow), &after, NULL), BTS_OK);
	assert_memory_equal(&before, &after, sizeof(before));
	replica_assert_clean(follow_db(follow));
	follow_stop(follow);
	serve_stop(serve);
	bts_close(other);
}

static void source_that_comes_and_goes(void **state)
{
	struct fixture *fixture = *state;
	struct serve_options options = {.db = fixture->db};
	struct bts_error error;
	struct follow *follow;
	char listen[32];

	follow = replica_follow(fixture->follower, fixture->url, "n1");
	replica_await(follow, replica_txid(fixture->db));
	snprintf(listen, sizeof(listen), "127.0.0.1:%u", serve_port(fixture->serve));
	serve_stop(fixture->serve);
	replica_put(fixture->db, 0, 100, 3, 50);
	replica_await_retries(follow, 2);
	options.listen = listen;
	if (serve_start(&options, &fixture->serve, &error))
		fail_msg("%s", error.text);
	replica_await(follow, replica_txid(fixture->db));
	replica_assert_same(fixture->db, follow_db(follow));
	follow_stop(follow);
}

/* Until the last contact is at least so old. */
static void await_silence(struct follow *follow, uint64_t ms, struct follow_status *status)
{
	unsigned tries;

	for (tries = 0; tries < REPLICA_TIMEOUT_MS; tries++) {
		follow_status(follow, status);
		if (status->contact_ms >= ms)
			return;
		poll(NULL, 0, 1);
	}
	fail_msg("the last contact is only %llu ms old", (unsigned long long)status->contact_ms);
}

/*
 * The machine of the source stops without a word: connections are taken and nothing is answered.  The
 * follower does not wait for what never comes, does not call it contact, and is back when the source is.
 */
static void source_that_hangs(void **state)
{
	struct fixture *fixture = *state;
	struct follow_status status;
	struct follow *follow;
	struct proxy *proxy;
	uint64_t retries;
	char url[64];

	proxy = proxy_start(serve_port(fixture->serve), url, sizeof(url));
	follow = replica_follow(fixture->follower, url, "n1");
	replica_await(follow, replica_txid(fixture->db));
	proxy_hang(proxy, true);
	replica_put(fixture->db, 0, 10, 7, 50);
	await_silence(follow, FOLLOW_WAIT_MS + 1000, &status);
	assert_true(status.txid < replica_txid(fixture->db));
	retries = status.retries;
	replica_await_retries(follow, retries + 1);
	follow_status(follow, &status);
	assert_string_not_equal(status.state, "following");
	assert_true(status.contact_ms >= FOLLOW_WAIT_MS + 1000);
	if (!strstr(status.error, "no answer within"))
		fail_msg("'%s'", status.error);
	/* The next one gives up sooner: it need not wait for news. */
	replica_await_retries(follow, retries + 2);
	proxy_hang(proxy, false);
	replica_await(follow, replica_txid(fixture->db));
	replica_assert_same(fixture->db, follow_db(follow));
	follow_stop(follow);
	proxy_stop(proxy);
}

/* The file was made, and then something failed: what was left is taken, not stumbled over. */
static void file_left_by_an_attempt(void **state)
{
	struct fixture *fixture = *state;
	struct bts_position position;
	struct follow *follow;
	struct proxy *proxy;
	char url[64];

	proxy = proxy_start(serve_port(fixture->serve), url, sizeof(url));
	proxy_hang(proxy, true);
	follow = replica_follow(fixture->follower, url, "n1");
	assert_int_equal(bts_ship_position(fixture->db, &position, NULL), BTS_OK);
	assert_int_equal(bts_ship_create(fixture->follower, NULL, &position, 4096, NULL), BTS_OK);
	proxy_hang(proxy, false);
	replica_await(follow, replica_txid(fixture->db));
	replica_assert_same(fixture->db, follow_db(follow));
	follow_stop(follow);
	proxy_stop(proxy);
}

/* A pair without commits goes on asking, also where the source grants less of a wait than is asked for. */
static void idle(void **state)
{
	struct fixture *fixture = *state;
	struct serve_options options = {.db = fixture->db, .listen = "127.0.0.1:0", .wait_max_ms = 300};
	struct follow_status status;
	struct bts_error error;
	struct follow *follow;
	struct proxy *proxy;
	char url[64];
	unsigned asked;

	serve_stop(fixture->serve);
	if (serve_start(&options, &fixture->serve, &error))
		fail_msg("%s", error.text);
	proxy = proxy_start(serve_port(fixture->serve), url, sizeof(url));
	follow = replica_follow(fixture->follower, url, "n1");
	replica_await(follow, replica_txid(fixture->db));
	asked = proxy_asked(proxy);
	while (proxy_asked(proxy) < asked + 5) {
		follow_status(follow, &status);
		assert_string_not_equal(status.state, "backing-off");
		poll(NULL, 0, 1);
	}
	assert_int_equal(status.retries, 0);
	assert_true(status.heard);
	follow_stop(follow);
	proxy_stop(proxy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(first_sync_and_each_commit, set_up, tear_down),
		cmocka_unit_test_setup_teardown(asleep_for_a_thousand_commits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(cascade, set_up, tear_down),
		cmocka_unit_test_setup_teardown(cut_and_damaged_frames, set_up, tear_down),
		cmocka_unit_test_setup_teardown(source_of_another_database, set_up, tear_down),
		cmocka_unit_test_setup_teardown(source_that_comes_and_goes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(source_that_hangs, set_up, tear_down),
		cmocka_unit_test_setup_teardown(file_left_by_an_attempt, set_up, tear_down),
		cmocka_unit_test_setup_teardown(idle, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
