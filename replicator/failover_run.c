/* Automatic failover of a node: see failover_run.h. */
#include "failover_run_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "acks.h"
#include "fail.h"

#define RUN_CALL_MOST_MS 2000 /* of an answer of one endpoint */
#define RUN_CALL_LEAST_MS 300
#define RUN_PAUSE_TTLS 6      /* how long others come first after an operator's demotion */
#define RUN_FOLLOWERS_MS 2000 /* that a fenced primary waits for its followers, at most */
#define RUN_LOOK_MS 1000      /* between looks at the file's health */
#define RUN_STUCK_MS 30000    /* that a commit may take before the lead is left to others, at least */
#define RUN_STUCK_TTLS 3
#define RUN_LEAVE_MS 5000 /* that a stop waits for etcd, at most */

uint64_t failover_run_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* lock held; CLOCK_MONOTONIC stands still in a suspend, so this may be later by that: what is due is looked at by the other clock. */
static void run_wait(struct failover_run *run, uint64_t ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(ms / 1000);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&run->changed, &run->lock, &until);
}

/*
 * lock held, which is let go meanwhile.  Renewals would go on for ever where nobody can write: behind a failed disk, or one who stands
 * still while he commits.  Where the look itself hangs there are no renewals either.
 */
static void run_look(struct failover_run *run)
{
	struct bts *db = node_db(run->options.node);
	struct bts_stat stat = {.size = sizeof(stat)};
	uint64_t now = failover_run_clock_ms(), patience = RUN_STUCK_TTLS * run->options.ttl_ms;
	enum bts_err err;

	if (!db || run->broken || now < run->look_due_ms)
		return;
	run->look_due_ms = now + RUN_LOOK_MS;
	pthread_mutex_unlock(&run->lock);
	err = bts_stat(db, &stat, NULL);
	pthread_mutex_lock(&run->lock);
	run->broken = err ? err == BTS_POISONED : stat.poisoned;
	if (run->broken)
		repl_emit(&run->options.events, REPL_ERROR, "file-failed",
			"a write or flush failed: others lead until this node is started again");
	if (err || stat.stuck_ms < (patience > RUN_STUCK_MS ? patience : RUN_STUCK_MS) ||
		(run->machine.state != FAILOVER_HOLDER && run->machine.state != FAILOVER_LEADER))
		return;
	repl_emit(&run->options.events, REPL_ERROR, "writer-stuck",
		"process %" PRIu32 " has kept all others from writing for %" PRIu64
		" ms: the lead is left to others",
		stat.stuck_pid, stat.stuck_ms);
	failover_pause(&run->machine, failover_run_clock_ms() + RUN_PAUSE_TTLS * run->options.ttl_ms);
}

static enum failover_role run_role(struct failover_run *run)
{
	struct node *node = run->options.node;
	struct bts_role now;

	if (run->broken)
		return FAILOVER_BROKEN;
	if (!node_follows(node))
		node_look(node);
	if (!node_follows(node))
		return FAILOVER_PRIMARY;
	if (!node_db(node) || !node_txid(node))
		return FAILOVER_EMPTY;
	return !node_info(node, &now, NULL) && now.promised ? FAILOVER_PROMISED : FAILOVER_FOLLOWER;
}

/* ---- changes of the role, in a thread of their own ---- */

/* A fenced primary's last commits reach others before the key is free: what is asked to survive is on as many nodes. */
static void run_await_followers(struct failover_run *run, const struct bts_position *last)
{
	uint64_t until = failover_run_clock_ms() + RUN_FOLLOWERS_MS;
	struct bts *db = node_db(run->options.node);
	struct bts_ack acks[ACKS_MAX];
	uint32_t seen = 0;
	unsigned have;

	do {
		size_t count = acks_followers(db, acks, ACKS_MAX);

		have = 0;
		for (size_t i = 0; i < count; i++)
			have += acks[i].epoch == last->epoch && acks[i].epoch_random == last->epoch_random &&
				acks[i].txid >= last->txid;
		if (have < run->options.survive && bts_ack_wait(db, &seen, 50) == BTS_IO)
			return;
	} while (have < run->options.survive && failover_run_clock_ms() < until);
}

static enum failover_outcome run_demote(struct failover_run *run, bool leaving, struct bts_error *error)
{
	struct bts_role now = {.size = sizeof(now)};

