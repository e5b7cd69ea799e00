/*
 * What is not of this version is refused, by a text that names the file, says what was met and what to do; and what version 1 keeps
 * for later (FORMAT.md, "Later features") is looked at today.
 */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "golden.h"
#include "snapshot.h"
#include "txn.h"

#define PATH "/db"
#define SLOT_B 32768

struct foreign {
	uint8_t *bytes, *pending;
	size_t size, pending_size;
};

static void foreign_load(struct foreign *f, const char *name)
{
	f->bytes = golden_load(GOLDEN_FOLDER, name, "", &f->size);
	f->pending = NULL;
	if (!strcmp(name, "pending.bts"))
		f->pending = golden_load(GOLDEN_FOLDER, name, ".pending", &f->pending_size);
}

static void foreign_seal(struct foreign *f)
{
	for (size_t at = 0; at <= SLOT_B; at += SLOT_B) {
		bytes_put_u32(f->bytes + at + 16, 0);
		bytes_put_u32(f->bytes + at + 16, crc32c(0, f->bytes + at, 4096));
	}
	if (f->pending)
		bytes_put_u32(f->pending + 92, crc32c(0, f->pending, 92));
}

static void foreign_says(const struct bts_error *error, const char *text)
{
	if (!strstr(error->text, text))
		fail_msg("\"%s\" does not say \"%s\"", error->text, text);
}

/* Opening fails so, with a text that has each of the words, and changes nothing. */
static void foreign_refused(struct foreign *f, enum bts_err code, const char *const words[])
{
	struct env_mem *mem = env_mem_new(GOLDEN_MAP);
	struct bts_error error = {.text = ""};
	const uint8_t *after;
	struct bts *db;
	uint64_t size;

	foreign_seal(f);
	env_mem_put_file(mem, PATH, f->bytes, f->size);
	if (f->pending)
		env_mem_put_file(mem, PATH ".pending", f->pending, f->pending_size);
	assert_int_equal(
		golden_open(env_mem_env(mem), PATH, f->pending ? BTS_OPEN_FOLLOWER : 0, 0, &db, &error),
		code);
	for (; *words; words++)
		foreign_says(&error, *words);
	after = env_mem_bytes(mem, PATH, &size);
	assert_int_equal(size, f->size);
	assert_memory_equal(after, f->bytes, size);
	env_mem_free(mem);
	free(f->bytes);
	free(f->pending);
}

static uint8_t *foreign_record(struct foreign *f, size_t slot)
{
	uint8_t *at = f->bytes + slot;

	return at + 112 + 12 * bytes_get_u16(at + 42) + bytes_get_u16(at + 54);
}

static void foreign_version(uint16_t slot, uint16_t record, const char *const words[])
{
	struct foreign f;

	foreign_load(&f, "buckets.bts");
	for (size_t at = 0; at <= SLOT_B; at += SLOT_B) {
		bytes_put_u16(f.bytes + at + 12, slot);
		bytes_put_u16(foreign_record(&f, at) + 4, record);
	}
	foreign_refused(&f, BTS_VERSION, words);
}

static void test_versions(void **state)
{
	static const char *const old[] = {PATH ": ", "meta slot: format version 0", "this release reads 1",
		"dump it with", "load the dump", NULL};
	static const char *const new[] = {
		PATH ": ", "format version 2", "newer than 1", "a newer release reads it", NULL};
	static const char *const old_record[] = {PATH ": ", "commit record: format version 0", NULL};
	static const char *const new_record[] = {PATH ": ", "commit record: format version 2", NULL};

	(void)state;
	foreign_version(0, 0, old);
	foreign_version(2, 2, new);
	foreign_version(1, 0, old_record);
	foreign_version(1, 2, new_record);
}

