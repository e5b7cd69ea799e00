/* Changing what this process is: see node.h. */
#include "node_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "fail.h"
#include "position.h"
#include "session.h"
#include "transport.h"

#define SWITCH_ROUNDS 3	       /* of an election, each with a higher number */
#define SWITCH_TRIES 50	       /* of a promotion that finds a frame's pages not home yet */
#define SWITCH_PAUSE_MS 100

static void switch_pause(void)
{
	const struct timespec pause = {0, SWITCH_PAUSE_MS * 1000000L};

	nanosleep(&pause, NULL);
}

static enum bts_err switch_enter(struct node *n, struct bts_error *error)
{
	if (pthread_mutex_trylock(&n->changing))
		return fail_set(error, BTS_BUSY, "another change of this node's role is under way");
	if (!atomic_load(&n->cancelled))
		return BTS_OK;
	pthread_mutex_unlock(&n->changing);
	return fail_set(error, BTS_TIMEOUT, "this node is stopping");
}

static void switch_leave(struct node *n)
{
	pthread_mutex_unlock(&n->changing);
}

/* It was the primary until who fenced it says that it was, or until it was last seen to be. */
static void switch_end_lead(struct node *n, struct bts *db)
{
	struct bts_upstream up;

	bts_upstream(db, &up);
	if (up.fresh_ms > atomic_load(&n->fresh_ms))
		atomic_store(&n->fresh_ms, up.fresh_ms);
	(void)!node_record_own(n, atomic_load(&n->fresh_ms), NULL);
}

/* What the file says this node is.  A file that somebody else fenced, or took, is noticed here too. */
static void switch_look(struct node *n, struct bts *db)
{
	struct bts_role now = {.size = sizeof(now)};
	uint64_t looked_ms = node_clock_ms();
	int was = atomic_load(&n->kind);

	if (!db || bts_role(db, &now, NULL))
		return;
	if (now.role == BTS_ROLE_PRIMARY && bts_deadline(db, NULL, NULL) != BTS_FENCED)
		atomic_store(&n->fresh_ms, looked_ms); /* later another one may be primary, which nobody tells us */
	if ((int)now.role == was)
		return;
	if (now.role == BTS_ROLE_PRIMARY && n->options.promoted)
		n->options.promoted(n->options.promoted_arg, &now.position);
	if (!atomic_compare_exchange_strong(&n->kind, &was, (int)now.role))
		return; /* by another thread */
	atomic_store(&n->changed_ms, node_clock_ms());
	if (was == BTS_ROLE_PRIMARY)
		switch_end_lead(n, db);
	if (now.role == BTS_ROLE_FENCED)
		repl_emit(&n->options.events, REPL_WARN, "fenced", "at transaction %" PRIu64 " of epoch %" PRIu32 ", epoch %" PRIu32 " promised",
			(uint64_t)now.position.txid, now.position.epoch, now.promised);
}

void node_look(struct node *n)
{
	switch_look(n, atomic_load(&n->db));
}

enum bts_err node_info(struct node *n, struct bts_role *out, struct bts_error *error)
{
	struct bts *db = node_db(n);

	if (!db)
		return fail_set(error, BTS_NOT_FOUND, "this follower has not received the database yet");
	out->size = sizeof(*out);
	return bts_role(db, out, error);
}

/* The handle that may change the file: the one that applies, when one does.  switching held. */
static struct bts *switch_handle(struct node *n)
{
	if (n->follow)
		return follow_db(n->follow);
	return n->applier ? n->applier : atomic_load(&n->db);
}

void node_apply_stat(struct node *n, struct bts_apply_stat *stat)
{
	struct bts *db;

	memset(stat, 0, sizeof(*stat));
	pthread_rwlock_rdlock(&n->switching);
	db = switch_handle(n);
	if (db)
		bts_apply_stat(db, stat);
	pthread_rwlock_unlock(&n->switching);
}

enum bts_err node_set_deadline(struct node *n, uint64_t boottime_ms, struct bts_error *error)
{
	struct bts *db;
	enum bts_err err;

	pthread_rwlock_rdlock(&n->switching);
	db = switch_handle(n);
	err = db ? bts_deadline_set(db, boottime_ms, error) :
		   fail_set(error, BTS_NOT_FOUND, "this follower has not received the database yet");
	pthread_rwlock_unlock(&n->switching);
	return err;
}

enum bts_err node_promise(struct node *n, uint32_t epoch, uint64_t random, const uint8_t database[16], struct bts_role *out,
	struct bts_error *error)
{
	struct bts_position position;
	struct bts *db;
	enum bts_err err;

