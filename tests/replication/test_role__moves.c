/*
 * Roles from one process: what is refused in each, what a promotion begins, what a demotion ends for handles and
 * transactions that are there, what a promise holds off; a follower that becomes the primary of its former source.
 */
#include "apply_bed.h"

#include <stdlib.h>

static uint64_t seed;

struct pair {
	struct env_mem *m[2];
	struct bts *a, *b; /* primary and follower at first */
	struct rng rng;
};

static void pair_open(struct pair *p)
{
	memset(p, 0, sizeof(*p));
	rng_init(&p->rng, seed);
	for (int i = 0; i < 2; i++) {
		p->m[i] = env_mem_new(64 << 20);
		env_mem_seed(p->m[i], seed * 2 + (uint64_t)i);
	}
	p->a = bed_open(env_mem_env(p->m[0]), "/p", 0, 4096);
	bed_create(env_mem_env(p->m[1]), "/f", p->a, 4096);
	p->b = bed_open(env_mem_env(p->m[1]), "/f", BTS_OPEN_FOLLOWER, 0);
	for (int i = 0; i < 5; i++)
		bed_commit(p->a, &p->rng);
	bed_ship(p->a, p->b, &p->rng);
}

static void pair_close(struct pair *p)
{
	bts_close(p->a);
	bts_close(p->b);
	env_mem_free(p->m[0]);
	env_mem_free(p->m[1]);
}

static struct bts_role role_of(struct bts *db)
{
	struct bts_role role = {.size = sizeof(role)};

	assert_int_equal(bts_role(db, &role, NULL), BTS_OK);
	return role;
}

static enum bts_err put(struct bts_txn *txn, const char *key)
{
	struct bts_bucket *bucket;
	enum bts_err err = bts_bucket(txn, (struct bts_slice){"b", 1}, BTS_CREATE, &bucket, NULL);

	return err ? err : bts_put(txn, bucket, (struct bts_slice){key, strlen(key)}, (struct bts_slice){"v", 1}, 0);
}

static enum bts_err try_open(struct bts_env *env, const char *path, unsigned flags, struct bts **db)
{
	struct bts_options options;
	struct bts_error error;

	bts_options_init(&options);
	options.env = env;
	options.flags = flags;
	return bts_open(path, &options, db, &error);
}

/* Handoff: demote, ship the rest, promote with what was returned, and back again. */
static void test_handoff(void **state)
{
	struct bts_promotion promotion = {.size = sizeof(promotion)};
	struct bts_role last = {.size = sizeof(last)}, now = {.size = sizeof(now)};
	struct bts_error error;
	struct pair p;
	struct bts *c;

	(void)state;
	pair_open(&p);
	assert_int_equal(role_of(p.a).role, BTS_ROLE_PRIMARY);
	assert_int_equal(role_of(p.b).role, BTS_ROLE_FOLLOWER);
	bed_commit(p.a, &p.rng);
	assert_int_equal(bts_demote(p.a, &last, &error), BTS_OK);
	assert_int_equal(last.role, BTS_ROLE_FENCED);
	assert_int_equal(bts_demote(p.a, NULL, &error), BTS_OK); /* again: nothing to do */
	promotion.expect = &last.position;
	assert_int_equal(bts_promote(p.b, &promotion, NULL, &error), BTS_DIVERGED); /* it lacks the last commit */
	bed_ship(p.a, p.b, &p.rng);
	last.digest[0] ^= 1;
	promotion.expect_digest = last.digest;
	assert_int_equal(bts_promote(p.b, &promotion, NULL, &error), BTS_DIVERGED);
	last.digest[0] ^= 1;
	assert_int_equal(bts_promote(p.b, &promotion, &now, &error), BTS_OK);
	assert_int_equal(now.role, BTS_ROLE_PRIMARY);
	assert_int_equal(now.position.epoch, last.position.epoch + 1);
	assert_true(now.position.txid > last.position.txid + (UINT64_C(1) << 31));
	assert_true(now.position.txid <= last.position.txid + (UINT64_C(1) << 31) + 65536);
	assert_int_equal((now.position.txid - last.position.txid) % 2, 1);
	assert_int_equal(bts_promote(p.b, NULL, NULL, &error), BTS_EXISTS);
	for (int i = 0; i < 10; i++)
		bed_commit(p.b, &p.rng);
	/* The fenced one follows, in a handle beside the one that was the writer's. */
	assert_int_equal(try_open(env_mem_env(p.m[0]), "/p", 0, &c), BTS_FENCED);
	c = bed_open(env_mem_env(p.m[0]), "/p", BTS_OPEN_FOLLOWER, 0);
	bed_ship(p.b, c, &p.rng);
	assert_int_equal(role_of(p.a).role, BTS_ROLE_FOLLOWER);
	bed_assert_same(p.b, c);
	bed_assert_same(p.b, p.a);
	/* And back: the old handle writes again when its file is promoted by another. */
	bed_commit(p.b, &p.rng);
	assert_int_equal(bts_demote(p.b, &last, &error), BTS_OK);
	bed_ship(p.b, c, &p.rng);
	assert_int_equal(bts_promote(c, &promotion, &now, &error), BTS_OK);
	assert_int_equal(now.position.epoch, last.position.epoch + 1);
	for (int i = 0; i < 10; i++)
		bed_commit(i % 2 ? p.a : c, &p.rng);
	bed_assert_clean(p.a);
	bts_close(c);
	c = bed_open(env_mem_env(p.m[1]), "/f", BTS_OPEN_FOLLOWER, 0);
	bed_ship(p.a, c, &p.rng);
	bed_assert_same(p.a, c);
	bts_close(c);
	pair_close(&p);
}

