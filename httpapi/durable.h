/*
 * Writes that ask for more than their commit (durability=replicated:K, archived): committed here, they wait suspended until K nodes,
 * or the archive, have acknowledged them, or their time is up.  One thread looks for all of them.
 */
#ifndef HTTPAPI_DURABLE_H
#define HTTPAPI_DURABLE_H

#include <stdint.h>

#include "quorum.h"

struct buf;
struct config;
struct durable;
struct request;
struct role;

int durable_start(struct role *, const struct config *, struct durable **); /* 0, or -1 with the reason logged */
/* Lets everybody go on, who are then told that the copies were not reached.  Nobody waits from then on. */
void durable_drain(struct durable *);
void durable_stop(struct durable *); /* NULL is fine */
const struct quorum *durable_quorum(const struct durable *);
struct durable_stat {
	uint64_t waiting, reached, unreached; /* now; in all */
};
void durable_stat(struct durable *, struct durable_stat *);

/* Reads the parameters durability and timeout, or the server's default; may refuse. */
void durable_check(struct request *);
/* Whether they are well-formed, for what may write and does not; may refuse. */
void durable_check_params(struct request *);
/* Its op is about to be queued: the epoch of the moment is the one whose acknowledgements count. */
void durable_expect(struct request *);
/*
 * Its op has been committed.  Calls then(request), now or after a wait, with request->unreached telling
 * whether the copies are missing.
 */
void durable_await(struct request *, void (*then)(struct request *));
/* After that: the reply of a write that has nothing to tell but its status. */
void durable_reply(struct request *, unsigned status);
/* Adds the header that tells what was reached; returns whether that is what was asked for. */
int durable_tell(struct request *);
/* Of one whose copies are missing: `,"durability-reached":"local","durability":"replicated:2"`. */
void durable_member(const struct request *, struct buf *);
/* Members that tell a client what was reached, where copies are missing: these and `,"committed":true`. */
void durable_members(struct request *, struct buf *);
#endif
