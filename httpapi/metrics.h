/* Counts of requests, kept a shard a loop so that loops do not share cache lines, and the Prometheus text. */
#ifndef HTTPAPI_METRICS_H
#define HTTPAPI_METRICS_H

#include <stdint.h>

struct buf;
struct server;

#define METRICS_ROUTES 64 /* route_table_size at most, plus one for what matched none */
#define METRICS_STATUSES 20
#define METRICS_BUCKETS 12

struct metrics_route {
	uint64_t status[METRICS_STATUSES];
	uint64_t buckets[METRICS_BUCKETS + 1];
	uint64_t sum_us;
};

struct metrics_shard {
	struct metrics_route route[METRICS_ROUTES];
};

/* The loop's own thread only.  route: index in route_table, METRICS_ROUTES - 1 for none. */
void metrics_count(struct metrics_shard *, unsigned route, unsigned status, uint64_t us);
/* Any thread. */
void metrics_write(struct buf *, struct server *);
#endif
