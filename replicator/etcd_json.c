/* Requests to etcd's JSON gateway, and its answers: see etcd.h.  What comes is bounded and checked; a service that lies is trusted all the same. */
#include "etcd.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "sources.h"

#define ETCD_DEPTH_TOKENS 512 /* of structure in an answer */
#define ETCD_CODE_NOT_FOUND 5 /* of gRPC */
#define ETCD_VALUE_MAX 4096

static const char etcd_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Owned: free; NULL without memory. */
static char *etcd_base64(const char *text)
{
	size_t size = strlen(text), at = 0;
	char *out = malloc((size + 2) / 3 * 4 + 1);

	if (!out)
		return NULL;
	for (size_t i = 0; i < size; i += 3) {
		size_t left = size - i;
		uint32_t bits = (uint32_t)(uint8_t)text[i] << 16;

		bits |= left > 1 ? (uint32_t)(uint8_t)text[i + 1] << 8 : 0;
		bits |= left > 2 ? (uint32_t)(uint8_t)text[i + 2] : 0;
		out[at++] = etcd_digits[bits >> 18];
		out[at++] = etcd_digits[bits >> 12 & 63];
		out[at++] = left > 1 ? etcd_digits[bits >> 6 & 63] : '=';
		out[at++] = left > 2 ? etcd_digits[bits & 63] : '=';
	}
	out[at] = '\0';
	return out;
}

/* Of at most ETCD_VALUE_MAX bytes; false: it is none, or longer. */
static bool etcd_base64_parse(const char *text, char out[ETCD_VALUE_MAX + 1], size_t *size)
{
	size_t length = strlen(text), end = length;
	uint32_t bits = 0;

	while (end > 0 && length - end < 2 && text[end - 1] == '=')
		end--;
	if (length % 4 || end / 4 * 3 + 3 > ETCD_VALUE_MAX)
		return false;
	*size = 0;
	for (size_t i = 0; i < end; i++) {
		const char *digit = strchr(etcd_digits, text[i]);

		if (!digit)
			return false;
		bits = bits << 6 | (uint32_t)(digit - etcd_digits);
		if (i % 4)
			out[(*size)++] = (char)(bits >> (6 - i % 4 * 2) & 255);
	}
	out[*size] = '\0';
	return true;
}

const char *etcd_json_path(enum failover_call call)
{
	static const char *const paths[] = {[FAILOVER_NO_CALL] = "",
		[FAILOVER_READ] = "/v3/kv/range",
		[FAILOVER_GRANT] = "/v3/lease/grant",
		[FAILOVER_CREATE] = "/v3/kv/txn",
		[FAILOVER_RENEW] = "/v3/lease/keepalive",
		[FAILOVER_PUBLISH] = "/v3/kv/txn",
		[FAILOVER_REVOKE] = "/v3/lease/revoke"};

	return paths[call];
}

/* ---- requests ---- */

