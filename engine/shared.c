/*
 * Joining and leaving the lock file, the byte of a follower's writer, and the flags.
 *
 * Who may believe the contents: whoever holds the data file exclusively starts them anew and never reads
 * them.  Others hold the data file shared, so that nobody can start them anew, and believe them when they
 * name this inode, are ready, and some other process has its byte locked: then a living process has been
 * there ever since they were made.  A file left by a crash, or copied along with the database, has no such
 * process.
 */
#include "shared_map.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/ensure.h"
#include "error.h"

#define SHARED_JOIN_ATTEMPTS 200u
#define SHARED_JOIN_PAUSE_MS 10u
#define SHARED_LEAVE_ATTEMPTS 10u
#define SHARED_LEAVE_PAUSE_MS 2u

ENSURE_STATIC(sizeof(struct shared_map) < UINT32_MAX);

/*
 * M4.  A child of fork shares the open file descriptions and with them the parent's locks: were it to keep them open, the
 * parent's death would go unnoticed; were it to unlock, the parent would lose what it holds.  So the child's handler
 * closes the descriptors, without unlocking, and marks the handles.
 */
static pthread_mutex_t shared_list_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t shared_list_once = PTHREAD_ONCE_INIT;
static struct shared *shared_list;

static void shared_fork_prepare(void)
{
	pthread_mutex_lock(&shared_list_lock);
}

static void shared_fork_parent(void)
{
	pthread_mutex_unlock(&shared_list_lock);
}

static void shared_fork_child(void)
{
	struct shared *s;

	for (s = shared_list; s; s = s->next) {
		if (s->foreign)
			continue;
		s->foreign = true;
		if (s->lock)
			s->env->ops->file_abandon(s->lock);
		s->env->ops->file_abandon(s->data);
	}
	pthread_mutex_unlock(&shared_list_lock);
}

static void shared_fork_watch(void)
{
	pthread_atfork(shared_fork_prepare, shared_fork_parent, shared_fork_child);
}

static void shared_enlist_handle(struct shared *s)
{
	pthread_once(&shared_list_once, shared_fork_watch);
	pthread_mutex_lock(&shared_list_lock);
	s->next = shared_list;
	s->link = &shared_list;
	if (s->next)
		s->next->link = &s->next;
	shared_list = s;
	pthread_mutex_unlock(&shared_list_lock);
}

static void shared_delist_handle(struct shared *s)
{
	pthread_mutex_lock(&shared_list_lock);
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	pthread_mutex_unlock(&shared_list_lock);
}

bool shared_foreign(const struct shared *s)
{
	return s->foreign;
}

static enum bts_err shared_failed(struct shared *s, struct bts_error *error, int os, const char *what)
{
	return error_os(error, os, "lock file %s: %s", s->path, what);
}

static enum bts_err shared_alloc(struct bts_env *env, const char *path, struct bts_file *data,
	struct shared **out, struct bts_error *error)
{
	size_t size = strlen(path) + sizeof("-lock");
	struct shared *s = env->ops->memory(env, NULL, sizeof(*s));

	if (!s)
		return error_set(error, BTS_MEMORY, ENOMEM, "no memory to open %s", path);
	memset(s, 0, sizeof(*s));
	s->env = env;
	s->data = data;
	s->path = env->ops->memory(env, NULL, size);
	if (!s->path) {
		env->ops->memory(env, s, 0);
		return error_set(error, BTS_MEMORY, ENOMEM, "no memory to open %s", path);
	}
	snprintf(s->path, size, "%s-lock", path);
	pthread_mutex_init(&s->acks, NULL);
	shared_enlist_handle(s);
	*out = s;
	return BTS_OK;
}

static void shared_detach(struct shared *s)
{
	if (s->alone)
		s->env->ops->memory(s->env, s->map, 0);
	else if (s->map)
		s->env->ops->file_unmap(s->lock, s->map, sizeof(*s->map));
	if (s->lock)
		s->env->ops->file_close(s->lock);
	s->map = NULL;
	s->lock = NULL;
}

static enum bts_err shared_attach(struct shared *s, unsigned flags, struct bts_error *error)
{
	int os = s->env->ops->file_open(s->env, s->path, BTS_FILE_WRITE | flags, &s->lock);

	if (os) {
		s->lock = NULL;
		return shared_failed(s, error, os, "cannot open for writing");
	}
	return BTS_OK;
}

