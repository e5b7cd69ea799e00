/* What the frame server answers to requests that are wrong, ambiguous, or only ask how it is. */
#include "cmocka.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replica.h"

static char dir[128];
static struct bts *db;
static struct serve *serve;

static int set_up(void **state)
{
	char path[160], url[64];

	(void)state;
	replica_enter(dir, sizeof(dir));
	replica_path(path, sizeof(path), dir, "primary");
	db = replica_open(path, 0);
	replica_put(db, 0, 10, 0, 10);
	serve = replica_serve(db, url, sizeof(url));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	serve_stop(serve);
	bts_close(db);
	replica_leave(dir);
	return 0;
}

/* Send the bytes, read until the peer closes or the answer holds until. */
static void talk(const char *request, const char *until, char *answer, size_t size)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)serve_port(serve))};
	const struct timeval limit = {.tv_sec = 10};
	size_t at = 0;
	ssize_t got;
	int fd;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	answer[0] = '\0';
	while (at + 1 < size && !strstr(answer, until) &&
		(got = recv(fd, answer + at, size - 1 - at, 0)) > 0) {
		at += (size_t)got;
		answer[at] = '\0';
	}
	close(fd);
}

static void answers(const char *request, const char *status, const char *part)
{
	char answer[8192], line[32];

	snprintf(line, sizeof(line), "HTTP/1.1 %s", status);
	talk(request, part, answer, sizeof(answer));
	if (strncmp(answer, line, strlen(line)) != 0 || !strstr(answer, part))
		fail_msg("to '%.60s' came '%.600s', not %s with '%s'", request, answer, status, part);
}

