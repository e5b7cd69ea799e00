/*
 * A first transfer over the replicator's own bytes: cut at every chunk's boundary and beside it, plain and compressed, it goes on
 * there; over HTTP while the primary writes, through restarts of both sides, with snapshots let go at the budget's end or for want of
 * speed; and with positions and cursors that were made up.
 */
#include "cmocka.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "frame.h"
#include "position.h"
#include "replica.h"
#include "rng.h"
#include "source.h"

#define KEYS 20000u
#define CHUNKS_MAX 64u

static uint64_t seed;

struct fixture {
	char dir[128], primary[160], follower[160], url[64];
	struct bts *db;
	struct serve *serve;
	atomic_uint resumed, applied, expired, slow;
};

static void on_event(void *arg, const struct repl_event *event)
{
	struct fixture *f = arg;

	f->resumed += strcmp(event->name, "transfer-resumed") == 0;
	f->applied += strcmp(event->name, "frame-applied") == 0;
	f->expired += strcmp(event->name, "frame-expired") == 0;
	f->slow += strcmp(event->name, "frame-expired") == 0 && strstr(event->text, "slowly");
	if (getenv("BTS_VERBOSE"))
		printf("%s: %s\n", event->name, event->text);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	replica_enter(f->dir, sizeof(f->dir));
	replica_path(f->primary, sizeof(f->primary), f->dir, "primary");
	replica_path(f->follower, sizeof(f->follower), f->dir, "follower");
	f->db = replica_open(f->primary, 0);
	replica_put(f->db, 0, KEYS, 0, 200);
	replica_put(f->db, KEYS, 5, 0, 300000);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	serve_stop(f->serve);
	bts_close(f->db);
	replica_leave(f->dir);
	free(f);
	return 0;
}

static void serve_it(struct fixture *f, uint64_t pin_limit, unsigned slow_ms)
{
	struct serve_options options = {.db = f->db, .listen = "127.0.0.1:0", .pin_limit = pin_limit, .slow_ms = slow_ms,
		.events = {on_event, f}};
	struct bts_error error;

	if (serve_start(&options, &f->serve, &error))
		fail_msg("serve: %s", error.text);
	snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u", serve_port(f->serve));
}

static struct follow *follow_it(struct fixture *f, const char *url, struct follow_options options)
{
	struct bts_options open;
	struct bts_error error;
	struct follow *follow;

	bts_options_init(&open);
	open.transfer_step = 65536;
	options.path = f->follower;
	options.upstream = url;
	options.node = "n1";
	options.open = &open;
	options.events = (struct repl_events){on_event, f};
	if (follow_start(&options, &follow, &error))
		fail_msg("follow: %s", error.text);
	return follow;
}

/* Bytes of a frame for the query, up to cut, into the follower.  db NULL: only looked at; ends[]: where chunks end. */
struct pump {
	struct source *source;
	struct query query;
	struct bts *db;
	uint64_t cut, at, pages;
	uint64_t ends[CHUNKS_MAX];
	size_t chunks;
	bool resumed, whole;
	struct bts_apply *apply;
};

static void pump_event(struct pump *p, const struct frame_event *event, uint64_t at)
{
	struct bts_position base = {.txid = 0};
	struct bts_error error = {.text = ""};
	enum bts_err err = BTS_OK;

	if (event->kind == FRAME_HEADER) {
		p->resumed = event->header->partial.position.txid != 0;
		memcpy(base.database, event->header->target.database, 16);
		if (p->db && p->resumed)
			err = bts_apply_resume(p->db, &event->header->partial, &event->header->target, &p->apply, &error);
		else if (p->db)
			err = bts_apply_begin(p->db, &base, &event->header->target, &p->apply, &error);
	} else if (event->kind == FRAME_PIECE) {
		p->pages += event->piece.pages;
		if (p->chunks < CHUNKS_MAX && (!p->chunks || p->ends[p->chunks - 1] != at))
			p->ends[p->chunks++] = at;
		if (p->db)
			err = bts_apply_piece(p->apply, &event->piece.id, event->piece.first, event->bytes, &error);
	} else if (event->kind == FRAME_END && p->db) {
		err = bts_apply_finish(p->apply, event->record, &error);
		p->apply = NULL;
	}
	if (err)
		fail_msg("apply: %s", error.text);
}

