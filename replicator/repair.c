/* Scrubbing with peers at hand: see repair.h. */
#include "repair.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REPAIR_LOOK_UNITS 64 /* between two looks at the clock */
#define REPAIR_URL_MAX 256

struct repair {
	struct repair_options options;
	char *peers;
	struct transport *transport;
	uint32_t page_size;
	uint8_t database[16];
	atomic_bool stopping;
	pthread_t thread;
	bool joined;
	pthread_mutex_t lock;
	struct repair_status status;
};

/* What a peer sends for one unit. */
struct repair_answer {
	uint8_t *bytes;
	size_t size, have;
	bool comes;
};

static uint64_t repair_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static enum bts_err repair_verdicts(
	void *arg, const struct pages_query *query, const uint8_t *verdicts, struct bts_error *error)
{
	struct repair_answer *answer = arg;

	(void)query;
	(void)error;
	answer->comes = verdicts[0] == PAGES_COMES;
	return BTS_OK;
}

static enum bts_err repair_piece(
	void *arg, size_t index, const struct frame_piece *piece, struct bts_slice bytes, struct bts_error *error)
{
	struct repair_answer *answer = arg;

	(void)index;
	(void)piece;
	if (bytes.size > answer->size - answer->have)
		return fail_set(error, BTS_CORRUPT, "more pages than were asked for");
	memcpy(answer->bytes + answer->have, bytes.data, bytes.size);
	answer->have += bytes.size;
	return BTS_OK;
}

/* The next address of the list; false at its end. */
static bool repair_next_peer(const char **at, char url[REPAIR_URL_MAX])
{
	size_t size;

	while (**at == ',')
		++*at;
	size = strcspn(*at, ",");
	if (size == 0)
		return false;
	if (size >= REPAIR_URL_MAX)
		size = REPAIR_URL_MAX - 1;
	memcpy(url, *at, size);
	url[size] = '\0';
	while (size && url[size - 1] == '/')
		url[--size] = '\0';
	*at += strcspn(*at, ",");
	return true;
}

/* One peer's bytes of the unit, written if they are the right ones. */
static enum bts_err repair_from(struct repair *r, struct bts_scrub *scrub, const struct bts_page_id *id, const char *url,
	struct repair_answer *answer, struct bts_error *error)
{
	const struct heal_peer peer = {r->transport, url, &r->stopping};
	const struct heal_sink sink = {repair_verdicts, repair_piece, answer};
	struct pages_query *query = calloc(1, sizeof(*query));
	struct heal_answer *reply = calloc(1, sizeof(*reply));
	enum bts_err err = BTS_MEMORY;

	answer->have = 0;
	answer->comes = false;
	if (query && reply) {
		memcpy(query->database, r->database, sizeof(query->database));
		query->count = 1;
		query->ids[0] = *id;
		err = heal_ask(&peer, query, &sink, reply, error);
	} else {
		fail_set(error, BTS_MEMORY, "no memory for a repair");
	}
	if (!err && (!answer->comes || answer->have != answer->size))
		err = fail_set(error, BTS_NOT_FOUND, "%s does not have it", url);
	if (!err)
		err = bts_scrub_repair(scrub, (struct bts_slice){answer->bytes, answer->size}, error);
	free(query);
	free(reply);
	return err;
}

static enum bts_err repair_unit(struct repair *r, struct bts_scrub *scrub, const struct bts_page_id *id, struct bts_error *error)
{
	struct repair_answer answer = {.size = (size_t)id->count * r->page_size};
	const char *at = r->peers ? r->peers : "";
	char url[REPAIR_URL_MAX];
	enum bts_err err = fail_set(error, BTS_NOT_FOUND, "no peer to ask was named");

	answer.bytes = malloc(answer.size);
	if (!answer.bytes)
		return fail_set(error, BTS_MEMORY, "no memory for a repair");
	while (err && err != BTS_POISONED && err != BTS_READ_ONLY && !atomic_load(&r->stopping) && repair_next_peer(&at, url)) {
		err = repair_from(r, scrub, id, url, &answer, error);
		if (!err)
			repl_emit(&r->options.events, REPL_WARN, "page-repaired", "page %" PRIu64 " (%" PRIu32 " pages, birth %" PRIu64 ") from %s",
				id->pgno, id->count, id->birth, url);
	}
	free(answer.bytes);
	return err;
}

static void repair_lost(struct repair *r, const struct bts_page_id *id, const struct bts_error *why)
{
	repl_emit(&r->options.events, REPL_ERROR, "page-lost", "page %" PRIu64 " (birth %" PRIu64 ") is damaged and nobody has it: %s",
		id->pgno, id->birth, why->text);
	pthread_mutex_lock(&r->lock);
	if (r->status.lost < REPAIR_LISTED)
		r->status.listed[r->status.lost] = *id;
	r->status.lost++;
	pthread_mutex_unlock(&r->lock);
}

