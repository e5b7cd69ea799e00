/*
 * Idempotency keys of transactions.
 *
 * Theory.  The first transaction that comes with a key keeps, in its own commit, what it was asked and what it answered; a later one
 * finds that and does nothing.  Both look in a transaction of the writer's group, one after the other, so of two that come at once
 * the second sees the first; and since the record is part of the commit it is there exactly when the rest is: after a crash, on
 * followers, after a promotion.
 *
 * The records are entries of the server's own bucket \0idem, with a time to live as any entry may have (ttl.h), which also
 * removes them.
 */
#ifndef HTTPAPI_IDEM_H
#define HTTPAPI_IDEM_H

#include <stdint.h>

#include "btree_store.h"

#define IDEM_KEY_MAX 255
#define IDEM_REPLY_MAX 65536 /* bytes of an answer that is kept */

struct idem_key {
	size_t size;
	char text[IDEM_KEY_MAX];
	uint8_t digest[16]; /* of what was asked */
};

/* 1 to 255 printable characters of ASCII: 0, or -1. */
int idem_key_init(struct idem_key *, const char *header, struct bts_slice body);

enum idem_state {
	IDEM_NEW,
	IDEM_KEPT,   /* the same was asked before */
	IDEM_REUSED, /* something else was */
};
/* *reply: of KEPT, borrowed as by bts_get. */
enum bts_err idem_find(struct bts_txn *, const struct idem_key *, enum idem_state *, struct bts_slice *reply);
/*
 * Keep the answer for so long; at most IDEM_REPLY_MAX.  BTS_LIMIT: there are max already (what has expired counts until it is
 * removed); nothing was changed then.  Else errors as of bts_put.
 */
struct idem_limits {
	uint64_t ttl_ms, max;
};
enum bts_err idem_keep(
	struct bts_txn *, const struct idem_key *, const struct idem_limits *, struct bts_slice reply);

#endif
