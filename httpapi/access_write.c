/* The thread that writes the access log. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "access_private.h"
#include "config.h"
#include "log.h"
#include "ring.h"

#define ACCESS_BLOCK 65536 /* written at once */
#define ACCESS_STOP_S 2
#define ACCESS_NONE (-1) /* no file */
#define ACCESS_SAME (-2) /* in next_fd: nothing new */

struct access_loop {
	struct ring ring;
	struct buf line;
};

/* Lines on their way to one descriptor. */
struct access_sink {
	int fd;
	char *bytes; /* ACCESS_BLOCK and a record more */
	size_t size, lines;
	int failed; /* has been told of */
};

struct access_writer {
	pthread_t thread;
	int wake_fd;
	atomic_int asleep, stopping;
	atomic_int next_fd;	     /* of the file, from a reload */
	atomic_uint_least64_t lost;  /* lines that could not be written */
	struct access_sink sinks[2]; /* by enum access_where; the thread's */
	unsigned count;
	struct access_loop loops[];
};

struct buf *access_scratch(struct access_writer *w, unsigned loop)
{
	w->loops[loop].line.size = 0;
	return &w->loops[loop].line;
}

static void access_wake(struct access_writer *w)
{
	uint64_t one = 1;

	/* Both sides' first write comes before their look at the other's: one of them sees it. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&w->asleep) && atomic_exchange(&w->asleep, 0))
		(void)!write(w->wake_fd, &one, sizeof(one));
}

void access_put(struct access_writer *w, unsigned loop, enum access_where where, struct buf *b)
{
	if (b->failed)
		atomic_fetch_add(&w->lost, 1);
	else if (!ring_put(&w->loops[loop].ring, (uint8_t)where, b->data, b->size))
		access_wake(w);
	if (b->failed)
		buf_fini(b);
	b->size = 0;
}

/* ---- the thread ---- */

static void access_flush(struct access_writer *w, struct access_sink *s)
{
	size_t done = 0;
	ssize_t n = 0;

	while (s->fd >= 0 && done < s->size) {
		n = write(s->fd, s->bytes + done, s->size - done);
		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno != EINTR)
			break;
	}
	if (done == s->size) {
		s->failed = 0;
	} else {
		atomic_fetch_add(&w->lost, s->lines);
		if (s->fd >= 0 && !s->failed)
			log_event("error", "access-log-failed",
				LOG_FIELDS(LOG_TEXT("detail", strerror(errno))));
		s->failed = s->fd >= 0;
	}
	s->size = s->lines = 0;
}

/* 1 when there was something. */
static int access_round(struct access_writer *w)
{
	int some = 0;
	unsigned i;

	for (i = 0; i < w->count; i++) {
		struct ring *ring = &w->loops[i].ring;
		char record[RING_RECORD_MAX];
		uint8_t mark;
		size_t n;

		while ((n = ring_take(ring, &mark, record))) {
			struct access_sink *s = &w->sinks[mark];

			memcpy(s->bytes + s->size, record, n);
			s->size += n;
			s->lines++;
			some = 1;
			if (s->size >= ACCESS_BLOCK)
				access_flush(w, s);
		}
	}
	access_flush(w, &w->sinks[ACCESS_TO_FILE]);
	access_flush(w, &w->sinks[ACCESS_TO_LOG]);
	return some;
}

static void access_take_fd(struct access_writer *w)
{
	int fd = atomic_exchange(&w->next_fd, ACCESS_SAME), *old = &w->sinks[ACCESS_TO_FILE].fd;

	if (fd == ACCESS_SAME)
		return;
	if (*old > STDERR_FILENO)
		close(*old);
	*old = fd;
}

static void *access_main(void *arg)
{
	struct access_writer *w = arg;
	struct pollfd wake = {w->wake_fd, POLLIN, 0};
	uint64_t count;
	int stopping;

	pthread_setname_np(pthread_self(), "access-log");
	for (;;) {
		stopping = atomic_load(&w->stopping);
		if (access_round(w))
			continue;
		access_take_fd(w); /* after what was logged before the reload */
		if (stopping)
			return NULL;
		atomic_store(&w->asleep, 1);
		atomic_thread_fence(memory_order_seq_cst);
		if (!access_round(w) && !atomic_load(&w->stopping) &&
			atomic_load(&w->next_fd) == ACCESS_SAME && poll(&wake, 1, -1) > 0)
			(void)!read(w->wake_fd, &count, sizeof(count));
		atomic_store(&w->asleep, 0);
	}
}