/* What stands in the key, in base64 (owned: free). */
static char *etcd_value(const struct failover_key *own, bool elected)
{
	json_t *tree = json_pack("{s:s, s:s, s:s, s:b}", "name", own->name, "url", own->url, "source",
		own->source, "elected", elected);
	char *text = tree ? json_dumps(tree, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
	char *value = text ? etcd_base64(text) : NULL;

	json_decref(tree);
	free(text);
	return value;
}

/* The key is made where there is none, or changed where it has this lease. */
static json_t *etcd_put(const char *key, const struct etcd_request *request, const char *lease)
{
	bool publish = request->call == FAILOVER_PUBLISH;
	char *value = etcd_value(request->own, publish);
	json_t *tree = NULL;

	if (value)
		tree = json_pack("{s:[{s:s, s:s, s:s, s:s}], s:[{s:{s:s, s:s, s:s}}]}", "compare", "key", key,
			"result", "EQUAL", "target", publish ? "LEASE" : "CREATE",
			publish ? "lease" : "create_revision", publish ? lease : "0", "success", "requestPut",
			"key", key, "value", value, "lease", lease);
	free(value);
	return tree;
}

char *etcd_json_body(const char *key, const struct etcd_request *request)
{
	char lease[24], ttl[24], *text = NULL, *name = etcd_base64(key);
	json_t *tree = NULL;

	snprintf(lease, sizeof(lease), "%" PRId64, request->lease);
	snprintf(ttl, sizeof(ttl), "%" PRIu64, (request->ttl_ms + 999) / 1000);
	if (!name)
		return NULL;
	if (request->call == FAILOVER_READ)
		tree = json_pack("{s:s}", "key", name);
	else if (request->call == FAILOVER_GRANT)
		tree = json_pack("{s:s}", "TTL", ttl);
	else if (request->call == FAILOVER_CREATE || request->call == FAILOVER_PUBLISH)
		tree = etcd_put(name, request, lease);
	else
		tree = json_pack("{s:s}", "ID", lease);
	if (tree)
		text = json_dumps(tree, JSON_COMPACT);
	json_decref(tree);
	free(name);
	return text;
}

/* ---- answers ---- */

/* Before the library builds a tree that takes many times the text's memory. */
static bool etcd_is_bushy(struct bts_slice text)
{
	const char *at = text.data;
	bool quoted = false;
	size_t tokens = 0;

	for (size_t i = 0; i < text.size && tokens <= ETCD_DEPTH_TOKENS; i++) {
		if (at[i] == '"')
			quoted = !quoted;
		else if (quoted)
			i += at[i] == '\\';
		else
			tokens += at[i] == ',' || at[i] == '[' || at[i] == '{';
	}
	return tokens > ETCD_DEPTH_TOKENS;
}

/* Proto's JSON leaves zeros out. */
static bool etcd_number(const json_t *object, const char *name, int64_t *number)
{
	const json_t *member = json_object_get(object, name);
	const char *text = json_string_value(member);
	char *end;

	*number = 0;
	if (!member)
		return true;
	if (json_is_integer(member)) {
		*number = json_integer_value(member);
		return true;
	}
	if (!text || !*text || strspn(text, "-0123456789") != strlen(text) || strlen(text) > 20)
		return false;
	*number = strtoll(text, &end, 10);
	return !*end;
}

static bool etcd_text(const json_t *object, const char *name, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(object, name));

	if (!text || strlen(text) >= size)
		return false;
	for (const char *at = text; *at; at++)
		if ((unsigned char)*at <= 0x20 || (unsigned char)*at > 0x7e || strchr("\"<>\\", *at))
			return false;
	strcpy(out, text);
	return true;
}

/* What stands in the key.  Somebody else's text leaves the fields empty: then there is a holder, and nobody to follow. */
static void etcd_take_value(const char *text, struct failover_key *key)
{
	char bytes[ETCD_VALUE_MAX + 1];
	struct sources sources;
	size_t size;
	json_t *tree;
	bool right;

	if (!text || !etcd_base64_parse(text, bytes, &size) || etcd_is_bushy((struct bts_slice){bytes, size}))
		return;
	tree = json_loadb(bytes, size, JSON_REJECT_DUPLICATES, NULL);
	right = etcd_text(tree, "name", key->name, sizeof(key->name)) &&
		etcd_text(tree, "url", key->url, sizeof(key->url)) &&
		etcd_text(tree, "source", key->source, sizeof(key->source)) &&
		json_is_boolean(json_object_get(tree, "elected")) &&
		sources_parse(&sources, key->source, NULL) == BTS_OK;
	if (right)
		key->elected = json_is_true(json_object_get(tree, "elected"));
	else
		key->name[0] = key->url[0] = key->source[0] = '\0';
	json_decref(tree);
}

static bool etcd_take_read(const char *key, const json_t *tree, struct failover_key *out)
{
	const json_t *list = json_object_get(tree, "kvs"), *item = json_array_get(list, 0);
	char *name = etcd_base64(key);
	const char *told = json_string_value(json_object_get(item, "key"));
	bool right = !list || json_array_size(list) == 0;

	if (!right && json_array_size(list) == 1 && name && told && !strcmp(name, told)) {
		right = etcd_number(item, "lease", &out->lease);
		out->there = true;
		etcd_take_value(json_string_value(json_object_get(item, "value")), out);
	}
	free(name);
	return right && json_is_object(json_object_get(tree, "header"));
}

