/*
 * Memory of a write transaction: see spill.h.
 *
 * The file is mapped once, far beyond its end, and grows below the map.  What is given back is kept as ranges outside
 * the file, so that giving back touches no page; when there is no memory to note a range, it lies idle until the
 * transaction ends.
 */
#include "spill.h"

#include "base/ensure.h"
#include "error.h"

#include <errno.h>
#include <string.h>

#define SPILL_UNIT UINT64_C(4096)	    /* pieces of the file begin at multiples of this */
#define SPILL_MAP_MAX (UINT64_C(2) << 40)   /* address range to ask for; a value has at most half of it */
#define SPILL_MAP_MIN (UINT64_C(1) << 20)   /* and to be content with */
#define SPILL_STEP_MIN (UINT64_C(1) << 20)  /* the file grows by a quarter, but at least by this */
#define SPILL_STEP_MAX (UINT64_C(64) << 20) /* and at most by this */
#define SPILL_ZEROS 65536u
#define SPILL_SEARCH 32u /* ranges looked at for a large piece */

struct spill_range {
	uint64_t at, size;
};

struct spill_ranges {
	struct spill_range *items;
	size_t count, cap;
};

struct spill_file {
	struct bts_file *file;
	uint8_t *base;
	uint64_t mapped;	    /* bytes of address range */
	uint64_t reserved;	    /* bytes of the file that have blocks */
	uint64_t used;		    /* bytes given out at some time; free ranges lie below */
	struct spill_ranges slots;  /* free, of the size of a slot */
	struct spill_ranges others; /* free, of any other size */
};

static uint64_t spill_round(uint64_t size)
{
	return size == 0 ? SPILL_UNIT : (size + SPILL_UNIT - 1) & ~(SPILL_UNIT - 1);
}

void spill_init(struct spill *spill, struct bts_env *env, uint32_t slot)
{
	*spill = (struct spill){.env = env, .limit = UINT64_MAX, .slot = slot};
	slots_init(&spill->slots, env, slot);
}

void spill_near(struct spill *spill, const struct beside *near, uint64_t limit)
{
	spill->near = near;
	spill->limit = limit;
}

static void spill_file_free(struct bts_env *env, struct spill_file *f)
{
	if (f->base != NULL)
		env->ops->file_unmap(f->file, f->base, f->mapped);
	if (f->file != NULL)
		env->ops->file_close(f->file);
	env->ops->memory(env, f->slots.items, 0);
	env->ops->memory(env, f->others.items, 0);
	env->ops->memory(env, f, 0);
}

void spill_fini(struct spill *spill)
{
	if (spill->file != NULL)
		spill_file_free(spill->env, spill->file);
	slots_fini(&spill->slots);
	spill->file = NULL;
	spill->ending = false;
}

void spill_ending(struct spill *spill)
{
	spill->ending = true;
}

static int spill_map(struct bts_env *env, struct spill_file *f)
{
	void *base = NULL;
	int os = ENOMEM;

	for (f->mapped = SPILL_MAP_MAX; os && f->mapped >= SPILL_MAP_MIN; f->mapped /= 2) {
		os = env->ops->file_map_shared(f->file, f->mapped, &base);
		if (os == 0)
			break;
	}
	f->base = base;
	return os;
}

static enum bts_err spill_open(struct spill *spill, struct bts_error *error)
{
	struct bts_env *env = spill->env;
	struct spill_file *f = env->ops->memory(env, NULL, sizeof(*f));
	int os;

	if (f == NULL)
		return BTS_MEMORY;
	memset(f, 0, sizeof(*f));
	os = env->ops->file_temp(env, beside_path(spill->near), &f->file);
	if (os == 0)
		os = spill_map(env, f);
	if (os == 0) {
		spill->file = f;
		return BTS_OK;
	}
	spill_file_free(env, f);
	return error_os(error, os, "%s: cannot make a temporary file for a large transaction", spill->near->given);
}

/* Where a file system knows no reserving, writing does it. */
static int spill_fill(struct spill *spill, uint64_t to)
{
	static const uint8_t zeros[SPILL_ZEROS];
	struct spill_file *f = spill->file;

	for (uint64_t at = f->reserved; at < to;) {
		uint64_t size = to - at < sizeof(zeros) ? to - at : sizeof(zeros);
		struct iovec iov = {(void *)(uintptr_t)zeros, (size_t)size};
		int os = spill->env->ops->file_pwritev(f->file, &iov, 1, at);

		if (os)
			return os;
		at += size;
	}
	return 0;
}

static int spill_reserve_to(struct spill *spill, uint64_t to)
{
	struct spill_file *f = spill->file;
	int os = spill->env->ops->file_reserve(f->file, to);

	if (os == ENOTSUP || os == EOPNOTSUPP)
		os = spill_fill(spill, to);
	if (os == 0)
		f->reserved = to;
	return os;
}

/* Blocks for the first `need` bytes, and when there is room for some more. */
static enum bts_err spill_reserve(struct spill *spill, uint64_t need, struct bts_error *error)
{
	struct spill_file *f = spill->file;
	uint64_t step = f->reserved / 4;
	int os = ENOSPC;

