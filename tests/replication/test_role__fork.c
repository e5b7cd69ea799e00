/*
 * Where histories part, against an oracle: files that commit, crash, are copied, follow each other and are promoted at random,
 * each with the list of the commits it has had.  The newest common commit of every two is the newest one in both lists.
 */
#include "apply_bed.h"

#include <stdlib.h>

#define FILES 5u
#define STEPS 120u
#define HISTORY 4096u

struct file {
	struct env_mem *m;
	struct bts *db;
	struct bts_position history[HISTORY];
	size_t count;
};

static uint64_t seed;
static unsigned compared, parted, without, unknown, copies, seeds;

static struct bts_role role_of(struct bts *db)
{
	struct bts_role role = {.size = sizeof(role)};

	assert_int_equal(bts_role(db, &role, NULL), BTS_OK);
	return role;
}

static void note(struct file *file)
{
	struct bts_position now = bed_position(file->db);

	if (file->count > 0 && file->history[file->count - 1].txid == now.txid)
		return;
	assert_true(file->count < HISTORY);
	file->history[file->count++] = now;
}

static void file_open(struct file *file)
{
	struct bts *db = bed_open(env_mem_env(file->m), "/f", BTS_OPEN_READ_ONLY, 0);
	bool primary = role_of(db).role == BTS_ROLE_PRIMARY;

	bts_close(db);
	file->db = bed_open(env_mem_env(file->m), "/f", primary ? 0 : BTS_OPEN_FOLLOWER, 0);
	note(file);
}

static void file_close(struct file *file)
{
	bts_close(file->db);
	file->db = NULL;
}

/* The disk of `from` as it is: a copy is another file, which begins an epoch of its own when it is written. */
static void copy(struct file *to, struct file *from)
{
	const uint8_t *bytes;
	uint64_t size;

	file_close(to);
	file_close(from);
	env_mem_free(to->m);
	to->m = env_mem_new(64 << 20);
	env_mem_seed(to->m, seed << 32 | ++seeds); /* or two would draw one epoch */
	bytes = env_mem_bytes(from->m, "/f", &size);
	/* No two files have one inode number, or a copy would not be noticed. */
	copies++;
	for (unsigned i = 0; i < 8 + copies; i++) {
		char name[32];

		snprintf(name, sizeof(name), "/x%u", i);
		env_mem_put_file(to->m, name, "", 0);
	}
	env_mem_put_file(to->m, "/f", bytes, size);
	memcpy(to->history, from->history, sizeof(to->history));
	to->count = from->count;
	file_open(to);
	file_open(from);
}

static void crash(struct file *file)
{
	struct env_mem *image = env_mem_crash(file->m, env_mem_choose_durable, NULL);

	bts_close(file->db);
	env_mem_free(file->m);
	file->m = image;
	file_open(file);
}

/* `to` becomes a follower of `from` at the same commit, as a standby that is up to date. */
static void standby(struct file *to, struct file *from)
{
	struct bts_position nothing = bed_position(from->db);
	struct bts_error error;
	struct bed_frame *frame;

	nothing.txid = 0;
	file_close(to);
	env_mem_free(to->m);
	to->m = env_mem_new(64 << 20);
	env_mem_seed(to->m, seed << 32 | ++seeds);
	bed_create(env_mem_env(to->m), "/f", from->db, 4096);
	to->db = bed_open(env_mem_env(to->m), "/f", BTS_OPEN_FOLLOWER, 0);
	frame = bed_frame_new(from->db, &nothing);
	if (bed_apply(to->db, frame, NULL, &error))
		fail_msg("apply: %s", error.text);
	bed_frame_free(frame);
	memcpy(to->history, from->history, sizeof(to->history));
	to->count = from->count;
}

static bool same(const struct bts_position *a, const struct bts_position *b)
{
	return a->txid == b->txid && a->epoch == b->epoch && a->epoch_random == b->epoch_random &&
	       !memcmp(a->chain, b->chain, 16);
}

static const struct bts_position *newest_common(const struct file *a, const struct file *b)
{
	size_t n = 0;

	while (n < a->count && n < b->count && same(&a->history[n], &b->history[n]))
		n++;
	return n ? &a->history[n - 1] : NULL;
}

