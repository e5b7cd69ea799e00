/*
 * The transport over libcurl: one multi handle, one transfer at a time.
 *
 * The address is the operator's and what answers there is not trusted: no redirect is followed, no proxy,
 * netrc or environment is asked, only http and https are spoken, nothing is decompressed, and nothing may
 * last for ever.  There is no total timeout, as a frame takes its time: an answer has to begin soon after its
 * wait, and one that brings nothing more is ended by the low-speed limit.
 */
#include "transport.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fail.h"
#include "identity.h"

#define TRANSPORT_POLL_MS 1000
#define TRANSPORT_BUFFER (512 * 1024) /* received at a time, at most */

struct transport {
	CURLM *multi;
	CURL *easy;
	bool stranger;		    /* asks servers that are no nodes */
	struct curl_slist *headers; /* of the request */
	atomic_bool interrupted;

	/* of the transfer of the moment */
	const struct transport_handler *handler;
	bool answered; /* at least a line has come */
	bool begun;
	size_t head;	      /* bytes of header lines so far */
	bool head_end;	      /* the last of them was the empty one */
	uint64_t deadline_ms; /* of the answer's first line */
	enum bts_err refused; /* what the handler returned */
	char message[CURL_ERROR_SIZE];
};

static pthread_once_t transport_once = PTHREAD_ONCE_INIT;

static void transport_init_library(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static enum bts_err transport_begin(struct transport *transport)
{
	long status = 0;

	if (transport->begun)
		return BTS_OK;
	transport->begun = true;
	curl_easy_getinfo(transport->easy, CURLINFO_RESPONSE_CODE, &status);
	return transport->handler->begin(transport->handler->arg, status);
}

static size_t transport_on_body(char *data, size_t one, size_t size, void *arg)
{
	struct transport *transport = arg;

	(void)one;
	transport->refused = transport_begin(transport);
	if (!transport->refused)
		transport->refused = transport->handler->body(transport->handler->arg, data, size);
	return transport->refused ? CURL_WRITEFUNC_ERROR : size;
}

static size_t transport_on_header(char *data, size_t one, size_t size, void *arg)
{
	struct transport *transport = arg;
	char line[TRANSPORT_HEADER_MAX], *colon, *value, *end;

	(void)one;
	transport->answered = true;
	transport->head += size;
	transport->head_end = size > 0 && (data[0] == '\r' || data[0] == '\n');
	if (transport->head > TRANSPORT_HEADERS_MAX)
		return CURL_WRITEFUNC_ERROR;
	if (size >= sizeof(line))
		return size; /* none of ours is that long */
	memcpy(line, data, size);
	line[size] = '\0';
	colon = strchr(line, ':');
	if (!colon)
		return size;
	*colon = '\0';
	value = colon + 1 + strspn(colon + 1, " \t");
	end = value + strlen(value);
	while (end > value && strchr("\r\n \t", end[-1]))
		*--end = '\0';
	transport->handler->header(transport->handler->arg, line, value);
	return size;
}

static void transport_set_options(struct transport *transport, const char *user_agent)
{
	CURL *easy = transport->easy;

	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_HTTP_TRANSFER_DECODING, 1L);
	curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, NULL);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 15L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 5L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)TRANSPORT_CONNECT_MS);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)TRANSPORT_BUFFER);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, user_agent);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transport->message);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, transport_on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, transport);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, transport_on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, transport);
}

/* The files are read at each connection, so a certificate that was renewed needs no word. */
static void transport_show_identity(CURL *easy)
{
	const struct identity *identity = identity_get();

	if (identity->ca) {
		curl_easy_setopt(easy, CURLOPT_CAINFO, identity->ca);
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL); /* the system's authorities would count beside it */
	}
	if (identity->cert) {
		curl_easy_setopt(easy, CURLOPT_SSLCERT, identity->cert);
		curl_easy_setopt(easy, CURLOPT_SSLKEY, identity->key);
	}
}

static struct transport *transport_make(const char *user_agent)
{
	struct transport *transport = calloc(1, sizeof(*transport));

	if (!transport)
		return NULL;
	pthread_once(&transport_once, transport_init_library);
	atomic_init(&transport->interrupted, false);
	transport->multi = curl_multi_init();
	transport->easy = curl_easy_init();
	if (!transport->multi || !transport->easy) {
		transport_free(transport);
		return NULL;
	}
	transport_set_options(transport, user_agent);
	return transport;
}

