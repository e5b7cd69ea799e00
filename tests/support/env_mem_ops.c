/*
 * The operations of struct bts_env on the environment in memory.
 */
#include "env_mem_private.h"

#include <errno.h>
#include <string.h>

/* An open file; several on one file exclude each other's locks, as those of several processes do. */
struct env_mem_handle {
	struct bts_file file; /* first */
	struct env_mem_handle *next;
	struct env_mem_file *content;
	bool writable;
	char path[ENV_MEM_PATH_MAX]; /* as opened, for events */
};

static struct env_mem_handle *env_mem_handle(struct bts_file *file)
{
	return (struct env_mem_handle *)file;
}

static int env_mem_do(
	struct bts_file *file, enum env_mem_op op, uint64_t offset, uint64_t size, unsigned *mode)
{
	struct env_mem_event event = {op, env_mem_handle(file)->path, offset, size};

	return env_mem_begin(env_mem_of(file->env), &event, mode);
}

static int env_mem_do_path(struct bts_env *env, enum env_mem_op op, const char *path)
{
	struct env_mem_event event = {op, path, 0, 0};

	return env_mem_begin(env_mem_of(env), &event, NULL);
}

static int env_mem_file_open(struct bts_env *env, const char *path, unsigned flags, struct bts_file **file)
{
	struct env_mem *m = env_mem_of(env);
	struct env_mem_file *f = env_mem_name_target(m, path);
	bool creates = !f && (flags & BTS_FILE_CREATE);
	struct env_mem_handle *h;
	int err = env_mem_do_path(env, creates ? ENV_MEM_CREATE : ENV_MEM_OPEN, path);

	if (err)
		return err;
	if (strlen(path) >= ENV_MEM_PATH_MAX)
		return ENAMETOOLONG;
	if (!f && !creates)
		return ENOENT;
	if (f && (flags & BTS_FILE_CREATE) && (flags & BTS_FILE_EXCL))
		return EEXIST;
	if (creates) {
		f = env_mem_file_new(m, path);
		env_mem_name_set(m, path, f);
	}
	h = calloc(1, sizeof(*h));
	ENSURE(h);
	h->file.env = env;
	h->content = f;
	h->writable = flags & BTS_FILE_WRITE;
	strcpy(h->path, path);
	h->next = m->handles;
	m->handles = h;
	if (flags & BTS_FILE_TRUNCATE)
		env_mem_file_resize(f, 0);
	*file = &h->file;
	return 0;
}

static int env_mem_file_temp(struct bts_env *env, const char *path, struct bts_file **file)
{
	struct env_mem *m = env_mem_of(env);
	struct env_mem_handle *h;
	int err = env_mem_do_path(env, ENV_MEM_CREATE, path);

	if (err)
		return err;
	if (strlen(path) >= ENV_MEM_PATH_MAX)
		return ENAMETOOLONG;
	h = calloc(1, sizeof(*h));
	ENSURE(h);
	h->file.env = env;
	h->content = env_mem_file_new(m, "-lock"); /* like a lock file outside the fault model: nothing of it outlives a crash */
	h->content->is_temp = true;
	h->writable = true;
	strcpy(h->path, path);
	h->next = m->handles;
	m->handles = h;
	*file = &h->file;
	return 0;
}

/* Give up what the handle holds of [begin, end); pieces on either side stay. */
static void env_mem_unlock(struct env_mem_handle *h, uint64_t begin, uint64_t end)
{
	struct env_mem_file *f = h->content;
	size_t count = f->lock_count;

	for (size_t i = 0; i < count; i++) {
		struct env_mem_lock old = f->locks[i];

		if (old.handle != h || old.kind == BTS_LOCK_NONE || old.end <= begin || old.begin >= end)
			continue;
		f->locks[i].kind = BTS_LOCK_NONE;
		if (old.begin < begin) {
			f->locks = env_mem_grow(f->locks, f->lock_count, &f->lock_cap, sizeof(*f->locks));
			f->locks[f->lock_count++] = (struct env_mem_lock){h, old.begin, begin, old.kind};
		}
		if (old.end > end) {
			f->locks = env_mem_grow(f->locks, f->lock_count, &f->lock_cap, sizeof(*f->locks));
			f->locks[f->lock_count++] = (struct env_mem_lock){h, end, old.end, old.kind};
		}
	}
	count = 0;
	for (size_t i = 0; i < f->lock_count; i++)
		if (f->locks[i].kind != BTS_LOCK_NONE)
			f->locks[count++] = f->locks[i];
	f->lock_count = count;
}

