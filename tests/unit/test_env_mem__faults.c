/*
 * env_mem: the fault model does what its header says.  Crash tests are worth what this file checks.
 */
#include "env_mem.h"
#include "rng.h"

#include "cmocka.h"

#include <errno.h>

static struct env_mem *m;
static struct bts_env *env;

static int setup(void **state)
{
	(void)state;
	m = env_mem_new(0);
	env = env_mem_env(m);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	env_mem_free(m);
	return 0;
}

static struct bts_file *open_in(struct env_mem *in, const char *path, unsigned flags)
{
	struct bts_env *e = env_mem_env(in);
	struct bts_file *file = NULL;

	assert_int_equal(e->ops->file_open(e, path, flags, &file), 0);
	return file;
}

static struct bts_file *create(const char *path)
{
	struct bts_file *file = open_in(m, path, BTS_FILE_WRITE | BTS_FILE_CREATE);

	assert_int_equal(env->ops->path_sync_dir(env, path), 0);
	return file;
}

static int fill(struct bts_file *file, uint64_t offset, size_t size, uint8_t byte)
{
	static uint8_t data[1 << 16];

	memset(data, byte, size);
	return file->env->ops->file_pwritev(file, &(struct iovec){data, size}, 1, offset);
}

static void sync_file(struct bts_file *file)
{
	assert_int_equal(file->env->ops->file_sync(file), 0);
}

static uint8_t byte_of(struct env_mem *in, const char *path, uint64_t offset)
{
	uint64_t size;
	const uint8_t *base = env_mem_bytes(in, path, &size);

	assert_non_null(base);
	assert_true(offset < size);
	return base[offset];
}

static uint64_t size_of(struct env_mem *in, const char *path)
{
	uint64_t size = UINT64_MAX;

	return env_mem_bytes(in, path, &size) ? size : UINT64_MAX;
}

static struct env_mem *crash_bits(uint64_t bits)
{
	return env_mem_crash(m, env_mem_choose_bits, &bits);
}

static void sectors_are_independent(void **state)
{
	struct bts_file *file = create("d/x");
	const uint8_t *base;

	(void)state;
	assert_int_equal(env->ops->file_map(file, (size_t)4 << 40, &base), 0);
	assert_int_equal(fill(file, 0, 2048, 1), 0);
	sync_file(file);
	assert_int_equal(env_mem_unflushed(m), 0);
	assert_int_equal(fill(file, 512, 1024, 2), 0);
	assert_int_equal(base[512], 2);
	assert_int_equal(env_mem_unflushed(m), 2);
	for (uint64_t bits = 0; bits < 4; bits++) {
		struct env_mem *c = crash_bits(bits);

		assert_int_equal(byte_of(c, "d/x", 0), 1);
		assert_int_equal(byte_of(c, "d/x", 512), bits & 1 ? 2 : 1);
		assert_int_equal(byte_of(c, "d/x", 1024), bits & 2 ? 2 : 1);
		assert_int_equal(byte_of(c, "d/x", 2047), 1);
		assert_int_equal(size_of(c, "d/x"), 2048);
		assert_int_equal(env_mem_unflushed(c), 0);
		env_mem_free(c);
	}
	sync_file(file);
	assert_int_equal(env_mem_unflushed(m), 0);
	assert_int_equal(byte_of(m, "d/x", 1024), 2);
}

static struct env_mem_choice choose_version(void *arg, size_t index, const struct env_mem_unit *unit)
{
	(void)index;
	assert_int_equal(unit->kind, ENV_MEM_UNIT_SECTOR);
	return (struct env_mem_choice){.version = *(unsigned *)arg};
}

static void every_version_can_survive(void **state)
{
	struct bts_file *file = create("x");
	struct env_mem_unit unit;

	(void)state;
	assert_int_equal(fill(file, 0, 8192, 10), 0);
	sync_file(file);
	assert_int_equal(fill(file, 4096, 512, 10), 0);
	assert_int_equal(env_mem_unflushed(m), 0); /* equal bytes */
	assert_int_equal(fill(file, 4096, 512, 11), 0);
	assert_int_equal(fill(file, 4096, 512, 11), 0);
	assert_int_equal(fill(file, 4100, 4, 12), 0);
	assert_int_equal(env_mem_units(m, &unit, 1), 1);
	assert_int_equal(unit.versions, 3);
	assert_int_equal(unit.offset, 4096);
	assert_int_equal(unit.tearable, 0);
	assert_string_equal(unit.path, "x");
	for (unsigned version = 0; version < 3; version++) {
		struct env_mem *c = env_mem_crash(m, choose_version, &version);

		assert_int_equal(byte_of(c, "x", 4096), version == 0 ? 10 : 11);
		assert_int_equal(byte_of(c, "x", 4100), 10 + version);
		env_mem_free(c);
	}
}

