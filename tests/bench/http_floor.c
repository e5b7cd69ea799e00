/*
 * What libmicrohttpd alone costs: the loops of btsd (its own epoll, an eventfd, sockets handed out round robin) around a
 * handler that returns a constant.  http_floor PORT LOOPS BYTES [FILE [PAGES]]; prints a line when it listens.
 *
 * With FILE each request is durable first: suspended until a thread has written 4 KiB for all that wait, and flushed: what a group
 * commit costs at least.  With PAGES besides so many times 4 KiB for each of them, in one piece: what it costs a tree of such
 * pages at least, whose work is not done.
 */
#include <errno.h>
#include <fcntl.h>
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
#define FLOOR_FILE (256 << 20)
#define FLOOR_PAGE ((size_t)4096)
#define FLOOR_PAGES 4096u /* at most at once */

struct floor_put {
	struct floor_put *next;
	struct MHD_Connection *mhd;
	struct floor_loop *loop;
	int done;
};

struct floor_loop {
	struct MHD_Daemon *daemon;
	pthread_t thread;
	pthread_mutex_t lock;
	int wake;
	int sockets[FLOOR_SOCKETS];
	size_t count;
	struct floor_put *done; /* under the lock, as the sockets are */
	int waiting;		/* some have been added to floor_disk.first in this turn */
};

static struct {
	int fd; /* -1: nothing is durable */
	pthread_mutex_t lock;
	pthread_cond_t some;
	struct floor_put *first;
	int kicked;
	size_t pages; /* written for each request */
} floor_disk = {.fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .some = PTHREAD_COND_INITIALIZER};

static struct floor_loop floor_loops[FLOOR_LOOPS];
static struct MHD_Response *floor_constant;

static void floor_wake(struct floor_loop *loop)
{
	uint64_t one = 1;

	(void)!write(loop->wake, &one, sizeof(one));
}

static void *floor_flush(void *arg)
{
	static char pages[FLOOR_PAGES * FLOOR_PAGE];
	off_t at = 0;

	(void)arg;
	for (;;) {
		struct floor_put *batch, *next;
		size_t size = FLOOR_PAGE;
		struct floor_loop *last = NULL;

		pthread_mutex_lock(&floor_disk.lock);
		while (!floor_disk.kicked)
			pthread_cond_wait(&floor_disk.some, &floor_disk.lock);
		batch = floor_disk.first;
		floor_disk.first = NULL;
		floor_disk.kicked = 0;
		pthread_mutex_unlock(&floor_disk.lock);
		for (next = batch; next; next = next->next)
			size += floor_disk.pages * FLOOR_PAGE;
		if (size > sizeof(pages))
			size = sizeof(pages);
		if (at + (off_t)size > FLOOR_FILE)
			at = 0;
		if (pwrite(floor_disk.fd, pages, size, at) != (ssize_t)size || fdatasync(floor_disk.fd))
			abort();
		at += (off_t)size;
		for (; batch; batch = next) {
			struct floor_loop *loop = batch->loop;

			next = batch->next;
			pthread_mutex_lock(&loop->lock);
			batch->next = loop->done;
			loop->done = batch;
			pthread_mutex_unlock(&loop->lock);
			if (last && last != loop)
				floor_wake(last);
			last = loop;
		}
		if (last)
			floor_wake(last);
	}
	return NULL;
}

static void floor_wait(struct floor_put *put)
{
	pthread_mutex_lock(&floor_disk.lock);
	put->next = floor_disk.first;
	floor_disk.first = put;
	pthread_mutex_unlock(&floor_disk.lock);
	put->loop->waiting = 1;
	MHD_suspend_connection(put->mhd);
}