static enum bts_err shared_map_in(struct shared *s, struct bts_error *error)
{
	void *base;
	int os = s->env->ops->file_map_shared(s->lock, sizeof(*s->map), &base);

	if (os)
		return shared_failed(s, error, os, "cannot map");
	s->map = base;
	return BTS_OK;
}

/* Is any process other than this handle there, on the environment this lock file serves? */
static enum bts_err shared_others(struct shared *s, int *held, struct bts_error *error)
{
	int os = s->env->ops->file_lock_test(s->lock, SHARED_BYTE_PROCESS, SHARED_PROCESSES_MAX, held);

	return os ? shared_failed(s, error, os, "cannot test locks") : BTS_OK;
}

int shared_back(struct shared *s, uint32_t slots)
{
	uint32_t now = atomic_load(&s->map->slots_backed);
	uint64_t bytes;
	int os;

	slots = (slots + SHARED_SLOTS_STEP - 1) / SHARED_SLOTS_STEP * SHARED_SLOTS_STEP;
	if (slots > SHARED_READERS_MAX)
		slots = SHARED_READERS_MAX;
	if (slots <= now)
		return 0;
	if (s->alone)
		return EMFILE;
	bytes = offsetof(struct shared_map, chunks) + slots / SHARED_SLOTS_STEP * sizeof(s->map->chunks[0]);
	os = s->env->ops->file_reserve(s->lock, bytes);
	if (os && os != ENOTSUP && os != EOPNOTSUPP)
		return os;
	while (now < slots && !atomic_compare_exchange_weak(&s->map->slots_backed, &now, slots))
		;
	return 0;
}

/* Alone on the data file: make the contents anew. */
static enum bts_err shared_initialise(
	struct shared *s, const struct bts_file_identity *identity, struct bts_error *error)
{
	const struct bts_env_ops *ops = s->env->ops;
	enum bts_err err;
	int held = 0, os;

	err = shared_attach(s, BTS_FILE_CREATE, error);
	if (!err)
		err = shared_others(s, &held, error);
	if (!err && held) {
		/*
		 * Processes still work on a data file that stood under this name before and was replaced.
		 * They keep their lock file, which must not shrink under their feet; this one gets its own.
		 */
		shared_detach(s);
		os = ops->path_unlink(s->env, s->path);
		if (os && os != ENOENT)
			return shared_failed(s, error, os, "cannot replace");
		err = shared_attach(s, BTS_FILE_CREATE | BTS_FILE_EXCL, error);
	}
	if (err)
		return err;
	os = ops->file_truncate(s->lock, 0);
	if (!os)
		os = ops->file_truncate(s->lock, sizeof(*s->map));
	if (os)
		return shared_failed(s, error, os, "cannot size");
	os = ops->file_reserve(s->lock, offsetof(struct shared_map, chunks));
	if (os && os != ENOTSUP && os != EOPNOTSUPP)
		return shared_failed(s, error, os, "cannot size");
	err = shared_map_in(s, error);
	if (err)
		return err;
	os = shared_back(s, 1);
	if (os)
		return shared_failed(s, error, os, "cannot size");
	s->map->magic = SHARED_MAGIC;
	s->map->layout = SHARED_LAYOUT;
	s->map->size = sizeof(*s->map);
	s->map->device = identity->device;
	s->map->inode = identity->inode;
	s->map->birth_ns = identity->birth_ns;
	atomic_store(&s->map->state, SHARED_RECOVERING);
	return BTS_OK;
}

/* *ready: the contents may be believed (see the top). */
static enum bts_err shared_judge(
	struct shared *s, const struct bts_file_identity *identity, bool *ready, struct bts_error *error)
{
	const struct bts_env_ops *ops = s->env->ops;
	uint8_t head[16];
	enum bts_err err;
	size_t got;
	int held, os;

	*ready = false;
	err = shared_others(s, &held, error);
	if (err || !held)
		return err;
	os = ops->file_pread(s->lock, head, sizeof(head), 0, &got);
	if (os)
		return shared_failed(s, error, os, "cannot read");
	if (got < sizeof(head))
		return BTS_OK;
	if (bytes_get_u64(head) != SHARED_MAGIC || bytes_get_u32(head + 8) != SHARED_LAYOUT ||
		bytes_get_u32(head + 12) != sizeof(*s->map))
		return error_set(error, BTS_VERSION, 0,
			"lock file %s is in use by processes of another version of this library", s->path);
	err = shared_map_in(s, error);
	if (err)
		return err;
	*ready = atomic_load(&s->map->state) == SHARED_READY && s->map->device == identity->device &&
		 s->map->inode == identity->inode && s->map->birth_ns == identity->birth_ns;
	return BTS_OK;
}