static void write_same(struct bts *db, unsigned times)
{
	struct bts_error error;
	struct bts_txn *txn;

	while (times--) {
		assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
		assert_int_equal(put(txn, "same"), BTS_OK);
		if (bts_commit(txn, &error))
			fail_msg("commit: %s", error.text);
	}
}

/* A handle that wrote before frames came has an allocator that knows nothing of them: the file keeps its size meanwhile. */
static void test_stale_allocator(void **state)
{
	struct bts_error error;
	struct env_mem *m = env_mem_new(64 << 20), *n = env_mem_new(64 << 20);
	struct bts *a, *b, *c;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	a = bed_open(env_mem_env(m), "/p", 0, 4096);
	write_same(a, 20);
	bed_create(env_mem_env(n), "/f", a, 4096);
	b = bed_open(env_mem_env(n), "/f", BTS_OPEN_FOLLOWER, 0);
	bed_ship(a, b, &rng);
	for (unsigned i = 0; i < 12; i++) {
		assert_int_equal(bts_demote(a, NULL, &error), BTS_OK);
		c = bed_open(env_mem_env(m), "/p", BTS_OPEN_FOLLOWER, 0);
		assert_int_equal(bts_promote(b, NULL, NULL, &error), BTS_OK);
		write_same(b, 1 + i % 5);
		bed_ship(b, c, &rng);
		assert_int_equal(bts_demote(b, NULL, &error), BTS_OK);
		bts_close(b);
		b = bed_open(env_mem_env(n), "/f", BTS_OPEN_FOLLOWER, 0);
		assert_int_equal(bts_promote(c, NULL, NULL, &error), BTS_OK);
		bts_close(c);
		write_same(a, 1 + i % 3);
		bed_assert_clean(a);
		bed_ship(a, b, &rng);
		bed_assert_same(a, b);
	}
	bts_close(a);
	bts_close(b);
	env_mem_free(m);
	env_mem_free(n);
}

/* A primary's file after a crash follows as it stands: no commit of its own is added to it. */
static void test_fence_alone(void **state)
{
	struct bts_position last;
	struct bts_error error;
	struct env_mem *m;
	struct pair p;
	struct bts *db;

	(void)state;
	pair_open(&p);
	last = bed_position(p.a);
	assert_int_equal(try_open(env_mem_env(p.m[0]), "/p", BTS_OPEN_FOLLOWER | BTS_OPEN_FENCE, &db), BTS_BUSY);
	assert_int_equal(try_open(env_mem_env(p.m[0]), "/p", BTS_OPEN_FENCE, &db), BTS_INVALID);
	m = env_mem_clone(p.m[0]);
	assert_int_equal(try_open(env_mem_env(m), "/p", BTS_OPEN_FOLLOWER, &db), BTS_INVALID);
	db = bed_open(env_mem_env(m), "/p", BTS_OPEN_FOLLOWER | BTS_OPEN_FENCE, 0);
	assert_memory_equal(bed_position(db).chain, last.chain, 16);
	assert_int_equal(bed_position(db).txid, last.txid);
	bts_close(db);
	assert_int_equal(try_open(env_mem_env(m), "/p", 0, &db), BTS_FENCED);
	db = bed_open(env_mem_env(m), "/p", BTS_OPEN_FOLLOWER | BTS_OPEN_FENCE, 0);
	assert_int_equal(bts_promote(p.b, NULL, NULL, &error), BTS_OK);
	bed_commit(p.b, &p.rng);
	bed_ship(p.b, db, &p.rng);
	bed_assert_same(p.b, db);
	bts_close(db);
	env_mem_free(m);
	pair_close(&p);
}

