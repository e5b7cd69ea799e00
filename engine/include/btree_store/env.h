/*
 * The seam between the engine and the operating system.  Every file call, lock, clock, random number, allocation
 * and sleep of the engine goes through a struct bts_env, so that tests can run it in memory with torn and reordered
 * sectors, fail the n-th call, or record what was written.  bts_env_posix() is the one for production.
 *
 * An implementation embeds struct bts_env and struct bts_file as the first member of its own.  Functions return 0
 * or an errno value unless said otherwise, and never set errno as their answer.
 */
#ifndef BTREE_STORE_ENV_H
#define BTREE_STORE_ENV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bts_env;
struct bts_file {
	struct bts_env *env;
};

struct bts_file_identity {
	uint64_t device, inode;
	uint64_t birth_ns; /* statx btime, 0 when the file system has none */
	uint64_t size;     /* bytes */
	uint32_t links;
};

enum bts_lock_kind { BTS_LOCK_NONE, BTS_LOCK_SHARED, BTS_LOCK_EXCLUSIVE };

/* open flags */
#define BTS_FILE_READ 0x0u
#define BTS_FILE_WRITE 0x1u    /* read and write */
#define BTS_FILE_CREATE 0x2u   /* create when absent, mode 0666 less umask */
#define BTS_FILE_EXCL 0x4u     /* with CREATE: EEXIST when present */
#define BTS_FILE_TRUNCATE 0x8u

struct bts_env_ops {
	/* files; *file is owned: file_close */
	int (*file_open)(struct bts_env *, const char *path, unsigned flags, struct bts_file **file);
	void (*file_close)(struct bts_file *);
	/* a new file without a name, to read and write, in the directory that holds path: gone with its handle */
	int (*file_temp)(struct bts_env *, const char *path, struct bts_file **file);
	/* in a child after fork: give the descriptor up without a word to its locks; only file_close may follow */
	void (*file_abandon)(struct bts_file *);
	/* *got < size only at end of file */
	int (*file_pread)(struct bts_file *, void *data, size_t size, uint64_t offset, size_t *got);
	/* all of it, or an error (then any part may have been written); iov is scratch the call may change */
	int (*file_pwritev)(struct bts_file *, struct iovec *iov, int count, uint64_t offset);
	/* begin to bring to the disk what was written there, without waiting; a hint.  NULL: nothing to begin */
	void (*file_start)(struct bts_file *, uint64_t offset, uint64_t size);
	int (*file_sync)(struct bts_file *); /* fdatasync */
	int (*file_truncate)(struct bts_file *, uint64_t size);
	/* allocate blocks so that later writes below size do not extend the file; may extend it; ENOTSUP is no failure */
	int (*file_reserve)(struct bts_file *, uint64_t size);
	int (*file_identity)(struct bts_file *, struct bts_file_identity *);
	/* read-only view of the file from offset 0 that follows its growth without moving; bytes past end of file
	 * must not be touched */
	int (*file_map)(struct bts_file *, size_t size, const uint8_t **base);
	/* shared, writable; a lock file has at least that size, a file of file_temp may be shorter, and bytes past its
	 * end must not be touched */
	int (*file_map_shared)(struct bts_file *, size_t size, void **base);
	void (*file_unmap)(struct bts_file *, const void *base, size_t size);
	/* open-file-description lock of the byte range; EAGAIN when wait is 0 and it is held elsewhere */
	int (*file_lock)(struct bts_file *, uint64_t offset, uint64_t size, enum bts_lock_kind, int wait);
	/* *held = somebody else holds a lock that would refuse an exclusive one */
	int (*file_lock_test)(struct bts_file *, uint64_t offset, uint64_t size, int *held);

	/* a descriptor of the caller's, a pipe perhaps (backups): from where it stands on */
	int (*fd_write)(struct bts_env *, int fd, const void *data, size_t size); /* all of it */
	int (*fd_skip)(struct bts_env *, int fd, uint64_t size); /* leave a hole of zeros; ESPIPE: not possible here */
	int (*fd_read)(struct bts_env *, int fd, void *data, size_t size, size_t *got); /* *got < size only at the end */

	/* names */
	int (*path_link)(struct bts_env *, const char *from, const char *to); /* EEXIST, never clobbers */
	int (*path_unlink)(struct bts_env *, const char *path);
	int (*path_sync_dir)(struct bts_env *, const char *path); /* flush the directory that holds path */
	/* path as it leads to the same file from any working directory, in size bytes; NULL: every path does */
	int (*path_whole)(struct bts_env *, const char *path, char *out, size_t size);

	/* waiting on a 32-bit word in a shared mapping, across processes (a futex); 0, ETIMEDOUT, or spurious 0;
	 * timeout UINT_MAX: for ever */
	int (*wait)(struct bts_env *, const uint32_t *word, uint32_t expected, unsigned timeout_ms);
	void (*wake)(struct bts_env *, const uint32_t *word); /* all waiters */

	uint64_t (*clock_ms)(struct bts_env *);    /* monotonic, goes on while the machine sleeps: deadlines are by it */
	uint64_t (*tick_ms)(struct bts_env *);     /* a monotonic clock of its own, cheap, may lag by some milliseconds */
	uint64_t (*realtime_ms)(struct bts_env *); /* since 1970 */
	int (*random)(struct bts_env *, void *data, size_t size);
	uint32_t (*process_id)(struct bts_env *);
	void *(*memory)(struct bts_env *, void *old, size_t size); /* realloc; size 0 frees and returns NULL */
	/* a named protocol step was reached: 0 to go on, an errno to fail there */
	int (*fault)(struct bts_env *, const char *point);
};

struct bts_env {
	const struct bts_env_ops *ops;
};

/* The operating system.  Static, threads may share it. */
struct bts_env *bts_env_posix(void) __attribute__((visibility("default")));

#ifdef __cplusplus
}
#endif
#endif
