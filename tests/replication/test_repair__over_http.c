/*
 * Damaged pages of a primary and of its follower, both open, repaired from each other over HTTP; a page that is damaged on both
 * is listed.
 */
#include "cmocka.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "repair.h"
#include "replica.h"

#define FLIPS 5u

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

static void flip(const char *name, uint64_t offset)
{
	char path[160];
	uint8_t byte;
	int fd;

	replica_path(path, sizeof(path), dir, name);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
	byte ^= 0x20;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
	close(fd);
}

static void repair(struct bts *db, const char *peers, struct repair_status *status)
{
	const struct repair_options options = {.db = db, .peers = peers, .rate = UINT64_MAX};
	struct bts_error error;
	struct repair *running;

	if (repair_start(&options, &running, &error))
		fail_msg("scrub: %s", error.text);
	repair_wait(running);
	repair_status(running, status);
	repair_stop(running);
	assert_true(status->ended && !status->running);
}

/* The first units that the file has, spread out: branches, leaves, large values, the free log. */
static unsigned some_units(struct bts *db, struct bts_page_id *ids)
{
	struct bts_error error;
	struct bts_slice bytes;
	struct bts_page_id id;
	struct bts_walk *walk;
	unsigned count = 0, seen = 0;

	assert_int_equal(bts_walk_open(db, 0, &walk, &error), BTS_OK);
	while (count < FLIPS && bts_walk_next(walk, &id, &bytes, &error) == BTS_OK)
		if (seen++ % 29 == 3)
			ids[count++] = id;
	bts_walk_close(walk);
	return count;
}

static void test_repair(void **state)
{
	char primary_path[160], follower_path[160], at_primary[64], at_follower[64], peers[200];
	static struct repair_status status;
	struct bts_page_id ids[FLIPS];
	struct serve *serve, *back;
	struct follow *follow;
	struct bts *db;
	unsigned count;

	(void)state;
	replica_path(primary_path, sizeof(primary_path), dir, "primary");
	replica_path(follower_path, sizeof(follower_path), dir, "follower");
	db = replica_open(primary_path, 0);
	replica_put(db, 0, 3000, 0, 200);
	replica_put(db, 9000, 20, 0, 30000);
	serve = replica_serve(db, at_primary, sizeof(at_primary));
	follow = replica_follow(follower_path, at_primary, "f");
	replica_await(follow, replica_txid(db));
	back = replica_serve(follow_db(follow), at_follower, sizeof(at_follower));
	snprintf(peers, sizeof(peers), "http://127.0.0.1:1,%s/", at_follower);

	count = some_units(db, ids);
	assert_int_equal(count, FLIPS);
	for (unsigned i = 0; i < count; i++)
		flip(i % 2 ? "primary" : "follower", ids[i].pgno * 4096 + 100);
	repair(db, peers, &status);
	assert_true(status.scrub.damaged == FLIPS / 2 && status.scrub.repaired == FLIPS / 2 && status.lost == 0);
	repair(follow_db(follow), at_primary, &status);
	assert_true(status.scrub.repaired == (FLIPS + 1) / 2 && status.lost == 0);
	replica_assert_same(db, follow_db(follow));

	flip("primary", ids[4].pgno * 4096 + 200);
	flip("follower", ids[4].pgno * 4096 + 300);
	repair(db, at_follower, &status);
	assert_true(status.lost == 1 && status.listed[0].pgno == ids[4].pgno && status.scrub.repaired == 0);
	flip("follower", ids[4].pgno * 4096 + 300);
	repair(db, at_follower, &status);
	assert_true(status.lost == 0 && status.scrub.repaired == 1);
	replica_assert_same(db, follow_db(follow));
	serve_stop(back);
	follow_stop(follow);
	serve_stop(serve);
	bts_close(db);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_repair, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