/* Take a process byte and with it a fresh owner word. */
static enum bts_err shared_enlist(struct shared *s, struct bts_error *error)
{
	uint32_t i;
	int os = EAGAIN;

	for (i = 0; i < SHARED_PROCESSES_MAX; i++) {
		os = s->env->ops->file_lock(s->lock, SHARED_BYTE_PROCESS + i, 1, BTS_LOCK_EXCLUSIVE, 0);
		if (os != EAGAIN)
			break;
	}
	if (os == EAGAIN)
		return error_set(error, BTS_LIMIT, 0, "lock file %s: all %u process places are taken",
			s->path, SHARED_PROCESSES_MAX);
	if (os)
		return shared_failed(s, error, os, "cannot lock");
	s->index = i;
	s->owner = (atomic_fetch_add(&s->map->instances, 1) + 1) << 16 | (i + 1);
	shared_forget(s, i);
	atomic_store(&s->map->pids[i], s->env->ops->process_id(s->env));
	return BTS_OK;
}

/* Wait until nobody is alone, then look.  *joined false: nothing to join, start over. */
static enum bts_err shared_join(
	struct shared *s, const struct bts_file_identity *identity, bool *joined, struct bts_error *error)
{
	enum bts_err err = BTS_OK;
	int os = s->env->ops->file_lock(s->data, SHARED_DATA_BYTE, 1, BTS_LOCK_SHARED, 1);

	*joined = false;
	if (os)
		return error_os(error, os, "cannot lock the data file of %s", s->path);
	os = s->env->ops->file_open(s->env, s->path, BTS_FILE_WRITE, &s->lock);
	if (os) {
		s->lock = NULL;
		err = os == ENOENT ? BTS_OK : shared_failed(s, error, os, "cannot open for writing");
	} else {
		err = shared_judge(s, identity, joined, error);
	}
	if (!err && *joined)
		err = shared_enlist(s, error);
	if (err || !*joined) {
		shared_detach(s);
		s->env->ops->file_lock(s->data, SHARED_DATA_BYTE, 1, BTS_LOCK_NONE, 0);
	}
	return err;
}

/* One attempt: alone, joined, or *again. */
static enum bts_err shared_try(struct shared *s, const struct bts_file_identity *identity, bool *alone,
	bool *again, struct bts_error *error)
{
	enum bts_err err;
	bool joined;
	int os = s->env->ops->file_lock(s->data, SHARED_DATA_BYTE, 1, BTS_LOCK_EXCLUSIVE, 0);

	*again = false;
	if (!os) {
		s->exclusive = true;
		err = shared_initialise(s, identity, error);
		if (!err)
			err = shared_enlist(s, error);
		*alone = true;
		return err;
	}
	/* EBADF: the data file is open for reading only, which permits no exclusive lock. */
	if (os != EAGAIN && os != EBADF)
		return error_os(error, os, "cannot lock the data file of %s", s->path);
	err = shared_join(s, identity, &joined, error);
	if (err)
		return err;
	*alone = false;
	*again = !joined;
	if (!joined && os == EBADF)
		return error_set(error, BTS_NEEDS_RECOVERY, 0,
			"no process has the data file of %s open, and it may not be written", s->path);
	return BTS_OK;
}

enum bts_err shared_open(struct bts_env *env, const char *path, struct bts_file *data, struct shared **shared,
	bool *alone, struct bts_error *error)
{
	struct bts_file_identity identity;
	uint32_t attempts = 0, never = 0;
	enum bts_err err;
	struct shared *s = NULL;
	bool again, was_alone;
	int os;

	err = shared_alloc(env, path, data, &s, error);
	if (err)
		return err;
	os = env->ops->file_identity(data, &identity);
	if (os) {
		err = error_os(error, os, "cannot identify %s", path);
		goto fail;
	}
	for (;;) {
		err = shared_try(s, &identity, &was_alone, &again, error);
		if (err)
			goto fail;
		if (!again)
			break;
		if (++attempts == SHARED_JOIN_ATTEMPTS) {
			err = error_set(error, BTS_BUSY, 0,
				"%s is held by processes that do not use %s (was the lock file removed?)",
				path, s->path);
			goto fail;
		}
		env->ops->wait(env, &never, 0, SHARED_JOIN_PAUSE_MS);
	}
	*shared = s;
	*alone = was_alone;
	return BTS_OK;
fail:
	shared_close(s);
	return err;
}

