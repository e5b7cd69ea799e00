/*
 * A request from its first byte to its reply.
 *
 * Life: made when the request line has come; checked (framing, route, parameters) when the headers have; its
 * body collected, fed or dropped; then handled.  A handler replies (reply.h) or suspends itself, and is
 * called again when somebody has given it to server_resume.  All in the thread of its loop.
 */
#ifndef HTTPAPI_REQUEST_H
#define HTTPAPI_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "btree_store.h"
#include "buf.h"
#include "reply.h"
#include "route.h"
#include "uri.h"
#include "writer.h"

struct MHD_Connection;
struct server_conn;
struct server_loop;

#define REQUEST_HEADERS_MAX 12

struct request_header {
	const char *name; /* a literal */
	char *value;	  /* in header_text, or ours to free */
	int owned;
};

/* What a suspended request waits for; the slow-request log tells how long. */
enum request_pause {
	REQUEST_JOB,	/* a thread of its own */
	REQUEST_WAIT,	/* a commit (BTS-After) */
	REQUEST_QUEUE,	/* the writer */
	REQUEST_COMMIT, /* the writer's group, its flush included */
	REQUEST_COPIES, /* other nodes */
	REQUEST_PARTS
};

struct request {
	struct server_loop *loop;
	struct MHD_Connection *mhd;
	struct server_conn *conn;
	enum uri_err uri_err;
	size_t target_size; /* of the target, as it came */
	unsigned method;
	int head;
	uint64_t headers_seen; /* framing.seen */
	int last; /* of its connection: where its body ends may be read differently */
	const struct route *route;    /* NULL when none matched */
	struct bts_slice bucket, key; /* decoded */
	unsigned scopes; /* that its sender has (auth.c) */
	uint64_t admitted_ms; /* when that was asked last */
	char *buckets;	 /* only on these; owned, NULL: on all */
	uint64_t started_us;
	unsigned status; /* of the reply, 0 until then */
	char who[16];	 /* id of the token or certificate that it came with (guard.h), "" = none */

	/* for the logs */
	uint64_t bytes_in, bytes_out;	   /* of bodies */
	uint64_t received_us, replied_us;  /* its body had come; its reply was there: only while slow requests are logged */
	uint64_t suspended_us;
	enum request_pause part;	   /* why it is suspended; set before request_suspend, else REQUEST_JOB */
	uint64_t part_us[REQUEST_PARTS];

	struct buf body;
	size_t body_counted; /* of it, or of what its route holds instead, in server.body_bytes */
	uint64_t dropped;    /* bytes of a body that nobody wants */

	/* what the checks found, told when the body has been read */
	unsigned early_status;
	const char *early_code;
	unsigned allowed;

	int handled, broken;
	unsigned parked; /* its place among the loop's parked + 1 */
	int ended; /* its connection went while it was parked: only memory that others use is left */
	void (*resume)(struct request *); /* called once, instead of the route's handle */
	struct request *next;		  /* in the queue of resumed ones */

	/* for the reply */
	bts_txid txid; /* 0: the newest */
	uint64_t begun_ms, begun_lag_ms; /* of a read: when its snapshot was taken, and how old that may have been; 0: not a follower's */
	int writes;    /* of ROUTE_MAY_WRITE: it does */
	int token;     /* add BTS-Token: txid was read or written by this request */
	unsigned header_count;
	struct reply_kept *reply_kept; /* what is sent (reply_again.h) */
	size_t header_bytes;

	struct writer_op op;
	void (*written)(struct request *); /* called when op is done, and the copies are there or given up */
	unsigned epochs;		    /* role_epochs when it was let in */
	unsigned copies;		    /* asked for: durability=replicated:K; 0 = local; QUORUM_ARCHIVE */
	uint64_t timeout_ms;		    /* how long they are waited for */
	int unreached;			    /* they are missing */
	void *state;			    /* of the handler */
	void (*state_free)(void *state);
	/* waiting for a commit (wait.h), or for copies of one (durable.h) */
	struct request *wait_next;
	struct reply_token wait_token; /* the commit asked for */
	bts_txid wait_txid;	       /* ask again from this transaction on */
	uint64_t wait_until_ms;

