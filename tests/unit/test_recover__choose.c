/* Which of two meta slots is believed (I3), and the envelope writes around it (I4 to I6, I10), on handmade
 * files. */
#include "cmocka.h"
#include <crc32c.h>
#include <ensure.h>
#include <env_mem.h>
#include <errno.h>
#include <history.h>
#include <recover.h>
#include <rng.h>

#define PATH "/db"
#define PAGE 4096u

static uint64_t seed;

struct bed {
	struct env_mem *mem;
	struct bts_env *env;
	struct bts_file *file;
	struct bts_error error;
};

static void bed_attach(struct bed *bed, struct env_mem *mem)
{
	bed->mem = mem;
	bed->env = env_mem_env(mem);
	bed->error = (struct bts_error){BTS_OK, 0, ""};
	assert_int_equal(bed->env->ops->file_open(bed->env, PATH, BTS_FILE_WRITE, &bed->file), 0);
}

static void bed_init(struct bed *bed, enum meta_role role)
{
	struct recover_create create = {.page_size = PAGE, .role = role};
	struct bts_position source = {.epoch = 3, .database = {1}};
	struct env_mem *mem = env_mem_new(1 << 22);

	if (role == META_FOLLOWER)
		create.source = &source;
	assert_int_equal(recover_create(env_mem_env(mem), PATH, &create, NULL), BTS_OK);
	bed_attach(bed, mem);
}

static void bed_fini(struct bed *bed)
{
	bed->env->ops->file_close(bed->file);
	env_mem_free(bed->mem);
}

static enum bts_err bed_choose(struct bed *bed, struct recover_state *state)
{
	return recover_choose(bed->env, bed->file, state, &bed->error);
}

static void bed_says(struct bed *bed, const char *text)
{
	if (!strstr(bed->error.text, text))
		fail_msg("\"%s\" does not say \"%s\"", bed->error.text, text);
}

static void bed_sync(struct bed *bed)
{
	assert_int_equal(bed->env->ops->file_sync(bed->file), 0);
}

/* Two new pages at pgno, and the slot for a commit over state that has them in its manifest; not written. */
static struct meta_slot bed_commit(
	struct bed *bed, const struct recover_state *state, bts_pgno pgno, uint8_t fill)
{
	struct meta_slot slot = state->slot;
	uint8_t pages[2 * PAGE];
	struct iovec iov = {pages, sizeof(pages)};

	for (size_t i = 0; i < sizeof(pages); i++)
		pages[i] = (uint8_t)(fill + i / 8 + i);
	slot.sequence = state->sequence + 1;
	slot.mode = META_ONE_FLUSH;
	slot.durable = slot.record.txid;
	slot.durable_sequence = state->slot.sequence;
	slot.record.txid++;
	if (slot.record.high_water < pgno + 2)
		slot.record.high_water = pgno + 2;
	history_chain(&slot.record, NULL, 0);
	history_append(&slot.record);
	slot.manifest_count = 1;
	slot.manifest[0] = (struct meta_run){pgno, 2, crc32c(0, pages, sizeof(pages))};
	assert_int_equal(bed->env->ops->file_pwritev(bed->file, &iov, 1, pgno * PAGE), 0);
	return slot;
}

static void bed_write(struct bed *bed, struct recover_state *state, const struct meta_slot *slot)
{
	assert_int_equal(recover_write_slot(bed->env, bed->file, !state->index, slot, NULL), BTS_OK);
	state->slot = *slot;
	state->index = !state->index;
	state->sequence = slot->sequence;
}

/* Creation and two durable one-flush commits: the slots hold transactions 2 and 3. */
static void bed_two_commits(struct bed *bed, struct recover_state *state)
{
	struct meta_slot slot;

	bed_init(bed, META_PRIMARY);
	assert_int_equal(bed_choose(bed, state), BTS_OK);
	slot = bed_commit(bed, state, 16, 1);
	bed_write(bed, state, &slot);
	bed_sync(bed);
	slot = bed_commit(bed, state, 18, 2);
	bed_write(bed, state, &slot);
	bed_sync(bed);
}

static void recover_new_file_is_clean(void **unused)
{
	struct recover_state state;
	struct bed bed;

	(void)unused;
	bed_init(&bed, META_PRIMARY);
	assert_int_equal(bed_choose(&bed, &state), BTS_OK);
	assert_true(state.clean && !state.fell_back);
	assert_int_equal(state.slot.record.txid, 1);
	assert_int_equal(state.sequence, 2);
	bed_fini(&bed);
	bed_init(&bed, META_FOLLOWER);
	assert_int_equal(bed_choose(&bed, &state), BTS_OK);
	assert_true(state.clean);
	assert_int_equal(state.slot.record.txid, 0);
	assert_int_equal(state.slot.record.epoch, 3);
	bed_fini(&bed);
}

