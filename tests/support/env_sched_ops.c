/*
 * The environment that simulated processes see: env_mem, with a scheduling point before each call, and an account of what
 * each process holds, so that its death can take it away.
 */
#include "env_sched_private.h"

#include <ensure.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ENV_SCHED_PATIENCE 4u

static struct sched *env_sched_of(struct bts_env *env)
{
	return (struct sched *)env;
}

static bool env_sched_is_lock(const struct sched *s, const struct bts_file *file)
{
	const struct sched_process *p = &s->processes[s->current];

	for (unsigned i = 0; i < p->file_count; i++)
		if (p->files[i].file == file)
			return p->files[i].is_lock;
	return false;
}

static struct sched *env_sched_file(const struct bts_file *file, const char *what, uint64_t where)
{
	struct sched *s = sched_now;

	sched_step(s, what, env_sched_is_lock(s, file), where);
	return s;
}

static void env_sched_own(struct sched *s, struct bts_file *file, bool is_lock)
{
	struct sched_process *p = &s->processes[s->current];

	ENSURE(p->file_count < SCHED_FILES);
	p->files[p->file_count++] = (struct sched_file){file, is_lock};
}

static int env_sched_file_open(struct bts_env *env, const char *path, unsigned flags, struct bts_file **file)
{
	struct sched *s = env_sched_of(env);
	size_t length = strlen(path);
	bool is_lock = length >= 5 && !strcmp(path + length - 5, "-lock");
	int os;

	sched_step(s, "open", is_lock, flags);
	os = s->inner->ops->file_open(s->inner, path, flags, file);
	if (!os)
		env_sched_own(s, *file, is_lock);
	return os;
}

static int env_sched_file_temp(struct bts_env *env, const char *path, struct bts_file **file)
{
	struct sched *s = env_sched_of(env);
	int os;

	sched_step(s, "open without a name", false, 0);
	os = s->inner->ops->file_temp(s->inner, path, file);
	if (!os)
		env_sched_own(s, *file, false);
	return os;
}

static void env_sched_file_close(struct bts_file *file)
{
	struct sched_process *p;
	struct sched *s;
	unsigned i = 0;

	if (!file)
		return;
	s = env_sched_file(file, "close", 0);
	p = &s->processes[s->current];
	while (i < p->file_count && p->files[i].file != file)
		i++;
	ENSURE(i < p->file_count);
	memmove(&p->files[i], &p->files[i + 1], (p->file_count - i - 1) * sizeof(p->files[0]));
	p->file_count--;
	s->inner->ops->file_close(file);
}

void env_sched_close(struct sched *s, unsigned process)
{
	struct sched_process *p = &s->processes[process];

	for (unsigned i = 0; i < p->file_count; i++)
		s->inner->ops->file_close(p->files[i].file);
	p->file_count = 0;
}

static void env_sched_file_abandon(struct bts_file *file)
{
	(void)file;
}

static int env_sched_file_pread(struct bts_file *file, void *data, size_t size, uint64_t offset, size_t *got)
{
	return env_sched_file(file, "read", offset)->inner->ops->file_pread(file, data, size, offset, got);
}

static int env_sched_file_pwritev(struct bts_file *file, struct iovec *iov, int count, uint64_t offset)
{
	return env_sched_file(file, "write", offset)->inner->ops->file_pwritev(file, iov, count, offset);
}

static int env_sched_file_sync(struct bts_file *file)
{
	return env_sched_file(file, "flush", 0)->inner->ops->file_sync(file);
}

static int env_sched_file_truncate(struct bts_file *file, uint64_t size)
{
	return env_sched_file(file, "truncate", size)->inner->ops->file_truncate(file, size);
}

static int env_sched_file_reserve(struct bts_file *file, uint64_t size)
{
	return env_sched_file(file, "reserve", size)->inner->ops->file_reserve(file, size);
}

static int env_sched_file_identity(struct bts_file *file, struct bts_file_identity *identity)
{
	return env_sched_file(file, "identity", 0)->inner->ops->file_identity(file, identity);
}

static int env_sched_file_map(struct bts_file *file, size_t size, const uint8_t **base)
{
	return env_sched_file(file, "map", size)->inner->ops->file_map(file, size, base);
}

