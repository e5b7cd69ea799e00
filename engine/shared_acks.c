/*
 * What followers have acknowledged, for every process on the file to see (R7).
 *
 * The table is small and rarely written: a byte lock of the lock file keeps processes apart, a mutex the
 * threads of one handle, who share the lock.  A process that dies while it writes leaves at worst one entry
 * half old, half new.
 */
#include "shared_map.h"

#include <string.h>

#include "error.h"

static enum bts_err shared_acks_enter(struct shared *s, struct bts_error *error)
{
	int os;

	if (s->alone)
		return error_set(error, BTS_READ_ONLY, 0, "%s: this process may not write it", s->path);
	pthread_mutex_lock(&s->acks);
	os = s->env->ops->file_lock(s->lock, SHARED_BYTE_ACKS, 1, BTS_LOCK_EXCLUSIVE, 1);
	if (!os)
		return BTS_OK;
	pthread_mutex_unlock(&s->acks);
	return error_os(error, os, "lock file %s: cannot lock", s->path);
}

static void shared_acks_leave(struct shared *s)
{
	s->env->ops->file_lock(s->lock, SHARED_BYTE_ACKS, 1, BTS_LOCK_NONE, 0);
	pthread_mutex_unlock(&s->acks);
}

/* The node's entry, else a free one, else the one unseen for longest. */
static struct shared_ack *shared_ack_entry(struct shared_map *map, const char *node)
{
	struct shared_ack *best = NULL;
	size_t i;

	for (i = 0; i < SHARED_ACKS_MAX; i++) {
		struct shared_ack *at = &map->acks[i];

		if (at->ack.node[0] && strncmp(at->ack.node, node, sizeof(at->ack.node)) == 0)
			return at;
		if (!best || (best->ack.node[0] && (!at->ack.node[0] || at->ack.seen_ms < best->ack.seen_ms)))
			best = at;
	}
	return best;
}

/* What the node's entry becomes: positions only grow (R7), and a session that comes back has a twin. */
static void shared_ack_merge(struct shared_ack *at, struct bts_ack *entry)
{
	const struct bts_ack *old = &at->ack;

	entry->alarms = old->alarms;
	entry->twins = old->twins;
	if (entry->epoch < old->epoch || (entry->epoch == old->epoch && entry->txid < old->txid)) {
		entry->alarms++;
		entry->epoch = old->epoch;
		entry->epoch_random = old->epoch_random;
		entry->txid = old->txid;
	}
	if (entry->session == old->session)
		return;
	entry->twins += entry->session && entry->session == at->session_before;
	at->session_before = old->session;
}

enum bts_err shared_ack_record(struct shared *s, const struct bts_ack *ack, struct bts_error *error)
{
	struct bts_ack entry = *ack;
	struct shared_ack *at;
	enum bts_err err;

	entry.node[sizeof(entry.node) - 1] = '\0';
	entry.url[sizeof(entry.url) - 1] = '\0';
	entry.alarms = entry.twins = 0;
	if (!entry.node[0])
		return error_set(error, BTS_INVALID, 0, "an acknowledgement without the node's name");
	err = shared_acks_enter(s, error);
	if (err)
		return err;
	at = shared_ack_entry(s->map, entry.node);
	if (strncmp(at->ack.node, entry.node, sizeof(at->ack.node)) == 0)
		shared_ack_merge(at, &entry);
	else
		at->session_before = 0;
	at->ack = entry;
	shared_acks_leave(s);
	/* After the entry: who sees the new count and then lists finds it. */
	shared_wake_acks(s);
	return BTS_OK;
}

size_t shared_ack_list(struct shared *s, struct bts_ack *acks, size_t cap)
{
	size_t count = 0, i;

	if (shared_acks_enter(s, NULL))
		return 0;
	for (i = 0; i < SHARED_ACKS_MAX; i++) {
		if (!s->map->acks[i].ack.node[0])
			continue;
		if (count < cap) {
			acks[count] = s->map->acks[i].ack;
			acks[count].node[sizeof(acks->node) - 1] = '\0';
			acks[count].url[sizeof(acks->url) - 1] = '\0';
		}
		count++;
	}
	shared_acks_leave(s);
	return count;
}

enum bts_err shared_ack_wait(struct shared *s, uint32_t *seen, unsigned timeout_ms)
{
	struct shared_map *map = s->map;
	struct bts_env *env = s->env;
	uint64_t deadline = env->ops->clock_ms(env) + timeout_ms;
	uint32_t wakes = atomic_load(&map->wakes);
	enum bts_err err = BTS_OK;

	atomic_fetch_add(&map->ack_waiters, 1);
	for (;;) {
		uint32_t word = atomic_load(&map->ack_word);
		uint64_t now = env->ops->clock_ms(env);

		if (word != *seen) {
			*seen = word;
			break;
		}
		if (now >= deadline || atomic_load(&map->wakes) != wakes) {
			err = BTS_TIMEOUT;
			break;
		}
		env->ops->wait(env, (const uint32_t *)&map->ack_word, word, (unsigned)(deadline - now));
	}
	atomic_fetch_sub(&map->ack_waiters, 1);
	return err;
}

enum bts_err shared_upstream_record(
	struct shared *s, const struct bts_upstream *upstream, struct bts_error *error)
{
	enum bts_err err = shared_acks_enter(s, error);

	if (err)
		return err;
	s->map->upstream = *upstream;
	shared_acks_leave(s);
	return BTS_OK;
}

void shared_upstream(struct shared *s, struct bts_upstream *upstream)
{
	memset(upstream, 0, sizeof(*upstream));
	if (shared_acks_enter(s, NULL))
		return;
	*upstream = s->map->upstream;
	shared_acks_leave(s);
	upstream->node[sizeof(upstream->node) - 1] = '\0';
	upstream->via[sizeof(upstream->via) - 1] = '\0';
}