/* Pages that a reader keeps from going home keep the file a follower's, until it ends. */
static void test_pages_not_home(void **state)
{
	struct bts_apply_stat stat = {0};
	struct bts_error error;
	struct bts_txn *reader;
	struct pair p;

	(void)state;
	pair_open(&p);
	assert_int_equal(bts_begin(p.b, BTS_READ, &reader, NULL), BTS_OK);
	for (int i = 0; i < 60; i++) {
		bed_commit(p.a, &p.rng);
		bed_ship(p.a, p.b, &p.rng);
	}
	bts_apply_stat(p.b, &stat);
	assert_true(stat.redirected_pages > 0);
	assert_int_equal(bts_promote(p.b, NULL, NULL, &error), BTS_BUSY);
	assert_int_equal(role_of(p.b).role, BTS_ROLE_FOLLOWER);
	bts_abort(reader);
	if (bts_promote(p.b, NULL, NULL, &error))
		fail_msg("promote: %s", error.text);
	for (int i = 0; i < 20; i++)
		bed_commit(p.b, &p.rng);
	bed_assert_clean(p.b);
	bts_close(p.b);
	p.b = bed_open(env_mem_env(p.m[1]), "/f", 0, 0);
	bed_assert_clean(p.b);
	pair_close(&p);
}

/* What was begun before a file was fenced does not commit, not even after it was promoted again. */
static void test_transactions_end(void **state)
{
	struct bts_txn *early, *async, *again;
	struct bts_group *group;
	struct bts_error error;
	struct bts *c, *d;
	struct pair p;

	(void)state;
	pair_open(&p);
	d = bed_open(env_mem_env(p.m[0]), "/p", 0, 0); /* another process */
	assert_int_equal(bts_begin(p.a, BTS_WRITE, &early, NULL), BTS_OK);
	assert_int_equal(put(early, "early"), BTS_OK);
	assert_int_equal(bts_begin(p.a, BTS_WRITE, &again, NULL), BTS_OK);
	assert_int_equal(put(again, "again"), BTS_OK);
	assert_int_equal(bts_begin(p.a, BTS_WRITE | BTS_ASYNC, &async, NULL), BTS_OK);
	assert_int_equal(put(async, "async"), BTS_OK);
	assert_int_equal(bts_demote(d, NULL, &error), BTS_OK);
	assert_int_equal(bts_commit(early, &error), BTS_FENCED);
	assert_int_equal(bts_commit(async, &error), BTS_FENCED);
	assert_int_equal(bts_begin(p.a, BTS_WRITE, &early, &error), BTS_FENCED);
	assert_int_equal(bts_group_begin(p.a, &group, &error), BTS_FENCED);
	assert_int_equal(bts_sync(p.a, &error), BTS_OK);
	c = bed_open(env_mem_env(p.m[0]), "/p", BTS_OPEN_FOLLOWER, 0);
	assert_int_equal(bts_promote(c, NULL, NULL, &error), BTS_OK);
	bts_close(c);
	assert_int_equal(bts_commit(again, &error), BTS_FENCED);
	assert_int_equal(bts_begin(p.a, BTS_WRITE, &early, &error), BTS_OK);
	assert_int_equal(put(early, "early"), BTS_OK);
	assert_int_equal(bts_commit(early, &error), BTS_OK);
	bed_commit(d, &p.rng);
	bed_assert_clean(p.a);
	bts_close(d);
	pair_close(&p);
}

/* A value that is streamed to its place keeps the file from being taken, and from nothing else. */
static void test_leases(void **state)
{
	static uint8_t half[1 << 20];
	struct bts_stream *stream;
	struct bts_bucket *bucket;
	struct bts_error error;
	struct bts_txn *txn;
	struct bts *c;
	struct pair p;

	(void)state;
	pair_open(&p);
	assert_int_equal(bts_begin(p.a, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"l", 1}, BTS_CREATE, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_put_begin(txn, bucket, (struct bts_slice){"k", 1}, sizeof(half) * 2, 0, &stream, &error), BTS_OK);
	assert_int_equal(bts_put_write(stream, (struct bts_slice){half, sizeof(half)}), BTS_OK);
	assert_int_equal(bts_demote(p.a, NULL, &error), BTS_OK);
	assert_int_equal(try_open(env_mem_env(p.m[0]), "/p", BTS_OPEN_FOLLOWER, &c), BTS_BUSY);
	assert_int_equal(bts_put_write(stream, (struct bts_slice){half, sizeof(half)}), BTS_OK);
	assert_int_equal(bts_put_end(stream, &error), BTS_OK);
	assert_int_equal(bts_commit(txn, &error), BTS_FENCED);
	c = bed_open(env_mem_env(p.m[0]), "/p", BTS_OPEN_FOLLOWER, 0);
	bed_ship(c, p.b, &p.rng); /* the commit that made room for it */
	assert_int_equal(bts_promote(p.b, NULL, NULL, &error), BTS_OK);
	for (int i = 0; i < 5; i++)
		bed_commit(p.b, &p.rng);
	bed_ship(p.b, c, &p.rng);
	bed_assert_same(p.b, c);
	bts_close(c);
	pair_close(&p);
}

