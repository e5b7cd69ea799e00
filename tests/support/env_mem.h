/*
 * An environment in memory that forgets what was not flushed.  The fault model, exactly:
 *
 * Content.  A file has a volatile image, which reads and maps see at once, and a durable content.  A write
 * goes to the volatile image and, for every 512-byte sector that it changes, appends one version to that
 * sector's list. file_sync makes the newest version of every sector of that file, and its size, durable, and
 * empties the lists.
 *
 * Power loss keeps of every sector, independently of all others, either its durable content or any one of the
 * versions in its list: writes may be lost, reordered and torn at sectors.  A sector of the meta slots (the
 * first 4096 bytes at offsets 0 and 32768) may moreover mix two of these at any boundary of 8 bytes.  A
 * rewrite of equal bytes makes no version.
 *
 * Size.  A change of size (write past the end, truncate, reserve) is one more unit: power loss keeps the
 * durable size or the newest.  What lies beyond the kept size is absent; what was never written below it
 * reads as zero.  Bytes cut off and grown again are zero, or, when the cutting is lost, what they were.
 *
 * Names.  Creating, linking and unlinking change a name at once, and durably with path_sync_dir of its
 * directory. Until then power loss keeps, for each name independently, the durable target or any later one.
 * file_sync makes no name durable.
 *
 * Lock files (names ending in "-lock") and files without a name vanish: power loss ends every process.
 *
 * A failed sync (env_mem_fail with ENV_MEM_DROP) does what Linux does: the pages count as clean, reads still
 * see them, the disk keeps the old bytes, and a later sync succeeds without writing them.  A lying one
 * (ENV_MEM_LIE) returns success and makes nothing durable.
 *
 * Not modelled: stale garbage in blocks never written, bit rot by itself (env_mem_flip does it on demand),
 * SIGBUS past the end of the file (reads as zero), a map that keeps a page a failed write never reached.
 *
 * Several handles on one file in one environment are like several processes: their locks exclude each other.
 * One thread at a time.  Nothing ever blocks: wait answers ETIMEDOUT at once and moves the virtual clock on,
 * a lock that would have to be waited for answers EDEADLK.
 */
#ifndef SUPPORT_ENV_MEM_H
#define SUPPORT_ENV_MEM_H

#include <btree_store/env.h>

#define ENV_MEM_SECTOR 512
#define ENV_MEM_RESERVE_DEFAULT ((size_t)256 << 20)

struct env_mem;

/* Owned: env_mem_free.  reserve: the most bytes a file can have (ENOSPC beyond); 0 = default.  Never NULL. */
struct env_mem *env_mem_new(size_t reserve);
/* All handles must be closed or abandoned (they and the maps end here).  NULL is fine. */
void env_mem_free(struct env_mem *);
struct bts_env *env_mem_env(struct env_mem *); /* borrowed until env_mem_free */
struct env_mem *env_mem_of(struct bts_env *);

/* Kinds of operation, to count, to fail and to be told of. */
enum env_mem_op {
	ENV_MEM_OPEN,
	ENV_MEM_READ,
	ENV_MEM_WRITE,
	ENV_MEM_SYNC,
	ENV_MEM_TRUNCATE,
	ENV_MEM_RESERVE,
	ENV_MEM_IDENTITY,
	ENV_MEM_MAP,
	ENV_MEM_LOCK,
	ENV_MEM_LINK,
	ENV_MEM_UNLINK,
	ENV_MEM_SYNC_DIR,
	ENV_MEM_RANDOM,
	ENV_MEM_CREATE, /* an open that makes the file; counted and failed as ENV_MEM_OPEN too */
	ENV_MEM_FAULT,	/* a fault point; path is its name */
	ENV_MEM_OPS,
	ENV_MEM_ANY = ENV_MEM_OPS, /* to fail: all kinds but ENV_MEM_FAULT */
};

struct env_mem_event {
	enum env_mem_op op;
	const char *path; /* borrowed for the call */
	uint64_t offset;  /* of a write; of a truncate or reserve, the new size */
	uint64_t size;	  /* bytes of a write */
};
/*
 * Called before every write, sync, truncate, reserve, create, link, unlink, sync_dir and fault point, in that
 * order of time, before it has any effect.  The hook may call env_mem_crash and the other functions that only
 * look.
 */
typedef void env_mem_hook_fn(void *arg, struct env_mem *, const struct env_mem_event *);
void env_mem_set_hook(struct env_mem *, env_mem_hook_fn *, void *arg); /* NULL: none */
void env_mem_tell_locks(struct env_mem *); /* the hook is told of locking and unlocking too */

