/*
 * What replication costs in bytes.  A frame is the pages that changed and at most 512 bytes + 32 a page, its commit record among them, of which
 * each commit that was passed over on the way takes 22; a follower that was away
 * for many commits over a few hot keys fetches what is live of them, once, and the primary has kept nothing for it: its file has not
 * grown with the number of commits.  BTS_HOT_COMMITS: how many (the 100000 take about half a minute).
 */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>

#include "replica.h"

#define KEYS 100000u
#define HOT 1000u
#define PAGE 4096u

struct fixture {
	char dir[128], primary[160], follower[160], url[64];
	struct bts *db;
	struct serve *serve;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	replica_enter(f->dir, sizeof(f->dir));
	replica_path(f->primary, sizeof(f->primary), f->dir, "primary");
	replica_path(f->follower, sizeof(f->follower), f->dir, "follower");
	f->db = replica_open(f->primary, 0);
	replica_put(f->db, 0, KEYS, 0, 100);
	f->serve = replica_serve(f->db, f->url, sizeof(f->url));
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	serve_stop(f->serve);
	bts_close(f->db);
	replica_leave(f->dir);
	free(f);
	return 0;
}

/* Pages born after base. */
static uint64_t changed(struct bts *db, bts_txid base)
{
	struct bts_page_id id;
	struct bts_walk *walk;
	struct bts_slice bytes;
	uint64_t pages = 0;
	enum bts_err err;

	assert_int_equal(bts_walk_open(db, base, &walk, NULL), BTS_OK);
	while ((err = bts_walk_next(walk, &id, &bytes, NULL)) == BTS_OK)
		pages += id.count;
	assert_int_equal(err, BTS_NOT_FOUND);
	bts_walk_close(walk);
	return pages;
}

/* What a frame may have besides its pages. */
static void bounded(const struct follow_status *before, const struct follow_status *after, uint64_t commits, uint64_t *most)
{
	uint64_t frames = after->frames - before->frames, pages = after->pages - before->pages;
	uint64_t framing = after->bytes - before->bytes - pages * PAGE;
	uint64_t room = frames * 512 + 32 * pages + 22 * (commits - frames);

	if (framing > room)
		fail_msg("%llu bytes besides %llu pages in %llu frames of %llu commits, at most %llu", (unsigned long long)framing,
			(unsigned long long)pages, (unsigned long long)frames, (unsigned long long)commits, (unsigned long long)room);
	if (framing > 32 * pages && framing - 32 * pages > *most)
		*most = framing - 32 * pages;
}

/* Keys in one commit, in a frame of its own. */
static void one_frame(struct fixture *f, struct follow *follow, unsigned from, unsigned keys, unsigned round, uint64_t *most)
{
	struct follow_status before, after;

	follow_status(follow, &before);
	replica_put(f->db, from, keys, round, 100);
	replica_await(follow, replica_txid(f->db));
	follow_status(follow, &after);
	assert_int_equal(after.frames, before.frames + 1);
	assert_int_equal(after.pages - before.pages, changed(f->db, before.txid));
	bounded(&before, &after, 1, most);
}

static void bytes_of_frames(void **state)
{
	static const unsigned sizes[] = {1, 1, 1, 1, 10, 100, 1000, 10000};
	uint64_t most = 0, most_of_one = 0;
	struct fixture *f = *state;
	struct follow_status first, last;
	struct follow *follow = replica_follow(f->follower, f->url, "n1");

	replica_await(follow, replica_txid(f->db));
	for (unsigned i = 0; i < 5 * sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned keys = sizes[i % (sizeof(sizes) / sizeof(sizes[0]))];

		one_frame(f, follow, i * 7919 % (KEYS - keys), keys, i + 1, &most);
	}
	follow_status(follow, &first);
	for (unsigned i = 0; i < 200; i++)
		one_frame(f, follow, i * 7919 % KEYS, 1, i + 100, &most_of_one);
	follow_status(follow, &last);
	printf("frames of one put: %llu bytes on average besides pages, at most %llu + 32 a page; of more: at most %llu + 32 a page\n",
		(unsigned long long)((last.bytes - first.bytes - (last.pages - first.pages) * PAGE) / 200),
		(unsigned long long)most_of_one, (unsigned long long)most);
	follow_stop(follow);
}

static uint64_t framing_of_a_put(struct fixture *f, struct follow *follow, unsigned round)
{
	struct follow_status before, after;

	follow_status(follow, &before);
	replica_put(f->db, round, 1, round, 100);
	replica_await(follow, replica_txid(f->db));
	follow_status(follow, &after);
	assert_int_equal(after.frames, before.frames + 1);
	return after.bytes - before.bytes - (after.pages - before.pages) * PAGE;
}