	/* From here on nothing is cleared for the next request: texts begin empty, and of the rest counts tell what there is. */
	char problem[160], early_extra[96]; /* of a refusal; further members of its JSON */
	char id[65];
	struct request_header headers[REQUEST_HEADERS_MAX];
	char header_text[160]; /* values that fit */
	struct uri uri;
};

/* The first line of that name; NULL when absent. */
const char *request_get_header(const struct request *, const char *name);
/* The same without the spaces and tabs behind it, which are not of the value (RFC 9110, 5.5); data NULL when absent. */
struct bts_slice request_get_value(const struct request *, const char *name);
/* The lines of a list field as one, NUL-terminated; left empty when absent. */
void request_get_list(const struct request *, const char *name, struct buf *out);
/* Whether the Accept lines name that media type, with a weight other than 0. */
int request_accepts(const struct request *, const char *type);
const struct bts_slice *request_param(const struct request *, const char *name);
/* A parameter that is yes or no: 0 or 1, -1 after a reply that refuses it. */
int request_param_flag(struct request *, const char *name);
/* 0, or -1 after a reply that refuses it; *value is untouched when absent. */
int request_param_u64(struct request *, const char *name, uint64_t min, uint64_t max, uint64_t *value);

/* Remember a refusal, told in problem, for when the body has been read; the first counts. */
void request_refuse(struct request *, unsigned status, const char *code);

/* For request.c, with a sound head: the route is found, what stands against the request is remembered (request_check.c). */
struct framing;
void request_take_id(struct request *); /* the client's, or one of ours */
void request_check_route(struct request *, const char *method, const struct framing *);

/* Of ROUTE_MAY_WRITE, one that writes: refused where others that write would have been before their body was read. */
void request_check_write(struct request *);

/* So many bytes are held in memory for its body now, as server.body_bytes counts.  -1: that is too much. */
int request_hold(struct request *, size_t bytes);

/* A piece of the body into r->body, at most so many bytes in all; may refuse. */
void request_collect(struct request *, const char *data, size_t size, size_t max);

/* Added to the reply, copied. */
void request_set_header(struct request *, const char *name, const char *value);
void request_drop_headers(struct request *); /* all of these */

/* Numeric address of the peer. */
#define REQUEST_PEER_SIZE 48
void request_peer(const struct request *, char text[REQUEST_PEER_SIZE]);
/* What is counted and logged of a request (request_log.c). */
uint64_t request_now_us(void); /* CLOCK_MONOTONIC */
uint64_t request_timed_us(const struct request *); /* the same while slow requests are logged, else 0 */
void request_account(struct request *); /* it goes on after a suspension */
void request_tell(const struct request *); /* it has ended */

/* Until server_resume; then resume is called.  Set before anybody can resume it. */
void request_suspend(struct request *, void (*resume)(struct request *));
/* Queue its op for the writer and suspend, or reply that the queue is full.  written is called when the op is
 * done, and, where it changed something, the copies that the request asks for are there or given up. */
void request_write(struct request *, void (*written)(struct request *));
/* The writer's writer_done_fn: resumes the owners. */
void request_written(struct writer_op *ops);

void *request_session(const struct request *); /* of TLS, for tls_client; NULL without */
struct server *request_server(const struct request *);
struct role *request_role(const struct request *);

/* For the loop (server.c): the daemon whose requests come here, and going on with a suspended one. */
struct MHD_Daemon;
struct MHD_Daemon *request_daemon(struct server_loop *, unsigned connection_limit);
void request_go_on(struct request *);
/* request_park.c.  -1: suspend it. */
int request_park(struct request *, void (*resume)(struct request *));
void request_unpark(struct request *);
void request_park_none(struct server_loop *); /* those parked are suspended in earnest */
void request_spares_free(struct server_loop *); /* the loop has ended */
#endif
