/*
 * The network, and a node's answers: what serve_route.c does with libmicrohttpd is done here with events.
 *
 * Between the ends everything may happen that a network and the boxes in it do: a request is lost, a reply comes late,
 * ends early, misses a piece, repeats or exchanges pieces, has a bit turned, or is one of an earlier request to somebody
 * else.  A link that is cut carries nothing and says nothing.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ensure.h>

#include "transport.h"

#define SERVER_PIECE 65536u
#define SERVER_GIVE_UP_MS 60000u /* a reply of which nothing moves */

static uint64_t server_latency(const struct sim_conn *conn)
{
	struct sim *sim = sim_world;
	uint64_t ms = 1 + rng_below(&sim->rng, 20) + sim->nodes[conn->client].slow;

	return sim_chance(sim, 20) ? ms + rng_below(&sim->rng, 3000) : ms;
}

static unsigned server_index(const struct sim_conn *conn)
{
	return (unsigned)(conn - sim_world->conns);
}

static void server_later(struct sim_conn *conn, uint64_t ms, enum sim_event_kind kind)
{
	sim_at(sim_world, ms, kind, server_index(conn), conn->number);
}

struct sim_conn *server_conn(struct sim *sim, unsigned at, unsigned number)
{
	struct sim_conn *conn = &sim->conns[at];

	return conn->state != CONN_FREE && conn->number == number ? conn : NULL;
}

static void server_record_end(struct sim_conn *conn, bool whole)
{
	if (conn->recording)
		conn->recording->whole = whole;
	conn->recording = NULL;
}

static void server_free(struct sim_conn *conn)
{
	server_record_end(conn, false);
	source_stream_close(conn->stream);
	pages_stream_close(conn->pages);
	free(conn->asked);
	free(conn->bytes);
	memset(conn, 0, sizeof(*conn));
}

static void server_reply(struct sim_conn *conn, struct sim_reply *reply, long status, uint64_t txid)
{
	struct sim_node *server = &sim_world->nodes[conn->server];

	*reply = (struct sim_reply){.status = status, .txid = txid, .follower = !server->primary};
	if (server->source_db)
		reply->has_lag = source_chain(&server->source, reply->via, &reply->lag_ms);
}

/* The request is on its way, or gets lost. */
static struct sim_conn *server_new(struct sim_node *client, const char *url, unsigned wait_ms)
{
	struct sim *sim = client->sim;
	struct sim_conn *conn = NULL;

	for (unsigned i = 0; i < SIM_CONNS_MAX && !conn; i++)
		if (sim->conns[i].state == CONN_FREE)
			conn = &sim->conns[i];
	ENSURE(conn && strncmp(url, "http://", 7) == 0);
	*conn = (struct sim_conn){.state = CONN_SENT,
		.number = ++sim->numbers,
		.client = client->index,
		.client_life = client->life,
		.server = (unsigned)strtoul(url + 7, NULL, 10)};
	ENSURE(conn->server < sim->count);
	conn->server_life = sim->nodes[conn->server].life;
	server_later(conn, wait_ms + TRANSPORT_ANSWER_MS, SIM_TIMEOUT);
	if (!client->image && !sim_chance(sim, 60))
		server_later(conn, server_latency(conn), SIM_ARRIVE);
	return conn;
}

struct sim_conn *server_request(struct sim_node *client, const char *url, unsigned wait_ms)
{
	struct sim_conn *conn = server_new(client, url, wait_ms);
	char *copy = strdup(url), *save, *part, *equals;
	struct query_decoder decoder;
	struct bts_error error;

	ENSURE(copy && strchr(copy, '?'));
	query_decode_start(&decoder);
	for (part = strtok_r(strchr(copy, '?') + 1, "&", &save); part; part = strtok_r(NULL, "&", &save)) {
		equals = strchr(part, '=');
		ENSURE(equals);
		*equals = '\0';
		if (query_decode(&decoder, part, equals + 1, &error))
			sim_fail(client->sim, "%s asks what is not understood: %s", client->name, error.text);
	}
	free(copy);
	if (query_decode_finish(&decoder, &error))
		sim_fail(client->sim, "%s asks what is no request: %s", client->name, error.text);
	conn->query = decoder.query;
	if (!client->image && conn->query.after.txid > client->claimed.txid)
		client->claimed = conn->query.after;
	if (client->claimed.txid > client->told)
		client->told = client->claimed.txid;
	return conn;
}

