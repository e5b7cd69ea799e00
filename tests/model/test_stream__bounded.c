/* Values written in pieces: whole or not at all, and in bounded memory. */
#include "bed.h"
#include "count.h"

#include <errno.h>

#if defined(__SANITIZE_ADDRESS__)
#define STREAM_LARGE (UINT64_C(32) << 20)
#else
#define STREAM_LARGE (UINT64_C(256) << 20)
#endif
#define STREAM_SOME (UINT64_C(32) << 20)
#define STREAM_LIMIT (UINT64_C(4) << 20)
#define STREAM_PIECE 99991u

static void stream_open(struct bed *bed, struct bts_env *env)
{
	struct bts_options options;

	bts_options_init(&options);
	options.map_bytes = bed->mem ? (uint64_t)ENV_MEM_RESERVE_DEFAULT : UINT64_C(1) << 34;
	options.txn_memory = STREAM_LIMIT;
	options.env = env;
	if (bts_open(bed->path, &options, &bed->db, &bed->error))
		fail_msg("open: %s", bed->error.text);
}

/* Bytes at an offset of a value, by words that depend on where they stand. */
static void stream_fill(uint8_t *bytes, uint64_t at, size_t size, unsigned salt)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)((at + i) / 251 * 7 + at + i + salt);
}

static enum bts_err stream_write(struct bts_stream *stream, uint64_t from, uint64_t to, unsigned salt)
{
	static uint8_t piece[STREAM_PIECE];

	while (from < to) {
		size_t size = to - from < sizeof(piece) ? (size_t)(to - from) : sizeof(piece);
		enum bts_err err;

		stream_fill(piece, from, size, salt);
		err = bts_put_write(stream, (struct bts_slice){piece, size});
		if (err)
			return err;
		from += size;
	}
	return BTS_OK;
}

static struct bts_stream *stream_begin(struct bts_txn *txn, const char *key, uint64_t size)
{
	struct bts_stream *stream;
	struct bts_error error = {0};

	if (bts_put_begin(txn, bed_bucket(txn, "b"), bed_text(key), size, 0, &stream, &error))
		fail_msg("begin: %s", error.text);
	return stream;
}

static void stream_expect(struct bts_txn *txn, const char *key, uint64_t size, unsigned salt)
{
	static uint8_t piece[STREAM_PIECE];
	struct bts_slice value;

	assert_int_equal(bts_get(txn, bed_find(txn, "b"), bed_text(key), &value), BTS_OK);
	assert_int_equal(value.size, size);
	for (uint64_t at = 0; at < size; at += sizeof(piece)) {
		size_t part = size - at < sizeof(piece) ? (size_t)(size - at) : sizeof(piece);

		stream_fill(piece, at, part, salt);
		assert_memory_equal((const uint8_t *)value.data + at, piece, part);
	}
}

static void stream_holds(struct bed *bed, const char *key, uint64_t size, unsigned salt)
{
	struct bts_txn *txn = bed_begin(bed, BTS_READ);

	stream_expect(txn, key, size, salt);
	bts_abort(txn);
}

static void in_bounded_memory(void **state)
{
	struct bts_group *group = NULL;
	struct bts_txn *txn;
	struct bts_stream *stream;
	struct bed bed;

	(void)state;
	for (int how = 0; how < 4; how++) {
		uint64_t size = (how == 0 ? STREAM_LARGE : STREAM_SOME) + 12345;
		size_t before;

		bed_init_file(&bed);
		bts_close(bed.db);
		count_begin();
		stream_open(&bed, &count_env);
		before = count_peak = count_live;
		if (how & 1)
			assert_int_equal(bts_group_begin(bed.db, &group, NULL), BTS_OK);
		if (how & 1)
			assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
		else
			txn = bed_begin(&bed, BTS_WRITE);
		stream = stream_begin(txn, "large", how & 2 ? BTS_SIZE_UNKNOWN : size);
		assert_int_equal(stream_write(stream, 0, size, 1), BTS_OK);
		assert_int_equal(bts_put_end(stream, NULL), BTS_OK);
		stream_expect(txn, "large", size, 1);
		bed_commit(&bed, txn);
		if (how & 1)
			assert_int_equal(bts_group_commit(group, &bed.error), BTS_OK);
		/* the limit, and what a commit and the tags of verified pages take; one 16384th for the chunk table */
		assert_true(count_peak - before <= STREAM_LIMIT + size / 16384 + 500000);
		stream_holds(&bed, "large", size, 1);
		bed_fini(&bed);
		assert_int_equal(count_live, 0);
	}
}

