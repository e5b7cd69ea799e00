/*
 * The deadline of those who write a file, as all its processes see it (deadline.h).
 *
 * One word, so that whoever reads it has all of it: 0: there is none in use; else milliseconds << 1 | 1, of which 0 is "in use, and
 * none was given".  Beside it the number of the term: deadlines that were moved on before they had passed are of one term.
 */
#include "shared_map.h"

void shared_deadline_use(struct shared *s)
{
	uint64_t word = 0;

	(void)!atomic_compare_exchange_strong(&s->map->deadline, &word, 1);
}

bool shared_deadline(const struct shared *s, uint64_t *ms)
{
	uint64_t word = atomic_load(&s->map->deadline);

	*ms = word >> 1;
	return word != 0;
}

uint32_t shared_deadline_term(const struct shared *s)
{
	return atomic_load(&s->map->deadline_terms);
}

void shared_deadline_set(struct shared *s, uint64_t ms, uint64_t now)
{
	uint64_t word = atomic_load(&s->map->deadline);

	do {
		if (ms != 0 && ms <= word >> 1)
			return;
		/* Before the word: who finds the new deadline also finds that it is not the old one moved on. */
		if (ms == 0 || word >> 1 <= now)
			atomic_fetch_add(&s->map->deadline_terms, 1);
	} while (!atomic_compare_exchange_weak(&s->map->deadline, &word, ms << 1 | 1));
}
