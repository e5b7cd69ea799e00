/*
 * One request at a time over HTTP, and a wait that can be ended from another thread.  The narrow seam between the
 * follower's loop and libcurl.
 */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#include <btree_store.h>

#define TRANSPORT_CONNECT_MS 5000
#define TRANSPORT_ANSWER_MS 3000 /* beyond its wait a request without any byte of an answer is given up */
#define TRANSPORT_IDLE_S                                                                                     \
	15 /* a reply that brings less than a byte a second for so long, beyond its wait, is dead */

#define TRANSPORT_HEADER_MAX 1280 /* bytes of a header line that is looked at */
#define TRANSPORT_HEADERS_MAX (64 * 1024) /* bytes of all header lines of a reply, with more it is broken off */
#define TRANSPORT_SLOW 1024		  /* bytes a second: what moves less is idle (transport_send) */

struct transport_handler {
	/* A header of the final reply; name and value are NUL-terminated, borrowed for the call. */
	void (*header)(void *arg, const char *name, const char *value);
	/* Once, before the first piece of a body, or at the end when there is none. */
	enum bts_err (*begin)(void *arg, long status);
	/* A piece of the body.  What is not BTS_OK breaks the transfer off and is what transport_get returns.
	 */
	enum bts_err (*body)(void *arg, const void *data, size_t size);
	void *arg;
};

struct transport;
/* Owned: transport_free.  NULL when there is no memory. */
struct transport *transport_new(const char *user_agent);
/*
 * For servers that are no nodes: of identity.h nothing is shown to them.  ca: a file (PEM) of who signs for them, borrowed for the call;
 * NULL: as the system has it.  Then only transport_send.
 */
struct transport *transport_new_stranger(const char *user_agent, const char *ca);
/* Shows it this node's certificate all the same, never its token, and knows it as nodes are known (identity.h).  Before the first request. */
void transport_set_certificate(struct transport *);
void transport_free(struct transport *); /* NULL is fine */

/* Bytes a second that replies bring at most; 0: no limit.  Before the first request. */
void transport_set_rate(struct transport *, uint64_t rate);

/*
 * GET url, which may answer after wait_ms.  Blocks.  BTS_OK: the reply has ended as HTTP says it must; its
 * status may be any.  BTS_IO: it did not, or not in time.  BTS_TIMEOUT: transport_interrupt was called.
 */
BTS_MUST_CHECK enum bts_err transport_get(struct transport *, const char *url, unsigned wait_ms,
	const struct transport_handler *handler, struct bts_error *error);
/* POST of these bytes (borrowed for the call), in all else as transport_get. */
BTS_MUST_CHECK enum bts_err transport_post(struct transport *, const char *url, struct bts_slice body, unsigned wait_ms,
	const struct transport_handler *handler, struct bts_error *error);

struct transport_request {
	const char *method; /* "GET", "PUT", "POST", "DELETE" */
	const char *url;
	const char *const *headers; /* "Name: value" each, then NULL; "Name:" keeps back one of libcurl's; or NULL */
	struct bts_slice body;	    /* data NULL: none */
	unsigned idle_s;	    /* with less than TRANSPORT_SLOW bytes a second, either way, for so long it fails */
	unsigned total_ms;	    /* and when it takes longer than that */
};
/* Any request, borrowed for the call; in all else as transport_get.  BTS_INVALID: the other side is not who it should be (TLS). */
BTS_MUST_CHECK enum bts_err transport_send(struct transport *, const struct transport_request *request,
	const struct transport_handler *handler, struct bts_error *error);
/* Sleep that long, or until transport_interrupt. */
void transport_wait(struct transport *, unsigned ms);
/* From any thread: ends the call of the moment and makes all later ones return at once. */
void transport_interrupt(struct transport *);
/* The thread that makes the calls: later ones do as they should again. */
void transport_resume(struct transport *);

#endif
