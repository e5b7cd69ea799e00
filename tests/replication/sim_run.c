/*
 * The plan of a run: events in the order of a virtual clock, faults for some of its time, then none, and by then every
 * node must come to the primary's state within a bounded time.
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <ensure.h>

#include "position.h"
#define SIM_SYSTEM_PLAIN
#include "sim_system.h"

#define RUN_CHAOS_MS 20000u
#define RUN_CALM_MS 120000u /* to converge: back-off, dead connections, restarts, for each of four levels */

struct sim *sim_world;

int sim_clock_gettime(clockid_t clock, struct timespec *now)
{
	uint64_t ms = sim_world->now + 1000;

	if (clock == CLOCK_REALTIME)
		ms += UINT64_C(1600000000000);
	now->tv_sec = (time_t)(ms / 1000);
	now->tv_nsec = (long)(ms % 1000) * 1000000;
	return 0;
}

ssize_t sim_getrandom(void *data, size_t size, unsigned flags)
{
	(void)flags;
	rng_fill(&sim_world->system, data, size);
	return (ssize_t)size;
}

void sim_note(struct sim *sim, const char *format, ...)
{
	va_list args;

	if (!sim->verbose)
		return;
	printf("%8" PRIu64 " ", sim->now);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

void sim_fail(struct sim *sim, const char *format, ...)
{
	va_list args;

	printf("FAILED seed %" PRIu64 " at %" PRIu64 " ms: ", sim->seed, sim->now);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(" (again: SIM_SEEDS=%" PRIu64 ":%" PRIu64 " SIM_VERBOSE=1)\n", sim->seed, sim->seed + 1);
	fflush(stdout);
	_exit(1);
}

bool sim_chance(struct sim *sim, uint64_t n)
{
	return sim->chaos && rng_one_in(&sim->rng, n);
}

static bool run_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void run_swap(struct sim *sim, size_t a, size_t b)
{
	struct sim_event event = sim->events[a];

	sim->events[a] = sim->events[b];
	sim->events[b] = event;
}

void sim_at(struct sim *sim, uint64_t ms, enum sim_event_kind kind, unsigned a, unsigned number)
{
	size_t i = sim->event_count++;

	if (i == sim->event_cap) {
		sim->event_cap = sim->event_cap ? sim->event_cap * 2 : 256;
		sim->events = realloc(sim->events, sim->event_cap * sizeof(*sim->events));
		ENSURE(sim->events);
	}
	sim->events[i] = (struct sim_event){sim->now + ms, sim->order++, kind, a, number};
	for (; i > 0 && run_before(&sim->events[i], &sim->events[(i - 1) / 2]); i = (i - 1) / 2)
		run_swap(sim, i, (i - 1) / 2);
}

static struct sim_event run_take(struct sim *sim)
{
	struct sim_event first = sim->events[0];
	size_t i = 0, child;

	sim->events[0] = sim->events[--sim->event_count];
	while ((child = 2 * i + 1) < sim->event_count) {
		if (child + 1 < sim->event_count && run_before(&sim->events[child + 1], &sim->events[child]))
			child++;
		if (!run_before(&sim->events[child], &sim->events[i]))
			break;
		run_swap(sim, i, child);
		i = child;
	}
	return first;
}

static void run_reader_begin(struct sim_node *node, struct sim_reader *reader)
{
	struct sim *sim = node->sim;
	struct bts *db = host_db(node);
	struct bts_options options;
	struct bts_error error;

	bts_options_init(&options);
	options.env = env_mem_env(node->m);
	options.flags = BTS_OPEN_READ_ONLY;
	options.map_bytes = UINT64_C(32) << 20;
	if (rng_one_in(&sim->rng, 2)) {
		if (bts_open("/data", &options, &reader->own, &error))
			sim_fail(sim, "%s: a reader cannot open: %s", node->name, error.text);
		db = reader->own;
	}
	if (bts_begin(db, BTS_READ, &reader->txn, &error) ||
		model_scan(reader->txn, &reader->content, &error))
		sim_fail(sim, "%s: a reader: %s", node->name, error.text);
}

static void run_read(struct sim *sim)
{
	struct sim_node *node = &sim->nodes[rng_below(&sim->rng, sim->count)];
	struct sim_reader *reader = &node->readers[rng_below(&sim->rng, SIM_READERS)];

	if (!node->up || !host_db(node))
		return;
	check_lists(node, false);
	if (!reader->txn) {
		run_reader_begin(node, reader);
		return;
	}
	check_reader(node, reader);
	if (!rng_one_in(&sim->rng, 3))
		return;
	bts_abort(reader->txn);
	bts_close(reader->own);
	memset(reader, 0, sizeof(*reader));
}

static void run_chaos(struct sim *sim)
{
	struct sim_node *node = &sim->nodes[rng_below(&sim->rng, sim->count)];
	unsigned other = (unsigned)rng_below(&sim->rng, sim->count);

	if (sim->resets && rng_one_in(&sim->rng, 6)) {
		host_copy(&sim->nodes[0]);
		return;
	}
	if (sim->failovers && rng_one_in(&sim->rng, 5)) {
		role_failover(sim);
		return;
	}
	if (sim->failovers && rng_one_in(&sim->rng, 3)) {
		role_tend(sim);
		return;
	}
	switch (rng_below(&sim->rng, 8)) {
	case 0:
	case 1: /* a link is cut, or mended */
		sim->cut[node->index][other] = !sim->cut[node->index][other];
		sim->cut[other][node->index] = sim->cut[node->index][other];
		sim_note(sim, "link %u-%u is %s", node->index, other,
			sim->cut[other][node->index] ? "cut" : "mended");
		return;
	case 2:
		if (node->up)
			host_kill(node, rng_one_in(&sim->rng, 2), 0);
		host_settle(node);
		return;
	case 3:
	case 4:
	case 5:
		if (node->up && !node->fuse)
			host_kill(node, !rng_one_in(&sim->rng, 3), 1 + rng_below(&sim->rng, 60));
		return;
	case 6:
		if (node->up)
			host_stop(node, rng_below(&sim->rng, 500));
		return;
	default:
		node->slow = rng_one_in(&sim->rng, 2) ? 0 : (unsigned)rng_below(&sim->rng, 300);
	}
}

/* Mostly the primary, but one that does not know that it is none takes writes too. */
static struct sim_node *run_writer(struct sim *sim)
{
	struct sim_node *node = &sim->nodes[rng_below(&sim->rng, sim->count)];

	return node->primary && rng_one_in(&sim->rng, 2) ? node : role_primary(sim);
}

static void run_event(struct sim *sim, const struct sim_event *event)
{
	struct sim_node *node = &sim->nodes[event->a < sim->count ? event->a : 0];

	switch (event->kind) {
	case SIM_START:
		if (!node->up && node->life == event->number)
			host_start(node);
		break;
	case SIM_WAKE:
		if (node->up && node->life == event->number)
			client_woken(node);
		break;
	case SIM_WRITE:
		for (unsigned n = sim_chance(sim, 10) ? 12 : 1; n > 0; n--)
			host_commit(run_writer(sim));
		sim_at(sim, rng_below(&sim->rng, 600), SIM_WRITE, 0, 0);
		break;
	case SIM_READ:
		run_read(sim);
		sim_at(sim, rng_below(&sim->rng, 400), SIM_READ, 0, 0);
		break;
	case SIM_CHAOS:
		if (sim->chaos)
			run_chaos(sim);
		else
			role_tend(sim);
		sim_at(sim, rng_below(&sim->rng, 1500), SIM_CHAOS, 0, 0);
		break;
	default:
		server_event(sim, event);
	}
}

/* Faults end: links mended, nobody dies, readers end, nothing more is written. */
static void run_calm(struct sim *sim)
{
	sim->chaos = false;
	memset(sim->cut, 0, sizeof(sim->cut));
	for (unsigned i = 0; i < sim->count; i++) {
		sim->nodes[i].fuse = 0;
		sim->nodes[i].slow = 0;
	}
	/* One that follows another history's follower would be content with it. */
	for (unsigned i = 0; i < sim->count; i++) {
		if (!sim->was_reset || !sim->nodes[i].up || !sim->nodes[i].follow)
			continue;
		if (follow_switch(sim->nodes[i].follow, "http://0:1", NULL))
			sim_fail(sim, "%s cannot switch to another source", sim->nodes[i].name);
		host_resume(&sim->nodes[i]);
	}
	sim_note(sim, "calm");
}

static bool run_converged(struct sim *sim)
{
	const struct sim_node *primary = role_primary(sim);

	if (!primary->up || host_fenced(role_primary(sim)))
		return false;
	for (unsigned i = 0; i < sim->count; i++)
		if (!sim->nodes[i].up || (!(sim->nodes[i].orphan && sim->was_reset) &&
						 !position_equal(&sim->nodes[i].seen, &primary->seen)))
			return false;
	return true;
}

static void run_finish(struct sim *sim)
{
	for (unsigned i = 0; i < sim->count; i++)
		sim_note(sim, "%s stands at %" PRIu64 "%s%s", sim->nodes[i].name, sim->nodes[i].seen.txid,
			sim->nodes[i].up ? "" : ", down", sim->nodes[i].orphan ? ", of another history" : "");
	sim_note(sim, "%s is primary", role_primary(sim)->name);
	if (!run_converged(sim))
		sim_fail(sim, "not converged %u s after the last fault", RUN_CALM_MS / 1000);
	for (unsigned i = 0; i < sim->count; i++) {
		check_opened(&sim->nodes[i]);
		check_lists(&sim->nodes[i], true);
	}
	if (!states_lead_to(sim->safe, role_primary(sim)->head))
		sim_fail(sim, "%" PRIu64 ", acknowledged by %u, is lost", sim->safe->position.txid,
			sim->safe_copies);
}

static void run_free(struct sim *sim)
{
	for (unsigned i = 0; i < sim->count; i++)
		host_fini(&sim->nodes[i]);
	for (unsigned i = 0; i < SIM_CONNS_MAX; i++)
		free(sim->conns[i].bytes);
	for (unsigned i = 0; i < SIM_RECORDS; i++)
		free(sim->records[i].bytes);
	states_free(&sim->states);
	env_mem_free(sim->copy);
	free(sim->events);
}

static void run_total(struct sim *to, const struct sim *sim)
{
	to->commits += sim->commits;
	to->frames += sim->frames;
	to->crashes += sim->crashes;
	to->power_losses += sim->power_losses;
	to->refused += sim->refused;
	to->forged += sim->forged;
	to->stale += sim->stale;
	to->damaged += sim->damaged;
	to->redirected += sim->redirected;
	to->checks += sim->checks;
	to->reads += sim->reads;
	to->promotions += sim->promotions;
	to->grafts += sim->grafts;
	to->wiped += sim->wiped;
	to->safe_states += sim->safe_states;
}

void sim_run(uint64_t seed, bool verbose, struct sim *totals)
{
	struct sim *sim = calloc(1, sizeof(*sim));
	uint64_t end;

	ENSURE(sim);
	sim_world = sim;
	sim->seed = seed;
	sim->verbose = verbose;
	rng_init(&sim->rng, seed);
	rng_init(&sim->system, ~seed);
	sim->next_item = 1;
	sim->resets = rng_one_in(&sim->rng, 6);
	sim->failovers = !sim->resets && rng_one_in(&sim->rng, 2);
	sim->epoch = 1;
	sim->count = 3 + (unsigned)rng_below(&sim->rng, SIM_NODES_MAX - 2);
	sim->safe_copies = sim->count > 3 ? 1 + (unsigned)rng_below(&sim->rng, 2) : 1;
	for (unsigned i = 0; i < sim->count; i++) {
		host_init(sim, i);
		host_start(&sim->nodes[i]);
	}
	sim->chaos = true;
	sim_at(sim, 0, SIM_WRITE, 0, 0);
	sim_at(sim, 1000, SIM_READ, 0, 0);
	sim_at(sim, 1000, SIM_CHAOS, 0, 0);
	end = RUN_CHAOS_MS / 2 + rng_below(&sim->rng, RUN_CHAOS_MS);
	while (sim->event_count && !(!sim->chaos && run_converged(sim))) {
		struct sim_event event = run_take(sim);

		sim->now = event.at;
		if (sim->chaos && sim->now >= end)
			run_calm(sim);
		if (!sim->chaos && (event.kind == SIM_WRITE || event.kind == SIM_READ))
			continue;
		if (sim->now > end + RUN_CALM_MS)
			break;
		run_event(sim, &event);
	}
	run_finish(sim);
	run_total(totals, sim);
	run_free(sim);
	free(sim);
	sim_world = NULL;
}
