/*
 * A bucket as a store: what is asked for each call, and what the answers mean.
 *
 * The rule of only_new is S3's "If-None-Match: *".  Stores that do not know it overwrite, silently; so before its
 * first put a store puts one object twice that way, and the second must be refused.  The object stays, so the next
 * time one request is enough.
 */
#include "store_s3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "transport.h"

#define STORE_S3_PROBE ".only-new" /* no key, so it is in no listing */
#define STORE_S3_RETRY_MS 60000
#define STORE_S3_IDLE_S 30
#define STORE_S3_TOTAL_MS (15 * 60 * 1000)
#define STORE_S3_EMPTY_PAGES 100 /* of a listing, one after the other */

struct store_s3_same {
	struct bts_slice left;
	bool differs;
};

static enum bts_err store_s3_compare(void *arg, const void *data, size_t size, struct bts_error *error)
{
	struct store_s3_same *same = arg;

	(void)error;
	if (size > same->left.size || memcmp(data, same->left.data, size) != 0)
		same->differs = true;
	else
		same->left = (struct bts_slice){(const char *)same->left.data + size, same->left.size - size};
	return BTS_OK;
}

static enum bts_err store_s3_get(
	struct store *store, const char *key, store_piece_fn *visit, void *arg, struct bts_error *error)
{
	struct store_s3_ask ask = {.method = "GET", .key = key, .visit = visit, .arg = arg};
	enum bts_err err = store_s3_ask((struct store_s3 *)store, &ask, error);

	if (!err && ask.status == 404 && strcmp(ask.problem.code, "NoSuchKey") == 0)
		err = fail_set(error, BTS_NOT_FOUND,
			"%" STORE_NAME "/%" STORE_KEY ": there is no such object", store->name, key);
	else if (!err && ask.status != 200 && ask.status != 206)
		err = store_s3_refuse(&ask, error);
	store_s3_ask_fini(&ask);
	return err;
}

/* The answer to an earlier attempt may have been lost, and what exists be our own. */
static enum bts_err store_s3_put_exists(
	struct store_s3 *s3, const char *key, struct bts_slice bytes, bool in_doubt, struct bts_error *error)
{
	struct store_s3_same same = {.left = bytes, .differs = !in_doubt};
	enum bts_err err = in_doubt ? store_s3_get(&s3->base, key, store_s3_compare, &same, error) : BTS_OK;

	if (err)
		return err;
	if (!same.differs && same.left.size == 0)
		return BTS_OK;
	return fail_set(error, BTS_EXISTS, "%" STORE_NAME "/%" STORE_KEY ": it exists", s3->base.name, key);
}

static enum bts_err store_s3_put_one(
	struct store_s3 *s3, const char *key, struct bts_slice bytes, bool only_new, struct bts_error *error)
{
	struct store_s3_ask ask = {.method = "PUT", .key = key, .body = bytes, .only_new = only_new};
	enum bts_err err;

	if (!ask.body.data)
		ask.body.data = "";
	err = store_s3_ask(s3, &ask, error);
	if (!err && ask.status == 412 && only_new)
		err = store_s3_put_exists(s3, key, bytes, ask.in_doubt, error);
	else if (!err && ask.status != 200)
		err = store_s3_refuse(&ask, error);
	store_s3_ask_fini(&ask);
	return err;
}

static enum bts_err store_s3_probe(struct store_s3 *s3, struct bts_error *error)
{
	static const struct bts_slice bytes = {"btree_store\n", 12};
	struct bts_error inner;
	enum bts_err err = BTS_OK;
	int i;

	for (i = 0; !err && i < 2; i++)
		err = store_s3_put_one(s3, STORE_S3_PROBE, bytes, true, &inner);
	if (!err)
		return fail_set(error, BTS_INVALID,
			"%" STORE_NAME ": the store overwrites in spite of If-None-Match: *, two writers "
			"could destroy the archive",
			s3->base.name);
	if (err != BTS_EXISTS)
		return fail_set(error, err, "%s", inner.text);
	s3->probed = true;
	return BTS_OK;
}

static enum bts_err store_s3_put(
	struct store *store, const char *key, struct bts_slice bytes, bool only_new, struct bts_error *error)
{
	struct store_s3 *s3 = (struct store_s3 *)store;
	enum bts_err err = s3->probed ? BTS_OK : store_s3_probe(s3, error);

	return err ? err : store_s3_put_one(s3, key, bytes, only_new, error);
}

static enum bts_err store_s3_remove(struct store *store, const char *key, struct bts_error *error)
{
	struct store_s3_ask ask = {.method = "DELETE", .key = key};
	enum bts_err err = store_s3_ask((struct store_s3 *)store, &ask, error);

	if (!err && ask.status != 204 && ask.status != 200 &&
		(ask.status != 404 || strcmp(ask.problem.code, "NoSuchKey") != 0))
		err = store_s3_refuse(&ask, error);
	store_s3_ask_fini(&ask);
	return err;
}

struct store_s3_listing {
	struct store_s3 *s3;
	const char *prefix;
	store_key_fn *visit;
	void *arg;
	struct bts_error *error;
	char last[STORE_KEY_MAX + 1]; /* the greatest key visited, or what was asked for */
};

