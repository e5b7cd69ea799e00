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
	struct bts_apply_stat apply;
	struct node_upstream upstream;
	struct bts_ack acks[STATUS_FOLLOWERS_MAX];
	size_t ack_count;
};

/* BTS_OK also when a follower has no file yet. */
enum bts_err status_gather(const struct server *, struct status *, struct bts_error *);

/* The pages that a follower lacks at this node's usual rate of writing, in bytes: at most the live ones; -1: not known. */
int64_t status_lag_bytes(const struct status *, const struct bts_ack *);

void status_time(uint64_t ms, char text[40]); /* since 1970, as RFC 3339 */

struct buf;
void status_json(struct buf *, const struct status *);
void status_html(struct buf *, const struct status *);
#endif