static void recover_newest_commit(void **unused)
{
	struct recover_state state, found;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	assert_int_equal(bed_choose(&bed, &found), BTS_OK);
	assert_int_equal(found.slot.record.txid, 3);
	assert_int_equal(found.index, state.index);
	assert_true(!found.clean && !found.fell_back && found.highest == 3);
	assert_int_equal(recover_envelope(bed.env, bed.file, &found, META_SEAL, NULL), BTS_OK);
	assert_int_equal(bed_choose(&bed, &found), BTS_OK);
	assert_true(found.clean && found.slot.record.txid == 3 && found.index != state.index);
	bed_fini(&bed);
}

/* A sealed file loses nothing with either slot, but says that it was not closed like that. */
static void recover_seal_survives_either_slot(void **unused)
{
	for (unsigned lost = 0; lost < 2; lost++) {
		struct recover_state state, found;
		struct bed bed;

		(void)unused;
		bed_two_commits(&bed, &state);
		assert_int_equal(recover_envelope(bed.env, bed.file, &state, META_SEAL, NULL), BTS_OK);
		env_mem_flip(bed.mem, PATH, lost * 32768 + 1000, 1);
		assert_int_equal(bed_choose(&bed, &found), BTS_OK);
		assert_true(found.slot.record.txid == 3 && !found.clean && found.fell_back);
		bed_fini(&bed);
	}
}

struct tear {
	size_t words; /* how many of 8 bytes have arrived */
	uint64_t base;
};

static struct env_mem_choice tear_choose(void *arg, size_t index, const struct env_mem_unit *unit)
{
	const struct tear *tear = arg;
	struct env_mem_choice choice = {unit->versions - 1, 0, 0};

	(void)index;
	if (unit->kind != ENV_MEM_UNIT_SECTOR || unit->offset < tear->base ||
		unit->offset >= tear->base + 4096)
		return choice;
	for (size_t i = 0; i < 64; i++) {
		if ((unit->offset - tear->base) / 8 + i >= tear->words)
			choice.words |= UINT64_C(1) << i;
	}
	return choice;
}

static void recover_newest_torn_at_every_word(void **unused)
{
	struct recover_state state, found;
	struct meta_slot slot;
	unsigned whole = 0;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	slot = bed_commit(&bed, &state, 20, 3);
	assert_int_equal(recover_write_slot(bed.env, bed.file, !state.index, &slot, NULL), BTS_OK);
	for (size_t words = 0; words <= 512; words++) {
		struct tear tear = {words, state.index ? 0 : 32768};
		struct bed torn;

		bed_attach(&torn, env_mem_crash(bed.mem, tear_choose, &tear));
		assert_int_equal(bed_choose(&torn, &found), BTS_OK);
		assert_true(found.slot.record.txid == 3 || (words > 40 && found.slot.record.txid == 4));
		whole += found.slot.record.txid == 4;
		assert_true(!found.clean);
		bed_fini(&torn);
	}
	assert_true(whole >= 1);
	bed_fini(&bed);
}

static void recover_manifest_mismatch_falls_back(void **unused)
{
	struct recover_state state, found;
	struct meta_slot slot;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	slot = bed_commit(&bed, &state, 20, 3);
	assert_int_equal(recover_write_slot(bed.env, bed.file, !state.index, &slot, NULL), BTS_OK);
	env_mem_flip(bed.mem, PATH, 21 * PAGE + 77, 0x40);
	assert_int_equal(bed_choose(&bed, &found), BTS_OK);
	assert_true(found.fell_back && found.slot.record.txid == 3 && found.index == state.index);
	assert_int_equal(found.highest, 4);
	assert_int_equal(found.sequence, slot.sequence);
	env_mem_flip(bed.mem, PATH, 19 * PAGE, 1);
	assert_int_equal(bed_choose(&bed, &found), BTS_CORRUPT);
	bed_says(&bed, "transaction 3): pages 18 to 19");
	bed_fini(&bed);
}

