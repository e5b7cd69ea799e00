/*
 * The request for a frame, as a URL: what a follower sends and a source understands.  Both directions here,
 * so that they cannot drift apart.
 */
#ifndef QUERY_H
#define QUERY_H

#include <stdbool.h>

#include <btree_store/ship.h>

#define QUERY_PATH "/v1/replication/frames"
#define QUERY_WAIT_MS_MAX 60000
#define QUERY_WAIT_MS_DEFAULT 30000
#define QUERY_TARGET_SIZE                                                                                    \
	1280 /* bytes of path and query, NUL included; enough for the longest fields, escaped */

struct query {
	struct bts_position after;	     /* what the follower has durably; txid 0: nothing */
	bool has_database;		     /* after.database is set */
	char follower[BTS_ACK_NAME_MAX + 1]; /* "" = anonymous: no acknowledgement is kept */
	char url[sizeof(((struct bts_ack *)0)->url)];
	uint64_t session; /* random, of the follower's process; 0 = none */
	unsigned wait_ms;
	struct bts_partial partial; /* how far a first transfer has come; position.txid 0: nowhere */
	bool zstd;		    /* pages may come compressed */
	bool lean;		    /* after's commit record is at hand: the new one may come as what differs */
};

/* Letters, digits, '.', '_' and '-', 1 to BTS_ACK_NAME_MAX of them. */
/* %XX back; false: malformed, a zero byte among it, or it does not fit. */
bool query_unescape(const char *text, char *out, size_t size);
bool query_node_valid(const char *name);
/* Printable ASCII without spaces, quotes and '@' (it is published: no password), shorter than the field; may be empty. */
bool query_url_valid(const char *url);

/* "30s" or "500ms", at most QUERY_WAIT_MS_MAX. */
bool query_duration_parse(const char *text, unsigned *ms);

/* Path and query, NUL-terminated. */
void query_encode(const struct query *, char out[QUERY_TARGET_SIZE]);

/* Which fields came, for decoding one parameter after the other. */
struct query_decoder {
	struct query query;
	unsigned seen;
};
void query_decode_start(struct query_decoder *);
/* One parameter, still percent-encoded.  BTS_INVALID names it: unknown, given twice, or malformed. */
BTS_MUST_CHECK enum bts_err query_decode(
	struct query_decoder *, const char *name, const char *value, struct bts_error *error);
/* After the last: BTS_INVALID when they do not make a request together. */
BTS_MUST_CHECK enum bts_err query_decode_finish(const struct query_decoder *, struct bts_error *error);

#endif
