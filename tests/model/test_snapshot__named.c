/*
 * Named snapshots against an oracle: each holds what the database held when its batch committed, whatever is
 * written, deleted, dropped, snapshotted, un-snapshotted and reopened afterwards; nothing they need is freed,
 * nothing they no longer need is lost (bts_check: G2), and making and deleting them does not grow the file.
 * Two handles write by turns, as two processes would.
 *
 * Argument: seed.
 */
#include "bed.h"

#include <rng.h>

#define BUCKETS 3u
#define KEYS 250u
#define NAMES 7u
#define PINS 3u
#define VALUE_MAX 20000u
#define STEPS 900u

static uint64_t seed;

struct value {
	bool there;
	uint32_t size, fill;
};

struct world {
	bool bucket[BUCKETS];
	struct value values[BUCKETS][KEYS];
};

struct named {
	bool there;
	bts_txid txid;
	struct world world;
};

struct names {
	struct named of[NAMES];
};

struct scene {
	struct bed bed;
	struct bts *other; /* handle */
	struct rng rng;
	struct world now, next;
	struct names names, next_names;
	struct {
		struct bts_txn *txn;
		struct world world;
	} pins[PINS];
	uint64_t created, deleted, conflicts;
};

static struct bts_slice text_of(char text[16], const char *format, unsigned number)
{
	return (struct bts_slice){text, (size_t)snprintf(text, 16, format, number)};
}

static void value_fill(const struct value *v, uint8_t *bytes)
{
	uint32_t x = v->fill | 1;

	for (uint32_t i = 0; i < v->size; i++) {
		x = x * 1664525u + 1013904223u;
		bytes[i] = (uint8_t)(x >> 24);
	}
}

static void world_verify(struct bts_txn *txn, const struct world *world)
{
	static uint8_t expected[VALUE_MAX];
	char name[16], key[16];

	for (unsigned b = 0; b < BUCKETS; b++) {
		struct bts_bucket *bucket;
		struct bts_bucket_info info;
		enum bts_err err = bts_bucket(txn, text_of(name, "bucket%u", b), 0, &bucket, NULL);
		uint64_t count = 0;

		assert_int_equal(err, world->bucket[b] ? BTS_OK : BTS_NOT_FOUND);
		for (unsigned k = 0; k < KEYS && err == BTS_OK; k++) {
			const struct value *v = &world->values[b][k];
			struct bts_slice found;

			assert_int_equal(bts_get(txn, bucket, text_of(key, "key%05u", k), &found),
				v->there ? BTS_OK : BTS_NOT_FOUND);
			if (!v->there)
				continue;
			count++;
			value_fill(v, expected);
			assert_int_equal(found.size, v->size);
			assert_memory_equal(found.data, expected, v->size);
		}
		if (err)
			continue;
		assert_int_equal(bts_bucket_info(txn, bucket, &info), BTS_OK);
		assert_int_equal(info.entries, count);
	}
}

static void names_verify(struct scene *s)
{
	struct bts_txn *txn = bed_begin(&s->bed, BTS_READ), *at;
	struct bts_snapshot_info info;
	struct bts_slice after = {0};
	char text[16];

	for (unsigned n = 0; n < NAMES; n++) {
		const struct named *named = &s->names.of[n];
		struct bts_slice name = text_of(text, "snap%u", n);
		enum bts_err err = bts_begin_at(s->bed.db, name, &at, &s->bed.error);

		assert_int_equal(err, named->there ? BTS_OK : BTS_NOT_FOUND);
		if (!named->there)
			continue;
		assert_int_equal(bts_txn_id(at), named->txid);
		world_verify(at, &named->world);
		assert_int_equal(bts_snapshot_next(at, (struct bts_slice){0}, &info), BTS_NOT_FOUND);
		bts_abort(at);
		assert_int_equal(bts_snapshot_next(txn, after, &info), BTS_OK);
		assert_int_equal(info.name.size, name.size);
		assert_memory_equal(info.name.data, name.data, name.size);
		assert_int_equal(info.txid, named->txid);
		after = info.name;
	}
	assert_int_equal(bts_snapshot_next(txn, after, &info), BTS_NOT_FOUND);
	world_verify(txn, &s->now);
	bts_abort(txn);
}