static struct env_mem_choice choose_torn(void *arg, size_t index, const struct env_mem_unit *unit)
{
	(void)index;
	assert_true(unit->tearable);
	return (struct env_mem_choice){0, unit->versions - 1, *(uint64_t *)arg};
}

static void meta_sectors_tear(void **state)
{
	struct bts_file *file = create("x");
	const uint64_t starts[] = {0, 4096 - 512, 32768, 32768 + 4096 - 512};

	(void)state;
	assert_int_equal(fill(file, 0, 65536, 1), 0);
	sync_file(file);
	for (int i = 0; i < 4; i++) {
		uint64_t words = UINT64_C(0x8000000000000005);
		struct env_mem *c;

		assert_int_equal(fill(file, starts[i], 512, 2), 0);
		c = env_mem_crash(m, choose_torn, &words);
		for (int at = 0; at < 512; at++)
			assert_int_equal(byte_of(c, "x", starts[i] + at), words >> at / 8 & 1 ? 2 : 1);
		env_mem_free(c);
		sync_file(file);
	}
}

static void size_may_be_lost(void **state)
{
	struct bts_file *file = create("x");
	struct env_mem *c;

	(void)state;
	assert_int_equal(fill(file, 0, 700, 1), 0);
	sync_file(file);
	assert_int_equal(fill(file, 700, 1000, 2), 0);
	c = crash_bits(~UINT64_C(1)); /* all but the size */
	assert_int_equal(size_of(c, "x"), 700);
	assert_int_equal(byte_of(c, "x", 699), 1);
	/* Growing it again must not bring the lost bytes back. */
	env_mem_env(c)->ops->file_truncate(open_in(c, "x", BTS_FILE_WRITE), 1700);
	assert_int_equal(byte_of(c, "x", 700), 0);
	assert_int_equal(byte_of(c, "x", 1699), 0);
	env_mem_free(c);
	c = crash_bits(1); /* only the size */
	assert_int_equal(size_of(c, "x"), 1700);
	assert_int_equal(byte_of(c, "x", 700), 0);
	env_mem_free(c);
	sync_file(file);
	assert_int_equal(env->ops->file_truncate(file, 600), 0);
	c = crash_bits(0);
	assert_int_equal(size_of(c, "x"), 1700);
	assert_int_equal(byte_of(c, "x", 1699), 2);
	env_mem_free(c);
	assert_int_equal(env->ops->file_reserve(file, 1700), 0);
	assert_int_equal(byte_of(m, "x", 600), 0);
	assert_int_equal(byte_of(m, "x", 1699), 0);
}

static void names_need_their_directory(void **state)
{
	struct bts_file *file = open_in(m, "d/x.tmp", BTS_FILE_WRITE | BTS_FILE_CREATE | BTS_FILE_EXCL);
	struct env_mem *c;

	(void)state;
	assert_int_equal(fill(file, 0, 512, 3), 0);
	sync_file(file);
	c = crash_bits(0);
	assert_int_equal(size_of(c, "d/x.tmp"), UINT64_MAX);
	env_mem_free(c);
	c = crash_bits(1);
	assert_int_equal(byte_of(c, "d/x.tmp", 0), 3);
	env_mem_free(c);
	assert_int_equal(env->ops->path_link(env, "d/x.tmp", "d/x"), 0);
	assert_int_equal(env->ops->path_link(env, "d/x.tmp", "d/x"), EEXIST);
	assert_int_equal(env->ops->path_sync_dir(env, "e/x"), 0); /* another one */
	assert_int_equal(env_mem_unflushed(m), 2);
	assert_int_equal(env->ops->path_sync_dir(env, "d/any"), 0);
	assert_int_equal(env_mem_unflushed(m), 0);
	assert_int_equal(env->ops->path_unlink(env, "d/x.tmp"), 0);
	c = crash_bits(0);
	assert_int_equal(byte_of(c, "d/x.tmp", 0), 3);
	assert_int_equal(byte_of(c, "d/x", 0), 3);
	env_mem_free(c);
	c = crash_bits(1);
	assert_int_equal(size_of(c, "d/x.tmp"), UINT64_MAX);
	assert_int_equal(byte_of(c, "d/x", 0), 3);
	env_mem_free(c);
}