	if (node_demote(run->options.node, &now, error))
		return FAILOVER_FAILED;
	if (leaving)
		run_await_followers(run, &now.position);
	return FAILOVER_CHANGED;
}

static enum failover_outcome run_elect(struct failover_run *run, struct bts_error *error)
{
	const struct node_promotion wanted = {.members = run->members, .survive = run->options.survive};
	struct bts_role now = {.size = sizeof(now)};
	const char *code = "";
	char why[ELECT_WHY_SIZE] = "";
	enum bts_err err = node_promote(run->options.node, &wanted, &now, &code, why, error);

	pthread_mutex_lock(&run->lock);
	run->verdict = err ? err == BTS_FENCED ? "promised" : "unavailable" : code;
	snprintf(run->why, sizeof(run->why), "%s", err ? error->text : why);
	pthread_mutex_unlock(&run->lock);
	if (err || !*code)
		return err ? FAILOVER_FAILED : FAILOVER_CHANGED;
	return !strcmp(code, "ahead")	   ? FAILOVER_AHEAD
	       : !strcmp(code, "diverged") ? FAILOVER_DIVERGED
					   : FAILOVER_FAILED;
}

static enum failover_outcome run_claim(struct failover_run *run, struct bts_error *error)
{
	repl_emit(&run->options.events, REPL_WARN, "claim",
		"a later epoch than the primary's was promised here, whose frames are refused: the members "
		"are "
		"asked for that one");
	return node_claim(run->options.node, run->members, error) ? FAILOVER_FAILED : FAILOVER_CHANGED;
}

static enum failover_outcome run_change(
	struct failover_run *run, enum failover_change change, const struct failover_key *key, bool leaving)
{
	static const char *const names[] = {
		"", "demote-failed", "election-failed", "follow-failed", "claim-failed"};
	enum failover_outcome outcome;
	struct bts_error error = {0};

	if (change == FAILOVER_DEMOTE)
		outcome = run_demote(run, leaving, &error);
	else if (change == FAILOVER_ELECT)
		outcome = run_elect(run, &error);
	else if (change == FAILOVER_CLAIM)
		outcome = run_claim(run, &error);
	else
		outcome = node_follow(run->options.node, key->source, key->url, &error) ? FAILOVER_FAILED
											: FAILOVER_CHANGED;
	if (outcome == FAILOVER_FAILED && error.code && error.code != BTS_BUSY && error.code != BTS_TIMEOUT)
		repl_emit(&run->options.events, REPL_WARN, names[change], "%s", error.text);
	return outcome;
}

static void *run_worker(void *arg)
{
	struct failover_run *run = arg;

	pthread_mutex_lock(&run->lock);
	while (!run->ended) {
		enum failover_change change = run->change;
		enum failover_outcome outcome;
		struct failover_key key = run->machine.key;
		bool leaving = run->machine.state == FAILOVER_LEAVING &&
			       failover_run_clock_ms() < run->machine.until_ms;

		if (!change) {
			pthread_cond_wait(&run->changed, &run->lock);
			continue;
		}
		run->change = FAILOVER_NO_CHANGE;
		pthread_mutex_unlock(&run->lock);
		outcome = run_change(run, change, &key, leaving);
		pthread_mutex_lock(&run->lock);
		failover_changed(&run->machine, outcome, run_role(run), failover_run_clock_ms());
		if (change == FAILOVER_ELECT)
			run->rounds++;
		pthread_cond_broadcast(&run->changed);
	}
	pthread_mutex_unlock(&run->lock);
	return NULL;
}

/* ---- the machine and etcd ---- */

/* lock held */
static void run_tell(struct failover_run *run, enum failover_state was)
{
	const struct failover *f = &run->machine;
	uint64_t now = failover_run_clock_ms();

	if (f->state == was)
		return;
	if (f->state == FAILOVER_LEADER)
		repl_emit(&run->options.events, REPL_INFO, "failover-leader",
			"holds %s, for %" PRIu64 " ms yet", run->place.key,
			f->until_ms > now ? f->until_ms - now : 0);
	else if (was == FAILOVER_LEADER)
		repl_emit(&run->options.events, REPL_WARN, "failover-left", "%s: the lease %s",
			run->place.key, f->until_ms > now ? "is given up" : "has run out");
	else
		repl_emit(&run->options.events, REPL_INFO, "failover-state", "%s",
			failover_state_word(f->state));
}

