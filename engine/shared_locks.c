/*
 * Locks between processes: who may build, flush and publish.
 *
 * The lock itself is a byte lock of the open file description: the kernel drops it with the process, in any pid namespace.  A
 * word in shared memory beside it names the holder; it is cleared before the byte is released, so whoever takes the byte and
 * finds a word knows that the holder died, and has to put in order what it left.  A holder that is stopped lives: others wait,
 * and are told whom for.
 *
 * Waiting: on a futex that the holder touches when it releases, and by trying again now and then, since a holder that
 * dies touches nothing.
 */
#include "shared_map.h"

#include <errno.h>
#include <inttypes.h>

#include "error.h"

#define SHARED_LOCK_RETRY_MS 10u /* how late the death of a holder is noticed */

static const char *const shared_lock_names[SHARED_LOCKS] = { "build", "flush", "publish" };

static enum bts_err shared_lock_busy(struct shared *s, enum shared_lock which, uint64_t waited, struct bts_error *error)
{
	uint64_t since;
	uint32_t pid;

	if (!shared_lock_owner(s, which, &pid, &since))
		return error_set(error, BTS_BUSY, 0, "%s: waited %" PRIu64 " ms for the %s lock", s->path, waited,
			shared_lock_names[which]);
	return error_set(error, BTS_BUSY, 0, "%s: process %" PRIu32 " has held the %s lock for %" PRIu64 " ms", s->path, pid,
		shared_lock_names[which], s->env->ops->clock_ms(s->env) - since);
}

static void shared_lock_wait(struct shared *s, struct shared_lock_word *lock)
{
	uint32_t word = atomic_load(&lock->word);

	atomic_fetch_add(&lock->waiters, 1);
	/* No holder named: released since the attempt, or taken by somebody who has not written his name yet. */
	s->env->ops->wait(s->env, (const uint32_t *)&lock->word, word, atomic_load(&lock->owner) ? SHARED_LOCK_RETRY_MS : 1);
	atomic_fetch_sub(&lock->waiters, 1);
}

enum bts_err shared_lock_until(struct shared *s, enum shared_lock which, unsigned timeout_ms, bts_txid done, bool *orphaned,
	struct bts_error *error)
{
	const struct bts_env_ops *ops = s->env->ops;
	struct shared_lock_word *lock = &s->map->locks[which];
	uint64_t began = 0, now;

	for (;;) {
		int os = ops->file_lock(s->lock, SHARED_BYTE_LOCK + which, 1, BTS_LOCK_EXCLUSIVE, 0);

		if (!os)
			break;
		if (os != EAGAIN)
			return error_os(error, os, "lock file %s: cannot lock", s->path);
		if (shared_durable_txid(s) >= done)
			return BTS_NOT_FOUND;
		now = ops->clock_ms(s->env);
		began = began ? began : now;
		if (timeout_ms && now - began >= timeout_ms)
			return shared_lock_busy(s, which, now - began, error);
		shared_lock_wait(s, lock);
	}
	*orphaned = atomic_load(&lock->owner) != 0;
	/* An orphan keeps its old word until it is settled: if we die before, the next one must see it too. */
	if (!*orphaned)
		atomic_store(&lock->owner, s->owner);
	atomic_store(&lock->pid, atomic_load(&s->map->pids[s->index]));
	atomic_store(&lock->since_ms, ops->clock_ms(s->env));
	return BTS_OK;
}

enum bts_err shared_lock(struct shared *s, enum shared_lock which, unsigned timeout_ms, bool *orphaned, struct bts_error *error)
{
	return shared_lock_until(s, which, timeout_ms, LAYOUT_TXID_LIMIT, orphaned, error);
}

void shared_lock_settled(struct shared *s, enum shared_lock which)
{
	atomic_store(&s->map->locks[which].owner, s->owner);
}

void shared_unlock(struct shared *s, enum shared_lock which)
{
	struct shared_lock_word *lock = &s->map->locks[which];

	if (s->foreign) /* the parent's lock */
		return;
	if (atomic_load(&lock->owner) == s->owner)
		atomic_store(&lock->owner, 0);
	s->env->ops->file_lock(s->lock, SHARED_BYTE_LOCK + which, 1, BTS_LOCK_NONE, 0);
	if (atomic_load(&lock->waiters)) {
		atomic_fetch_add(&lock->word, 1);
		s->env->ops->wake(s->env, (const uint32_t *)&lock->word);
	}
}

bool shared_lock_owner(struct shared *s, enum shared_lock which, uint32_t *pid, uint64_t *since_ms)
{
	struct shared_lock_word *lock = &s->map->locks[which];

	*pid = atomic_load(&lock->pid);
	*since_ms = atomic_load(&lock->since_ms);
	return atomic_load(&lock->owner) != 0;
}

bool shared_lock_orphaned(struct shared *s, enum shared_lock which)
{
	uint64_t owner = atomic_load(&s->map->locks[which].owner);

	return owner != 0 && owner != s->owner && !shared_alive(s, owner);
}

void shared_lose_numbers(struct shared *s)
{
	atomic_store(&s->map->lost, shared_assigned(s));
}

bool shared_lost_numbers(const struct shared *s)
{
	return atomic_load(&s->map->lost) > shared_durable_txid(s);
}
