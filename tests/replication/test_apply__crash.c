/*
 * Power loss and death while frames are applied: at every write, flush, cut and name change the follower's
 * disk is left in several of the ways that env_mem's fault model allows, opened again and judged.  It stands
 * at the frame's base or at its target, at the target once the apply had returned, is clean, equals what the
 * primary was there, and takes the frame again.  The opening, which may have pages to bring home from
 * path.pending, is itself cut short.
 */
#include "apply_bed.h"

#include <stdlib.h>

#define ROUNDS 7u
#define SEEN (1u << 18)

/* What the follower may be found as. */
struct state {
	struct bts_position position;
	uint8_t digest[16];
};

struct judge {
	struct state base, target;
	const struct bed_frame *frame;
	bool acknowledged;
	unsigned depth; /* 0: the apply itself; 1: the opening of an image */
	struct rng rng;
};

static uint64_t seed;
static uint64_t seen[SEEN]; /* hashes of images that were judged with these states */
static unsigned judged, at_base, at_target, redone, second;

static struct state state_of(struct bts *db)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	struct state state = {.position = bed_position(db)};

	assert_int_equal(bts_stat(db, &stat, NULL), BTS_OK);
	memcpy(state.digest, stat.root_digest, 16);
	return state;
}

static bool is_new(const struct judge *judge, uint64_t hash)
{
	size_t at = (hash ^ judge->target.position.txid ^ judge->acknowledged ^ judge->depth << 1) % SEEN;

	if (seen[at] == hash)
		return false;
	seen[at] = hash;
	return true;
}

static void hook(void *arg, struct env_mem *, const struct env_mem_event *);

static bool has_pending(const struct env_mem *m)
{
	uint64_t size = 0;

	return (env_mem_bytes(m, "/f.pending", &size) && size > 0) || (env_mem_bytes(m, "/f.pending2", &size) && size > 0);
}

static void judge_image(struct judge *judge, struct env_mem *image)
{
	struct judge inner = *judge;
	bool pending = has_pending(image);
	const struct state *expected;
	struct bts_error error;
	struct state found;
	struct bts *db;

	if (!is_new(judge, env_mem_hash(image)))
		return;
	judged++;
	second += judge->depth;
	inner.depth++;
	/* What is found after a first crash must not go back to the base when the opening had to finish the
	 * frame. */
	if (judge->depth == 0)
		env_mem_set_hook(image, hook, &inner);
	db = bed_open(env_mem_env(image), "/f", BTS_OPEN_FOLLOWER, 0);
	env_mem_set_hook(image, NULL, NULL);
	found = state_of(db);
	expected = found.position.txid == judge->base.position.txid ? &judge->base : &judge->target;
	if (judge->acknowledged)
		expected = &judge->target;
	assert_memory_equal(&found.position, &expected->position, sizeof(found.position));
	assert_memory_equal(found.digest, expected->digest, 16);
	bed_assert_clean(db);
	if (expected == &judge->base)
		at_base++;
	else
		at_target++;
	redone += pending && expected == &judge->target;
	if (expected == &judge->base && rng_one_in(&judge->rng, 4)) {
		if (bed_apply(db, judge->frame, &judge->rng, &error))
			fail_msg("again: %s", error.text);
		found = state_of(db);
		assert_memory_equal(found.digest, judge->target.digest, 16);
		bed_assert_clean(db);
	}
	bts_close(db);
	db = bed_open(env_mem_env(image), "/f", BTS_OPEN_FOLLOWER, 0);
	bts_close(db);
}

static struct env_mem_choice choose(void *arg, size_t index, const struct env_mem_unit *unit)
{
	struct judge *judge = arg;
	struct env_mem_choice choice = {.version = (unsigned)rng_below(&judge->rng, unit->versions)};

	(void)index;
	if (unit->tearable && rng_one_in(&judge->rng, 2)) {
		choice.other = (unsigned)rng_below(&judge->rng, unit->versions);
		choice.words = rng_next(&judge->rng);
	}
	return choice;
}

static void hook(void *arg, struct env_mem *m, const struct env_mem_event *event)
{
	struct judge *judge = arg;
	bool fault = event->op == ENV_MEM_FAULT;

	if (fault && strcmp(event->path, "apply.unit") == 0)
		return;
	/* Most writes are of free pages, and much alike. */
	if (event->op == ENV_MEM_WRITE && event->size > 4096 && !rng_one_in(&judge->rng, 12))
		return;
	if (judge->depth > 0 && !rng_one_in(&judge->rng, 12))
		return;
	for (unsigned way = 0; way < 3; way++) {
		struct env_mem *image;

		if (way == 0)
			image = env_mem_crash(m, env_mem_choose_durable, NULL);
		else if (rng_one_in(&judge->rng, 10))
			image = env_mem_clone(m); /* the machine goes on */
		else
			image = env_mem_crash(m, choose, judge);
		judge_image(judge, image);
		env_mem_free(image);
	}
}

