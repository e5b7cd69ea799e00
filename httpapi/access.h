/*
 * The access log and the log of slow requests.
 *
 * A loop makes the line of a request at its end and puts it into a ring of its own; one thread takes the lines out of all rings
 * and writes them.  A full disk or a reader of the log that stalls therefore holds up no request: lines are dropped then, and
 * counted.
 */
#ifndef HTTPAPI_ACCESS_H
#define HTTPAPI_ACCESS_H

#include <stdatomic.h>
#include <stdint.h>

struct access_writer;
struct config;
struct request;

/* What a loop looks at; in struct server. */
struct access {
	atomic_int on;		       /* requests are logged */
	atomic_uint_least64_t slow_us; /* requests that take longer are; 0: none */
	struct access_writer *writer;
};

/* The thread; loops: how many rings.  0, or -1 with the reason logged. */
int access_start(struct access *, const struct config *, unsigned loops);
/*
 * Settings were read again, or the file was moved away: opens it anew.  0, or -1 when it cannot be: that is
 * logged, and all stays as it was.
 */
int access_reload(struct access *, const struct config *);
/* Writes what is there, but waits at most two seconds for a stalled reader.  After the loops have ended. */
void access_stop(struct access *);

/* A request ends, after us microseconds: the lines that are asked for.  loop: its number.  In its loop's thread. */
void access_request(struct access *, unsigned loop, const struct request *, uint64_t us);

uint64_t access_dropped(const struct access *); /* lines, no matter why */
#endif