static void recover_fallback_must_be_the_one_named(void **unused)
{
	struct recover_state state, found;
	struct meta_slot slot, wrong;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	slot = bed_commit(&bed, &state, 20, 3);
	env_mem_flip(bed.mem, PATH, 20 * PAGE, 1);
	for (int which = 0; which < 2; which++) {
		wrong = slot;
		if (which)
			wrong.durable--;
		else
			wrong.durable_sequence--;
		assert_int_equal(recover_write_slot(bed.env, bed.file, !state.index, &wrong, NULL), BTS_OK);
		assert_int_equal(bed_choose(&bed, &found), BTS_CORRUPT);
		bed_says(&bed, "names transaction");
	}
	bed_fini(&bed);
}

static void recover_two_flush_needs_no_pages(void **unused)
{
	struct recover_state state, found;
	struct meta_slot slot;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	slot = bed_commit(&bed, &state, 20, 3);
	slot.mode = META_TWO_FLUSH;
	slot.manifest_count = 0;
	assert_int_equal(recover_write_slot(bed.env, bed.file, !state.index, &slot, NULL), BTS_OK);
	env_mem_flip(bed.mem, PATH, 20 * PAGE, 1);
	assert_int_equal(bed_choose(&bed, &found), BTS_OK);
	assert_true(found.slot.record.txid == 4 && !found.fell_back);
	assert_int_equal(bed.env->ops->file_truncate(bed.file, 21 * PAGE), 0);
	assert_int_equal(bed_choose(&bed, &found), BTS_CORRUPT);
	bed_says(&bed, "has 86016 bytes and needs 90112");
	bed_fini(&bed);
}

/* The size of a commit in flight was lost: the one before is taken; a file cut below that is corrupt. */
static void recover_short_file(void **unused)
{
	struct recover_state state, found;
	struct meta_slot slot;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	slot = bed_commit(&bed, &state, 20, 3);
	slot.record.high_water = 30;
	assert_int_equal(recover_write_slot(bed.env, bed.file, !state.index, &slot, NULL), BTS_OK);
	assert_int_equal(bed_choose(&bed, &found), BTS_OK);
	assert_true(found.slot.record.txid == 3 && found.fell_back);
	assert_int_equal(bed.env->ops->file_truncate(bed.file, 18 * PAGE), 0);
	assert_int_equal(bed_choose(&bed, &found), BTS_CORRUPT);
	bed_says(&bed, "has 73728 bytes and needs 81920");
	assert_int_equal(bed.env->ops->file_truncate(bed.file, 1000), 0);
	assert_int_equal(bed_choose(&bed, &found), BTS_CORRUPT);
	assert_int_equal(bed.env->ops->file_truncate(bed.file, 0), 0);
	assert_int_equal(bed_choose(&bed, &found), BTS_INVALID);
	bed_says(&bed, "not a database");
	bed_fini(&bed);
}

static void recover_read_errors_never_fall_back(void **unused)
{
	struct recover_state state, found;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	for (unsigned nth = 1; nth <= 3; nth++) {
		env_mem_fail(bed.mem, ENV_MEM_READ, nth, EIO, 0);
		assert_int_equal(bed_choose(&bed, &found), BTS_IO);
		assert_int_equal(bed.error.os, EIO);
		env_mem_fail_clear(bed.mem);
	}
	assert_int_equal(bed_choose(&bed, &found), BTS_OK);
	bed_fini(&bed);
}

static void recover_refuses(void **unused)
{
	struct recover_state state, found;
	struct meta_slot slot;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	slot = state.slot;
	slot.sequence++;
	slot.record.database[3] ^= 1;
	assert_int_equal(recover_write_slot(bed.env, bed.file, !state.index, &slot, NULL), BTS_OK);
	assert_int_equal(bed_choose(&bed, &found), BTS_CORRUPT);
	bed_says(&bed, "two databases");
	slot = state.slot;
	assert_int_equal(recover_write_slot(bed.env, bed.file, !state.index, &slot, NULL), BTS_OK);
	assert_int_equal(bed_choose(&bed, &found), BTS_CORRUPT);
	bed_says(&bed, "one sequence number");
	env_mem_flip(bed.mem, PATH, 500, 1);
	env_mem_flip(bed.mem, PATH, 32768 + 500, 1);
	assert_int_equal(bed_choose(&bed, &found), BTS_CORRUPT);
	bed_says(&bed, "no valid meta slot");
	bed_fini(&bed);
}