static enum MHD_Result floor_answer(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
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

static enum MHD_Result floor_handle(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
	const char *version, const char *data, size_t *size, void **context)
{
	struct floor_put *put = *context;

	(void)url;
	(void)method;
	(void)version;
	(void)data;
	if (!put) {
		*context = put = calloc(1, sizeof(*put));
		if (!put)
			return MHD_NO;
		put->mhd = mhd;
		put->loop = cls;
		return MHD_YES;
	}
	if (*size) {
		*size = 0;
		return MHD_YES;
	}
	if (!put->done) {
		floor_wait(put);
		return MHD_YES;
	}
	return MHD_queue_response(mhd, 200, floor_constant);
}

static void floor_end(void *cls, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode why)
{
	(void)cls;
	(void)mhd;
	(void)why;
	free(*context);
	*context = NULL;
}

static void floor_take(struct floor_loop *loop)
{
	struct sockaddr_storage none = {0};
	struct floor_put *put, *next;
	uint64_t count;

	(void)!read(loop->wake, &count, sizeof(count));
	pthread_mutex_lock(&loop->lock);
	while (loop->count)
		(void)MHD_add_connection(loop->daemon, loop->sockets[--loop->count], (struct sockaddr *)&none, sizeof(none));
	put = loop->done;
	loop->done = NULL;
	pthread_mutex_unlock(&loop->lock);
	for (; put; put = next) {
		next = put->next;
		put->done = 1;
		MHD_resume_connection(put->mhd);
	}
}

/* For all that this turn has added. */
static void floor_kick(struct floor_loop *loop)
{
	if (!loop->waiting)
		return;
	loop->waiting = 0;
	pthread_mutex_lock(&floor_disk.lock);
	floor_disk.kicked = floor_disk.first != NULL;
	pthread_cond_signal(&floor_disk.some);
	pthread_mutex_unlock(&floor_disk.lock);
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
		floor_kick(loop);
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

/* A file whose blocks are there, so that a flush has no more to do than to write. */
static int floor_open(const char *path)
{
	static char zeros[1 << 20];
	pthread_t thread;

	floor_disk.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	for (off_t at = 0; floor_disk.fd >= 0 && at < FLOOR_FILE; at += (off_t)sizeof(zeros))
		if (pwrite(floor_disk.fd, zeros, sizeof(zeros), at) != sizeof(zeros))
			return -1;
	return floor_disk.fd < 0 || fsync(floor_disk.fd) || pthread_create(&thread, NULL, floor_flush, NULL) ? -1 : 0;
}

static int floor_start(struct floor_loop *loop)
{
	pthread_mutex_init(&loop->lock, NULL);
	loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->daemon = floor_disk.fd < 0
			       ? MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, floor_answer, NULL,
					 MHD_OPTION_CONNECTION_LIMIT, FLOOR_SOCKETS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
					 (size_t)16384, MHD_OPTION_END)
			       : MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
					 floor_handle, loop, MHD_OPTION_CONNECTION_LIMIT, FLOOR_SOCKETS,
					 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16384, MHD_OPTION_NOTIFY_COMPLETED, floor_end,
					 NULL, MHD_OPTION_END);
	return !loop->daemon || loop->wake < 0 || pthread_create(&loop->thread, NULL, floor_main, loop) ? -1 : 0;
}

int main(int argc, char **argv)
{
	size_t loops = argc > 2 ? strtoul(argv[2], NULL, 10) : 0, bytes = argc > 3 ? strtoul(argv[3], NULL, 10) : 0, next = 0;
	char *body = bytes ? malloc(bytes) : NULL;
	int fd;

	if (!loops || loops > FLOOR_LOOPS || !body) {
		fprintf(stderr, "usage: http_floor PORT LOOPS BYTES [FILE [PAGES]]\n");
		return 2;
	}
	memset(body, 'x', bytes);
	floor_constant = MHD_create_response_from_buffer(bytes, body, MHD_RESPMEM_PERSISTENT);
	floor_disk.pages = argc > 5 ? strtoul(argv[5], NULL, 10) : 0;
	fd = floor_listen((unsigned short)strtoul(argv[1], NULL, 10));
	if (argc > 4 && floor_open(argv[4])) {
		perror(argv[4]);
		return 1;
	}
	for (size_t i = 0; i < loops; i++)
		if (floor_start(&floor_loops[i]))
			return 1;
	puts("listening");
	fflush(stdout);
	for (;;) {
		struct floor_loop *loop = &floor_loops[next++ % loops];
		int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (client < 0)
			continue;
		pthread_mutex_lock(&loop->lock);
		loop->sockets[loop->count++ % FLOOR_SOCKETS] = client;
		pthread_mutex_unlock(&loop->lock);
		floor_wake(loop);
	}
}
