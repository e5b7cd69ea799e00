/*
 * The table of leases (lease.h) in the lock file: which runs of pages transactions in progress are writing.
 *
 * An entry is taken and cleared by whoever holds the build lock.  Only its owner word changes without: it tells that the owner
 * needs the pages no longer (left), that he died and somebody else has his index now (gone), or that a builder has told everybody
 * to forget what they know of free space (dead).  Words of living owners have an index in their low 16 bits, these have none.
 */
#include "shared_map.h"

#include "base/ensure.h"

#define LEASES_LEFT (UINT64_C(1) << 16)
#define LEASES_GONE (UINT64_C(2) << 16)
#define LEASES_DEAD (UINT64_C(3) << 16)

uint32_t shared_leases(const struct shared *s)
{
	return atomic_load(&s->map->leases_used);
}

bool shared_lease_take(struct shared *s, bts_pgno pgno, uint64_t count, uint32_t *index)
{
	for (uint32_t i = 0; i < SHARED_LEASES; i++) {
		struct shared_lease_word *lease = &s->map->leases[i];

		if (atomic_load(&lease->owner))
			continue;
		/* Counted first: who dies here leaves the count too high, which costs the others a look at nothing. */
		atomic_fetch_add(&s->map->leases_used, 1);
		atomic_store(&lease->pgno, pgno);
		atomic_store(&lease->count, count);
		atomic_store(&lease->owner, s->owner);
		*index = i;
		return true;
	}
	return false;
}

enum shared_lease_state shared_lease_get(
	const struct shared *s, uint32_t index, bts_pgno *pgno, uint64_t *count)
{
	const struct shared_lease_word *lease = &s->map->leases[index];
	uint64_t owner = atomic_load(&lease->owner);

	*pgno = atomic_load(&lease->pgno);
	*count = atomic_load(&lease->count);
	if (owner == 0)
		return SHARED_LEASE_NONE;
	if (owner == LEASES_LEFT)
		return SHARED_LEASE_LEFT;
	return owner == LEASES_DEAD ? SHARED_LEASE_DEAD : SHARED_LEASE_HELD;
}

void shared_lease_clear(struct shared *s, uint32_t index)
{
	ENSURE(atomic_exchange(&s->map->leases[index].owner, 0) != 0);
	atomic_fetch_sub(&s->map->leases_used, 1);
}

void shared_lease_leave(struct shared *s, uint32_t index)
{
	uint64_t owner = s->owner;

	atomic_compare_exchange_strong(&s->map->leases[index].owner, &owner, LEASES_LEFT);
}

void shared_leases_doubt(struct shared *s)
{
	for (uint32_t i = 0; shared_leases(s) > 0 && i < SHARED_LEASES; i++) {
		uint64_t owner = LEASES_LEFT;

		atomic_compare_exchange_strong(&s->map->leases[i].owner, &owner, LEASES_GONE);
	}
}

void shared_leases_forget(struct shared *s, uint32_t index)
{
	for (uint32_t i = 0; shared_leases(s) > 0 && i < SHARED_LEASES; i++) {
		uint64_t owner = atomic_load(&s->map->leases[i].owner);

		if ((owner & 0xffff) == index + 1)
			atomic_compare_exchange_strong(&s->map->leases[i].owner, &owner, LEASES_GONE);
	}
}

bool shared_leases_bury(struct shared *s)
{
	uint64_t alive = s->owner;
	uint32_t used = 0;
	bool dead = false;

	for (uint32_t i = 0; i < SHARED_LEASES; i++) {
		struct shared_lease_word *lease = &s->map->leases[i];
		uint64_t owner = atomic_load(&lease->owner);

		used += owner != 0;
		if (owner == 0 || owner == LEASES_LEFT || owner == alive)
			continue;
		if (owner != LEASES_GONE && owner != LEASES_DEAD && shared_alive(s, owner)) {
			alive = owner; /* neighbours often have one owner, and asking takes a call */
			continue;
		}
		/* An owner that is still closing may say so meanwhile: then the pages are left, which will do. */
		if (atomic_compare_exchange_strong(&lease->owner, &owner, LEASES_DEAD))
			dead = true;
	}
	atomic_store(&s->map->leases_used, used);
	return dead;
}