static void env_mem_file_close(struct bts_file *file)
{
	struct env_mem_handle *h = env_mem_handle(file);
	struct env_mem_handle **at;

	if (!file)
		return;
	env_mem_unlock(h, 0, UINT64_MAX);
	at = (struct env_mem_handle **)&env_mem_of(file->env)->handles;
	while (*at != h)
		at = &(*at)->next;
	*at = h->next;
	if (h->content->is_temp)
		env_mem_file_resize(h->content, 0);
	free(h);
}

void env_mem_handles_free(struct env_mem *m)
{
	while (m->handles)
		env_mem_file_close(&((struct env_mem_handle *)m->handles)->file);
}

/* Nothing forks here. */
static void env_mem_file_abandon(struct bts_file *file)
{
	(void)file;
}

static int env_mem_file_pread(struct bts_file *file, void *data, size_t size, uint64_t offset, size_t *got)
{
	struct env_mem_file *f = env_mem_handle(file)->content;
	int err = env_mem_do(file, ENV_MEM_READ, offset, size, NULL);

	if (err)
		return err;
	*got = offset >= f->size ? 0 : f->size - offset < size ? (size_t)(f->size - offset) : size;
	memcpy(data, f->base + offset, *got);
	env_mem_of(file->env)->counters.bytes_read += *got;
	return 0;
}

static int env_mem_file_pwritev(struct bts_file *file, struct iovec *iov, int count, uint64_t offset)
{
	struct env_mem *m = env_mem_of(file->env);
	struct env_mem_handle *h = env_mem_handle(file);
	unsigned mode = 0;
	uint64_t size = 0;
	int err;

	for (int i = 0; i < count; i++)
		size += iov[i].iov_len;
	err = env_mem_do(file, ENV_MEM_WRITE, offset, size, &mode);
	if (err && !(mode & ENV_MEM_PARTIAL))
		return err;
	if (!h->writable)
		return EBADF;
	if (offset + size > m->reserve || offset + size < offset)
		return ENOSPC;
	if (mode & ENV_MEM_PARTIAL)
		size /= 2;
	m->counters.bytes_written += size;
	for (int i = 0; i < count && size > 0; i++) {
		size_t take = iov[i].iov_len < size ? iov[i].iov_len : (size_t)size;

		env_mem_file_write(h->content, iov[i].iov_base, take, offset);
		offset += take;
		size -= take;
		/* The caller may not rely on iov after the call. */
		iov[i] = (struct iovec){NULL, 0};
	}
	return err;
}

static int env_mem_file_sync(struct bts_file *file)
{
	struct env_mem_file *f = env_mem_handle(file)->content;
	unsigned mode = 0;
	int err = env_mem_do(file, ENV_MEM_SYNC, 0, 0, &mode);

	if (mode & ENV_MEM_LIE)
		return 0;
	if (mode & ENV_MEM_DROP)
		env_mem_file_drop(f);
	if (err)
		return err;
	env_mem_file_flush(f);
	return 0;
}

static int env_mem_file_truncate(struct bts_file *file, uint64_t size)
{
	int err = env_mem_do(file, ENV_MEM_TRUNCATE, size, 0, NULL);

	if (err)
		return err;
	if (!env_mem_handle(file)->writable)
		return EINVAL;
	if (size > env_mem_of(file->env)->reserve)
		return EFBIG;
	env_mem_file_resize(env_mem_handle(file)->content, size);
	return 0;
}

static int env_mem_file_reserve(struct bts_file *file, uint64_t size)
{
	struct env_mem_file *f = env_mem_handle(file)->content;
	int err = env_mem_do(file, ENV_MEM_RESERVE, size, 0, NULL);

	if (err)
		return err;
	if (!env_mem_handle(file)->writable)
		return EBADF;
	if (size > env_mem_of(file->env)->reserve)
		return ENOSPC;
	if (size > f->size)
		env_mem_file_resize(f, size);
	return 0;
}

static int env_mem_file_identity(struct bts_file *file, struct bts_file_identity *identity)
{
	struct env_mem *m = env_mem_of(file->env);
	struct env_mem_file *f = env_mem_handle(file)->content;
	int err = env_mem_do(file, ENV_MEM_IDENTITY, 0, 0, NULL);

	if (err)
		return err;
	*identity = (struct bts_file_identity){m->device, f->number, f->birth_ns, f->size, 0};
	for (size_t i = 0; i < m->name_count; i++)
		identity->links += m->names[i].targets[m->names[i].count - 1] == f;
	return 0;
}