enum bts_err shared_take(struct bts_env *env, const char *path, struct bts_file *data, struct bts_error *error)
{
	int os = env->ops->file_lock(data, SHARED_DATA_BYTE, 1, BTS_LOCK_EXCLUSIVE, 0);

	if (os == EAGAIN)
		return error_set(error, BTS_BUSY, 0, "%s is in use", path);
	return os ? error_os(error, os, "cannot lock %s", path) : BTS_OK;
}

void shared_give(struct bts_env *env, struct bts_file *data)
{
	env->ops->file_lock(data, SHARED_DATA_BYTE, 1, BTS_LOCK_NONE, 0);
}

/* Byte `mine` of the data file shared, unless somebody has `theirs`. */
static enum bts_err shared_exclude(struct shared *s, uint64_t mine, uint64_t theirs, const char *who, struct bts_error *error)
{
	int held = 0, os = s->env->ops->file_lock(s->data, mine, 1, BTS_LOCK_SHARED, 1);

	if (!os)
		os = s->env->ops->file_lock_test(s->data, theirs, 1, &held);
	if (os)
		return error_os(error, os, "cannot lock the data file of %s", s->path);
	if (held)
		return error_set(error, BTS_BUSY, 0, "%s: %s", s->path, who);
	return BTS_OK;
}

enum bts_err shared_open_private(struct bts_env *env, const char *path, struct bts_file *data, struct shared **shared,
	struct bts_error *error)
{
	size_t bytes = offsetof(struct shared_map, chunks) +
		SHARED_PRIVATE_SLOTS / SHARED_SLOTS_STEP * sizeof(((struct shared_map *)0)->chunks[0]);
	struct shared *s = NULL;
	enum bts_err err = shared_alloc(env, path, data, &s, error);
	int os;

	if (err)
		return err;
	s->alone = true;
	s->map = env->ops->memory(env, NULL, bytes);
	if (!s->map) {
		err = error_set(error, BTS_MEMORY, ENOMEM, "no memory to open %s", path);
		goto fail;
	}
	memset(s->map, 0, bytes);
	os = env->ops->file_lock(data, SHARED_DATA_BYTE, 1, BTS_LOCK_SHARED, 1);
	if (os)
		err = error_os(error, os, "cannot lock the data file of %s", s->path);
	else
		err = shared_exclude(s, SHARED_DATA_PRIVATE, SHARED_DATA_WRITER,
			"in use by a process that writes, and this one may not register as a reader", error);
	if (err)
		goto fail;
	atomic_store(&s->map->slots_backed, SHARED_PRIVATE_SLOTS);
	s->owner = 1u << 16 | 1;
	*shared = s;
	return BTS_OK;
fail:
	shared_close(s);
	return err;
}

enum bts_err shared_announce_writer(struct shared *s, struct bts_error *error)
{
	return shared_exclude(s, SHARED_DATA_WRITER, SHARED_DATA_PRIVATE,
		"a process reads the file without permission to register here, so nobody may write it", error);
}

enum bts_err shared_settle(struct shared *s, struct bts_error *error)
{
	int os;

	if (s->alone)
		return BTS_OK;
	ENSURE(s->exclusive && atomic_load(&s->map->head.sequence) != 0);
	atomic_store(&s->map->state, SHARED_READY);
	os = s->env->ops->file_lock(s->data, SHARED_DATA_BYTE, 1, BTS_LOCK_SHARED, 1);
	if (os)
		return error_os(error, os, "cannot lock the data file of %s", s->path);
	s->exclusive = false;
	return BTS_OK;
}

