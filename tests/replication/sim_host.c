/*
 * A node: opening, committing, dying at any call of the engine into its environment, and coming back.
 *
 * A crash takes the image that the disk has at that call, then lets every further call fail: what the engine still
 * does in the dead process reaches nobody.  When it has returned, the node's memory is thrown away and the image takes
 * the place of its disk.
 */
#include "sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <ensure.h>

#include "position.h"

#define HOST_DISK ((size_t)32 << 20)
#define HOST_PATH "/data"
#define HOST_WAITS 3u /* of an apply, before the readers it waits for end */

static struct env_mem_choice host_fate(void *arg, size_t index, const struct env_mem_unit *unit)
{
	struct rng *rng = arg;
	struct env_mem_choice choice = {.version = (unsigned)rng_below(rng, unit->versions)};

	(void)index;
	if (unit->tearable && rng_one_in(rng, 2)) {
		choice.other = (unsigned)rng_below(rng, unit->versions);
		choice.words = rng_next(rng);
	}
	return choice;
}

static struct env_mem_choice host_fate_extreme(void *arg, size_t index, const struct env_mem_unit *unit)
{
	(void)index;
	return (struct env_mem_choice){.version = *(bool *)arg ? unit->versions - 1 : 0};
}

/* What is left when it ends here. */
static void host_take_image(struct sim_node *node)
{
	struct sim *sim = node->sim;
	bool newest = rng_one_in(&sim->rng, 2);

	sim_note(sim, "%s dies (%s)", node->name, node->power ? "power" : "process");
	sim->crashes++;
	sim->power_losses += node->power;
	if (!node->power)
		node->image = env_mem_clone(node->m);
	else if (rng_one_in(&sim->rng, 4))
		node->image = env_mem_crash(node->m, host_fate_extreme, &newest);
	else
		node->image = env_mem_crash(node->m, host_fate, &sim->rng);
	env_mem_fail(node->m, ENV_MEM_ANY, 1, EIO, ENV_MEM_STICKY);
}

static void host_end_reader(struct sim_reader *reader)
{
	if (!reader->txn)
		return;
	bts_abort(reader->txn);
	bts_close(reader->own);
	memset(reader, 0, sizeof(*reader));
}

static void host_hook(void *arg, struct env_mem *m, const struct env_mem_event *event)
{
	struct sim_node *node = arg;

	(void)m;
	if (event->op == ENV_MEM_FAULT && strcmp(event->path, "apply.wait") == 0 &&
		++node->waits % HOST_WAITS == 0) {
		for (unsigned i = 0; i < SIM_READERS; i++)
			host_end_reader(&node->readers[i]);
		server_end_streams(node);
	}
	/* The slot is written and not yet flushed: a moment as short as it matters. */
	if (!node->image && event->op == ENV_MEM_FAULT && strcmp(event->path, "apply.slot_flush") == 0 &&
		sim_chance(node->sim, 30))
		host_kill(node, true, 0);
	if (!node->image && node->fuse && --node->fuse == 0)
		host_take_image(node);
}

struct bts *host_db(struct sim_node *node)
{
	return node->follow ? follow_db(node->follow) : node->db;
}

void host_init(struct sim *sim, unsigned index)
{
	struct sim_node *node = &sim->nodes[index];

	node->sim = sim;
	node->index = index;
	node->primary = index == 0;
	node->upstream = index ? (unsigned)rng_below(&sim->rng, index) : 0;
	if (!rng_one_in(&sim->rng, 3))
		node->upstream = 0;
	node->slow = rng_one_in(&sim->rng, 4) ? 200 : 0;
	snprintf(node->name, sizeof(node->name), "n%u", index);
	node->m = env_mem_new(HOST_DISK);
	env_mem_seed(node->m, rng_next(&sim->rng));
}

static void host_advance(struct sim_node *node)
{
	env_mem_advance(node->m, node->sim->now - node->clock);
	node->clock = node->sim->now;
}

static void host_event(void *arg, const struct repl_event *event)
{
	struct sim_node *node = arg;

	node->sim->refused += strcmp(event->name, "retrying") == 0;
	sim_note(node->sim, "%s %s: %s", node->name, event->name, event->text);
}

static struct bts_options host_options(struct sim_node *node)
{
	struct bts_options options;

	bts_options_init(&options);
	options.env = env_mem_env(node->m);
	options.map_bytes = HOST_DISK;
	options.page_size = SIM_PAGE;
	if (node->index % 2) /* frames bring pages home too, not idle time alone */
		options.pending_limit = 2u << 20;
	return options;
}