static void round_run(struct bts *primary, struct bts *follower, struct env_mem *m, struct rng *rng)
{
	struct judge judge = {.base = state_of(follower)};
	struct bts_error error;
	struct bed_frame *frame;

	for (unsigned commits = 1 + (unsigned)rng_below(rng, 12); commits--;)
		bed_commit(primary, rng);
	frame = bed_frame_new(primary, &judge.base.position);
	judge.target = state_of(primary);
	judge.frame = frame;
	judge.rng = *rng;
	env_mem_set_hook(m, hook, &judge);
	if (bed_apply(follower, frame, rng, &error))
		fail_msg("apply: %s", error.text);
	judge.acknowledged = true;
	hook(&judge, m, &(struct env_mem_event){.op = ENV_MEM_SYNC, .path = ""});
	/* Brought home by and by: later frames find two logs to write again. */
	if (bts_apply_idle(follower, &error))
		fail_msg("idle: %s", error.text);
	env_mem_set_hook(m, NULL, NULL);
	bed_frame_free(frame);
}

static void test_power_loss(void **state)
{
	struct env_mem *at_primary = env_mem_new(64 << 20), *at_follower = env_mem_new(64 << 20);
	struct bts *primary, *follower;
	uint8_t before[16], now[16];
	struct bts_txn *held = NULL;
	struct bts_apply_stat stat;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	primary = bed_open(env_mem_env(at_primary), "/p", 0, 4096);
	bed_create(env_mem_env(at_follower), "/f", primary, 4096);
	follower = bed_open(env_mem_env(at_follower), "/f", BTS_OPEN_FOLLOWER, 0);
	/* A snapshot is held through most of it: the log is one of several frames, and is written anew. */
	for (unsigned i = 0; i < ROUNDS; i++) {
		if (i == 1) {
			assert_int_equal(bts_begin(follower, BTS_READ, &held, NULL), BTS_OK);
			bed_digest(held, before);
		}
		round_run(primary, follower, at_follower, &rng);
		if (held) {
			bed_digest(held, now);
			assert_memory_equal(now, before, 16);
		}
		if (i == ROUNDS - 2) {
			bts_abort(held);
			held = NULL;
		}
	}
	bts_apply_stat(follower, &stat);
	printf("%u images judged (%u of openings), %u at the base, %u at the target, %u of these through "
	       "path.pending; %llu "
	       "pages redirected\n",
		judged, second, at_base, at_target, redone, (unsigned long long)stat.redirected_pages);
	assert_true(at_base > 0 && at_target > 0 && redone > 0 && second > 0);
	bed_assert_same(primary, follower);
	bts_close(follower);
	bts_close(primary);
	env_mem_free(at_follower);
	env_mem_free(at_primary);
}

/* The applying handle closes while another one reads: pages go home, and what has to stay goes to a log of the other name. */
static void test_power_loss_rewriting(void **state)
{
	struct env_mem *at_primary = env_mem_new(64 << 20), *m = env_mem_new(64 << 20);
	struct bts *primary, *follower, *reader;
	struct bts_txn *held, *short_lived;
	struct judge judge = {.acknowledged = true};
	uint8_t before[16], now[16];
	uint64_t size;

	(void)state;
	rng_init(&judge.rng, seed + 2);
	primary = bed_open(env_mem_env(at_primary), "/p", 0, 4096);
	bed_create(env_mem_env(m), "/f", primary, 4096);
	follower = bed_open(env_mem_env(m), "/f", BTS_OPEN_FOLLOWER, 0);
	reader = bed_open(env_mem_env(m), "/f", BTS_OPEN_READ_ONLY, 0);
	for (unsigned i = 0; i < 10; i++)
		bed_commit(primary, &judge.rng);
	bed_ship(primary, follower, &judge.rng);
	assert_int_equal(bts_begin(reader, BTS_READ, &held, NULL), BTS_OK);
	bed_digest(held, before);
	for (unsigned i = 0; i < 12; i++) {
		for (unsigned commits = 3; commits--;)
			bed_commit(primary, &judge.rng);
		assert_int_equal(bts_begin(reader, BTS_READ, &short_lived, NULL), BTS_OK);
		bed_ship(primary, follower, &judge.rng);
		bts_abort(short_lived);
	}
	assert_non_null(env_mem_bytes(m, "/f.pending", &size));
	judge.base = judge.target = state_of(follower);
	env_mem_set_hook(m, hook, &judge);
	bts_close(follower);
	env_mem_set_hook(m, NULL, NULL);
	assert_null(env_mem_bytes(m, "/f.pending", &size));
	assert_non_null(env_mem_bytes(m, "/f.pending2", &size));
	bed_digest(held, now);
	assert_memory_equal(now, before, 16);
	bts_abort(held);
	bed_assert_same(primary, reader);
	bts_close(reader);
	bts_close(primary);
	env_mem_free(m);
	env_mem_free(at_primary);
}