/* false: the source could not go on. */
static bool pump_run(struct pump *p)
{
	struct frame_decoder *decoder = frame_decoder_new();
	struct source_stream *stream;
	struct frame_event event;
	struct bts_error error;
	uint8_t bytes[5000];
	size_t got = 1;
	bool good;

	p->at = p->pages = p->chunks = 0;
	assert_int_equal(source_stream_open(p->source, &p->query, &stream, &error), BTS_OK);
	good = !source_stream_read(stream, bytes, sizeof(bytes), &got, &error);
	while (good && got > 0 && p->at < p->cut) {
		struct bts_slice input = {bytes, got < p->cut - p->at ? got : p->cut - p->at};

		p->at += input.size;
		do {
			if (frame_decode(decoder, &input, &event, &error))
				fail_msg("decode: %s", error.text);
			pump_event(p, &event, p->at - input.size);
		} while (event.kind != FRAME_MORE);
		good = !source_stream_read(stream, bytes, sizeof(bytes), &got, &error);
	}
	p->whole = good && got == 0 && p->at < p->cut;
	bts_apply_suspend(p->apply);
	p->apply = NULL;
	source_stream_close(stream);
	frame_decoder_free(decoder);
	return good;
}

static struct bts *fresh_follower(struct fixture *f)
{
	struct bts_position source;
	char path[200];

	snprintf(path, sizeof(path), "%s-lock", f->follower);
	unlink(path);
	unlink(f->follower);
	assert_int_equal(bts_ship_position(f->db, &source, NULL), BTS_OK);
	assert_int_equal(bts_ship_create(f->follower, NULL, &source, 4096, NULL), BTS_OK);
	return replica_open(f->follower, BTS_OPEN_FOLLOWER | BTS_OPEN_EXISTING);
}

static void cut_and_go_on(struct fixture *f, struct source *source, bool zstd, uint64_t cut, uint64_t all)
{
	struct pump p = {.source = source, .cut = cut};
	uint64_t first;

	p.db = fresh_follower(f);
	p.query.zstd = zstd;
	assert_true(pump_run(&p));
	assert_false(p.whole);
	first = p.pages;
	p.query.has_database = true;
	assert_int_equal(bts_ship_position(p.db, &p.query.after, NULL), BTS_OK);
	assert_int_equal(p.query.after.txid, 0);
	if (bts_apply_partial(p.db, &p.query.partial))
		assert_int_equal(first, 0);
	p.cut = UINT64_MAX;
	assert_true(pump_run(&p));
	assert_true(p.whole && p.resumed == (first > 0));
	/* Twice comes nothing but the value that was cut in its middle. */
	if (first + p.pages > all + 80 || first + p.pages < all)
		fail_msg("cut at %llu: %llu and %llu pages of %llu", (unsigned long long)cut, (unsigned long long)first,
			(unsigned long long)p.pages, (unsigned long long)all);
	replica_assert_same(f->db, p.db);
	bts_close(p.db);
}

static void every_boundary(void **state)
{
	struct fixture *f = *state;
	struct source source;

	assert_int_equal(source_init(&source, f->db, NULL, NULL), BTS_OK);
	for (int zstd = 0; zstd < 2; zstd++) {
		struct pump look = {.source = &source, .cut = UINT64_MAX};

		look.query.zstd = zstd;
		assert_true(pump_run(&look));
		assert_true(look.whole && look.chunks > 5 && look.chunks < CHUNKS_MAX);
		for (size_t i = 0; i < look.chunks; i++)
			for (int beside = -1; beside <= 1; beside++)
				cut_and_go_on(f, &source, zstd, look.ends[i] + (uint64_t)(int64_t)beside, look.pages);
		cut_and_go_on(f, &source, zstd, 120, look.pages);
		cut_and_go_on(f, &source, zstd, look.at - 1, look.pages);
		printf("%s: %zu chunks, %llu bytes for %llu pages\n", zstd ? "zstd" : "plain", look.chunks,
			(unsigned long long)look.at, (unsigned long long)look.pages);
	}
}