static void lock_files_vanish(void **state)
{
	struct bts_file *file = create("x"), *lock = open_in(m, "x-lock", BTS_FILE_WRITE | BTS_FILE_CREATE);
	struct env_mem *c;
	void *shared;

	(void)state;
	assert_int_equal(fill(file, 0, 512, 3), 0);
	sync_file(file);
	assert_int_equal(env->ops->file_truncate(lock, 65536), 0);
	assert_int_equal(env->ops->file_map_shared(lock, 65536, &shared), 0);
	memset(shared, 7, 65536);
	assert_int_equal(env_mem_unflushed(m), 0);
	c = crash_bits(0);
	assert_int_equal(size_of(c, "x-lock"), UINT64_MAX);
	assert_int_equal(env_mem_hash(c), env_mem_hash(m));
	env_mem_free(c);
	c = env_mem_clone(m);
	assert_int_equal(byte_of(c, "x-lock", 65535), 7);
	env_mem_free(c);
	c = env_mem_new(0); /* a recycled image is clean */
	open_in(c, "y", BTS_FILE_WRITE | BTS_FILE_CREATE);
	env_mem_env(c)->ops->file_truncate(open_in(c, "y", BTS_FILE_WRITE), 65536);
	for (int i = 0; i < 65536; i++)
		assert_int_equal(byte_of(c, "y", (uint64_t)i), 0);
	env_mem_free(c);
}

static void failed_sync_drops(void **state)
{
	struct bts_file *file = create("x");
	struct env_mem *c;

	(void)state;
	assert_int_equal(fill(file, 0, 1024, 1), 0);
	sync_file(file);
	assert_int_equal(fill(file, 0, 512, 2), 0);
	env_mem_fail(m, ENV_MEM_SYNC, 1, EIO, ENV_MEM_DROP);
	assert_int_equal(env->ops->file_sync(file), EIO);
	assert_int_equal(fill(file, 512, 512, 3), 0);
	sync_file(file); /* succeeds and does not write the dropped sector */
	assert_int_equal(byte_of(m, "x", 0), 2);
	c = crash_bits(~UINT64_C(0));
	assert_int_equal(byte_of(c, "x", 0), 1);
	assert_int_equal(byte_of(c, "x", 512), 3);
	env_mem_free(c);
	assert_int_equal(fill(file, 0, 512, 2), 0); /* written again, it counts again */
	sync_file(file);
	c = crash_bits(0);
	assert_int_equal(byte_of(c, "x", 0), 2);
	env_mem_free(c);
}

static void lying_sync(void **state)
{
	struct bts_file *file = create("x");
	struct env_mem *c;

	(void)state;
	assert_int_equal(fill(file, 0, 512, 2), 0);
	env_mem_fail(m, ENV_MEM_SYNC, 1, 0, ENV_MEM_LIE);
	sync_file(file);
	c = crash_bits(0);
	assert_int_equal(size_of(c, "x"), 0);
	env_mem_free(c);
}

static void planned_failures(void **state)
{
	struct bts_file *file = create("x");

	(void)state;
	env_mem_fail(m, ENV_MEM_WRITE, 2, ENOSPC, 0);
	assert_int_equal(fill(file, 0, 512, 1), 0);
	assert_int_equal(fill(file, 0, 512, 2), ENOSPC);
	assert_int_equal(byte_of(m, "x", 0), 1);
	assert_int_equal(fill(file, 0, 512, 3), 0);
	env_mem_fail(m, ENV_MEM_ANY, 2, EIO, ENV_MEM_STICKY);
	sync_file(file);
	assert_int_equal(fill(file, 0, 512, 4), EIO);
	assert_int_equal(env->ops->path_unlink(env, "x"), EIO);
	assert_int_equal(env_mem_failed(m), 3);
	env_mem_fail_clear(m);
	env_mem_fail(m, ENV_MEM_WRITE, 1, EIO, ENV_MEM_PARTIAL);
	assert_int_equal(fill(file, 0, 1024, 5), EIO);
	assert_int_equal(byte_of(m, "x", 511), 5);
	assert_int_equal(size_of(m, "x"), 512);
	env_mem_fail_point(m, "here", 2, EDQUOT, 0);
	assert_int_equal(env->ops->fault(env, "there"), 0);
	assert_int_equal(env->ops->fault(env, "here"), 0);
	assert_int_equal(env->ops->fault(env, "here"), EDQUOT);
	assert_int_equal(env_mem_point_hits(m, "here"), 2);
	assert_int_equal(env_mem_point_hits(m, "nowhere"), 0);
}