struct sim_conn *server_post(
	struct sim_node *client, const char *url, struct bts_slice body, unsigned wait_ms)
{
	struct sim_conn *conn = server_new(client, url, wait_ms);
	struct bts_error error;

	conn->asked = malloc(sizeof(*conn->asked));
	ENSURE(conn->asked);
	if (pages_query_decode(conn->asked, body.data, body.size, &error))
		sim_fail(
			client->sim, "%s asks for pages as nobody understands: %s", client->name, error.text);
	return conn;
}

void server_abandon(struct sim_conn *conn)
{
	conn->client_gone = true;
	if (conn->state == CONN_SENT)
		server_free(conn);
	else /* its end comes to know it by and by */
		server_later(conn, rng_below(&sim_world->rng, SERVER_GIVE_UP_MS), SIM_BREAK);
}

static bool server_reachable(const struct sim_conn *conn)
{
	return !sim_world->cut[conn->client][conn->server];
}

static void server_no_frame(struct sim_conn *conn, long status, uint64_t txid, const char *code)
{
	unsigned at = server_index(conn), number = conn->number;
	struct sim_reply reply;

	server_reply(conn, &reply, status, txid);
	reply.code = code;
	client_head(conn, &reply);
	if (server_conn(sim_world, at, number))
		client_end(conn);
	if (server_conn(sim_world, at, number))
		server_free(conn);
}

/* A reply that went over the wire before, to anybody. */
static bool server_stale(struct sim_conn *conn)
{
	struct sim *sim = sim_world;
	const struct sim_record *record = &sim->records[rng_below(&sim->rng, SIM_RECORDS)];

	if (!record->whole || !sim_chance(sim, 30))
		return false;
	sim_note(sim, "n%u gets a reply of old", conn->client);
	sim->stale++;
	conn->bytes = malloc(record->size + 1);
	ENSURE(conn->bytes);
	memcpy(conn->bytes, record->bytes, record->size);
	conn->size = record->size;
	conn->state = CONN_STREAM;
	conn->progress = sim->now;
	server_later(conn, server_latency(conn), SIM_PIECE);
	client_head(conn, &record->reply);
	return true;
}

/* A forged frame may have left a cursor where no page begins. */
static bool server_may_refuse(const struct sim *sim, const struct bts_error *error)
{
	return error->code == BTS_INVALID && sim->forged;
}

/* The whole reply is made, and changed. */
static void server_forge(struct sim_conn *conn)
{
	struct sim *sim = sim_world;
	struct bts_error error;
	size_t cap = 0, got;

	do {
		if (conn->size + SERVER_PIECE > cap)
			conn->bytes = realloc(conn->bytes, cap = cap * 2 + SERVER_PIECE);
		ENSURE(conn->bytes);
		if (source_stream_read(conn->stream, conn->bytes + conn->size, SERVER_PIECE, &got, &error)) {
			if (!server_may_refuse(sim, &error))
				sim_fail(sim, "n%u cannot make a frame: %s", conn->server, error.text);
			return; /* it ends in the middle */
		}
		conn->size += got;
	} while (got > 0);
	if (forge(&sim->rng, &conn->bytes, &conn->size)) {
		sim_note(sim, "n%u gets a forged frame", conn->client);
		sim->forged++;
	}
}

static void server_record_begin(struct sim_conn *conn, const struct sim_reply *reply)
{
	struct sim *sim = sim_world;
	struct sim_record *record = &sim->records[sim->record_next];

	for (unsigned i = 0; i < SIM_CONNS_MAX; i++)
		if (sim->conns[i].recording == record)
			return;
	if (!rng_one_in(&sim->rng, 3))
		return;
	sim->record_next = (sim->record_next + 1) % SIM_RECORDS;
	record->whole = false;
	record->size = 0;
	record->reply = *reply;
	conn->recording = record;
}

static void server_stream(struct sim_conn *conn)
{
	struct sim *sim = sim_world;
	struct sim_node *server = &sim->nodes[conn->server];
	bool forged = sim_chance(sim, 30);
	struct sim_reply reply;
	struct bts_error error;

	if (forged) /* what is changed is made whole first, by somebody who knows nothing */
		conn->query.lean = false;
	if (source_stream_open(&server->source, &conn->query, &conn->stream, &error))
		sim_fail(sim, "%s cannot make a frame: %s", server->name, error.text);
	check_pages_known(server);
	conn->state = CONN_STREAM;
	conn->progress = sim->now;
	server_reply(conn, &reply, 200, source_stream_target(conn->stream)->txid);
	if (forged)
		server_forge(conn);
	else
		server_record_begin(conn, &reply);
	server_later(conn, server_latency(conn), SIM_PIECE);
	client_head(conn, &reply);
}