struct failing {
	struct env_mem *at_primary, *m; /* m: the follower, closed at base */
	struct bts *primary;
	struct bed_frame *frame;
	struct state base, target;
	unsigned failed, poisoned;
};

static void failing_open(struct failing *f)
{
	struct bts *follower;
	struct rng rng;

	memset(f, 0, sizeof(*f));
	rng_init(&rng, seed + 1);
	f->at_primary = env_mem_new(64 << 20);
	f->m = env_mem_new(64 << 20);
	f->primary = bed_open(env_mem_env(f->at_primary), "/p", 0, 4096);
	bed_create(env_mem_env(f->m), "/f", f->primary, 4096);
	follower = bed_open(env_mem_env(f->m), "/f", BTS_OPEN_FOLLOWER, 0);
	for (unsigned i = 0; i < 12; i++)
		bed_commit(f->primary, &rng);
	bed_ship(f->primary, follower, &rng);
	f->base = state_of(follower);
	for (unsigned i = 0; i < 15; i++)
		bed_commit(f->primary, &rng);
	f->target = state_of(f->primary);
	f->frame = bed_frame_new(f->primary, &f->base.position);
	bts_close(follower);
}

static void failing_close(struct failing *f)
{
	printf("%u failed calls, %u poisoned\n", f->failed, f->poisoned);
	bed_frame_free(f->frame);
	bts_close(f->primary);
	env_mem_free(f->m);
	env_mem_free(f->at_primary);
}

/* false: the apply needed fewer calls than that */
static bool failing_once(struct failing *f, enum env_mem_op kind, uint64_t nth, unsigned flags)
{
	struct env_mem *copy = env_mem_clone(f->m);
	struct bts *db = bed_open(env_mem_env(copy), "/f", BTS_OPEN_FOLLOWER, 0);
	bool memory = kind == ENV_MEM_OPS, any;
	struct bts_error error;
	struct state now;
	enum bts_err err;

	if (memory)
		env_mem_fail_memory(copy, nth, flags);
	else
		env_mem_fail(copy, kind, nth, 5, flags);
	err = bed_apply(db, f->frame, NULL, &error);
	any = err || env_mem_failed(copy) > 0;
	env_mem_fail_clear(copy);
	f->failed += any;
	if (err && bed_apply(db, f->frame, NULL, &error)) {
		assert_int_equal(error.code, BTS_POISONED);
		f->poisoned++;
	}
	bts_close(db);
	db = bed_open(env_mem_env(copy), "/f", BTS_OPEN_FOLLOWER, 0);
	now = state_of(db);
	assert_memory_equal(now.digest,
		now.position.txid == f->base.position.txid ? f->base.digest : f->target.digest, 16);
	bed_assert_clean(db);
	bts_close(db);
	env_mem_free(copy);
	return any;
}

/* Every call fails once: refused and as before, or poisoned and, opened again, one or the other. */
static void test_failing_calls(void **state)
{
	static const enum env_mem_op kinds[] = {ENV_MEM_WRITE, ENV_MEM_SYNC, ENV_MEM_TRUNCATE, ENV_MEM_OPEN,
		ENV_MEM_SYNC_DIR, ENV_MEM_RANDOM, ENV_MEM_MAP, ENV_MEM_IDENTITY, ENV_MEM_READ, ENV_MEM_FAULT};
	struct failing f;

	(void)state;
	failing_open(&f);
	for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
		for (uint64_t nth = 1;
			failing_once(&f, kinds[k], nth, kinds[k] == ENV_MEM_WRITE ? ENV_MEM_PARTIAL : 0);
			nth++)
			;
	assert_true(f.poisoned > 0 && f.poisoned < f.failed);
	failing_close(&f);
}

static void test_failing_memory(void **state)
{
	struct failing f;

	(void)state;
	failing_open(&f);
	for (uint64_t nth = 1; failing_once(&f, ENV_MEM_OPS, nth, 0); nth++)
		;
	for (uint64_t nth = 1; nth < 8; nth++)
		failing_once(&f, ENV_MEM_OPS, nth, ENV_MEM_STICKY);
	/* Everything that the way from the slot to the homes needs is there before the slot is written. */
	assert_int_equal(f.poisoned, 0);
	assert_true(f.failed > 0);
	failing_close(&f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_loss),
		cmocka_unit_test(test_power_loss_rewriting),
		cmocka_unit_test(test_failing_calls),
		cmocka_unit_test(test_failing_memory),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