static void change(struct scene *s, struct bts_txn *txn)
{
	static uint8_t bytes[VALUE_MAX];
	unsigned b = (unsigned)rng_below(&s->rng, BUCKETS), k = (unsigned)rng_below(&s->rng, KEYS);
	unsigned count = rng_one_in(&s->rng, 6) ? 60 : 1;
	struct bts_bucket *bucket;
	char name[16], key[16];

	if (s->next.bucket[b] && rng_one_in(&s->rng, 60)) {
		assert_int_equal(bts_bucket_drop(txn, text_of(name, "bucket%u", b), NULL), BTS_OK);
		s->next.bucket[b] = false;
		memset(s->next.values[b], 0, sizeof(s->next.values[b]));
		return;
	}
	assert_int_equal(bts_bucket(txn, text_of(name, "bucket%u", b), BTS_CREATE, &bucket, NULL), BTS_OK);
	s->next.bucket[b] = true;
	for (unsigned end = k + count; k < end && k < KEYS; k++) {
		struct value *v = &s->next.values[b][k];

		if (rng_one_in(&s->rng, 3)) {
			assert_int_equal(bts_del(txn, bucket, text_of(key, "key%05u", k)),
				v->there ? BTS_OK : BTS_NOT_FOUND);
			v->there = false;
			continue;
		}
		*v = (struct value){true,
			(uint32_t)rng_below(&s->rng, rng_one_in(&s->rng, 30) ? VALUE_MAX : 300),
			(uint32_t)rng_next(&s->rng)};
		value_fill(v, bytes);
		assert_int_equal(bts_put(txn, bucket, text_of(key, "key%05u", k),
					 (struct bts_slice){bytes, v->size}, 0),
			BTS_OK);
	}
}

/* Create or delete: what it was; sometimes both, in either order. */
static void toggle(struct scene *s, struct bts_txn *txn)
{
	unsigned n = (unsigned)rng_below(&s->rng, NAMES), times = rng_one_in(&s->rng, 8) ? 2 : 1;
	struct bts_error error = {0};
	struct bts_slice name;
	char text[16];

	name = text_of(text, "snap%u", n);
	while (times--) {
		struct named *named = &s->next_names.of[n];

		assert_int_equal(named->there ? bts_snapshot_create(txn, name, &error)
					      : bts_snapshot_delete(txn, name, &error),
			named->there ? BTS_EXISTS : BTS_NOT_FOUND);
		assert_int_equal(named->there ? bts_snapshot_delete(txn, name, &error)
					      : bts_snapshot_create(txn, name, &error),
			BTS_OK);
		named->there = !named->there;
		named->txid = 0; /* of this batch */
		named->there ? s->created++ : s->deleted++;
	}
}

static void changes(struct scene *s, struct bts_txn *txn)
{
	unsigned count = (unsigned)rng_below(&s->rng, 12);

	for (unsigned i = 0; i < count; i++)
		change(s, txn);
	for (unsigned i = (unsigned)rng_below(&s->rng, 3); i > 0; i--)
		toggle(s, txn);
}

/* A savepoint in the middle, gone back to or not. */
static void changes_around_savepoint(struct scene *s, struct bts_txn *txn)
{
	struct names names;
	struct world world;
	uint32_t id;

	changes(s, txn);
	names = s->next_names;
	world = s->next;
	assert_int_equal(bts_savepoint(txn, &id, NULL), BTS_OK);
	changes(s, txn);
	if (rng_one_in(&s->rng, 2)) {
		assert_int_equal(bts_savepoint_rollback(txn, id, NULL), BTS_OK);
		s->next_names = names;
		s->next = world;
	}
	changes(s, txn);
}

static void begin(struct scene *s)
{
	s->next = s->now;
	s->next_names = s->names;
}