static void server_answer(struct sim_conn *conn)
{
	struct sim *sim = sim_world;
	struct sim_node *server = &sim->nodes[conn->server];
	struct source_answer answer;

	source_decide(&server->source, &conn->query, &answer);
	if (answer.verdict == SOURCE_REFUSED) {
		server_no_frame(
			conn, answer.status, answer.status == 409 ? answer.head.txid : 0, answer.code);
		return;
	}
	if (conn->state == CONN_SENT) {
		source_acknowledge(&server->source, &conn->query);
		check_acks(server);
		role_acknowledged(server);
	}
	if (answer.verdict == SOURCE_FRAME) {
		server_stream(conn);
	} else if (sim->now >= conn->deadline) {
		server_no_frame(conn, 204, answer.head.txid, NULL);
	} else if (conn->state != CONN_PARKED) {
		conn->state = CONN_PARKED;
		server_later(conn, conn->deadline - sim->now, SIM_LOOK);
	}
}

static void server_pages(struct sim_conn *conn)
{
	struct sim *sim = sim_world;
	struct sim_node *server = &sim->nodes[conn->server];
	struct sim_reply reply;
	struct bts_error error;
	enum bts_err err = pages_stream_open(server->pins, conn->asked, sim->now, &conn->pages, &error);

	if (err) {
		server_no_frame(conn, err == BTS_NOT_FOUND || err == BTS_DIVERGED ? 409 : 503, 0,
			err == BTS_DIVERGED ? "wrong-database" : "gone");
		return;
	}
	conn->state = CONN_STREAM;
	conn->progress = sim->now;
	server_reply(conn, &reply, 200, pages_stream_position(conn->pages)->txid);
	server_later(conn, server_latency(conn), SIM_PIECE);
	client_head(conn, &reply);
}

static void server_arrive(struct sim_conn *conn)
{
	struct sim *sim = sim_world;
	struct sim_node *server = &sim->nodes[conn->server];

	if (!server_reachable(conn))
		return; /* nobody says anything: the client gives up */
	if (!server->up || !server->source_db) {
		if (server->up)
			server_no_frame(conn, 503, 0, "unavailable");
		else
			client_broken(conn, "refused");
		return;
	}
	conn->server_life = server->life;
	conn->deadline = sim->now + conn->query.wait_ms;
	if (conn->asked)
		server_pages(conn);
	else if (!server_stale(conn))
		server_answer(conn);
}

/* Damage on the way; false: the piece is lost and the connection with it. */
static bool server_damage(struct sim_conn *conn, uint8_t *bytes, size_t *got)
{
	struct sim *sim = sim_world;

	if (!sim_chance(sim, 60) || *got == 0)
		return true;
	sim->damaged++;
	server_record_end(conn, false);
	switch (rng_below(&sim->rng, 5)) {
	case 0:
		bytes[rng_below(&sim->rng, *got)] ^= (uint8_t)(1u << rng_below(&sim->rng, 8));
		return true;
	case 1:
		*got = rng_below(&sim->rng, *got); /* a hole in the middle */
		return true;
	case 2: /* two halves exchanged */
		for (size_t i = 0, half = *got / 2; i < half; i++) {
			uint8_t byte = bytes[i];

			bytes[i] = bytes[half + i];
			bytes[half + i] = byte;
		}
		return true;
	case 3: /* it comes twice */
		client_body(conn, bytes, *got);
		return true;
	default:
		return false;
	}
}

static void server_keep(struct sim_conn *conn, const uint8_t *bytes, size_t got)
{
	struct sim_record *record = conn->recording;

	if (!record)
		return;
	if (record->size + got > record->cap) {
		record->cap = (record->size + got) * 2;
		record->bytes = realloc(record->bytes, record->cap);
		ENSURE(record->bytes);
	}
	memcpy(record->bytes + record->size, bytes, got);
	record->size += got;
}

