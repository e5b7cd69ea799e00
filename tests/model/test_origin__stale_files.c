/*
 * What the original promised of files left over beside the database: logs that are stale, foreign or of a
 * future version are ignored, and do no harm.  Ours are path-lock (shared memory of processes that are gone),
 * path.pending (a follower's pages in flight) and path.tmp (a creation that was cut short).
 *
 * What the database itself says it needs is another matter: without it, or with the wrong one, it does not
 * open.
 */
#include "bed.h"

#include <btree_store/ship.h>
#include <rng.h>

static uint64_t seed;
static uint8_t noise[100000];

static void expect_sound(struct bed *bed)
{
	bed_holds(bed, "b", "k", "v");
	bed_set(bed, "b", "other", "w");
	bed_check(bed);
}

/* A closed database with one key, and its lock file as it was while it was open and a reader there. */
static void closed(struct bed *bed, uint8_t **lock, uint64_t *size)
{
	const uint8_t *bytes;
	struct bts_txn *txn;

	bed_init_memory(bed);
	bed_set(bed, "b", "k", "v");
	if (lock) {
		txn = bed_begin(bed, BTS_READ);
		bytes = env_mem_bytes(bed->mem, "/db-lock", size);
		assert_non_null(bytes);
		*lock = malloc(*size);
		assert_non_null(*lock);
		memcpy(*lock, bytes, *size);
		bts_abort(txn);
	}
	bts_close(bed->db);
}

static void fill_noise(void)
{
	struct rng rng;

	rng_init(&rng, seed);
	rng_fill(&rng, noise, sizeof(noise));
}

/* Left by a crash, by another version, cut short, or anything at all: nobody alive stands behind it. */
static void lock_files(void **state)
{
	for (unsigned how = 0; how < 7; how++) {
		uint8_t *lock;
		uint64_t size;
		struct bed bed;

		(void)state;
		closed(&bed, &lock, &size);
		fill_noise();
		if (how == 1) /* the layout's version */
			lock[8]++;
		if (how >= 2 && how < 4) /* noise in all its fields, or in all but the first */
			for (uint64_t i = how == 2 ? 0 : 64; i < size; i++)
				lock[i] = noise[i % sizeof(noise)];
		if (how == 4)
			size = 100;
		if (how == 5)
			size = 0;
		env_mem_put_file(
			bed.mem, "/db-lock", how == 6 ? noise : lock, how == 6 ? sizeof(noise) : size);
		free(lock);
		bed_open(&bed);
		assert_int_equal(bed_stat(&bed).clean_open, 1);
		assert_int_equal(bed_stat(&bed).readers, 0);
		expect_sound(&bed);
		bed_reopen(&bed);
		expect_sound(&bed);
		bed_fini(&bed);
	}
}

/* The lock file of another database, copied beside this one. */
static void lock_file_of_another(void **state)
{
	struct bed bed, other;
	uint8_t *lock;
	uint64_t size;

	(void)state;
	closed(&other, &lock, &size);
	bed_open(&other);
	bed_set(&other, "b", "k", "of the other");
	closed(&bed, NULL, NULL);
	env_mem_put_file(bed.mem, "/db-lock", lock, size);
	free(lock);
	bed_open(&bed);
	expect_sound(&bed);
	bed_fini(&bed);
	bed_fini(&other);
}

/* A primary needs no pending log: whatever lies there is not its own, and is left alone. */
static void pending_beside_a_primary(void **state)
{
	struct bed bed;
	uint64_t size;

	(void)state;
	closed(&bed, NULL, NULL);
	fill_noise();
	env_mem_put_file(bed.mem, "/db.pending", noise, sizeof(noise));
	bed_open(&bed);
	expect_sound(&bed);
	bed_reopen(&bed);
	expect_sound(&bed);
	assert_non_null(env_mem_bytes(bed.mem, "/db.pending", &size));
	assert_int_equal(size, sizeof(noise));
	bed_fini(&bed);
}

/* A follower that needs none: noise, an older frame's, one of a future version; ignored, and removed. */
static void pending_beside_a_follower(void **state)
{
	static const uint8_t head[12] = "BTSPEND\n";
	struct bts_position position, now;
	struct bts_options options;
	struct bed bed, source;
	uint64_t size;

	(void)state;
	bed_init_memory(&source);
	bed_set(&source, "b", "k", "v");
	assert_int_equal(bts_ship_position(source.db, &position, NULL), BTS_OK);
	for (unsigned how = 0; how < 4; how++) {
		memset(&bed, 0, sizeof(bed));
		bed.mem = env_mem_new(0);
		strcpy(bed.path, "/db");
		bts_options_init(&options);
		options.env = env_mem_env(bed.mem);
		options.map_bytes = ENV_MEM_RESERVE_DEFAULT;
		assert_int_equal(bts_ship_create("/db", &options, &position, 4096, &bed.error), BTS_OK);
		fill_noise();
		if (how > 0)
			memcpy(noise, head, sizeof(head));
		if (how > 1)
			noise[8] = (uint8_t)(how - 1); /* the version */
		env_mem_put_file(bed.mem, "/db.pending", noise, how == 3 ? 50 : sizeof(noise));
		assert_int_equal(bed_try_open(&bed, BTS_OPEN_FOLLOWER, &bed.db), BTS_OK);
		assert_int_equal(bts_ship_position(bed.db, &now, NULL), BTS_OK);
		assert_int_equal(now.txid, 0);
		assert_null(env_mem_bytes(bed.mem, "/db.pending", &size));
		bed_fini(&bed);
	}
	bed_fini(&source);
}

/* The leavings of a creation that was cut short, before and beside the database itself. */
static void creation_cut_short(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		struct bed bed = {.mem = env_mem_new(0), .path = "/db"};

		fill_noise();
		env_mem_put_file(bed.mem, "/db.tmp", noise, how % 2 ? sizeof(noise) : 0);
		bed_open(&bed);
		bed_set(&bed, "b", "k", "v");
		if (how >= 2) {
			bts_close(bed.db);
			env_mem_put_file(bed.mem, "/db.tmp", noise, sizeof(noise));
			bed_open(&bed);
		}
		expect_sound(&bed);
		bed_reopen(&bed);
		expect_sound(&bed);
		bed_fini(&bed);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lock_files),
		cmocka_unit_test(lock_file_of_another),
		cmocka_unit_test(pending_beside_a_primary),
		cmocka_unit_test(pending_beside_a_follower),
		cmocka_unit_test(creation_cut_short),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
