/*
 * A closed loop of keep-alive connections: each sends its next request when the reply to the last has come.  As cheap as
 * redis-benchmark, so that a client on the same cores takes as much from either server.
 *
 *     http_load PORT CONNECTIONS SECONDS KEYS METHOD PATH [BODY]
 *
 * The first # of PATH (or, when there is none, of BODY) becomes a random key, k and seven digits.  Prints one line of JSON: requests, seconds, refused (status not 2xx),
 * broken (connections that ended), p50_us, p99_us, max_us.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LOAD_CONNECTIONS 65536
#define LOAD_REPLY 65536
#define LOAD_BUCKETS 4096 /* of the histogram: 64 a power of two of microseconds */

struct load_conn {
	int fd;
	uint64_t sent_ns;
	size_t got;	 /* of the head, or of all when head is set */
	size_t wanted;	 /* bytes of the whole reply, 0: the head has not ended */
	char head[2048]; /* enough for ours */
};

static struct {
	char request[8192];
	size_t size, key_at;
	uint64_t keys, random;
	uint64_t requests, refused, broken, histogram[LOAD_BUCKETS], max_us;
} load;

static uint64_t load_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t load_random(void)
{
	load.random ^= load.random << 13;
	load.random ^= load.random >> 7;
	load.random ^= load.random << 17;
	return load.random;
}

static unsigned load_bucket(uint64_t us)
{
	unsigned bits = us >= 64 ? 63 - (unsigned)__builtin_clzll(us) - 5 : 0;
	unsigned bucket = bits * 32 + (unsigned)(us >> bits);

	return bucket < LOAD_BUCKETS ? bucket : LOAD_BUCKETS - 1;
}

static uint64_t load_percentile(double part)
{
	uint64_t left = (uint64_t)((double)load.requests * part);

	for (unsigned i = 0; i < LOAD_BUCKETS; i++) {
		if (left < load.histogram[i] || i == LOAD_BUCKETS - 1)
			return i < 64 ? i : (uint64_t)(32 + i % 32) << (i / 32 - 1);
		left -= load.histogram[i];
	}
	return 0;
}

static void load_compose(int argc, char **argv)
{
	const char *body = argc > 7 ? argv[7] : "";
	char *mark;
	int n = snprintf(load.request, sizeof(load.request), "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n", argv[5], argv[6], argv[1]);

	n += *body ? snprintf(load.request + n, sizeof(load.request) - (size_t)n, "Content-Length: %zu\r\n\r\n%s",
			     strlen(body) + (strchr(body, '#') && !strchr(argv[6], '#') ? 7 : 0), body)
		   : snprintf(load.request + n, sizeof(load.request) - (size_t)n, "\r\n");
	if (n < 0 || (size_t)n + 8 > sizeof(load.request)) {
		fprintf(stderr, "http_load: the request is too long\n");
		exit(2);
	}
	load.size = (size_t)n;
	mark = strchr(load.request, '#');
	if (!mark)
		return;
	load.key_at = (size_t)(mark - load.request) + 1;
	memmove(mark + 8, mark + 1, load.size - load.key_at + 1);
	*mark = 'k';
	load.size += 7;
}

/* A request fits the socket's buffer: the connection has none under way. */
static int load_send(struct load_conn *c)
{
	uint64_t key = load.keys ? load_random() % load.keys : 0;

	for (size_t i = 0; load.key_at && i < 7; i++, key /= 10)
		load.request[load.key_at + 6 - i] = (char)('0' + key % 10);
	c->got = c->wanted = 0;
	c->sent_ns = load_now_ns();
	return send(c->fd, load.request, load.size, MSG_NOSIGNAL) == (ssize_t)load.size ? 0 : -1;
}

static void load_head(struct load_conn *c)
{
	const char *end, *length;

	c->head[c->got < sizeof(c->head) ? c->got : sizeof(c->head) - 1] = '\0';
	end = strstr(c->head, "\r\n\r\n");
	if (!end)
		return;
	length = strcasestr(c->head, "\r\nContent-Length:");
	c->wanted = (size_t)(end - c->head) + 4 + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
	load.refused += c->head[9] != '2';
}

/* 0 when the reply goes on, 1 at its end, -1: broken. */
static int load_read(struct load_conn *c)
{
	static char rest[LOAD_REPLY];
	ssize_t n = c->wanted ? recv(c->fd, rest, sizeof(rest), MSG_DONTWAIT)
			      : recv(c->fd, c->head + c->got, sizeof(c->head) - 1 - c->got, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0)
		return -1;
	c->got += (size_t)n;
	if (!c->wanted)
		load_head(c);
	if (!c->wanted)
		return c->got + 1 < sizeof(c->head) ? 0 : -1;
	return c->got < c->wanted ? 0 : 1;
}

static void load_count(const struct load_conn *c)
{
	uint64_t us = (load_now_ns() - c->sent_ns) / 1000;

	load.requests++;
	load.histogram[load_bucket(us)]++;
	if (us > load.max_us)
		load.max_us = us;
}

static struct load_conn *load_connect(int epoll, const char *port, size_t count)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct load_conn *conns = calloc(count, sizeof(*conns));
	int one = 1;

	for (size_t i = 0; conns && i < count; i++) {
		struct epoll_event event = {EPOLLIN, {.ptr = &conns[i]}};

		conns[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (conns[i].fd < 0 || connect(conns[i].fd, (struct sockaddr *)&at, sizeof(at)) ||
			setsockopt(conns[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
			epoll_ctl(epoll, EPOLL_CTL_ADD, conns[i].fd, &event)) {
			perror("http_load");
			exit(1);
		}
	}
	return conns;
}

int main(int argc, char **argv)
{
	struct epoll_event events[256];
	size_t count = argc > 6 ? strtoul(argv[2], NULL, 10) : 0, alive = count;
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct load_conn *conns;
	uint64_t start, end;

	if (!count || count > LOAD_CONNECTIONS) {
		fprintf(stderr, "usage: http_load PORT CONNECTIONS SECONDS KEYS METHOD PATH [BODY]\n");
		return 2;
	}
	load.keys = strtoull(argv[4], NULL, 10);
	load.random = load_now_ns() | 1;
	load_compose(argc, argv);
	conns = load_connect(epoll, argv[1], count);
	if (!conns)
		return 1;
	start = load_now_ns();
	end = start + strtoull(argv[3], NULL, 10) * 1000000000;
	for (size_t i = 0; i < count; i++)
		if (load_send(&conns[i]))
			return 1;
	while (alive && load_now_ns() < end) {
		int n = epoll_wait(epoll, events, 256, 100);

		for (int i = 0; i < n; i++) {
			struct load_conn *c = events[i].data.ptr;
			int done = load_read(c);

			if (done > 0)
				load_count(c);
			if (done < 0 || (done > 0 && load_send(c))) {
				load.broken++;
				alive--;
				close(c->fd);
			}
		}
	}
	printf("{\"requests\":%lu,\"seconds\":%.3f,\"refused\":%lu,\"broken\":%lu,\"p50_us\":%lu,\"p99_us\":%lu,\"max_us\":%lu}\n",
		(unsigned long)load.requests, (double)(load_now_ns() - start) / 1e9, (unsigned long)load.refused, (unsigned long)load.broken,
		(unsigned long)load_percentile(0.5), (unsigned long)load_percentile(0.99), (unsigned long)load.max_us);
	return 0;
}
