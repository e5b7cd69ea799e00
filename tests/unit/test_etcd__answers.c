/* What is sent to etcd's JSON gateway, and what its answers mean: as they are, cut short, and hostile. */
#include "cmocka.h"

#include <stdlib.h>
#include <string.h>

#include "etcd.h"

#define HEADER "\"header\":{\"cluster_id\":\"1\",\"member_id\":\"2\",\"revision\":\"3\",\"raft_term\":\"4\"}"
/* {"name":"a","url":"http://h:1","source":"http://h:2","elected":true} */
#define VALUE "eyJuYW1lIjoiYSIsInVybCI6Imh0dHA6Ly9oOjEiLCJzb3VyY2UiOiJodHRwOi8vaDoyIiwiZWxlY3RlZCI6dHJ1ZX0="

static struct failover_reply told(enum failover_call call, long status, const char *body)
{
	const struct etcd_request request = {.call = call, .lease = 77};
	struct bts_error error = {0};
	struct failover_reply reply;

	etcd_json_reply("k/1", &request, status, (struct bts_slice){body, strlen(body)}, &reply, &error);
	assert_int_equal(reply.call, call);
	if (reply.result != FAILOVER_DONE)
		assert_int_not_equal(error.code, BTS_OK);
	return reply;
}

static void test_place(void **state)
{
	struct etcd_place place;

	(void)state;
	assert_null(etcd_parse("etcd://a:2379/bts/orders", &place));
	assert_int_equal(place.count, 1);
	assert_string_equal(place.endpoints[0], "http://a:2379");
	assert_string_equal(place.key, "bts/orders");
	assert_null(etcd_parse("etcds://a:1,[::1]:2/k", &place));
	assert_int_equal(place.count, 2);
	assert_string_equal(place.endpoints[1], "https://[::1]:2");
	assert_non_null(etcd_parse("http://a:1/k", &place));
	assert_non_null(etcd_parse("etcd://a:1", &place));
	assert_non_null(etcd_parse("etcd://a:1/", &place));
	assert_non_null(etcd_parse("etcd:///k", &place));
	assert_non_null(etcd_parse("etcd://a:1,,b:1/k", &place));
	assert_non_null(etcd_parse("etcd://user@a:1/k", &place));
	assert_non_null(etcd_parse("etcd://1,2,3,4,5,6,7,8,9,10/k", &place));
}

static void body_is(enum failover_call call, const char *want)
{
	const struct failover_key own = {.name = "a", .url = "http://h:1", .source = "http://h:2"};
	const struct etcd_request request = {
		.call = call, .lease = INT64_C(7587869012345678901), .ttl_ms = 9001, .own = &own};
	char *body = etcd_json_body("k/1", &request);

	assert_string_equal(body, want);
	free(body);
}

static void test_requests(void **state)
{
	(void)state;
	body_is(FAILOVER_READ, "{\"key\":\"ay8x\"}");
	body_is(FAILOVER_GRANT, "{\"TTL\":\"10\"}");
	body_is(FAILOVER_RENEW, "{\"ID\":\"7587869012345678901\"}");
	body_is(FAILOVER_REVOKE, "{\"ID\":\"7587869012345678901\"}");
	body_is(FAILOVER_PUBLISH, "{\"compare\":[{\"key\":\"ay8x\",\"result\":\"EQUAL\",\"target\":\"LEASE\","
				  "\"lease\":\"7587869012345678901\"}],"
				  "\"success\":[{\"requestPut\":{\"key\":\"ay8x\",\"value\":\"" VALUE
				  "\",\"lease\":\"7587869012345678901\"}}]}");
	assert_string_equal(etcd_json_path(FAILOVER_CREATE), "/v3/kv/txn");
}