static int env_mem_file_map(struct bts_file *file, size_t size, const uint8_t **base)
{
	int err = env_mem_do(file, ENV_MEM_MAP, 0, size, NULL);

	if (err)
		return err;
	/* Any size will do: the file cannot outgrow the image, and nothing past its end may be touched. */
	*base = env_mem_handle(file)->content->base;
	return 0;
}

static int env_mem_file_map_shared(struct bts_file *file, size_t size, void **base)
{
	struct env_mem_file *f = env_mem_handle(file)->content;
	int err = env_mem_do(file, ENV_MEM_MAP, 0, size, NULL);

	if (err)
		return err;
	if (!env_mem_handle(file)->writable)
		return EACCES;
	/* Stores through this map are not seen by the fault model, which is right for these only. */
	ENSURE(f->is_lock && (f->is_temp || size <= f->size));
	if (size > env_mem_of(file->env)->reserve)
		return ENOMEM;
	*base = f->base;
	return 0;
}

static void env_mem_file_unmap(struct bts_file *file, const void *base, size_t size)
{
	(void)file;
	(void)base;
	(void)size;
}

static bool env_mem_lock_meets(
	const struct env_mem_handle *h, uint64_t begin, uint64_t end, enum bts_lock_kind kind)
{
	for (size_t i = 0; i < h->content->lock_count; i++) {
		const struct env_mem_lock *other = &h->content->locks[i];

		if (other->handle != h && other->begin < end && begin < other->end &&
			(kind == BTS_LOCK_EXCLUSIVE || other->kind == BTS_LOCK_EXCLUSIVE))
			return true;
	}
	return false;
}

static uint64_t env_mem_range_end(uint64_t offset, uint64_t size)
{
	return size == 0 ? UINT64_MAX : offset + size; /* as with fcntl, 0 = to the end and beyond */
}

static int env_mem_file_lock(
	struct bts_file *file, uint64_t offset, uint64_t size, enum bts_lock_kind kind, int wait)
{
	struct env_mem_handle *h = env_mem_handle(file);
	struct env_mem_file *f = h->content;
	uint64_t end = env_mem_range_end(offset, size);
	int err = env_mem_do(file, ENV_MEM_LOCK, offset, size, NULL);

	if (err && kind == BTS_LOCK_NONE) /* a lock that cannot be given back would stop the others for ever */
		env_mem_unlock(h, offset, end);
	if (err)
		return err;
	if (kind == BTS_LOCK_EXCLUSIVE && !h->writable)
		return EBADF;
	if (kind != BTS_LOCK_NONE && env_mem_lock_meets(h, offset, end, kind))
		return wait ? EDEADLK : EAGAIN;
	env_mem_unlock(h, offset, end);
	if (kind != BTS_LOCK_NONE) {
		f->locks = env_mem_grow(f->locks, f->lock_count, &f->lock_cap, sizeof(*f->locks));
		f->locks[f->lock_count++] = (struct env_mem_lock){h, offset, end, kind};
	}
	return 0;
}

static int env_mem_file_lock_test(struct bts_file *file, uint64_t offset, uint64_t size, int *held)
{
	int err = env_mem_do(file, ENV_MEM_LOCK, offset, size, NULL);

	if (err)
		return err;
	*held = env_mem_lock_meets(
		env_mem_handle(file), offset, env_mem_range_end(offset, size), BTS_LOCK_EXCLUSIVE);
	return 0;
}

int env_mem_lock_refused(struct bts_file *file, uint64_t offset, uint64_t size, enum bts_lock_kind kind)
{
	return env_mem_lock_meets(env_mem_handle(file), offset, env_mem_range_end(offset, size), kind);
}

/* Descriptors are real ones: of a pipe or a file of the test. */
static int env_mem_fd_write(struct bts_env *env, int fd, const void *data, size_t size)
{
	return bts_env_posix()->ops->fd_write(env, fd, data, size);
}

static int env_mem_fd_skip(struct bts_env *env, int fd, uint64_t size)
{
	return bts_env_posix()->ops->fd_skip(env, fd, size);
}

static int env_mem_fd_read(struct bts_env *env, int fd, void *data, size_t size, size_t *got)
{
	return bts_env_posix()->ops->fd_read(env, fd, data, size, got);
}

static int env_mem_path_link(struct bts_env *env, const char *from, const char *to)
{
	struct env_mem *m = env_mem_of(env);
	int err = env_mem_do_path(env, ENV_MEM_LINK, to);

	if (err)
		return err;
	if (!env_mem_name_target(m, from))
		return ENOENT;
	if (env_mem_name_target(m, to))
		return EEXIST;
	env_mem_name_set(m, to, env_mem_name_target(m, from));
	return 0;
}

