/*
 * The thread that removes expired keys, on a primary: once a second it looks whether the first row of \0expiry is
 * due, then removes what is, in small batches, each an operation of the writer among the others.  What has expired
 * is absent from the moment on, swept or not, so nothing hangs on when; and a look finds whatever was written by
 * whom, and under which role.
 */
#ifndef HTTPAPI_TTL_SWEEP_H
#define HTTPAPI_TTL_SWEEP_H

#include <stdint.h>

struct role;
struct ttl_sweep;
struct writer;

struct ttl_sweep_stat {
	uint64_t expired; /* entries removed by this process */
	uint64_t stale;	  /* rows removed whose entry had gone or was written anew */
	uint64_t pending; /* rows there were at the last look, due or not */
};

int ttl_sweep_start(struct role *, struct writer *, struct ttl_sweep **); /* 0, or -1 */
void ttl_sweep_stop(struct ttl_sweep *); /* NULL is fine; before writer_stop */
void ttl_sweep_stat(struct ttl_sweep *, struct ttl_sweep_stat *);
#endif