static void sizes(void **state)
{
	static const uint64_t some[] = {0, 1, 1000, 1024, 1025, 4096, 65535, 65536, 65537, 300000, 3000000};
	struct bts_txn *txn;
	struct bed bed;
	char key[32];

	(void)state;
	bed_init_memory(&bed);
	bts_close(bed.db);
	stream_open(&bed, env_mem_env(bed.mem));
	for (unsigned known = 0; known < 2; known++) {
		txn = bed_begin(&bed, BTS_WRITE);
		for (unsigned i = 0; i < sizeof(some) / sizeof(some[0]); i++) {
			struct bts_stream *stream;

			snprintf(key, sizeof(key), "%u", i);
			stream = stream_begin(txn, key, known ? some[i] : BTS_SIZE_UNKNOWN);
			assert_int_equal(stream_write(stream, 0, some[i], known), BTS_OK);
			bed_put(txn, "b", "between", "anything");
			assert_int_equal(bts_put_end(stream, NULL), BTS_OK);
		}
		if (known)
			bed_set(&bed, "other", "k", "v"); /* replayed */
		bed_commit(&bed, txn);
		bed_check(&bed);
		for (unsigned i = 0; i < sizeof(some) / sizeof(some[0]); i++) {
			snprintf(key, sizeof(key), "%u", i);
			stream_holds(&bed, key, some[i], known);
		}
	}
	bed_fini(&bed);
}

/* Two at once, of unknown size, in turns: they move each other in the file. */
static void side_by_side(void **state)
{
	const uint64_t size = 9000000, step = 300000;
	struct bts_stream *one, *two;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bts_close(bed.db);
	stream_open(&bed, env_mem_env(bed.mem));
	txn = bed_begin(&bed, BTS_WRITE);
	one = stream_begin(txn, "one", BTS_SIZE_UNKNOWN);
	two = stream_begin(txn, "two", BTS_SIZE_UNKNOWN);
	for (uint64_t at = 0; at < size; at += step) {
		assert_int_equal(stream_write(one, at, at + step, 1), BTS_OK);
		assert_int_equal(stream_write(two, at, at + step, 2), BTS_OK);
	}
	assert_int_equal(bts_put_end(one, NULL), BTS_OK);
	assert_int_equal(bts_put_end(two, NULL), BTS_OK);
	stream_expect(txn, "one", size, 1);
	stream_expect(txn, "two", size, 2);
	one = stream_begin(txn, "one", 7000000);
	assert_int_equal(stream_write(one, 0, 7000000, 3), BTS_OK);
	assert_int_equal(bts_put_end(one, NULL), BTS_OK);
	stream_expect(txn, "two", size, 2);
	bed_commit(&bed, txn);
	stream_holds(&bed, "one", 7000000, 3);
	stream_holds(&bed, "two", size, 2);
	bed_fini(&bed);
}

static void not_at_all(void **state)
{
	struct bts_stream *stream;
	struct bts_error error = {0};
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bts_close(bed.db);
	stream_open(&bed, env_mem_env(bed.mem));
	bed_set(&bed, "b", "k", "v");
	txn = bed_begin(&bed, BTS_WRITE);
	stream = stream_begin(txn, "k", 5000000);
	assert_int_equal(stream_write(stream, 0, 4000000, 1), BTS_OK);
	bts_put_abort(stream);
	stream = stream_begin(txn, "k", 5000000);
	assert_int_equal(stream_write(stream, 0, 4999999, 1), BTS_OK);
	assert_int_equal(bts_put_end(stream, &error), BTS_INVALID); /* too short */
	assert_non_null(strstr(error.text, "4999999"));
	stream = stream_begin(txn, "k", 70000);
	assert_int_equal(stream_write(stream, 0, 70000, 1), BTS_OK);
	assert_int_equal(bts_put_write(stream, bed_text("x")), BTS_INVALID); /* too long: the rest stands */
	bts_put_abort(stream);
	assert_int_equal(bts_put_begin(txn, bed_find(txn, "b"), bed_text("k"), 9, BTS_PUT_NEW, &stream, NULL),
		BTS_EXISTS);
	assert_int_equal(
		bts_put_begin(txn, bed_find(txn, "b"), bed_text("k"), BTS_VALUE_MAX + 1, 0, &stream, NULL),
		BTS_INVALID);
	stream = stream_begin(txn, "left", BTS_SIZE_UNKNOWN); /* the commit drops it */
	assert_int_equal(stream_write(stream, 0, 6000000, 1), BTS_OK);
	bed_put(txn, "b", "other", "1");
	bed_commit(&bed, txn);
	bed_holds(&bed, "b", "k", "v");
	bed_holds(&bed, "b", "left", NULL);
	bed_holds(&bed, "b", "other", "1");
	txn = bed_begin(&bed, BTS_READ);
	assert_int_equal(
		bts_put_begin(txn, bed_find(txn, "b"), bed_text("k"), 9, 0, &stream, NULL), BTS_INVALID);
	bts_abort(txn);
	bed_fini(&bed);
}

