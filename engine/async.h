/* Commits that are not waited for (BTS_ASYNC): a thread of the handle that makes them durable within a delay. */
#ifndef ASYNC_H
#define ASYNC_H

#include "db.h"

#define ASYNC_DELAY_MS 200u /* when the options name none */
#define ASYNC_PAGES 4096u   /* written since the last flush: the next one begins at once */
#define ASYNC_PAGES_MOST (4 * ASYNC_PAGES) /* and here the flushes do not keep up: commits wait for them */

enum bts_err async_new(struct bts *, unsigned delay_ms);
/*
 * A commit of that many pages is about to be shown undurable: the thread runs and will flush it; false: it can not be had, or has
 * too much to do.
 */
bool async_shown(struct bts *, uint64_t pages);
/* Ends the thread; what it had not flushed yet is flushed.  After this nothing may be shown. */
void async_free(struct bts *);

#endif