static void done(struct scene *s, bts_txid txid)
{
	s->now = s->next;
	s->names = s->next_names;
	for (unsigned n = 0; n < NAMES; n++) {
		struct named *named = &s->names.of[n];

		if (!named->there || named->txid)
			continue;
		named->txid = txid;
		named->world = s->now;
	}
}

static void step_private(struct scene *s)
{
	struct bts_txn *txn = bed_begin(&s->bed, BTS_WRITE);
	bts_txid txid;

	begin(s);
	if (rng_one_in(&s->rng, 4))
		changes_around_savepoint(s, txn);
	else
		changes(s, txn);
	if (rng_one_in(&s->rng, 10)) {
		bts_abort(txn);
		return;
	}
	assert_int_equal(bts_commit_id(txn, &txid, &s->bed.error), BTS_OK);
	done(s, txid);
}

static void step_group(struct scene *s)
{
	struct bts_group *group;
	bts_txid txid = 0;

	assert_int_equal(bts_group_begin(s->bed.db, &group, &s->bed.error), BTS_OK);
	begin(s);
	for (unsigned i = 1 + (unsigned)rng_below(&s->rng, 4); i > 0; i--) {
		struct world before = s->next;
		struct names names_before = s->next_names;
		struct bts_txn *txn;

		assert_int_equal(bts_group_txn(group, &txn, &s->bed.error), BTS_OK);
		changes(s, txn);
		if (rng_one_in(&s->rng, 3)) {
			bts_abort(txn);
			s->next = before;
			s->next_names = names_before;
		} else {
			assert_int_equal(bts_commit_id(txn, &txid, &s->bed.error), BTS_OK);
		}
	}
	assert_int_equal(bts_group_commit(group, &s->bed.error), BTS_OK);
	done(s, txid);
}

/* The second of two private transactions is replayed on the first, or conflicts. */
static void step_replay(struct scene *s)
{
	struct bts_txn *first = bed_begin(&s->bed, BTS_WRITE), *second = bed_begin(&s->bed, BTS_WRITE);
	struct world world;
	struct names names, original = s->names;
	bts_txid txid;
	enum bts_err err;

	begin(s);
	toggle(s, second);
	names = s->next_names;
	begin(s);
	changes(s, first);
	world = s->next;
	assert_int_equal(bts_commit_id(first, &txid, &s->bed.error), BTS_OK);
	done(s, txid);
	err = bts_commit_id(second, &txid, &s->bed.error);
	if (err == BTS_CONFLICT) {
		s->conflicts++;
		bts_abort(second);
		return;
	}
	assert_int_equal(err, BTS_OK);
	/* No conflict: no name was touched by both. */
	begin(s);
	for (unsigned n = 0; n < NAMES; n++) {
		if (names.of[n].there && names.of[n].txid == 0)
			s->next_names.of[n] = (struct named){.there = true};
		else if (original.of[n].there && !names.of[n].there)
			s->next_names.of[n].there = false;
	}
	s->next = world;
	done(s, txid);
}

static void pin_drop(struct scene *s, unsigned i)
{
	world_verify(s->pins[i].txn, &s->pins[i].world);
	bts_abort(s->pins[i].txn);
	s->pins[i].txn = NULL;
}

/* A reader of a snapshot outlives its deletion. */
static void step_pin(struct scene *s)
{
	unsigned i = (unsigned)rng_below(&s->rng, PINS), n = (unsigned)rng_below(&s->rng, NAMES);
	char text[16];

	if (s->pins[i].txn) {
		pin_drop(s, i);
		return;
	}
	if (!s->names.of[n].there)
		return;
	assert_int_equal(bts_begin_at(s->bed.db, text_of(text, "snap%u", n), &s->pins[i].txn, NULL), BTS_OK);
	s->pins[i].world = s->names.of[n].world;
}

static void open_other(struct scene *s)
{
	if (bed_try_open(&s->bed, 0, &s->other))
		fail_msg("open: %s", s->bed.error.text);
}