/* lock held */
static void run_set_deadline(struct failover_run *run, uint64_t deadline_ms)
{
	struct bts_error error = {0};

	if (deadline_ms == run->deadline_ms)
		return;
	if (!node_set_deadline(run->options.node, deadline_ms, &error))
		run->deadline_ms = deadline_ms;
	else if (error.code != BTS_NOT_FOUND)
		repl_emit(&run->options.events, REPL_ERROR, "deadline-not-set", "%s", error.text);
}

/* lock held, which is let go meanwhile */
static void run_call(struct failover_run *run, enum failover_call call)
{
	const struct etcd_request request = {
		.call = call, .lease = run->machine.lease, .ttl_ms = run->options.ttl_ms, .own = &run->own};
	enum failover_state was = run->machine.state;
	struct failover_reply reply;
	struct bts_error error = {0};
	bool silent;

	pthread_mutex_unlock(&run->lock);
	etcd_ask(run->etcd, &request, &reply, &error);
	pthread_mutex_lock(&run->lock);
	failover_answered(&run->machine, &reply, failover_run_clock_ms());
	run_tell(run, was);
	silent = reply.result == FAILOVER_UNKNOWN;
	if (silent != run->silent)
		repl_emit(&run->options.events, silent ? REPL_WARN : REPL_INFO,
			silent ? "etcd-silent" : "etcd-answers", "%s", error.text);
	run->silent = silent;
	run->silences += silent;
	pthread_cond_broadcast(&run->changed);
}

static void *run_main(void *arg)
{
	struct failover_run *run = arg;

	pthread_mutex_lock(&run->lock);
	while (!run->ended) {
		enum failover_state was;
		struct failover_do todo;
		uint64_t now;

		run_look(run);
		was = run->machine.state;
		now = failover_run_clock_ms();
		failover_step(&run->machine, run_role(run), now, &todo);
		run_tell(run, was);
		run_set_deadline(run, todo.deadline_ms);
		if (todo.change) {
			run->change = todo.change;
			pthread_cond_broadcast(&run->changed);
		}
		if (todo.call)
			run_call(run, todo.call);
		else
			run_wait(run, todo.wake_ms > now ? todo.wake_ms - now : 1);
	}
	pthread_mutex_unlock(&run->lock);
	return NULL;
}

/* ---- operators ---- */

/* lock held: where this stands; false: go on waiting. */
static bool run_promotion_over(
	struct failover_run *run, uint64_t rounds, const char **code, char why[ELECT_WHY_SIZE])
{
	const struct failover *f = &run->machine;

	*code = "";
	why[0] = '\0';
	if (f->state == FAILOVER_LEADER)
		return true;
	if (failover_other_holds(f)) {
		*code = "lease-held";
		snprintf(why, ELECT_WHY_SIZE, "%s at %.200s holds %.200s",
			f->key.name[0] ? f->key.name : "somebody", f->key.source, run->place.key);
		return true;
	}
	if (run->rounds != rounds && *run->verdict) {
		*code = run->verdict;
		snprintf(why, ELECT_WHY_SIZE, "%s", run->why);
		return true;
	}
	return false;
}

enum bts_err failover_run_promote(struct failover_run *run, struct bts_role *out, const char **code,
	char why[ELECT_WHY_SIZE], struct bts_error *error)
{
	uint64_t until = failover_run_clock_ms() + FAILOVER_RUN_PATIENCE_MS, rounds;
	enum bts_err err = BTS_OK;
	bool over;

	pthread_mutex_lock(&run->lock);
	rounds = run->rounds;
	if (run->machine.state == FAILOVER_LEADER)
		err = fail_set(error, BTS_EXISTS, "this node is the primary already");
	else
		failover_campaign(&run->machine, failover_run_clock_ms());
	pthread_cond_broadcast(&run->changed);
	while (!err && !(over = run_promotion_over(run, rounds, code, why))) {
		if (run->machine.stopping)
			err = fail_set(error, BTS_TIMEOUT, "this node is stopping");
		else if (failover_run_clock_ms() >= until)
			err = fail_set(error, BTS_NOT_FOUND, "no election was held in %d ms: %s",
				FAILOVER_RUN_PATIENCE_MS,
				run->silent ? "etcd does not answer" : "the key was not to be had");
		else
			run_wait(run, 100);
	}
	pthread_mutex_unlock(&run->lock);
	return !err && !**code ? node_info(run->options.node, out, error) : err;
}