bool shared_last(struct shared *s)
{
	const struct bts_env_ops *ops = s->env->ops;
	uint32_t never = 0;
	int held = 0, os;

	if (s->exclusive || s->foreign || s->alone)
		return s->exclusive && !s->foreign;
	/* One at a time: two that leave together would each find the other still there. */
	os = ops->file_lock(s->lock, SHARED_BYTE_CLOSE, 1, BTS_LOCK_EXCLUSIVE, 1);
	for (unsigned i = 0; i < SHARED_LEAVE_ATTEMPTS; i++) {
		s->exclusive = !ops->file_lock(s->data, SHARED_DATA_BYTE, 1, BTS_LOCK_EXCLUSIVE, 0);
		if (s->exclusive)
			return true;
		/* Somebody who has not joined is only looking whether there is anything to join: were we to go, nobody would seal. */
		if (shared_others(s, &held, NULL) || held)
			break;
		ops->wait(s->env, &never, 0, SHARED_LEAVE_PAUSE_MS);
	}
	ops->file_lock(s->data, SHARED_DATA_BYTE, 1, BTS_LOCK_NONE, 0);
	if (!os)
		ops->file_lock(s->lock, SHARED_BYTE_CLOSE, 1, BTS_LOCK_NONE, 0);
	return false;
}

bool shared_without_others(struct shared *s)
{
	int held = 0;

	return !s->foreign && !s->alone && shared_others(s, &held, NULL) == BTS_OK && !held;
}

void shared_close(struct shared *s)
{
	struct bts_env *env;

	if (!s)
		return;
	env = s->env;
	shared_delist_handle(s);
	if (s->map && s->owner && !s->foreign && !s->alone) {
		shared_forget(s, s->index);
		if (s->exclusive)
			atomic_store(&s->map->state, SHARED_EMPTY);
		/* Not left to closing: a child that was forked and not executed may hold the description too.
		 */
		shared_writer_leave(s);
		env->ops->file_lock(s->lock, SHARED_BYTE_PROCESS + s->index, 1, BTS_LOCK_NONE, 0);
	}
	shared_detach(s);
	if (!s->foreign)
		env->ops->file_lock(s->data, SHARED_DATA_BYTE, SHARED_DATA_WRITER + 1, BTS_LOCK_NONE, 0);
	pthread_mutex_destroy(&s->acks);
	env->ops->memory(env, s->path, 0);
	env->ops->memory(env, s, 0);
}

bool shared_alive(struct shared *s, uint64_t owner)
{
	uint32_t index = (uint32_t)(owner & 0xffff) - 1;
	int held;

	/* Our own locks do not show in a test: they are of the same open file description. */
	if (index == s->index)
		return (owner & ~SHARED_REAPING) == s->owner;
	if (s->env->ops->file_lock_test(s->lock, SHARED_BYTE_PROCESS + index, 1, &held))
		return true;
	return held != 0;
}

enum bts_err shared_writer_enter(struct shared *s, struct bts_error *error)
{
	int os = s->env->ops->file_lock(s->lock, SHARED_BYTE_WRITER, 1, BTS_LOCK_EXCLUSIVE, 0);

	if (os == EAGAIN)
		return error_set(
			error, BTS_BUSY, 0, "%s: another process has the file open for writing", s->path);
	if (os)
		return shared_failed(s, error, os, "cannot lock");
	s->writer = true;
	return BTS_OK;
}

void shared_writer_leave(struct shared *s)
{
	if (!s->writer)
		return;
	s->env->ops->file_lock(s->lock, SHARED_BYTE_WRITER, 1, BTS_LOCK_NONE, 0);
	s->writer = false;
}

void shared_set_unclean(struct shared *s, bool unclean, bool fell_back, bts_txid highest)
{
	uint32_t flags =
		(unclean ? SHARED_WAS_UNCLEAN | SHARED_COMMIT_OWED : 0) | (fell_back ? SHARED_FELL_BACK : 0);

	atomic_store(&s->map->highest, highest);
	atomic_fetch_or(&s->map->flags, flags);
}

void shared_unclean(const struct shared *s, bool *unclean, bool *fell_back, bts_txid *highest)
{
	uint32_t flags = atomic_load(&s->map->flags);

	*unclean = (flags & SHARED_COMMIT_OWED) != 0;
	*fell_back = (flags & SHARED_FELL_BACK) != 0;
	*highest = atomic_load(&s->map->highest);
}

void shared_clear_unclean(struct shared *s)
{
	atomic_fetch_and(&s->map->flags, ~SHARED_COMMIT_OWED);
}

bool shared_was_clean(const struct shared *s)
{
	return !(atomic_load(&s->map->flags) & SHARED_WAS_UNCLEAN);
}

void shared_poison(struct shared *s)
{
	atomic_fetch_or(&s->map->flags, SHARED_POISONED);
}

bool shared_poisoned(const struct shared *s)
{
	return (atomic_load(&s->map->flags) & SHARED_POISONED) != 0;
}
