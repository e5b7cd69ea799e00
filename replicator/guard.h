/*
 * Who is asking, by what the request and its connection show: a token, a client certificate, or, where neither is asked for, merely
 * having reached this address.  Both servers, of the REST routes and of the replication's, admit by the same guard.
 */
#ifndef GUARD_H
#define GUARD_H

#include <stdbool.h>

#include "keyring.h"

struct guard_options {
	const char *token_file; /* NULL: tokens are not known */
	unsigned
		client_scopes; /* of a client certificate that the authority vouches for and the file does not name; KEYRING_* */
	const char *
		hosts; /* host names with commas that requests may be for, "*" = any; NULL: see guard_admit; borrowed */
	struct repl_events events;
};

struct guard;
/* Owned: guard_free.  As keyring_open. */
BTS_MUST_CHECK enum bts_err guard_new(
	const struct guard_options *options, struct guard **guard, struct bts_error *error);
void guard_free(struct guard *); /* NULL is fine */
/* Reads the tokens again. */
BTS_MUST_CHECK enum bts_err guard_reload(struct guard *, struct bts_error *error);
struct keyring *guard_keyring(const struct guard *); /* borrowed; NULL: there is no token file */
/* Nothing is asked for: neither tokens nor certificates. */
bool guard_is_open(const struct guard *);

struct guard_caller {
	const char *authorization, *host, *origin; /* header fields, NULL: absent */
	bool reads;				   /* GET or HEAD */
	bool tls;
	void *session; /* of TLS, NULL: none */
};

/* What it may do. */
struct guard_grant {
	unsigned scopes;
	bool limited;		  /* to the buckets that these patterns match */
	char id[KEYRING_ID_SIZE]; /* of the token or certificate, "" = none */
	char buckets[KEYRING_BUCKETS_SIZE];
};

enum guard_verdict {
	GUARD_ADMITTED,
	GUARD_UNKNOWN, /* no credentials, or none that are known: 401 */
	GUARD_HOST,    /* the request is for a host name that is not ours: 421 */
	GUARD_ORIGIN,  /* a page of another origin sent it: 403 */
};

/*
 * A web page can have its reader's browser send requests here.  Such a request has an Origin, unless it only reads; and to read the
 * answer the page must have its own name lead here (DNS rebinding), which shows in Host.  So a request with an Origin is refused,
 * but for one that reads from the page's own origin; and without credentials, which the page does not have, the host must be
 * localhost or a numeric address, which no page can have had redirected, or one of `hosts`.  With `hosts` given it counts always.
 */
enum guard_verdict guard_admit(struct guard *, const struct guard_caller *caller, struct guard_grant *grant);
/* grant is what guard_admit said.  bucket: empty = none in particular. */
bool guard_allows(const struct guard_grant *grant, unsigned scope, struct bts_slice bucket);

/* "missing", "unknown" ... as a problem is told: status, stable code, and why. */
struct guard_words {
	unsigned status;
	const char *code, *detail;
};
const struct guard_words *guard_words(enum guard_verdict);

#endif