struct env_mem_counters {
	uint64_t ops[ENV_MEM_OPS];
	uint64_t bytes_written, bytes_read;
	uint64_t allocations; /* calls of memory with a size */
	uint64_t live_blocks; /* allocated and not freed */
};
/* Borrowed until env_mem_free; moves on. */
const struct env_mem_counters *env_mem_counters(const struct env_mem *);

/* Failing on purpose. */
#define ENV_MEM_STICKY 0x1u  /* the n-th and all later ones */
#define ENV_MEM_DROP 0x2u    /* of a sync: drop the dirty pages */
#define ENV_MEM_LIE 0x4u     /* of a sync: report success, do nothing; err is ignored */
#define ENV_MEM_PARTIAL 0x8u /* of a write: half of the bytes are written before it fails */
/* Fail the nth call from now (1: the next) of that kind with err.  At most 8 plans at a time. */
void env_mem_fail(struct env_mem *, enum env_mem_op, uint64_t nth, int err, unsigned flags);
/* Fail the nth time from now that the named fault point is reached.  point is borrowed until env_mem_free. */
void env_mem_fail_point(struct env_mem *, const char *point, uint64_t nth, int err, unsigned flags);
/* Fail the nth allocation from now (1: the next), or with ENV_MEM_STICKY it and all later ones. */
void env_mem_fail_memory(struct env_mem *, uint64_t nth, unsigned flags);
void env_mem_fail_clear(struct env_mem *);
uint64_t env_mem_failed(const struct env_mem *); /* how many calls failed so on purpose */
uint64_t env_mem_point_hits(const struct env_mem *, const char *point);

/* One thing whose fate power loss decides. */
enum env_mem_unit_kind { ENV_MEM_UNIT_SECTOR, ENV_MEM_UNIT_SIZE, ENV_MEM_UNIT_NAME };
struct env_mem_unit {
	enum env_mem_unit_kind kind;
	const char *path;  /* of the file, by one of its names; borrowed until the next operation */
	uint64_t offset;   /* of the sector */
	unsigned versions; /* choices: 0 the durable one, versions - 1 the newest */
	int tearable;	   /* a sector of a meta slot */
};
/* Fills at most cap, in the order that env_mem_crash asks in; returns how many there are. */
size_t env_mem_units(const struct env_mem *, struct env_mem_unit *units, size_t cap);
/* The number of (unit, version) that are not durable. */
size_t env_mem_unflushed(const struct env_mem *);

struct env_mem_choice {
	unsigned version;
	/* A tearable sector only: 8-byte word i comes from version `other` where bit i of words is set. */
	unsigned other;
	uint64_t words;
};
typedef struct env_mem_choice env_mem_choose_fn(void *arg, size_t index, const struct env_mem_unit *);
/*
 * What a power loss at this instant leaves when it decides as choose says: a new environment (owned:
 * env_mem_free) in which all is durable, without handles, hook or failures.  This one goes on unharmed.
 */
struct env_mem *env_mem_crash(const struct env_mem *, env_mem_choose_fn *choose, void *arg);
struct env_mem_choice env_mem_choose_durable(void *arg, size_t index, const struct env_mem_unit *);
struct env_mem_choice env_mem_choose_newest(void *arg, size_t index, const struct env_mem_unit *);
/* arg: uint64_t words of a bitmap over the units; a set bit keeps the newest version, a clear one the
 * durable. */
struct env_mem_choice env_mem_choose_bits(void *arg, size_t index, const struct env_mem_unit *);
/*
 * What the death of every process leaves when the machine goes on: a new environment with the same volatile
 * and durable state, lock files included, and no handle or lock.
 */
struct env_mem *env_mem_clone(const struct env_mem *);
/* Of all names and what reads see of their files, lock files left out: equal for equal images. */
uint64_t env_mem_hash(const struct env_mem *);

/* Looking and damaging, by name. */
/* The volatile image, borrowed until env_mem_free, or NULL when there is no such file. */
const uint8_t *env_mem_bytes(const struct env_mem *, const char *path, uint64_t *size);
/* A durable file of these bytes (copied), replacing any of that name. */
void env_mem_put_file(struct env_mem *, const char *path, const void *data, uint64_t size);
/* Xor mask into the byte as stored: in the volatile image, the durable content and every version. */
void env_mem_flip(struct env_mem *, const char *path, uint64_t offset, uint8_t mask);

/* Nonzero: somebody else's lock would refuse this one now. */
int env_mem_lock_refused(struct bts_file *, uint64_t offset, uint64_t size, enum bts_lock_kind kind);
void env_mem_advance(struct env_mem *, uint64_t ms); /* the virtual clock */
void env_mem_seed(struct env_mem *, uint64_t seed);  /* of the random operation */

#endif
