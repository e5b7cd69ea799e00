#include "apply_bed.h"

#include <stdlib.h>

#define BED_BUCKETS 6u
#define BED_KEYS 1500u
#define BED_SNAPSHOTS 4u

struct bts *bed_open(struct bts_env *env, const char *path, unsigned flags, uint32_t page_size)
{
	struct bts_options options;
	struct bts_error error;
	struct bts *db;

	bts_options_init(&options);
	options.env = env;
	options.flags = flags;
	options.page_size = page_size;
	options.map_bytes = UINT64_C(256) << 20;
	if (bts_open(path, &options, &db, &error))
		fail_msg("open %s: %s", path, error.text);
	return db;
}

void bed_create(struct bts_env *env, const char *path, struct bts *primary, uint32_t page_size)
{
	struct bts_position source = bed_position(primary);
	struct bts_options options;
	struct bts_error error;

	bts_options_init(&options);
	options.env = env;
	if (bts_ship_create(path, &options, &source, page_size, &error))
		fail_msg("create %s: %s", path, error.text);
}

static struct bts_slice bed_name(unsigned number, char text[16])
{
	return (struct bts_slice){text, (size_t)snprintf(text, 16, "bucket%u", number)};
}

static void bed_must(struct bts_txn *txn, enum bts_err err)
{
	if (err)
		fail_msg("%s", bts_txn_error(txn)->text);
}

static void bed_put(struct bts_txn *txn, struct bts_bucket *bucket, unsigned number, struct rng *rng)
{
	static uint8_t value[300000];
	char key[600];
	size_t size = rng_below(rng, 200), key_size;

	if (rng_one_in(rng, 40))
		size = 1000 + rng_below(rng, 20000);
	if (rng_one_in(rng, 300))
		size = 60000 + rng_below(rng, 200000);
	memset(key, 'k', sizeof(key));
	key_size = (size_t)snprintf(key, sizeof(key), "%06u", number * 7919 % BED_KEYS);
	if (number % 50 == 0)
		key_size += 500; /* long keys make deep trees */
	memset(value, (int)rng_below(rng, 256), size);
	if (size >= 8)
		memcpy(value + size / 2, &number, sizeof(number));
	bed_must(txn,
		bts_put(txn, bucket, (struct bts_slice){key, key_size}, (struct bts_slice){value, size}, 0));
}

static void bed_del_some(struct bts_txn *txn, struct bts_bucket *bucket, struct rng *rng)
{
	struct bts_slice from, key;
	struct bts_cursor *cursor;
	char text[16];
	unsigned left = (unsigned)rng_below(rng, rng_one_in(rng, 10) ? 400 : 20);
	enum bts_err err;

	from = (struct bts_slice){
		text, (size_t)snprintf(text, sizeof(text), "%06u", (unsigned)rng_below(rng, BED_KEYS))};
	bed_must(txn, bts_cursor_open(txn, bucket, &cursor, NULL));
	err = bts_cursor_seek(cursor, from, &key, NULL);
	while (!err && left--) {
		char copy[BTS_KEY_MAX];

		memcpy(copy, key.data, key.size);
		bed_must(txn, bts_del(txn, bucket, (struct bts_slice){copy, key.size}));
		err = bts_cursor_next(cursor, &key, NULL);
	}
	bts_cursor_close(cursor);
}

/* Names of snapshots come and go with the changes of one commit. */
static void bed_snapshot(struct bts_txn *txn, struct rng *rng)
{
	struct bts_slice name;
	struct bts_error error;
	char text[16];
	enum bts_err err;

	name = (struct bts_slice){text,
		(size_t)snprintf(text, sizeof(text), "snap%u", (unsigned)rng_below(rng, BED_SNAPSHOTS))};
	err = bts_snapshot_create(txn, name, &error);
	if (err == BTS_EXISTS) {
		bed_must(txn, bts_snapshot_delete(txn, name, &error));
		err = rng_one_in(rng, 3) ? bts_snapshot_create(txn, name, &error) : BTS_OK;
	}
	bed_must(txn, err);
}