static enum bts_err store_s3_on_object(void *arg, const char *key, uint64_t size, uint64_t modified_ms)
{
	struct store_s3_listing *listing = arg;
	const struct store_s3 *s3 = listing->s3;
	size_t above = strlen(s3->prefix);

	if (store_is_interrupted(&s3->base))
		return store_fail_interrupted(&s3->base, listing->error);
	if (strncmp(key, s3->prefix, above) != 0 ||
		strncmp(key + above, listing->prefix, strlen(listing->prefix)) != 0)
		return fail_set(listing->error, BTS_CORRUPT,
			"%" STORE_NAME "/%" STORE_KEY ": objects are listed that were not asked for",
			s3->base.name, listing->prefix);
	key += above;
	if (!store_url_is_key(key))
		return BTS_OK;
	if (strcmp(key, listing->last) <= 0)
		return fail_set(listing->error, BTS_CORRUPT,
			"%" STORE_NAME "/%" STORE_KEY ": the listing is not in ascending order",
			s3->base.name, key);
	strcpy(listing->last, key);
	return listing->visit(listing->arg, key, size, modified_ms, listing->error);
}

/* The query of a page, its names in order: after the token of the page before, else after a key. */
static bool store_s3_query(
	const struct store_s3_listing *listing, const char *token, char *query, size_t room)
{
	char prefix[3 * STORE_S3_KEY_MAX + 1], after[3 * STORE_S3_KEY_MAX + 1],
		next[3 * STORE_XML_TOKEN_MAX + 1];
	char plain[STORE_S3_KEY_MAX + 1];
	bool right, from = !*token && listing->last[0];

	snprintf(plain, sizeof(plain), "%s%s", listing->s3->prefix, listing->prefix);
	right = store_sign_encode(plain, prefix, sizeof(prefix));
	snprintf(plain, sizeof(plain), "%s%s", listing->s3->prefix, listing->last);
	right = right && store_sign_encode(plain, after, sizeof(after)) &&
		store_sign_encode(token, next, sizeof(next));
	return right && snprintf(query, room, "%s%s%sencoding-type=url&list-type=2&prefix=%s%s%s",
				*token ? "continuation-token=" : "", next, *token ? "&" : "", prefix,
				from ? "&start-after=" : "", from ? after : "") < (int)room;
}

static enum bts_err store_s3_page(struct store_s3_listing *listing, struct store_xml_page *page)
{
	char query[3 * (2 * STORE_S3_KEY_MAX + STORE_XML_TOKEN_MAX) + 128];
	struct store_s3_ask ask = {.method = "GET", .query = query};
	const char *why = NULL, *name = listing->s3->base.name;
	enum bts_err err;

	if (!store_s3_query(listing, page->token, query, sizeof(query)))
		return fail_set(
			listing->error, BTS_INVALID, "%" STORE_NAME ": the request is too long", name);
	err = store_s3_ask(listing->s3, &ask, listing->error);
	if (!err && ask.status != 200)
		err = store_s3_refuse(&ask, listing->error);
	else if (!err)
		err = store_xml_list(ask.text, ask.size, store_s3_on_object, listing, page, &why);
	if (why && *why)
		err = fail_set(listing->error, err, "%" STORE_NAME "/%" STORE_KEY ": the listing: %s", name,
			listing->prefix, why);
	store_s3_ask_fini(&ask);
	return err;
}

static enum bts_err store_s3_list(struct store *store, const char *prefix, const char *after,
	store_key_fn *visit, void *arg, struct bts_error *error)
{
	struct store_s3_listing listing = {
		.s3 = (struct store_s3 *)store, .prefix = prefix, .visit = visit, .arg = arg, .error = error};
	struct store_xml_page page = {.truncated = true};
	char token[STORE_XML_TOKEN_MAX + 1];
	unsigned empty = 0;
	enum bts_err err = BTS_OK;

	strcpy(listing.last, after);
	while (!err && page.truncated) {
		strcpy(token, page.token);
		err = store_s3_page(&listing, &page);
		empty = page.objects > 0 ? 0 : empty + 1;
		if (!err && page.truncated &&
			(!page.token[0] || strcmp(token, page.token) == 0 || empty == STORE_S3_EMPTY_PAGES))
			err = fail_set(error, BTS_CORRUPT,
				"%" STORE_NAME "/%" STORE_KEY ": the listing goes on and does not get on",
				store->name, prefix);
	}
	return err;
}

static void store_s3_interrupt(struct store *store)
{
	transport_interrupt(((struct store_s3 *)store)->transport);
}

static void store_s3_close(struct store *store)
{
	struct store_s3 *s3 = (struct store_s3 *)store;

	transport_free(s3->transport);
	explicit_bzero(s3->secret, sizeof(s3->secret));
	explicit_bzero(s3->token, sizeof(s3->token));
	free(s3);
}

static const char *store_s3_setting(const char *given, const char *variable)
{
	const char *value = given && *given ? given : getenv(variable);

	return value && *value ? value : NULL;
}

