/*
 * What the machine itself allows, to judge the stores' times by: durable writes, copying and summing memory,
 * cache misses, and a bare tree of slotted nodes.
 */
#include "limits.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

void *limits_map(size_t size, bool huge)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED) {
		bench_fail("%zu MiB of memory: %s", size >> 20, strerror(errno));
		return NULL;
	}
	/* A kernel without huge pages says EINVAL to either, and gives small ones. */
	(void)madvise(map, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(map, 1, size);
	return map;
}

void limits_unmap(void *map, size_t size)
{
	if (map)
		munmap(map, size);
}

int main(int argc, char **argv)
{
	static const struct bench_program program = {
		.question = "limits",
		.about = "the machine: durable writes, memcpy, CRC32C, cache misses, a bare tree",
		.machine = true,
	};
	static const struct limits_part *const parts[] = {
		&limits_flush, &limits_memory, &limits_chase, &limits_tree};
	static struct bench bench;
	int err = bench_init(&bench, argc, argv, &program);

	for (size_t i = 0; i < BENCH_COUNT(parts) && !err; i++) {
		err = parts[i]->make(&bench);
		if (!err)
			err = bench_run(&bench, parts[i]->works, parts[i]->count);
		parts[i]->free();
	}
	return bench_end(&bench, err);
}