	pthread_rwlock_rdlock(&n->switching);
	db = switch_handle(n);
	if (!db)
		err = fail_set(error, BTS_NOT_FOUND, "this follower has not received the database yet");
	else
		err = bts_ship_position(db, &position, error);
	if (!err && memcmp(position.database, database, 16))
		err = fail_set(error, BTS_DIVERGED, "this node has another database");
	if (!n->follow)
		switch_look(n, db);
	if (!err)
		err = bts_promise(db, epoch, random, error);
	if (!err || err == BTS_FENCED) {
		enum bts_err told;

		out->size = sizeof(*out);
		told = bts_role(db, out, err ? NULL : error);
		err = err ? err : told;
	}
	if (!err)
		repl_emit(&n->options.events, REPL_INFO, "promised", "epoch %" PRIu32 ", at transaction %" PRIu64, epoch,
			(uint64_t)out->position.txid);
	if (!n->follow)
		switch_look(n, db);
	pthread_rwlock_unlock(&n->switching);
	return err;
}

enum bts_err node_demote(struct node *n, struct bts_role *out, struct bts_error *error)
{
	enum bts_err err = switch_enter(n, error);

	if (err)
		return err;
	node_look(n);
	if (atomic_load(&n->kind) == BTS_ROLE_FOLLOWER) {
		err = fail_set(error, BTS_INVALID, "this node is a follower");
	} else {
		out->size = sizeof(*out);
		err = bts_demote(atomic_load(&n->db), out, error);
	}
	if (!err) {
		node_look(n);
		atomic_store(&n->txid, out->position.txid);
	}
	switch_leave(n);
	return err;
}

void node_set_primary_url(struct node *n, const char *url)
{
	atomic_store(&n->primary_url, node_keep_text(n, url));
}

/* A promise may be under way on the one before. */
static void switch_set_applier(struct node *n, struct bts *db)
{
	pthread_rwlock_wrlock(&n->switching);
	n->applier = db;
	pthread_rwlock_unlock(&n->switching);
}

/* A file that a first sync has only begun to fill has no commit: nobody may read it, nor is there anything to be elected with. */
static bool switch_holds(struct bts *db)
{
	struct bts_position position;

	return db && !bts_ship_position(db, &position, NULL) && position.txid;
}

/* What is here becomes no fresher by another source being asked. */
static void switch_keep_lag(struct node *n, uint64_t lag_ms)
{
	uint64_t now = node_clock_ms();

	atomic_store(&n->fresh_ms, lag_ms < SESSION_LAG_UNKNOWN_MS && lag_ms < now ? now - lag_ms : 0);
	atomic_store(&n->changed_ms, now);
}

/* The follower's thread ends; its handle stays, as applier, and for readers when they have no other and it holds something. */
static void switch_halt(struct node *n)
{
	struct follow_status status;
	struct follow *follow;
	struct bts *db;

	pthread_rwlock_wrlock(&n->switching);
	follow = n->follow;
	db = follow ? follow_db(follow) : NULL;
	if (follow) { /* the newest is told from here on, as nobody follows */
		follow_status(follow, &status);
		atomic_store(&n->txid, status.txid);
		switch_keep_lag(n, status.lag_ms + status.source_lag_ms);
	}
	if (db)
		n->applier = db;
	if (switch_holds(db) && !atomic_load(&n->db))
		atomic_store(&n->db, db);
	n->follow = NULL;
	pthread_rwlock_unlock(&n->switching);
	/* A file that was made, or filled, while we looked is handed out now. */
	if (follow) {
		db = follow_release(follow);
		switch_set_applier(n, db);
		if (switch_holds(db) && !atomic_load(&n->db))
			atomic_store(&n->db, db);
	}
}

enum bts_err node_follow(struct node *n, const char *source, const char *primary_url, struct bts_error *error)
{
	enum bts_err err = switch_enter(n, error);

	if (err)
		return err;
	node_look(n);
	if (atomic_load(&n->kind) == BTS_ROLE_PRIMARY) {
		err = fail_set(error, BTS_EXISTS, "this node is the primary: demote it first");
		goto leave;
	}
	switch_halt(n);
	err = node_start_follow(n, source, error);
	if (err) {
		if (*node_source_url(n) && node_start_follow(n, node_source_url(n), NULL))
			repl_emit(&n->options.events, REPL_ERROR, "not-following", "%s", error->text);
		goto leave;
	}
	atomic_store(&n->source, node_keep_text(n, source));
	if (primary_url)
		node_set_primary_url(n, primary_url);
	atomic_store(&n->kind, BTS_ROLE_FOLLOWER);
	repl_emit(&n->options.events, REPL_INFO, "follows", "%s", source);
leave:
	switch_leave(n);
	return err;
}

