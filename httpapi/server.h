/*
 * Sockets, threads and loops.
 *
 * One accept thread hands sockets round robin to loops.  A loop is a thread that owns an HTTP daemon and
 * everything about its connections; other threads reach it only by server_resume.  The admin listener has an
 * accept thread and a loop of its own, so that it answers when the others are full.
 */
#ifndef HTTPAPI_SERVER_H
#define HTTPAPI_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "access.h"
#include "config.h"
#include "metrics.h"
#include "reply.h"

struct MHD_Daemon;
struct backups;
struct durable;
struct guard;
struct role;
struct serve;
struct ttl_sweep;
struct work;
struct request;
struct snapshots;
struct wait;
struct writer;

/* A connection, from accept to close; the loop's own. */
struct server_conn {
	struct server_loop *loop;
	struct server_conn *next, **link;
	uint64_t deadline_ms; /* when it is cut */
	uint64_t left_ms;     /* until then, kept while suspended */
	int suspended;
	int fd;
	int busy;      /* a request is under way */
	int receiving; /* and its body has not ended */
	int left;      /* the peer's end was there at the last sweep, and nothing has moved since */
};

struct server_loop {
	struct server *server;
	struct MHD_Daemon *daemon;
	pthread_t thread;
	int wake_fd;
	int admin;
	int tls;
	int started;
	pthread_mutex_t lock; /* the queues */
	int *sockets;
	size_t socket_count, socket_cap;
	struct request *resumed, **resumed_last;
	/* own thread */
	struct server_conn *conns;
	uint64_t now_ms, swept_ms, draining_since_ms;
	unsigned suspended;
	int wrote; /* operations were appended to the writer's queue */
	struct metrics_shard *metrics;
	struct request *spare; /* memory of ended requests */
	unsigned spares;
	uint64_t ids, id_salt; /* of requests */
	struct reply_memo memo;
	/* any thread */
	atomic_uint_least64_t beat_ms;
	atomic_uint connections;
};

struct server {
	const struct config *config;
	struct access access;
	struct role *role;
	struct writer *writer;
	struct wait *wait;
	struct durable *durable;
	struct snapshots *snapshots;
	struct backups *backups;
	struct ttl_sweep *sweep;
	struct guard *guard; /* who is asking */
	struct work *work;
	_Atomic(struct serve *) frames; /* the routes of /v1/replication, once somebody has asked and there is a file */
	struct server_loop *loops; /* the last is the admin's when there is one */
	unsigned loop_count;
	struct server_accept *accepts[2];
	unsigned connection_limit;
	atomic_uint connections;
	atomic_uint_least64_t refused;
	atomic_size_t body_bytes; /* held in memory for request bodies */
	atomic_uint uploads;	  /* large values being written (handle_upload.c) */
	atomic_int draining;
	atomic_uint jobs; /* threads of requests that change the role (handle_role.c), until they touch nothing any more */
	unsigned grace_ms;
};

/* Bind and listen.  The socket, or -1 with the reason logged; text gets the address with its port. */
int server_listen(const struct settings_address *, char text[64]);

/* Takes the sockets (admin_fd -1: none).  0, or -1 with the reason logged. */
int server_start(struct server *, int fd, int admin_fd);
/* Stop accepting, let requests under way end (at most grace_ms), close. */
void server_stop(struct server *, unsigned grace_ms);

void server_free(struct server *); /* after server_stop; what threads of others may still touch */

/* Let suspended requests go on, each in its loop.  Any thread; a request must be suspended and is given once.
 */
void server_resume(struct request *const *requests, size_t count);

/* A request begins, and ends.  What flows on a connection puts its end off: at least SERVER_RATE is asked
 * for. */
#define SERVER_PATIENCE_MS 60000
#define SERVER_RATE 65536 /* bytes a second */
void server_conn_busy(struct server_conn *);
void server_conn_idle(struct server_conn *);
void server_conn_progress(struct server_conn *, uint64_t bytes);
void server_conn_owes(struct server_conn *, uint64_t bytes); /* a body of that size goes out from now on */
void server_conn_suspend(struct server_conn *);
void server_conn_resume(struct server_conn *);
void server_conn_cut(struct server_conn *); /* the socket only: the library then ends it */
/* The library opened a connection (NULL: no memory), and closed it. */
struct server_conn *server_conn_new(struct server_loop *, int fd);
void server_conn_free(struct server_conn *);

/* Milliseconds since the slowest loop last went round. */
uint64_t server_stalled_ms(struct server *);
#endif