static void failing_memory(void **state)
{
	void *a = env->ops->memory(env, NULL, 10), *b;

	(void)state;
	env_mem_fail_memory(m, 2, 0);
	b = env->ops->memory(env, NULL, 10);
	assert_non_null(b);
	assert_null(env->ops->memory(env, a, 20)); /* a stays */
	a = env->ops->memory(env, a, 30);
	assert_non_null(a);
	env_mem_fail_memory(m, 1, ENV_MEM_STICKY);
	assert_null(env->ops->memory(env, NULL, 1));
	assert_null(env->ops->memory(env, NULL, 1));
	assert_int_equal(env_mem_counters(m)->live_blocks, 2);
	env->ops->memory(env, a, 0);
	env->ops->memory(env, b, 0);
	assert_int_equal(env_mem_counters(m)->live_blocks, 0);
}

static void locks(void **state)
{
	struct bts_file *one = create("x"), *two = open_in(m, "x", BTS_FILE_WRITE);
	int held = -1;

	(void)state;
	assert_int_equal(env->ops->file_lock(one, 0, 10, BTS_LOCK_SHARED, 0), 0);
	assert_int_equal(env->ops->file_lock(two, 5, 10, BTS_LOCK_SHARED, 1), 0);
	assert_int_equal(env->ops->file_lock(one, 5, 1, BTS_LOCK_EXCLUSIVE, 0), EAGAIN);
	assert_int_equal(env->ops->file_lock(one, 5, 1, BTS_LOCK_EXCLUSIVE, 1), EDEADLK);
	assert_int_equal(env->ops->file_lock(one, 2, 2, BTS_LOCK_EXCLUSIVE, 0), 0);
	assert_int_equal(env->ops->file_lock(two, 3, 1, BTS_LOCK_SHARED, 0), EAGAIN);
	assert_int_equal(env->ops->file_lock(two, 4, 1, BTS_LOCK_SHARED, 0), 0);
	assert_int_equal(env->ops->file_lock_test(two, 0, 1, &held), 0);
	assert_int_equal(held, 1);
	assert_int_equal(env->ops->file_lock_test(two, 10, 5, &held), 0);
	assert_int_equal(held, 0);
	assert_int_equal(env->ops->file_lock(two, 7, 1, BTS_LOCK_NONE, 0), 0); /* leaves both ends */
	assert_int_equal(env->ops->file_lock(one, 7, 1, BTS_LOCK_EXCLUSIVE, 0), 0);
	assert_int_equal(env->ops->file_lock(one, 6, 1, BTS_LOCK_EXCLUSIVE, 0), EAGAIN);
	assert_int_equal(env->ops->file_lock(one, 14, 1, BTS_LOCK_EXCLUSIVE, 0), EAGAIN);
	assert_int_equal(env->ops->file_lock(one, 0, 0, BTS_LOCK_NONE, 0), 0);
	assert_int_equal(env->ops->file_lock(two, 0, 0, BTS_LOCK_EXCLUSIVE, 0), 0);
	env->ops->file_close(two);
	assert_int_equal(env->ops->file_lock(one, 0, 100, BTS_LOCK_EXCLUSIVE, 0), 0);
}

struct told {
	int count;
	enum env_mem_op last;
	uint8_t byte;
};

static void told_hook(void *arg, struct env_mem *in, const struct env_mem_event *event)
{
	struct told *t = arg;

	t->count++;
	t->last = event->op;
	if (event->op == ENV_MEM_WRITE && size_of(in, event->path) > event->offset)
		t->byte = byte_of(in, event->path, event->offset);
}