static void probes(void **state)
{
	(void)state;
	answers("GET /livez HTTP/1.1\r\nHost: a\r\nX-Request-Id: my-id.1\r\n\r\n", "200",
		"X-Request-Id: my-id.1");
	answers("HEAD /readyz HTTP/1.1\r\nHost: a\r\n\r\n", "200", "\r\n\r\n");
	answers("OPTIONS /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "204", "Allow: GET, HEAD, OPTIONS");
	answers("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "200", "bts_replication_sent_frames_total 0");
	answers("GET /v1/replication/position HTTP/1.1\r\nHost: a\r\n\r\n", "200", "\"page_size\":4096}");
	answers("GET /v1/replication/frames?after=0 HTTP/1.1\r\nHost: a\r\n\r\n", "200", "BTSFRAME");
}

static void wrong_requests(void **state)
{
	(void)state;
	answers("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404", "\"code\":\"not-found\"");
	answers("GET /live%7a HTTP/1.1\r\nHost: a\r\n\r\n", "404", "\"code\":\"not-found\"");
	answers("GET /livez%00 HTTP/1.1\r\nHost: a\r\n\r\n", "404", "\"code\":\"not-found\"");
	answers("GET /livez?a=1 HTTP/1.1\r\nHost: a\r\n\r\n", "400", "\"code\":\"bad-request\"");
	answers("POST /v1/replication/frames HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "405",
		"Allow: GET");
	answers("GET /v1/replication/frames HTTP/1.1\r\nHost: a\r\n\r\n", "400", "'after' is missing");
	answers("GET /v1/replication/frames?after=0&after=0 HTTP/1.1\r\nHost: a\r\n\r\n", "400", "twice");
	answers("GET /v1/replication/frames?after=0&x HTTP/1.1\r\nHost: a\r\n\r\n", "400",
		"unknown parameter 'x'");
	answers("GET /v1/replication/frames?after=0&wait=1h HTTP/1.1\r\nHost: a\r\n\r\n", "400", "'wait'");
	answers("GET /v1/replication/frames?after=0&database=00000000000000000000000000000000 "
		"HTTP/1.1\r\nHost: a\r\n\r\n",
		"409", "\"code\":\"wrong-database\"");
	answers("GET /v1/replication/frames?after=0&database=00000000000000000000000000000000 "
		"HTTP/1.1\r\nHost: a\r\n\r\n",
		"409", "BTS-Error: wrong-database");
}

/* A position that this database never had. */
static void strange_positions(void **state)
{
	struct bts_position position;
	char request[512];
	unsigned i;

	(void)state;
	replica_put(db, 0, 10, 1, 10);
	assert_int_equal(bts_ship_position(db, &position, NULL), BTS_OK);
	for (i = 0; i < 2; i++) {
		snprintf(request, sizeof(request),
			"GET "
			"/v1/replication/"
			"frames?after=%llu&epoch=%u-%016llx&chain=00000000000000000000000000000000&follower="
			"x "
			"HTTP/1.1\r\nHost: a\r\n\r\n",
			(unsigned long long)position.txid + i * 100, position.epoch,
			(unsigned long long)position.epoch_random);
		answers(request, "409", i ? "\"code\":\"ahead\"" : "\"code\":\"diverged\"");
	}
	/* Refused positions acknowledge nothing. */
	assert_int_equal(bts_ack_list(db, NULL, 0), 0);
}

static void ambiguous_requests(void **state)
{
	(void)state;
	answers("GET http://a/livez HTTP/1.1\r\nHost: a\r\n\r\n", "400", "slash");
	answers("GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400", "twice");
	answers("GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n", "400",
		"\r\n\r\n");
	answers("GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: "
		"chunked\r\n\r\n0\r\n\r\n",
		"400", "\r\n\r\n");
	answers("GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "400", "\r\n\r\n");
	answers("GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", "400", "\r\n\r\n");
}

static void a_wait_ends(void **state)
{
	struct bts_position position;
	char request[512], chain[40];
	unsigned i;

	(void)state;
	assert_int_equal(bts_ship_position(db, &position, NULL), BTS_OK);
	for (i = 0; i < 16; i++)
		snprintf(chain + 2 * i, 3, "%02x", position.chain[i]);
	snprintf(request, sizeof(request),
		"GET /v1/replication/frames?after=%llu&epoch=%u-%016llx&chain=%s&wait=700ms "
		"HTTP/1.1\r\nHost: a\r\n\r\n",
		(unsigned long long)position.txid, position.epoch, (unsigned long long)position.epoch_random,
		chain);
	answers(request, "204", "BTS-Txid: ");
}

/* A long poll by follower x at that position, which ends at once. */
static void ask_as_x(const struct bts_position *position, const char *status)
{
	char request[512], chain[40];
	unsigned i;

	for (i = 0; i < 16; i++)
		snprintf(chain + 2 * i, 3, "%02x", position->chain[i]);
	snprintf(request, sizeof(request),
		"GET /v1/replication/frames?after=%llu&epoch=%u-%016llx&chain=%s&follower=x&wait=0s "
		"HTTP/1.1\r\nHost: a\r\n\r\n",
		(unsigned long long)position->txid, position->epoch,
		(unsigned long long)position->epoch_random, chain);
	answers(request, status, "BTS-Txid: ");
}

/* Acknowledgements only grow; one that does not is an alarm (R7). */
static void acknowledgements(void **state)
{
	struct bts_position old, new;
	struct bts_ack ack;

	(void)state;
	assert_int_equal(bts_ship_position(db, &old, NULL), BTS_OK);
	replica_put(db, 0, 10, 1, 10);
	assert_int_equal(bts_ship_position(db, &new, NULL), BTS_OK);
	ask_as_x(&old, "200");
	assert_int_equal(bts_ack_list(db, &ack, 1), 1);
	assert_string_equal(ack.node, "x");
	assert_true(ack.txid == old.txid);
	ask_as_x(&new, "204");
	assert_int_equal(bts_ack_list(db, &ack, 1), 1);
	assert_true(ack.txid == new.txid);
	assert_int_equal(ack.alarms, 0);
	ask_as_x(&old, "200");
	assert_int_equal(bts_ack_list(db, &ack, 1), 1);
	assert_true(ack.txid == new.txid);
	assert_int_equal(ack.alarms, 1);
}

/* To have nothing is no acknowledgement, or anyone's names would take the places of the followers. */
static void nothing_is_no_acknowledgement(void **state)
{
	(void)state;
	answers("GET /v1/replication/frames?after=0&follower=ghost&wait=0ms HTTP/1.1\r\nHost: a\r\n\r\n",
		"200", "BTSFRAME");
	assert_int_equal(bts_ack_list(db, NULL, 0), 0);
}

static void refused_address(const char *address, const char *text)
{
	const struct serve_options options = {.db = db, .listen = address};
	struct bts_error error = {.text = ""};
	struct serve *other;

	if (serve_start(&options, &other, &error) == BTS_OK)
		fail_msg("listening on %s", address);
	if (!strstr(error.text, text))
		fail_msg("'%s' does not say '%s'", error.text, text);
}

static void addresses(void **state)
{
	(void)state;
	refused_address("0.0.0.0:0", "loopback");
	refused_address("192.0.2.1:80", "loopback");
	refused_address("[::]:0", "loopback");
	refused_address("example.org:80", "numeric");
	refused_address("127.0.0.1", "HOST:PORT");
	refused_address("127.0.0.1:65536", "HOST:PORT");
	refused_address(":80", "HOST:PORT");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(probes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(wrong_requests, set_up, tear_down),
		cmocka_unit_test_setup_teardown(strange_positions, set_up, tear_down),
		cmocka_unit_test_setup_teardown(ambiguous_requests, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_wait_ends, set_up, tear_down),
		cmocka_unit_test_setup_teardown(acknowledgements, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_is_no_acknowledgement, set_up, tear_down),
		cmocka_unit_test_setup_teardown(addresses, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
