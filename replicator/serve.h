/*
 * Frames over HTTP: the routes of /v1/replication, /livez, /readyz and /metrics, from one file.
 *
 * Two threads: the loop answers everybody; the waiter sits in bts_ship_wait and wakes the loop when there is
 * news. A long poll costs no thread, only a suspended connection.
 */
#ifndef SERVE_H
#define SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <btree_store/ship.h>

#include "fail.h"

#define SERVE_CONNECTIONS_MAX 1024
#define SERVE_HEARTBEAT_MS                                                                                   \
	15000		/* a suspended connection is looked at so often, or it would never be seen to close */
#define SERVE_PIN_LEAST (UINT64_C(256) << 20)
#define SERVE_SLOW_MS 60000
#define SERVE_LEAST_BYTES (UINT64_C(1) << 20)
#define SERVE_IDLE_S 60 /* a connection on which nothing moves is closed */

struct archive;
struct node;
struct guard;

struct serve_options {
	struct bts *db;		   /* borrowed until serve_stop; NULL: there is no commit yet, and all but health is answered with 503 */
	const char *listen;	   /* "HOST:PORT"; port 0 = any free one; one that is not of the loopback only with tls and a guard that
				      is not open (guard.h); NULL: serve_adopt alone */
	const char *name;	   /* of this node where its file's own process tells none; borrowed; NULL = none */
	unsigned wait_max_ms;	   /* longest long poll granted; 0 = QUERY_WAIT_MS_MAX */
	uint64_t pin_limit;	   /* bytes that the snapshot of a frame may keep from being reused; 0 = a quarter of the file, at
				      least SERVE_PIN_LEAST */
	uint64_t rate;		   /* bytes a second of all frames and pages together, at least PACE_RATE_LEAST; 0 = no limit */
	unsigned slow_ms;	   /* a frame of which less than SERVE_LEAST_BYTES is taken in so long is broken off; 0 = SERVE_SLOW_MS */
	struct node *node;	   /* borrowed; its roles are served, too; NULL: they are not */
	struct archive *archive;   /* borrowed; told of in status and metrics; NULL: there is none in this process */
	struct repl_events events; /* called from either thread */
	struct guard *guard;	   /* who may ask for what; borrowed until serve_stop; NULL = everybody for everything */
	bool log_requests;	   /* an event "request" at the end of each */
	bool tls;		   /* speak TLS, with the certificate of tls.h */
};

struct serve;
/* Owned: serve_stop.  BTS_INVALID: an address that is malformed or may not be served.  BTS_IO: it cannot be bound. */
BTS_MUST_CHECK enum bts_err serve_start(
	const struct serve_options *options, struct serve **serve, struct bts_error *error);
/* Answers the waiting with 503, breaks frames under way off, ends both threads.  NULL is fine. */
void serve_stop(struct serve *);
/* Takes a connected socket (it is closed in any case); a server without an address of its own. Any thread. */
void serve_adopt(struct serve *, int fd);
/* Is that how a request for one of its own routes under /v1/replication/ begins? */
bool serve_claims(const char *bytes, size_t size);
/* The i-th of its routes, static texts; false: there are no more. */
bool serve_route_row(size_t i, const char **method, const char **path, const char **scope);
/* Counts since the start.  Any thread. */
struct serve_counts {
	uint64_t frames, broken, pages, bytes, refused, alarms, loops, twins, waiting, resumed, paused;
};
void serve_counts(const struct serve *, struct serve_counts *counts);
unsigned serve_port(const struct serve *); /* the one listened on */

/*
 * A listening, non-blocking socket on "HOST:PORT", "[V6]:PORT" or "localhost:PORT"; *port is what was bound.  Beyond the loopback
 * only when open_to_all, else BTS_INVALID.
 */
BTS_MUST_CHECK enum bts_err serve_listen(
	const char *address, bool open_to_all, int *fd, unsigned *port, struct bts_error *error);

#endif