/* Equal to the eye: bookkeeping of commits in flight aside. */
static bool host_same(const struct sim_model *model, uint64_t content, const uint64_t names[MODEL_NAMES])
{
	return model->content == content && memcmp(model->names, names, sizeof(model->names)) == 0;
}

/* The primary's state after opening is the newest acknowledged, or what was being committed. */
static void host_adopt(struct sim_node *node)
{
	struct sim *sim = node->sim;
	uint64_t content = 0, names[MODEL_NAMES];
	struct bts_position now;
	struct bts_error error;
	struct sim_state *state;
	struct bts_txn *txn;

	if (bts_ship_position(node->db, &now, &error) || bts_begin(node->db, BTS_READ, &txn, &error))
		sim_fail(sim, "%s: %s", node->name, error.text);
	if (model_scan(txn, &content, &error) || model_scan_names(node->db, names, &error))
		sim_fail(sim, "%s: %s", node->name, error.text);
	bts_abort(txn);
	if (node->in_flight && !host_same(&node->model, content, names))
		node->model = node->flying;
	node->in_flight = false;
	if (!host_same(&node->model, content, names))
		sim_fail(sim, "%s: acknowledged commits are not there at %" PRIu64, node->name, now.txid);
	state = states_find(&sim->states, &now);
	if (!state)
		state = states_add(&sim->states, node->head, &now, &node->model);
	else if (!host_same(&state->model, content, names))
		sim_fail(sim, "%s: transaction %" PRIu64 " has changed", node->name, now.txid);
	node->head = state;
	if (!sim->safe)
		sim->safe = state;
}

static enum bts_err host_promote(struct sim_node *node, struct bts_error *error)
{
	enum bts_err err = bts_promote(node->db, &node->promise, NULL, error);

	/* It had died after it was durable. */
	return err == BTS_EXISTS ? BTS_OK : err;
}

/* false: its role is another one by now. */
static bool host_open_primary(struct sim_node *node)
{
	struct bts_options options = host_options(node);
	bool promoting = node->promise.epoch != 0;
	struct bts_error error;
	enum bts_err err;

	options.flags = promoting ? BTS_OPEN_FOLLOWER : 0;
	err = bts_open(HOST_PATH, &options, &node->db, &error);
	if (err && !node->image && promoting) { /* it is a writer's file by now */
		options.flags = 0;
		err = bts_open(HOST_PATH, &options, &node->db, &error);
	} else if (!err && promoting && !node->image) {
		err = host_promote(node, &error);
	}
	if (node->image)
		return true;
	if (err && node->moving && (err == BTS_FENCED || err == BTS_READ_ONLY || err == BTS_BUSY)) {
		bts_close(node->db);
		node->db = NULL;
		return false;
	}
	if (err)
		sim_fail(node->sim, "%s does not open: %s", node->name, error.text);
	host_adopt(node);
	if (promoting)
		role_promoted(node);
	return true;
}

/* Somebody nearer to the primary, so that there is no circle; sometimes a second one to turn to. */
static void host_sources(struct sim_node *node, char urls[64])
{
	struct sim *sim = node->sim;

	if (sim_chance(sim, 4) && !sim->promotions)
		snprintf(urls, 64, "http://%u:1,http://%u:1", node->upstream,
			(unsigned)rng_below(&sim->rng, node->index));
	else
		snprintf(urls, 64, "http://%u:1", node->upstream);
}

static void host_open_follower(struct sim_node *node)
{
	struct bts_options options = host_options(node);
	struct follow_options follow = {.path = HOST_PATH,
		.node = node->name,
		.open = &options,
		.zstd = rng_one_in(&node->sim->rng, 3),
		.graft_after = rng_one_in(&node->sim->rng, 2) ? 1 : 0,
		.events = {host_event, node}};
	char upstream[64];
	struct bts_error error;
	enum bts_err err;

	host_sources(node, upstream);
	follow.upstream = upstream;
	options.page_size = 0;
	node->sim->current = node->index;
	err = follow_start(&follow, &node->follow, &error);
	if (node->image)
		return;
	if (err)
		sim_fail(node->sim, "%s does not start: %s", node->name, error.text);
	node->thread = sim_thread_newest();
}