static void repair_tell(struct repair *r, const struct bts_scrub *scrub)
{
	pthread_mutex_lock(&r->lock);
	bts_scrub_stat(scrub, &r->status.scrub);
	pthread_mutex_unlock(&r->lock);
}

/* No faster than allowed, over the whole. */
static void repair_pace(struct repair *r, const struct bts_scrub *scrub, uint64_t began)
{
	uint64_t rate = r->options.rate ? r->options.rate : REPAIR_RATE_DEFAULT, due, now = repair_now();
	struct bts_scrub_stat stat;

	bts_scrub_stat(scrub, &stat);
	due = began + stat.done * r->page_size / (rate / 1000 ? rate / 1000 : 1);
	while (due > now && !atomic_load(&r->stopping)) {
		transport_wait(r->transport, due - now > 1000 ? 1000 : (unsigned)(due - now));
		now = repair_now();
	}
}

static enum bts_err repair_all(struct repair *r, struct bts_scrub *scrub, struct bts_error *error)
{
	uint64_t began = repair_now(), units = 0;
	struct bts_scrub_unit unit;
	enum bts_err err = BTS_OK;

	while (!err && !atomic_load(&r->stopping)) {
		err = bts_scrub_next(scrub, &unit, error);
		if (!err && unit.damaged) {
			repl_emit(&r->options.events, REPL_ERROR, "page-damaged", "%s", unit.what.text);
			err = repair_unit(r, scrub, &unit.id, error);
			if (err && err != BTS_POISONED) {
				repair_lost(r, &unit.id, error);
				err = BTS_OK;
			}
		}
		if (++units % REPAIR_LOOK_UNITS && !err)
			continue;
		repair_tell(r, scrub);
		if (!err)
			repair_pace(r, scrub, began);
	}
	repair_tell(r, scrub);
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static void *repair_run(void *arg)
{
	struct repair *r = arg;
	struct bts_error error = {0};
	struct bts_scrub *scrub = NULL;
	enum bts_err err = bts_scrub_open(r->options.db, &scrub, &error);

	if (!err)
		err = repair_all(r, scrub, &error);
	bts_scrub_close(scrub);
	pthread_mutex_lock(&r->lock);
	r->status.running = false;
	r->status.ended = !err && !atomic_load(&r->stopping);
	if (err)
		r->status.error = error;
	pthread_mutex_unlock(&r->lock);
	repl_emit(&r->options.events, err || r->status.lost ? REPL_ERROR : REPL_INFO, "scrub-ended",
		"%" PRIu64 " pages read, %" PRIu64 " units damaged, %" PRIu64 " repaired, %zu lost%s%s", r->status.scrub.done,
		r->status.scrub.damaged, r->status.scrub.repaired, r->status.lost, err ? ": " : "", err ? error.text : "");
	return NULL;
}

static void repair_free(struct repair *r)
{
	transport_free(r->transport);
	pthread_mutex_destroy(&r->lock);
	free(r->peers);
	free(r);
}

enum bts_err repair_start(const struct repair_options *options, struct repair **out, struct bts_error *error)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	struct repair *r = calloc(1, sizeof(*r));
	enum bts_err err;
	int os;

	if (!r)
		return fail_set(error, BTS_MEMORY, "no memory to scrub");
	pthread_mutex_init(&r->lock, NULL);
	atomic_init(&r->stopping, false);
	r->options = *options;
	r->peers = options->peers ? strdup(options->peers) : NULL;
	r->transport = transport_new("btree_store/" BTS_VERSION_STRING);
	r->status.running = true;
	err = bts_stat(options->db, &stat, error);
	if (!err && (!r->transport || (options->peers && !r->peers)))
		err = fail_set(error, BTS_MEMORY, "no memory to scrub");
	if (!err) {
		r->page_size = stat.page_size;
		memcpy(r->database, stat.database, sizeof(r->database));
		os = pthread_create(&r->thread, NULL, repair_run, r);
		err = os ? fail_os(error, os, "starting a thread to scrub") : BTS_OK;
	}
	if (err) {
		repair_free(r);
		return err;
	}
	*out = r;
	return BTS_OK;
}

void repair_wait(struct repair *r)
{
	if (!r->joined)
		pthread_join(r->thread, NULL);
	r->joined = true;
}

void repair_status(struct repair *r, struct repair_status *status)
{
	pthread_mutex_lock(&r->lock);
	*status = r->status;
	pthread_mutex_unlock(&r->lock);
}

void repair_stop(struct repair *r)
{
	if (!r)
		return;
	atomic_store(&r->stopping, true);
	if (!r->joined)
		transport_interrupt(r->transport);
	repair_wait(r);
	repair_free(r);
}