/* Anything may be asked for: an answer from the beginning, one that decodes, or an end; and the database is as before. */
static void made_up(void **state)
{
	unsigned anew = 0, resumed = 0, ended = 0;
	struct fixture *f = *state;
	struct bts_position head;
	struct source source;
	struct rng rng;

	rng_init(&rng, seed);
	for (unsigned i = 0; i < 20; i++)
		replica_put(f->db, i * 50, 20, i, 200);
	assert_int_equal(bts_ship_position(f->db, &head, NULL), BTS_OK);
	assert_int_equal(source_init(&source, f->db, NULL, NULL), BTS_OK);
	for (unsigned i = 0; i < 300; i++) {
		struct pump p = {.source = &source, .cut = UINT64_MAX};
		struct bts_partial *partial = &p.query.partial;

		p.query.after = head;
		p.query.after.txid = 0;
		p.query.has_database = true;
		partial->position = head;
		if (rng_one_in(&rng, 4))
			partial->position.txid = 1 + rng_below(&rng, head.txid + 3);
		if (rng_one_in(&rng, 8))
			partial->position.chain[rng_below(&rng, 16)] ^= 1;
		partial->cursor = rng_one_in(&rng, 8) ? rng_next(&rng) >> 17 : rng_below(&rng, 4000);
		if (rng_one_in(&rng, 2)) {
			partial->older = rng_below(&rng, head.txid + 2);
			partial->older_cursor = partial->older ? partial->cursor + rng_below(&rng, 3000) : 0;
		}
		if (!pump_run(&p))
			ended++;
		else if (p.resumed)
			resumed++;
		else
			anew++;
	}
	printf("%u from the beginning, %u went on, %u were broken off\n", anew, resumed, ended);
	assert_true(anew > 10 && resumed > 10 && ended > 0);
	replica_assert_clean(f->db);
}

static bts_pgno some_extent(struct bts *db)
{
	struct bts_page_id id;
	struct bts_slice bytes;
	struct bts_walk *walk;

	assert_int_equal(bts_walk_open(db, 0, &walk, NULL), BTS_OK);
	do
		assert_int_equal(bts_walk_next(walk, &id, &bytes, NULL), BTS_OK);
	while (id.kind != BTS_KIND_EXTENT);
	bts_walk_close(walk);
	return id.pgno;
}

/* A cursor within a large value: said before the first page, or the peer would take those for progress and ask again for ever. */
static void no_page_begins_there(void **state)
{
	struct bts_partial partial = {.cursor = 0};
	struct fixture *f = *state;
	struct bts_page_id id;
	struct bts_slice bytes;
	struct bts_walk *walk;
	enum bts_err err;

	assert_int_equal(bts_ship_position(f->db, &partial.position, NULL), BTS_OK);
	for (bts_pgno within = 0; within < 2; within++) {
		partial.cursor = some_extent(f->db) + within;
		replica_put(f->db, 0, 20, 1, 200); /* there are pages that it lacks */
		assert_int_equal(bts_walk_open_from(f->db, &partial, &walk, NULL), BTS_OK);
		do
			err = bts_walk_next(walk, &id, &bytes, NULL);
		while (err == BTS_BUSY);
		assert_int_equal(err, within ? BTS_INVALID : BTS_OK);
		bts_walk_close(walk);
	}
}

static void while_the_primary_writes(void **state)
{
	struct fixture *f = *state;
	struct follow *follow;
	struct proxy *proxy;
	char url[64];
	unsigned round = 0;

	serve_it(f, 0, 0);
	proxy = proxy_start(serve_port(f->serve), url, sizeof(url));
	/* More than a chunk. */
	proxy_harm(proxy, 8, seed % 2 ? 1500000 : 60000, false);
	follow = follow_it(f, url, (struct follow_options){.zstd = seed % 2 == 0});
	while (proxy_harmed(proxy) < 8 && atomic_load(&f->applied) == 0) {
		round++;
		replica_put(f->db, round * 331 % KEYS, 30, round, 200);
		poll(NULL, 0, 2);
	}
	replica_await(follow, replica_txid(f->db));
	replica_assert_same(f->db, follow_db(follow));
	printf("%u cuts, %u commits, went on %u times\n", proxy_harmed(proxy), round, atomic_load(&f->resumed));
	assert_true(proxy_harmed(proxy) > 3 && atomic_load(&f->resumed) >= proxy_harmed(proxy) - 1);
	follow_stop(follow);
	proxy_stop(proxy);
}