/* node_cancel cuts it short. */
static enum bts_err switch_ask(struct node *n, struct elect *elect, struct bts_error *error)
{
	struct transport *transport = transport_new("btree_store/" BTS_VERSION_STRING);

	if (!transport)
		return fail_set(error, BTS_MEMORY, "no memory to ask the members");
	pthread_mutex_lock(&n->lock);
	n->asking = transport;
	if (atomic_load(&n->cancelled))
		transport_interrupt(transport);
	pthread_mutex_unlock(&n->lock);
	elect_ask(elect, transport);
	pthread_mutex_lock(&n->lock);
	n->asking = NULL;
	pthread_mutex_unlock(&n->lock);
	transport_free(transport);
	return atomic_load(&n->cancelled) ? fail_set(error, BTS_TIMEOUT, "this node is stopping") : BTS_OK;
}

/* Promises until there are enough, or there can not be.  BTS_OK with *verdict. */
static enum bts_err switch_elect(struct node *n, struct bts *db, struct elect *elect, enum elect_verdict *verdict, char why[ELECT_WHY_SIZE],
	struct bts_error *error)
{
	for (int round = 0; round < SWITCH_ROUNDS; round++) {
		struct bts_role own = {.size = sizeof(own)};
		enum bts_err err = bts_role(db, &own, error);

		if (err)
			return err;
		elect->epoch = elect_number(elect, &own);
		if (!elect->epoch)
			return fail_set(error, BTS_FENCED, "epoch %" PRIu32 " is in use or was promised, here or by a member: there is none after it",
				UINT32_MAX);
		if (getrandom(&elect->epoch_random, sizeof(elect->epoch_random), 0) != sizeof(elect->epoch_random))
			return fail_set(error, BTS_IO, "no random numbers for an epoch");
		err = bts_promise(db, elect->epoch, elect->epoch_random, error);
		if (!err)
			err = bts_role(db, &own, error);
		if (err)
			return err;
		elect->own = own.position;
		err = switch_ask(n, elect, error);
		if (err)
			return err;
		*verdict = elect_judge(elect, why);
		/* Enough promised; who promised more to others could take no frame of this epoch. */
		if (*verdict == ELECT_PROMOTE && elect_is_outbid(elect) && elect_number(elect, &own) && round + 1 < SWITCH_ROUNDS)
			*verdict = ELECT_OUTBID;
		repl_emit(&n->options.events, *verdict == ELECT_PROMOTE ? REPL_INFO : REPL_WARN, "election",
			"epoch %" PRIu32 ", %u promised of %u needed: %s", elect->epoch, elect_promised(elect), elect_needed(elect), why);
		if (*verdict != ELECT_OUTBID)
			return BTS_OK;
	}
	return BTS_OK;
}

enum bts_err node_claim(struct node *n, const char *members, struct bts_error *error)
{
	struct elect *elect = malloc(sizeof(*elect));
	struct bts_role own = {.size = sizeof(own)};
	enum bts_err err;

	if (!elect)
		return fail_set(error, BTS_MEMORY, "no memory to ask the members");
	err = elect_init(elect, members, 0, error);
	if (!err)
		err = switch_enter(n, error);
	if (err) {
		free(elect);
		return err;
	}
	for (int round = 0; round < 2 && !err && atomic_load(&n->kind) != BTS_ROLE_PRIMARY; round++) {
		err = node_info(n, &own, error);
		if (err || !own.promised)
			break;
		elect->own = own.position;
		elect->epoch = own.promised;
		elect->epoch_random = own.promised_random;
		err = switch_ask(n, elect, error);
		if (err || !elect_is_tied(elect))
			break;
		if (own.promised == UINT32_MAX || getrandom(&own.promised_random, sizeof(own.promised_random), 0) != sizeof(own.promised_random))
			err = fail_set(error, BTS_FENCED, "there is no epoch above %" PRIu32 " to ask for", own.promised);
		else
			err = node_promise(n, own.promised + 1, own.promised_random, own.position.database, &own, error);
	}
	switch_leave(n);
	free(elect);
	return err;
}

/* With the follower's handle, which nobody applies with any more. */
static enum bts_err switch_promote(struct node *n, const struct bts_promotion *promotion, struct bts_role *out,
	struct bts_error *error)
{
	enum bts_err err = BTS_BUSY;
	struct bts *applier;