void failover_run_demoted(struct failover_run *run)
{
	pthread_mutex_lock(&run->lock);
	failover_pause(&run->machine, failover_run_clock_ms() + RUN_PAUSE_TTLS * run->options.ttl_ms);
	pthread_cond_broadcast(&run->changed);
	while (run->machine.state == FAILOVER_LEAVING && run_role(run) == FAILOVER_PRIMARY &&
		!run->machine.stopping)
		run_wait(run, 50);
	pthread_mutex_unlock(&run->lock);
}

/* ---- begin and end ---- */

static enum bts_err run_fill(
	struct failover_run *run, const struct failover_run_options *options, struct bts_error *error)
{
	struct failover_options machine = {
		.name = run->own.name, .source = run->own.source, .ttl_ms = options->ttl_ms};
	const char *wrong = etcd_parse(options->place, &run->place);
	uint64_t limit = options->ttl_ms / 6;

	if (wrong)
		return fail_set(error, BTS_INVALID, "the place of the key must be %s", wrong);
	if (strlen(options->name) > FAILOVER_NAME_MAX || strlen(options->url) > FAILOVER_URL_MAX ||
		strlen(options->source) > FAILOVER_URL_MAX)
		return fail_set(error, BTS_INVALID,
			"a name of more than %d or an address of more than %d bytes", FAILOVER_NAME_MAX,
			FAILOVER_URL_MAX);
	run->options = *options;
	strcpy(run->own.name, options->name);
	strcpy(run->own.url, options->url);
	strcpy(run->own.source, options->source);
	run->members = strdup(options->members);
	limit = limit < RUN_CALL_LEAST_MS  ? RUN_CALL_LEAST_MS
		: limit > RUN_CALL_MOST_MS ? RUN_CALL_MOST_MS
					   : limit;
	run->etcd = etcd_open(&run->place, (unsigned)limit);
	if (!run->members || !run->etcd)
		return fail_set(error, BTS_MEMORY, "no memory for failover");
	if (getrandom(&machine.seed, sizeof(machine.seed), 0) != sizeof(machine.seed))
		return fail_set(error, BTS_IO, "no random numbers");
	failover_init(&run->machine, &machine, failover_run_clock_ms());
	return BTS_OK;
}

enum bts_err failover_run_start(
	const struct failover_run_options *options, struct failover_run **out, struct bts_error *error)
{
	struct failover_run *run = calloc(1, sizeof(*run));
	pthread_condattr_t attributes;
	enum bts_err err;
	int os = 0;

	if (!run)
		return fail_set(error, BTS_MEMORY, "no memory for failover");
	run->verdict = "";
	pthread_mutex_init(&run->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&run->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	err = run_fill(run, options, error);
	if (!err) {
		os = pthread_create(&run->worker, NULL, run_worker, run);
		run->threads = os ? 0 : 1;
		os = os ? os : pthread_create(&run->thread, NULL, run_main, run);
		run->threads += os ? 0 : 1;
		err = os ? fail_os(error, os, "no thread for failover") : BTS_OK;
	}
	if (err) {
		failover_run_stop(run);
		failover_run_free(run);
		return err;
	}
	node_set_failover(options->node, run);
	*out = run;
	return BTS_OK;
}

void failover_run_stop(struct failover_run *run)
{
	uint64_t until = failover_run_clock_ms() + RUN_LEAVE_MS;

	if (!run)
		return;
	pthread_mutex_lock(&run->lock);
	failover_stop(&run->machine);
	pthread_cond_broadcast(&run->changed);
	while (run->threads == 2 && !failover_idle(&run->machine) && failover_run_clock_ms() < until) {
		if (run->machine.changing == FAILOVER_ELECT || run->machine.changing == FAILOVER_CLAIM)
			node_cancel(run->options.node);
		run_wait(run, 50);
	}
	run->ended = true;
	pthread_cond_broadcast(&run->changed);
	pthread_mutex_unlock(&run->lock);
	if (run->etcd)
		etcd_interrupt(run->etcd);
	if (run->threads == 2)
		node_cancel(run->options.node);
	if (run->threads > 0)
		pthread_join(run->worker, NULL);
	if (run->threads > 1)
		pthread_join(run->thread, NULL);
	run->threads = 0;
}

void failover_run_free(struct failover_run *run)
{
	if (!run)
		return;
	etcd_close(run->etcd);
	free(run->members);
	pthread_cond_destroy(&run->changed);
	pthread_mutex_destroy(&run->lock);
	free(run);
}
