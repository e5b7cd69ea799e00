/*
 * The service that keeps the key of failover.h: etcd v3, through its JSON gateway.  One thread at a time.
 *
 * Keys and values are base64 there, and numbers of 64 bits are strings.  Reads are linearizable, as that is the gateway's default.
 */
#ifndef ETCD_H
#define ETCD_H

#include <btree_store.h>

#include "failover.h"

#define ETCD_ENDPOINTS_MAX 9
#define ETCD_HOST_MAX 255
#define ETCD_KEY_MAX 255
#define ETCD_REPLY_MAX 65536 /* bytes of an answer that are read */

/* "etcd://HOST:PORT[,HOST:PORT]/KEY"; etcds: over TLS */
struct etcd_place {
	char endpoints[ETCD_ENDPOINTS_MAX][ETCD_HOST_MAX + 10]; /* "http://HOST:PORT" */
	unsigned count;
	char key[ETCD_KEY_MAX + 1];
};
/* NULL, or what it should be; static. */
const char *etcd_parse(const char *url, struct etcd_place *);

struct etcd;
/* Each endpoint gets limit_ms for an answer.  Owned: etcd_close.  NULL without memory. */
struct etcd *etcd_open(const struct etcd_place *, unsigned limit_ms);
void etcd_close(struct etcd *); /* NULL is fine */
/* Any thread: ends the call under way, and all later ones at once. */
void etcd_interrupt(struct etcd *);

struct etcd_request {
	enum failover_call call;
	int64_t lease;
	uint64_t ttl_ms;		/* GRANT */
	const struct failover_key *own; /* CREATE, PUBLISH: what stands in the key */
};
/* Asks one endpoint after the other until one answers.  Blocks.  error: why, unless it is FAILOVER_DONE. */
void etcd_ask(struct etcd *, const struct etcd_request *, struct failover_reply *, struct bts_error *error);

/* ---- bytes, pure (etcd_json.c) ---- */

/* The path of a call, static. */
const char *etcd_json_path(enum failover_call);
/* The body of a request (owned: free); NULL without memory. */
char *etcd_json_body(const char *key, const struct etcd_request *);
/* What an answer means: everything of *reply but sent_ms.  What is malformed is FAILOVER_UNKNOWN, with a text. */
void etcd_json_reply(const char *key, const struct etcd_request *, long status, struct bts_slice body,
	struct failover_reply *, struct bts_error *error);

#endif
