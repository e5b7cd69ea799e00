/* A file is created whole or not at all (I11), whoever else creates it and whenever the power goes. */
#include "cmocka.h"
#include <ensure.h>
#include <env_mem.h>
#include <errno.h>
#include <pthread.h>
#include <recover.h>
#include <rng.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PATH "/db"

static const struct recover_create primary = {.page_size = 4096, .role = META_PRIMARY};

static enum bts_err create_choose(struct bts_env *env, struct recover_state *state)
{
	struct bts_file *file;
	enum bts_err err;

	if (env->ops->file_open(env, PATH, BTS_FILE_READ, &file))
		return BTS_NOT_FOUND;
	err = recover_choose(env, file, state, NULL);
	env->ops->file_close(file);
	return err;
}

static bool create_exists(struct bts_env *env, const char *path)
{
	struct bts_file *file;

	if (env->ops->file_open(env, path, BTS_FILE_READ, &file))
		return false;
	env->ops->file_close(file);
	return true;
}

static void create_every_page_size(void **unused)
{
	(void)unused;
	for (uint32_t size = 4096; size <= 65536; size *= 2) {
		struct recover_create create = {.page_size = size, .role = META_PRIMARY};
		struct env_mem *mem = env_mem_new(1 << 20);
		struct recover_state state;
		uint64_t bytes;

		assert_int_equal(recover_create(env_mem_env(mem), PATH, &create, NULL), BTS_OK);
		assert_int_equal(create_choose(env_mem_env(mem), &state), BTS_OK);
		assert_int_equal(state.slot.record.page_size, size);
		assert_int_equal(env_mem_unflushed(mem), 0);
		assert_non_null(env_mem_bytes(mem, PATH, &bytes));
		assert_int_equal(bytes, 65536);
		assert_false(create_exists(env_mem_env(mem), PATH ".tmp"));
		assert_int_equal(recover_create(env_mem_env(mem), PATH, &create, NULL), BTS_EXISTS);
		env_mem_free(mem);
	}
}

static void create_never_clobbers(void **unused)
{
	struct env_mem *mem = env_mem_new(1 << 20);
	uint64_t size;

	(void)unused;
	env_mem_put_file(mem, PATH, "precious", 8);
	assert_int_equal(recover_create(env_mem_env(mem), PATH, &primary, NULL), BTS_EXISTS);
	assert_memory_equal(env_mem_bytes(mem, PATH, &size), "precious", 8);
	assert_int_equal(size, 8);
	env_mem_free(mem);
}

static void create_after_a_crash_of_another(void **unused)
{
	struct env_mem *mem = env_mem_new(1 << 20);
	struct recover_state state;

	(void)unused;
	env_mem_put_file(mem, PATH ".tmp", "half", 4);
	assert_int_equal(recover_create(env_mem_env(mem), PATH, &primary, NULL), BTS_OK);
	assert_int_equal(create_choose(env_mem_env(mem), &state), BTS_OK);
	assert_false(create_exists(env_mem_env(mem), PATH ".tmp"));
	env_mem_free(mem);
}

/* Each call of the operating system fails once: an error, no leak, and the next attempt works. */
static void create_fails_anywhere(void **unused)
{
	unsigned failures = 0;

	(void)unused;
	for (uint64_t nth = 1;; nth++) {
		struct env_mem *mem = env_mem_new(1 << 20);
		struct recover_state state;
		enum bts_err err;

		env_mem_fail(mem, ENV_MEM_ANY, nth, EIO, 0);
		err = recover_create(env_mem_env(mem), PATH, &primary, NULL);
		assert_int_equal(env_mem_counters(mem)->live_blocks, 0);
		if (!env_mem_failed(mem)) {
			env_mem_free(mem);
			break;
		}
		failures += err != BTS_OK;
		env_mem_fail_clear(mem);
		if (err && !create_exists(env_mem_env(mem), PATH))
			assert_int_equal(recover_create(env_mem_env(mem), PATH, &primary, NULL), BTS_OK);
		assert_int_equal(create_choose(env_mem_env(mem), &state), BTS_OK);
		env_mem_free(mem);
	}
	assert_true(failures >= 8);
}

struct during {
	unsigned images, there, wrong;
	uint64_t seed;
};

static struct env_mem_choice during_choose(void *arg, size_t index, const struct env_mem_unit *unit)
{
	uint64_t state = ((struct during *)arg)->seed + index * 0x9e37;

	return (struct env_mem_choice){.version = (unsigned)(rng_splitmix(&state) % unit->versions)};
}

static void during_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	struct during *during = arg;

	(void)event;
	for (int i = 0; i < 64; i++) {
		struct env_mem *crash;
		struct recover_state state;
		enum bts_err err;

		during->seed = during->images++ * 7919;
		crash = env_mem_crash(mem, during_choose, during);
		err = create_choose(env_mem_env(crash), &state);
		if (err == BTS_NOT_FOUND)
			err = recover_create(env_mem_env(crash), PATH, &primary, NULL);
		else
			during->there++;
		if (!err)
			err = create_choose(env_mem_env(crash), &state);
		during->wrong += err || !state.clean || state.slot.record.txid != 1;
		env_mem_free(crash);
	}
}

static void create_power_loss(void **unused)
{
	struct env_mem *mem = env_mem_new(1 << 20);
	struct during during = {0, 0, 0, 0};

	(void)unused;
	env_mem_set_hook(mem, during_hook, &during);
	assert_int_equal(recover_create(env_mem_env(mem), PATH, &primary, NULL), BTS_OK);
	env_mem_set_hook(mem, NULL, NULL);
	assert_int_equal(during.wrong, 0);
	assert_true(during.there > 0 && during.there < during.images);
	env_mem_free(mem);
}

struct racer {
	pthread_t thread;
	const char *path;
	enum bts_err err;
};

static void *racer_run(void *arg)
{
	struct racer *racer = arg;

	racer->err = recover_create(bts_env_posix(), racer->path, &primary, NULL);
	return NULL;
}

static void create_race(void **unused)
{
	char folder[] = "/tmp/bts-create-XXXXXX", path[64], tmp[80];

	(void)unused;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/db", folder);
	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	for (int round = 0; round < 20; round++) {
		struct racer racers[8];
		unsigned won = 0;

		for (int i = 0; i < 8; i++) {
			racers[i].path = path;
			assert_int_equal(pthread_create(&racers[i].thread, NULL, racer_run, &racers[i]), 0);
		}
		for (int i = 0; i < 8; i++) {
			assert_int_equal(pthread_join(racers[i].thread, NULL), 0);
			won += racers[i].err == BTS_OK;
			assert_true(racers[i].err == BTS_OK || racers[i].err == BTS_EXISTS);
		}
		assert_int_equal(won, 1);
		assert_int_not_equal(access(tmp, F_OK), 0);
		assert_int_equal(unlink(path), 0);
	}
	assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(create_every_page_size),
		cmocka_unit_test(create_never_clobbers),
		cmocka_unit_test(create_after_a_crash_of_another),
		cmocka_unit_test(create_fails_anywhere),
		cmocka_unit_test(create_power_loss),
		cmocka_unit_test(create_race),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
