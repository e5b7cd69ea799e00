/* Asking etcd: see etcd.h. */
#include "etcd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fail.h"
#include "transport.h"

struct etcd {
	struct etcd_place place;
	unsigned limit_ms;
	unsigned first; /* the endpoint that answered last */
	struct transport *transport;
	/* the answer of the moment */
	long status;
	size_t size;
	char bytes[ETCD_REPLY_MAX];
};

const char *etcd_parse(const char *url, struct etcd_place *place)
{
	static const char wrong[] = "etcd://HOST:PORT[,HOST:PORT]/KEY, or etcds:// over TLS";
	const char *scheme = !strncmp(url, "etcd://", 7)    ? "http"
			     : !strncmp(url, "etcds://", 8) ? "https"
							    : NULL;
	const char *hosts = scheme ? strstr(url, "://") + 3 : "", *key = strchr(hosts, '/');

	memset(place, 0, sizeof(*place));
	if (!scheme || !key || !key[1] || strlen(key + 1) > ETCD_KEY_MAX)
		return wrong;
	strcpy(place->key, key + 1);
	while (hosts < key) {
		int size = (int)strcspn(hosts, ",/");

		if (!size || size > ETCD_HOST_MAX || (int)strcspn(hosts, "?# \t\r\n@\"<>\\") < size ||
			place->count == ETCD_ENDPOINTS_MAX)
			return wrong;
		snprintf(place->endpoints[place->count++], sizeof(place->endpoints[0]), "%s://%.*s", scheme,
			size, hosts);
		hosts += size + (hosts[size] == ',');
	}
	return place->count ? NULL : wrong;
}

struct etcd *etcd_open(const struct etcd_place *place, unsigned limit_ms)
{
	struct etcd *etcd = calloc(1, sizeof(*etcd));

	if (!etcd)
		return NULL;
	etcd->place = *place;
	etcd->transport = transport_new_stranger("btree_store/" BTS_VERSION_STRING, NULL);
	if (!etcd->transport) {
		free(etcd);
		return NULL;
	}
	transport_set_certificate(etcd->transport);
	etcd->limit_ms = limit_ms;
	return etcd;
}

void etcd_close(struct etcd *etcd)
{
	if (!etcd)
		return;
	transport_free(etcd->transport);
	free(etcd);
}

void etcd_interrupt(struct etcd *etcd)
{
	transport_interrupt(etcd->transport);
}

static void etcd_on_header(void *arg, const char *name, const char *value)
{
	(void)arg;
	(void)name;
	(void)value;
}

static enum bts_err etcd_on_begin(void *arg, long status)
{
	struct etcd *etcd = arg;

	etcd->status = status;
	return BTS_OK;
}

static enum bts_err etcd_on_body(void *arg, const void *data, size_t size)
{
	struct etcd *etcd = arg;

	if (size > sizeof(etcd->bytes) - etcd->size)
		return BTS_LIMIT;
	memcpy(etcd->bytes + etcd->size, data, size);
	etcd->size += size;
	return BTS_OK;
}

static uint64_t etcd_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void etcd_ask_one(struct etcd *etcd, const char *endpoint, const char *body,
	const struct etcd_request *request, struct failover_reply *reply, struct bts_error *error)
{
	const struct transport_handler handler = {etcd_on_header, etcd_on_begin, etcd_on_body, etcd};
	uint64_t sent_ms = etcd_clock_ms();
	char url[ETCD_HOST_MAX + 40];
	static const char *const headers[] = {"Content-Type: application/json", "Expect:", NULL};
	const struct transport_request post = {.method = "POST",
		.url = url,
		.headers = headers,
		.body = {body, strlen(body)},
		.idle_s = 1 + etcd->limit_ms / 1000,
		.total_ms = etcd->limit_ms};
	struct bts_error why = {0};
	enum bts_err err;

	snprintf(url, sizeof(url), "%s%s", endpoint, etcd_json_path(request->call));
	etcd->status = 0;
	etcd->size = 0;
	err = transport_send(etcd->transport, &post, &handler, &why);
	if (err) {
		memset(reply, 0, sizeof(*reply));
		reply->call = request->call;
		reply->result = FAILOVER_UNKNOWN;
		if (err == BTS_LIMIT)
			fail_set(&why, BTS_IO, "an answer of more than %d bytes", ETCD_REPLY_MAX);
	} else {
		etcd_json_reply(etcd->place.key, request, etcd->status,
			(struct bts_slice){etcd->bytes, etcd->size}, reply, &why);
	}
	reply->sent_ms = sent_ms;
	if (reply->result != FAILOVER_DONE)
		fail_set(error, why.code, "%.100s: %.150s", endpoint, why.text);
}

void etcd_ask(struct etcd *etcd, const struct etcd_request *request, struct failover_reply *reply,
	struct bts_error *error)
{
	char *body = etcd_json_body(etcd->place.key, request);

	memset(reply, 0, sizeof(*reply));
	reply->call = request->call;
	reply->result = FAILOVER_UNKNOWN;
	reply->sent_ms = etcd_clock_ms();
	if (!body) {
		fail_set(error, BTS_MEMORY, "no memory for a request");
		return;
	}
	for (unsigned i = 0; i < etcd->place.count && reply->result == FAILOVER_UNKNOWN; i++) {
		unsigned at = (etcd->first + i) % etcd->place.count;

		etcd_ask_one(etcd, etcd->place.endpoints[at], body, request, reply, error);
		if (reply->result != FAILOVER_UNKNOWN)
			etcd->first = at;
	}
	free(body);
}