/* Promises only grow, hold frames off, and fence a writer. */
static void test_promises(void **state)
{
	struct bts_promotion promotion = {.size = sizeof(promotion)};
	uint32_t epoch;
	struct bts_position base;
	struct bed_frame *frame;
	struct bts_error error;
	struct bts_role role;
	struct pair p;

	(void)state;
	pair_open(&p);
	epoch = role_of(p.a).position.epoch;
	bed_commit(p.a, &p.rng);
	base = bed_position(p.b);
	frame = bed_frame_new(p.a, &base);
	assert_int_equal(bts_promise(p.b, epoch, 1, &error), BTS_FENCED);
	assert_int_equal(bts_promise(p.b, epoch, role_of(p.a).position.epoch_random, &error), BTS_OK);
	assert_int_equal(role_of(p.b).promised, 0);
	assert_int_equal(bts_promise(p.b, epoch + 2, 7, &error), BTS_OK);
	assert_int_equal(bts_promise(p.b, epoch + 2, 7, &error), BTS_OK);
	assert_int_equal(bts_promise(p.b, epoch + 2, 8, &error), BTS_FENCED);
	assert_int_equal(bts_promise(p.b, epoch + 1, 7, &error), BTS_FENCED);
	assert_int_equal(bed_apply(p.b, frame, NULL, &error), BTS_FENCED);
	bts_close(p.b);
	p.b = bed_open(env_mem_env(p.m[1]), "/f", BTS_OPEN_FOLLOWER, 0);
	role = role_of(p.b);
	assert_int_equal(role.promised, epoch + 2);
	assert_int_equal(role.promised_random, 7);
	assert_int_equal(bed_apply(p.b, frame, NULL, &error), BTS_FENCED);
	bed_frame_free(frame);
	/* On the primary it fences. */
	assert_int_equal(bts_promise(p.a, epoch + 2, 7, &error), BTS_OK);
	assert_int_equal(role_of(p.a).role, BTS_ROLE_FENCED);
	assert_int_equal(bts_promise(p.a, epoch + 2, 9, &error), BTS_FENCED);
	assert_int_equal(bts_promise(p.a, epoch + 3, 9, &error), BTS_OK);
	bts_close(p.a);
	p.a = bed_open(env_mem_env(p.m[0]), "/p", BTS_OPEN_FOLLOWER, 0);
	assert_int_equal(role_of(p.a).role, BTS_ROLE_FOLLOWER);
	assert_int_equal(role_of(p.a).promised, epoch + 3);
	/* Only what was promised, or more. */
	promotion.epoch = epoch + 1;
	assert_int_equal(bts_promote(p.b, &promotion, NULL, &error), BTS_FENCED);
	promotion.epoch = epoch + 2;
	promotion.epoch_random = 8;
	assert_int_equal(bts_promote(p.b, &promotion, NULL, &error), BTS_FENCED);
	promotion.epoch_random = 7;
	assert_int_equal(bts_promote(p.b, &promotion, &role, &error), BTS_OK);
	assert_int_equal(role.position.epoch, epoch + 2);
	assert_int_equal(role.position.epoch_random, 7);
	assert_int_equal(role.promised, 0);
	bed_commit(p.b, &p.rng);
	bts_close(p.b);
	p.b = bed_open(env_mem_env(p.m[1]), "/f", 0, 0);
	bed_commit(p.b, &p.rng);
	pair_close(&p);
}