	out->size = sizeof(*out);
	for (int i = 0; i < SWITCH_TRIES && err == BTS_BUSY && !atomic_load(&n->cancelled); i++) {
		if (i == 1 && n->options.held)
			n->options.held(n->options.held_arg);
		if (i)
			switch_pause();
		err = bts_promote(n->applier, promotion, out, error);
	}
	if (err)
		return err;
	if (n->options.promoted)
		n->options.promoted(n->options.promoted_arg, &out->position);
	atomic_store(&n->txid, out->position.txid);
	applier = n->applier;
	switch_set_applier(n, NULL);
	if (applier != atomic_load(&n->db))
		bts_close(applier);
	if (node_record_own(n, 0, error))
		repl_emit(&n->options.events, REPL_WARN, "not-recorded", "%s", error->text);
	atomic_store(&n->source, "");
	atomic_store(&n->primary_url, "");
	node_look(n);
	repl_emit(&n->options.events, REPL_INFO, "promoted", "epoch %" PRIu32 ", from transaction %" PRIu64 " on", out->position.epoch,
		(uint64_t)out->position.txid);
	return BTS_OK;
}

/* A handle to promote with, where no follower's thread has one: of a fenced file, or one that was halted. */
static enum bts_err switch_open(struct node *n, struct bts_error *error)
{
	struct bts_options options;
	struct bts *db = NULL;
	enum bts_err err;

	if (n->applier)
		return BTS_OK;
	bts_options_init(&options);
	options.flags = BTS_OPEN_EXISTING | BTS_OPEN_FOLLOWER | node_flags(n);
	err = bts_open(n->options.path, &options, &db, error);
	if (!err)
		switch_set_applier(n, db);
	return err;
}

/* Before the follower is halted: who asks again until the last commit is here must not break off the frame that brings it. */
static enum bts_err switch_expect(struct bts *db, const struct node_promotion *wanted, struct bts_error *error)
{
	struct bts_role now = {.size = sizeof(now)};
	char text[POSITION_TEXT_SIZE];
	enum bts_err err = bts_role(db, &now, error);

	if (err)
		return err;
	position_text(&now.position, text);
	if (wanted->expect && !position_equal(wanted->expect, &now.position))
		return fail_set(error, BTS_DIVERGED, "this node stands at %s, not where expected", text);
	if (wanted->expect_digest && memcmp(wanted->expect_digest, now.digest, sizeof(now.digest)) != 0)
		return fail_set(error, BTS_DIVERGED, "this node, at %s, has another root digest than expected", text);
	return BTS_OK;
}

static enum bts_err switch_become(struct node *n, const struct node_promotion *wanted, struct elect *elect, struct bts_role *out,
	enum elect_verdict *verdict, char why[ELECT_WHY_SIZE], struct bts_error *error)
{
	struct bts_promotion promotion = {.size = sizeof(promotion),
		.expect = wanted->expect,
		.expect_digest = wanted->expect_digest};
	struct bts *db = n->follow ? follow_db(n->follow) : NULL;
	enum bts_err err = n->follow ? BTS_OK : switch_open(n, error);

	if (!err && !n->follow)
		db = n->applier;
	if (!err && !switch_holds(db)) /* it could not win, and who is asked would be fenced for nothing */
		err = fail_set(error, BTS_INVALID, "this follower has not received the database yet");
	if (!err && bts_deadline(db, NULL, NULL) == BTS_FENCED) /* before anybody is asked to promise */
		err = fail_set(error, BTS_NOT_FOUND, "this node holds no lease, without which it may not be primary");
	if (!err)
		err = switch_expect(db, wanted, error);
	if (!err && wanted->members) {
		err = switch_elect(n, db, elect, verdict, why, error);
		promotion.epoch = elect->epoch;
		promotion.epoch_random = elect->epoch_random;
	}
	if (err || *verdict != ELECT_PROMOTE)
		return err;
	switch_halt(n);
	err = switch_promote(n, &promotion, out, error);
	if (err && *node_source_url(n) && node_start_follow(n, node_source_url(n), NULL))
		repl_emit(&n->options.events, REPL_ERROR, "not-following", "%s", error->text);
	return err;
}

enum bts_err node_promote(struct node *n, const struct node_promotion *wanted, struct bts_role *out, const char **code,
	char why[ELECT_WHY_SIZE], struct bts_error *error)
{
	enum elect_verdict verdict = ELECT_PROMOTE;
	struct elect *elect = malloc(sizeof(*elect));
	enum bts_err err = BTS_OK;

	out->size = sizeof(*out);
	*code = "";
	if (!elect)
		return fail_set(error, BTS_MEMORY, "no memory for an election");
	if (wanted->members)
		err = elect_init(elect, wanted->members, wanted->survive, error);
	if (!err)
		err = switch_enter(n, error);
	if (!err) {
		node_look(n);
		if (!n->follow && atomic_load(&n->kind) == BTS_ROLE_PRIMARY)
			err = fail_set(error, BTS_EXISTS, "this node is the primary already");
		else
			err = switch_become(n, wanted, elect, out, &verdict, why, error);
		switch_leave(n);
	}
	*code = elect_code(verdict);
	free(elect);
	return err;
}
