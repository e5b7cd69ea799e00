/* What GET /v1/status, /metrics and the status page tell, gathered once. */
#ifndef HTTPAPI_STATUS_H
#define HTTPAPI_STATUS_H

#include "btree_store.h"
#include "btree_store/ship.h"
#include "role.h"

#define STATUS_FOLLOWERS_MAX 64

struct server;

struct status {
	struct role *role;
	const struct server *server;
	int have; /* the file is there: stat and acks hold */
	struct bts_stat stat;
	struct role_upstream upstream;
	struct bts_ack acks[STATUS_FOLLOWERS_MAX];
	size_t ack_count;
};

/* BTS_OK also when a follower has no file yet. */
enum bts_err status_gather(const struct server *, struct status *, struct bts_error *);

struct buf;
void status_json(struct buf *, const struct status *);
void status_html(struct buf *, const struct status *);
#endif
