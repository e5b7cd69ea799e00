/*
 * Changing what this process is: promotion, demotion, following another source, promises (R8, R9).
 *
 * The handle that readers use stays the same through all of it (role_internal.h).  A follower's handle becomes the writer's when it
 * is promoted.  A file that was demoted is followed with a second handle beside the first, which reads on, and writes again
 * when the second has been promoted and closed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "elect.h"
#include "fail.h"
#include "log.h"
#include "position.h"
#include "role_internal.h"

#define SWITCH_ROUNDS 3	       /* of an election, each with a higher number */
#define SWITCH_TRIES 50	       /* of a promotion that finds a frame's pages not home yet */
#define SWITCH_PAUSE_MS 100

static void switch_pause(void)
{
	const struct timespec pause = {0, SWITCH_PAUSE_MS * 1000000L};

	nanosleep(&pause, NULL);
}

static enum bts_err switch_enter(struct role *r, struct bts_error *error)
{
	if (pthread_mutex_trylock(&r->changing))
		return fail_set(error, BTS_BUSY, "another change of this node's role is under way");
	return BTS_OK;
}

static void switch_leave(struct role *r)
{
	pthread_mutex_unlock(&r->changing);
}

/* What the file says this node is.  A file that somebody else fenced, or took, is noticed here too. */
static void switch_look(struct role *r, struct bts *db)
{
	struct bts_role now = {.size = sizeof(now)};
	int was = atomic_load(&r->kind);

	if (!db || bts_role(db, &now, NULL) || (int)now.role == was)
		return;
	atomic_store(&r->kind, (int)now.role);
	r->changed_ms = role_clock_ms();
	if (now.role == BTS_ROLE_FENCED)
		log_event("warn", "fenced",
			LOG_FIELDS(LOG_U64("txid", now.position.txid), LOG_U64("epoch", now.position.epoch),
				LOG_U64("promised", now.promised)));
}

void role_look(struct role *r)
{
	switch_look(r, atomic_load(&r->db));
}

enum bts_err role_info(struct role *r, struct bts_role *out, struct bts_error *error)
{
	struct bts *db = role_db(r);

	if (!db)
		return fail_set(error, BTS_NOT_FOUND, "this follower has not received the database yet");
	out->size = sizeof(*out);
	return bts_role(db, out, error);
}

/* The handle that may change the file: the one that applies, when one does.  switching held. */
static struct bts *switch_handle(struct role *r)
{
	if (r->follow)
		return follow_db(r->follow);
	return r->applier ? r->applier : atomic_load(&r->db);
}

enum bts_err role_promise(struct role *r, uint32_t epoch, uint64_t random, const uint8_t database[16], struct bts_role *out,
	struct bts_error *error)
{
	struct bts_position position;
	struct bts *db;
	enum bts_err err;

	pthread_rwlock_rdlock(&r->switching);
	db = switch_handle(r);
	if (!db)
		err = fail_set(error, BTS_NOT_FOUND, "this follower has not received the database yet");
	else
		err = bts_ship_position(db, &position, error);
	if (!err && memcmp(position.database, database, 16))
		err = fail_set(error, BTS_DIVERGED, "this node has another database");
	if (!err)
		err = bts_promise(db, epoch, random, error);
	if (!err || err == BTS_FENCED) {
		enum bts_err told;

		out->size = sizeof(*out);
		told = bts_role(db, out, err ? NULL : error);
		err = err ? err : told;
	}
	if (!err)
		log_event("info", "promised", LOG_FIELDS(LOG_U64("epoch", epoch), LOG_U64("txid", out->position.txid)));
	if (!r->follow)
		switch_look(r, db);
	pthread_rwlock_unlock(&r->switching);
	return err;
}

enum bts_err role_demote(struct role *r, struct bts_role *out, struct bts_error *error)
{
	enum bts_err err = switch_enter(r, error);