static int env_mem_path_unlink(struct bts_env *env, const char *path)
{
	struct env_mem *m = env_mem_of(env);
	int err = env_mem_do_path(env, ENV_MEM_UNLINK, path);

	if (err)
		return err;
	if (!env_mem_name_target(m, path))
		return ENOENT;
	env_mem_name_set(m, path, NULL);
	return 0;
}

static size_t env_mem_dir_length(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) : 0;
}

static int env_mem_path_sync_dir(struct bts_env *env, const char *path)
{
	struct env_mem *m = env_mem_of(env);
	size_t length = env_mem_dir_length(path);
	int err = env_mem_do_path(env, ENV_MEM_SYNC_DIR, path);

	if (err)
		return err;
	for (size_t i = 0; i < m->name_count; i++)
		if (env_mem_dir_length(m->names[i].path) == length && !memcmp(m->names[i].path, path, length))
			env_mem_name_flush(&m->names[i]);
	return 0;
}

static int env_mem_wait(struct bts_env *env, const uint32_t *word, uint32_t expected, unsigned timeout_ms)
{
	if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != expected)
		return 0;
	env_mem_of(env)->clock += timeout_ms ? timeout_ms : 1;
	return ETIMEDOUT;
}

static void env_mem_wake(struct bts_env *env, const uint32_t *word)
{
	(void)env;
	(void)word;
}

static uint64_t env_mem_clock_ms(struct bts_env *env)
{
	return env_mem_of(env)->clock;
}

static uint32_t env_mem_process_id(struct bts_env *env)
{
	(void)env;
	return 1;
}

static uint64_t env_mem_realtime_ms(struct bts_env *env)
{
	return UINT64_C(1700000000000) + env_mem_of(env)->clock;
}

static int env_mem_random(struct bts_env *env, void *data, size_t size)
{
	int err = env_mem_do_path(env, ENV_MEM_RANDOM, "");

	if (!err)
		rng_fill(&env_mem_of(env)->rng, data, size);
	return err;
}

static void *env_mem_memory(struct bts_env *env, void *old, size_t size)
{
	struct env_mem *m = env_mem_of(env);

	if (size == 0) {
		m->counters.live_blocks -= old != NULL;
		free(old);
		return NULL;
	}
	m->counters.allocations++;
	if (m->memory_left > 0 && --m->memory_left == 0) {
		m->memory_left = m->memory_sticky;
		m->failed++;
		return NULL;
	}
	m->counters.live_blocks += old == NULL;
	old = realloc(old, size);
	ENSURE(old);
	return old;
}

static int env_mem_fault(struct bts_env *env, const char *point)
{
	struct env_mem *m = env_mem_of(env);
	size_t i = 0;

	while (i < m->point_count && strcmp(m->points[i].name, point))
		i++;
	if (i == m->point_count) {
		ENSURE(i < ENV_MEM_POINTS && strlen(point) < sizeof(m->points[i].name));
		strcpy(m->points[i].name, point);
		m->point_count++;
	}
	m->points[i].hits++;
	return env_mem_do_path(env, ENV_MEM_FAULT, point);
}

const struct bts_env_ops env_mem_ops = {
	.file_open = env_mem_file_open,
	.file_close = env_mem_file_close,
	.file_temp = env_mem_file_temp,
	.file_abandon = env_mem_file_abandon,
	.file_pread = env_mem_file_pread,
	.file_pwritev = env_mem_file_pwritev,
	.file_sync = env_mem_file_sync,
	.file_truncate = env_mem_file_truncate,
	.file_reserve = env_mem_file_reserve,
	.file_identity = env_mem_file_identity,
	.file_map = env_mem_file_map,
	.file_map_shared = env_mem_file_map_shared,
	.file_unmap = env_mem_file_unmap,
	.file_lock = env_mem_file_lock,
	.file_lock_test = env_mem_file_lock_test,
	.fd_write = env_mem_fd_write,
	.fd_skip = env_mem_fd_skip,
	.fd_read = env_mem_fd_read,
	.path_link = env_mem_path_link,
	.path_unlink = env_mem_path_unlink,
	.path_sync_dir = env_mem_path_sync_dir,
	.wait = env_mem_wait,
	.wake = env_mem_wake,
	.clock_ms = env_mem_clock_ms,
	.tick_ms = env_mem_clock_ms,
	.realtime_ms = env_mem_realtime_ms,
	.random = env_mem_random,
	.process_id = env_mem_process_id,
	.memory = env_mem_memory,
	.fault = env_mem_fault,
};
