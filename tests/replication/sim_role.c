/*
 * Who is primary: failover by the rule of R8, with nothing but the engine's doors, and what becomes of those who were
 * left behind.
 *
 * A candidate asks at least N - K of the N members, itself included, to promise a new epoch durably and to say where they
 * stand after that; only who stands furthest is promoted.  K is how many followers must have acknowledged a commit for it to
 * count as safe.  The old primary is told when it can be reached; until then it goes on, alone, and what it commits is
 * not safe.  Any step may be the last of any node.
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <ensure.h>

#include "position.h"

struct sim_node *role_primary(struct sim *sim)
{
	return &sim->nodes[sim->legitimate];
}

/* A state that K followers have said to have is never lost. */
static void role_safe(struct sim *sim, struct sim_state *state)
{
	struct sim_state *head = role_primary(sim)->head;

	if (!sim->failovers || states_lead_to(state, sim->safe))
		return;
	if (!states_lead_to(sim->safe, state))
		sim_fail(sim,
			"%" PRIu64 " and %" PRIu64 " were both acknowledged by %u, and exclude each other",
			state->position.txid, sim->safe->position.txid, sim->safe_copies);
	if (!states_lead_to(state, head))
		sim_fail(sim, "%" PRIu64 " was acknowledged by %u, and another history is the primary's",
			state->position.txid, sim->safe_copies);
	sim->safe = state;
	sim->safe_states++;
}

void role_acknowledged(struct sim_node *node)
{
	struct bts_ack acks[64];
	size_t count = bts_ack_list(node->source_db, acks, 64);
	struct sim_state *state = node->head;

	for (; node->primary && state; state = state->parent) {
		unsigned copies = 0;

		for (size_t i = 0; i < count && i < 64; i++)
			copies += acks[i].txid >= state->position.txid &&
				  acks[i].epoch == state->position.epoch &&
				  acks[i].epoch_random == state->position.epoch_random;
		if (copies >= node->sim->safe_copies)
			break;
	}
	if (node->primary && state)
		role_safe(node->sim, state);
}

/* false: it is gone, or has promised something else. */
static bool role_promise(struct sim_node *node, uint32_t epoch, uint64_t random)
{
	struct bts_error error;
	enum bts_err err;

	if (!node->up || node->image || !host_db(node))
		return false;
	node->moving = true;
	err = bts_promise(host_db(node), epoch, random, &error);
	sim_note(node->sim, "%s promises epoch %" PRIu32 ": %s", node->name, epoch, err ? error.text : "yes");
	host_settle(node);
	return !err && node->up;
}

static bool role_further(const struct bts_position *a, const struct bts_position *b)
{
	return a->epoch > b->epoch || (a->epoch == b->epoch && a->txid > b->txid);
}

/* Asks members in a random order until there are enough; the one that stands furthest, or NULL. */
static struct sim_node *role_elect(struct sim *sim, uint32_t epoch, uint64_t random)
{
	unsigned need = sim->count - sim->safe_copies, promised = 0,
		 first = (unsigned)rng_below(&sim->rng, sim->count);
	struct sim_node *best = NULL;

	for (unsigned i = 0; i < sim->count && (promised < need || rng_one_in(&sim->rng, 2)); i++) {
		struct sim_node *node = &sim->nodes[(first + i) % sim->count];

		if (!role_promise(node, epoch, random))
			continue;
		promised++;
		if (!best || role_further(&node->seen, &best->seen))
			best = node;
	}
	return promised >= need && best->up && best->seen.txid ? best : NULL;
}

static void role_follow(struct sim_node *node, unsigned upstream)
{
	char url[32];

	node->upstream = upstream;
	if (!node->up || !node->follow)
		return;
	snprintf(url, sizeof(url), "http://%u:1", upstream);
	if (follow_switch(node->follow, url, NULL))
		sim_fail(node->sim, "%s cannot switch to another source", node->name);
	host_resume(node);
}

void role_failover(struct sim *sim)
{
	uint64_t random = rng_next(&sim->rng) | 1;
	struct sim_node *best;

	/* Whoever has no file can promise nothing, and from those who have promised nobody gets one. */
	for (unsigned i = 0; i < sim->count && sim->chaos; i++)
		if (!sim->nodes[i].seen.txid)
			return;
	sim->epoch++;
	best = role_elect(sim, sim->epoch, random);
	if (!best)
		return;
	sim_note(sim, "%s is elected", best->name);
	best->promise = (struct bts_promotion){
		.size = sizeof(best->promise), .epoch = sim->epoch, .epoch_random = random};
	if (!best->primary)
		best->head = states_find(&sim->states, &best->seen);
	ENSURE(best->head);
	best->model = best->head->model;
	best->primary = true;
	host_move(best);
}

/* Its file says that it is: the election counts. */
void role_promoted(struct sim_node *node)
{
	struct sim *sim = node->sim;

	node->promise.epoch = 0;
	if (node->head->position.epoch < role_primary(sim)->head->position.epoch)
		return; /* too late: others were asked since, and it is one more that does not know */
	sim->legitimate = node->index;
	sim->promotions++;
	sim_note(sim, "%s is primary of epoch %" PRIu32, node->name, node->head->position.epoch);
	if (!states_lead_to(sim->safe, node->head))
		sim_fail(sim, "%" PRIu64 ", acknowledged by %u, is lost with the promotion of %s",
			sim->safe->position.txid, sim->safe_copies, node->name);
	for (unsigned i = 0; i < sim->count; i++)
		if (i != node->index && !sim_chance(sim, 2)) /* some are not told yet */
			role_follow(&sim->nodes[i], node->index);
}

