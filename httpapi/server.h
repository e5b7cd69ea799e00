/*
 * Sockets, threads and loops.
 *
 * A listener (listener.h) hands sockets round robin to loops.  A loop is a thread that owns an HTTP daemon and
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
#include "listener.h"
#include "metrics.h"
#include "reply.h"

struct MHD_Daemon;
struct archive;
struct backups;
struct compaction;
struct durable;
struct guard;
struct peer;
struct peers;
struct role;
struct serve;
struct ttl_sweep;
struct work;
struct request;
struct snapshots;
struct wait;
struct watch;
struct writer;

#define SERVER_PARKED 128 /* of a loop: each costs its library a look at every turn */

/* A connection, from accept to close; the loop's own. */
struct server_conn {
	struct server_loop *loop;
	struct server_conn *next, **link;
	uint64_t deadline_ms; /* when it is cut */
	uint64_t left_ms;     /* until then, kept while suspended */
	int suspended;
	int fd;
	int busy;      /* a request is under way */
	int headed;    /* its head is complete */
	int receiving; /* and its body has not ended */
	int served;    /* one has ended */
	uint64_t since_ms; /* the begin, or the end of the last request */
	struct peer *peer; /* the address it counts for; NULL: it is not counted */
	struct request *request; /* that has begun and not ended */
	int left;      /* the peer's end was there at the last sweep, and nothing has moved since */
};

/* A connection on its way to a loop. */
struct server_socket {
	int fd;
	struct peer *peer;
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
	struct server_socket *sockets;
	size_t socket_count, socket_cap;
	struct request *resumed, **resumed_last;
	int asleep; /* and nobody has woken it yet: who adds to the queues does */
	/* own thread */
	struct server_conn *conns;
	struct peer *adding; /* of the connection that is being given to the library */
	int added;	     /* which has told of it */
	uint64_t now_ms, swept_ms, draining_since_ms;
	unsigned suspended;
	unsigned busy;	/* requests under way that are not suspended */
	unsigned parked; /* of the suspended */
	struct request *parking[SERVER_PARKED];
	int called;	/* the library has called for a request that is not suspended, in its last turn */
	int wrote; /* operations were appended to the writer's queue */
	struct metrics_shard *metrics;
	struct request *spare; /* memory of ended requests */
	unsigned spares;
	uint64_t ids, id_salt; /* of requests */
	struct reply_memo memo;
	struct reply_again again;
	/* any thread */
	atomic_uint_least64_t beat_ms;
	atomic_uint connections;
	atomic_int crowded; /* room is wanted */
};

struct server {
	const struct config *config;
	struct access access;
	struct role *role;
	struct writer *writer;
	struct wait *wait;
	struct watch *watch;
	struct durable *durable;
	struct archive *archive; /* NULL: none in this process */
	struct snapshots *snapshots;
	struct backups *backups;
	struct compaction *compaction;
	struct ttl_sweep *sweep;
	struct failover_run *failover; /* NULL: roles change by hand */
	struct guard *guard; /* who is asking */
	struct work *work, *uploaders; /* threads that may wait: of all, and those that write large values */
	_Atomic(struct serve *) frames; /* the routes of /v1/replication, once somebody has asked and there is a file */
	struct server_loop *loops; /* the last is the admin's when there is one */
	unsigned loop_count;
	pthread_mutex_t frames_lock; /* of making it */
	struct listener *listeners[LISTENER_KINDS];
	struct peers *peers;
	unsigned connection_limit;
	atomic_uint connections;
	atomic_uint_least64_t refused, evicted;
	atomic_size_t body_bytes; /* held in memory for request bodies */
	atomic_uint uploads;	  /* large values being written (handle_upload.c) */
	atomic_int draining;
	atomic_uint jobs; /* threads of requests that change the role (handle_role.c), until they touch nothing any more */
	unsigned grace_ms;
};

/* Takes the sockets (-1: none).  0, or -1 with the reason logged. */
int server_start(struct server *, const int fds[LISTENER_KINDS]);
/* Stop accepting, let requests under way end (at most grace_ms), close. */
void server_stop(struct server *, unsigned grace_ms);

void server_free(struct server *); /* after server_stop; what threads of others may still touch */

/* Let suspended requests go on, each in its loop.  Any thread; a request must be suspended and is given once.
 */
void server_resume(struct request *const *requests, size_t count);

#define SERVER_ADMIN_CONNECTIONS 64
#define SERVER_SPARE_CONNECTIONS 64 /* beyond the limit, while room is made */

/* A socket for that loop, with what it counts for; any thread.  -1: no memory, it stays the caller's. */
int server_give(struct server_loop *, int fd, struct peer *);
void server_wake(int eventfd);

/* A request begins, and ends.  What flows on a connection puts its end off: at least SERVER_RATE is asked
 * for. */
#define SERVER_PATIENCE_MS 60000
#define SERVER_RATE 65536 /* bytes a second */
void server_conn_busy(struct server_conn *);
void server_conn_headed(struct server_conn *); /* the end of its head */
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