static int env_sched_file_map_shared(struct bts_file *file, size_t size, void **base)
{
	struct sched *s = env_sched_file(file, "map shared", size);
	int os = s->inner->ops->file_map_shared(file, size, base);
	unsigned i = 0;

	if (os || !env_sched_is_lock(s, file))
		return os;
	while (i < s->map_count && s->maps[i].base != *base)
		i++;
	ENSURE(i < SCHED_MAPS);
	s->maps[i].base = *base;
	s->maps[i].size = size;
	if (i == s->map_count)
		s->map_count++;
	return 0;
}

static void env_sched_file_unmap(struct bts_file *file, const void *base, size_t size)
{
	env_sched_file(file, "unmap", size)->inner->ops->file_unmap(file, base, size);
}

/* Refused again and again with nothing in between but its own steps: it tries until somebody else gets on. */
static bool env_sched_spins(struct sched *s, struct sched_process *p, uint64_t offset)
{
	if (p->refused_since != s->switches || p->refused_at != offset)
		p->refused = 0;
	p->refused_since = s->switches;
	p->refused_at = offset;
	return ++p->refused >= ENV_SCHED_PATIENCE && s->scheduling;
}

static int env_sched_file_lock(
	struct bts_file *file, uint64_t offset, uint64_t size, enum bts_lock_kind kind, int wait)
{
	static const char *const names[2][3] = {
		{"unlock", "try shared lock", "try lock"}, {"unlock", "shared lock", "lock"}};
	struct sched *s = env_sched_file(file, names[wait != 0][kind], offset);
	struct sched_process *p = &s->processes[s->current];
	int os = s->inner->ops->file_lock(file, offset, size, kind, wait);

	while (os == EDEADLK || (os == EAGAIN && env_sched_spins(s, p, offset))) {
		p->file = file;
		p->offset = offset;
		p->size = size;
		p->kind = kind;
		p->state = SCHED_LOCKING;
		sched_block(s);
		os = s->inner->ops->file_lock(file, offset, size, kind, wait);
	}
	return os;
}

static int env_sched_file_lock_test(struct bts_file *file, uint64_t offset, uint64_t size, int *held)
{
	return env_sched_file(file, "test lock", offset)
		->inner->ops->file_lock_test(file, offset, size, held);
}

static int env_sched_fd_write(struct bts_env *env, int fd, const void *data, size_t size)
{
	struct sched *s = env_sched_of(env);

	return s->inner->ops->fd_write(s->inner, fd, data, size);
}

static int env_sched_fd_skip(struct bts_env *env, int fd, uint64_t size)
{
	struct sched *s = env_sched_of(env);

	return s->inner->ops->fd_skip(s->inner, fd, size);
}

static int env_sched_fd_read(struct bts_env *env, int fd, void *data, size_t size, size_t *got)
{
	struct sched *s = env_sched_of(env);

	return s->inner->ops->fd_read(s->inner, fd, data, size, got);
}

static int env_sched_path_link(struct bts_env *env, const char *from, const char *to)
{
	struct sched *s = env_sched_of(env);

	sched_step(s, "link", false, 0);
	return s->inner->ops->path_link(s->inner, from, to);
}

static int env_sched_path_unlink(struct bts_env *env, const char *path)
{
	struct sched *s = env_sched_of(env);

	sched_step(s, "unlink", false, 0);
	return s->inner->ops->path_unlink(s->inner, path);
}

static int env_sched_path_sync_dir(struct bts_env *env, const char *path)
{
	struct sched *s = env_sched_of(env);

	sched_step(s, "flush directory", false, 0);
	return s->inner->ops->path_sync_dir(s->inner, path);
}

static int env_sched_wait(struct bts_env *env, const uint32_t *word, uint32_t expected, unsigned timeout_ms)
{
	struct sched *s = env_sched_of(env);
	struct sched_process *p;

	sched_step(s, "wait", true, timeout_ms);
	if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != expected)
		return 0;
	if (!s->scheduling) /* nobody else will change it */
		return s->inner->ops->wait(s->inner, word, expected, timeout_ms);
	p = &s->processes[s->current];
	p->word = word;
	p->expected = expected;
	p->deadline = s->inner->ops->clock_ms(s->inner) + (timeout_ms ? timeout_ms : 1);
	p->woken = p->timed_out = false;
	p->state = SCHED_WAITING;
	sched_block(s);
	return p->timed_out ? ETIMEDOUT : 0;
}

