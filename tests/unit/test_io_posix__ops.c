/*
 * io_posix: every operation against a directory of its own.
 */
#include <btree_store/env.h>

#include "cmocka.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static char dir[64], path_a[96], path_b[96];
static struct bts_env *env;

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/test_io_posix.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	sprintf(path_a, "%s/a", dir);
	sprintf(path_b, "%s/b", dir);
	env = bts_env_posix();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path_a);
	unlink(path_b);
	return rmdir(dir);
}

static struct bts_file *open_a(unsigned flags)
{
	struct bts_file *file = NULL;

	assert_int_equal(env->ops->file_open(env, path_a, flags, &file), 0);
	assert_ptr_equal(file->env, env);
	return file;
}

static void opening(void **state)
{
	struct bts_file *file = NULL;
	struct iovec iov = {(void *)(uintptr_t) "x", 1};
	struct bts_file_identity identity;

	(void)state;
	assert_int_equal(env->ops->file_open(env, path_a, BTS_FILE_WRITE, &file), ENOENT);
	assert_null(file);
	file = open_a(BTS_FILE_WRITE | BTS_FILE_CREATE | BTS_FILE_EXCL);
	assert_int_equal(env->ops->file_pwritev(file, &iov, 1, 0), 0);
	env->ops->file_close(file);
	env->ops->file_close(NULL);
	file = NULL;
	assert_int_equal(env->ops->file_open(env, path_a, BTS_FILE_CREATE | BTS_FILE_EXCL, &file), EEXIST);
	assert_null(file);
	file = open_a(BTS_FILE_READ);
	assert_int_equal(env->ops->file_pwritev(file, &(struct iovec){path_a, 1}, 1, 0), EBADF);
	env->ops->file_close(file);
	file = open_a(BTS_FILE_WRITE | BTS_FILE_TRUNCATE);
	assert_int_equal(env->ops->file_identity(file, &identity), 0);
	assert_int_equal(identity.size, 0);
	env->ops->file_close(file);
}

static void reading_and_writing(void **state)
{
	struct bts_file *file = open_a(BTS_FILE_WRITE | BTS_FILE_CREATE);
	int count = 2 * IOV_MAX + 7;
	struct iovec *iov = calloc((size_t)count, sizeof(*iov));
	char *data = malloc((size_t)count * 3), *back = malloc((size_t)count * 3);
	size_t size = 0, got = 99;

	(void)state;
	for (int i = 0; i < count * 3; i++)
		data[i] = (char)(i * 7 + i / 251);
	for (int i = 0; i < count; i++) {
		iov[i] = (struct iovec){data + size, (size_t)i % 4 == 3 ? 0 : (size_t)i % 4 + 1};
		size += iov[i].iov_len;
	}
	assert_int_equal(env->ops->file_pwritev(file, iov, count, 5000), 0);
	assert_int_equal(env->ops->file_pread(file, back, size + 10, 5000, &got), 0);
	assert_int_equal(got, size);
	assert_memory_equal(back, data, size);
	assert_int_equal(env->ops->file_pread(file, back, 10, 100000000, &got), 0);
	assert_int_equal(got, 0);
	assert_int_equal(env->ops->file_pread(file, back, 10, 4995, &got), 0);
	assert_memory_equal(back, "\0\0\0\0\0", 5);
	/* A start is no more than a hint. */
	env->ops->file_start(file, 4096, size);
	env->ops->file_start(file, 100000000, 4096);
	assert_int_equal(env->ops->file_sync(file), 0);
	env->ops->file_close(file);
	free(iov);
	free(data);
	free(back);
}

static void size_and_identity(void **state)
{
	struct bts_file *file = open_a(BTS_FILE_WRITE | BTS_FILE_CREATE);
	struct bts_file_identity a, b;
	int err;

	(void)state;
	assert_int_equal(env->ops->file_truncate(file, 12345), 0);
	assert_int_equal(env->ops->file_identity(file, &a), 0);
	assert_int_equal(a.size, 12345);
	assert_int_equal(a.links, 1);
	assert_true(a.inode != 0);
	err = env->ops->file_reserve(file, 100000);
	assert_true(err == 0 || err == ENOTSUP);
	assert_int_equal(env->ops->path_link(env, path_a, path_b), 0);
	assert_int_equal(env->ops->path_link(env, path_a, path_b), EEXIST);
	assert_int_equal(env->ops->path_sync_dir(env, path_b), 0);
	assert_int_equal(env->ops->path_sync_dir(env, "/tmp"), 0);
	assert_int_equal(env->ops->path_sync_dir(env, "no-slash"), 0);
	assert_int_equal(env->ops->path_sync_dir(env, "/no-such-directory/x"), ENOENT);
	assert_int_equal(env->ops->file_identity(file, &b), 0);
	assert_int_equal(b.links, 2);
	assert_true(b.device == a.device && b.inode == a.inode && b.birth_ns == a.birth_ns);
	assert_int_equal(env->ops->path_unlink(env, path_b), 0);
	assert_int_equal(env->ops->path_unlink(env, path_b), ENOENT);
	env->ops->file_close(file);
}

