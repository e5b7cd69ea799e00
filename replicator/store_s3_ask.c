/*
 * One question to S3: signed, sent, tried again.
 *
 * An attempt that got no answer, or one of those that mean "not now", is followed by another after a random part of
 * a time that doubles ("full jitter"), as long as the call's time is not up.  A GET that breaks off goes on where
 * it was, of the same version of the object.  No redirect is followed: a signature is for one host, and the
 * operator named it.
 */
#include "store_s3.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "fail.h"
#include "transport.h"

#define STORE_S3_WAIT_LEAST 100	 /* ms, of the first wait at most */
#define STORE_S3_WAIT_MOST 10000 /* ms, of any wait */
#define STORE_S3_ERROR_MAX 65536 /* bytes of an answer that is no success */
#define STORE_S3_LINES (STORE_SIGN_HEADERS + 3)
#define STORE_S3_QUERY_MAX 8192
#define STORE_S3_URL_MAX (STORE_S3_QUERY_MAX + 1024)

static uint64_t store_s3_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* What no further attempt will mend. */
static enum bts_err store_s3_lasting(struct store_s3_ask *ask, enum bts_err err, const char *what)
{
	ask->lasting = true;
	return fail_set(&ask->error, err, "%s", what);
}

static enum bts_err store_s3_prefixed(
	const struct store_s3_ask *ask, enum bts_err err, const char *what, struct bts_error *error)
{
	const char *name = ask->s3->base.name, *key = ask->key ? ask->key : "";

	if (ask->attempts > 1)
		return fail_set(error, err, "%" STORE_NAME "/%" STORE_KEY ": %s, %u times tried", name, key,
			what, ask->attempts);
	return fail_set(error, err, "%" STORE_NAME "/%" STORE_KEY ": %s", name, key, what);
}

static bool store_s3_is_success(const struct store_s3_ask *ask)
{
	return ask->status >= 200 && ask->status <= 299;
}

/* "bytes 5-9/10" or, of what is beyond the end, "bytes *" "/10". */
static void store_s3_on_range(struct store_s3_ask *ask, const char *value)
{
	const char *slash = strchr(value, '/');

	if (strncasecmp(value, "bytes ", 6) != 0 || !slash)
		return;
	ask->from = value[6] == '*' ? UINT64_MAX : strtoull(value + 6, NULL, 10);
	ask->whole = slash[1] == '*' ? UINT64_MAX : strtoull(slash + 1, NULL, 10);
}