void bed_commit(struct bts *db, struct rng *rng)
{
	unsigned changes = 1 + (unsigned)rng_below(rng, rng_one_in(rng, 8) ? 400 : 12);
	struct bts_error error;
	struct bts_txn *txn;
	char name[16];

	if (bts_begin(db, BTS_WRITE, &txn, &error))
		fail_msg("begin: %s", error.text);
	if (rng_one_in(rng, 25)) {
		enum bts_err err =
			bts_bucket_drop(txn, bed_name((unsigned)rng_below(rng, BED_BUCKETS), name), &error);

		assert_true(err == BTS_OK || err == BTS_NOT_FOUND);
	}
	for (unsigned i = 0; i < changes;) {
		unsigned number = (unsigned)rng_below(rng, BED_KEYS);
		unsigned run = rng_one_in(rng, 3) ? 1 + (unsigned)rng_below(rng, 30) : 1;
		struct bts_bucket *bucket;

		bed_must(txn, bts_bucket(txn, bed_name((unsigned)rng_below(rng, BED_BUCKETS), name),
				      BTS_CREATE, &bucket, &error));
		if (rng_one_in(rng, 12))
			bed_del_some(txn, bucket, rng);
		for (; run--; i++)
			bed_put(txn, bucket, number + run, rng);
	}
	if (rng_one_in(rng, 8))
		bed_snapshot(txn, rng);
	if (bts_commit(txn, &error))
		fail_msg("commit: %s", error.text);
}

struct bts_position bed_position(struct bts *db)
{
	struct bts_position position;

	assert_int_equal(bts_ship_position(db, &position, NULL), BTS_OK);
	return position;
}

struct bed_frame *bed_frame_new(struct bts *primary, const struct bts_position *base)
{
	struct bed_frame *frame = malloc(sizeof(*frame));
	struct bts_error error;
	struct bts_slice bytes;
	enum bts_err err;

	assert_non_null(frame);
	frame->base = *base;
	if (bts_walk_open(primary, base->txid, &frame->walk, &error))
		fail_msg("walk: %s", error.text);
	frame->target = *bts_walk_position(frame->walk);
	frame->record = bts_walk_record(frame->walk);
	frame->count = 0;
	for (;;) {
		struct bed_unit *unit = &frame->units[frame->count];

		assert_true(frame->count < BED_UNITS_MAX);
		err = bts_walk_next(frame->walk, &unit->id, &bytes, &error);
		if (err)
			break;
		unit->bytes = bytes.data;
		unit->size = bytes.size;
		frame->count++;
	}
	if (err != BTS_NOT_FOUND)
		fail_msg("walk: %s", error.text);
	return frame;
}

void bed_frame_free(struct bed_frame *frame)
{
	bts_walk_close(frame->walk);
	free(frame);
}

static enum bts_err bed_send(
	struct bts_apply *apply, const struct bed_unit *unit, struct rng *rng, struct bts_error *error)
{
	size_t page_size = unit->size / unit->id.count;

	for (uint32_t first = 0, pages; first < unit->id.count; first += pages) {
		struct bts_slice bytes;
		enum bts_err err;

		pages = unit->id.count - first;
		if (rng && pages > 1)
			pages = 1 + (uint32_t)rng_below(rng, pages);
		bytes = (struct bts_slice){unit->bytes + first * page_size, pages * page_size};
		err = bts_apply_piece(apply, &unit->id, first, bytes, error);
		if (err)
			return err;
	}
	return BTS_OK;
}

enum bts_err bed_apply(
	struct bts *follower, const struct bed_frame *frame, struct rng *rng, struct bts_error *error)
{
	uint32_t *order = malloc((frame->count + 1) * sizeof(*order));
	struct bts_apply *apply;
	enum bts_err err;

	assert_non_null(order);
	for (uint32_t i = 0; i < frame->count; i++) {
		uint32_t other = rng ? (uint32_t)rng_below(rng, i + 1) : i;

		order[i] = order[other];
		order[other] = i;
	}
	err = bts_apply_begin(follower, &frame->base, &frame->target, &apply, error);
	for (size_t i = 0; !err && i < frame->count; i++) {
		err = bed_send(apply, &frame->units[order[i]], rng, error);
		if (err)
			bts_apply_abort(apply);
	}
	free(order);
	return err ? err : bts_apply_finish(apply, frame->record, error);
}

void bed_ship(struct bts *primary, struct bts *follower, struct rng *rng)
{
	struct bts_position base = bed_position(follower);
	struct bed_frame *frame = bed_frame_new(primary, &base);
	struct bts_error error;

	if (bed_apply(follower, frame, rng, &error))
		fail_msg("apply: %s", error.text);
	bed_frame_free(frame);
}