/* Only the gaps: then the end of a stretch has to be found. */
static size_t without_samples(struct bts_segment *segments, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++)
		if (segments[i].first)
			segments[kept++] = segments[i];
	return kept;
}

static void compare(struct file *a, struct file *b)
{
	static struct bts_segment segments[4096];
	const struct bts_position *expected = newest_common(a, b);
	struct bts_position claimed = bed_position(b->db), fork;
	struct bts_error error;
	size_t count;
	enum bts_err err;

	assert_int_equal(bts_ship_segments(b->db, segments, 4096, &count, &error), BTS_OK);
	assert_true(count <= 4096 && count > 0);
	err = bts_ship_fork(a->db, &claimed, segments, count, &fork, &error);
	assert_non_null(expected);
	if (err)
		fail_msg("fork: %s, expected %llu", bts_err_name(err), (unsigned long long)expected->txid);
	if (!same(&fork, expected))
		fail_msg("fork at %llu, expected %llu (of %llu and %llu)", (unsigned long long)fork.txid,
			(unsigned long long)expected->txid, (unsigned long long)bed_position(a->db).txid,
			(unsigned long long)claimed.txid);
	count = without_samples(segments, count);
	err = bts_ship_fork(a->db, &claimed, segments, count, &fork, &error);
	if (err || !same(&fork, expected))
		fail_msg("fork by gaps: %s at %llu, expected %llu", bts_err_name(err), (unsigned long long)fork.txid,
			(unsigned long long)expected->txid);
	compared++;
	parted += !same(expected, &a->history[a->count - 1]) && !same(expected, &b->history[b->count - 1]);
	/* Without the peer's segments: never beyond, and right when the epoch is known here. */
	err = bts_ship_fork(a->db, &claimed, NULL, 0, &fork, &error);
	without++;
	unknown += err == BTS_NOT_FOUND;
	assert_true(err == BTS_OK || err == BTS_NOT_FOUND);
	if (err == BTS_OK && !same(&fork, expected))
		fail_msg("fork by epoch at %llu, expected %llu", (unsigned long long)fork.txid, (unsigned long long)expected->txid);
}

static void step(struct file *files, struct rng *rng)
{
	struct file *file = &files[rng_below(rng, FILES)], *other = &files[rng_below(rng, FILES)];
	bool primary = role_of(file->db).role == BTS_ROLE_PRIMARY;
	struct bts_error error;

	switch (rng_below(rng, 10)) {
	case 0:
		if (other != file)
			copy(other, file);
		break;
	case 1:
		crash(file);
		break;
	case 2:
	case 3:
		if (other != file)
			standby(other, file);
		break;
	case 4:
		if (!primary && bts_promote(file->db, NULL, NULL, &error))
			fail_msg("promote: %s", error.text);
		note(file);
		break;
	case 5:
		file_close(file);
		file_open(file);
		break;
	default:
		for (unsigned i = 1 + (unsigned)rng_below(rng, 3); primary && i--;) {
			bed_commit(file->db, rng);
			note(file);
		}
	}
}

static void test_random(void **state)
{
	struct file *files = calloc(FILES, sizeof(*files));
	struct rng rng;

	(void)state;
	assert_non_null(files);
	rng_init(&rng, seed);
	files[0].m = env_mem_new(64 << 20);
	files[0].db = bed_open(env_mem_env(files[0].m), "/f", 0, 4096);
	note(&files[0]);
	for (unsigned i = 1; i < FILES; i++) {
		files[i].m = env_mem_new(64 << 20);
		standby(&files[i], &files[0]);
	}
	for (unsigned i = 0; i < STEPS; i++) {
		step(files, &rng);
		compare(&files[rng_below(&rng, FILES)], &files[rng_below(&rng, FILES)]);
	}
	for (unsigned i = 0; i < FILES * FILES; i++)
		compare(&files[i / FILES], &files[i % FILES]);
	printf("%u pairs, %u parted; by epoch alone %u of %u not known\n", compared, parted, unknown, without);
	assert_true(parted > 0);
	for (unsigned i = 0; i < FILES; i++) {
		file_close(&files[i]);
		env_mem_free(files[i].m);
	}
	free(files);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
