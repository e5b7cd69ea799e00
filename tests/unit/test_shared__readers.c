/*
 * Reader slots: what is told of each reader, that the order to end reaches the registration it was meant for and no later
 * one in the same slot, and the places: reused, many, none left; those that are parked.
 */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>

#include "env_mem.h"
#include "shared_map.h"

struct fixture {
	struct env_mem *mem;
	struct bts_env *env;
	struct bts_file *data;
	struct shared *shared;
};

static struct shared *fixture_join(struct fixture *f, struct bts_file **data, bool *alone)
{
	struct shared *shared;

	assert_int_equal(f->env->ops->file_open(f->env, "/db", BTS_FILE_WRITE | BTS_FILE_CREATE, data), 0);
	assert_int_equal(shared_open(f->env, "/db", *data, &shared, alone, NULL), BTS_OK);
	return shared;
}

static void publish(struct shared *shared, bts_txid txid)
{
	struct commit_record record;

	memset(&record, 0, sizeof(record));
	record.txid = txid;
	shared_publish(shared, &record);
}

static struct fixture fixture_new(void)
{
	struct fixture f = {.mem = env_mem_new(0)};
	bool alone;

	f.env = env_mem_env(f.mem);
	f.shared = fixture_join(&f, &f.data, &alone);
	assert_true(alone);
	publish(f.shared, 7);
	assert_int_equal(shared_settle(f.shared, NULL), BTS_OK);
	return f;
}

static void fixture_free(struct fixture *f)
{
	shared_close(f->shared);
	f->env->ops->file_close(f->data);
	env_mem_free(f->mem);
}

static struct shared_reader enter(struct shared *shared)
{
	struct shared_reader reader;
	struct commit_record record;

	assert_int_equal(shared_reader_enter_light(shared, &reader, &record, NULL), BTS_OK);
	return reader;
}

static void test_what_is_seen(void **state)
{
	struct fixture f = fixture_new();
	struct shared_reader_seen seen[8];
	struct shared_reader a, b, c;
	struct bts_file *data;
	struct shared *other;
	bool alone;

	(void)state;
	other = fixture_join(&f, &data, &alone);
	assert_false(alone);
	a = enter(f.shared);
	env_mem_advance(f.mem, 40);
	publish(f.shared, 9);
	b = enter(other);
	env_mem_advance(f.mem, 2);
	c = enter(f.shared);
	assert_int_equal(shared_reader_slots(other), 3);
	assert_int_equal(shared_readers_seen(other, seen, 8), 3);
	for (size_t i = 0; i < 3; i++) {
		const struct shared_reader *reader = seen[i].slot == a.slot   ? &a
						     : seen[i].slot == b.slot ? &b
									      : &c;

		assert_int_equal(seen[i].slot, reader->slot);
		assert_int_equal(seen[i].txid, reader == &a ? 7 : 9);
		assert_int_equal(seen[i].age_ms, reader == &a ? 42 : reader == &b ? 2 : 0);
		assert_int_equal(seen[i].own, reader == &b);
		assert_int_equal(seen[i].pid, f.env->ops->process_id(f.env));
		assert_false(seen[i].expired);
	}
	assert_int_equal(shared_readers_seen(other, seen, 2), 2);
	shared_reader_leave(f.shared, &a);
	shared_reader_leave(f.shared, &c);
	shared_close(other); /* with a reader left in it, as a death would */
	env_mem_env(f.mem)->ops->file_close(data);
	assert_int_equal(shared_readers_seen(f.shared, seen, 8), 0);
	fixture_free(&f);
}

static void test_expire_reaches_one(void **state)
{
	struct fixture f = fixture_new();
	struct shared_reader_seen seen[2];
	struct shared_reader a = enter(f.shared), b;

	(void)state;
	assert_int_equal(shared_readers_seen(f.shared, seen, 2), 1);
	assert_false(shared_reader_expired(&a));
	assert_true(shared_reader_tell(f.shared, seen, 1000));
	assert_false(shared_reader_tell(f.shared, seen, 1000));
	env_mem_advance(f.mem, 999);
	assert_false(shared_reader_tell(f.shared, seen, 1000));
	env_mem_advance(f.mem, 1);
	assert_true(shared_reader_tell(f.shared, seen, 1000));
	/* Too late: the slot has another reader, who is not meant, and of whom nothing was said yet. */
	shared_reader_leave(f.shared, &a);
	b = enter(f.shared);
	assert_int_equal(b.slot, a.slot);
	shared_reader_expire(f.shared, seen);
	assert_false(shared_reader_expired(&b));
	assert_int_equal(shared_readers_seen(f.shared, seen, 2), 1);
	assert_false(seen[0].expired);
	assert_true(shared_reader_tell(f.shared, seen, 1000));
	shared_reader_expire(f.shared, seen);
	assert_true(shared_reader_expired(&b));
	assert_int_equal(shared_readers_seen(f.shared, seen, 2), 1);
	assert_true(seen[0].expired);
	shared_reader_leave(f.shared, &b);
	fixture_free(&f);
}

