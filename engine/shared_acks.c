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
static struct bts_ack *shared_ack_entry(struct shared_map *map, const char *node)
{
	struct bts_ack *best = NULL;
	size_t i;

	for (i = 0; i < SHARED_ACKS_MAX; i++) {
		struct bts_ack *ack = &map->acks[i];

		if (ack->node[0] && strncmp(ack->node, node, sizeof(ack->node)) == 0)
			return ack;
		if (!best || (best->node[0] && (!ack->node[0] || ack->seen_ms < best->seen_ms)))
			best = ack;
	}
	return best;
}

enum bts_err shared_ack_record(struct shared *s, const struct bts_ack *ack, struct bts_error *error)
{
	struct bts_ack entry = *ack;
	struct bts_ack *at;
	enum bts_err err;

	entry.node[sizeof(entry.node) - 1] = '\0';
	entry.url[sizeof(entry.url) - 1] = '\0';
	entry.alarms = 0;
	if (!entry.node[0])
		return error_set(error, BTS_INVALID, 0, "an acknowledgement without the node's name");
	err = shared_acks_enter(s, error);
	if (err)
		return err;
	at = shared_ack_entry(s->map, entry.node);
	if (strncmp(at->node, entry.node, sizeof(at->node)) == 0) {
		entry.alarms = at->alarms + (entry.txid < at->txid);
		if (entry.txid < at->txid)
			entry.txid = at->txid;
	}
	*at = entry;
	shared_acks_leave(s);
	return BTS_OK;
}

size_t shared_ack_list(struct shared *s, struct bts_ack *acks, size_t cap)
{
	size_t count = 0, i;

	if (shared_acks_enter(s, NULL))
		return 0;
	for (i = 0; i < SHARED_ACKS_MAX; i++) {
		if (!s->map->acks[i].node[0])
			continue;
		if (count < cap) {
			acks[count] = s->map->acks[i];
			acks[count].node[sizeof(acks->node) - 1] = '\0';
			acks[count].url[sizeof(acks->url) - 1] = '\0';
		}
		count++;
	}
	shared_acks_leave(s);
	return count;
}
