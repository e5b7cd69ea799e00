/* Commits that are not waited for (BTS_ASYNC): a thread of the handle that makes them durable within a delay. */
#ifndef ASYNC_H
#define ASYNC_H

#include "db.h"

#define ASYNC_DELAY_MS 200u /* when the options name none */

enum bts_err async_new(struct bts *, unsigned delay_ms);
/* A commit is about to be shown undurable: the thread runs and will flush it; false: it can not be had. */
bool async_shown(struct bts *);
/* Ends the thread; what it had not flushed yet is flushed.  After this nothing may be shown. */
void async_free(struct bts *);

#endif