static void map_follows_growth(void **state)
{
	struct bts_file *file = open_a(BTS_FILE_WRITE | BTS_FILE_CREATE | BTS_FILE_TRUNCATE);
	size_t reserve = (size_t)1 << 36;
	const uint8_t *base = NULL;
	void *shared = NULL;

	(void)state;
	assert_int_equal(env->ops->file_map(file, reserve, &base), 0);
	for (uint64_t at = 0; at < 40 * 4096; at += 4096) {
		uint8_t byte = (uint8_t)(at >> 12) + 1;
		struct iovec iov = {&byte, 1};

		assert_int_equal(env->ops->file_pwritev(file, &iov, 1, at), 0);
		assert_int_equal(base[at], (at >> 12) + 1);
	}
	assert_int_equal(env->ops->file_map_shared(file, 8192, &shared), 0);
	((uint8_t *)shared)[17] = 99;
	assert_int_equal(base[17], 99);
	env->ops->file_unmap(file, shared, 8192);
	env->ops->file_unmap(file, base, reserve);
	env->ops->file_close(file);
}

/* The view that file_map gives: nobody can make it writable, and what it takes to make it is no other use of the file. */
static void map_only_reads(void **state)
{
	struct bts_file *file = open_a(BTS_FILE_WRITE | BTS_FILE_CREATE | BTS_FILE_TRUNCATE), *other;
	struct iovec iov = {(void *)(uintptr_t) "x", 1};
	const uint8_t *base = NULL;
	struct rlimit limit, none;

	(void)state;
	other = open_a(BTS_FILE_WRITE);
	assert_int_equal(env->ops->file_lock(file, 0, 1, BTS_LOCK_EXCLUSIVE, 0), 0);
	assert_int_equal(unlink(path_a), 0); /* nor has it to have a name */
	assert_int_equal(env->ops->file_pwritev(file, &iov, 1, 0), 0);
	assert_int_equal(env->ops->file_map(file, 4096, &base), 0);
	assert_int_equal(base[0], 'x');
	assert_int_equal(mprotect((void *)(uintptr_t)base, 4096, PROT_READ | PROT_WRITE), -1);
	assert_int_equal(errno, EACCES);
	assert_int_equal(env->ops->file_lock(other, 0, 1, BTS_LOCK_SHARED, 0), EAGAIN);
	env->ops->file_unmap(file, base, 4096);
	assert_int_equal(env->ops->file_lock(other, 0, 1, BTS_LOCK_SHARED, 0), EAGAIN);
	/* Where no other descriptor is to be had the one that is there will do. */
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = (struct rlimit){0, limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(env->ops->file_map(file, 4096, &base), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(base[0], 'x');
	env->ops->file_unmap(file, base, 4096);
	env->ops->file_close(other);
	env->ops->file_close(file);
}

static void file_without_a_name(void **state)
{
	struct bts_file_identity id;
	struct bts_file *file;
	char path[300];
	uint8_t byte = 0;
	void *base;
	size_t got;

	(void)state;
	snprintf(path, sizeof(path), "%s/any", dir);
	assert_int_equal(env->ops->file_temp(env, path, &file), 0);
	assert_int_equal(env->ops->file_identity(file, &id), 0);
	assert_int_equal(id.links, 0);
	assert_int_equal(env->ops->file_map_shared(file, (size_t)1 << 30, &base), 0);
	assert_int_equal(env->ops->file_reserve(file, 100000), 0);
	((uint8_t *)base)[99999] = 7; /* mapped before it was there */
	assert_int_equal(env->ops->file_pread(file, &byte, 1, 99999, &got), 0);
	assert_int_equal(byte, 7);
	env->ops->file_unmap(file, base, (size_t)1 << 30);
	env->ops->file_close(file);
	snprintf(path, sizeof(path), "%s/missing/any", dir);
	assert_int_equal(env->ops->file_temp(env, path, &file), ENOENT);
}

static void locks(void **state)
{
	struct bts_file *one = open_a(BTS_FILE_WRITE | BTS_FILE_CREATE), *two = open_a(BTS_FILE_WRITE);
	const struct bts_env_ops *ops = env->ops;
	int held = -1;

	(void)state;
	assert_int_equal(ops->file_lock(one, 0, 10, BTS_LOCK_SHARED, 0), 0);
	assert_int_equal(ops->file_lock(two, 5, 10, BTS_LOCK_SHARED, 1), 0);
	assert_int_equal(ops->file_lock(one, 5, 1, BTS_LOCK_EXCLUSIVE, 0), EAGAIN);
	assert_int_equal(ops->file_lock(one, 0, 5, BTS_LOCK_EXCLUSIVE, 0), 0);
	assert_int_equal(ops->file_lock_test(two, 4, 1, &held), 0);
	assert_int_equal(held, 1);
	assert_int_equal(ops->file_lock_test(two, 12, 1, &held), 0);
	assert_int_equal(held, 0); /* its own does not count */
	assert_int_equal(ops->file_lock_test(one, 12, 1, &held), 0);
	assert_int_equal(held, 1);
	assert_int_equal(ops->file_lock(one, 0, 10, BTS_LOCK_NONE, 0), 0);
	assert_int_equal(ops->file_lock(two, 0, 10, BTS_LOCK_EXCLUSIVE, 0), 0);
	/* Another handle of this process closes: the lock stays. */
	ops->file_close(one);
	one = open_a(BTS_FILE_WRITE);
	assert_int_equal(ops->file_lock(one, 0, 1, BTS_LOCK_SHARED, 0), EAGAIN);
	ops->file_close(two);
	assert_int_equal(ops->file_lock(one, 0, 1, BTS_LOCK_EXCLUSIVE, 0), 0);
	ops->file_close(one);
}

static void waiting(void **state)
{
	uint32_t word = 5;

	(void)state;
	assert_int_equal(env->ops->wait(env, &word, 5, 1), ETIMEDOUT);
	assert_int_equal(env->ops->wait(env, &word, 6, 100000), 0);
	env->ops->wake(env, &word);
}

static void clocks_random_memory(void **state)
{
	uint64_t before = env->ops->clock_ms(env);
	uint8_t a[600] = {0}, b[600] = {0};
	char *p;

	(void)state;
	assert_true(env->ops->clock_ms(env) >= before);
	assert_true(env->ops->realtime_ms(env) > UINT64_C(1600000000000));
	assert_int_equal(env->ops->random(env, a, sizeof(a)), 0);
	assert_int_equal(env->ops->random(env, b, sizeof(b)), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	p = env->ops->memory(env, NULL, 10);
	strcpy(p, "kept");
	p = env->ops->memory(env, p, 100000);
	assert_string_equal(p, "kept");
	assert_null(env->ops->memory(env, p, 0));
	assert_null(env->ops->memory(env, NULL, 0));
	assert_int_equal(env->ops->fault(env, "any"), 0);
}

/* A path that leads to the same file from anywhere; one that does not fit is refused. */
static void whole_paths(void **state)
{
	char here[PATH_MAX], whole[PATH_MAX + 8], want[PATH_MAX + 8];

	(void)state;
	assert_non_null(getcwd(here, sizeof(here)));
	snprintf(want, sizeof(want), "%s/a/b", here);
	assert_int_equal(env->ops->path_whole(env, "a/b", whole, sizeof(whole)), 0);
	assert_string_equal(whole, want);
	assert_int_equal(env->ops->path_whole(env, "/a/b", whole, sizeof("/a/b")), 0);
	assert_string_equal(whole, "/a/b");
	assert_int_equal(env->ops->path_whole(env, "/a/b", whole, sizeof("/a/b") - 1), ENAMETOOLONG);
	assert_int_equal(env->ops->path_whole(env, "a/b", whole, strlen(want)), ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(opening, setup, teardown),
		cmocka_unit_test_setup_teardown(reading_and_writing, setup, teardown),
		cmocka_unit_test_setup_teardown(size_and_identity, setup, teardown),
		cmocka_unit_test_setup_teardown(map_follows_growth, setup, teardown),
		cmocka_unit_test_setup_teardown(map_only_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(file_without_a_name, setup, teardown),
		cmocka_unit_test_setup_teardown(locks, setup, teardown),
		cmocka_unit_test_setup_teardown(waiting, setup, teardown),
		cmocka_unit_test_setup_teardown(clocks_random_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(whole_paths, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