/* A renewal's answer is one of a stream. */
static bool etcd_take_renewal(
	const json_t *tree, const struct etcd_request *request, struct failover_reply *reply)
{
	const json_t *result = json_object_get(tree, "result");
	int64_t lease, ttl;

	if (!json_is_object(result) || !etcd_number(result, "ID", &lease) || lease != request->lease ||
		!etcd_number(result, "TTL", &ttl))
		return false;
	reply->result = ttl > 0 ? FAILOVER_DONE : FAILOVER_REFUSED;
	reply->ttl_ms = ttl > 0 && ttl < FAILOVER_TTL_MOST_MS ? (uint64_t)ttl * 1000 : FAILOVER_TTL_MOST_MS;
	return true;
}

static bool etcd_take_grant(const json_t *tree, struct failover_reply *reply)
{
	int64_t ttl;

	if (!etcd_number(tree, "ID", &reply->lease) || reply->lease <= 0 || !etcd_number(tree, "TTL", &ttl) ||
		ttl <= 0)
		return false;
	reply->result = FAILOVER_DONE;
	reply->ttl_ms = ttl < FAILOVER_TTL_MOST_MS ? (uint64_t)ttl * 1000 : FAILOVER_TTL_MOST_MS;
	return true;
}

static bool etcd_take(
	const char *key, const struct etcd_request *request, const json_t *tree, struct failover_reply *reply)
{
	const json_t *succeeded = json_object_get(tree, "succeeded");

	switch (request->call) {
	case FAILOVER_READ:
		reply->result = FAILOVER_DONE;
		return etcd_take_read(key, tree, &reply->key);
	case FAILOVER_GRANT:
		return etcd_take_grant(tree, reply);
	case FAILOVER_RENEW:
		return etcd_take_renewal(tree, request, reply);
	case FAILOVER_REVOKE:
		reply->result = FAILOVER_DONE;
		return json_is_object(json_object_get(tree, "header"));
	default:
		reply->result = json_is_true(succeeded) ? FAILOVER_DONE : FAILOVER_REFUSED;
		return json_is_object(json_object_get(tree, "header")) &&
		       (!succeeded || json_is_boolean(succeeded));
	}
}

/* A problem: {"error": "etcdserver: requested lease not found", "code": 5, ...} */
static void etcd_take_problem(
	const json_t *tree, long status, struct failover_reply *reply, struct bts_error *error)
{
	const json_t *inner = json_object_get(tree, "error");
	const char *text =
		json_string_value(json_is_object(inner) ? json_object_get(inner, "message") : inner);
	int64_t code = 0;

	if (!etcd_number(json_is_object(inner) ? inner : tree, json_is_object(inner) ? "grpc_code" : "code",
		    &code))
		code = 0;
	reply->result = code == ETCD_CODE_NOT_FOUND && text && strstr(text, "lease not found")
				? FAILOVER_REFUSED
				: FAILOVER_UNKNOWN;
	fail_set(error, BTS_IO, "answered %ld: %.150s", status, text ? text : "no text");
}

void etcd_json_reply(const char *key, const struct etcd_request *request, long status, struct bts_slice body,
	struct failover_reply *reply, struct bts_error *error)
{
	json_t *tree = NULL;

	memset(reply, 0, sizeof(*reply));
	reply->call = request->call;
	reply->result = FAILOVER_UNKNOWN;
	/* A stream's answer ends with a newline; another after it is none of ours. */
	if (body.size && !etcd_is_bushy(body))
		tree = json_loadb(body.data, body.size, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(tree)) {
		fail_set(error, BTS_IO, "answered %ld without a JSON object", status);
	} else if (status != 200 || json_object_get(tree, "error")) {
		etcd_take_problem(tree, status, reply, error);
	} else if (!etcd_take(key, request, tree, reply)) {
		memset(&reply->key, 0, sizeof(reply->key));
		reply->result = FAILOVER_UNKNOWN;
		fail_set(error, BTS_IO, "%s was answered with what is not its answer",
			etcd_json_path(request->call));
	} else if (reply->result == FAILOVER_REFUSED) {
		fail_set(error, BTS_CONFLICT, "%s: refused, as the key or the lease is another's, or gone",
			etcd_json_path(request->call));
	}
	json_decref(tree);
}
