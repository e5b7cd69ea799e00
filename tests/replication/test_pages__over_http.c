/*
 * Single pages over HTTP: what a source gives out of a commit, what it says of those it does not have, and grafts that a
 * follower makes from them, through connections that break.
 */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "heal.h"
#include "replica.h"

#define UNITS 100u

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

struct got {
	uint8_t verdicts[PAGES_UNITS_MAX];
	uint8_t *bytes[PAGES_UNITS_MAX];
	uint32_t page_size;
};

static enum bts_err got_verdicts(
	void *arg, const struct pages_query *query, const uint8_t *verdicts, struct bts_error *error)
{
	struct got *got = arg;

	(void)error;
	memcpy(got->verdicts, verdicts, query->count);
	return BTS_OK;
}

static enum bts_err got_piece(
	void *arg, size_t index, const struct frame_piece *piece, struct bts_slice bytes, struct bts_error *error)
{
	struct got *got = arg;

	(void)error;
	if (!got->bytes[index])
		got->bytes[index] = calloc(piece->id.count, got->page_size);
	memcpy(got->bytes[index] + (size_t)piece->first * got->page_size, bytes.data, bytes.size);
	return BTS_OK;
}

/* Units of the newest commit, some of them asked for as what they are not. */
static void test_verdicts(void **state)
{
	struct transport *transport = transport_new("test");
	struct heal_peer peer = {.transport = transport};
	static struct pages_query query;
	static struct got got = {.page_size = 4096};
	const struct heal_sink sink = {got_verdicts, got_piece, &got};
	static struct heal_answer answer;
	struct bts_slice bytes[UNITS];
	struct bts_error error;
	struct bts_walk *walk;
	struct serve *serve;
	struct bts *db = replica_open_in(dir, "primary", 0);
	char url[64];

	(void)state;
	replica_put(db, 0, 3000, 0, 100);
	replica_put(db, 5000, 20, 0, 9000);
	serve = replica_serve(db, url, sizeof(url));
	peer.url = url;
	assert_int_equal(bts_walk_open(db, 0, &walk, &error), BTS_OK);
	memcpy(query.database, bts_walk_position(walk)->database, 16);
	for (query.count = 0; query.count < UNITS; query.count++) {
		struct bts_page_id *id = &query.ids[query.count];

		if (bts_walk_next(walk, id, &bytes[query.count], &error))
			break;
		if (query.count % 10 == 7)
			id->crc ^= 1;
		if (query.count % 10 == 8)
			id->birth++;
		if (query.count % 10 == 9)
			id->pgno += 1000000;
	}
	assert_int_equal(query.count, UNITS);
	if (heal_ask(&peer, &query, &sink, &answer, &error))
		fail_msg("%s", error.text);
	assert_memory_equal(&answer.position, bts_walk_position(walk), sizeof(answer.position));
	assert_memory_equal(answer.record, bts_walk_record(walk).data, answer.record_size);
	for (unsigned i = 0; i < UNITS; i++) {
		assert_int_equal(got.verdicts[i], i % 10 < 7 ? PAGES_COMES : PAGES_ABSENT);
		if (i % 10 < 7)
			assert_memory_equal(got.bytes[i], bytes[i].data, bytes[i].size);
		free(got.bytes[i]);
	}
	query.at = answer.position.txid + 7;
	assert_int_equal(heal_ask(&peer, &query, &sink, &answer, &error), BTS_NOT_FOUND);
	query.at = 0;
	query.database[5] ^= 1;
	assert_int_equal(heal_ask(&peer, &query, &sink, &answer, &error), BTS_DIVERGED);
	bts_walk_close(walk);
	transport_free(transport);
	serve_stop(serve);
	bts_close(db);
}

/* A follower with commits that its new source never had. */
static void test_rewind(void **state)
{
	struct transport *transport = transport_new("test");
	struct heal_peer peer = {.transport = transport};
	struct bts_position fork;
	struct heal_graft graft = {.fork = &fork};
	char url[64], through[64], path[160];
	struct follow *follow;
	struct bts_error error;
	struct bts *old = replica_open_in(dir, "old", 0), *now, *db;
	struct serve *serve;
	struct proxy *proxy;

	(void)state;
	replica_put(old, 0, 4000, 0, 200);
	replica_put(old, 9000, 3, 0, 300000);
	assert_int_equal(bts_ship_position(old, &fork, &error), BTS_OK);
	bts_close(old);
	replica_copy(dir, "old", "now");
	old = replica_open_in(dir, "old", 0);
	replica_put(old, 10, 50, 1, 300);
	serve = replica_serve(old, url, sizeof(url));
	replica_path(path, sizeof(path), dir, "follower");
	follow = replica_follow(path, url, "f");
	replica_await(follow, replica_txid(old));
	follow_stop(follow);
	serve_stop(serve);
	bts_close(old);
	now = replica_open_in(dir, "now", 0);
	replica_put(now, 3000, 200, 2, 100);
	replica_put(now, 9100, 2, 2, 200000);
	serve = replica_serve(now, url, sizeof(url));
	proxy = proxy_start(serve_port(serve), through, sizeof(through));
	proxy_harm(proxy, 2, 150000, false);
	peer.url = through;
	db = replica_open_in(dir, "follower", BTS_OPEN_FOLLOWER);
	replica_put(now, 0, 1, 3, 10);
	if (heal_graft(&peer, db, &graft, &error))
		fail_msg("%s", error.text);
	printf("%llu units of %llu pages in %llu rounds, %llu bytes\n", (unsigned long long)graft.units,
		(unsigned long long)graft.pages, (unsigned long long)graft.rounds, (unsigned long long)graft.bytes);
	replica_assert_same(now, db);
	proxy_stop(proxy);
	bts_close(db);
	transport_free(transport);
	serve_stop(serve);
	bts_close(now);
}

/* The codec alone: every byte of a question that is changed is noticed. */
static void test_question(void **state)
{
	static struct pages_query query = {.at = 77, .count = 3}, back;
	uint8_t bytes[PAGES_QUERY_MAX];
	struct bts_error error;
	size_t size;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		query.ids[i] = (struct bts_page_id){16 + i, 5 + i, 0x1234u * i, i == 1 ? 7 : 1, i == 1 ? BTS_KIND_EXTENT : BTS_KIND_NODE};
	size = pages_query_encode(&query, bytes);
	assert_int_equal(pages_query_decode(&back, bytes, size, &error), BTS_OK);
	assert_memory_equal(&back.ids, &query.ids, sizeof(query.ids[0]) * 3);
	assert_true(back.at == 77 && back.count == 3);
	for (size_t i = 0; i < size; i++) {
		bytes[i] ^= 0x10;
		assert_int_not_equal(pages_query_decode(&back, bytes, size, &error), BTS_OK);
		bytes[i] ^= 0x10;
		assert_int_not_equal(pages_query_decode(&back, bytes, i, &error), BTS_OK);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_question, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_verdicts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rewind, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
