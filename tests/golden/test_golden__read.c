/*
 * The golden files as this build reads them: every name in expected.txt gives what its line says, checks clean, and can be
 * written to, closed and opened again without harm to what was there.
 */
#include "cmocka.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "frame.h"
#include "golden.h"

#define PATH "/db"

struct golden {
	char name[64];
	char line[GOLDEN_LINE];
	bool follower;
};

static struct env_mem *golden_memory(const struct golden *golden)
{
	struct env_mem *mem = env_mem_new(GOLDEN_MAP);
	size_t size;
	uint8_t *bytes = golden_load(GOLDEN_FOLDER, golden->name, "", &size);

	env_mem_put_file(mem, PATH, bytes, size);
	free(bytes);
	if (!strncmp(golden->name, "pending", 7)) {
		bytes = golden_load(GOLDEN_FOLDER, golden->name, ".pending", &size);
		env_mem_put_file(mem, PATH ".pending", bytes, size);
		free(bytes);
	}
	return mem;
}

static struct bts *golden_db(struct env_mem *mem, unsigned flags)
{
	struct bts_error error;
	struct bts *db;

	golden_must(golden_open(env_mem_env(mem), PATH, flags, 0, &db, &error), &error, "open");
	return db;
}

static void golden_sound(struct bts *db)
{
	struct bts_error error;

	golden_must(bts_check(db, NULL, &error), &error, "check");
}

static void golden_read(const struct golden *golden)
{
	struct env_mem *mem = golden_memory(golden);
	struct bts *db = golden_db(mem, BTS_OPEN_READ_ONLY);
	char line[GOLDEN_LINE];

	golden_line(db, line);
	assert_string_equal(line, golden->line);
	golden_sound(db);
	bts_close(db);
	env_mem_free(mem);
}

/* A bucket of our own with small and large values, or (put false) none. */
static void golden_change(struct bts *db, bool put)
{
	static const struct bts_slice name = {"golden\xff", 7};
	static uint8_t value[20000];
	struct bts_bucket *bucket;
	struct bts_error error;
	struct bts_txn *txn;

	golden_must(bts_begin(db, BTS_WRITE, &txn, &error), &error, "begin");
	if (!put)
		golden_must(bts_bucket_drop(txn, name, &error), &error, "drop");
	for (unsigned i = 0; i < 300 && put; i++) {
		size_t size = i % 100 ? i : sizeof(value);

		golden_must(bts_bucket(txn, name, BTS_CREATE, &bucket, &error), &error, "bucket");
		golden_must(bts_put(txn, bucket, (struct bts_slice){&i, sizeof(i)},
				    (struct bts_slice){value, size}, 0),
			bts_txn_error(txn), "put");
	}
	golden_must(bts_commit(txn, &error), &error, "commit");
}

static void golden_write(const struct golden *golden)
{
	struct env_mem *mem = golden_memory(golden);
	unsigned flags = golden->follower ? BTS_OPEN_FOLLOWER : 0, before, after;
	struct bts *db = golden_db(mem, flags);
	uint8_t dump[2][16];

	golden_dump(db, dump[0], &before);
	for (unsigned i = 0; i < 6 && !golden->follower; i++) {
		golden_change(db, i % 2 == 0);
		golden_sound(db);
		if (i % 3 != 1)
			continue;
		bts_close(db);
		db = golden_db(mem, 0);
	}
	bts_close(db);
	db = golden_db(mem, flags);
	golden_dump(db, dump[1], &after);
	golden_sound(db);
	assert_memory_equal(dump[0], dump[1], 16);
	assert_int_equal(before, after);
	bts_close(db);
	env_mem_free(mem);
}

static struct bts *golden_receiver(
	struct env_mem *mem, const struct frame_header *header, struct bts_apply **apply)
{
	struct bts_options options;
	struct bts_error error;
	struct bts *db;

	bts_options_init(&options);
	options.env = env_mem_env(mem);
	golden_must(bts_ship_create(PATH, &options, &header->target, header->page_size, &error), &error,
		"create");
	db = golden_db(mem, BTS_OPEN_FOLLOWER);
	golden_must(bts_apply_begin(db, &header->base, &header->target, apply, &error), &error, "begin");
	return db;
}

/* A frame from an empty follower to what follower.bts holds. */
static void test_frame(void **state)
{
	struct env_mem *mem = env_mem_new(GOLDEN_MAP);
	struct frame_decoder *decoder = frame_decoder_new();
	struct golden follower = {.name = "follower.bts"};
	struct frame_event event = {.kind = FRAME_MORE};
	struct bts *db = NULL, *other;
	struct bts_apply *apply = NULL;
	struct bts_error error;
	uint8_t dump[2][16], *bytes;
	struct bts_slice input;
	unsigned names;

	(void)state;
	bytes = golden_load(GOLDEN_FOLDER, "follower.frame", "", &input.size);
	input.data = bytes;
	while (event.kind != FRAME_END) {
		golden_must(frame_decode(decoder, &input, &event, &error), &error, "frame");
		assert_true(event.kind != FRAME_MORE);
		if (event.kind == FRAME_HEADER)
			db = golden_receiver(mem, event.header, &apply);
		if (event.kind == FRAME_PIECE)
			golden_must(bts_apply_piece(
					    apply, &event.piece.id, event.piece.first, event.bytes, &error),
				&error, "piece");
	}
	golden_must(bts_apply_finish(apply, event.record, &error), &error, "finish");
	assert_int_equal(input.size, 0);
	golden_sound(db);
	golden_dump(db, dump[0], &names);
	bts_close(db);
	env_mem_free(mem);
	mem = golden_memory(&follower);
	other = golden_db(mem, BTS_OPEN_READ_ONLY);
	golden_dump(other, dump[1], &names);
	assert_memory_equal(dump[0], dump[1], 16);
	bts_close(other);
	env_mem_free(mem);
	frame_decoder_free(decoder);
	free(bytes);
}

static void test_all(void **state)
{
	size_t size, files = 0;
	char *text = (char *)golden_load(GOLDEN_FOLDER, "expected.txt", "", &size), *row, *rest = text;

	(void)state;
	text[size] = 0;
	while ((row = strsep(&rest, "\n")) && *row) {
		struct golden golden;
		char *line = strchr(row, ' ');

		assert_non_null(line);
		*line++ = 0;
		snprintf(golden.name, sizeof(golden.name), "%s", row);
		snprintf(golden.line, sizeof(golden.line), "%s", line);
		golden.follower = strstr(line, "follower=1") != NULL;
		printf("%s\n", golden.name);
		golden_read(&golden);
		golden_write(&golden);
		files++;
	}
	assert_true(files >= 14);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_all), cmocka_unit_test(test_frame)};

	return cmocka_run_group_tests_name("golden__read", tests, NULL, NULL);
}