static void hook_comes_before(void **state)
{
	struct bts_file *file = create("x");
	struct told t = {0};

	(void)state;
	assert_int_equal(fill(file, 0, 512, 1), 0);
	env_mem_set_hook(m, told_hook, &t);
	assert_int_equal(fill(file, 0, 512, 2), 0);
	assert_int_equal(t.byte, 1);
	sync_file(file);
	assert_int_equal(t.last, ENV_MEM_SYNC);
	assert_int_equal(env->ops->file_truncate(file, 0), 0);
	assert_int_equal(env->ops->path_link(env, "x", "y"), 0);
	assert_int_equal(env->ops->path_sync_dir(env, "y"), 0);
	assert_int_equal(env->ops->path_unlink(env, "y"), 0);
	assert_int_equal(env->ops->fault(env, "p"), 0);
	assert_int_equal(t.count, 7);
	assert_int_equal(env_mem_counters(m)->ops[ENV_MEM_WRITE], 2);
	assert_int_equal(env_mem_counters(m)->bytes_written, 1024);
}

static void flip_reaches_every_version(void **state)
{
	struct bts_file *file = create("x");
	struct env_mem *c;

	(void)state;
	assert_int_equal(fill(file, 0, 512, 1), 0);
	sync_file(file);
	assert_int_equal(fill(file, 0, 512, 2), 0);
	env_mem_flip(m, "x", 9, 0x80);
	assert_int_equal(byte_of(m, "x", 9), 0x82);
	c = crash_bits(0);
	assert_int_equal(byte_of(c, "x", 9), 0x81);
	env_mem_free(c);
}

static void image_hash(void **state)
{
	struct bts_file *file = create("x");
	struct env_mem *c;
	uint64_t before;

	(void)state;
	assert_int_equal(fill(file, 0, 65536, 1), 0);
	before = env_mem_hash(m);
	c = env_mem_crash(m, env_mem_choose_newest, NULL);
	assert_int_equal(env_mem_hash(c), before);
	env_mem_free(c);
	for (int bit = 0; bit < 65536 * 8; bit += 4001) {
		env_mem_flip(m, "x", (uint64_t)bit / 8, (uint8_t)(1 << bit % 8));
		assert_int_not_equal(env_mem_hash(m), before);
		env_mem_flip(m, "x", (uint64_t)bit / 8, (uint8_t)(1 << bit % 8));
	}
	assert_int_equal(env_mem_hash(m), before);
	assert_int_equal(env->ops->file_truncate(file, 65535), 0);
	assert_int_not_equal(env_mem_hash(m), before);
}

static void clone_keeps_what_is_open(void **state)
{
	struct bts_file *file = create("x");
	struct env_mem *c, *crashed;

	(void)state;
	assert_int_equal(fill(file, 0, 512, 1), 0);
	sync_file(file);
	assert_int_equal(fill(file, 0, 512, 2), 0);
	assert_int_equal(env->ops->path_link(env, "x", "y"), 0);
	c = env_mem_clone(m);
	assert_int_equal(env_mem_unflushed(c), 2);
	assert_int_equal(byte_of(c, "y", 0), 2);
	crashed = env_mem_crash(c, env_mem_choose_durable, NULL);
	assert_int_equal(byte_of(crashed, "x", 0), 1);
	assert_int_equal(size_of(crashed, "y"), UINT64_MAX);
	env_mem_free(crashed);
	sync_file(open_in(c, "x", BTS_FILE_WRITE));
	assert_int_equal(env_mem_unflushed(c), 1);
	assert_int_equal(env_mem_unflushed(m), 2);
	env_mem_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(sectors_are_independent, setup, teardown),
		cmocka_unit_test_setup_teardown(every_version_can_survive, setup, teardown),
		cmocka_unit_test_setup_teardown(meta_sectors_tear, setup, teardown),
		cmocka_unit_test_setup_teardown(size_may_be_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(names_need_their_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(lock_files_vanish, setup, teardown),
		cmocka_unit_test_setup_teardown(failed_sync_drops, setup, teardown),
		cmocka_unit_test_setup_teardown(lying_sync, setup, teardown),
		cmocka_unit_test_setup_teardown(planned_failures, setup, teardown),
		cmocka_unit_test_setup_teardown(failing_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(locks, setup, teardown),
		cmocka_unit_test_setup_teardown(hook_comes_before, setup, teardown),
		cmocka_unit_test_setup_teardown(flip_reaches_every_version, setup, teardown),
		cmocka_unit_test_setup_teardown(image_hash, setup, teardown),
		cmocka_unit_test_setup_teardown(clone_keeps_what_is_open, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