static void swap(struct scene *s)
{
	struct bts *db = s->bed.db;

	s->bed.db = s->other;
	s->other = db;
}

static void step(struct scene *s)
{
	unsigned dice = (unsigned)rng_below(&s->rng, 100);

	if (rng_one_in(&s->rng, 4))
		swap(s);
	if (dice < 15)
		step_group(s);
	else if (dice < 25)
		step_replay(s);
	else if (dice < 45)
		step_pin(s);
	else
		step_private(s);
	if (dice == 99) {
		for (unsigned i = 0; i < PINS; i++)
			if (s->pins[i].txn)
				pin_drop(s, i);
		bts_close(s->other);
		bed_reopen(&s->bed);
		open_other(s);
	}
	if (rng_one_in(&s->rng, 6))
		bed_check(&s->bed);
	if (rng_one_in(&s->rng, 12))
		names_verify(s);
}

static void delete_all(struct scene *s)
{
	char text[16];

	while (true) {
		struct bts_txn *txn = bed_begin(&s->bed, BTS_WRITE);
		unsigned n = 0;

		begin(s);
		while (n < NAMES && !s->names.of[n].there)
			n++;
		if (n == NAMES) {
			bts_abort(txn);
			return;
		}
		assert_int_equal(bts_snapshot_delete(txn, text_of(text, "snap%u", n), NULL), BTS_OK);
		s->next_names.of[n].there = false;
		bed_commit(&s->bed, txn);
		done(s, 0);
		bed_check(&s->bed);
	}
}

static void test_random(void **unused)
{
	struct scene *s = calloc(1, sizeof(*s));

	(void)unused;
	assert_non_null(s);
	for (unsigned round = 0; round < 3; round++) {
		rng_init(&s->rng, seed + round);
		memset(&s->now, 0, sizeof(s->now));
		memset(&s->names, 0, sizeof(s->names));
		bed_init_memory(&s->bed);
		open_other(s);
		for (unsigned i = 0; i < STEPS; i++)
			step(s);
		for (unsigned i = 0; i < PINS; i++)
			if (s->pins[i].txn)
				pin_drop(s, i);
		names_verify(s);
		delete_all(s);
		names_verify(s);
		bts_close(s->other);
		bed_fini(&s->bed);
	}
	printf("%llu created, %llu deleted, %llu conflicts\n", (unsigned long long)s->created,
		(unsigned long long)s->deleted, (unsigned long long)s->conflicts);
	assert_true(s->created > 300 && s->conflicts > 5);
	free(s);
}

static void fill(struct bed *bed, unsigned from, unsigned count, const char *text)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	char key[16];

	for (unsigned i = from; i < from + count; i++) {
		text_of(key, "%06u", i);
		bed_put(txn, "b", key, text);
	}
	bed_commit(bed, txn);
}

static void snap(struct bed *bed, const char *create, const char *delete)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);

	if (delete)
		assert_int_equal(bts_snapshot_delete(txn, bed_text(delete), &bed->error), BTS_OK);
	if (create)
		assert_int_equal(bts_snapshot_create(txn, bed_text(create), &bed->error), BTS_OK);
	bed_commit(bed, txn);
}

/* A snapshot a round, the one of three rounds ago deleted, as much written each round: the file finds its size. */
static void test_no_growth(void **unused)
{
	uint64_t settled = 0;
	struct bts_stat stat;
	struct bed bed;
	char create[16], delete[16];

	(void)unused;
	bed_init_memory(&bed);
	fill(&bed, 0, 5000, "as it was in the beginning");
	for (unsigned round = 0; round < 200; round++) {
		fill(&bed, round % 50 * 100, 100, "as it is now");
		text_of(create, "s%u", round);
		text_of(delete, "s%u", round - 3);
		snap(&bed, create, round >= 3 ? delete : NULL);
		stat = bed_stat(&bed);
		if (round == 60)
			settled = stat.pages;
	}
	assert_in_range(stat.pages, 1, settled + settled / 20 + 16);
	bed_fini(&bed);
}

