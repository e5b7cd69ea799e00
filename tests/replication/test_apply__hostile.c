/*
 * A source that lies under right sums: pages changed, left out, added or moved, another record.  Whatever it
 * sends, the follower's file stays at its position, clean, and takes the true frame afterwards.
 */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>

#include "replica.h"
#include "rng.h"

#define UNITS_MAX 4096

struct unit {
	struct bts_page_id id;
	uint8_t *bytes; /* owned */
	size_t size;
};

/* A frame's content, taken out of the walk so that it can be changed. */
struct content {
	struct bts_position base, target;
	struct unit units[UNITS_MAX];
	size_t count;
	uint8_t record[BTS_RECORD_MAX];
	size_t record_size;
};

static void content_take(struct content *content, struct bts *primary, struct bts *follower)
{
	struct bts_slice bytes, record;
	struct bts_walk *walk;
	enum bts_err err;
	struct unit *unit;

	assert_int_equal(bts_ship_position(follower, &content->base, NULL), BTS_OK);
	assert_int_equal(bts_walk_open(primary, content->base.txid, &walk, NULL), BTS_OK);
	content->target = *bts_walk_position(walk);
	record = bts_walk_record(walk);
	memcpy(content->record, record.data, record.size);
	content->record_size = record.size;
	content->count = 0;
	unit = content->units;
	while ((err = bts_walk_next(walk, &unit->id, &bytes, NULL)) == BTS_OK) {
		unit->bytes = malloc(bytes.size);
		memcpy(unit->bytes, bytes.data, bytes.size);
		unit->size = bytes.size;
		content->count++;
		unit++;
		assert_true(content->count < UNITS_MAX);
	}
	assert_int_equal(err, BTS_NOT_FOUND);
	bts_walk_close(walk);
}

static void content_free(struct content *content)
{
	size_t i;

	for (i = 0; i < content->count; i++)
		free(content->units[i].bytes);
}

static enum bts_err content_apply(
	const struct content *content, struct bts *follower, size_t skip, struct bts_error *error)
{
	struct bts_apply *apply;
	enum bts_err err;
	size_t i;

	err = bts_apply_begin(follower, &content->base, &content->target, &apply, error);
	if (err)
		return err;
	for (i = 0; i < content->count; i++) {
		if (i == skip)
			continue;
		err = bts_apply_piece(apply, &content->units[i].id, 0,
			(struct bts_slice){content->units[i].bytes, content->units[i].size}, error);
		if (err) {
			bts_apply_abort(apply);
			return err;
		}
	}
	return bts_apply_finish(apply, (struct bts_slice){content->record, content->record_size}, error);
}

struct fixture {
	char dir[128];
	struct bts *primary, *follower;
	struct content content; /* base -> head, many commits, an extent among them */
};

static struct fixture fixture;

static int set_up(void **state)
{
	struct bts_position position;
	struct bts_error error;
	char path[160];

	(void)state;
	replica_enter(fixture.dir, sizeof(fixture.dir));
	replica_path(path, sizeof(path), fixture.dir, "primary");
	fixture.primary = replica_open(path, 0);
	replica_put(fixture.primary, 0, 3000, 0, 100);
	assert_int_equal(bts_ship_position(fixture.primary, &position, NULL), BTS_OK);
	replica_path(path, sizeof(path), fixture.dir, "follower");
	if (bts_ship_create(path, NULL, &position, 4096, &error))
		fail_msg("create: %s", error.text);
	fixture.follower = replica_open(path, BTS_OPEN_FOLLOWER);
	content_take(&fixture.content, fixture.primary, fixture.follower);
	if (content_apply(&fixture.content, fixture.follower, SIZE_MAX, &error))
		fail_msg("first frame: %s", error.text);
	content_free(&fixture.content);
	replica_assert_same(fixture.primary, fixture.follower);
	replica_put(fixture.primary, 100, 400, 1, 120);
	replica_put(fixture.primary, 5000, 1, 1, 200000);
	replica_put(fixture.primary, 900, 10, 2, 120);
	content_take(&fixture.content, fixture.primary, fixture.follower);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	content_free(&fixture.content);
	bts_close(fixture.follower);
	bts_close(fixture.primary);
	replica_leave(fixture.dir);
	return 0;
}

/* Refused, and nothing of it stays. */
static void assert_refused(const struct content *content, size_t skip, const char *what)
{
	struct bts_position before, after;
	struct bts_error error = {.text = ""};

	assert_int_equal(bts_ship_position(fixture.follower, &before, NULL), BTS_OK);
	if (content_apply(content, fixture.follower, skip, &error) == BTS_OK)
		fail_msg("%s was installed", what);
	assert_true(error.text[0] != '\0');
	assert_int_equal(bts_ship_position(fixture.follower, &after, NULL), BTS_OK);
	assert_memory_equal(&before, &after, sizeof(before));
}

static void assert_true_frame_still_fits(void)
{
	struct bts_error error;

	replica_assert_clean(fixture.follower);
	if (content_apply(&fixture.content, fixture.follower, SIZE_MAX, &error))
		fail_msg("the true frame: %s", error.text);
	replica_assert_same(fixture.primary, fixture.follower);
}