/* Going back takes away a stream's value, or the put, or neither. */
static void savepoints(void **state)
{
	struct bts_stream *before, *after;
	struct bts_txn *txn;
	uint32_t point;
	struct bed bed;

	(void)state;
	for (int replay = 0; replay < 2; replay++) {
		bed_init_memory(&bed);
		bts_close(bed.db);
		stream_open(&bed, env_mem_env(bed.mem));
		txn = bed_begin(&bed, BTS_WRITE);
		before = stream_begin(txn, "before", BTS_SIZE_UNKNOWN);
		assert_int_equal(stream_write(before, 0, 3000000, 1), BTS_OK);
		assert_int_equal(bts_savepoint(txn, &point, NULL), BTS_OK);
		after = stream_begin(txn, "after", 2000000);
		assert_int_equal(stream_write(after, 0, 1000000, 2), BTS_OK);
		assert_int_equal(stream_write(before, 3000000, 6000000, 1), BTS_OK);
		assert_int_equal(bts_savepoint_rollback(txn, point, NULL), BTS_OK);
		assert_int_equal(bts_put_write(after, bed_text("more")), BTS_INVALID);
		assert_int_equal(bts_put_end(after, NULL), BTS_INVALID);
		assert_int_equal(stream_write(before, 6000000, 7000000, 1), BTS_OK);
		after = stream_begin(txn, "undone", 2000000);
		assert_int_equal(stream_write(after, 0, 2000000, 3), BTS_OK);
		assert_int_equal(bts_put_end(after, NULL), BTS_OK);
		assert_int_equal(bts_savepoint_rollback(txn, point, NULL), BTS_OK);
		bed_expect(txn, "b", "undone", NULL);
		assert_int_equal(bts_put_end(before, NULL), BTS_OK);
		after = stream_begin(txn, "kept", 2000000);
		assert_int_equal(stream_write(after, 0, 2000000, 4), BTS_OK);
		assert_int_equal(bts_savepoint_release(txn, point, NULL), BTS_OK);
		assert_int_equal(bts_put_end(after, NULL), BTS_OK);
		stream_expect(txn, "before", 7000000, 1);
		if (replay)
			bed_set(&bed, "other", "k", "v");
		bed_commit(&bed, txn);
		stream_holds(&bed, "before", 7000000, 1);
		stream_holds(&bed, "kept", 2000000, 4);
		bed_holds(&bed, "b", "undone", NULL);
		bed_fini(&bed);
	}
}

static void no_room(void **state)
{
	struct bts_stream *stream;
	struct bts_error error = {0};
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	for (int known = 0; known < 2; known++) {
		bed_init_memory(&bed);
		bts_close(bed.db);
		stream_open(&bed, env_mem_env(bed.mem));
		bed_set(&bed, "b", "k", "v");
		txn = bed_begin(&bed, BTS_WRITE);
		env_mem_fail(bed.mem, ENV_MEM_RESERVE, known ? 1 : 4, ENOSPC, ENV_MEM_STICKY);
		if (known) {
			assert_int_equal(bts_put_begin(txn, bed_find(txn, "b"), bed_text("k"), 40000000, 0,
						 &stream, &error),
				BTS_FULL);
		} else {
			stream = stream_begin(txn, "k", BTS_SIZE_UNKNOWN);
			assert_int_equal(stream_write(stream, 0, 40000000, 0), BTS_FULL);
			bts_put_abort(stream);
		}
		env_mem_fail_clear(bed.mem);
		bed_put(txn, "b", "other", "1");
		bed_commit(&bed, txn);
		bed_holds(&bed, "b", "k", "v");
		bed_fini(&bed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_bounded_memory),
		cmocka_unit_test(sizes),
		cmocka_unit_test(side_by_side),
		cmocka_unit_test(not_at_all),
		cmocka_unit_test(savepoints),
		cmocka_unit_test(no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