struct transport *transport_new(const char *user_agent)
{
	struct transport *transport = transport_make(user_agent);

	if (transport)
		transport_show_identity(transport->easy);
	return transport;
}

struct transport *transport_new_stranger(const char *user_agent, const char *ca)
{
	struct transport *transport = transport_make(user_agent);

	if (!transport)
		return NULL;
	transport->stranger = true;
	if (ca) {
		curl_easy_setopt(transport->easy, CURLOPT_CAINFO, ca);
		curl_easy_setopt(transport->easy, CURLOPT_CAPATH, NULL);
	}
	return transport;
}

void transport_set_certificate(struct transport *transport)
{
	transport_show_identity(transport->easy);
}

void transport_free(struct transport *transport)
{
	if (!transport)
		return;
	if (transport->easy)
		curl_easy_cleanup(transport->easy);
	if (transport->multi)
		curl_multi_cleanup(transport->multi);
	curl_slist_free_all(transport->headers);
	free(transport);
}

void transport_set_rate(struct transport *transport, uint64_t rate)
{
	curl_easy_setopt(transport->easy, CURLOPT_MAX_RECV_SPEED_LARGE, (curl_off_t)rate);
}

static uint64_t transport_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Milliseconds to sleep before the next look; 0: the answer should have begun by now. */
static int transport_patience(const struct transport *transport)
{
	uint64_t now = transport->answered ? 0 : transport_now();

	if (transport->answered || transport->deadline_ms >= now + TRANSPORT_POLL_MS)
		return TRANSPORT_POLL_MS;
	return transport->deadline_ms > now ? (int)(transport->deadline_ms - now) : 0;
}

/*
 * Drive the transfer to its end: curl's result, CURLE_ABORTED_BY_CALLBACK when interrupted, or
 * CURLE_OPERATION_TIMEDOUT.
 */
static CURLcode transport_drive(struct transport *transport)
{
	CURLMcode multi = CURLM_OK;
	int running = 1, left, patience;
	CURLMsg *message;

	while (!atomic_load(&transport->interrupted)) {
		multi = curl_multi_perform(transport->multi, &running);
		patience = transport_patience(transport);
		if (multi == CURLM_OK && running && patience == 0)
			return CURLE_OPERATION_TIMEDOUT;
		if (multi == CURLM_OK && running)
			multi = curl_multi_poll(transport->multi, NULL, 0, patience, NULL);
		if (multi != CURLM_OK)
			return CURLE_FAILED_INIT;
		if (running)
			continue;
		message = curl_multi_info_read(transport->multi, &left);
		return message && message->msg == CURLMSG_DONE ? message->data.result : CURLE_FAILED_INIT;
	}
	return CURLE_ABORTED_BY_CALLBACK;
}

/* The token for this URL, which may be another one's than the last; false: no memory. */
static bool transport_show_token(struct transport *transport, const char *url)
{
	char header[IDENTITY_HEADER_SIZE];
	struct curl_slist *headers = NULL;

	if (identity_header(url, header)) {
		headers = curl_slist_append(NULL, header);
		if (!headers)
			return false;
	}
	curl_easy_setopt(transport->easy, CURLOPT_HTTPHEADER, headers);
	curl_slist_free_all(transport->headers);
	transport->headers = headers;
	return true;
}

static enum bts_err transport_fail(const struct transport *transport, CURLcode code, struct bts_error *error)
{
	static const CURLcode lasting[] = {
		CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE, CURLE_UNSUPPORTED_PROTOCOL};
	enum bts_err err = BTS_IO;
	size_t i;

	if (transport->head > TRANSPORT_HEADERS_MAX)
		return fail_set(error, BTS_IO, "the headers of the reply have no end");
	for (i = 0; transport->stranger && i < sizeof(lasting) / sizeof(lasting[0]); i++)
		if (code == lasting[i])
			err = BTS_INVALID;
	return fail_set(
		error, err, "%s", transport->message[0] ? transport->message : curl_easy_strerror(code));
}

