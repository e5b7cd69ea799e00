/* Handles on a lock file, records to publish, children that hold or die: what the tests of the lock file share. */
#ifndef SHARED_BED_H
#define SHARED_BED_H

#include "cmocka.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "env_mem.h"
#include "shared_map.h"

static char directory[64];
static unsigned file_number;

struct place {
	char path[128];
	struct bts_env *env;
};

struct handle {
	struct bts_file *data;
	struct shared *shared;
	bool alone;
};

static inline struct place place_new(void)
{
	struct place at = {.env = bts_env_posix()};
	struct bts_file *file;

	snprintf(at.path, sizeof(at.path), "%s/db%u", directory, file_number++);
	assert_int_equal(at.env->ops->file_open(at.env, at.path, BTS_FILE_WRITE | BTS_FILE_CREATE, &file), 0);
	at.env->ops->file_close(file);
	return at;
}

static inline enum bts_err handle_try(
	const struct place *at, unsigned flags, struct handle *h, struct bts_error *error)
{
	enum bts_err err;

	memset(h, 0, sizeof(*h));
	assert_int_equal(at->env->ops->file_open(at->env, at->path, flags, &h->data), 0);
	err = shared_open(at->env, at->path, h->data, &h->shared, &h->alone, error);
	if (err)
		at->env->ops->file_close(h->data);
	return err;
}

/* Every field that is looked at follows from the txid, so that a torn record shows. */
static inline struct commit_record record_of(bts_txid txid)
{
	struct commit_record record;

	memset(&record, 0, sizeof(record));
	record.txid = txid;
	record.high_water = txid * 3;
	record.free.inline_count = (uint32_t)(txid % FREELOG_INLINE_MAX);
	for (size_t i = 0; i < record.free.inline_count; i++)
		record.free.inline_entries[i] = txid * 7 + i;
	record.recent_count = (uint32_t)(txid % META_RECENT_MAX);
	for (size_t i = 0; i < META_RECENT_MAX; i++)
		record.recent[i].txid = txid + i;
	record.segments[META_SEGMENTS_INLINE - 1].first = txid;
	return record;
}

static inline void record_assert(const struct commit_record *record)
{
	struct commit_record expected = record_of(record->txid);

	if (memcmp(record, &expected, sizeof(expected)))
		abort(); /* also in children, where cmocka's jump leads nowhere */
}

/* What a reader's slot keeps of it for an heir. */
static inline void record_assert_reader(const struct commit_record *record)
{
	struct commit_record expected = record_of(record->txid);

	assert_memory_equal(&record->free, &expected.free, META_READER_BYTES(&expected) -
		offsetof(struct commit_record, free));
	assert_int_equal(record->high_water, expected.high_water);
	assert_int_equal(record->recent_count, 0);
}

static inline struct handle handle_open(const struct place *at)
{
	struct handle h;

	assert_int_equal(handle_try(at, BTS_FILE_WRITE, &h, NULL), BTS_OK);
	return h;
}

static inline struct handle handle_first(const struct place *at, bts_txid txid)
{
	struct handle h = handle_open(at);
	struct commit_record record = record_of(txid);

	assert_true(h.alone);
	shared_publish(h.shared, &record);
	assert_int_equal(shared_settle(h.shared, NULL), BTS_OK);
	return h;
}

static inline void handle_close(struct handle *h)
{
	struct bts_env *env = h->data->env;

	shared_close(h->shared);
	env->ops->file_close(h->data);
}

static inline void publish(struct handle *h, bts_txid txid)
{
	struct commit_record record = record_of(txid);

	shared_publish(h->shared, &record);
}

/* A child that runs body and then waits to be killed; returns when it says it is ready. */
static inline pid_t child_start(void (*body)(const struct place *), const struct place *at)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(ready[0]);
		body(at);
		if (write(ready[1], "r", 1) != 1)
			abort();
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static inline void child_kill(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static inline void child_join(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A directory for the time of the tests. */
static inline int bed_enter(void)
{
	snprintf(directory, sizeof(directory), "/tmp/test_shared.XXXXXX");
	return mkdtemp(directory) == NULL;
}

static inline int bed_leave(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", directory);
	return system(command);
}

#endif
