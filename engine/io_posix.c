/*
 * The environment of production: struct bts_env on Linux system calls.
 *
 * Locks are of the open file description (F_OFD_*): they belong to the handle, not to the process, so two
 * handles of one process exclude each other and closing one never drops the locks of the other.
 */
#include <btree_store/env.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

struct io_posix_file {
	struct bts_file file;
	int fd;
};

static int io_posix_fd(const struct bts_file *file)
{
	return ((const struct io_posix_file *)file)->fd;
}

/* The directory that holds path. */
static int io_posix_directory(const char *path, char dir[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;

	if (length >= PATH_MAX)
		return ENAMETOOLONG;
	if (!slash) {
		strcpy(dir, ".");
	} else {
		length += length == 0; /* the root keeps its slash */
		memcpy(dir, path, length);
		dir[length] = '\0';
	}
	return 0;
}

static int io_posix_file_open(struct bts_env *env, const char *path, unsigned flags, struct bts_file **file)
{
	struct io_posix_file *f;
	int mode = O_CLOEXEC | (flags & BTS_FILE_WRITE ? O_RDWR : O_RDONLY);
	int err;

	if (flags & BTS_FILE_CREATE)
		mode |= O_CREAT;
	if (flags & BTS_FILE_EXCL)
		mode |= O_EXCL;
	if (flags & BTS_FILE_TRUNCATE)
		mode |= O_TRUNC;
	f = malloc(sizeof(*f));
	if (!f)
		return ENOMEM;
	f->file.env = env;
	do {
		f->fd = open(path, mode, 0666);
	} while (f->fd < 0 && errno == EINTR);
	if (f->fd < 0) {
		err = errno;
		free(f);
		return err;
	}
	*file = &f->file;
	return 0;
}

/* A file of a random name, whose name is taken away at once; a process that dies in between leaves an empty file. */
static int io_posix_temp_named(const char *path)
{
	char name[PATH_MAX];
	uint64_t random;
	int fd;

	do {
		if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
			return -1;
		if (snprintf(name, sizeof(name), "%s.spill-%016llx", path, (unsigned long long)random) >= PATH_MAX) {
			errno = ENAMETOOLONG;
			return -1;
		}
		fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	} while (fd < 0 && (errno == EINTR || errno == EEXIST));
	if (fd >= 0)
		unlink(name);
	return fd;
}

static int io_posix_file_temp(struct bts_env *env, const char *path, struct bts_file **file)
{
	struct io_posix_file *f = malloc(sizeof(*f));
	char dir[PATH_MAX];
	int err;

	if (!f)
		return ENOMEM;
	f->file.env = env;
	err = io_posix_directory(path, dir);
	if (err)
		goto fail;
	f->fd = open(dir, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
	if (f->fd < 0) /* not every file system has these */
		f->fd = io_posix_temp_named(path);
	if (f->fd < 0) {
		err = errno;
		goto fail;
	}
	*file = &f->file;
	return 0;
fail:
	free(f);
	return err;
}

static void io_posix_file_close(struct bts_file *file)
{
	if (!file)
		return;
	/* Not retried: on Linux the descriptor is gone even after EINTR. */
	if (io_posix_fd(file) >= 0)
		close(io_posix_fd(file));
	free(file);
}

static void io_posix_file_abandon(struct bts_file *file)
{
	struct io_posix_file *posix = (struct io_posix_file *)file;

	close(posix->fd);
	posix->fd = -1;
}

static int io_posix_file_pread(struct bts_file *file, void *data, size_t size, uint64_t offset, size_t *got)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n =
			pread(io_posix_fd(file), (char *)data + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	*got = done;
	return 0;
}

static int io_posix_file_pwritev(struct bts_file *file, struct iovec *iov, int count, uint64_t offset)
{
	while (count > 0) {
		ssize_t n = pwritev(io_posix_fd(file), iov, count < IOV_MAX ? count : IOV_MAX, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		offset += (uint64_t)n;
		if (n == 0 && iov->iov_len > 0)
			return EIO;
		while (count > 0 && (size_t)n >= iov->iov_len) {
			n -= (ssize_t)iov->iov_len;
			iov++;
			count--;
		}
		if (count > 0) {
			iov->iov_base = (char *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

static int io_posix_fd_write(struct bts_env *env, int fd, const void *data, size_t size)
{
	const char *at = data;

	(void)env;
	while (size > 0) {
		ssize_t n = write(fd, at, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

/* Only behind the end of a regular file is there surely nothing; and who appends cannot skip. */
static int io_posix_fd_skip(struct bts_env *env, int fd, uint64_t size)
{
	struct stat stat;
	int flags = fcntl(fd, F_GETFL);
	off_t at;

	(void)env;
	if (flags == -1 || (flags & O_APPEND) || fstat(fd, &stat) || !S_ISREG(stat.st_mode))
		return ESPIPE;
	at = lseek(fd, 0, SEEK_CUR);
	if (at == -1 || at < stat.st_size || lseek(fd, (off_t)size, SEEK_CUR) == -1)
		return ESPIPE;
	return 0;
}

static int io_posix_fd_read(struct bts_env *env, int fd, void *data, size_t size, size_t *got)
{
	char *at = data;

	(void)env;
	*got = 0;
	while (*got < size) {
		ssize_t n = read(fd, at + *got, size - *got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			break;
		*got += (size_t)n;
	}
	return 0;
}

/* Whatever fails here fails the flush too. */
static void io_posix_file_start(struct bts_file *file, uint64_t offset, uint64_t size)
{
	(void)sync_file_range(io_posix_fd(file), (off_t)offset, (off_t)size, SYNC_FILE_RANGE_WRITE);
}

static int io_posix_file_sync(struct bts_file *file)
{
	/* Not retried after EINTR: what a second call says of the pages of the first is not to be trusted. */
	return fdatasync(io_posix_fd(file)) ? errno : 0;
}

static int io_posix_file_truncate(struct bts_file *file, uint64_t size)
{
	int rc;

	do {
		rc = ftruncate(io_posix_fd(file), (off_t)size);
	} while (rc && errno == EINTR);
	return rc ? errno : 0;
}

static int io_posix_file_reserve(struct bts_file *file, uint64_t size)
{
	int rc;

	do {
		rc = fallocate(io_posix_fd(file), 0, 0, (off_t)size);
	} while (rc && errno == EINTR);
	return rc ? errno : 0;
}

/*
 * Not its times: since Linux 6.13 who asks for the time of a change makes the next write note one of its own, however short ago the
 * last was, and the flush of a file system without a journal writes the inode for it: one more write to wait for.
 */
static int io_posix_file_identity(struct bts_file *file, struct bts_file_identity *identity)
{
	const unsigned mask = STATX_INO | STATX_SIZE | STATX_NLINK | STATX_BTIME;
	struct statx stx;

	if (statx(io_posix_fd(file), "", AT_EMPTY_PATH, mask, &stx))
		return errno;
	memset(identity, 0, sizeof(*identity));
	identity->device = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	identity->inode = stx.stx_ino;
	if (stx.stx_mask & STATX_BTIME)
		identity->birth_ns =
			(uint64_t)stx.stx_btime.tv_sec * UINT64_C(1000000000) + stx.stx_btime.tv_nsec;
	identity->size = stx.stx_size;
	identity->links = stx.stx_nlink;
	return 0;
}

/*
 * Through a descriptor that only reads: so the kernel knows that nobody changes the file here, and a flush need not look up each
 * page it writes in this map (6 us of one of 70 pages).  Locks belong to the other descriptor, and stay.  Without /proc, or
 * where the process may open the file no more, that one will do.
 */
static int io_posix_file_map(struct bts_file *file, size_t size, const uint8_t **base)
{
	struct stat mine, its;
	char self[40];
	void *at;
	int fd, err;

	snprintf(self, sizeof(self), "/proc/thread-self/fd/%d", io_posix_fd(file));
	fd = open(self, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && (fstat(io_posix_fd(file), &mine) || fstat(fd, &its) || mine.st_dev != its.st_dev || mine.st_ino != its.st_ino)) {
		close(fd);
		fd = -1;
	}
	at = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd < 0 ? io_posix_fd(file) : fd, 0);
	err = at == MAP_FAILED ? errno : 0;
	if (fd >= 0)
		close(fd);
	if (err == 0)
		*base = at;
	return err;
}

static int io_posix_file_map_shared(struct bts_file *file, size_t size, void **base)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, io_posix_fd(file), 0);

	if (at == MAP_FAILED)
		return errno;
	/* Sparse memory, touched here and there: read nothing ahead, which would fill megabytes of holes with zeros. */
	(void)madvise(at, size, MADV_RANDOM);
	*base = at;
	return 0;
}

static void io_posix_file_unmap(struct bts_file *file, const void *base, size_t size)
{
	(void)file;
	if (base)
		munmap((void *)(uintptr_t)base, size);
}

static struct flock io_posix_range(uint64_t offset, uint64_t size, short type)
{
	return (struct flock){
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)offset,
		.l_len = (off_t)size,
	};
}

static int io_posix_file_lock(
	struct bts_file *file, uint64_t offset, uint64_t size, enum bts_lock_kind kind, int wait)
{
	short type = kind == BTS_LOCK_NONE ? F_UNLCK : kind == BTS_LOCK_SHARED ? F_RDLCK : F_WRLCK;
	struct flock range = io_posix_range(offset, size, type);
	int rc;

	do {
		rc = fcntl(io_posix_fd(file), wait ? F_OFD_SETLKW : F_OFD_SETLK, &range);
	} while (rc && errno == EINTR);
	if (!rc)
		return 0;
	return errno == EACCES ? EAGAIN : errno;
}

static int io_posix_file_lock_test(struct bts_file *file, uint64_t offset, uint64_t size, int *held)
{
	struct flock range = io_posix_range(offset, size, F_WRLCK);

	if (fcntl(io_posix_fd(file), F_OFD_GETLK, &range))
		return errno;
	*held = range.l_type != F_UNLCK;
	return 0;
}

static int io_posix_path_link(struct bts_env *env, const char *from, const char *to)
{
	(void)env;
	return link(from, to) ? errno : 0;
}

static int io_posix_path_unlink(struct bts_env *env, const char *path)
{
	(void)env;
	return unlink(path) ? errno : 0;
}

static int io_posix_path_sync_dir(struct bts_env *env, const char *path)
{
	char dir[PATH_MAX];
	int fd, err;

	(void)env;
	err = io_posix_directory(path, dir);
	if (err)
		return err;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	err = fsync(fd) ? errno : 0;
	close(fd);
	return err;
}

static int io_posix_path_whole(struct bts_env *env, const char *path, char *out, size_t size)
{
	char dir[PATH_MAX] = "";
	int length;

	(void)env;
	if (path[0] != '/' && getcwd(dir, sizeof(dir)) == NULL)
		return errno;
	length = snprintf(out, size, "%s%s%s", dir, path[0] == '/' ? "" : "/", path);
	return (size_t)length < size ? 0 : ENAMETOOLONG;
}

static int io_posix_wait(struct bts_env *env, const uint32_t *word, uint32_t expected, unsigned timeout_ms)
{
	struct timespec timeout = {timeout_ms / 1000, (long)(timeout_ms % 1000) * 1000000};
	struct timespec *limit = timeout_ms == UINT_MAX ? NULL : &timeout;

	(void)env;
	/* Not FUTEX_PRIVATE: the waker may be another process. */
	if (!syscall(SYS_futex, word, FUTEX_WAIT, expected, limit, NULL, 0))
		return 0;
	return errno == EAGAIN || errno == EINTR ? 0 : errno;
}

static void io_posix_wake(struct bts_env *env, const uint32_t *word)
{
	(void)env;
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static uint64_t io_posix_now_ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t io_posix_clock_ms(struct bts_env *env)
{
	(void)env;
	/* Boot time goes on while the machine sleeps; a deadline that stood still then would be too late. */
	return io_posix_now_ms(CLOCK_BOOTTIME);
}

static uint64_t io_posix_tick_ms(struct bts_env *env)
{
	(void)env;
	/* A seventh of the price of an exact clock, which shows in a transaction of one get. */
	return io_posix_now_ms(CLOCK_MONOTONIC_COARSE);
}

static uint64_t io_posix_realtime_ms(struct bts_env *env)
{
	(void)env;
	return io_posix_now_ms(CLOCK_REALTIME);
}

static int io_posix_random(struct bts_env *env, void *data, size_t size)
{
	size_t done = 0;

	(void)env;
	while (done < size) {
		ssize_t n = getrandom((char *)data + done, size - done, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		done += (size_t)n;
	}
	return 0;
}

static uint32_t io_posix_process_id(struct bts_env *env)
{
	(void)env;
	return (uint32_t)getpid();
}

static void *io_posix_memory(struct bts_env *env, void *old, size_t size)
{
	(void)env;
	if (size == 0) {
		free(old);
		return NULL;
	}
	return realloc(old, size);
}

static int io_posix_fault(struct bts_env *env, const char *point)
{
	(void)env;
	(void)point;
	return 0;
}

static const struct bts_env_ops io_posix_ops = {
	.file_open = io_posix_file_open,
	.file_close = io_posix_file_close,
	.file_temp = io_posix_file_temp,
	.file_abandon = io_posix_file_abandon,
	.file_pread = io_posix_file_pread,
	.file_pwritev = io_posix_file_pwritev,
	.file_start = io_posix_file_start,
	.file_sync = io_posix_file_sync,
	.file_truncate = io_posix_file_truncate,
	.file_reserve = io_posix_file_reserve,
	.file_identity = io_posix_file_identity,
	.file_map = io_posix_file_map,
	.file_map_shared = io_posix_file_map_shared,
	.file_unmap = io_posix_file_unmap,
	.file_lock = io_posix_file_lock,
	.file_lock_test = io_posix_file_lock_test,
	.fd_write = io_posix_fd_write,
	.fd_skip = io_posix_fd_skip,
	.fd_read = io_posix_fd_read,
	.path_link = io_posix_path_link,
	.path_unlink = io_posix_path_unlink,
	.path_sync_dir = io_posix_path_sync_dir,
	.path_whole = io_posix_path_whole,
	.wait = io_posix_wait,
	.wake = io_posix_wake,
	.clock_ms = io_posix_clock_ms,
	.tick_ms = io_posix_tick_ms,
	.realtime_ms = io_posix_realtime_ms,
	.random = io_posix_random,
	.process_id = io_posix_process_id,
	.memory = io_posix_memory,
	.fault = io_posix_fault,
};

struct bts_env *bts_env_posix(void)
{
	static struct bts_env env = {&io_posix_ops};

	return &env;
}
