/* Counts of requests, kept a shard a loop so that loops do not share cache lines, and the Prometheus text. */
#ifndef HTTPAPI_METRICS_H
#define HTTPAPI_METRICS_H

#include <stdint.h>

struct buf;
struct server;

#define METRICS_ROUTES 96 /* route_table_size at most, plus one for what matched none */
#define METRICS_STATUSES 24
#define METRICS_CLASSES 6 /* 2xx and so on; the first for requests without a reply */
#define METRICS_BUCKETS 12

struct metrics_times {
	uint64_t buckets[METRICS_BUCKETS + 1];
	uint64_t sum_us;
};

struct metrics_route {
	uint64_t status[METRICS_STATUSES];
	struct metrics_times times[METRICS_CLASSES];
};

struct metrics_shard {
	struct metrics_route route[METRICS_ROUTES];
	uint64_t begun, ended, bytes_in, bytes_out;
};

struct metrics_request {
	unsigned route; /* index in route_table, METRICS_ROUTES - 1 for none */
	unsigned status;
	uint64_t us, bytes_in, bytes_out;
};

/* The loop's own thread only. */
void metrics_begin(struct metrics_shard *);
void metrics_end(struct metrics_shard *, const struct metrics_request *);
/* Any thread. */
void metrics_write(struct buf *, struct server *);
#endif