/* A slot of a newer library is never passed over in favour of the other. */
static void recover_newer_format(void **unused)
{
	struct recover_state state, found;
	uint8_t bytes[LAYOUT_META_SIZE];
	struct iovec iov = {bytes, sizeof(bytes)};
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	meta_slot_encode(&state.slot, bytes);
	bytes_put_u16(bytes + 12, 9);
	bytes_put_u32(bytes + 16, 0);
	bytes_put_u32(bytes + 16, crc32c(0, bytes, sizeof(bytes)));
	assert_int_equal(bed.env->ops->file_pwritev(bed.file, &iov, 1, state.index ? 0 : 32768), 0);
	assert_int_equal(bed_choose(&bed, &found), BTS_VERSION);
	bed_says(&bed, "format version 9");
	bed_fini(&bed);
}

static void recover_opening(void **unused)
{
	struct recover_state state, found;
	struct meta_slot slot;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	slot = bed_commit(&bed, &state, 20, 3);
	assert_int_equal(recover_write_slot(bed.env, bed.file, !state.index, &slot, NULL), BTS_OK);
	env_mem_flip(bed.mem, PATH, 21 * PAGE + 77, 0x40);
	assert_int_equal(bed_choose(&bed, &found), BTS_OK);
	assert_int_equal(recover_rewrite(bed.env, bed.file, &found, NULL), BTS_OK);
	assert_int_equal(recover_opening_commit(bed.env, bed.file, &found, NULL), BTS_OK);
	assert_int_equal(env_mem_unflushed(bed.mem), 0);
	assert_int_equal(bed_choose(&bed, &state), BTS_OK);
	assert_true(
		state.slot.record.txid == 4 + META_JUMP && !state.fell_back && state.index == found.index);
	assert_int_equal(state.slot.durable, 3);
	assert_int_equal(state.slot.record.segment_count, 1);
	assert_int_equal(state.slot.record.segments[0].last, 3);
	assert_int_equal(state.slot.record.segments[0].first, 4 + META_JUMP);
	bed_fini(&bed);
}

/* However often opening is interrupted, there is room to note it, and the file stays sound. */
static void recover_opening_many_times(void **unused)
{
	struct recover_state state;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(bed_choose(&bed, &state), BTS_OK);
		assert_int_equal(recover_opening_commit(bed.env, bed.file, &state, NULL), BTS_OK);
	}
	assert_int_equal(bed_choose(&bed, &state), BTS_OK);
	assert_int_equal(state.slot.record.txid, 3 + 100 * META_JUMP);
	assert_int_equal(state.slot.record.segment_count, META_SEGMENTS_INLINE);
	bed_fini(&bed);
}

static void recover_numbers_run_out(void **unused)
{
	struct recover_state state;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	state.highest = LAYOUT_TXID_LIMIT - META_JUMP;
	assert_int_equal(recover_opening_commit(bed.env, bed.file, &state, &bed.error), BTS_FULL);
	bed_fini(&bed);
}

/* After a flush that failed, reads see what the disk has not: rewriting must make it durable (I6). */
static void recover_rewrites_what_a_flush_dropped(void **unused)
{
	struct recover_state state, found;
	struct meta_slot slot;
	struct bed bed, after;

	(void)unused;
	bed_two_commits(&bed, &state);
	slot = bed_commit(&bed, &state, 20, 3);
	assert_int_equal(recover_write_slot(bed.env, bed.file, !state.index, &slot, NULL), BTS_OK);
	env_mem_fail(bed.mem, ENV_MEM_SYNC, 1, EIO, ENV_MEM_DROP);
	assert_int_equal(bed.env->ops->file_sync(bed.file), EIO);
	bed_sync(&bed);
	assert_int_equal(bed_choose(&bed, &found), BTS_OK);
	assert_int_equal(found.slot.record.txid, 4);
	bed_attach(&after, env_mem_crash(bed.mem, env_mem_choose_newest, NULL));
	assert_int_equal(bed_choose(&after, &state), BTS_OK);
	assert_int_equal(state.slot.record.txid, 3);
	bed_fini(&after);
	assert_int_equal(recover_rewrite(bed.env, bed.file, &found, NULL), BTS_OK);
	bed_attach(&after, env_mem_crash(bed.mem, env_mem_choose_durable, NULL));
	assert_int_equal(bed_choose(&after, &state), BTS_OK);
	assert_int_equal(state.slot.record.txid, 4);
	bed_fini(&after);
	bed_fini(&bed);
}

