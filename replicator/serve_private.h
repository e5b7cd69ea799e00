/* What the files of serve share. */
#ifndef SERVE_PRIVATE_H
#define SERVE_PRIVATE_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "admin.h"
#include "ages.h"
#include "archive.h"
#include "guard.h"
#include "pace.h"
#include "pages_source.h"
#include "query.h"
#include "serve.h"
#include "source.h"

#define SERVE_BODY_MAX 65536 /* bytes of a request's body that are read and dropped; more breaks it off */
#define SERVE_POST_MAX 16384 /* bytes of a POST's body that are kept */
#define SERVE_ID_MAX 64
#define SERVE_ACKS_MAX 64 /* there are no more */

struct serve_request {
	struct serve_request *next, *prev; /* among the suspended */
	struct serve *serve;
	struct MHD_Connection *connection; /* set when suspended */
	char id[SERVE_ID_MAX + 1];
	char path[128]; /* of the request, cut, for `instance` and events */
	char method[8];
	unsigned status;   /* of the reply; 0: there was none */
	uint64_t begun_ms;
	bool begun;	/* the first call of the handler was made */
	size_t target_size; /* of the target, as it came */
	bool absolute;	/* the target was not in origin form */
	bool crowded;	/* its query was cut, as it has more parameters than any path takes */
	const struct guard_words *refusal; /* told when its body has been read; NULL: it may go on */
	bool suspended;
	bool parsed;	   /* query is set */
	bool acknowledged; /* its position was recorded */
	size_t body;	   /* bytes that came */
	uint8_t *post;	   /* of a POST, the first SERVE_POST_MAX of them; NULL: none */
	bool chain_known;  /* how old what is here may have been before the head was looked at: not known else */
	bool chain_seen;
	uint64_t chain_lag_ms;
	bool has_digest;   /* digest is that of the roots of the commit told of */
	uint8_t digest[16];
	struct serve_job *job;	   /* of serve_admin.c; owned */
	struct query query;
	uint64_t deadline_ms; /* of the long poll */
	uint64_t looked_ms;   /* when it was last suspended */
};

/* The place of a stream among those that wait for the rate (serve_pace.c). */
struct serve_turn {
	struct serve *serve;
	struct serve_turn *next, **link;
	struct MHD_Connection *connection; /* set before the first take */
	bool waiting, woken;
};

/* A frame being sent. */
struct serve_frame {
	struct serve_frame *next, *prev;
	struct serve *serve;
	struct source_stream *stream;
	struct serve_turn turn;
	int fd;
	char follower[BTS_ACK_NAME_MAX + 1];
	uint64_t since_ms; /* since when bytes are counted */
	uint64_t bytes;
	const char *broken; /* why it was broken off; NULL: it was not */
};

struct serve {
	struct bts *db;
	struct source source; /* the loop's */
	struct repl_events events;
	struct guard *guard; /* NULL: all may do all */
	bool tls;
	bool log_requests;
	unsigned wait_max_ms;
	unsigned port;

	int listen_fd, wake_fd; /* listen_fd: of a pipe that serve_adopt writes descriptors to, when adopt_fd is not -1 */
	int adopt_fd;
	uint64_t accept_ms;  /* the listening socket rests until then */
	bool accept_resting; /* it was said that it does */
	struct MHD_Daemon *daemon;
	pthread_t loop, waiter;
	bool loop_started, waiter_started;
	atomic_bool stopping;
	_Atomic uint64_t head; /* newest txid the waiter saw */

	struct serve_conn *conns; /* list, of all */
	unsigned conn_count;
	uint64_t conns_ms;	  /* when they are looked at again */
	struct serve_request *suspended; /* list */
	uint64_t suspended_count;
	struct serve_frame *frames;	 /* list */
	struct serve_answer *answers;	 /* list, of pages */
	uint64_t pin_limit;
	unsigned slow_ms;
	uint64_t watch_ms; /* when the frames are looked at again */
	uint64_t due_ms;	   /* the first of their deadlines, or earlier */
	struct pages_pins *pins;   /* commits kept for those who ask for single pages */
	uint64_t requests, errors; /* for metrics */
	uint64_t pages_answers;
	struct node *node; /* NULL: roles are not served */
	struct archive *archive; /* NULL: none here */
	pthread_mutex_t jobs_lock; /* of what follows */
	pthread_cond_t jobs_ended;
	struct serve_job *jobs_done; /* list */
	unsigned jobs_running;
	pthread_mutex_t ages_lock; /* the waiter fills, the loop looks */
	struct ages ages;
	struct pace pace;
	struct serve_turn *turns, **turns_last; /* queue */
	uint64_t paused;			/* how often a stream had to wait for it */
};

/* What the file is now, as BTS-Role says it: promotion and demotion happen beside us. */
const char *serve_role(const struct serve *serve);

uint64_t serve_now_ms(void);	  /* monotonic */
uint64_t serve_realtime_ms(void); /* since 1970 */

