/*
 * When a follower takes a commit by a graft instead of a frame: the source knows no base for it, histories have parted, the roots are other ones
 * than the source's, or frames break off again and again.  Nothing of a broken frame stays, so over a link that never carries one whole it would
 * begin anew for ever; the questions of a graft are small, and what was answered stays for as long as the source keeps its commit.
 */
#include "follow_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rejoin.h"

/* The source has our commit, and each frame from there broke off. */
static bool follow_no_frame_gets_through(const struct follow *follow)
{
	return follow->broken >= FOLLOW_BROKEN_MAX && follow->reply.status == 200 && follow->session.state == SESSION_FAILED;
}

/* Is this file refused, or suspected, for a reason that a graft mends, or does no frame get through? */
bool follow_may_graft(const struct follow *follow)
{
	const char *code = follow->reply.code ? follow->reply.code : "";

	if (follow->suspect && follow->reply.status == 200)
		return follow->session.state != SESSION_STOPPED && atomic_load(&follow->db);
	if (follow_no_frame_gets_through(follow))
		return true;
	if (follow->session.state != SESSION_STOPPED || follow->reply.status != 409 || !atomic_load(&follow->db))
		return false;
	return strcmp(code, "base-unknown") == 0 || (strcmp(code, "diverged") == 0 && follow->rejoin && follow->has_fork);
}

static void follow_grafted(struct follow *follow, const struct rejoin *rejoin)
{
	session_grafted(&follow->session, &rejoin->graft.target, follow_now());
	follow->suspect = false;
	pthread_mutex_lock(&follow->lock);
	follow->status.grafts++;
	follow->status.graft_pages += rejoin->graft.pages;
	if (rejoin->orphans[0])
		snprintf(follow->status.orphans, sizeof(follow->status.orphans), "%.255s", rejoin->orphans);
	pthread_mutex_unlock(&follow->lock);
	follow_publish(follow, "following");
}

enum bts_err follow_graft(struct follow *follow, struct bts_error *failure)
{
	bool forked = follow->reply.status == 409 && strcmp(follow->reply.code, "diverged") == 0;
	bool broken = follow_no_frame_gets_through(follow) && !follow->suspect;
	struct rejoin *rejoin = calloc(1, sizeof(*rejoin));
	enum bts_err err;

	if (!rejoin) {
		session_retry(&follow->session);
		return fail_set(failure, BTS_MEMORY, "no memory for a graft");
	}
	memcpy(follow->fork.database, follow->session.query.after.database, sizeof(follow->fork.database));
	rejoin->peer = (struct heal_peer){follow->transport, sources_current(&follow->sources), &follow->stopping};
	rejoin->db = atomic_load(&follow->db);
	rejoin->path = follow->path;
	/* That the source has our commit is then proven as a fork would be. */
	rejoin->fork = forked ? &follow->fork : broken ? &follow->session.query.after : NULL;
	follow->broken = 0;
	rejoin->events = &follow->events;
	follow_publish(follow, "grafting");
	err = rejoin_run(rejoin, failure);
	if (!err) {
		follow_grafted(follow, rejoin);
	} else if (follow_is_final(err)) {
		session_stop(&follow->session, failure);
	} else {
		follow->session.error = *failure;
		session_retry(&follow->session);
	}
	free(rejoin);
	return err;
}