/* false: it was broken off at the source. */
static bool server_read(struct sim_conn *conn, uint8_t *bytes, size_t *size)
{
	struct sim *sim = sim_world;
	size_t cap = 1 + rng_below(&sim->rng, SERVER_PIECE), got = 0;
	struct bts_error error;

	if (conn->bytes) {
		got = conn->size - conn->at < cap ? conn->size - conn->at : cap;
		memcpy(bytes, conn->bytes + conn->at, got);
		conn->at += got;
	} else if (conn->pages) {
		pages_stream_read(conn->pages, bytes, cap, &got);
	} else {
		if (sim_chance(sim, 60)) /* it costs the source too much */
			source_stream_break(conn->stream);
		if (source_stream_read(conn->stream, bytes, cap, &got, &error)) {
			if (error.code != BTS_EXPIRED && !server_may_refuse(sim, &error))
				sim_fail(sim, "n%u cannot go on with a frame: %s", conn->server, error.text);
			return false;
		}
	}
	*size = got;
	return true;
}

static void server_piece(struct sim_conn *conn)
{
	static uint8_t bytes[SERVER_PIECE];
	struct sim *sim = sim_world;
	unsigned at = server_index(conn), number = conn->number;
	size_t got;

	if (!client_waits_for(conn) || (!conn->stream && !conn->pages && !conn->bytes))
		return;
	if (!server_reachable(conn)) {
		if (sim->now - conn->progress < (TRANSPORT_IDLE_S + 1) * 1000)
			server_later(conn, 200, SIM_PIECE);
		else
			client_broken(conn, "idle");
		return;
	}
	conn->progress = sim->now;
	if (!server_read(conn, bytes, &got)) {
		client_broken(conn, "reset");
		return;
	}
	server_keep(conn, bytes, got);
	if (!server_damage(conn, bytes, &got)) {
		if (rng_one_in(&sim->rng, 2))
			client_end(conn);
		else
			client_broken(conn, "reset");
		return;
	}
	if (!server_conn(sim, at, number) || !client_waits_for(conn))
		return;
	if (got > 0) {
		server_later(conn, server_latency(conn) / 4, SIM_PIECE);
		client_body(conn, bytes, got);
		return;
	}
	server_record_end(conn, true);
	client_end(conn);
	if (server_conn(sim, at, number))
		server_free(conn);
}

void server_event(struct sim *sim, const struct sim_event *event)
{
	struct sim_conn *conn = server_conn(sim, event->a, event->number);

	if (!conn)
		return;
	if (event->kind == SIM_ARRIVE) {
		server_arrive(conn);
	} else if (event->kind == SIM_LOOK) {
		if (conn->state == CONN_PARKED && !conn->client_gone && server_reachable(conn) &&
			conn->server_life == sim->nodes[conn->server].life)
			server_answer(conn);
	} else if (event->kind == SIM_PIECE) {
		server_piece(conn);
	} else if (event->kind == SIM_TIMEOUT) {
		if (conn->state != CONN_STREAM)
			client_broken(conn, "no answer");
	} else if (conn->client_gone) {
		server_free(conn);
	} else {
		client_broken(conn, "reset");
	}
}

void server_news(struct sim_node *node)
{
	struct sim *sim = node->sim;

	for (unsigned i = 0; i < SIM_CONNS_MAX; i++)
		if (sim->conns[i].state == CONN_PARKED && sim->conns[i].server == node->index)
			server_later(&sim->conns[i], 1 + rng_below(&sim->rng, 10), SIM_LOOK);
}

static void server_end(struct sim_conn *conn, uint64_t after)
{
	source_stream_close(conn->stream);
	conn->stream = NULL;
	pages_stream_close(conn->pages);
	conn->pages = NULL;
	if (!client_waits_for(conn)) {
		server_free(conn);
		return;
	}
	conn->state = CONN_PARKED; /* nothing will come */
	conn->server_life = UINT32_MAX;
	server_later(conn, after, SIM_BREAK);
}

void server_end_streams(struct sim_node *node)
{
	for (unsigned i = 0; i < SIM_CONNS_MAX; i++)
		if (node->sim->conns[i].stream && node->sim->conns[i].server == node->index)
			server_end(&node->sim->conns[i], 5);
}

void server_died(struct sim_node *node, bool power)
{
	struct sim *sim = node->sim;

	for (unsigned i = 0; i < SIM_CONNS_MAX; i++) {
		struct sim_conn *conn = &sim->conns[i];

		if (conn->state != CONN_FREE && conn->state != CONN_SENT && conn->server == node->index)
			server_end(conn, power ? TRANSPORT_IDLE_S * 1000 : 5);
	}
}
