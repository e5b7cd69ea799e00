/*
 * Reader slots: what is told of each reader, that the order to end reaches the registration it was meant for and no later
 * one in the same slot, and the places: reused, many, none left.
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_seen),
		cmocka_unit_test(test_expire_reaches_one),
		cmocka_unit_test(test_every_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
