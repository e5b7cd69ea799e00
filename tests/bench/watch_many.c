/*
 * Many followers of the change feed, and a writer beside the server: for tests/bench/watchers, which starts that.
 *
 *	watch_many PORT WATCHERS FILE RATE SECONDS
 *
 * Opens the streams (NDJSON), then says "ready" and waits for a line on standard input; RATE puts a second go to FILE, bucket b, in a commit
 * each 10 ms, durably, for SECONDS.  Counts the lines that come to each watcher until all have the last one.  RATE 0: the streams
 * are only held open until standard input ends.
 */
#include <btree_store.h>

#include <arpa/inet.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STEP_MS 10

struct stream {
	int fd;
	uint64_t events, bytes;
	int last; /* the last key was seen; a place in its name before */
};

static struct stream *streams;
static unsigned count;
static uint64_t written;

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void fail(const char *what)
{
	fprintf(stderr, "watch_many: %s\n", what);
	exit(1);
}

static void stream_open(struct stream *s, unsigned port)
{
	static const char ask[] =
		"GET /v1/changes HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n";
	struct sockaddr_in to = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr = {htonl(INADDR_LOOPBACK)}};
	char head[4096];

	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&to, sizeof(to)) ||
		send(s->fd, ask, sizeof(ask) - 1, 0) < 0)
		fail("cannot connect");
	/* The first line has come when this returns: the stream has its place. */
	if (recv(s->fd, head, sizeof(head), 0) <= 0 || strncmp(head, "HTTP/1.1 200", 12) != 0)
		fail("no feed");
}

/* Events begin with this, and nothing else does; the last one's key has a byte that nothing else has. */
static void stream_take(struct stream *s, const char *data, size_t size)
{
	const char *at = data, *end = data + size;

	s->bytes += size;
	while ((at = memchr(at, '{', (size_t)(end - at)))) {
		s->events++;
		at++;
	}
	if (memchr(data, '~', size))
		s->last = 1;
}

static void read_all(unsigned to_last)
{
	static char data[1 << 18];
	struct epoll_event events[64];
	int poll = epoll_create1(EPOLL_CLOEXEC);
	unsigned left = to_last;

	for (unsigned i = 0; i < count; i++) {
		struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};

		if (epoll_ctl(poll, EPOLL_CTL_ADD, streams[i].fd, &event))
			fail("epoll");
	}
	while (left) {
		int n = epoll_wait(poll, events, 64, 30000);

		if (n <= 0)
			fail("nothing comes any more");
		for (int k = 0; k < n; k++) {
			struct stream *s = &streams[events[k].data.u32];
			ssize_t got = recv(s->fd, data, sizeof(data), 0);

			if (got <= 0)
				fail("a stream has ended");
			left -= !s->last && (stream_take(s, data, (size_t)got), s->last);
		}
	}
	close(poll);
}

static void put_some(struct bts *db, unsigned puts, const char *key)
{
	struct bts_error error = {0};
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	char text[32];

	if (bts_begin(db, BTS_WRITE, &txn, &error) ||
		bts_bucket(txn, (struct bts_slice){"b", 1}, 0, &bucket, &error))
		fail(error.text);
	for (unsigned i = 0; i < puts; i++) {
		int size = key ? snprintf(text, sizeof(text), "%s", key)
			       : snprintf(text, sizeof(text), "key%09" PRIu64, written++ * 7919 % 100000);

		if (bts_put(txn, bucket, (struct bts_slice){text, (size_t)size},
			    (struct bts_slice){"some value", 10}, 0))
			fail("put");
	}
	if (bts_commit(txn, &error))
		fail(error.text);
}

struct work {
	const char *path;
	unsigned rate, seconds;
};

static void *write_all(void *arg)
{
	const struct work *work = arg;
	struct bts_error error = {0};
	double begun = now_s();
	struct bts *db;

	if (bts_open(work->path, NULL, &db, &error))
		fail(error.text);
	for (unsigned step = 0; step < work->seconds * 1000 / STEP_MS; step++) {
		double wait = begun + (double)step * STEP_MS / 1e3 - now_s();

		if (wait > 0)
			usleep((useconds_t)(wait * 1e6));
		put_some(db, work->rate * STEP_MS / 1000, NULL);
	}
	printf("wrote %" PRIu64 " in %.2f s\n", written, now_s() - begun);
	put_some(db, 1, "key~");
	bts_close(db);
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t least = UINT64_MAX, bytes = 0;
	struct work work;
	pthread_t writer;
	char line[16];

	if (argc != 6)
		fail("PORT WATCHERS FILE RATE SECONDS");
	count = (unsigned)atoi(argv[2]);
	work = (struct work){argv[3], (unsigned)atoi(argv[4]), (unsigned)atoi(argv[5])};
	streams = calloc(count, sizeof(*streams));
	for (unsigned i = 0; i < count; i++)
		stream_open(&streams[i], (unsigned)atoi(argv[1]));
	printf("ready\n");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin) || !work.rate)
		return 0;
	if (pthread_create(&writer, NULL, write_all, &work))
		fail("thread");
	read_all(count);
	pthread_join(writer, NULL);
	for (unsigned i = 0; i < count; i++) {
		least = streams[i].events < least ? streams[i].events : least;
		bytes += streams[i].bytes;
	}
	printf("each watcher got %" PRIu64 " lines or more, all together %.1f MB\n", least,
		(double)bytes / 1e6);
	return 0;
}
