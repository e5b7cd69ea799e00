/*
 * A follower far behind over a link that never carries a frame whole: after some frames that broke off it asks for what differs in small
 * questions, keeps what comes, and gets there.  A link that carries them has no use for that.
 */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>

#include "replica.h"

#define KEYS 100000u
#define PAGE 4096u
#define GRAFT_AFTER 400000u
#define CUT 700000u /* less than the answer to one question has */

struct fixture {
	char dir[128], primary[160], follower[160], url[64];
	struct bts *db;
	struct serve *serve;
	struct proxy *proxy;
};

/* The follower has all, and then is away while every page of the bucket changes. */
static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct follow *follow;

	replica_enter(f->dir, sizeof(f->dir));
	replica_path(f->primary, sizeof(f->primary), f->dir, "primary");
	replica_path(f->follower, sizeof(f->follower), f->dir, "follower");
	f->db = replica_open(f->primary, 0);
	replica_put(f->db, 0, KEYS, 0, 100);
	f->serve = replica_serve(f->db, f->url, sizeof(f->url));
	follow = replica_follow(f->follower, f->url, "n1");
	replica_await(follow, replica_txid(f->db));
	follow_stop(follow);
	for (unsigned i = 0; i < 4; i++)
		replica_put(f->db, i * (KEYS / 4), KEYS / 4, i + 1, 100);
	f->proxy = proxy_start(serve_port(f->serve), f->url, sizeof(f->url));
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	proxy_stop(f->proxy);
	serve_stop(f->serve);
	bts_close(f->db);
	replica_leave(f->dir);
	free(f);
	return 0;
}

static struct follow *follow_it(struct fixture *f)
{
	struct follow_options options = {.path = f->follower, .upstream = f->url, .node = "n1", .graft_after = GRAFT_AFTER};
	struct follow *follow;

	assert_int_equal(follow_start(&options, &follow, NULL), BTS_OK);
	return follow;
}

static uint64_t live_pages(struct bts *db)
{
	struct bts_stat stat = {.size = sizeof(stat)};

	assert_int_equal(bts_stat(db, &stat, NULL), BTS_OK);
	return stat.pages - stat.first_page - stat.free_pages;
}

static void gets_there(void **state)
{
	struct fixture *f = *state;
	struct follow_status status;
	struct follow *follow;

	proxy_harm(f->proxy, 1000, CUT, false);
	follow = follow_it(f);
	replica_await(follow, replica_txid(f->db));
	follow_status(follow, &status);
	printf("%u cuts, %llu retries, %llu pages by %llu graft, %llu bytes\n", proxy_harmed(f->proxy),
		(unsigned long long)status.retries, (unsigned long long)status.graft_pages, (unsigned long long)status.grafts,
		(unsigned long long)status.bytes);
	assert_int_equal(status.grafts, 1);
	assert_string_equal(status.orphans, "");
	/* Three frames, and the answer to a question that was too large; what came otherwise stayed, so nothing came twice. */
	assert_int_equal(proxy_harmed(f->proxy), 4);
	assert_true(status.graft_pages * PAGE > 10 * CUT && status.graft_pages <= live_pages(f->db));
	replica_assert_same(f->db, follow_db(follow));
	/* And on, by frames. */
	proxy_harm(f->proxy, 0, 0, false);
	replica_put(f->db, 5, 5, 77, 100);
	replica_await(follow, replica_txid(f->db));
	follow_status(follow, &status);
	assert_int_equal(status.grafts, 1);
	assert_int_equal(status.frames, 1);
	replica_assert_same(f->db, follow_db(follow));
	follow_stop(follow);
}

/* Two that broke off are no reason, nor is any number of those that had hardly begun. */
static void frames_as_long_as_they_come(void **state)
{
	struct fixture *f = *state;
	struct follow_status status;
	struct follow *follow;

	proxy_harm(f->proxy, 2, CUT, false);
	follow = follow_it(f);
	replica_await(follow, replica_txid(f->db));
	follow_status(follow, &status);
	assert_int_equal(status.grafts, 0);
	assert_int_equal(status.frames, 1);
	for (unsigned i = 0; i < 4; i++)
		replica_put(f->db, i * (KEYS / 4), KEYS / 4, i + 9, 100);
	proxy_harm(f->proxy, 5, GRAFT_AFTER / 2, false);
	replica_await(follow, replica_txid(f->db));
	follow_status(follow, &status);
	assert_int_equal(status.grafts, 0);
	replica_assert_same(f->db, follow_db(follow));
	follow_stop(follow);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(gets_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(frames_as_long_as_they_come, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