static void test_answers(void **state)
{
	struct failover_reply reply;

	(void)state;
	reply = told(FAILOVER_GRANT, 200, "{" HEADER ",\"ID\":\"7587869012345678901\",\"TTL\":\"10\"}");
	assert_int_equal(reply.result, FAILOVER_DONE);
	assert_true(reply.lease == INT64_C(7587869012345678901) && reply.ttl_ms == 10000);
	reply = told(FAILOVER_RENEW, 200, "{\"result\":{" HEADER ",\"ID\":\"77\",\"TTL\":\"5\"}}\n");
	assert_true(reply.result == FAILOVER_DONE && reply.ttl_ms == 5000);
	assert_int_equal(told(FAILOVER_RENEW, 200, "{\"result\":{" HEADER ",\"ID\":\"77\"}}\n").result,
		FAILOVER_REFUSED);
	assert_int_equal(
		told(FAILOVER_CREATE, 200, "{" HEADER ",\"succeeded\":true,\"responses\":[{}]}").result,
		FAILOVER_DONE);
	assert_int_equal(told(FAILOVER_CREATE, 200, "{" HEADER "}").result, FAILOVER_REFUSED);
	assert_int_equal(told(FAILOVER_REVOKE, 200, "{" HEADER "}").result, FAILOVER_DONE);
	reply = told(FAILOVER_READ, 200, "{" HEADER "}");
	assert_true(reply.result == FAILOVER_DONE && !reply.key.there);
	reply = told(FAILOVER_READ, 200,
		"{" HEADER
		",\"kvs\":[{\"key\":\"ay8x\",\"create_revision\":\"9\",\"version\":\"1\",\"value\":\"" VALUE
		"\",\"lease\":\"77\"}],\"count\":\"1\"}");
	assert_true(reply.result == FAILOVER_DONE && reply.key.there && reply.key.elected &&
		    reply.key.lease == 77);
	assert_string_equal(reply.key.name, "a");
	assert_string_equal(reply.key.url, "http://h:1");
	assert_string_equal(reply.key.source, "http://h:2");
	/* Somebody else's key: there is a holder, and nobody to follow. */
	reply = told(FAILOVER_READ, 200, "{" HEADER ",\"kvs\":[{\"key\":\"ay8x\",\"value\":\"eA==\"}]}");
	assert_true(
		reply.result == FAILOVER_DONE && reply.key.there && !reply.key.elected && !*reply.key.source);
}

static void test_problems(void **state)
{
	(void)state;
	assert_int_equal(
		told(FAILOVER_REVOKE, 404, "{\"error\":\"etcdserver: requested lease not found\",\"code\":5}")
			.result,
		FAILOVER_REFUSED);
	assert_int_equal(
		told(FAILOVER_CREATE, 503, "{\"error\":\"etcdserver: request timed out\",\"code\":14}")
			.result,
		FAILOVER_UNKNOWN);
	assert_int_equal(told(FAILOVER_CREATE, 404, "404 page not found").result, FAILOVER_UNKNOWN);
	assert_int_equal(
		told(FAILOVER_RENEW, 200, "{\"result\":{" HEADER ",\"ID\":\"78\",\"TTL\":\"5\"}}\n").result,
		FAILOVER_UNKNOWN);
	assert_int_equal(
		told(FAILOVER_RENEW, 200, "{\"error\":{\"grpc_code\":14,\"message\":\"no leader\"}}").result,
		FAILOVER_UNKNOWN);
	assert_int_equal(told(FAILOVER_GRANT, 200, "{" HEADER ",\"ID\":\"0\",\"TTL\":\"10\"}").result,
		FAILOVER_UNKNOWN);
	assert_int_equal(told(FAILOVER_GRANT, 200, "{" HEADER ",\"ID\":\"1\",\"TTL\":\"ten\"}").result,
		FAILOVER_UNKNOWN);
	assert_int_equal(
		told(FAILOVER_READ, 200, "{" HEADER ",\"kvs\":[{\"key\":\"eA==\",\"value\":\"\"}]}").result,
		FAILOVER_UNKNOWN);
	assert_int_equal(told(FAILOVER_READ, 200, "{}").result, FAILOVER_UNKNOWN);
	assert_int_equal(told(FAILOVER_READ, 200, "{" HEADER "," HEADER "}").result, FAILOVER_UNKNOWN);
	assert_int_equal(
		told(FAILOVER_CREATE, 200, "{" HEADER ",\"succeeded\":\"true\"}").result, FAILOVER_UNKNOWN);
	assert_int_equal(told(FAILOVER_CREATE, 200, "[]").result, FAILOVER_UNKNOWN);
	assert_int_equal(told(FAILOVER_CREATE, 200, "").result, FAILOVER_UNKNOWN);
}

/* Cut short, and with a byte changed: an answer or an error, nothing else. */
static void test_torn(void **state)
{
	static const char whole[] =
		"{" HEADER ",\"kvs\":[{\"key\":\"ay8x\",\"value\":\"" VALUE "\",\"lease\":\"77\"}]}";
	char bytes[sizeof(whole)];

	(void)state;
	for (size_t i = 0; i + 1 < sizeof(whole); i++) {
		memcpy(bytes, whole, sizeof(whole));
		bytes[i] = '\0';
		assert_int_equal(told(FAILOVER_READ, 200, bytes).result, FAILOVER_UNKNOWN);
		for (unsigned bit = 0; bit < 7; bit++) {
			memcpy(bytes, whole, sizeof(whole));
			bytes[i] = (char)(bytes[i] ^ 1 << bit);
			if (bytes[i])
				(void)told(FAILOVER_READ, 200, bytes);
		}
	}
}

static void test_bushy(void **state)
{
	char *bytes = malloc(60001);

	(void)state;
	memset(bytes, '[', 60000);
	bytes[60000] = '\0';
	assert_int_equal(told(FAILOVER_READ, 200, bytes).result, FAILOVER_UNKNOWN);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_place),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_problems),
		cmocka_unit_test(test_torn),
		cmocka_unit_test(test_bushy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