/* A source or a follower that has begun anew has no record to build on: one whole one goes over, and the next is lean again. */
static void lean_after_a_restart(void **state)
{
	struct fixture *f = *state;
	struct follow *follow = replica_follow(f->follower, f->url, "n1");

	replica_await(follow, replica_txid(f->db));
	for (unsigned i = 0; i < 20; i++)
		(void)framing_of_a_put(f, follow, i);
	assert_true(framing_of_a_put(f, follow, 20) < 512);
	serve_stop(f->serve);
	f->serve = replica_serve(f->db, f->url, sizeof(f->url));
	assert_int_equal(follow_switch(follow, f->url, NULL), BTS_OK);
	assert_true(framing_of_a_put(f, follow, 21) > 600);
	assert_true(framing_of_a_put(f, follow, 22) < 512);
	follow_stop(follow);
	follow = replica_follow(f->follower, f->url, "n1");
	assert_true(framing_of_a_put(f, follow, 23) > 600);
	assert_true(framing_of_a_put(f, follow, 24) < 512);
	replica_assert_same(f->db, follow_db(follow));
	follow_stop(follow);
}

static void hot_commit(struct bts *db, unsigned round)
{
	const struct bts_slice name = {"b", 1};
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	char key[16], value[100];

	memset(value, (int)('a' + round % 26), sizeof(value));
	snprintf(key, sizeof(key), "key-%08u", round * 7919 % HOT * (KEYS / HOT));
	assert_int_equal(bts_begin(db, BTS_WRITE | BTS_ASYNC, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, name, 0, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_put(txn, bucket, (struct bts_slice){key, strlen(key)}, (struct bts_slice){value, sizeof(value)}, 0),
		BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
}

/* Commits as fast as they are made, in frames of as many as there are when the follower asks. */
static void bytes_of_a_stream(void **state)
{
	struct fixture *f = *state;
	struct follow *follow = replica_follow(f->follower, f->url, "n1");
	struct follow_status before, after;
	uint64_t most = 0;
	bts_txid base;

	hot_commit(f->db, 0);
	assert_int_equal(bts_sync(f->db, NULL), BTS_OK);
	base = replica_txid(f->db);
	replica_await(follow, base);
	follow_status(follow, &before);
	for (unsigned i = 1; i <= 3000; i++) {
		hot_commit(f->db, i);
		if (i % 5 == 0)
			assert_int_equal(bts_sync(f->db, NULL), BTS_OK);
	}
	assert_int_equal(bts_sync(f->db, NULL), BTS_OK);
	replica_await(follow, replica_txid(f->db));
	follow_status(follow, &after);
	assert_int_equal(replica_txid(f->db) - base, 3000);
	bounded(&before, &after, 3000, &most);
	printf("3000 commits in %llu frames: %llu bytes a frame besides pages\n", (unsigned long long)(after.frames - before.frames),
		(unsigned long long)((after.bytes - before.bytes - (after.pages - before.pages) * PAGE) / (after.frames - before.frames)));
	replica_assert_same(f->db, follow_db(follow));
	follow_stop(follow);
}

static void away_for_many_commits(void **state)
{
	const char *wanted = getenv("BTS_HOT_COMMITS");
	unsigned commits = wanted ? (unsigned)strtoul(wanted, NULL, 10) : 10000;
	struct bts_stat stat = {.size = sizeof(stat)};
	struct fixture *f = *state;
	struct follow_status status;
	struct follow *follow;
	uint64_t pages, quarter = 0;
	bts_txid base;

	for (unsigned i = 0; i < HOT; i++)
		hot_commit(f->db, i);
	assert_int_equal(bts_sync(f->db, NULL), BTS_OK);
	follow = replica_follow(f->follower, f->url, "n1");
	base = replica_txid(f->db);
	replica_await(follow, base);
	follow_stop(follow);
	for (unsigned i = 0; i < commits; i++) {
		hot_commit(f->db, i);
		if (i % 500 == 0)
			assert_int_equal(bts_sync(f->db, NULL), BTS_OK);
		if (i == commits / 4) {
			assert_int_equal(bts_stat(f->db, &stat, NULL), BTS_OK);
			quarter = stat.file_bytes;
		}
	}
	assert_int_equal(bts_sync(f->db, NULL), BTS_OK);
	assert_int_equal(bts_stat(f->db, &stat, NULL), BTS_OK);
	pages = changed(f->db, base);
	follow = replica_follow(f->follower, f->url, "n1");
	replica_await(follow, replica_txid(f->db));
	follow_status(follow, &status);
	printf("%u commits over %u keys: %llu pages fetched (%llu bytes) of %llu live, in %llu frame; the primary's file %llu bytes "
	       "after a quarter of them, %llu at the end\n",
		commits, HOT, (unsigned long long)status.pages, (unsigned long long)status.bytes,
		(unsigned long long)(stat.pages - stat.first_page - stat.free_pages), (unsigned long long)status.frames,
		(unsigned long long)quarter, (unsigned long long)stat.file_bytes);
	assert_int_equal(status.frames, 1);
	assert_int_equal(status.pages, pages);
	assert_true(stat.file_bytes <= quarter + quarter / 10);
	replica_assert_same(f->db, follow_db(follow));
	follow_stop(follow);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bytes_of_frames, set_up, tear_down),
		cmocka_unit_test_setup_teardown(lean_after_a_restart, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bytes_of_a_stream, set_up, tear_down),
		cmocka_unit_test_setup_teardown(away_for_many_commits, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