void bed_digest(struct bts_txn *txn, uint8_t out[16])
{
	static const uint8_t none[16];
	struct bts_bucket_info info;
	struct bts_slice after = {"", 0};
	struct bts_digest digest;
	char name[BTS_BUCKET_NAME_MAX];
	enum bts_err err;

	bts_digest_init(&digest, none);
	while ((err = bts_bucket_next(txn, after, &info)) == BTS_OK) {
		struct bts_slice key, value;
		struct bts_bucket *bucket;
		struct bts_cursor *cursor;

		memcpy(name, info.name.data, info.name.size);
		after = (struct bts_slice){name, info.name.size};
		bts_digest_update(&digest, name, after.size);
		bed_must(txn, bts_bucket(txn, after, 0, &bucket, NULL));
		bed_must(txn, bts_cursor_open(txn, bucket, &cursor, NULL));
		for (err = bts_cursor_first(cursor, &key, &value); !err;
			err = bts_cursor_next(cursor, &key, &value)) {
			uint64_t sizes[2] = {key.size, value.size};

			bts_digest_update(&digest, sizes, sizeof(sizes));
			bts_digest_update(&digest, key.data, key.size);
			bts_digest_update(&digest, value.data, value.size);
		}
		if (err != BTS_NOT_FOUND)
			bed_must(txn, err);
		bts_cursor_close(cursor);
	}
	if (err != BTS_NOT_FOUND)
		bed_must(txn, err);
	bts_digest_final(&digest, out);
}

static void bed_report(void *arg, bts_pgno page, const char *text)
{
	(void)arg;
	printf("check: page %llu: %s\n", (unsigned long long)page, text);
}

void bed_assert_clean(struct bts *db)
{
	struct bts_check_options options = {.report = bed_report};
	struct bts_error error = {.text = ""};

	if (bts_check(db, &options, &error))
		fail_msg("check: %s", error.text);
}

/* The same names, each with the same number and contents. */
static void bed_assert_same_snapshots(struct bts *a, struct bts *b)
{
	struct bts_snapshot_info x, y;
	struct bts_slice after = {"", 0};
	struct bts_txn *in_a, *in_b;
	enum bts_err err;

	assert_int_equal(bts_begin(a, BTS_READ, &in_a, NULL), BTS_OK);
	assert_int_equal(bts_begin(b, BTS_READ, &in_b, NULL), BTS_OK);
	while ((err = bts_snapshot_next(in_a, after, &x)) == BTS_OK) {
		uint8_t digests[2][16];
		struct bts_txn *at;

		assert_int_equal(bts_snapshot_next(in_b, after, &y), BTS_OK);
		assert_true(x.txid == y.txid && x.time_ms == y.time_ms && x.name.size == y.name.size);
		after = x.name;
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(bts_begin_at(i ? b : a, after, &at, NULL), BTS_OK);
			bed_digest(at, digests[i]);
			bts_abort(at);
		}
		assert_memory_equal(digests[0], digests[1], 16);
	}
	assert_int_equal(err, BTS_NOT_FOUND);
	assert_int_equal(bts_snapshot_next(in_b, after, &y), BTS_NOT_FOUND);
	bts_abort(in_a);
	bts_abort(in_b);
}

static void bed_assert_same_pages(struct bts *a, struct bts *b)
{
	struct bts_position nothing = {.txid = 0};
	struct bed_frame *x = bed_frame_new(a, &nothing), *y = bed_frame_new(b, &nothing);

	assert_int_equal(x->count, y->count);
	assert_int_equal(x->record.size, y->record.size);
	assert_memory_equal(x->record.data, y->record.data, x->record.size);
	for (size_t i = 0; i < x->count; i++) {
		assert_true(x->units[i].id.pgno == y->units[i].id.pgno);
		assert_true(x->units[i].id.birth == y->units[i].id.birth);
		assert_true(x->units[i].id.crc == y->units[i].id.crc);
		assert_true(x->units[i].id.count == y->units[i].id.count);
		assert_true(x->units[i].id.kind == y->units[i].id.kind);
		assert_memory_equal(x->units[i].bytes, y->units[i].bytes, x->units[i].size);
	}
	bed_frame_free(x);
	bed_frame_free(y);
}

static void bed_content(struct bts *db, uint8_t out[16])
{
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_READ, &txn, NULL), BTS_OK);
	bed_digest(txn, out);
	bts_abort(txn);
}

void bed_assert_same(struct bts *a, struct bts *b)
{
	struct bts_position x = bed_position(a), y = bed_position(b);
	struct bts_stat s = {.size = sizeof(s)}, t = {.size = sizeof(t)};
	uint8_t digest[2][16];

	assert_memory_equal(&x, &y, sizeof(x));
	assert_int_equal(bts_stat(a, &s, NULL), BTS_OK);
	assert_int_equal(bts_stat(b, &t, NULL), BTS_OK);
	assert_memory_equal(s.root_digest, t.root_digest, 16);
	assert_int_equal(s.free_pages, t.free_pages);
	bed_content(a, digest[0]);
	bed_content(b, digest[1]);
	assert_memory_equal(digest[0], digest[1], 16);
	bed_assert_same_snapshots(a, b);
	bed_assert_same_pages(a, b);
	bed_assert_clean(a);
	bed_assert_clean(b);
}
