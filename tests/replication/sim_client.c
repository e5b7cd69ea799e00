/*
 * transport.h for the simulation: what follow.c calls instead of libcurl.  A call makes an event, gives the turn back
 * to the simulator and goes on with what that brings.
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ensure.h>

#include "transport.h"

enum client_news { NEWS_NONE, NEWS_HEAD, NEWS_BODY, NEWS_END, NEWS_BROKEN, NEWS_WOKEN };

struct transport {
	struct sim_node *node;
	struct sim_conn *conn; /* of the call of the moment */
	bool waiting, interrupted;
	enum client_news news;
	struct sim_reply reply;
	const char *why;
	const void *data;
	size_t size;
};

struct transport *transport_new(const char *user_agent)
{
	struct transport *transport = calloc(1, sizeof(*transport));

	(void)user_agent;
	ENSURE(transport);
	transport->node = &sim_world->nodes[sim_world->current];
	transport->node->transport = transport;
	return transport;
}

void transport_free(struct transport *transport)
{
	if (transport && transport->node->transport == transport)
		transport->node->transport = NULL;
	free(transport);
}

static void client_number(const struct transport_handler *handler, const char *name, uint64_t value)
{
	char number[24];

	snprintf(number, sizeof(number), "%" PRIu64, value);
	handler->header(handler->arg, name, number);
}

static enum bts_err client_head_taken(struct transport *transport, const struct transport_handler *handler)
{
	const struct sim_reply *reply = &transport->reply;

	if (reply->txid)
		client_number(handler, "BTS-Txid", reply->txid);
	if (reply->code)
		handler->header(handler->arg, "BTS-Error", reply->code);
	if (reply->via[0])
		handler->header(handler->arg, "BTS-Via", reply->via);
	if (reply->has_lag)
		client_number(handler, "BTS-Lag-Ms", reply->lag_ms);
	handler->header(handler->arg, "BTS-Role", reply->follower ? "follower" : "primary");
	return handler->begin(handler->arg, reply->status);
}

static enum bts_err client_run(
	struct transport *transport, const struct transport_handler *handler, struct bts_error *error)
{
	enum bts_err err = BTS_OK;

	for (;;) {
		transport->news = NEWS_NONE;
		sim_thread_yield();
		if (transport->interrupted)
			err = fail_set(error, BTS_TIMEOUT, "interrupted");
		else if (transport->news == NEWS_HEAD)
			err = client_head_taken(transport, handler);
		else if (transport->news == NEWS_BODY)
			err = handler->body(handler->arg, transport->data, transport->size);
		else if (transport->news == NEWS_BROKEN)
			err = fail_set(error, BTS_IO, "%s", transport->why);
		if (err || transport->news == NEWS_END)
			break;
	}
	server_abandon(transport->conn);
	transport->conn = NULL;
	return err;
}

enum bts_err transport_get(struct transport *transport, const char *url, unsigned wait_ms,
	const struct transport_handler *handler, struct bts_error *error)
{
	if (transport->interrupted)
		return fail_set(error, BTS_TIMEOUT, "interrupted");
	transport->conn = server_request(transport->node, url, wait_ms);
	return client_run(transport, handler, error);
}

enum bts_err transport_post(struct transport *transport, const char *url, struct bts_slice body,
	unsigned wait_ms, const struct transport_handler *handler, struct bts_error *error)
{
	if (transport->interrupted)
		return fail_set(error, BTS_TIMEOUT, "interrupted");
	transport->conn = server_post(transport->node, url, body, wait_ms);
	return client_run(transport, handler, error);
}

void transport_set_rate(struct transport *transport, uint64_t rate)
{
	(void)transport;
	(void)rate;
}

void transport_resume(struct transport *transport)
{
	transport->interrupted = false;
}

void transport_wait(struct transport *transport, unsigned ms)
{
	struct sim_node *node = transport->node;

	sim_at(node->sim, ms, SIM_WAKE, node->index, node->life);
	transport->waiting = true;
	while (transport->waiting && !transport->interrupted)
		sim_thread_yield();
	transport->waiting = false;
}

void transport_interrupt(struct transport *transport)
{
	transport->interrupted = true;
}

bool client_waits_for(const struct sim_conn *conn)
{
	const struct sim_node *node = &sim_world->nodes[conn->client];

	return !conn->client_gone && node->up && node->life == conn->client_life && node->transport &&
	       node->transport->conn == conn;
}

static void client_tell(struct sim_conn *conn, enum client_news news)
{
	struct sim_node *node = &sim_world->nodes[conn->client];

	if (!client_waits_for(conn))
		return;
	node->transport->news = news;
	host_resume(node);
}

void client_head(struct sim_conn *conn, const struct sim_reply *reply)
{
	struct sim_node *node = &sim_world->nodes[conn->client];

	if (!client_waits_for(conn))
		return;
	node->transport->reply = *reply;
	client_tell(conn, NEWS_HEAD);
}

void client_body(struct sim_conn *conn, const void *data, size_t size)
{
	struct sim_node *node = &sim_world->nodes[conn->client];

	if (!client_waits_for(conn))
		return;
	node->transport->data = data;
	node->transport->size = size;
	client_tell(conn, NEWS_BODY);
}

void client_end(struct sim_conn *conn)
{
	client_tell(conn, NEWS_END);
}

void client_broken(struct sim_conn *conn, const char *why)
{
	struct sim_node *node = &sim_world->nodes[conn->client];

	if (!client_waits_for(conn))
		return;
	node->transport->why = why;
	client_tell(conn, NEWS_BROKEN);
}

void client_woken(struct sim_node *node)
{
	if (!node->transport || !node->transport->waiting)
		return;
	node->transport->waiting = false;
	host_resume(node);
}