	if (err)
		return err;
	if (atomic_load(&r->kind) == BTS_ROLE_FOLLOWER) {
		err = fail_set(error, BTS_INVALID, "this node is a follower");
	} else {
		out->size = sizeof(*out);
		err = bts_demote(atomic_load(&r->db), out, error);
	}
	if (!err) {
		role_look(r);
		atomic_store(&r->txid, out->position.txid);
	}
	switch_leave(r);
	return err;
}

/* A promise may be under way on the one before. */
static void switch_set_applier(struct role *r, struct bts *db)
{
	pthread_rwlock_wrlock(&r->switching);
	r->applier = db;
	pthread_rwlock_unlock(&r->switching);
}

/* The follower's thread ends; its handle stays, as applier, and for readers when they have no other. */
static void switch_halt(struct role *r)
{
	struct follow_status status;
	struct follow *follow;
	struct bts *db;

	pthread_rwlock_wrlock(&r->switching);
	follow = r->follow;
	db = follow ? follow_db(follow) : NULL;
	if (follow) { /* the newest is told from here on, as nobody follows */
		follow_status(follow, &status);
		atomic_store(&r->txid, status.txid);
	}
	if (db)
		r->applier = db;
	if (db && !atomic_load(&r->db))
		atomic_store(&r->db, db);
	r->follow = NULL;
	pthread_rwlock_unlock(&r->switching);
	/* A file that was made while we looked is handed out now. */
	if (follow) {
		db = follow_release(follow);
		switch_set_applier(r, db);
		if (!atomic_load(&r->db))
			atomic_store(&r->db, db);
	}
}

enum bts_err role_follow(struct role *r, const char *source, const char *primary_url, struct bts_error *error)
{
	enum bts_err err = switch_enter(r, error);

	if (err)
		return err;
	role_look(r);
	if (atomic_load(&r->kind) == BTS_ROLE_PRIMARY) {
		err = fail_set(error, BTS_EXISTS, "this node is the primary: demote it first");
		goto leave;
	}
	switch_halt(r);
	err = role_start_follow(r, source, error);
	if (err) {
		if (*role_source_url(r) && role_start_follow(r, role_source_url(r), NULL))
			log_event("error", "not-following", LOG_FIELDS(LOG_TEXT("detail", error->text)));
		goto leave;
	}
	atomic_store(&r->source, role_keep_text(r, source));
	if (primary_url)
		atomic_store(&r->primary_url, role_keep_text(r, primary_url));
	atomic_store(&r->kind, BTS_ROLE_FOLLOWER);
	log_event("info", "follows", LOG_FIELDS(LOG_TEXT("source", source)));
leave:
	switch_leave(r);
	return err;
}

/* Promises until there are enough, or there can not be.  BTS_OK with *verdict. */
static enum bts_err switch_elect(struct role *r, struct bts *db, struct elect *elect, enum elect_verdict *verdict, char why[ELECT_WHY_SIZE],
	struct bts_error *error)
{
	for (int round = 0; round < SWITCH_ROUNDS; round++) {
		struct bts_role own = {.size = sizeof(own)};
		enum bts_err err = bts_role(db, &own, error);

		if (err)
			return err;
		elect->epoch = elect_number(elect, &own);
		if (getrandom(&elect->epoch_random, sizeof(elect->epoch_random), 0) != sizeof(elect->epoch_random))
			return fail_set(error, BTS_IO, "no random numbers for an epoch");
		err = bts_promise(db, elect->epoch, elect->epoch_random, error);
		if (!err)
			err = bts_role(db, &own, error);
		if (err)
			return err;
		elect->own = own.position;
		err = elect_ask(elect, error);
		if (err)
			return err;
		*verdict = elect_judge(elect, why);
		log_event(*verdict == ELECT_PROMOTE ? "info" : "warn", "election",
			LOG_FIELDS(LOG_U64("epoch", elect->epoch), LOG_U64("promised", elect_promised(elect)),
				LOG_U64("needed", elect_needed(elect)), LOG_TEXT("detail", why)));
		if (*verdict != ELECT_OUTBID)
			return BTS_OK;
	}
	(void)r;
	return BTS_OK;
}

