/*
 * The inside of env_mem, shared by its files.
 */
#ifndef SUPPORT_ENV_MEM_PRIVATE_H
#define SUPPORT_ENV_MEM_PRIVATE_H

#include "env_mem.h"
#include "rng.h"

#include <ensure.h>

#include <stdbool.h>

#define ENV_MEM_PATH_MAX 256
#define ENV_MEM_PLANS 8
#define ENV_MEM_POINTS 64

/* One content of one sector. */
struct env_mem_version {
	uint32_t older; /* index of the version before it, in file->versions */
	uint8_t data[ENV_MEM_SECTOR];
};

/*
 * A sector whose volatile content is not its durable one, or that has versions to choose from.  Its oldest
 * version is the durable content, so that a clean sector needs no second copy and a flush only forgets.
 */
struct env_mem_dirty {
	uint32_t sector;
	uint32_t count;	 /* versions, the durable one included */
	uint32_t newest; /* index in file->versions */
};

struct env_mem_lock {
	const void *handle;
	uint64_t begin, end;
	enum bts_lock_kind kind;
};

/* A file's content, alive until env_mem_free whatever its names do. */
struct env_mem_file {
	struct env_mem_file *next;
	uint8_t *base;	 /* volatile image, `reserve` bytes of address space, zero from size on */
	uint32_t *index; /* by sector: position in dirty + 1, or 0 */
	uint64_t size, durable_size;
	uint64_t used; /* the most that size ever was */
	uint64_t number, birth_ns;
	bool is_lock; /* not part of any image */
	bool is_temp; /* the same, without a name, gone with its handle */
	struct env_mem_dirty *dirty;
	size_t dirty_count, dirty_cap;
	struct env_mem_version *versions;
	size_t version_count, version_cap;
	struct env_mem_lock *locks;
	size_t lock_count, lock_cap;
	struct env_mem_file *twin; /* its copy in the environment being made */
};

/* A name and what it stood for since its directory was last flushed; targets[0] is durable, NULL = absent. */
struct env_mem_name {
	char path[ENV_MEM_PATH_MAX];
	struct env_mem_file **targets;
	size_t count, cap;
};

struct env_mem_plan {
	enum env_mem_op op;
	const char *point; /* or NULL */
	uint64_t left;	   /* calls until it fires; 0 = unused */
	int err;
	unsigned flags;
};

struct env_mem_point {
	char name[64];
	uint64_t hits;
};

struct env_mem {
	struct bts_env env; /* first */
	size_t reserve;
	uint64_t device, next_number, clock;
	struct env_mem_file *files, **files_end; /* in order of creation */
	struct env_mem_name *names;
	size_t name_count, name_cap;
	void *handles; /* list of struct env_mem_handle, env_mem_ops.c */
	env_mem_hook_fn *hook;
	void *hook_arg;
	bool tell_locks;
	struct env_mem_counters counters;
	struct env_mem_plan plans[ENV_MEM_PLANS];
	uint64_t memory_left;
	bool memory_sticky;
	uint64_t failed;
	struct env_mem_point points[ENV_MEM_POINTS];
	size_t point_count;
	struct rng rng;
};

extern const struct bts_env_ops env_mem_ops;

/* Room for one more element in a vector. */
void *env_mem_grow(void *data, size_t count, size_t *cap, size_t element);

struct env_mem_file *env_mem_file_new(struct env_mem *, const char *path);
/* The volatile image of f and nothing else, as a file of another environment; f->twin becomes it. */
struct env_mem_file *env_mem_file_copy(struct env_mem *to, struct env_mem_file *f);
void env_mem_file_write(struct env_mem_file *, const void *data, size_t size, uint64_t offset);
void env_mem_file_resize(struct env_mem_file *, uint64_t size);
void env_mem_file_flush(struct env_mem_file *);
void env_mem_file_drop(struct env_mem_file *); /* what a failed flush does */
/* Version k of a dirty sector, 0 = durable. */
const struct env_mem_version *env_mem_file_version(
	const struct env_mem_file *, const struct env_mem_dirty *, unsigned k);

struct env_mem_name *env_mem_name_find(const struct env_mem *, const char *path);
struct env_mem_file *env_mem_name_target(const struct env_mem *, const char *path); /* or NULL */
void env_mem_name_set(struct env_mem *, const char *path, struct env_mem_file *target);
void env_mem_name_flush(struct env_mem_name *);

/*
 * An operation begins: tell the hook, count it, and answer the errno of a planned failure or 0.  *mode (may
 * be NULL) gets the flags of the plan that fired, with ENV_MEM_LIE the answer is 0.
 */
int env_mem_begin(struct env_mem *, const struct env_mem_event *, unsigned *mode);

void env_mem_handles_free(struct env_mem *);

#endif