static void test_every_place(void **state)
{
	static struct shared_reader readers[SHARED_READERS_MAX];
	static struct shared_reader_seen seen[SHARED_READERS_MAX];
	static uint8_t taken[SHARED_READERS_MAX];
	struct fixture f = fixture_new();
	struct commit_record record;
	struct shared_reader more;

	(void)state;
	for (size_t i = 0; i < SHARED_READERS_MAX; i++) {
		readers[i] = enter(f.shared);
		assert_int_equal(taken[readers[i].slot]++, 0);
	}
	assert_int_equal(shared_readers_seen(f.shared, seen, SHARED_READERS_MAX), SHARED_READERS_MAX);
	assert_int_equal(shared_reader_enter(f.shared, &more, &record, NULL), BTS_LIMIT);
	for (size_t i = 0; i < 10; i++) { /* any hole is found, wherever it is */
		size_t at = i * 7919 % SHARED_READERS_MAX,
		       also = (at + SHARED_READERS_MAX / 2) % SHARED_READERS_MAX;

		shared_reader_leave(f.shared, &readers[at]);
		shared_reader_leave(f.shared, &readers[also]);
		readers[also] = enter(f.shared);
		readers[at] = enter(f.shared);
		assert_int_equal(shared_reader_enter(f.shared, &more, &record, NULL), BTS_LIMIT);
	}
	for (size_t i = 0; i < SHARED_READERS_MAX; i++)
		shared_reader_leave(f.shared, &readers[i]);
	assert_int_equal(shared_readers_seen(f.shared, seen, SHARED_READERS_MAX), 0);
	fixture_free(&f);
}

static enum shared_claim claim(struct fixture *f, struct shared_reader *reader)
{
	return shared_reader_claim(f->shared, reader);
}

static void test_parked_is_no_reader(void **state)
{
	struct fixture f = fixture_new();
	struct shared_reader a = enter(f.shared);
	struct shared_reader_seen seen[2], late;
	struct commit_record record;
	bts_txid snapshot;

	(void)state;
	assert_int_equal(claim(&f, &a), SHARED_CLAIM_NONE); /* it is not parked */
	assert_int_equal(shared_readers_seen(f.shared, &late, 1), 1);
	shared_reader_park(f.shared, &a);
	assert_int_equal(shared_readers_seen(f.shared, seen, 2), 0);
	assert_int_equal(shared_readers(f.shared, &snapshot, 1, NULL), 0);
	assert_int_equal(shared_reader_record(f.shared, 7, &record), BTS_NOT_FOUND);
	assert_false(shared_reader_settled(f.shared, 7));
	env_mem_advance(f.mem, 1000);
	shared_reader_expire(f.shared, &late); /* too late */
	assert_int_equal(claim(&f, &a), SHARED_CLAIM_FRESH);
	assert_int_equal(claim(&f, &a), SHARED_CLAIM_NONE);
	assert_false(shared_reader_expired(&a));
	assert_int_equal(shared_readers_seen(f.shared, seen, 2), 1);
	assert_int_equal(seen[0].txid, 7);
	assert_int_equal(seen[0].age_ms, 0);
	assert_false(seen[0].expired);
	assert_true(shared_reader_settled(f.shared, 7));
	assert_int_equal(shared_reader_record(f.shared, 7, &record), BTS_OK);
	shared_reader_expire(f.shared, seen);
	assert_true(shared_reader_expired(&a));
	shared_reader_park(f.shared, &a);
	assert_int_equal(claim(&f, &a), SHARED_CLAIM_FRESH);
	assert_false(shared_reader_expired(&a));
	shared_reader_leave(f.shared, &a);
	fixture_free(&f);
}

