/*
 * Reads that ask for a certain commit (BTS-After) or freshness (BTS-Max-Staleness).  They wait suspended; one
 * thread watches the file's newest commit for all of them.
 */
#ifndef HTTPAPI_WAIT_H
#define HTTPAPI_WAIT_H

struct request;
struct role;
struct wait;

int wait_start(struct role *, struct wait **); /* 0 or -1 */
/* Lets everybody go on, who are then told that the node is behind.  Nobody waits from then on. */
void wait_drain(struct wait *);
void wait_stop(struct wait *); /* NULL is fine */

/* Before a read is handled: 0 go on; 1 it was answered, or is suspended and will be handled later. */
int wait_before(struct request *);
#endif