static void store_s3_on_header(void *arg, const char *name, const char *value)
{
	struct store_s3_ask *ask = arg;

	if (strcasecmp(name, "ETag") == 0 && strlen(value) <= STORE_S3_ETAG_MAX)
		strcpy(ask->new_etag, value);
	else if (strcasecmp(name, "Content-Range") == 0)
		store_s3_on_range(ask, value);
	else if (strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Transfer-Encoding") == 0)
		ask->bounded = true;
	else if (strcasecmp(name, "x-amz-bucket-region") == 0 && strlen(value) <= STORE_REGION_MAX &&
		 store_url_is_region(value))
		strcpy(ask->region, value);
}

static enum bts_err store_s3_on_begin(void *arg, long status)
{
	struct store_s3_ask *ask = arg;

	ask->status = status;
	ask->size = 0;
	ask->skip = 0;
	if (!ask->visit || !store_s3_is_success(ask))
		return BTS_OK;
	if (!ask->bounded)
		return store_s3_lasting(ask, BTS_CORRUPT, "an object without a length");
	if (status == 206 && ask->visited == 0)
		return store_s3_lasting(ask, BTS_CORRUPT, "a part, and all was asked for");
	if (ask->visited == 0)
		strcpy(ask->etag, ask->new_etag);
	else if (strcmp(ask->etag, ask->new_etag) != 0)
		return store_s3_lasting(ask, BTS_IO, "the object changed while it was read");
	else if (status != 206)
		ask->skip = ask->visited;
	else if (ask->from != ask->visited)
		return store_s3_lasting(ask, BTS_CORRUPT, "another range of bytes than was asked for");
	return BTS_OK;
}

static enum bts_err store_s3_keep(struct store_s3_ask *ask, const void *data, size_t size)
{
	size_t most = store_s3_is_success(ask) ? STORE_S3_ANSWER_MAX : STORE_S3_ERROR_MAX;
	size_t room = ask->room > 0 ? ask->room : 4096;
	char *text;

	if (size > most - ask->size)
		return store_s3_lasting(ask, BTS_CORRUPT, "the answer is too long");
	while (room < ask->size + size)
		room *= 2;
	if (room > ask->room) {
		text = realloc(ask->text, room);
		if (!text)
			return store_s3_lasting(ask, BTS_MEMORY, "no memory for an answer");
		ask->text = text;
		ask->room = room;
	}
	memcpy(ask->text + ask->size, data, size);
	ask->size += size;
	return BTS_OK;
}

static enum bts_err store_s3_on_body(void *arg, const void *data, size_t size)
{
	struct store_s3_ask *ask = arg;
	size_t skip;

	if (!ask->visit || !store_s3_is_success(ask))
		return store_s3_keep(ask, data, size);
	skip = ask->skip < size ? (size_t)ask->skip : size;
	ask->skip -= skip;
	data = (const char *)data + skip;
	size -= skip;
	if (size > STORE_OBJECT_MAX - ask->visited)
		return store_s3_lasting(ask, BTS_CORRUPT, "longer than any object");
	ask->visited += size;
	if (size > 0)
		ask->refused = ask->visit(ask->arg, data, size, ask->caller);
	return ask->refused;
}

/* The headers that are signed, in their order; the texts are the caller's. */
static void store_s3_headers(
	struct store_sign_request *request, const struct store_s3_ask *ask, const char *range)
{
	struct store_sign_header *header = request->header;

	*header++ = (struct store_sign_header){"host", ask->s3->host};
	if (ask->visited > 0)
		*header++ = (struct store_sign_header){"if-match", ask->etag};
	if (ask->only_new)
		*header++ = (struct store_sign_header){"if-none-match", "*"};
	if (ask->visited > 0)
		*header++ = (struct store_sign_header){"range", range};
	*header++ = (struct store_sign_header){"x-amz-content-sha256", request->sum};
	*header++ = (struct store_sign_header){"x-amz-date", request->when};
	if (ask->s3->token[0])
		*header++ = (struct store_sign_header){"x-amz-security-token", ask->s3->token};
	request->headers = (size_t)(header - request->header);
}

/* The lines as they are sent, joined in one allocation that begins with them; NULL: no memory. */
static char *store_s3_lines(const struct store_sign_request *request, const char *authorization,
	const char *lines[STORE_S3_LINES + 1])
{
	size_t i, count = 0, size = strlen(authorization) + 32;
	char *text, *at;

	for (i = 0; i < request->headers; i++)
		size += strlen(request->header[i].name) + strlen(request->header[i].value) + 3;
	at = text = malloc(size);
	if (!text)
		return NULL;
	for (i = 0; i < request->headers; i++) {
		lines[count++] = at;
		at += sprintf(at, "%s: %s", request->header[i].name, request->header[i].value) + 1;
	}
	lines[count++] = at;
	sprintf(at, "authorization: %s", authorization);
	/*
	 * libcurl would add them to what has a body; S3 wants a type signed, and we do not want to wait for
	 * "continue".
	 */
	lines[count++] = "content-type:";
	lines[count++] = "expect:";
	lines[count] = NULL;
	return text;
}

static enum bts_err store_s3_attempt(struct store_s3_ask *ask, const char *path, const char *sum)
{
	struct store_s3 *s3 = ask->s3;
	const struct transport_handler handler = {
		store_s3_on_header, store_s3_on_begin, store_s3_on_body, ask};
	const struct store_sign_key key = {s3->access, s3->secret, s3->region};
	struct store_sign_request sign = {
		.method = ask->method, .path = path, .query = ask->query ? ask->query : "", .sum = sum};
	struct transport_request request = {
		.method = ask->method, .body = ask->body, .idle_s = s3->idle_s, .total_ms = s3->total_ms};
	char when[STORE_SIGN_TIME], range[40], url[STORE_S3_URL_MAX], authorization[STORE_SIGN_ANSWER];
	const char *lines[STORE_S3_LINES + 1];
	struct timespec now;
	char *text;
	enum bts_err err;

	clock_gettime(CLOCK_REALTIME, &now);
	store_sign_time(now.tv_sec, when);
	sign.when = when;
	snprintf(range, sizeof(range), "bytes=%" PRIu64 "-", ask->visited);
	store_s3_headers(&sign, ask, range);
	if (!store_sign_authorization(&key, &sign, authorization))
		return store_s3_lasting(ask, BTS_INVALID, "the request cannot be signed");
	if (snprintf(url, sizeof(url), "%s%s%s%s", s3->root, path, ask->query ? "?" : "", sign.query) >=
		(int)sizeof(url))
		return store_s3_lasting(ask, BTS_INVALID, "the request is too long");
	text = store_s3_lines(&sign, authorization, lines);
	if (!text)
		return store_s3_lasting(ask, BTS_MEMORY, "no memory for a request");
	ask->from = ask->whole = UINT64_MAX;
	ask->new_etag[0] = ask->region[0] = '\0';
	ask->bounded = false;
	request.url = url;
	request.headers = lines;
	err = transport_send(s3->transport, &request, &handler, &ask->error);
	free(text);
	return err;
}

static bool store_s3_may_pass(const struct store_s3_ask *ask)
{
	static const char *const codes[] = {"RequestTimeout", "SlowDown", "InternalError",
		"ServiceUnavailable", "OperationAborted", "ConditionalRequestConflict"};
	size_t i;

	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strcmp(ask->problem.code, codes[i]) == 0)
			return true;
	return ask->status == 408 || ask->status == 409 || ask->status == 429 || ask->status == 500 ||
	       ask->status == 502 || ask->status == 503 || ask->status == 504;
}