/* Zero and read as such until a feature is declared that says otherwise. */
static void test_reserved(void **state)
{
	static const struct {
		unsigned at;
		bool record;
		enum bts_err code;
	} places[] = {
		{14, false, BTS_CORRUPT},
		{20, false, BTS_CORRUPT},
		{24, false, BTS_VERSION},
		{31, false, BTS_VERSION},
		{108, false, BTS_CORRUPT},
		{8, true, BTS_VERSION},
		{15, true, BTS_VERSION},
		{55, true, BTS_CORRUPT},
		{92, true, BTS_CORRUPT},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		static const char *const words[] = {PATH ": meta A", NULL};
		struct foreign f;

		foreign_load(&f, "buckets.bts");
		for (size_t at = 0; at <= SLOT_B; at += SLOT_B)
			(places[i].record ? foreign_record(&f, at) : f.bytes + at)[places[i].at] |= 0x80;
		foreign_refused(&f, places[i].code, words);
	}
}

static void test_pending(void **state)
{
	static const char *const version[] = {PATH ".pending", "version", "this release reads 1", NULL};
	static const char *const reserved[] = {PATH ".pending", "reserved", NULL};
	static const char *const tail[] = {PATH ".pending", "checksum", NULL};
	struct foreign f;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		foreign_load(&f, "pending.bts");
		bytes_put_u32(f.pending + 8, i == 0 ? 0 : i == 1 ? 2 : 1u << 31);
		foreign_refused(&f, BTS_VERSION, version);
	}
	for (unsigned i = 0; i < 2; i++) {
		foreign_load(&f, "pending.bts");
		f.pending[i ? 52 : 88] = 1;
		foreign_refused(&f, BTS_CORRUPT, reserved);
	}
	foreign_load(&f, "pending.bts");
	f.pending[96 + 48 + bytes_get_u64(f.pending + 96 + 40) + 7] = 1;
	foreign_refused(&f, BTS_CORRUPT, tail);
}

/* Room behind a record: what may be skipped is, what must be understood is not. */
static const char *const room_none = "", *const room_skipped = "\1\0\3\0abc\2\0\0\0",
			 *const room_cut = "\1\0\4\0abc", *const room_must = "\1\200\3\0abc";

static const char *room_bucket(const char *room, size_t size)
{
	struct bucket_state bucket = {.tree = {.id = LAYOUT_TREE_FIRST_BUCKET}, .meta_size = 2};
	uint8_t bytes[BUCKET_RECORD_MAX + 64];
	size_t used = bucket_record_encode(&bucket, bytes);

	bytes_put_u16(bytes + used - 2, (uint16_t)size);
	memcpy(bytes + used, room, size);
	return bucket_record_decode(
		(struct bts_slice){"b", 1}, (struct bts_slice){bytes, used + size}, 1, &bucket);
}

static const char *room_snapshot(const char *room, size_t size)
{
	struct commit_record record = {.first = 16, .high_water = 20, .txid = 9};
	struct snapshot snapshot = {.txid = 5, .high_water = 18, .catalog = {.id = LAYOUT_TREE_CATALOG}};
	uint8_t bytes[SNAPSHOT_RECORD_MAX + 64];
	size_t used = snapshot_encode(&snapshot, bytes);
	struct node_cell cell = {.key = {"s", 1}, .value = {bytes, used + size}};

	bytes_put_u16(bytes + used - 2, (uint16_t)size);
	memcpy(bytes + used, room, size);
	return snapshot_decode(&cell, &record, false, &snapshot);
}

static void test_room(void **state)
{
	const char *(*const kinds[])(const char *, size_t) = {room_bucket, room_snapshot};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		assert_null(kinds[i](room_none, 0));
		assert_null(kinds[i](room_skipped, 11));
		assert_non_null(strstr(kinds[i](room_cut, 7), "cut short"));
		assert_non_null(strstr(kinds[i](room_cut, 3), "cut short"));
		assert_non_null(strstr(kinds[i](room_must, 7), "must be understood"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_reserved),
		cmocka_unit_test(test_pending),
		cmocka_unit_test(test_room),
	};

	return cmocka_run_group_tests_name("golden__refused", tests, NULL, NULL);
}