/* What a snapshot holds comes back when it goes: all of a dropped bucket, and not before. */
static void test_free_returns(void **unused)
{
	struct bts_stat full, held, back;
	struct bts_txn *txn;
	struct bed bed;

	(void)unused;
	bed_init_memory(&bed);
	fill(&bed, 0, 5000, "a value that takes some room in the file, so that pages are many");
	full = bed_stat(&bed);
	snap(&bed, "keep", NULL);
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_bucket_drop(txn, bed_text("b"), NULL), BTS_OK);
	bed_commit(&bed, txn);
	held = bed_stat(&bed);
	assert_true(held.pages - held.free_pages >= full.pages - full.free_pages);
	bed_check(&bed);
	bed_reopen(&bed);
	assert_int_equal(bts_begin_at(bed.db, bed_text("keep"), &txn, NULL), BTS_OK);
	bed_expect(txn, "b", "004999", "a value that takes some room in the file, so that pages are many");
	bts_abort(txn);
	snap(&bed, NULL, "keep");
	back = bed_stat(&bed);
	assert_true(back.free_pages > held.free_pages + (full.pages - full.free_pages) * 9 / 10 - 100);
	assert_in_range(back.pages - back.free_pages - back.first_page, 1, 12);
	bed_fini(&bed);
}

/* A snapshot alone is a commit; names conflict; arguments are checked. */
static void test_rules(void **unused)
{
	char longest[BTS_SNAPSHOT_NAME_MAX + 2];
	struct bts_snapshot_info info;
	struct bts_txn *one, *two;
	bts_txid before, after;
	struct bed bed;

	(void)unused;
	memset(longest, 'n', sizeof(longest));
	bed_init_memory(&bed);
	before = bed_stat(&bed).txid;
	snap(&bed, "empty", NULL);
	assert_true(bed_stat(&bed).txid > before);
	bed_set(&bed, "b", "k", "v");
	one = bed_begin(&bed, BTS_WRITE);
	two = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_snapshot_create(one, bed_text("same"), NULL), BTS_OK);
	assert_int_equal(bts_snapshot_create(two, bed_text("same"), NULL), BTS_OK);
	assert_int_equal(bts_snapshot_next(one, bed_text("empty"), &info), BTS_OK);
	assert_int_equal(info.txid, 0);
	assert_int_equal(bts_commit_id(one, &after, &bed.error), BTS_OK);
	assert_int_equal(bts_commit(two, &bed.error), BTS_CONFLICT);
	assert_non_null(strstr(bed.error.text, "snapshot \"same\": created by"));
	assert_int_equal(bts_refresh(two, NULL), BTS_OK);
	assert_int_equal(bts_snapshot_create(two, bed_text("same"), NULL), BTS_EXISTS);
	assert_int_equal(bts_snapshot_create(two, (struct bts_slice){longest, sizeof(longest) - 1}, NULL),
		BTS_INVALID);
	assert_int_equal(bts_snapshot_create(two, (struct bts_slice){0}, NULL), BTS_INVALID);
	assert_int_equal(bts_snapshot_delete(two, bed_text("none"), NULL), BTS_NOT_FOUND);
	assert_int_equal(
		bts_snapshot_create(two, (struct bts_slice){longest, sizeof(longest) - 2}, NULL), BTS_OK);
	bed_commit(&bed, two);
	assert_int_equal(bts_begin_at(bed.db, bed_text("empty"), &one, NULL), BTS_OK);
	bed_expect(one, "b", "k", NULL);
	assert_int_equal(bts_snapshot_create(one, bed_text("x"), NULL), BTS_INVALID);
	assert_int_equal(bts_refresh(one, NULL), BTS_OK);
	bed_expect(one, "b", "k", "v");
	bts_abort(one);
	assert_int_equal(bts_begin_at(bed.db, bed_text("same"), &one, NULL), BTS_OK);
	assert_int_equal(bts_txn_id(one), after);
	bts_abort(one);
	bed_fini(&bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_no_growth),
		cmocka_unit_test(test_free_returns),
		cmocka_unit_test(test_rules),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