static void env_sched_wake(struct bts_env *env, const uint32_t *word)
{
	struct sched *s = env_sched_of(env);

	sched_step(s, "wake", true, 0);
	for (unsigned i = 0; i < s->scenario->procs; i++)
		if (s->processes[i].state == SCHED_WAITING && s->processes[i].word == word)
			s->processes[i].woken = true;
}

bool env_sched_enabled(const struct sched *s, const struct sched_process *p)
{
	(void)s;
	if (p->state == SCHED_LOCKING)
		return !env_mem_lock_refused(p->file, p->offset, p->size, p->kind);
	if (p->state == SCHED_WAITING)
		return p->woken || __atomic_load_n(p->word, __ATOMIC_SEQ_CST) != p->expected;
	return p->state == SCHED_READY;
}

static uint64_t env_sched_clock_ms(struct bts_env *env)
{
	struct sched *s = env_sched_of(env);

	return s->inner->ops->clock_ms(s->inner);
}

static uint64_t env_sched_realtime_ms(struct bts_env *env)
{
	struct sched *s = env_sched_of(env);

	return s->inner->ops->realtime_ms(s->inner);
}

static uint64_t env_sched_tick_ms(struct bts_env *env)
{
	struct sched *s = env_sched_of(env);

	return s->inner->ops->tick_ms(s->inner);
}

static uint32_t env_sched_process_id(struct bts_env *env)
{
	return env_sched_of(env)->current + 1;
}

static int env_sched_random(struct bts_env *env, void *data, size_t size)
{
	struct sched *s = env_sched_of(env);

	return s->inner->ops->random(s->inner, data, size);
}

static void env_sched_drop(struct sched_block *b)
{
	b->before->next = b->next;
	b->next->before = b->before;
	free(b);
}

static void *env_sched_memory(struct bts_env *env, void *old, size_t size)
{
	struct sched *s = env_sched_of(env);
	struct sched_block *ring = &s->processes[s->current].blocks, *b, *was = NULL;

	if (old)
		was = (struct sched_block *)old - 1;
	if (!size) {
		if (was)
			env_sched_drop(was);
		return NULL;
	}
	b = malloc(sizeof(*b) + size);
	ENSURE(b);
	b->size = size;
	if (was) {
		memcpy(b + 1, old, was->size < size ? was->size : size);
		env_sched_drop(was);
	}
	b->next = ring;
	b->before = ring->before;
	b->before->next = b->next->before = b;
	return b + 1;
}

void env_sched_forget(struct sched *s, unsigned process)
{
	struct sched_block *ring = &s->processes[process].blocks;

	while (ring->next != ring)
		env_sched_drop(ring->next);
}

static int env_sched_fault(struct bts_env *env, const char *point)
{
	struct sched *s = env_sched_of(env);

	sched_step(s, point, false, 0);
	return s->inner->ops->fault(s->inner, point);
}

const struct bts_env_ops env_sched_ops = {
	.file_open = env_sched_file_open,
	.file_close = env_sched_file_close,
	.file_temp = env_sched_file_temp,
	.file_abandon = env_sched_file_abandon,
	.file_pread = env_sched_file_pread,
	.file_pwritev = env_sched_file_pwritev,
	.file_sync = env_sched_file_sync,
	.file_truncate = env_sched_file_truncate,
	.file_reserve = env_sched_file_reserve,
	.file_identity = env_sched_file_identity,
	.file_map = env_sched_file_map,
	.file_map_shared = env_sched_file_map_shared,
	.file_unmap = env_sched_file_unmap,
	.file_lock = env_sched_file_lock,
	.file_lock_test = env_sched_file_lock_test,
	.fd_write = env_sched_fd_write,
	.fd_skip = env_sched_fd_skip,
	.fd_read = env_sched_fd_read,
	.path_link = env_sched_path_link,
	.path_unlink = env_sched_path_unlink,
	.path_sync_dir = env_sched_path_sync_dir,
	.wait = env_sched_wait,
	.wake = env_sched_wake,
	.clock_ms = env_sched_clock_ms,
	.tick_ms = env_sched_tick_ms,
	.realtime_ms = env_sched_realtime_ms,
	.random = env_sched_random,
	.process_id = env_sched_process_id,
	.memory = env_sched_memory,
	.fault = env_sched_fault,
};