/* The file may be read by another process, which then serves it. */
static void host_open_source(struct sim_node *node)
{
	struct bts_options options = host_options(node);
	struct bts_error error;

	if (node->source_db || !host_db(node))
		return;
	node->source_db = host_db(node);
	node->source_own = rng_one_in(&node->sim->rng, 2);
	options.flags = BTS_OPEN_READ_ONLY;
	options.page_size = 0;
	if (node->source_own && bts_open(HOST_PATH, &options, &node->source_db, &error))
		sim_fail(node->sim, "%s: the source does not open: %s", node->name, error.text);
	if (source_init(&node->source, node->source_db, NULL, &error))
		sim_fail(node->sim, "%s: source: %s", node->name, error.text);
	node->source.name = node->name;
	node->source.records = records_new();
	node->pins = pages_pins_new(node->source_db);
	ENSURE(node->pins);
}

static void host_take_down(struct sim_node *node, bool power)
{
	for (unsigned i = 0; i < SIM_READERS; i++)
		host_end_reader(&node->readers[i]);
	server_died(node, power);
	pages_pins_free(node->pins);
	node->pins = NULL;
	records_free(node->source.records);
	node->source.records = NULL;
	if (node->source_own)
		bts_close(node->source_db);
	node->source_db = NULL;
	node->source_own = false;
	node->sim->current = node->index;
	follow_stop(node->follow);
	node->follow = NULL;
	node->thread = NULL;
	bts_close(node->db);
	node->db = NULL;
	node->up = false;
}

static void host_bury(struct sim_node *node)
{
	struct sim *sim = node->sim;

	host_take_down(node, node->power);
	env_mem_free(node->m);
	node->m = node->image;
	node->image = NULL;
	node->fuse = 0;
	sim_at(sim, rng_one_in(&sim->rng, 3) ? rng_below(&sim->rng, 5000) : rng_below(&sim->rng, 200),
		SIM_START, node->index, node->life);
}

void host_start(struct sim_node *node)
{
	struct sim *sim = node->sim;

	host_advance(node);
	node->life++;
	env_mem_set_hook(node->m, host_hook, node);
	node->orphan = false;
	if (node->index && sim->was_reset)
		node->upstream = 0;
	else if (sim->promotions && (node->upstream == node->index || !sim_chance(sim, 2)))
		node->upstream = sim->legitimate;
	else if (node->index && !sim->promotions && sim_chance(sim, 4)) /* never in a circle */
		node->upstream = (unsigned)rng_below(&sim->rng, node->index);
	if (sim_chance(sim, 6)) /* it dies while it opens, or soon after */
		host_kill(node, rng_one_in(&sim->rng, 2), 1 + rng_below(&sim->rng, 40));
	sim_note(sim, "%s starts", node->name);
	if (!node->primary || !host_open_primary(node)) {
		if (node->primary)
			node->upstream = sim->legitimate;
		node->primary = false;
		node->promise.epoch = 0;
		host_open_follower(node);
	}
	node->up = true;
	if (!node->image)
		check_opened(node);
	host_settle(node);
	if (node->up && node->follow)
		host_resume(node);
}

bool host_stop(struct sim_node *node, uint64_t start_ms)
{
	bool died;

	sim_note(node->sim, "%s stops", node->name);
	host_take_down(node, false);
	died = node->image != NULL;
	if (died)
		host_bury(node);
	else
		sim_at(node->sim, start_ms, SIM_START, node->index, node->life);
	node->fuse = 0;
	return !died;
}

void host_fini(struct sim_node *node)
{
	host_take_down(node, false);
	env_mem_free(node->image);
	env_mem_free(node->m);
}

/* A follower stops for ever only where it must. */
static void host_judge_stop(struct sim_node *node)
{
	struct sim *sim = node->sim;
	bool ours = states_lead_to(states_find(&sim->states, &node->seen), role_primary(sim)->head);
	char primary[16];
	struct follow_status status;

	follow_status(node->follow, &status);
	if (strcmp(status.state, "stopped") != 0) {
		node->orphan = false;
		return;
	}
	if (!ours && strstr(status.error, "refuses this file for ever")) {
		node->orphan = true;
		return;
	}
	/* A source that is itself behind may have less; somebody starts the follower again.  The primary never has. */
	snprintf(primary, sizeof(primary), "http://%u:1", sim->legitimate);
	if (strcmp(status.upstream, primary) == 0 || (!sim->promotions && !strstr(status.error, ": ahead ")))
		sim_fail(sim, "%s has stopped following: %s", node->name, status.error);
	host_stop(node, 500 + rng_below(&sim->rng, 2000));
}

void host_settle(struct sim_node *node)
{
	if (!node->up)
		return;
	if (node->image) {
		host_bury(node);
		return;
	}
	host_open_source(node);
	if (node->image) {
		host_bury(node);
		return;
	}
	check_position(node);
	if (node->pins)
		pages_pins_tick(node->pins, node->sim->now);
	if (node->follow)
		host_judge_stop(node);
}

