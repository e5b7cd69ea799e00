/* A forwarding proxy that cuts or damages answers. */
#include "cmocka.h"

#include "replica.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct proxy {
	int listen_fd;
	unsigned upstream_port;
	pthread_t thread;
	atomic_bool stopping, hanging;
	atomic_uint times, harmed, asked;
	_Atomic uint64_t after, hang_after;
	atomic_bool flip;
};

static int proxy_connect(unsigned port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* false: this connection has ended. */
static bool proxy_forward(struct proxy *proxy, int from, int to, uint64_t *passed, bool answers)
{
	bool harm = answers && atomic_load(&proxy->times) > 0;
	uint64_t after = atomic_load(&proxy->after);
	char buffer[16384];
	ssize_t got = recv(from, buffer, sizeof(buffer), 0);
	size_t size = got > 0 ? (size_t)got : 0;

	if (size == 0)
		return false;
	if (harm && *passed <= after && *passed + size > after) {
		atomic_fetch_sub(&proxy->times, 1);
		atomic_fetch_add(&proxy->harmed, 1);
		if (!atomic_load(&proxy->flip)) {
			(void)!send(to, buffer, (size_t)(after - *passed), MSG_NOSIGNAL);
			return false;
		}
		buffer[after - *passed] ^= 4;
	}
	*passed += size;
	return send(to, buffer, size, MSG_NOSIGNAL) == got;
}

static void proxy_connection(struct proxy *proxy, int client)
{
	int server = proxy_connect(proxy->upstream_port);
	struct pollfd fds[2] = {{.fd = client, .events = POLLIN}, {.fd = server, .events = POLLIN}};
	uint64_t asked = 0, answered = 0;
	bool open = server >= 0;

	while (open && !atomic_load(&proxy->stopping)) {
		if (poll(fds, 2, 20) <= 0)
			continue;
		if (atomic_load(&proxy->hanging)) {
			poll(NULL, 0, 10);
			continue;
		}
		if (fds[0].revents) {
			atomic_fetch_add(&proxy->asked, 1);
			open = proxy_forward(proxy, client, server, &asked, false);
			answered = 0;
		}
		if (open && fds[1].revents)
			open = proxy_forward(proxy, server, client, &answered, true);
		if (answered >= atomic_load(&proxy->hang_after)) {
			atomic_store(&proxy->hang_after, UINT64_MAX);
			proxy_hang(proxy, true);
		}
	}
	if (server >= 0)
		close(server);
	close(client);
}

static void *proxy_run(void *arg)
{
	struct proxy *proxy = arg;
	struct pollfd poll_fd = {.fd = proxy->listen_fd, .events = POLLIN};
	int client;

	while (!atomic_load(&proxy->stopping)) {
		if (poll(&poll_fd, 1, 20) <= 0)
			continue;
		client = accept(proxy->listen_fd, NULL, NULL);
		if (client >= 0)
			proxy_connection(proxy, client);
	}
	return NULL;
}

struct proxy *proxy_start(unsigned upstream_port, char *url, size_t size)
{
	struct proxy *proxy = calloc(1, sizeof(*proxy));
	unsigned port;

	proxy->upstream_port = upstream_port;
	proxy->hang_after = UINT64_MAX;
	assert_int_equal(serve_listen("127.0.0.1:0", false, &proxy->listen_fd, &port, NULL), BTS_OK);
	assert_int_equal(pthread_create(&proxy->thread, NULL, proxy_run, proxy), 0);
	snprintf(url, size, "http://127.0.0.1:%u", port);
	return proxy;
}

void proxy_harm(struct proxy *proxy, unsigned times, uint64_t after, bool flip)
{
	atomic_store(&proxy->after, after);
	atomic_store(&proxy->flip, flip);
	atomic_store(&proxy->times, times);
}

unsigned proxy_harmed(struct proxy *proxy)
{
	return atomic_load(&proxy->harmed);
}

void proxy_hang(struct proxy *proxy, bool hang)
{
	atomic_store(&proxy->hanging, hang);
}

void proxy_hang_after(struct proxy *proxy, uint64_t answered)
{
	atomic_store(&proxy->hang_after, answered);
}

unsigned proxy_asked(struct proxy *proxy)
{
	return atomic_load(&proxy->asked);
}

void proxy_stop(struct proxy *proxy)
{
	atomic_store(&proxy->stopping, true);
	pthread_join(proxy->thread, NULL);
	close(proxy->listen_fd);
	free(proxy);
}