static void bytes_of_pages(void **state)
{
	struct content *content = &fixture.content;
	size_t i, at;
	struct rng rng;

	(void)state;
	rng_init(&rng, 5);
	for (i = 0; i < content->count; i++) {
		at = rng_below(&rng, content->units[i].size);
		content->units[i].bytes[at] ^= 0x10;
		assert_refused(content, SIZE_MAX, "a page with a changed byte");
		content->units[i].bytes[at] ^= 0x10;
	}
	assert_true_frame_still_fits();
}

/* The unit's crc made right for its changed bytes: the pointer to it tells. */
static void bytes_of_pages_resealed(void **state)
{
	struct content *content = &fixture.content;
	struct unit *unit;
	uint32_t crc;
	size_t i;

	(void)state;
	for (i = 0; i < content->count; i++) {
		unit = &content->units[i];
		crc = unit->id.crc;
		unit->bytes[unit->size / 2] ^= 1;
		unit->id.crc = bts_crc32c(0, unit->bytes + 4, unit->size - 4);
		memcpy(unit->bytes, &unit->id.crc, 4);
		assert_refused(content, SIZE_MAX, "a page with a changed byte and sum");
		unit->bytes[unit->size / 2] ^= 1;
		unit->id.crc = crc;
		memcpy(unit->bytes, &crc, 4);
	}
	assert_true_frame_still_fits();
}

static void pages_left_out(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < fixture.content.count; i++)
		assert_refused(&fixture.content, i, "a frame that lacks a page");
	assert_true_frame_still_fits();
}

static void pages_of_another_identity(void **state)
{
	struct content *content = &fixture.content;
	struct bts_page_id id;
	size_t i;

	(void)state;
	for (i = 0; i < content->count; i++) {
		id = content->units[i].id;
		content->units[i].id.pgno += 100000;
		assert_refused(content, SIZE_MAX, "a page at another place");
		content->units[i].id = id;
		content->units[i].id.birth = content->base.txid;
		assert_refused(content, SIZE_MAX, "a page born before the base");
		content->units[i].id = id;
		content->units[i].id.birth = content->target.txid + 1;
		assert_refused(content, SIZE_MAX, "a page born after the target");
		content->units[i].id = id;
		content->units[i].id.crc ^= 1;
		assert_refused(content, SIZE_MAX, "a page with another crc");
		content->units[i].id = id;
	}
	assert_true_frame_still_fits();
}

static void a_page_too_many(void **state)
{
	struct content *content = &fixture.content;
	struct unit *extra = &content->units[content->count], *like = &content->units[0];

	(void)state;
	/* The same page once more, and one that nothing points to. */
	extra->id = like->id;
	extra->size = like->size;
	extra->bytes = malloc(like->size);
	memcpy(extra->bytes, like->bytes, like->size);
	content->count++;
	assert_refused(content, SIZE_MAX, "a page that came twice");
	extra->id.pgno += 5000;
	assert_refused(content, SIZE_MAX, "a page that nothing points to");
	content->count--;
	free(extra->bytes);
	assert_true_frame_still_fits();
}

/*
 * Bytes of the record that no page of a frame proves: counters, the clock, and the history before this
 * commit.  The frame's digest guards them against accidents; a source that lies about them is believed.
 */
static bool unproven(const struct content *content, size_t at)
{
	static const struct {
		size_t from, to;
	} fields[] = {
		{36, 40},   /* id of the next tree */
		{72, 80},   /* time */
		{96, 104},  /* buckets */
		{128, 144}, /* entries and bytes of the catalog */
		{176, 192}, /* and of the history */
		{216, 220}, /* generation of the free log */
	};
	size_t i, history = 240 + 8 * ((size_t)content->record[232] | (size_t)content->record[233] << 8);

	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (at >= fields[i].from && at < fields[i].to)
			return true;
	}
	return at >= history;
}

static void records(void **state)
{
	struct content *content = &fixture.content;
	char what[64];
	size_t i, size = content->record_size;

	(void)state;
	for (i = 0; i < size; i++) {
		if (unproven(content, i))
			continue;
		snprintf(what, sizeof(what), "a record with byte %zu changed", i);
		content->record[i] ^= 1;
		assert_refused(content, SIZE_MAX, what);
		content->record[i] ^= 1;
	}
	for (i = 0; i < size; i += 7) {
		content->record_size = i;
		assert_refused(content, SIZE_MAX, "a short record");
	}
	content->record_size = size;
	assert_true_frame_still_fits();
}

static void positions(void **state)
{
	struct content *content = &fixture.content;

	(void)state;
	content->base.chain[3] ^= 1;
	assert_refused(content, SIZE_MAX, "a frame from another base");
	content->base.chain[3] ^= 1;
	content->target.chain[3] ^= 1;
	assert_refused(content, SIZE_MAX, "a frame to another chain");
	content->target.chain[3] ^= 1;
	content->target.txid++;
	assert_refused(content, SIZE_MAX, "a frame to another txid");
	content->target.txid--;
	content->target.database[0] ^= 1;
	content->base.database[0] ^= 1;
	assert_refused(content, SIZE_MAX, "a frame of another database");
	content->target.database[0] ^= 1;
	content->base.database[0] ^= 1;
	assert_true_frame_still_fits();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bytes_of_pages, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bytes_of_pages_resealed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(pages_left_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(pages_of_another_identity, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_page_too_many, set_up, tear_down),
		cmocka_unit_test_setup_teardown(records, set_up, tear_down),
		cmocka_unit_test_setup_teardown(positions, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