static void recover_heir(void **unused)
{
	struct recover_state state, found;
	struct meta_slot slot;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	assert_int_equal(recover_inherit(bed.env, bed.file, state.index, 3, &found, NULL), BTS_OK);
	assert_true(found.slot.record.txid == 3 && found.index == state.index && !found.fell_back);
	slot = bed_commit(&bed, &state, 20, 3);
	assert_int_equal(recover_write_slot(bed.env, bed.file, !state.index, &slot, NULL), BTS_OK);
	assert_int_equal(recover_inherit(bed.env, bed.file, state.index, 3, &found, NULL), BTS_OK);
	assert_true(found.slot.record.txid == 4 && found.index != state.index && !found.fell_back);
	env_mem_flip(bed.mem, PATH, 21 * PAGE + 77, 0x40);
	assert_int_equal(recover_inherit(bed.env, bed.file, state.index, 3, &found, NULL), BTS_OK);
	assert_true(found.slot.record.txid == 3 && found.index == state.index && found.fell_back);
	assert_int_equal(recover_inherit(bed.env, bed.file, state.index, 2, &found, &bed.error), BTS_CORRUPT);
	bed_says(&bed, "does not hold transaction 2");
	bed_fini(&bed);
}

/* Power loss at any instant of an opening leaves a file that opens at the same roots. */
struct during {
	unsigned images, wrong;
	uint64_t random;
};

static struct env_mem_choice during_choose(void *arg, size_t index, const struct env_mem_unit *unit)
{
	struct during *during = arg;
	uint64_t mix = during->random;
	struct env_mem_choice choice = {0, 0, 0};

	for (size_t i = 0; i <= index; i++)
		mix = rng_splitmix(&mix);
	choice.version = (unsigned)(mix % unit->versions);
	if (unit->tearable) {
		choice.other = (unsigned)(mix >> 8) % unit->versions;
		choice.words = mix * UINT64_C(0x9e3779b97f4a7c15);
	}
	return choice;
}

static void during_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	struct during *during = arg;

	if (event->op == ENV_MEM_FAULT)
		return;
	for (int i = 0; i < 20; i++) {
		struct recover_state state;
		struct bed crash;

		during->random = (during->images + 1) * 977 + seed;
		bed_attach(&crash, env_mem_crash(mem, during_choose, during));
		during->images++;
		if (bed_choose(&crash, &state) ||
			(state.slot.record.txid != 4 && state.slot.record.txid != 4 + META_JUMP))
			during->wrong++;
		bed_fini(&crash);
	}
}

static void recover_interrupted(void **unused)
{
	struct during during = {0, 0, 0};
	struct recover_state state, found;
	struct meta_slot slot;
	struct bed bed;

	(void)unused;
	bed_two_commits(&bed, &state);
	slot = bed_commit(&bed, &state, 20, 3);
	assert_int_equal(recover_write_slot(bed.env, bed.file, !state.index, &slot, NULL), BTS_OK);
	bed_sync(&bed);
	env_mem_set_hook(bed.mem, during_hook, &during);
	assert_int_equal(bed_choose(&bed, &found), BTS_OK);
	assert_int_equal(recover_rewrite(bed.env, bed.file, &found, NULL), BTS_OK);
	assert_int_equal(recover_opening_commit(bed.env, bed.file, &found, NULL), BTS_OK);
	assert_int_equal(recover_envelope(bed.env, bed.file, &found, META_SEAL, NULL), BTS_OK);
	assert_true(during.images >= 100);
	assert_int_equal(during.wrong, 0);
	env_mem_set_hook(bed.mem, NULL, NULL);
	bed_fini(&bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(recover_new_file_is_clean),
		cmocka_unit_test(recover_newest_commit),
		cmocka_unit_test(recover_seal_survives_either_slot),
		cmocka_unit_test(recover_newest_torn_at_every_word),
		cmocka_unit_test(recover_manifest_mismatch_falls_back),
		cmocka_unit_test(recover_fallback_must_be_the_one_named),
		cmocka_unit_test(recover_two_flush_needs_no_pages),
		cmocka_unit_test(recover_short_file),
		cmocka_unit_test(recover_read_errors_never_fall_back),
		cmocka_unit_test(recover_refuses),
		cmocka_unit_test(recover_newer_format),
		cmocka_unit_test(recover_opening),
		cmocka_unit_test(recover_opening_many_times),
		cmocka_unit_test(recover_numbers_run_out),
		cmocka_unit_test(recover_rewrites_what_a_flush_dropped),
		cmocka_unit_test(recover_heir),
		cmocka_unit_test(recover_interrupted),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