/* A promise that comes while a frame is under way stops it. */
static void test_promise_amid_frame(void **state)
{
	struct bts_position base;
	struct bts_apply *apply;
	struct bed_frame *frame;
	struct bts_error error;
	struct pair p;

	(void)state;
	pair_open(&p);
	for (int i = 0; i < 5; i++)
		bed_commit(p.a, &p.rng);
	base = bed_position(p.b);
	frame = bed_frame_new(p.a, &base);
	assert_int_equal(bts_apply_begin(p.b, &frame->base, &frame->target, &apply, &error), BTS_OK);
	assert_int_equal(bts_promote(p.b, NULL, NULL, &error), BTS_BUSY);
	for (size_t i = 0; i < frame->count; i++)
		assert_int_equal(bts_apply_piece(apply, &frame->units[i].id, 0,
					 (struct bts_slice){frame->units[i].bytes, frame->units[i].size}, &error), BTS_OK);
	assert_int_equal(bts_promise(p.b, base.epoch + 1, 1, &error), BTS_OK);
	assert_int_equal(bts_apply_finish(apply, frame->record, &error), BTS_FENCED);
	assert_memory_equal(bed_position(p.b).chain, base.chain, 16);
	bed_assert_clean(p.b);
	assert_int_equal(bts_promote(p.b, NULL, NULL, &error), BTS_OK);
	bed_frame_free(frame);
	pair_close(&p);
}

/* Two promotions at once are two randoms of one number, and neither's frames go to the other's followers. */
static void test_two_promotions(void **state)
{
	struct bts_position one, other;
	enum bts_standing standing;
	struct bts_error error;
	struct env_mem *m;
	struct bts *c;
	struct pair p;

	(void)state;
	pair_open(&p);
	m = env_mem_new(64 << 20);
	env_mem_seed(m, seed + 99);
	bed_create(env_mem_env(m), "/g", p.a, 4096);
	c = bed_open(env_mem_env(m), "/g", BTS_OPEN_FOLLOWER, 0);
	bed_ship(p.a, c, &p.rng);
	assert_int_equal(bts_promote(p.b, NULL, NULL, &error), BTS_OK);
	assert_int_equal(bts_promote(c, NULL, NULL, &error), BTS_OK);
	one = bed_position(p.b);
	other = bed_position(c);
	assert_int_equal(one.epoch, other.epoch);
	assert_int_equal(bts_ship_standing(p.b, &other, &standing, &error), BTS_OK);
	assert_int_equal(standing, BTS_STANDING_DIVERGED);
	assert_int_equal(bts_ship_standing(c, &one, &standing, &error), BTS_OK);
	assert_int_equal(standing, BTS_STANDING_DIVERGED);
	bts_close(c);
	env_mem_free(m);
	pair_close(&p);
}

/* An empty follower, a reader and a follower's file opened to write; nothing moves when what came of it could not be told. */
static void test_refused(void **state)
{
	struct bts_role unset = {.size = 0};
	struct bts_error error;
	struct bts *db;
	struct pair p;

	(void)state;
	pair_open(&p);
	bed_create(env_mem_env(p.m[0]), "/e", p.a, 4096);
	db = bed_open(env_mem_env(p.m[0]), "/e", BTS_OPEN_FOLLOWER, 0);
	assert_int_equal(bts_promote(db, NULL, NULL, &error), BTS_INVALID);
	assert_int_equal(bts_demote(db, NULL, &error), BTS_INVALID);
	bts_close(db);
	db = bed_open(env_mem_env(p.m[0]), "/p", BTS_OPEN_READ_ONLY, 0);
	assert_int_equal(bts_demote(db, NULL, &error), BTS_READ_ONLY);
	assert_int_equal(bts_promise(db, 9, 9, &error), BTS_READ_ONLY);
	assert_int_equal(bts_promote(db, NULL, NULL, &error), BTS_READ_ONLY);
	bts_close(db);
	assert_int_equal(bts_promote(p.a, NULL, NULL, &error), BTS_EXISTS);
	assert_int_equal(bts_demote(p.a, &unset, &error), BTS_INVALID);
	assert_int_equal(role_of(p.a).role, BTS_ROLE_PRIMARY);
	assert_int_equal(bts_promote(p.b, NULL, &unset, &error), BTS_INVALID);
	assert_int_equal(role_of(p.b).role, BTS_ROLE_FOLLOWER);
	assert_int_equal(try_open(env_mem_env(p.m[1]), "/f", 0, &db), BTS_READ_ONLY);
	pair_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handoff),
		cmocka_unit_test(test_stale_allocator),
		cmocka_unit_test(test_fence_alone),
		cmocka_unit_test(test_pages_not_home),
		cmocka_unit_test(test_transactions_end),
		cmocka_unit_test(test_leases),
		cmocka_unit_test(test_promises),
		cmocka_unit_test(test_promise_amid_frame),
		cmocka_unit_test(test_two_promotions),
		cmocka_unit_test(test_refused),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
