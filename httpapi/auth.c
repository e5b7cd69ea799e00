/* Who may do what: the one place that decides it. */
#include "auth.h"

#include <stdio.h>
#include <string.h>

#include "framing.h"
#include "guard.h"
#include "request.h"
#include "server.h"

#define AUTH_AGAIN_MS 1000

static const struct {
	unsigned scope;
	const char *word;
} auth_scopes[] = {
	[AUTH_NONE] = {0, "none"},
	[AUTH_READ] = {KEYRING_READ, "read"},
	[AUTH_WRITE] = {KEYRING_WRITE, "write"},
	[AUTH_ADMIN] = {KEYRING_ADMIN, "admin"},
	[AUTH_REPLICATE] = {KEYRING_REPLICATE, "replicate"},
	[AUTH_ELECT] = {KEYRING_ELECT, "elect"},
	[AUTH_DATA] = {KEYRING_READ | KEYRING_WRITE, "read or write"},
};

const char *auth_scope_word(enum auth_scope scope)
{
	return auth_scopes[scope].word;
}

static void auth_refuse(struct request *r, enum guard_verdict verdict)
{
	const struct guard_words *words = guard_words(verdict);

	if (words->status == 401)
		request_set_header(r, "WWW-Authenticate", "Bearer realm=\"btree_store\"");
	snprintf(r->problem, sizeof(r->problem), "%s", words->detail);
	request_refuse(r, words->status, words->code);
}

/* Its scope, and the limit to buckets where the path has none. */
static int auth_fits(const struct request *r)
{
	if (r->buckets && route_segment(r->route, "bucket") < 0 && !(r->route->flags & ROUTE_EACH))
		return 0;
	return auth_allows(r, r->route->scope, (struct bts_slice){"", 0});
}

/* Not even which paths there are is told to strangers; but a probe of health has no credentials, and asks under any name. */
int auth_admit(struct request *r, const struct framing *f)
{
	struct guard_caller caller = {.authorization = f->authorization, .host = f->host, .origin = f->origin,
		.reads = r->method == ROUTE_GET, .tls = r->loop->tls};
	struct guard *guard = request_server(r)->guard;
	struct guard_grant grant;
	enum guard_verdict verdict;

	if (r->route && r->route->scope == AUTH_NONE)
		return 0;
	if (caller.tls)
		caller.session = request_session(r);
	verdict = guard_admit(guard, &caller, &grant);
	if (verdict == GUARD_ADMITTED) {
		r->scopes = grant.scopes;
		r->admitted_ms = r->loop->now_ms;
		_Static_assert(sizeof(r->who) >= sizeof(grant.id), "an id fits");
		memcpy(r->who, grant.id, sizeof(grant.id));
		r->buckets = grant.limited ? strdup(grant.buckets) : NULL;
		if (grant.limited && !r->buckets)
			r->scopes = 0; /* no memory: refused */
		if (!r->route || auth_fits(r))
			return 0;
	}
	auth_refuse(r, verdict);
	return -1;
}

int auth_still(struct request *r)
{
	struct guard_caller caller = {.authorization = request_get_header(r, "Authorization"),
		.host = request_get_header(r, "Host"),
		.origin = request_get_header(r, "Origin"),
		.reads = r->method == ROUTE_GET,
		.tls = r->loop->tls};
	struct guard_grant grant;

	if (r->loop->now_ms - r->admitted_ms < AUTH_AGAIN_MS)
		return 1;
	r->admitted_ms = r->loop->now_ms;
	if (caller.tls)
		caller.session = request_session(r);
	return guard_admit(request_server(r)->guard, &caller, &grant) == GUARD_ADMITTED && grant.scopes == r->scopes &&
	       !strcmp(grant.id, r->who) && !strcmp(grant.limited ? grant.buckets : "", r->buckets ? r->buckets : "");
}

int auth_allows(const struct request *r, enum auth_scope scope, struct bts_slice bucket)
{
	unsigned wanted = auth_scopes[scope].scope;

	/* Any of them will do: only AUTH_DATA has several. */
	return (!wanted || (r->scopes & wanted)) && (!bucket.size || auth_among(r->buckets, bucket));
}

int auth_among(const char *buckets, struct bts_slice bucket)
{
	return !buckets || keyring_bucket_matches(buckets, bucket);
}