static void restarts(void **state)
{
	struct fixture *f = *state;
	struct follow_status status;
	struct follow *follow;
	struct proxy *proxy;
	char url[64];

	for (unsigned i = 0; i < 3; i++) {
		serve_it(f, 0, 0);
		proxy = proxy_start(serve_port(f->serve), url, sizeof(url));
		proxy_harm(proxy, 1000, 1200000, false);
		follow = follow_it(f, url, (struct follow_options){0});
		replica_await_retries(follow, 1);
		follow_status(follow, &status);
		assert_int_equal(status.txid, 0);
		follow_stop(follow);
		proxy_stop(proxy);
		replica_put(f->db, i * 900, 10, i, 200);
		serve_stop(f->serve);
		f->serve = NULL;
		assert_true(atomic_load(&f->resumed) >= i);
	}
	serve_it(f, 0, 0);
	follow = follow_it(f, f->url, (struct follow_options){0});
	replica_await(follow, replica_txid(f->db));
	assert_true(atomic_load(&f->resumed) >= 3);
	replica_assert_same(f->db, follow_db(follow));
	follow_stop(follow);
}

static void count_reader(void *arg, const struct bts_reader_info *info)
{
	(void)info;
	++*(unsigned *)arg;
}

static unsigned readers(struct bts *db)
{
	unsigned count = 0;

	assert_int_equal(bts_readers(db, count_reader, &count, NULL), BTS_OK);
	return count;
}

/* The follower stops reading: at the budget's end its snapshot goes, and when it reads again it goes on. */
static void budget_and_speed(void **state)
{
	struct fixture *f = *state;
	struct follow *follow;
	struct proxy *proxy;
	char url[64];

	/* More than fits between them. */
	for (unsigned i = 0; i < 6; i++)
		replica_put(f->db, KEYS + 100 + 20 * i, 20, 0, 400000);
	for (int slow = 0; slow < 2; slow++) {
		unsigned expired = atomic_load(&f->expired), round = 0;

		serve_it(f, slow ? 0 : 2u << 20, slow ? 1500 : 0);
		proxy = proxy_start(serve_port(f->serve), url, sizeof(url));
		proxy_hang_after(proxy, 300000); /* in its midst, however late this thread is */
		follow = follow_it(f, url, (struct follow_options){0});
		while (!follow_db(follow) || (readers(f->db) == 0 && atomic_load(&f->expired) == expired))
			poll(NULL, 0, 1);
		while (atomic_load(&f->expired) == expired && round < 20000) {
			round++;
			replica_put(f->db, round * 331 % KEYS, 50, round, 200);
			poll(NULL, 0, 1);
		}
		assert_true(atomic_load(&f->expired) > expired);
		assert_int_equal(atomic_load(&f->slow), slow);
		assert_int_equal(readers(f->db), 0);
		proxy_hang(proxy, false);
		replica_await(follow, replica_txid(f->db));
		replica_assert_same(f->db, follow_db(follow));
		follow_stop(follow);
		proxy_stop(proxy);
		serve_stop(f->serve);
		f->serve = NULL;
		bts_close(fresh_follower(f));
	}
	assert_true(atomic_load(&f->resumed) > 0);
}

static void rate_and_zstd(void **state)
{
	struct follow_options options = {.max_rate = 4u << 20, .zstd = true};
	struct fixture *f = *state;
	struct follow_status status;
	struct follow *follow;

	serve_it(f, 0, 0);
	follow = follow_it(f, f->url, options);
	replica_await(follow, replica_txid(f->db));
	follow_status(follow, &status);
	printf("%llu bytes for %llu pages\n", (unsigned long long)status.bytes, (unsigned long long)status.pages);
	assert_true(status.bytes < status.pages * 4096);
	replica_assert_same(f->db, follow_db(follow));
	follow_stop(follow);
	options.max_rate = FOLLOW_RATE_LEAST - 1;
	options.path = f->follower;
	options.upstream = f->url;
	options.node = "n1";
	assert_int_equal(follow_start(&options, &follow, NULL), BTS_INVALID);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_boundary, set_up, tear_down),
		cmocka_unit_test_setup_teardown(made_up, set_up, tear_down),
		cmocka_unit_test_setup_teardown(no_page_begins_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(while_the_primary_writes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(restarts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(budget_and_speed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(rate_and_zstd, set_up, tear_down),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
