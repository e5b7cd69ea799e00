/*
 * A follower whose history and its source's have parted: it stops, or, when it may, writes down what only it has, takes the
 * source's history page by page, and follows on.
 */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "follow.h"
#include "replica.h"

static char dir[128];

static int set_up(void **state)
{
	(void)state;
	replica_enter(dir, sizeof(dir));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	replica_leave(dir);
	return 0;
}

static struct follow *follow(const char *url, bool rejoin)
{
	char path[160];
	struct follow_options options = {.path = path, .upstream = url, .node = "f", .rejoin = rejoin};
	struct follow *follow;
	struct bts_error error;

	replica_path(path, sizeof(path), dir, "follower");
	if (follow_start(&options, &follow, &error))
		fail_msg("follow: %s", error.text);
	return follow;
}

static unsigned count_lines(const char *path, const char *part)
{
	static char line[100000];
	FILE *file = fopen(path, "r");
	unsigned count = 0;

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		assert_true(line[0] == '{' && strcmp(line + strlen(line) - 2, "}\n") == 0);
		count += strstr(line, part) != NULL;
	}
	fclose(file);
	return count;
}

/* "old" and "now" part after 500 keys; the follower has 40 changed keys of "old". */
static void part(struct bts **now)
{
	char url[64], path[160];
	struct follow *f;
	struct serve *serve;
	struct bts *old = replica_open_in(dir, "old", 0);

	replica_put(old, 0, 500, 0, 200);
	bts_close(old);
	replica_copy(dir, "old", "now");
	old = replica_open_in(dir, "old", 0);
	replica_put(old, 100, 40, 1, 300);
	serve = replica_serve(old, url, sizeof(url));
	replica_path(path, sizeof(path), dir, "follower");
	f = replica_follow(path, url, "f");
	replica_await(f, replica_txid(old));
	follow_stop(f);
	serve_stop(serve);
	bts_close(old);
	*now = replica_open_in(dir, "now", 0);
	replica_put(*now, 130, 20, 2, 100);
}

static void test_rejoin(void **state)
{
	struct follow_status status;
	struct serve *serve;
	struct follow *f;
	struct bts *now;
	char url[64];

	(void)state;
	part(&now);
	serve = replica_serve(now, url, sizeof(url));
	f = follow(url, false);
	replica_await_stopped(f, &status);
	assert_non_null(strstr(status.error, "diverged"));
	assert_int_equal(status.grafts, 0);
	follow_stop(f);

	f = follow(url, true);
	replica_await(f, replica_txid(now));
	follow_status(f, &status);
	assert_int_equal(status.grafts, 1);
	printf("%llu pages grafted, %s\n", (unsigned long long)status.graft_pages, status.orphans);
	assert_int_equal(count_lines(status.orphans, "\"op\":\"put\",\"bucket\":\"b\",\"key\":\"key-"), 40);
	assert_int_equal(count_lines(status.orphans, "\"both\":true"), 10);
	replica_assert_same(now, follow_db(f));
	replica_put(now, 0, 30, 3, 50);
	replica_await(f, replica_txid(now));
	replica_assert_same(now, follow_db(f));
	follow_status(f, &status);
	assert_int_equal(status.digest_mismatches, 0);
	follow_stop(f);
	serve_stop(serve);
	bts_close(now);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_rejoin, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