/* With the follower's handle, which nobody applies with any more. */
static enum bts_err switch_promote(struct role *r, const struct bts_promotion *promotion, struct bts_role *out,
	struct bts_error *error)
{
	enum bts_err err = BTS_BUSY;
	struct bts *applier;

	for (int i = 0; i < SWITCH_TRIES && err == BTS_BUSY; i++) {
		if (i)
			switch_pause();
		err = bts_promote(r->applier, promotion, out, error);
	}
	if (err)
		return err;
	pthread_mutex_lock(&r->lock);
	r->position = out->position;
	r->position_txid = 0;
	pthread_mutex_unlock(&r->lock);
	atomic_store(&r->txid, out->position.txid);
	applier = r->applier;
	switch_set_applier(r, NULL);
	if (applier != atomic_load(&r->db))
		bts_close(applier);
	if (role_record_primary(r, error))
		log_event("warn", "not-recorded", LOG_FIELDS(LOG_TEXT("detail", error->text)));
	atomic_store(&r->source, "");
	atomic_store(&r->primary_url, "");
	role_look(r);
	log_event("info", "promoted",
		LOG_FIELDS(LOG_U64("epoch", out->position.epoch), LOG_U64("txid", out->position.txid)));
	return BTS_OK;
}

/* A handle to promote with, where no follower's thread has one: of a fenced file, or one that was halted. */
static enum bts_err switch_open(struct role *r, struct bts_error *error)
{
	struct bts_options options;
	struct bts *db = NULL;
	enum bts_err err;

	if (r->applier)
		return BTS_OK;
	bts_options_init(&options);
	options.flags = BTS_OPEN_EXISTING | BTS_OPEN_FOLLOWER;
	err = bts_open(r->config->data, &options, &db, error);
	if (!err)
		switch_set_applier(r, db);
	return err;
}

static enum bts_err switch_become(struct role *r, const struct role_promotion *wanted, struct elect *elect, struct bts_role *out,
	enum elect_verdict *verdict, char why[ELECT_WHY_SIZE], struct bts_error *error)
{
	struct bts_promotion promotion = {.size = sizeof(promotion),
		.expect = wanted->expect,
		.expect_digest = wanted->expect_digest};
	struct bts *db = r->follow ? follow_db(r->follow) : NULL;
	enum bts_err err = r->follow ? BTS_OK : switch_open(r, error);

	if (!err && !r->follow)
		db = r->applier;
	if (!err && !db)
		err = fail_set(error, BTS_INVALID, "this follower has not received the database yet");
	if (!err && wanted->members) {
		err = switch_elect(r, db, elect, verdict, why, error);
		promotion.epoch = elect->epoch;
		promotion.epoch_random = elect->epoch_random;
	}
	if (err || *verdict != ELECT_PROMOTE)
		return err;
	switch_halt(r);
	err = switch_promote(r, &promotion, out, error);
	if (err && *role_source_url(r) && role_start_follow(r, role_source_url(r), NULL))
		log_event("error", "not-following", LOG_FIELDS(LOG_TEXT("detail", error->text)));
	return err;
}

enum bts_err role_promote(struct role *r, const struct role_promotion *wanted, struct bts_role *out, const char **code,
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
		err = switch_enter(r, error);
	if (!err) {
		role_look(r);
		if (!r->follow && atomic_load(&r->kind) == BTS_ROLE_PRIMARY)
			err = fail_set(error, BTS_EXISTS, "this node is the primary already");
		else
			err = switch_become(r, wanted, elect, out, &verdict, why, error);
		switch_leave(r);
	}
	*code = elect_code(verdict);
	free(elect);
	return err;
}