/* Of what a header may have: it would else be more than one. */
static bool store_s3_is_word(const char *text)
{
	for (; *text; text++)
		if (*text <= ' ' || *text > '~' || *text == ',')
			return false;
	return true;
}

static enum bts_err store_s3_set_credentials(
	struct store_s3 *s3, const struct store_options *options, struct bts_error *error)
{
	const char *access = store_s3_setting(options->access_key, "AWS_ACCESS_KEY_ID");
	const char *secret = store_s3_setting(options->secret_key, "AWS_SECRET_ACCESS_KEY");
	const char *token = store_s3_setting(options->session_token, "AWS_SESSION_TOKEN");

	if (!access || !secret)
		return fail_set(error, BTS_INVALID,
			"%" STORE_NAME ": AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set",
			s3->base.name);
	if (strlen(access) > STORE_S3_ACCESS_MAX || !store_s3_is_word(access) ||
		strlen(secret) >= sizeof(s3->secret))
		return fail_set(error, BTS_INVALID,
			"%" STORE_NAME ": AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is no key",
			s3->base.name);
	if (token && (strlen(token) >= sizeof(s3->token) || !store_s3_is_word(token)))
		return fail_set(
			error, BTS_INVALID, "%" STORE_NAME ": AWS_SESSION_TOKEN is no token", s3->base.name);
	strcpy(s3->access, access);
	strcpy(s3->secret, secret);
	strcpy(s3->token, token ? token : "");
	return BTS_OK;
}

/*
 * By path where an endpoint is named, as such servers rarely have names for buckets; a dot in a name would fit no
 * certificate.
 */
static void store_s3_set_host(struct store_s3 *s3, const struct store_endpoint *endpoint)
{
	const char *china = strncmp(s3->region, "cn-", 3) == 0 ? ".cn" : "";

	s3->by_path = endpoint->host[0] || strchr(s3->bucket, '.');
	if (endpoint->host[0])
		strcpy(s3->host, endpoint->host);
	else
		snprintf(s3->host, sizeof(s3->host), "%s%ss3.%s.amazonaws.com%s",
			s3->by_path ? "" : s3->bucket, s3->by_path ? "" : ".", s3->region, china);
	snprintf(s3->root, sizeof(s3->root), "%s://%s",
		endpoint->host[0] && !endpoint->tls ? "http" : "https", s3->host);
}

static enum bts_err store_s3_set_place(struct store_s3 *s3, const struct store_url *url,
	const struct store_options *options, struct bts_error *error)
{
	const char *region = store_s3_setting(url->region[0] ? url->region : options->region, "AWS_REGION");
	const char *endpoint = store_s3_setting(options->endpoint, "AWS_ENDPOINT_URL");
	struct store_endpoint there = url->endpoint;
	const char *why = endpoint && !there.host[0] ? store_url_parse_endpoint(endpoint, &there) : NULL;

	if (why)
		return fail_set(error, BTS_INVALID, "%" STORE_NAME ": %s", s3->base.name, why);
	if (!region)
		region = store_s3_setting(NULL, "AWS_DEFAULT_REGION");
	if (region && !store_url_is_region(region))
		return fail_set(error, BTS_INVALID,
			"%" STORE_NAME ": a region is of small letters, digits and '-'", s3->base.name);
	strcpy(s3->region, region ? region : "us-east-1");
	strcpy(s3->bucket, url->bucket);
	snprintf(s3->prefix, sizeof(s3->prefix), "%s%s", url->prefix, url->prefix[0] ? "/" : "");
	store_s3_set_host(s3, &there);
	return BTS_OK;
}

enum bts_err store_s3_open(const struct store_url *url, const struct store_options *options,
	struct store **store, struct bts_error *error)
{
	static const struct store_ops ops = {
		.close = store_s3_close,
		.put = store_s3_put,
		.get = store_s3_get,
		.list = store_s3_list,
		.remove = store_s3_remove,
		.interrupt = store_s3_interrupt,
	};
	struct store_s3 *s3 = calloc(1, sizeof(*s3));
	enum bts_err err;

	if (!s3)
		return fail_set(error, BTS_MEMORY, "no memory for a store");
	s3->base.ops = &ops;
	strcpy(s3->base.name, url->name);
	atomic_init(&s3->base.interrupted, false);
	s3->retry_ms = options->retry_ms ? options->retry_ms : STORE_S3_RETRY_MS;
	s3->idle_s = options->idle_s ? options->idle_s : STORE_S3_IDLE_S;
	s3->total_ms = options->total_ms ? options->total_ms : STORE_S3_TOTAL_MS;
	err = store_s3_set_credentials(s3, options, error);
	if (!err)
		err = store_s3_set_place(s3, url, options, error);
	if (!err) {
		s3->transport =
			transport_new_stranger(options->user_agent ? options->user_agent : "btree_store",
				store_s3_setting(options->ca, "AWS_CA_BUNDLE"));
		err = s3->transport ? BTS_OK : fail_set(error, BTS_MEMORY, "no memory for a store");
	}
	if (err)
		store_s3_close(&s3->base);
	else
		*store = &s3->base;
	return err;
}