static void test_parked_follows_the_head(void **state)
{
	struct fixture f = fixture_new();
	struct shared_reader a = enter(f.shared);
	struct commit_record record;
	bts_txid snapshot;

	(void)state;
	shared_reader_park(f.shared, &a);
	publish(f.shared, 8);
	assert_int_equal(claim(&f, &a), SHARED_CLAIM_STALE);
	assert_int_equal(shared_readers(f.shared, &snapshot, 1, NULL), 0);
	assert_int_equal(shared_reader_again(f.shared, &a, &record, NULL), BTS_OK);
	assert_int_equal(record.txid, 8);
	assert_int_equal(a.txid, 8);
	shared_reader_park(f.shared, &a);
	publish(f.shared, 8); /* the same number, but published anew */
	assert_int_equal(claim(&f, &a), SHARED_CLAIM_STALE);
	shared_reader_park(f.shared, &a);
	assert_int_equal(claim(&f, &a), SHARED_CLAIM_STALE);
	assert_int_equal(shared_reader_again(f.shared, &a, &record, NULL), BTS_OK);
	shared_reader_spoil(&a);
	shared_reader_park(f.shared, &a);
	assert_int_equal(claim(&f, &a), SHARED_CLAIM_STALE);
	assert_int_equal(shared_reader_again(f.shared, &a, &record, NULL), BTS_OK);
	shared_reader_leave(f.shared, &a);
	fixture_free(&f);
}

/* No place is free: who needs one takes what others park, in any process, and those find it gone. */
static void test_parked_is_taken_away(void **state)
{
	static struct shared_reader readers[SHARED_READERS_MAX];
	struct fixture f = fixture_new(), other = f;
	struct shared_reader more, again;
	struct commit_record record;
	bts_txid snapshot;
	bool alone;

	(void)state;
	other.shared = fixture_join(&f, &other.data, &alone);
	assert_false(alone);
	for (size_t i = 0; i < SHARED_READERS_MAX; i++)
		readers[i] = enter(i % 2 ? f.shared : other.shared);
	assert_int_equal(shared_reader_enter(other.shared, &more, &record, NULL), BTS_LIMIT);
	shared_reader_park(f.shared, &readers[77]);
	more = enter(other.shared);
	assert_int_equal(more.slot, readers[77].slot);
	assert_int_equal(claim(&f, &readers[77]), SHARED_CLAIM_NONE);
	assert_int_equal(shared_reader_enter(other.shared, &again, &record, NULL), BTS_LIMIT);
	shared_reader_park(other.shared, &more); /* the same slot is parked again, by another */
	assert_int_equal(claim(&f, &readers[77]), SHARED_CLAIM_NONE);
	again = enter(f.shared);
	assert_int_equal(again.slot, more.slot);
	assert_int_equal(claim(&other, &more), SHARED_CLAIM_NONE);
	shared_reader_leave(f.shared, &again);
	for (size_t i = 0; i < SHARED_READERS_MAX; i += 2)
		shared_reader_park(other.shared, &readers[i]);
	shared_close(other.shared); /* what it parked is free */
	other.data->env->ops->file_close(other.data);
	for (size_t i = 0; i < SHARED_READERS_MAX; i += 2)
		readers[i] = enter(f.shared);
	for (size_t i = 0; i < SHARED_READERS_MAX; i++)
		if (i != 77)
			shared_reader_leave(f.shared, &readers[i]);
	assert_int_equal(shared_readers(f.shared, &snapshot, 1, NULL), 0);
	fixture_free(&f);
}

/*
 * Beside another reader, in a slot above its, whatever slots are free below: a scan that goes upwards and finds the other gone
 * comes to ours after that.
 */
static void test_beside(void **state)
{
	struct fixture f = fixture_new();
	struct shared_reader low[4], of, beside, third;
	bts_txid snapshots[4];

	(void)state;
	for (size_t i = 0; i < 4; i++)
		low[i] = enter(f.shared);
	of = enter(f.shared);
	for (size_t i = 0; i < 4; i++)
		shared_reader_leave(f.shared, &low[i]);
	publish(f.shared, 9);
	assert_int_equal(shared_reader_enter_beside(f.shared, &beside, &of, NULL), BTS_OK);
	assert_true(beside.slot > of.slot);
	assert_int_equal(shared_reader_enter_beside(f.shared, &third, &of, NULL), BTS_OK);
	assert_true(third.slot > beside.slot);
	shared_reader_leave(f.shared, &of);
	shared_reader_leave(f.shared, &third);
	assert_int_equal(shared_readers(f.shared, snapshots, 4, NULL), 1);
	assert_int_equal(snapshots[0], 7);
	assert_true(shared_reader_settled(f.shared, 7));
	shared_reader_leave(f.shared, &beside);
	assert_int_equal(shared_readers(f.shared, snapshots, 4, NULL), 0);
	fixture_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_seen),
		cmocka_unit_test(test_expire_reaches_one),
		cmocka_unit_test(test_every_place),
		cmocka_unit_test(test_beside),
		cmocka_unit_test(test_parked_is_no_reader),
		cmocka_unit_test(test_parked_follows_the_head),
		cmocka_unit_test(test_parked_is_taken_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
