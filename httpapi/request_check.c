/*
 * The checks of a request when its headers are there: route, parameters, names, who may, role.
 *
 * The first refusal is remembered; nothing is answered here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "auth.h"
#include "durable.h"
#include "framing.h"
#include "handle.h"
#include "request.h"
#include "role.h"
#include "serve.h"
#include "server.h"

struct request_part {
	const char *name, *what;
	size_t max;
	const char *empty, *too_long; /* codes */
};

static const struct request_part request_bucket_part = {
	"bucket", "bucket name", BTS_BUCKET_NAME_MAX, "bucket-name-empty", "bucket-name-too-long"};
static const struct request_part request_key_part = {"key", "key", BTS_KEY_MAX, "key-empty", "key-too-long"};

static int request_decode(struct request *r, const struct request_part *part, struct bts_slice *out)
{
	int b64u = request_param(r, "enc") != NULL;
	int i = route_segment(r->route, part->name);

	if (i < 0)
		return 0;
	if (uri_decode(&r->uri, (unsigned)i, b64u, r->problem)) {
		request_refuse(r, 400, b64u ? "malformed-base64url" : "malformed-percent-encoding");
		return -1;
	}
	*out = r->uri.segment[i];
	if (out->size && out->size <= part->max)
		return 0;
	if (out->size)
		snprintf(r->problem, sizeof(r->problem), "the %s has %zu bytes, at most %zu are allowed",
			part->what, out->size, part->max);
	else
		snprintf(r->problem, sizeof(r->problem), "the %s is empty", part->what);
	request_refuse(r, 400, out->size ? part->too_long : part->empty);
	return -1;
}

static void request_check_params(struct request *r)
{
	const struct bts_slice *bad, *enc = request_param(r, "enc");
	int twice;

	bad = route_bad_param(r->route, &r->uri, &twice);
	if (bad) {
		snprintf(r->problem, sizeof(r->problem), "the query parameter \"%.*s\" is %s",
			(int)(bad->size < 60 ? bad->size : 60), (const char *)bad->data,
			twice ? "given twice" : "not known here");
		request_refuse(r, 400, twice ? "duplicate-parameter" : "unknown-parameter");
	} else if (enc && !(enc->size == 4 && !memcmp(enc->data, "b64u", 4))) {
		snprintf(r->problem, sizeof(r->problem), "the only enc is b64u");
		request_refuse(r, 400, "invalid-parameter");
	}
}

/* A condition that nobody would look at must not be taken for one that holds. */
static void request_check_conditions(struct request *r)
{
	const char *name = request_get_header(r, "If-Match") ? "If-Match" : "If-None-Match";

	if (!request_get_header(r, name) || !(r->route->flags & (ROUTE_WRITES | ROUTE_MAY_WRITE)) ||
		route_segment(r->route, "key") >= 0)
		return;
	snprintf(r->problem, sizeof(r->problem), "%s is known only for single keys", name);
	request_refuse(r, 400, "invalid-header");
}

static void request_to_primary(struct request *r)
{
	const char *url = role_primary_url(request_role(r));

	if (*url) {
		struct buf location = {0};

		buf_printf(&location, "%s%s%c", url, r->uri.target, '\0');
		if (!location.failed)
			request_set_header(r, "Location", location.data);
		buf_fini(&location);
	}
	snprintf(r->problem, sizeof(r->problem), "this node is %s; writes go to the primary%s",
		strcmp(role_word(request_role(r)), "fenced") ? "a follower" : "fenced",
		*url ? "" : ", which is not known here");
	request_refuse(r, *url ? 307 : 503, "not-primary");
}

/* 0, or -1 after a refusal. */
static int request_check_primary(struct request *r)
{
	if (role_follows(request_role(r))) {
		request_to_primary(r);
		return -1;
	}
	if (!role_late(request_role(r)))
		return 0;
	snprintf(r->problem, sizeof(r->problem),
		"the deadline for this node's writes has passed, or none was set: another one may be primary");
	request_refuse(r, 503, "not-primary");
	return -1;
}

void request_check_write(struct request *r)
{
	r->writes = 1;
	if (!request_check_primary(r))
		durable_check(r);
}

/* For the replication's own loop, which would have had this connection if it had begun so (server.c). */
static int request_is_frames(const struct request *r, const char *method)
{
	char line[72];
	int n = snprintf(line, sizeof(line), "%.10s %.50s ", method, r->uri.target);

	return serve_claims(line, (size_t)n);
}

static void request_check_access(struct request *r)
{
	if (handle_reserved(r->bucket)) {
		snprintf(r->problem, sizeof(r->problem), "bucket names that begin with a zero byte are the server's own");
		request_refuse(r, 400, "bucket-name-reserved");
	} else if (!auth_allows(r, r->route->scope, r->bucket)) {
		snprintf(r->problem, sizeof(r->problem), "these credentials are for other buckets");
		request_refuse(r, 403, "forbidden");
	} else if (r->route->flags & ROUTE_WRITES) {
		(void)request_check_primary(r);
	}
}

void request_check_route(struct request *r, const char *method, const struct framing *f)
{
	struct route_match match;

	if (r->uri_err) {
		request_refuse(r, 400,
			r->uri_err == URI_NOT_ORIGIN_FORM ? "invalid-target"
			: r->uri_err == URI_PARAMS	  ? "invalid-parameter"
							  : "malformed-percent-encoding");
		return;
	}
	match = route_find(
		route_table, route_table_size, &r->uri, r->method, r->loop->admin ? ROUTE_ADMIN : 0);
	r->route = match.route;
	if (auth_admit(r, f))
		return;
	if (!match.allowed && !r->loop->admin && request_is_frames(r, method)) {
		snprintf(r->problem, sizeof(r->problem),
			"replication wants a connection of its own from its first request on, or, with TLS, --replication-listen");
		request_set_header(r, "Connection", "close");
		request_refuse(r, 421, "misdirected");
	} else if (!match.allowed) {
		snprintf(r->problem, sizeof(r->problem), "there is nothing at this path");
		request_refuse(r, 404, "route-not-found");
	} else if (r->method == ROUTE_OPTIONS) {
		r->allowed = match.allowed;
		request_refuse(r, 204, "");
	} else if (!r->route) {
		r->allowed = match.allowed;
		snprintf(r->problem, sizeof(r->problem), "the method %.20s is not allowed here", method);
		request_refuse(r, 405, "method-not-allowed");
	} else if (f->twice) {
		snprintf(r->problem, sizeof(r->problem), "more than one %s", f->twice);
		request_refuse(r, 400, "invalid-header");
	} else {
		request_check_params(r);
		request_check_conditions(r);
		if (!r->early_status && (r->route->flags & ROUTE_WRITES))
			durable_check(r);
		if (!r->early_status && !request_decode(r, &request_bucket_part, &r->bucket) &&
			!request_decode(r, &request_key_part, &r->key))
			request_check_access(r);
	}
}
