/*
 * What libmicrohttpd alone costs: the loops of btsd (its own epoll, an eventfd, sockets handed out round robin) around a
 * handler that returns a constant.  http_floor PORT LOOPS BYTES [list]; prints a line when it listens.
 */
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLOOR_LOOPS 64
#define FLOOR_SOCKETS 16384

struct floor_loop {
	struct MHD_Daemon *daemon;
	pthread_t thread;
	pthread_mutex_t lock;
	int wake;
	int sockets[FLOOR_SOCKETS];
	size_t count;
};

static struct floor_loop floor_loops[FLOOR_LOOPS];
static struct MHD_Response *floor_constant;

static enum MHD_Result floor_handle(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
	const char *version, const char *data, size_t *size, void **context)
{
	(void)cls;
	(void)url;
	(void)method;
	(void)version;
	(void)data;
	if (!*context) {
		*context = &floor_constant;
		return MHD_YES;
	}
	if (*size) {
		*size = 0;
		return MHD_YES;
	}
	return MHD_queue_response(mhd, 200, floor_constant);
}

static void floor_take(struct floor_loop *loop)
{
	struct sockaddr_storage none = {0};
	uint64_t count;

	(void)!read(loop->wake, &count, sizeof(count));
	pthread_mutex_lock(&loop->lock);
	while (loop->count)
		(void)MHD_add_connection(loop->daemon, loop->sockets[--loop->count], (struct sockaddr *)&none, sizeof(none));
	pthread_mutex_unlock(&loop->lock);
}

static void *floor_main(void *arg)
{
	struct floor_loop *loop = arg;
	struct pollfd fds[2] = {{MHD_get_daemon_info(loop->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, POLLIN, 0}, {loop->wake, POLLIN, 0}};

	for (;;) {
		MHD_UNSIGNED_LONG_LONG wait = 250;

		if (MHD_get_timeout(loop->daemon, &wait) != MHD_YES || wait > 250)
			wait = 250;
		(void)poll(fds, 2, (int)wait);
		if (fds[1].revents)
			floor_take(loop);
		MHD_run(loop->daemon);
	}
	return NULL;
}

static int floor_listen(unsigned short port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) || bind(fd, (struct sockaddr *)&at, sizeof(at)) ||
		listen(fd, 1024)) {
		perror("http_floor");
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	size_t loops = argc > 2 ? strtoul(argv[2], NULL, 10) : 0, bytes = argc > 3 ? strtoul(argv[3], NULL, 10) : 0, next = 0;
	char *body = bytes ? malloc(bytes) : NULL;
	int fd;

	if (!loops || loops > FLOOR_LOOPS || !body) {
		fprintf(stderr, "usage: http_floor PORT LOOPS BYTES\n");
		return 2;
	}
	memset(body, 'x', bytes);
	floor_constant = MHD_create_response_from_buffer(bytes, body, MHD_RESPMEM_PERSISTENT);
	fd = floor_listen((unsigned short)strtoul(argv[1], NULL, 10));
	for (size_t i = 0; i < loops; i++) {
		struct floor_loop *loop = &floor_loops[i];

		loop->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, floor_handle, NULL,
			MHD_OPTION_CONNECTION_LIMIT, FLOOR_SOCKETS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16384, MHD_OPTION_END);
		loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		pthread_mutex_init(&loop->lock, NULL);
		if (!loop->daemon || loop->wake < 0 || pthread_create(&loop->thread, NULL, floor_main, loop))
			return 1;
	}
	puts("listening");
	fflush(stdout);
	for (;;) {
		struct floor_loop *loop = &floor_loops[next++ % loops];
		int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		uint64_t one = 1;

		if (client < 0)
			continue;
		pthread_mutex_lock(&loop->lock);
		loop->sockets[loop->count++ % FLOOR_SOCKETS] = client;
		pthread_mutex_unlock(&loop->lock);
		(void)!write(loop->wake, &one, sizeof(one));
	}
}