/* What a status and a code mean, in words. */
struct store_s3_meaning {
	const char *code;
	const char *text;
};

static enum bts_err store_s3_describe(const struct store_s3_ask *ask, char *text, size_t room)
{
	static const struct store_s3_meaning meanings[] = {
		{"NoSuchBucket", "there is no such bucket"},
		{"AccessDenied", "this access key may not do that"},
		{"InvalidAccessKeyId", "the store does not know the access key"},
		{"SignatureDoesNotMatch", "the secret key is not that of the access key"},
		{"ExpiredToken", "the session token has expired"},
		{"InvalidToken", "the session token is not right"},
		{"RequestTimeTooSkewed", "this machine's clock is not the store's"},
		{"InvalidObjectState", "the object is in an archive class of the store's own"},
	};
	const char *region = ask->region[0] ? ask->region : ask->problem.region, *code = ask->problem.code,
		   *meaning = NULL;
	size_t i;
	int used;

	for (i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++)
		if (strcmp(code, meanings[i].code) == 0)
			meaning = meanings[i].text;
	if (!meaning && (ask->status == 301 || ask->status == 307))
		meaning = "the bucket is served elsewhere, and redirects are not followed";
	used = snprintf(text, room, "status %ld%s%s%s%s", ask->status, *code ? " " : "", code,
		meaning ? ": " : "", meaning ? meaning : "");
	if (*region && strcmp(region, ask->s3->region) != 0)
		snprintf(text + used, room - (size_t)used, " (its region is %s, not %s)", region,
			ask->s3->region);
	return ask->status == 507 ? BTS_FULL : store_s3_may_pass(ask) ? BTS_IO : BTS_INVALID;
}

enum bts_err store_s3_refuse(const struct store_s3_ask *ask, struct bts_error *error)
{
	char text[256];
	enum bts_err err = store_s3_describe(ask, text, sizeof(text));

	return store_s3_prefixed(ask, err, text, error);
}

/* What an attempt has brought.  BTS_OK: an answer for good. */
static enum bts_err store_s3_judge(struct store_s3_ask *ask, enum bts_err err, bool *again)
{
	*again = false;
	memset(&ask->problem, 0, sizeof(ask->problem));
	if (err) {
		ask->in_doubt = true;
		/* What has no name of its version cannot be gone on with. */
		*again = err == BTS_IO && !ask->lasting && !ask->refused &&
			 (ask->visited == 0 || ask->etag[0]);
		return err;
	}
	if (store_s3_is_success(ask))
		return BTS_OK;
	store_xml_error(ask->text, ask->size, &ask->problem);
	if (ask->visited > 0 && ask->status == 416 && ask->whole == ask->visited) {
		ask->status = 206; /* all of it had come, but for the end */
		return BTS_OK;
	}
	if (ask->visited > 0 && (ask->status == 412 || ask->status == 404))
		return store_s3_lasting(ask, BTS_IO, "the object changed while it was read");
	if (!store_s3_may_pass(ask))
		return BTS_OK;
	*again = true;
	ask->in_doubt = ask->in_doubt || ask->status >= 500;
	return store_s3_describe(ask, ask->error.text, sizeof(ask->error.text));
}

static void store_s3_pause(struct store_s3_ask *ask)
{
	unsigned shift = ask->attempts < 10 ? ask->attempts - 1 : 9;
	unsigned most = STORE_S3_WAIT_LEAST << shift;
	uint32_t random = 0;

	most = most < STORE_S3_WAIT_MOST ? most : STORE_S3_WAIT_MOST;
	(void)!getrandom(&random, sizeof(random), 0);
	transport_wait(ask->s3->transport, random % most + 1);
}

enum bts_err store_s3_ask(struct store_s3 *s3, struct store_s3_ask *ask, struct bts_error *error)
{
	char path[STORE_BUCKET_MAX + STORE_S3_KEY_MAX + 4], sum[STORE_SIGN_SUM];
	uint64_t begun = store_s3_now();
	enum bts_err err;
	bool again;

	ask->s3 = s3;
	ask->caller = error;
	snprintf(path, sizeof(path), "%s%s%s%s%s", s3->by_path ? "/" : "", s3->by_path ? s3->bucket : "",
		ask->key || !s3->by_path ? "/" : "", ask->key ? s3->prefix : "", ask->key ? ask->key : "");
	if (!store_sign_sum(ask->body, sum))
		return store_s3_prefixed(ask, BTS_INVALID, "the TLS library has no SHA-256", error);
	for (;;) {
		ask->attempts++;
		err = store_s3_judge(ask, store_s3_attempt(ask, path, sum), &again);
		if (!again || store_is_interrupted(&s3->base) || store_s3_now() - begun >= s3->retry_ms)
			break;
		store_s3_pause(ask);
	}
	if (!err || ask->refused)
		return err;
	return store_is_interrupted(&s3->base) ? store_fail_interrupted(&s3->base, error)
					       : store_s3_prefixed(ask, err, ask->error.text, error);
}

void store_s3_ask_fini(struct store_s3_ask *ask)
{
	free(ask->text);
}