/* What a former primary needs to be told. */
static void role_demote(struct sim_node *node)
{
	struct bts_error error;
	enum bts_err err;

	node->moving = true;
	err = bts_demote(node->db, NULL, &error);
	if (!node->image && err)
		sim_fail(node->sim, "%s is not demoted: %s", node->name, error.text);
	host_settle(node);
	if (!node->up)
		return;
	node->primary = false;
	node->upstream = node->sim->legitimate;
	host_move(node);
}

static enum bts_err role_fetch(struct bts_apply *apply, struct bts_pages *pages, struct bts_error *error)
{
	struct bts_page_id ids[64];
	struct bts_slice bytes;
	size_t count;
	enum bts_err err;

	while ((err = bts_apply_missing(apply, ids, 64, &count, error)) == BTS_OK && count > 0) {
		for (size_t i = 0; !err && i < count; i++) {
			err = bts_pages_read(pages, &ids[i], &bytes, error);
			if (!err)
				err = bts_apply_piece(apply, &ids[i], 0, bytes, error);
		}
		if (err)
			return err;
	}
	return err;
}

static enum bts_err role_graft(
	struct sim_node *node, struct bts *from, const struct bts_position *fork, struct bts_error *error)
{
	struct bts_apply *apply = NULL;
	struct bts_pages *pages;
	enum bts_err err = bts_pages_open(from, &pages, error);

	if (err)
		return err;
	err = bts_apply_begin_graft(
		host_db(node), fork, bts_pages_position(pages), bts_pages_record(pages), &apply, error);
	if (!err) {
		err = role_fetch(apply, pages, error);
		if (err)
			bts_apply_abort(apply);
		else
			err = bts_apply_finish(apply, bts_pages_record(pages), error);
	}
	bts_pages_close(pages);
	return err;
}

/* The newest commit that both have, as the two files tell; txid 0: none is known. */
static struct bts_position role_fork(struct sim_node *node, struct bts *from)
{
	struct bts_segment segments[256];
	struct bts_position fork = {.txid = 0};
	enum bts_standing standing = BTS_STANDING_DIVERGED;
	struct bts_error error;
	size_t count;
	enum bts_err err = bts_ship_segments(host_db(node), segments, 256, &count, &error);

	if (!err)
		err = bts_ship_fork(from, &node->seen, segments, count < 256 ? count : 256, &fork, &error);
	if (!err)
		err = bts_ship_standing(host_db(node), &fork, &standing, &error);
	if (!err && standing == BTS_STANDING_KNOWN)
		return fork;
	memset(&fork, 0, sizeof(fork));
	return fork;
}

static void role_rejoin(struct sim_node *node)
{
	struct sim *sim = node->sim;
	struct sim_node *primary = role_primary(sim);
	struct sim_state *before = states_find(&sim->states, &node->seen);
	struct bts_position fork = role_fork(node, primary->db);
	struct bts_error error;
	enum bts_err err;

	if (fork.txid) {
		struct sim_state *state = states_find(&sim->states, &fork);

		if (!state || !states_lead_to(state, before) || !states_lead_to(state, primary->head))
			sim_fail(sim, "%s and %s do not have %" PRIu64 " in common", node->name,
				primary->name, fork.txid);
	}
	memcpy(fork.database, node->seen.database, sizeof(fork.database));
	if (node->seen.txid >=
		primary->seen
			.txid) { /* numbers only grow: it begins anew, once nobody else would take it in */
		if (!sim->chaos)
			host_wipe(node);
		return;
	}
	err = role_graft(node, primary->db, &fork, &error);
	sim_note(sim, "%s goes back to %" PRIu64 ": %s", node->name, fork.txid, err ? error.text : "done");
	if (err ==
		BTS_FENCED) /* it has promised to an election that came to nothing: the next one frees it */
		return;
	if (err && !node->image)
		sim_fail(sim, "%s: rewind to %" PRIu64 ": %s", node->name, fork.txid, error.text);
	sim->grafts += !err;
	node->orphan = false;
	if (!node->image)
		check_position(node);
	host_move(node);
}

/* Nobody writes, or somebody waits for a primary of an epoch that he has promised. */
static bool role_wanting(struct sim *sim)
{
	struct sim_node *primary = role_primary(sim);
	struct bts_role role = {.size = sizeof(role)};

	if (!primary->up || primary->image)
		return false;
	if (host_fenced(primary))
		return true;
	for (unsigned i = 0; i < sim->count; i++)
		if (sim->nodes[i].up && host_db(&sim->nodes[i]) &&
			!bts_role(host_db(&sim->nodes[i]), &role, NULL) &&
			role.promised > primary->seen.epoch)
			return true;
	return false;
}

void role_tend(struct sim *sim)
{
	struct sim_node *primary = role_primary(sim);

	if (!sim->failovers)
		return;
	if (!sim->chaos && role_wanting(sim))
		role_failover(sim);
	primary = role_primary(sim);
	if (!primary->up || primary->image || host_fenced(primary))
		return;
	for (unsigned i = 0; i < sim->count; i++) {
		struct sim_node *node = &sim->nodes[i];

		if (!node->up || node->image || i == sim->legitimate || !primary->up)
			continue;
		if (node->primary)
			role_demote(node);
		else if (node->orphan && host_db(node))
			role_rejoin(node);
		else if (node->upstream != sim->legitimate && !sim_chance(sim, 2))
			role_follow(node, sim->legitimate);
	}
}
