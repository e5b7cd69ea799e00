/* What must hold of a node's state: it is one that the primary had, byte for byte, and it never goes back. */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "position.h"

static struct bts_position check_where(struct sim_node *node)
{
	struct bts_position position;
	struct bts_error error;
	char text[POSITION_TEXT_SIZE];

	if (bts_ship_position(host_db(node), &position, &error))
		sim_fail(node->sim, "%s: no position: %s", node->name, error.text);
	position_text(&position, text);
	if (!position_equal(&position, &node->seen))
		sim_note(node->sim, "%s at %s", node->name, text);
	return position;
}

static uint64_t check_content(struct sim_node *node, struct bts *db)
{
	struct bts_error error;
	struct bts_txn *txn;
	uint64_t content = 0;

	if (bts_begin(db, BTS_READ, &txn, &error))
		sim_fail(node->sim, "%s: cannot read: %s", node->name, error.text);
	if (model_scan(txn, &content, &error))
		sim_fail(
			node->sim, "%s: reading at %" PRIu64 ": %s", node->name, bts_txn_id(txn), error.text);
	bts_abort(txn);
	return content;
}

static void check_names(struct sim_node *node, struct bts *db, const struct sim_model *model)
{
	uint64_t names[MODEL_NAMES];
	struct bts_error error;

	if (model_scan_names(db, names, &error))
		sim_fail(node->sim, "%s: named snapshots: %s", node->name, error.text);
	for (unsigned i = 0; i < MODEL_NAMES; i++)
		if (names[i] != model->names[i])
			sim_fail(node->sim, "%s: named snapshot %u is not what it was when made", node->name,
				i);
}

static void check_pages(struct sim_node *node, struct sim_state *state)
{
	struct bts_error error;
	uint64_t pages = 0;

	if (model_scan_pages(host_db(node), &pages, &error))
		sim_fail(node->sim, "%s: walk: %s", node->name, error.text);
	if (state->has_pages && state->pages != pages)
		sim_fail(node->sim, "%s: live pages at %" PRIu64 " differ from the primary's", node->name,
			state->position.txid);
	state->pages = pages;
	state->has_pages = true;
}

void check_pages_known(struct sim_node *node)
{
	struct bts_position now = check_where(node);
	struct sim_state *state = states_find(&node->sim->states, &now);

	if (!state)
		sim_fail(node->sim, "%s: ships a state that nobody committed", node->name);
	if (!state->has_pages)
		check_pages(node, state);
}

static void check_same(struct sim_node *node, const struct bts_position *now, bool all)
{
	struct sim *sim = node->sim;
	struct sim_state *state;
	char text[POSITION_TEXT_SIZE];

	position_text(now, text);
	state = states_find(&sim->states, now);
	if (!state)
		sim_fail(sim, "%s: at %s, which nobody committed", node->name, text);
	if (check_content(node, host_db(node)) != state->model.content)
		sim_fail(sim, "%s: contents at %s are not the primary's", node->name, text);
	if (all || rng_one_in(&sim->rng, 4))
		check_names(node, host_db(node), &state->model);
	if (state->has_pages || all)
		check_pages(node, state);
	sim->checks++;
}

void check_position(struct sim_node *node)
{
	struct bts_position now;

	if (!host_db(node))
		return;
	now = check_where(node);
	if (position_equal(&now, &node->seen))
		return;
	if (now.txid < node->seen.txid || now.epoch < node->seen.epoch)
		sim_fail(node->sim, "%s: went back from %" PRIu64 " to %" PRIu64, node->name, node->seen.txid,
			now.txid);
	if (now.txid)
		check_same(node, &now, false);
	node->seen = now;
	node->sim->frames += !node->primary;
	server_news(node);
}

/* Opened after a crash or a stop: nothing that it had said to have is missing. */
void check_opened(struct sim_node *node)
{
	struct bts_position now;
	struct sim *sim = node->sim;

	if (!host_db(node))
		return;
	now = check_where(node);
	if (now.txid < node->claimed.txid)
		sim_fail(sim, "%s: opened at %" PRIu64 ", but had acknowledged %" PRIu64, node->name,
			now.txid, node->claimed.txid);
	if (now.txid < node->seen.txid)
		sim_fail(sim, "%s: opened at %" PRIu64 ", but had been at %" PRIu64, node->name, now.txid,
			node->seen.txid);
	if (now.txid && !node->primary)
		check_same(node, &now, true);
	node->seen = now;
	check_clean(node);
}

static void check_report(void *arg, bts_pgno page, const char *text)
{
	struct sim_node *node = arg;

	printf("%s: page %" PRIu64 ": %s\n", node->name, page, text);
}

void check_clean(struct sim_node *node)
{
	struct bts_check_options options = {.report = check_report, .arg = node};
	struct bts_error error = {.text = ""};

	if (host_db(node) && bts_check(host_db(node), &options, &error))
		sim_fail(node->sim, "%s: check: %s", node->name, error.text);
}

void check_reader(struct sim_node *node, struct sim_reader *reader)
{
	struct bts_error error;
	uint64_t content = 0;

	if (model_scan(reader->txn, &content, &error))
		sim_fail(node->sim, "%s: a reader of %" PRIu64 ": %s", node->name, bts_txn_id(reader->txn),
			error.text);
	if (content != reader->content)
		sim_fail(node->sim, "%s: what a reader of %" PRIu64 " sees has changed", node->name,
			bts_txn_id(reader->txn));
	node->sim->reads++;
}

static bool check_has_number(const struct sim_state *state, bts_txid txid)
{
	while (state && state->position.txid != txid)
		state = state->parent;
	return state != NULL;
}

/* No source believes a follower to have more than that one claimed, or anything that is not its own history. */
void check_acks(struct sim_node *node)
{
	struct bts_ack acks[64];
	size_t count = bts_ack_list(node->source_db, acks, 64);
	struct sim *sim = node->sim;
	const struct sim_state *here = states_find(&sim->states, &node->seen);

	for (size_t i = 0; i < count && i < 64; i++) {
		if (!check_has_number(here, acks[i].txid))
			sim_fail(sim, "%s: took an acknowledgement of %" PRIu64 ", which it never had",
				node->name, acks[i].txid);
		for (unsigned n = 0; n < sim->count; n++)
			if (strcmp(acks[i].node, sim->nodes[n].name) == 0 &&
				acks[i].txid > sim->nodes[n].told)
				sim_fail(sim, "%s: believes that %s has %" PRIu64, node->name, acks[i].node,
					acks[i].txid);
	}
}

void check_lists(struct sim_node *node, bool last)
{
	struct sim *sim = node->sim;
	uint32_t items[MODEL_LIST_MAX], count;
	struct bts_error error;
	struct bts_txn *txn;

	if (sim->resets || sim->failovers)
		return;
	if (bts_begin(host_db(node), BTS_READ, &txn, &error))
		sim_fail(sim, "%s: cannot read: %s", node->name, error.text);
	for (unsigned l = 0; l < MODEL_LISTS; l++) {
		const char *wrong;

		if (model_read_list(txn, l, items, &count, &error))
			sim_fail(sim, "%s: list %u: %s", node->name, l, error.text);
		wrong = last ? history_last(&sim->history, node->index, l, items, count)
			     : history_read(&sim->history, node->index, l, items, count);
		if (wrong)
			sim_fail(sim, "%s: list %u: %s", node->name, l, wrong);
	}
	bts_abort(txn);
}
