/* What POST /v1/txn and POST /v1/get share: taking in a body and what it says, and telling what is wrong with it. */
#ifndef HTTPAPI_HANDLE_TXN_H
#define HTTPAPI_HANDLE_TXN_H

#include "txn_parse.h"

struct request;

typedef int txn_parse_fn(struct txn *, struct bts_slice body, struct txn_problem *);

/* The body is taken apart and let go.  0, or -1 after a reply that refuses it; *held: memory it takes, counted as body. */
int handle_txn_take(struct request *, txn_parse_fn *, struct txn *, size_t *held);
/* Every operation and condition is allowed to who asks: 0, or -1 after a reply. */
int handle_txn_allowed(struct request *, const struct txn *);
/* The problem as a reply, with the place in the body as members; version 0: not told. */
void handle_txn_problem(struct request *, const struct txn_problem *, bts_txid version);

#endif
