/*
 * A source that speaks proper HTTP and says wrong things: frames that end early without any sign of it, bytes
 * after the end, redirects, other statuses.  The follower says what was wrong, asks again, and its file stays
 * as it was.
 */
#include "cmocka.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replica.h"
#include "source.h"

/* Answers every request with the same bytes. */
struct liar {
	int listen_fd;
	pthread_t thread;
	atomic_bool stopping;
	const char *head;
	const uint8_t *body;
	size_t size;
};

static void liar_answer(struct liar *liar, int fd)
{
	char request[2048], head[512];
	int size;

	if (recv(fd, request, sizeof(request), 0) <= 0)
		return;
	size = snprintf(head, sizeof(head), "%sContent-Length: %zu\r\nConnection: close\r\n\r\n", liar->head,
		liar->size);
	if (send(fd, head, (size_t)size, MSG_NOSIGNAL) == size && liar->size > 0)
		(void)!send(fd, liar->body, liar->size, MSG_NOSIGNAL | MSG_WAITALL);
	shutdown(fd, SHUT_WR);
	(void)!recv(fd, request, sizeof(request), 0);
}

static void *liar_run(void *arg)
{
	struct liar *liar = arg;
	struct pollfd poll_fd = {.fd = liar->listen_fd, .events = POLLIN};
	int fd;

	while (!atomic_load(&liar->stopping)) {
		if (poll(&poll_fd, 1, 20) <= 0)
			continue;
		fd = accept(liar->listen_fd, NULL, NULL);
		if (fd < 0)
			continue;
		liar_answer(liar, fd);
		close(fd);
	}
	return NULL;
}

static void liar_start(struct liar *liar, char *url, size_t size)
{
	unsigned port;

	assert_int_equal(serve_listen("127.0.0.1:0", false, &liar->listen_fd, &port, NULL), BTS_OK);
	snprintf(url, size, "http://127.0.0.1:%u", port);
	atomic_init(&liar->stopping, false);
	assert_int_equal(pthread_create(&liar->thread, NULL, liar_run, liar), 0);
}

static void liar_stop(struct liar *liar)
{
	atomic_store(&liar->stopping, true);
	pthread_join(liar->thread, NULL);
	close(liar->listen_fd);
}

static struct {
	char dir[128], copy[160];
	struct bts *db;
	uint8_t *frame; /* from 0 to head, and some bytes more; owned */
	size_t size;
} fixture;

static int set_up(void **state)
{
	struct source_stream *stream;
	struct query query = {.wait_ms = 0};
	struct source source;
	char path[160];
	size_t got;

	(void)state;
	replica_enter(fixture.dir, sizeof(fixture.dir));
	replica_path(path, sizeof(path), fixture.dir, "primary");
	replica_path(fixture.copy, sizeof(fixture.copy), fixture.dir, "copy");
	fixture.db = replica_open(path, 0);
	replica_put(fixture.db, 0, 100, 0, 100);
	fixture.frame = calloc(1, 1 << 20);
	fixture.size = 0;
	assert_int_equal(source_init(&source, fixture.db, NULL, NULL), BTS_OK);
	assert_int_equal(source_stream_open(&source, &query, &stream, NULL), BTS_OK);
	do {
		assert_int_equal(
			source_stream_read(stream, fixture.frame + fixture.size, 1000, &got, NULL), BTS_OK);
		fixture.size += got;
	} while (got > 0);
	source_stream_close(stream);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(fixture.frame);
	bts_close(fixture.db);
	replica_leave(fixture.dir);
	return 0;
}

/* The follower fails again and again, says text, and has installed nothing. */
static void never_installed(const char *head, size_t size, const char *text)
{
	struct liar liar = {.head = head, .body = fixture.frame, .size = size};
	struct follow_status status;
	struct follow *follow;
	char url[64];

	liar_start(&liar, url, sizeof(url));
	follow = replica_follow(fixture.copy, url, "n1");
	replica_await_retries(follow, 2);
	follow_status(follow, &status);
	assert_int_equal(status.txid, 0);
	assert_int_equal(status.frames, 0);
	if (!strstr(status.error, text))
		fail_msg("'%s' does not say '%s'", status.error, text);
	if (follow_db(follow))
		replica_assert_clean(follow_db(follow));
	follow_stop(follow);
	liar_stop(&liar);
}

static void frames_that_end_early(void **state)
{
	(void)state;
	never_installed("HTTP/1.1 200 OK\r\n", 0, "cut short");
	never_installed("HTTP/1.1 200 OK\r\n", 100, "cut short");
	never_installed("HTTP/1.1 200 OK\r\n", 120, "cut short");
	never_installed("HTTP/1.1 200 OK\r\n", fixture.size / 2, "cut short");
	never_installed("HTTP/1.1 200 OK\r\n", fixture.size - 1, "cut short");
}

static void other_answers(void **state)
{
	(void)state;
	never_installed("HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\n", fixture.size, "redirects");
	never_installed("HTTP/1.1 206 Partial\r\n", fixture.size, "answers 206");
	never_installed("HTTP/1.1 503 No\r\nBTS-Error: unavailable\r\n", 0, "answers 503 (unavailable)");
	never_installed("SMTP 200 OK\r\n", fixture.size, "");
}

static void bytes_after_the_end(void **state)
{
	struct liar liar = {.head = "HTTP/1.1 200 OK\r\n", .body = fixture.frame, .size = fixture.size + 5};
	struct follow *follow;
	char url[64];

	(void)state;
	liar_start(&liar, url, sizeof(url));
	follow = replica_follow(fixture.copy, url, "n1");
	/* The frame itself was whole: it is installed.  The next, from 0 again, is not for this file any
	 * more. */
	replica_await(follow, replica_txid(fixture.db));
	replica_await_retries(follow, 2);
	replica_assert_same(fixture.db, follow_db(follow));
	follow_stop(follow);
	liar_stop(&liar);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(frames_that_end_early, set_up, tear_down),
		cmocka_unit_test_setup_teardown(other_answers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bytes_after_the_end, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