/* serve_request.c: libmicrohttpd's callbacks; arg is the struct serve */
void *serve_on_uri(void *arg, const char *uri, struct MHD_Connection *connection);
enum MHD_Result serve_on_request(void *arg, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *upload, size_t *upload_size, void **context);
void serve_on_completed(
	void *arg, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode code);
size_t serve_on_unescape(void *arg, struct MHD_Connection *connection, char *text);
/* Takes it off the list of the suspended and has libmicrohttpd call serve_on_request again. */
void serve_resume(struct serve_request *request);

/* serve_frame.c: the answer is a frame; each turn of the loop: those that take too long or cost too much are broken off */
enum MHD_Result serve_send_frame(struct serve_request *request, struct MHD_Connection *connection);
void serve_watch(struct serve *serve);

void serve_wake(struct serve *serve); /* the loop; any thread */

/* serve_admin.c: false: it is not one of its paths; each turn of the loop, and its last */
bool serve_admin(struct serve_request *request, struct MHD_Connection *connection, const char *url, const char *method,
	enum MHD_Result *result);
/* What must be granted for that path; 0: it is not one of them. */
unsigned serve_admin_scope(const struct serve *serve, const char *url);
void serve_admin_resume(struct serve *serve);
void serve_admin_headers(struct MHD_Response *response, const struct admin_reply *reply);
void serve_job_free(struct serve_job *job); /* NULL is fine */

/* serve_pace.c: how many of so many bytes a stream may give now; 0: its connection was suspended, nothing is to be given */
size_t serve_pace_take(struct serve_turn *turn, struct serve *serve, size_t wanted);
void serve_pace_leave(struct serve_turn *turn);   /* it ends */
void serve_pace_wake(struct serve_turn *turn);    /* it goes on whatever the rate, to find that it was broken off */
void serve_pace_resume(struct serve *serve);      /* each turn of the loop */

/* serve_route.c: the answer, or a suspension */
enum MHD_Result serve_route(struct serve_request *request, struct MHD_Connection *connection, const char *url,
	const char *method);

/* serve_conn.c: how long a connection may take.  libmicrohttpd's callback; a head, a request, a reply has ended; each turn of the loop */
void serve_on_connection(
	void *arg, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode code);
void serve_conn_begun(struct serve *serve, struct MHD_Connection *connection, struct serve_request *request);
void serve_conn_headed(struct MHD_Connection *connection);
void serve_conn_asked(struct MHD_Connection *connection);
void serve_conn_answered(struct MHD_Connection *connection);
void serve_conn_watch(struct serve *serve);
void serve_conn_make_room(struct serve *serve); /* before each that is taken */

/* As the guard judges this request; NULL: it may go on. */
const struct guard_words *serve_refusal(
	struct serve_request *request, struct MHD_Connection *connection, const char *url, const char *method);

/* serve_segments.c: the table of segments */
enum MHD_Result serve_segments(struct serve_request *request, struct MHD_Connection *connection);

/* serve_pages.c: single pages, of a POST */
enum MHD_Result serve_pages(struct serve_request *request, struct MHD_Connection *connection);
void serve_pages_watch(struct serve *serve, uint64_t now); /* break off those that are taken too slowly */
void serve_pages_expire(struct serve *serve, bts_txid txid); /* and all of that commit, which is let go of */

/* serve_reply.c; each queues one reply.  head NULL = no BTS-Txid and BTS-Epoch are sent. */
void serve_headers(
	struct serve_request *request, struct MHD_Response *response, const struct bts_position *head);
/* Takes the response. */
enum MHD_Result serve_queue(
	struct serve_request *request, struct MHD_Connection *connection, unsigned status, struct MHD_Response *response);
enum MHD_Result serve_text(struct serve_request *request, struct MHD_Connection *connection, unsigned status,
	const char *type, const char *text, const struct bts_position *head);
struct serve_problem {
	unsigned status;
	const char *code;
	const char *detail;
	const char *allow; /* for 405, else NULL */
	const struct bts_position *head;
	const struct bts_position *fork; /* NULL, or where the histories part */
	const struct admin_reply *more; /* NULL, or whose headers it has, too */
};
enum MHD_Result serve_problem(struct serve_request *request, struct MHD_Connection *connection,
	const struct serve_problem *problem);
/* text as the inside of a JSON string; what does not fit is cut */
void serve_json_escape(const char *text, char *out, size_t size);

/* serve_metrics.c: Prometheus text (owned: free), NULL without memory */
char *serve_metrics(struct serve *serve, const struct bts_position *head);
/* Since the first commit that a follower lacks; and bytes that it lacks, estimated, at most the live pages, -1: not known. */
uint64_t serve_lag_ms(struct serve *serve, const struct bts_ack *ack, const struct bts_position *head);
int64_t serve_lag_bytes(struct serve *serve, const struct bts_ack *ack, const struct bts_position *head);
/* serve_status.c: JSON, as serve_metrics */
char *serve_status(struct serve *serve, const struct bts_position *head);

#endif
