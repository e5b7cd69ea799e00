/*
 * A directory as a store: objects whole and flushed in the right order, one winner of those who put what must be new, listings in
 * order with what is not ours passed over, and what a crash leaves.
 */
#include "cmocka.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "store.h"

static char folder[64], url[96];

/* The calls that durability hangs on, in order: m(kdir) l(ink) r(ename) f(lush of a file) d(irectory flushed). */
static char calls[256];

static void note(char call)
{
	size_t used = strlen(calls);

	if (used + 1 < sizeof(calls))
		calls[used] = call;
}

int fsync(int fd)
{
	struct stat stat;

	note(!fstat(fd, &stat) && S_ISDIR(stat.st_mode) ? 'd' : 'f');
	return (int)syscall(SYS_fsync, fd);
}

static bool link_answer_lost; /* as over a network: it was done, and asked again */

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	int failed = (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);

	note('l');
	if (!failed && link_answer_lost) {
		errno = EEXIST;
		return -1;
	}
	return failed;
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	note('r');
	return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, 0);
}

int mkdirat(int dir, const char *name, mode_t mode)
{
	note('m');
	return (int)syscall(SYS_mkdirat, dir, name, mode);
}

static int setup(void **state)
{
	struct bts_error error;
	struct store *store;

	strcpy(folder, "/tmp/bts-store-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(url, sizeof(url), "file://%s/made/of it", folder);
	if (store_open(url, NULL, &store, &error))
		return -1;
	*state = store;
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	store_close(*state);
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

static struct bts_slice text_of(const char *text)
{
	return (struct bts_slice){text, strlen(text)};
}

static enum bts_err put(struct store *store, const char *key, const char *text, bool only_new)
{
	struct bts_error error = {.code = BTS_OK};
	enum bts_err err = store_put(store, key, text_of(text), only_new, &error);

	if (err) {
		assert_int_equal(error.code, err);
		assert_non_null(strstr(error.text, folder));
	}
	return err;
}

struct got {
	char text[256];
	size_t size, pieces;
	enum bts_err answer;
};

static enum bts_err on_piece(void *arg, const void *data, size_t size, struct bts_error *error)
{
	struct got *got = arg;

	(void)error;
	if (got->size + size < sizeof(got->text))
		memcpy(got->text + got->size, data, size);
	got->size += size;
	got->pieces++;
	return got->answer;
}

static void expect(struct store *store, const char *key, const char *text)
{
	struct got got = {.size = 0};
	struct bts_error error;

	assert_int_equal(store_get(store, key, on_piece, &got, &error), BTS_OK);
	assert_string_equal(got.text, text);
}

static enum bts_err get(struct store *store, const char *key)
{
	struct got got = {.size = 0};
	struct bts_error error;

	return store_get(store, key, on_piece, &got, &error);
}

struct listed {
	char keys[2048]; /* a space behind each */
	size_t count;
	char last[STORE_KEY_MAX + 1];
	const char *stop_at;
};

static enum bts_err on_key(
	void *arg, const char *key, uint64_t size, uint64_t modified_ms, struct bts_error *error)
{
	struct listed *listed = arg;
	size_t used = strlen(listed->keys);

	(void)error;
	assert_true(size < 1000000);
	assert_true(modified_ms > 0);
	assert_true(strcmp(key, listed->last) > 0);
	strcpy(listed->last, key);
	if (used + strlen(key) + 2 < sizeof(listed->keys))
		sprintf(listed->keys + used, "%s ", key);
	listed->count++;
	return listed->stop_at && strcmp(key, listed->stop_at) == 0 ? BTS_CONFLICT : BTS_OK;
}

static void expect_list(struct store *store, const char *prefix, const char *after, const char *keys)
{
	struct listed listed = {.count = 0};
	struct bts_error error;

	assert_int_equal(store_list(store, prefix, after, on_key, &listed, &error), BTS_OK);
	assert_string_equal(listed.keys, keys);
}

static void test_objects(void **state)
{
	struct store *store = *state;
	struct bts_error error;
	struct got got = {.size = 0};

	assert_string_equal(store_name(store), url);
	expect_list(store, "", "", "");
	assert_int_equal(get(store, "a"), BTS_NOT_FOUND);
	assert_int_equal(store_delete(store, "a/b", &error), BTS_OK);
	assert_int_equal(access(strchr(url, '/') + 2, F_OK), -1); /* reading makes nothing */
	assert_int_equal(put(store, "a/b/c", "one", true), BTS_OK);
	assert_int_equal(put(store, "a/b/c", "two", true), BTS_EXISTS);
	expect(store, "a/b/c", "one");
	assert_int_equal(put(store, "a/b/c", "three", false), BTS_OK);
	expect(store, "a/b/c", "three");
	assert_int_equal(put(store, "empty", "", true), BTS_OK);
	assert_int_equal(put(store, "empty", "", true), BTS_EXISTS);
	assert_int_equal(store_get(store, "empty", on_piece, &got, &error), BTS_OK);
	assert_int_equal(got.pieces, 0);
	assert_int_equal(get(store, "a/b/c/d"), BTS_INVALID);
	assert_int_equal(get(store, "a/b"), BTS_INVALID);
	assert_int_equal(put(store, "a/b", "", false), BTS_INVALID);
	assert_int_equal(put(store, "a/b/c/d", "", false), BTS_INVALID);
	assert_int_equal(put(store, "../x", "", false), BTS_INVALID);
	assert_int_equal(get(store, ".tmp-0123456789abcdef"), BTS_INVALID);
	assert_int_equal(store_delete(store, "a/../b", &error), BTS_INVALID);
	got.answer = BTS_CONFLICT;
	assert_int_equal(store_get(store, "a/b/c", on_piece, &got, &error), BTS_CONFLICT);
	assert_int_equal(store_delete(store, "a/b/c", &error), BTS_OK);
	assert_int_equal(store_delete(store, "a/b/c", &error), BTS_OK);
	assert_int_equal(get(store, "a/b/c"), BTS_NOT_FOUND);
	expect_list(store, "", "", "empty ");
}

/* The object is flushed before it has its name, and the name before the call returns; a directory in its parent before that. */
static void test_order_of_flushes(void **state)
{
	struct store *store = *state, *second;
	struct bts_error error;

	assert_int_equal(put(store, "a", "", true), BTS_OK);
	memset(calls, 0, sizeof(calls));
	assert_int_equal(put(store, "d/e/a", "1", false), BTS_OK);
	assert_string_equal(calls, "mdmdfrd");
	memset(calls, 0, sizeof(calls));
	assert_int_equal(put(store, "d/e/b", "1", true), BTS_OK);
	assert_string_equal(calls, "mmfld");
	memset(calls, 0, sizeof(calls));
	assert_int_equal(put(store, "d/e/b", "1", true), BTS_EXISTS);
	assert_string_equal(calls, "mmfld");
	/* Directories that somebody else has made, perhaps just now. */
	assert_int_equal(store_open(url, NULL, &second, &error), BTS_OK);
	memset(calls, 0, sizeof(calls));
	assert_int_equal(put(second, "d/e/c", "1", true), BTS_OK);
	assert_string_equal(calls, "mdmdfld");
	store_close(second);
}

static void test_listing(void **state)
{
	struct store *store = *state;
	struct listed listed = {.stop_at = "a.b"};
	struct bts_error error;
	static const char *const keys[] = {
		"a/c", "a-b", "a.b", "a0", "a/c-/x", "b/x/1", "b/x/2", "b/y/1", "Z", "a/c.d/x"};
	size_t i;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		assert_int_equal(put(store, keys[i], "x", true), BTS_OK);
	expect_list(store, "", "", "Z a-b a.b a/c a/c-/x a/c.d/x a0 b/x/1 b/x/2 b/y/1 ");
	expect_list(store, "a", "", "a-b a.b a/c a/c-/x a/c.d/x a0 ");
	expect_list(store, "a/", "", "a/c a/c-/x a/c.d/x ");
	expect_list(store, "a/c", "a/c", "a/c-/x a/c.d/x ");
	expect_list(store, "a/c-/", "", "a/c-/x ");
	expect_list(store, "b/x/1", "", "b/x/1 ");
	expect_list(store, "b/x/1x", "", "");
	expect_list(store, "", "a/c-/x", "a/c.d/x a0 b/x/1 b/x/2 b/y/1 ");
	expect_list(store, "", "b/x", "b/x/1 b/x/2 b/y/1 ");
	expect_list(store, "", "b/x/", "b/x/1 b/x/2 b/y/1 ");
	expect_list(store, "b/", "b/x0", "b/y/1 ");
	expect_list(store, "b/x/", "b/y", "");
	expect_list(store, "", "b/y/1", "");
	assert_int_equal(store_list(store, "", "", on_key, &listed, &error), BTS_CONFLICT);
	assert_int_equal(listed.count, 3);
	assert_int_equal(store_list(store, "../", "", on_key, &listed, &error), BTS_INVALID);
	assert_int_equal(store_list(store, "", "/", on_key, &listed, &error), BTS_INVALID);
}

static void test_link_answered_twice(void **state)
{
	struct store *store = *state;

	link_answer_lost = true;
	assert_int_equal(put(store, "a", "mine", true), BTS_OK);
	assert_int_equal(put(store, "a", "other", true), BTS_EXISTS);
	link_answer_lost = false;
	expect(store, "a", "mine");
	expect_list(store, "", "", "a ");
}

static void make_file(const char *name, off_t size)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

/* More names than one reading of the directory keeps, twice over. */
static void test_many(void **state)
{
	struct store *store = *state;
	struct listed listed = {.count = 0};
	struct bts_error error;
	char name[32];
	unsigned i;

	assert_int_equal(put(store, "many/x", "x", true), BTS_OK);
	assert_int_equal(chdir(strchr(url, '/') + 2), 0);
	assert_int_equal(chdir("many"), 0);
	for (i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "%u", i * 7919 % 20011);
		make_file(name, 0);
	}
	assert_int_equal(store_list(store, "many/", "", on_key, &listed, &error), BTS_OK);
	assert_int_equal(listed.count, 20001);
	memset(&listed, 0, sizeof(listed));
	assert_int_equal(store_list(store, "", "many/9", on_key, &listed, &error), BTS_OK);
	assert_true(listed.count > 1000 && listed.count < 1200);
	assert_int_equal(chdir("/"), 0);
}

static void test_hostile(void **state)
{
	struct store *store = *state;
	struct bts_error error;
	char deep[40] = "d";
	unsigned i;

	assert_int_equal(put(store, "a/x", "x", true), BTS_OK);
	assert_int_equal(chdir(strchr(url, '/') + 2), 0);
	assert_int_equal(mkdir("../outside", 0700), 0);
	make_file("../outside/secret", 0);
	assert_int_equal(symlink("../outside", "dir"), 0);
	assert_int_equal(symlink("../outside/secret", "object"), 0);
	assert_int_equal(symlink(".", "a/loop"), 0);
	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_int_equal(mkdir(".hidden", 0700), 0);
	make_file(".hidden/x", 0);
	make_file("with space", 0);
	make_file("\xc3\xa4", 0);
	make_file("line\nbreak", 0);
	make_file("long", (off_t)STORE_OBJECT_MAX + 1);
	for (i = 0; i < 18; i++, strcat(deep, "/d"))
		assert_int_equal(mkdir(deep, 0700), 0);
	make_file(deep, 0);
	assert_int_equal(unlink("long"), 0);
	expect_list(store, "", "", "a/x ");
	assert_int_equal(get(store, "dir/secret"), BTS_INVALID);
	assert_int_equal(get(store, "object"), BTS_INVALID);
	assert_int_equal(get(store, "fifo"), BTS_INVALID);
	assert_int_equal(put(store, "dir/new", "x", false), BTS_INVALID);
	assert_int_equal(access("../outside/new", F_OK), -1);
	assert_int_equal(put(store, "object", "x", true), BTS_EXISTS);
	assert_int_equal(put(store, "object", "mine", false), BTS_OK); /* the link goes, not what it names */
	expect(store, "object", "mine");
	make_file("long", (off_t)STORE_OBJECT_MAX + 1);
	assert_int_equal(get(store, "long"), BTS_CORRUPT);
	assert_int_equal(store_put(store, "x", (struct bts_slice){"", STORE_OBJECT_MAX + 1ul}, false, &error),
		BTS_INVALID);
	assert_int_equal(chdir("/"), 0);
}

/* A put that died left its other name: never listed, and gone a day later. */
static void test_leftovers(void **state)
{
	struct store *store = *state;
	struct timespec old[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};

	assert_int_equal(put(store, "a/x", "x", true), BTS_OK);
	assert_int_equal(chdir(strchr(url, '/') + 2), 0);
	make_file("a/.tmp-0123456789abcdef", 10);
	make_file("a/.tmp-fedcba9876543210", 10);
	make_file("a/.tmp-mine", 10);
	assert_int_equal(utimensat(AT_FDCWD, "a/.tmp-fedcba9876543210", old, 0), 0);
	assert_int_equal(utimensat(AT_FDCWD, "a/.tmp-mine", old, 0), 0);
	expect_list(store, "", "", "a/x ");
	assert_int_equal(access("a/.tmp-0123456789abcdef", F_OK), 0);
	assert_int_equal(access("a/.tmp-fedcba9876543210", F_OK), -1);
	assert_int_equal(access("a/.tmp-mine", F_OK), 0);
	assert_int_equal(chdir("/"), 0);
}

#define RACERS 4
#define RACES 100

static int won[RACERS][RACES];

static void *race(void *arg)
{
	int me = (int)(intptr_t)arg, i;
	struct bts_error error;
	struct store *store;
	char key[32], text[8];
	enum bts_err err = store_open(url, NULL, &store, &error);

	for (i = 0; !err && i < RACES; i++) {
		snprintf(key, sizeof(key), "race/%d/key", i);
		snprintf(text, sizeof(text), "%d", me);
		err = store_put(store, key, text_of(text), true, &error);
		won[me][i] = err == BTS_OK;
		err = err == BTS_EXISTS ? BTS_OK : err;
	}
	store_close(store);
	return err ? arg : NULL;
}

static void test_one_winner(void **state)
{
	pthread_t threads[RACERS];
	void *failed;
	char key[32], text[8];
	int i, j, winners;

	for (i = 0; i < RACERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, race, (void *)(intptr_t)i), 0);
	for (i = 0; i < RACERS; i++) {
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	for (j = 0; j < RACES; j++) {
		for (i = 0, winners = 0; i < RACERS; i++) {
			winners += won[i][j];
			snprintf(key, sizeof(key), "race/%d/key", j);
			snprintf(text, sizeof(text), "%d", i);
			if (won[i][j])
				expect(*state, key, text);
		}
		assert_int_equal(winners, 1);
	}
}

static enum bts_err on_interrupt(
	void *arg, const char *key, uint64_t size, uint64_t modified_ms, struct bts_error *error)
{
	(void)key;
	(void)size;
	(void)modified_ms;
	(void)error;
	store_interrupt(arg);
	return BTS_OK;
}

static void test_interrupted(void **state)
{
	struct store *store = *state;
	struct bts_error error;

	assert_int_equal(put(store, "a/x", "x", true), BTS_OK);
	assert_int_equal(put(store, "b/x", "x", true), BTS_OK);
	assert_int_equal(store_list(store, "", "", on_interrupt, store, &error), BTS_TIMEOUT);
	assert_int_equal(get(store, "a/x"), BTS_TIMEOUT);
	assert_int_equal(put(store, "a/x", "y", false), BTS_TIMEOUT);
	assert_int_equal(store_delete(store, "a/x", &error), BTS_TIMEOUT);
}

static void test_not_a_directory(void **state)
{
	char path[128];
	struct bts_error error;
	struct store *store;
	struct listed listed = {.count = 0};

	(void)state;
	snprintf(path, sizeof(path), "%s/file", folder);
	make_file(path, 0);
	snprintf(path, sizeof(path), "file://%s/file/below", folder);
	assert_int_equal(store_open(path, NULL, &store, &error), BTS_OK);
	assert_int_equal(put(store, "a", "x", false), BTS_INVALID);
	assert_int_equal(store_list(store, "", "", on_key, &listed, &error), BTS_IO);
	store_close(store);
	assert_int_equal(store_open("file://host/", NULL, &store, &error), BTS_INVALID);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_objects),
		TEST(test_order_of_flushes),
		TEST(test_link_answered_twice),
		TEST(test_listing),
		TEST(test_many),
		TEST(test_hostile),
		TEST(test_leftovers),
		TEST(test_one_winner),
		TEST(test_interrupted),
		TEST(test_not_a_directory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
