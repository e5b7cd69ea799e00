/*
 * The bodies of POST /v1/txn and POST /v1/get, checked and taken apart.  Pure.
 *
 * What the text can cost is bounded before the JSON library sees it: how deep, how many objects, how many members.
 */
#ifndef HTTPAPI_TXN_PARSE_H
#define HTTPAPI_TXN_PARSE_H

#include <stddef.h>
#include <stdint.h>

#include "btree_store.h"

enum txn_kind { TXN_GET, TXN_PUT, TXN_DELETE, TXN_DELETE_RANGE, TXN_INCR, TXN_CONDITION };
#define TXN_KINDS 6
enum txn_test { TXN_EXISTS, TXN_VERSION, TXN_VALUE };

/* An operation, or a condition, as the kind has it. */
struct txn_op {
	enum txn_kind kind;
	struct bts_slice bucket, key;
	struct bts_slice value;		   /* PUT; CONDITION of TXN_VALUE */
	struct bts_slice prefix, from, to; /* DELETE_RANGE; empty: no such bound */
	uint64_t ttl_ms;		   /* PUT, INCR; 0: none given */
	int64_t by;			   /* INCR */
	int create;			   /* INCR: begins at 0 where there is nothing */
	enum txn_test test;		   /* CONDITION */
	int exists;
	bts_txid version; /* 0: absent */
};

struct txn_list {
	const char *name; /* its member of the body, a literal */
	struct txn_op *ops;
	size_t count;
	int given;
};

struct txn {
	struct txn_list conditions, then, otherwise; /* of a multi-get: then alone */
	int writes;				     /* an operation other than a get, in either list */
	/* own */
	void *tree;
	char *bytes; /* what was base64 */
	size_t used;
};

struct txn_problem {
	unsigned status;
	const char *code;
	const char *list; /* which member of the body, NULL: none in particular */
	size_t index;	  /* in it */
	char why[200];
};

/*
 * So much memory the body takes at most when it has been parsed (besides itself), or 0 with the problem: nested too deep, more than
 * max_ops conditions and operations, more members than they could have.
 */
size_t txn_weigh(struct bts_slice body, size_t max_ops, struct txn_problem *);
/* After txn_weigh.  0, or -1 with the problem; txn_fini is needed in any case.  Slices are borrowed until then; body is not needed. */
int txn_parse(struct txn *, struct bts_slice body, struct txn_problem *);
int txn_parse_get(struct txn *, struct bts_slice body, struct txn_problem *);
void txn_fini(struct txn *);

/* Decimal, with a sign or not, nothing else: 0; -1: it is not that; 1: not an int64_t. */
int txn_number(struct bts_slice text, int64_t *number);
#endif