void host_kill(struct sim_node *node, bool power, uint64_t calls)
{
	node->power = power;
	node->fuse = calls;
	if (calls == 0 && !node->image)
		host_take_image(node);
}

void host_resume(struct sim_node *node)
{
	host_advance(node);
	node->sim->current = node->index;
	if (node->thread && !sim_thread_ended(node->thread))
		sim_thread_resume(node->thread);
	host_settle(node);
}

static enum bts_err host_change(struct sim_node *node, struct bts_error *error)
{
	struct sim *sim = node->sim;
	struct bts_txn *txn;
	enum bts_err err = bts_begin(node->db, BTS_WRITE, &txn, error);

	if (err)
		return err;
	err = model_change(&node->flying, txn, &sim->rng, &sim->next_item, error);
	if (err) {
		bts_abort(txn);
		return err;
	}
	model_seal(&node->flying);
	node->in_flight = true;
	return bts_commit(txn, error);
}

static enum bts_err host_compact(struct sim_node *node, struct bts_error *error)
{
	struct bts_compact_info info = {.size = sizeof(info)};

	node->in_flight = true;
	return bts_compact_step(node->db, 1 + rng_below(&node->sim->rng, 60), &info, error);
}

bool host_fenced(struct sim_node *node)
{
	struct bts_role role = {.size = sizeof(role)};

	return !node->db || bts_role(node->db, &role, NULL) || role.role != BTS_ROLE_PRIMARY;
}

/* The commit was made: a new state upon the head. */
static void host_committed(struct sim_node *node)
{
	struct sim *sim = node->sim;
	struct bts_position now;
	struct bts_error error;

	node->model = node->flying;
	node->in_flight = false;
	sim->commits++;
	for (unsigned l = 0; l < MODEL_LISTS && !sim->resets && !sim->failovers; l++) {
		const char *wrong = history_acknowledge(
			&sim->history, l, node->model.lists[l], node->model.list_counts[l]);

		if (wrong)
			sim_fail(sim, "%s: list %u: %s", node->name, l, wrong);
	}
	if (bts_ship_position(node->db, &now, &error))
		sim_fail(sim, "%s: %s", node->name, error.text);
	if (!position_equal(&node->head->position, &now))
		node->head = states_add(&sim->states, node->head, &now, &node->model);
}

void host_commit(struct sim_node *node)
{
	struct sim *sim = node->sim;
	struct bts_error error;
	enum bts_err err;

	if (!node->up || !node->db || !node->primary || host_fenced(node))
		return;
	host_advance(node);
	node->flying = node->model;
	err = rng_one_in(&sim->rng, 15) ? host_compact(node, &error) : host_change(node, &error);
	if (!node->image && err)
		sim_fail(sim, "%s: commit: %s", node->name, error.text);
	if (!node->image) {
		host_committed(node);
	} else if (!err) { /* it was told to its caller before the machine went down */
		node->in_flight = false;
		node->model = node->flying;
	}
	host_settle(node);
}

void host_move(struct sim_node *node)
{
	if (!node->up)
		return;
	host_take_down(node, false);
	if (node->image)
		host_bury(node);
	else
		host_start(node);
}

void host_wipe(struct sim_node *node)
{
	if (!node->up)
		return;
	sim_note(node->sim, "%s begins anew", node->name);
	host_take_down(node, false);
	env_mem_free(node->image);
	env_mem_free(node->m);
	node->image = NULL;
	node->m = env_mem_new(HOST_DISK);
	node->clock = 0;
	env_mem_seed(node->m, rng_next(&node->sim->rng));
	memset(&node->seen, 0, sizeof(node->seen));
	memset(&node->claimed, 0, sizeof(node->claimed));
	node->sim->wiped++;
	host_start(node);
}

void host_copy(struct sim_node *node)
{
	struct sim *sim = node->sim;

	if (!node->up || sim->was_reset)
		return;
	if (!host_stop(node, 10))
		return; /* it died while it closed */
	if (!sim->copy) {
		sim->copy = env_mem_clone(node->m);
		sim->copied = node->head;
		return;
	}
	sim_note(sim, "%s is put back to %" PRIu64, node->name, sim->copied->position.txid);
	env_mem_free(node->m);
	node->m = sim->copy;
	node->clock = sim->now;
	sim->copy = NULL;
	sim->was_reset = true;
	node->head = sim->copied;
	node->model = node->head->model;
	node->seen = node->head->position;
	for (unsigned i = 1; i < sim->count; i++)
		if (sim->nodes[i].up)
			host_stop(&sim->nodes[i], rng_below(&sim->rng, 100));
}