/* All but URL, headers and body has been set.  An answer has to begin within answer_ms. */
static enum bts_err transport_run(struct transport *transport, const char *url, unsigned answer_ms,
	const struct transport_handler *handler, struct bts_error *error)
{
	CURLcode code;

	transport->handler = handler;
	transport->begun = transport->answered = false;
	transport->head = 0;
	transport->head_end = false;
	transport->deadline_ms = transport_now() + answer_ms;
	transport->refused = BTS_OK;
	transport->message[0] = '\0';
	if (curl_easy_setopt(transport->easy, CURLOPT_URL, url) != CURLE_OK ||
		curl_multi_add_handle(transport->multi, transport->easy) != CURLM_OK)
		return fail_set(error, BTS_MEMORY, "no memory for a request");
	code = transport_drive(transport);
	curl_multi_remove_handle(transport->multi, transport->easy);
	/* The handler has filled error itself. */
	if (transport->refused)
		return transport->refused;
	if (atomic_load(&transport->interrupted))
		return fail_set(error, BTS_TIMEOUT, "interrupted");
	if (code == CURLE_OPERATION_TIMEDOUT && !transport->answered &&
		!(transport->stranger && transport->message[0]))
		return fail_set(error, BTS_IO, "no answer within %u ms", answer_ms);
	if (code != CURLE_OK)
		return transport_fail(transport, code, error);
	/* libcurl takes headers that break off for all of them. */
	if (!transport->head_end && !transport->begun)
		return fail_set(error, BTS_IO, "the reply broke off within its headers");
	return transport_begin(transport);
}

static enum bts_err transport_ask(struct transport *transport, const char *url, unsigned wait_ms,
	const struct transport_handler *handler, struct bts_error *error)
{
	curl_easy_setopt(transport->easy, CURLOPT_LOW_SPEED_TIME, (long)(wait_ms / 1000 + TRANSPORT_IDLE_S));
	if (!transport_show_token(transport, url))
		return fail_set(error, BTS_MEMORY, "no memory for a request");
	return transport_run(transport, url, wait_ms + TRANSPORT_ANSWER_MS, handler, error);
}

enum bts_err transport_get(struct transport *transport, const char *url, unsigned wait_ms,
	const struct transport_handler *handler, struct bts_error *error)
{
	curl_easy_setopt(transport->easy, CURLOPT_HTTPGET, 1L);
	return transport_ask(transport, url, wait_ms, handler, error);
}

enum bts_err transport_post(struct transport *transport, const char *url, struct bts_slice body, unsigned wait_ms,
	const struct transport_handler *handler, struct bts_error *error)
{
	curl_easy_setopt(transport->easy, CURLOPT_POST, 1L);
	if (curl_easy_setopt(transport->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.size) != CURLE_OK ||
		curl_easy_setopt(transport->easy, CURLOPT_COPYPOSTFIELDS, body.data) != CURLE_OK)
		return fail_set(error, BTS_MEMORY, "no memory for a request");
	return transport_ask(transport, url, wait_ms, handler, error);
}

static bool transport_set_headers(struct transport *transport, const char *const *lines)
{
	struct curl_slist *headers = NULL, *longer;

	for (; lines && *lines; lines++) {
		longer = curl_slist_append(headers, *lines);
		if (!longer) {
			curl_slist_free_all(headers);
			return false;
		}
		headers = longer;
	}
	curl_easy_setopt(transport->easy, CURLOPT_HTTPHEADER, headers);
	curl_slist_free_all(transport->headers);
	transport->headers = headers;
	return true;
}

enum bts_err transport_send(struct transport *transport, const struct transport_request *request,
	const struct transport_handler *handler, struct bts_error *error)
{
	CURL *easy = transport->easy;
	enum bts_err err;

	if (!transport_set_headers(transport, request->headers))
		return fail_set(error, BTS_MEMORY, "no memory for a request");
	if (request->body.data) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.size);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body.data);
	} else {
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
	}
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)TRANSPORT_SLOW);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)request->idle_s);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)request->total_ms);
	if (curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method) != CURLE_OK)
		return fail_set(error, BTS_MEMORY, "no memory for a request");
	err = transport_run(transport, request->url, request->total_ms, handler, error);
	curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L); /* the body is borrowed no longer */
	return err;
}

void transport_wait(struct transport *transport, unsigned ms)
{
	if (!atomic_load(&transport->interrupted))
		curl_multi_poll(transport->multi, NULL, 0, (int)ms, NULL);
}

void transport_interrupt(struct transport *transport)
{
	atomic_store(&transport->interrupted, true);
	curl_multi_wakeup(transport->multi);
}

void transport_resume(struct transport *transport)
{
	atomic_store(&transport->interrupted, false);
}
