/*
 * Files, names, plans and counters of the environment in memory.  The fault model stands in env_mem.h.
 *
 * Images are recycled through a small pool, because a test makes a new environment for every crash state and
 * mapping, faulting in and unmapping the pages would cost more than the copy.
 */
#include "env_mem_private.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define ENV_MEM_POOL 16
#define ENV_MEM_POOL_BYTES ((uint64_t)8 << 20) /* a larger image is given back to the system */

/* An image that lies idle; all of it is zero but the first `used` bytes. */
static struct env_mem_idle {
	uint8_t *base;
	size_t reserve;
	uint64_t used;
} env_mem_pool[ENV_MEM_POOL];

static size_t env_mem_image_bytes(size_t reserve)
{
	return reserve + reserve / ENV_MEM_SECTOR * sizeof(uint32_t);
}

/* The first keep bytes may hold anything, the rest is zero. */
static uint8_t *env_mem_image_get(size_t reserve, uint64_t keep)
{
	uint8_t *base;

	for (int i = 0; i < ENV_MEM_POOL; i++) {
		struct env_mem_idle *idle = &env_mem_pool[i];

		if (!idle->base || idle->reserve != reserve)
			continue;
		base = idle->base;
		if (idle->used > keep)
			memset(base + keep, 0, idle->used - keep);
		idle->base = NULL;
		return base;
	}
	base = mmap(NULL, env_mem_image_bytes(reserve), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ENSURE(base != MAP_FAILED);
	return base;
}

static void env_mem_image_put(uint8_t *base, size_t reserve, uint64_t used)
{
	if (used <= ENV_MEM_POOL_BYTES)
		for (int i = 0; i < ENV_MEM_POOL; i++)
			if (!env_mem_pool[i].base) {
				env_mem_pool[i] = (struct env_mem_idle){base, reserve, used};
				return;
			}
	munmap(base, env_mem_image_bytes(reserve));
}

void *env_mem_grow(void *data, size_t count, size_t *cap, size_t element)
{
	if (count < *cap)
		return data;
	*cap = *cap ? *cap * 2 : 16;
	data = realloc(data, *cap * element);
	ENSURE(data);
	return data;
}

static bool env_mem_is_lock(const char *path)
{
	size_t length = strlen(path);

	return length >= 5 && !strcmp(path + length - 5, "-lock");
}

static struct env_mem_file *env_mem_file_make(struct env_mem *m, uint64_t keep)
{
	struct env_mem_file *f = calloc(1, sizeof(*f));

	ENSURE(f);
	f->base = env_mem_image_get(m->reserve, keep);
	f->index = (uint32_t *)(f->base + m->reserve);
	f->used = keep;
	*m->files_end = f;
	m->files_end = &f->next;
	return f;
}

struct env_mem_file *env_mem_file_new(struct env_mem *m, const char *path)
{
	struct env_mem_file *f = env_mem_file_make(m, 0);

	f->number = m->next_number++;
	f->birth_ns = UINT64_C(1700000000000000000) + f->number;
	f->is_lock = env_mem_is_lock(path);
	return f;
}

struct env_mem_file *env_mem_file_copy(struct env_mem *to, struct env_mem_file *f)
{
	struct env_mem_file *g = env_mem_file_make(to, f->used);

	memcpy(g->base, f->base, f->used);
	g->number = f->number;
	g->birth_ns = f->birth_ns;
	g->is_lock = f->is_lock;
	g->size = f->size;
	f->twin = g;
	return g;
}

static void env_mem_file_forget(struct env_mem_file *f)
{
	for (size_t i = 0; i < f->dirty_count; i++)
		f->index[f->dirty[i].sector] = 0;
	f->dirty_count = 0;
	f->version_count = 0;
}

static void env_mem_file_free(struct env_mem *m, struct env_mem_file *f)
{
	env_mem_file_forget(f);
	env_mem_image_put(f->base, m->reserve, f->used);
	free(f->dirty);
	free(f->versions);
	free(f->locks);
	free(f);
}

static uint32_t env_mem_file_push(struct env_mem_file *f, uint32_t older, const uint8_t *data)
{
	f->versions = env_mem_grow(f->versions, f->version_count, &f->version_cap, sizeof(*f->versions));
	f->versions[f->version_count].older = older;
	memcpy(f->versions[f->version_count].data, data, ENV_MEM_SECTOR);
	return (uint32_t)f->version_count++;
}

/* The sector at `at` of the volatile image is about to become data. */
static void env_mem_file_sector(struct env_mem_file *f, uint64_t at, const uint8_t *data)
{
	uint32_t sector = (uint32_t)(at / ENV_MEM_SECTOR);
	struct env_mem_dirty *d;

	if (f->is_lock) {
		memcpy(f->base + at, data, ENV_MEM_SECTOR);
		return;
	}
	if (f->index[sector] == 0) {
		if (!memcmp(f->base + at, data, ENV_MEM_SECTOR))
			return;
		f->dirty = env_mem_grow(f->dirty, f->dirty_count, &f->dirty_cap, sizeof(*f->dirty));
		f->dirty[f->dirty_count] =
			(struct env_mem_dirty){sector, 1, env_mem_file_push(f, 0, f->base + at)};
		f->index[sector] = (uint32_t)++f->dirty_count;
	}
	d = &f->dirty[f->index[sector] - 1];
	if (memcmp(f->versions[d->newest].data, data, ENV_MEM_SECTOR)) {
		d->newest = env_mem_file_push(f, d->newest, data);
		d->count++;
	}
	memcpy(f->base + at, data, ENV_MEM_SECTOR);
}

void env_mem_file_write(struct env_mem_file *f, const void *data, size_t size, uint64_t offset)
{
	const uint8_t *from = data;
	uint8_t sector[ENV_MEM_SECTOR];

	if (offset + size > f->size)
		env_mem_file_resize(f, offset + size);
	while (size > 0) {
		uint64_t at = offset / ENV_MEM_SECTOR * ENV_MEM_SECTOR;
		size_t skip = (size_t)(offset - at);
		size_t take = ENV_MEM_SECTOR - skip < size ? ENV_MEM_SECTOR - skip : size;

		if (take == ENV_MEM_SECTOR) {
			env_mem_file_sector(f, at, from);
		} else {
			memcpy(sector, f->base + at, sizeof(sector));
			memcpy(sector + skip, from, take);
			env_mem_file_sector(f, at, sector);
		}
		from += take;
		offset += take;
		size -= take;
	}
}

void env_mem_file_resize(struct env_mem_file *f, uint64_t size)
{
	uint64_t from = size;
	uint8_t sector[ENV_MEM_SECTOR];

	/* A lock file is large and hardly touched: its pages are given back, not cleared. */
	if (f->is_lock && size == 0 && f->size > 0) {
		ENSURE(madvise(f->base, f->size, MADV_DONTNEED) == 0);
		from = f->size;
	}
	while (from < f->size) {
		uint64_t at = from / ENV_MEM_SECTOR * ENV_MEM_SECTOR;
		size_t skip = (size_t)(from - at);

		memcpy(sector, f->base + at, skip);
		memset(sector + skip, 0, ENV_MEM_SECTOR - skip);
		env_mem_file_sector(f, at, sector);
		from = at + ENV_MEM_SECTOR;
	}
	f->size = size;
	if (f->used < size)
		f->used = (size + ENV_MEM_SECTOR - 1) / ENV_MEM_SECTOR * ENV_MEM_SECTOR;
}

void env_mem_file_flush(struct env_mem_file *f)
{
	size_t kept = 0;

	f->durable_size = f->size;
	/* A sector with nothing but its durable version was dropped by a failed flush: this one does not
	 * write it. */
	for (size_t i = 0; i < f->dirty_count; i++) {
		f->index[f->dirty[i].sector] = 0;
		if (f->dirty[i].count == 1) {
			f->dirty[kept] = f->dirty[i];
			f->index[f->dirty[i].sector] = (uint32_t)++kept;
		}
	}
	f->dirty_count = kept;
	if (kept == 0)
		f->version_count = 0;
}

void env_mem_file_drop(struct env_mem_file *f)
{
	for (size_t i = 0; i < f->dirty_count; i++) {
		struct env_mem_dirty *d = &f->dirty[i];

		for (; d->count > 1; d->count--)
			d->newest = f->versions[d->newest].older;
	}
}

const struct env_mem_version *env_mem_file_version(
	const struct env_mem_file *f, const struct env_mem_dirty *d, unsigned k)
{
	uint32_t at = d->newest;

	ENSURE(k < d->count);
	for (unsigned steps = d->count - 1 - k; steps > 0; steps--)
		at = f->versions[at].older;
	return &f->versions[at];
}

struct env_mem_name *env_mem_name_find(const struct env_mem *m, const char *path)
{
	for (size_t i = 0; i < m->name_count; i++)
		if (!strcmp(m->names[i].path, path))
			return &m->names[i];
	return NULL;
}

struct env_mem_file *env_mem_name_target(const struct env_mem *m, const char *path)
{
	const struct env_mem_name *name = env_mem_name_find(m, path);

	return name ? name->targets[name->count - 1] : NULL;
}

static void env_mem_name_push(struct env_mem_name *name, struct env_mem_file *target)
{
	name->targets = env_mem_grow(name->targets, name->count, &name->cap, sizeof(*name->targets));
	name->targets[name->count++] = target;
}

void env_mem_name_set(struct env_mem *m, const char *path, struct env_mem_file *target)
{
	struct env_mem_name *name = env_mem_name_find(m, path);

	if (!name) {
		ENSURE(strlen(path) < ENV_MEM_PATH_MAX);
		m->names = env_mem_grow(m->names, m->name_count, &m->name_cap, sizeof(*m->names));
		name = &m->names[m->name_count++];
		memset(name, 0, sizeof(*name));
		strcpy(name->path, path);
		env_mem_name_push(name, NULL);
	}
	env_mem_name_push(name, target);
	if (env_mem_is_lock(path))
		env_mem_name_flush(name);
}

void env_mem_name_flush(struct env_mem_name *name)
{
	name->targets[0] = name->targets[name->count - 1];
	name->count = 1;
}

struct env_mem *env_mem_new(size_t reserve)
{
	static uint64_t device; /* so that two environments never show the same identity */
	struct env_mem *m = calloc(1, sizeof(*m));

	ENSURE(m);
	m->env.ops = &env_mem_ops;
	m->reserve = reserve ? (reserve + 65535) / 65536 * 65536 : ENV_MEM_RESERVE_DEFAULT;
	m->device = ++device;
	m->next_number = 1;
	m->clock = 1000;
	m->files_end = &m->files;
	rng_init(&m->rng, 1);
	return m;
}

void env_mem_free(struct env_mem *m)
{
	if (!m)
		return;
	env_mem_handles_free(m);
	while (m->files) {
		struct env_mem_file *f = m->files;

		m->files = f->next;
		env_mem_file_free(m, f);
	}
	for (size_t i = 0; i < m->name_count; i++)
		free(m->names[i].targets);
	free(m->names);
	free(m);
}

struct bts_env *env_mem_env(struct env_mem *m)
{
	return &m->env;
}

struct env_mem *env_mem_of(struct bts_env *env)
{
	ENSURE(env->ops == &env_mem_ops);
	return (struct env_mem *)env;
}

void env_mem_set_hook(struct env_mem *m, env_mem_hook_fn *hook, void *arg)
{
	m->hook = hook;
	m->hook_arg = arg;
}

const struct env_mem_counters *env_mem_counters(const struct env_mem *m)
{
	return &m->counters;
}

static void env_mem_plan(struct env_mem *m, struct env_mem_plan plan)
{
	for (int i = 0; i < ENV_MEM_PLANS; i++)
		if (m->plans[i].left == 0) {
			m->plans[i] = plan;
			return;
		}
	ENSURE(!"too many plans");
}

void env_mem_fail(struct env_mem *m, enum env_mem_op op, uint64_t nth, int err, unsigned flags)
{
	env_mem_plan(m, (struct env_mem_plan){op, NULL, nth, err, flags});
}

void env_mem_fail_point(struct env_mem *m, const char *point, uint64_t nth, int err, unsigned flags)
{
	env_mem_plan(m, (struct env_mem_plan){ENV_MEM_FAULT, point, nth, err, flags});
}

void env_mem_fail_memory(struct env_mem *m, uint64_t nth, unsigned flags)
{
	m->memory_left = nth;
	m->memory_sticky = flags & ENV_MEM_STICKY;
}

void env_mem_fail_clear(struct env_mem *m)
{
	memset(m->plans, 0, sizeof(m->plans));
	m->memory_left = 0;
}

uint64_t env_mem_failed(const struct env_mem *m)
{
	return m->failed;
}

static bool env_mem_plan_meets(const struct env_mem_plan *plan, const struct env_mem_event *event)
{
	if (plan->point)
		return event->op == ENV_MEM_FAULT && !strcmp(plan->point, event->path);
	if (plan->op == ENV_MEM_ANY)
		return event->op != ENV_MEM_FAULT;
	return plan->op == event->op || (plan->op == ENV_MEM_OPEN && event->op == ENV_MEM_CREATE);
}

int env_mem_begin(struct env_mem *m, const struct env_mem_event *event, unsigned *mode)
{
	static const bool told[ENV_MEM_OPS] = {
		[ENV_MEM_WRITE] = true,
		[ENV_MEM_SYNC] = true,
		[ENV_MEM_TRUNCATE] = true,
		[ENV_MEM_RESERVE] = true,
		[ENV_MEM_CREATE] = true,
		[ENV_MEM_LINK] = true,
		[ENV_MEM_UNLINK] = true,
		[ENV_MEM_SYNC_DIR] = true,
		[ENV_MEM_FAULT] = true,
	};

	if (m->hook && (told[event->op] || (event->op == ENV_MEM_LOCK && m->tell_locks)))
		m->hook(m->hook_arg, m, event);
	m->counters.ops[event->op]++;
	if (event->op == ENV_MEM_CREATE)
		m->counters.ops[ENV_MEM_OPEN]++;
	for (int i = 0; i < ENV_MEM_PLANS; i++) {
		struct env_mem_plan *plan = &m->plans[i];

		if (plan->left == 0 || !env_mem_plan_meets(plan, event) || --plan->left > 0)
			continue;
		plan->left = plan->flags & ENV_MEM_STICKY ? 1 : 0;
		m->failed++;
		if (mode)
			*mode = plan->flags;
		return plan->flags & ENV_MEM_LIE ? 0 : plan->err;
	}
	return 0;
}

uint64_t env_mem_point_hits(const struct env_mem *m, const char *point)
{
	for (size_t i = 0; i < m->point_count; i++)
		if (!strcmp(m->points[i].name, point))
			return m->points[i].hits;
	return 0;
}

const uint8_t *env_mem_bytes(const struct env_mem *m, const char *path, uint64_t *size)
{
	const struct env_mem_file *f = env_mem_name_target(m, path);

	if (!f)
		return NULL;
	*size = f->size;
	return f->base;
}

void env_mem_put_file(struct env_mem *m, const char *path, const void *data, uint64_t size)
{
	struct env_mem_file *f = env_mem_file_new(m, path);

	ENSURE(size <= m->reserve);
	env_mem_file_write(f, data, size, 0);
	env_mem_file_flush(f);
	env_mem_name_set(m, path, f);
	env_mem_name_flush(env_mem_name_find(m, path));
}

void env_mem_flip(struct env_mem *m, const char *path, uint64_t offset, uint8_t mask)
{
	struct env_mem_file *f = env_mem_name_target(m, path);
	uint32_t slot, at;

	ENSURE(f && offset < f->size);
	f->base[offset] ^= mask;
	slot = f->index[offset / ENV_MEM_SECTOR];
	if (slot == 0)
		return;
	at = f->dirty[slot - 1].newest;
	for (uint32_t left = f->dirty[slot - 1].count; left > 0; left--, at = f->versions[at].older)
		f->versions[at].data[offset % ENV_MEM_SECTOR] ^= mask;
}

void env_mem_advance(struct env_mem *m, uint64_t ms)
{
	m->clock += ms;
}

void env_mem_seed(struct env_mem *m, uint64_t seed)
{
	rng_init(&m->rng, seed);
}

void env_mem_tell_locks(struct env_mem *m)
{
	m->tell_locks = true;
}