/* ---- start, reload, stop ---- */

/* The descriptor to write to; ACCESS_SAME when it cannot be opened. */
static int access_open(const char *path)
{
	int fd;

	if (!strcmp(path, "off"))
		return ACCESS_NONE;
	if (!strcmp(path, "-"))
		return STDOUT_FILENO;
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (fd >= 0)
		return fd;
	log_event("error", "access-log-failed",
		LOG_FIELDS(LOG_TEXT("path", path), LOG_TEXT("detail", strerror(errno))));
	return ACCESS_SAME;
}

static void access_free(struct access_writer *w)
{
	unsigned i;

	for (i = 0; i < w->count; i++) {
		ring_fini(&w->loops[i].ring);
		buf_fini(&w->loops[i].line);
	}
	free(w->sinks[ACCESS_TO_FILE].bytes);
	free(w->sinks[ACCESS_TO_LOG].bytes);
	if (w->sinks[ACCESS_TO_FILE].fd > STDERR_FILENO)
		close(w->sinks[ACCESS_TO_FILE].fd);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	free(w);
}

static int access_prepare(struct access_writer *w)
{
	unsigned i;

	w->wake_fd = eventfd(0, EFD_CLOEXEC);
	for (i = 0; i < 2; i++) {
		w->sinks[i].bytes = malloc(ACCESS_BLOCK + RING_RECORD_MAX);
		if (!w->sinks[i].bytes)
			return -1;
	}
	for (i = 0; i < w->count; i++)
		if (ring_init(&w->loops[i].ring))
			return -1;
	return w->wake_fd < 0 ? -1 : 0;
}

static void access_judge(struct access *a, const struct config *config, int on)
{
	atomic_store(&a->on, on);
	atomic_store(&a->slow_us, config->slow_ms * 1000);
}

int access_start(struct access *a, const struct config *config, unsigned loops)
{
	struct access_writer *w = calloc(1, sizeof(*w) + loops * sizeof(w->loops[0]));
	int fd = access_open(config->access_log);

	if (!w || fd == ACCESS_SAME) {
		free(w);
		return -1;
	}
	w->count = loops;
	w->next_fd = ACCESS_SAME;
	w->sinks[ACCESS_TO_FILE].fd = fd;
	w->sinks[ACCESS_TO_LOG].fd = STDERR_FILENO;
	if (access_prepare(w) || pthread_create(&w->thread, NULL, access_main, w)) {
		log_event("error", "access-log-failed",
			LOG_FIELDS(LOG_TEXT("detail", "no memory, or no thread")));
		access_free(w);
		return -1;
	}
	a->writer = w;
	access_judge(a, config, fd != ACCESS_NONE);
	return 0;
}

int access_reload(struct access *a, const struct config *config)
{
	int fd = access_open(config->access_log), before;

	if (fd == ACCESS_SAME)
		return -1;
	access_judge(a, config, fd != ACCESS_NONE);
	before = atomic_exchange(&a->writer->next_fd, fd);
	if (before > STDERR_FILENO)
		close(before);
	access_wake(a->writer);
	return 0;
}

void access_stop(struct access *a)
{
	struct access_writer *w = a->writer;
	struct timespec until;

	if (!w)
		return;
	atomic_store(&w->stopping, 1);
	access_wake(w);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ACCESS_STOP_S;
	/* A thread that a stalled reader of the log holds up ends with the process. */
	if (!pthread_timedjoin_np(w->thread, NULL, &until))
		access_free(w);
	a->writer = NULL;
}

uint64_t access_dropped(const struct access *a)
{
	uint64_t n = 0;
	unsigned i;

	if (!a->writer)
		return 0;
	n = atomic_load(&a->writer->lost);
	for (i = 0; i < a->writer->count; i++)
		n += atomic_load(&a->writer->loops[i].ring.dropped);
	return n;
}
