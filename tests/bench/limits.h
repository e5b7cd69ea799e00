/* What bench_limits measures, a part a file. */
#ifndef LIMITS_H
#define LIMITS_H

#include "bench.h"

struct limits_part {
	int (*make)(struct bench *bench); /* what its works need; also after a failure, free follows */
	void (*free)(void);
	const struct bench_work *works;
	size_t count;
};

extern const struct limits_part limits_flush;
extern const struct limits_part limits_memory;
extern const struct limits_part limits_chase;
extern const struct limits_part limits_tree;

/* Memory of 4 KiB pages, or of huge ones where the kernel has them; touched.  NULL after bench_fail(). */
void *limits_map(size_t size, bool huge);
void limits_unmap(void *map, size_t size); /* NULL is fine */

/* Keep the compiler from dropping a computation whose result nobody reads. */
static inline void limits_keep(uint64_t value)
{
	__asm__ volatile("" : : "r"(value) : "memory");
}

#endif