	if (need <= f->reserved)
		return BTS_OK;
	if (step < SPILL_STEP_MIN)
		step = SPILL_STEP_MIN;
	if (step > SPILL_STEP_MAX)
		step = SPILL_STEP_MAX;
	step = (step + SPILL_UNIT - 1) & ~(SPILL_UNIT - 1);
	if (need > f->mapped)
		return error_set(error, BTS_LIMIT, 0,
			"a transaction of more than the %llu bytes that could be mapped",
			(unsigned long long)f->mapped);
	if (need + step <= f->mapped)
		os = spill_reserve_to(spill, need + step);
	if (error_from_os(os) == BTS_FULL)
		os = spill_reserve_to(spill, need);
	if (os == 0)
		return BTS_OK;
	return error_os(error, os, "%s: no room for the temporary file of a large transaction (%llu bytes)",
		spill->near->given, (unsigned long long)need);
}

/* A free range of at least that size, or its end when it is larger. */
static bool spill_reuse(struct spill_ranges *ranges, uint64_t size, uint64_t *at)
{
	size_t least = ranges->count > SPILL_SEARCH ? ranges->count - SPILL_SEARCH : 0;

	for (size_t i = ranges->count; i-- > least;) {
		struct spill_range *range = &ranges->items[i];

		if (range->size < size)
			continue;
		range->size -= size;
		*at = range->at + range->size;
		if (range->size == 0)
			*range = ranges->items[--ranges->count];
		return true;
	}
	return false;
}

static enum bts_err spill_take_file(
	struct spill *spill, uint64_t size, uint8_t **data, struct bts_error *error)
{
	struct spill_file *f = spill->file;
	enum bts_err err;
	uint64_t at;

	if (f == NULL) {
		err = spill_open(spill, error);
		if (err)
			return err;
		f = spill->file;
	}
	size = spill_round(size);
	if ((size == spill->slot && spill_reuse(&f->slots, size, &at)) ||
		spill_reuse(&f->others, size, &at)) {
		*data = f->base + at;
		return BTS_OK;
	}
	err = spill_reserve(spill, f->used + size, error);
	if (err)
		return err;
	*data = f->base + f->used;
	f->used += size;
	return BTS_OK;
}

enum bts_err spill_take(struct spill *spill, uint64_t size, uint8_t **data, struct bts_error *error)
{
	struct bts_env *env = spill->env;
	uint8_t *memory;

	if (size > spill->limit - spill->held && spill->near != NULL)
		return spill_take_file(spill, size, data, error);
	if (size == spill->slot)
		memory = slots_take(&spill->slots);
	else
		memory = env->ops->memory(env, NULL, size == 0 ? 1 : (size_t)size);
	if (memory == NULL)
		return BTS_MEMORY;
	spill->held += size;
	*data = memory;
	return BTS_OK;
}

static bool spill_in_file(const struct spill *spill, const uint8_t *data)
{
	const struct spill_file *f = spill->file;

	return f != NULL && data >= f->base && data < f->base + f->used;
}

static void spill_give_range(struct spill *spill, uint64_t at, uint64_t size)
{
	struct spill_file *f = spill->file;
	struct spill_ranges *ranges = size == spill->slot ? &f->slots : &f->others;

	if (at + size == f->used) {
		f->used = at;
		return;
	}
	if (ranges->count == ranges->cap) {
		size_t cap = ranges->cap == 0 ? 64 : ranges->cap * 2;
		void *fresh =
			spill->env->ops->memory(spill->env, ranges->items, cap * sizeof(*ranges->items));

		if (fresh == NULL)
			return;
		ranges->items = fresh;
		ranges->cap = cap;
	}
	ranges->items[ranges->count++] = (struct spill_range){at, size};
}

void spill_give(struct spill *spill, uint8_t *data, uint64_t size)
{
	if (data == NULL)
		return;
	if (spill_in_file(spill, data)) {
		if (!spill->ending)
			spill_give_range(spill, (uint64_t)(data - spill->file->base), spill_round(size));
		return;
	}
	ENSURE(spill->held >= size);
	spill->held -= size;
	if (size != spill->slot)
		spill->env->ops->memory(spill->env, data, 0);
	else if (!spill->ending) /* else all of them go at once */
		slots_give(&spill->slots, data);
}

/* true: done where it is. */
static bool spill_resize_here(struct spill *spill, uint8_t **data, uint64_t from, uint64_t to,
	enum bts_err *err, struct bts_error *error)
{
	struct spill_file *f = spill->file;
	uint64_t at, had = spill_round(from), want = spill_round(to);
	uint8_t *memory;

	*err = BTS_OK;
	if (!spill_in_file(spill, *data)) {
		if (to > spill->limit - spill->held + from && spill->near != NULL)
			return false;
		if (from == spill->slot || to == spill->slot)
			return from == to;
		memory = spill->env->ops->memory(spill->env, *data, to == 0 ? 1 : (size_t)to);
		if (memory == NULL) {
			*err = BTS_MEMORY;
			return true;
		}
		spill->held += to - from;
		*data = memory;
		return true;
	}
	at = (uint64_t)(*data - f->base);
	if (want < had)
		spill_give_range(spill, at + want, had - want);
	if (want <= had)
		return true;
	if (at + had != f->used)
		return false;
	*err = spill_reserve(spill, at + want, error);
	if (*err == BTS_OK)
		f->used = at + want;
	return true;
}

enum bts_err spill_resize(
	struct spill *spill, uint8_t **data, uint64_t from, uint64_t to, struct bts_error *error)
{
	uint8_t *fresh;
	enum bts_err err;

	if (spill_resize_here(spill, data, from, to, &err, error))
		return err;
	err = spill_take(spill, to, &fresh, error);
	if (err)
		return err;
	memcpy(fresh, *data, (size_t)(from < to ? from : to));
	spill_give(spill, *data, from);
	*data = fresh;
	return BTS_OK;
}
