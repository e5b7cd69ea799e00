/*
 * Threads for what would hold up a loop and all of its connections: reading a large value from the disk, writing
 * one, and the like.
 *
 * A job belongs to a request, which is suspended meanwhile, so it cannot go away.  It is done in steps of bounded
 * size, in turn with the others'.
 */
#ifndef HTTPAPI_WORK_H
#define HTTPAPI_WORK_H

struct request;
struct work;

struct work_job {
	int (*step)(struct work_job
			*); /* on a thread of these: 1 to be called again after the others, 0 that was all */
	struct request *owner; /* resumed then */
	struct work_job *next; /* while queued */
};

#define WORK_THREADS_MAX 8
int work_start(unsigned threads, struct work **); /* 0, or -1 */
void work_stop(struct work *);			  /* NULL is fine; nothing may be queued any more */
/* In the thread of the owner's loop, which suspends it (request_suspend) before it runs the loop again. */
void work_queue(struct work *, struct work_job *);
#endif
