/* The file's role and the epoch that was promised for it, as all processes see them. */
#include "shared_map.h"

enum meta_role shared_role(const struct shared *s)
{
	return (enum meta_role)atomic_load(&s->map->role);
}

void shared_set_role(struct shared *s, enum meta_role role)
{
	/* Counted first: who finds the file a primary's again also finds that it was not. */
	if (role != META_PRIMARY && shared_role(s) == META_PRIMARY)
		atomic_fetch_add(&s->map->fences, 1);
	atomic_store(&s->map->role, role);
}

uint32_t shared_fences(const struct shared *s)
{
	return atomic_load(&s->map->fences);
}

uint32_t shared_promised(const struct shared *s, uint64_t *random)
{
	uint32_t epoch;

	do { /* numbers only grow, so one number on both sides is one promise */
		epoch = atomic_load(&s->map->promised);
		*random = atomic_load(&s->map->promised_random);
	} while (atomic_load(&s->map->promised) != epoch);
	return epoch;
}

void shared_set_promised(struct shared *s, uint32_t epoch, uint64_t random)
{
	if (atomic_load(&s->map->promised) >= epoch)
		return;
	atomic_store(&s->map->promised_random, random);
	atomic_store(&s->map->promised, epoch);
}
