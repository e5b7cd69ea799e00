/* The environment of production, counting the bytes of ordinary memory that are in use. */
#ifndef MODEL_COUNT_H
#define MODEL_COUNT_H

#include <btree_store/env.h>
#include <malloc.h>

static struct bts_env_ops count_ops;
static struct bts_env count_env;
static size_t count_live, count_peak;

static void *count_memory(struct bts_env *env, void *old, size_t size)
{
	size_t had = old == NULL ? 0 : malloc_usable_size(old);
	void *fresh = bts_env_posix()->ops->memory(env, old, size);

	if (size != 0 && fresh == NULL)
		return NULL;
	count_live += (fresh == NULL ? 0 : malloc_usable_size(fresh)) - had;
	if (count_live > count_peak)
		count_peak = count_live;
	return fresh;
}

static inline void count_begin(void)
{
	count_env = *bts_env_posix();
	count_ops = *count_env.ops;
	count_ops.memory = count_memory;
	count_env.ops = &count_ops;
	count_live = count_peak = 0;
}

#endif
