/* Who writes, by a lease: see failover.h. */
#include "failover.h"

#include <stdio.h>
#include <string.h>

#include "sabotage.h"

#define FAILOVER_MARGIN_LEAST_MS 500
#define FAILOVER_RETRY_MS 100 /* after a call without an answer */
#define FAILOVER_POLL_MOST_MS 1000
#define FAILOVER_FAILURES_MAX 3 /* doublings of the back-off */
#define FAILOVER_TRIES                                                                                       \
	3 /* elections of a hold: nodes that have nothing yet begin to follow its holder, and can promise then */

uint64_t failover_margin_ms(uint64_t ttl_ms)
{
	return ttl_ms / 10 > FAILOVER_MARGIN_LEAST_MS ? ttl_ms / 10 : FAILOVER_MARGIN_LEAST_MS;
}

const char *failover_state_word(enum failover_state state)
{
	static const char *const words[] = {"watching", "candidate", "electing", "leader", "leaving"};

	return words[state];
}

static uint64_t failover_poll_ms(const struct failover *f)
{
	uint64_t poll = f->options.ttl_ms / 8;

	return poll < FAILOVER_POLL_MOST_MS ? poll : FAILOVER_POLL_MOST_MS;
}

/* 0 .. bound - 1, by splitmix64. */
static uint64_t failover_random(struct failover *f, uint64_t bound)
{
	uint64_t x = f->options.seed += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return (x ^ x >> 31) % bound;
}

void failover_init(struct failover *f, const struct failover_options *options, uint64_t now)
{
	memset(f, 0, sizeof(*f));
	f->options = *options;
	f->campaign_ms = now;
}

bool failover_other_holds(const struct failover *f)
{
	return f->known && f->key.there && f->key.lease != f->lease &&
	       (strcmp(f->key.name, f->options.name) != 0 || strcmp(f->key.source, f->options.source) != 0);
}

bool failover_idle(const struct failover *f)
{
	return f->state == FAILOVER_WATCH && !f->calling && !f->changing;
}

static bool failover_holds(const struct failover *f)
{
	return f->state == FAILOVER_HOLDER || f->state == FAILOVER_LEADER;
}

/* On the way out the deadline stays what it is: commits that are under way may end. */
static void failover_leave(struct failover *f)
{
	if (f->state != FAILOVER_CANDIDATE && !failover_holds(f))
		return;
	f->state = FAILOVER_LEAVING;
	f->call_due_ms = 0;
}

static void failover_lose(struct failover *f)
{
	f->counts.lost_leases += failover_holds(f);
	f->writing = false;
	failover_leave(f);
}

static void failover_free(struct failover *f)
{
	f->state = FAILOVER_WATCH;
	f->lease = 0;
	f->elected = f->writing = f->unsure = f->known = false;
	f->read_due_ms = 0;
}

void failover_pause(struct failover *f, uint64_t until_ms)
{
	f->campaign_ms = until_ms;
	failover_leave(f);
}

void failover_campaign(struct failover *f, uint64_t now)
{
	f->campaign_ms = now;
	f->failures = 0;
	f->read_due_ms = 0;
}

void failover_stop(struct failover *f)
{
	f->stopping = true;
	failover_leave(f);
}

/* ---- what to do ---- */

static bool failover_may_campaign(const struct failover *f, uint64_t now)
{
	return !f->stopping && f->known && !f->key.there && f->role != FAILOVER_EMPTY &&
	       f->role != FAILOVER_BROKEN && now >= f->campaign_ms && !f->changing;
}

static bool failover_must_follow(const struct failover *f)
{
	return f->state == FAILOVER_WATCH && !f->stopping && failover_other_holds(f) &&
	       f->role != FAILOVER_PRIMARY && f->role != FAILOVER_BROKEN &&
	       (f->key.elected || f->role == FAILOVER_EMPTY) && strcmp(f->key.source, f->followed) != 0;
}

/* A voter's usual case is over soon: the first frame of the epoch that it promised. */
static bool failover_is_beyond(const struct failover *f)
{
	return f->state == FAILOVER_WATCH && !f->stopping && f->role == FAILOVER_PROMISED &&
	       failover_other_holds(f) && f->key.elected;
}

static enum failover_change failover_choose_change(const struct failover *f, uint64_t now)
{
	if (f->changing || now < f->change_due_ms)
		return FAILOVER_NO_CHANGE;
	if (f->role == FAILOVER_PRIMARY) {
		bool over = f->state == FAILOVER_LEAVING || (f->state == FAILOVER_HOLDER && !f->elected) ||
			    (f->state == FAILOVER_WATCH && failover_other_holds(f) && f->key.elected);

		return over ? FAILOVER_DEMOTE : FAILOVER_NO_CHANGE;
	}
	if (f->state == FAILOVER_HOLDER && !f->elected)
		return FAILOVER_ELECT;
	if (failover_must_follow(f))
		return FAILOVER_FOLLOW;
	return failover_is_beyond(f) && now >= f->claim_ms ? FAILOVER_CLAIM : FAILOVER_NO_CHANGE;
}

/* The call that comes next, and when. */
static enum failover_call failover_next_call(const struct failover *f, uint64_t now, uint64_t *due)
{
	uint64_t renew = f->renewed_ms + f->options.ttl_ms / 4;

	*due = f->call_due_ms;
	switch (f->state) {
	case FAILOVER_WATCH:
		if (failover_may_campaign(f, now))
			return FAILOVER_GRANT;
		*due = f->read_due_ms > *due ? f->read_due_ms : *due;
		return f->stopping ? FAILOVER_NO_CALL : FAILOVER_READ;
	case FAILOVER_CANDIDATE:
		return f->unsure ? FAILOVER_READ : FAILOVER_CREATE;
	case FAILOVER_LEAVING:
		/* While it may still write, or an election may still end well, the key stays. */
		if (SABOTAGED(SABOTAGE_LEASE_NO_FENCE))
			return FAILOVER_REVOKE;
		return f->role == FAILOVER_PRIMARY || f->changing ? FAILOVER_NO_CALL : FAILOVER_REVOKE;
	default:
		break;
	}
	if (now >= renew)
		return FAILOVER_RENEW;
	if (f->state == FAILOVER_HOLDER && f->elected)
		return FAILOVER_PUBLISH;
	if (f->read_due_ms < renew) {
		*due = f->read_due_ms > *due ? f->read_due_ms : *due;
		return FAILOVER_READ;
	}
	*due = renew > *due ? renew : *due;
	return FAILOVER_RENEW;
}

static void failover_expire(struct failover *f, uint64_t now)
{
	if (f->state == FAILOVER_LEADER && f->role != FAILOVER_PRIMARY && !f->changing) {
		/* Fenced by another's election, or by an operator: the others come first. */
		if (f->campaign_ms < now + f->options.ttl_ms)
			f->campaign_ms = now + f->options.ttl_ms;
		failover_leave(f);
	}
	if ((failover_holds(f) || f->state == FAILOVER_CANDIDATE) && now >= f->until_ms)
		failover_lose(f);
	if (f->role == FAILOVER_BROKEN)
		failover_leave(f);
}

void failover_step(struct failover *f, enum failover_role role, uint64_t now, struct failover_do *todo)
{
	uint64_t due;

	f->role = role;
	failover_expire(f, now);
	if (failover_holds(
		    f)) /* a promotion needs it as well; a primary from before this hold must not have it */
		f->writing = role != FAILOVER_PRIMARY || f->elected || f->changing == FAILOVER_ELECT;
	else
		f->writing = f->writing && role == FAILOVER_PRIMARY;
	if (!failover_is_beyond(f))
		f->claim_ms = now + f->options.ttl_ms;
	todo->change = failover_choose_change(f, now);
	f->changing = todo->change ? todo->change : f->changing;
	if (todo->change == FAILOVER_ELECT)
		f->counts.elections++;
	if (todo->change == FAILOVER_CLAIM)
		f->claim_ms = now + f->options.ttl_ms;
	if (todo->change == FAILOVER_FOLLOW)
		strcpy(f->followed, f->key.source);
	todo->call = failover_next_call(f, now, &due);
	todo->wake_ms = now + failover_poll_ms(f);
	if (f->calling || !todo->call) {
		todo->call = FAILOVER_NO_CALL;
	} else if (due > now) {
		todo->call = FAILOVER_NO_CALL;
		todo->wake_ms = due < todo->wake_ms ? due : todo->wake_ms;
	}
	f->calling = todo->call ? todo->call : f->calling;
	todo->deadline_ms = f->writing ? f->until_ms : 0;
	if ((failover_holds(f) || f->state == FAILOVER_CANDIDATE) && f->until_ms < todo->wake_ms)
		todo->wake_ms = f->until_ms;
}

/* ---- what became of it ---- */

static void failover_take_lease(struct failover *f, const struct failover_reply *reply, uint64_t now)
{
	uint64_t ttl = reply->ttl_ms < f->options.ttl_ms ? reply->ttl_ms : f->options.ttl_ms;
	uint64_t from = SABOTAGED(SABOTAGE_LEASE_FROM_ANSWER) ? now : reply->sent_ms;
	uint64_t margin = SABOTAGED(SABOTAGE_LEASE_NO_MARGIN) ? 0 : failover_margin_ms(f->options.ttl_ms);
	uint64_t until = ttl > margin ? from + ttl - margin : from;

	if (until > f->until_ms || reply->call == FAILOVER_GRANT)
		f->until_ms = until;
	f->renewed_ms = reply->sent_ms;
}

static void failover_on_read(struct failover *f, const struct failover_reply *reply, uint64_t now)
{
	bool mine = reply->key.there && f->lease && reply->key.lease == f->lease;

	f->read_due_ms = now + failover_poll_ms(f);
	if (reply->result != FAILOVER_DONE) {
		f->known = false;
		f->call_due_ms = now + FAILOVER_RETRY_MS;
		return;
	}
	f->key = reply->key;
	f->known = true;
	if (failover_other_holds(f) && f->key.elected)
		f->failures = 0;
	if (f->state == FAILOVER_CANDIDATE) {
		f->unsure = false;
		if (mine)
			f->state = FAILOVER_HOLDER;
		else if (reply->key.there)
			failover_leave(f);
	} else if (failover_holds(f) && !mine) {
		failover_lose(f);
	}
}

static void failover_on_grant(struct failover *f, const struct failover_reply *reply, uint64_t now)
{
	if (reply->result != FAILOVER_DONE) {
		f->call_due_ms = now + FAILOVER_RETRY_MS;
		return;
	}
	f->lease = reply->lease;
	f->elected = f->writing = f->unsure = false;
	f->tries = 0;
	f->state = FAILOVER_CANDIDATE;
	failover_take_lease(f, reply, now);
	if (f->stopping || now < f->campaign_ms)
		failover_leave(f);
}

static void failover_on_create(struct failover *f, const struct failover_reply *reply)
{
	if (f->state != FAILOVER_CANDIDATE)
		return;
	if (reply->result == FAILOVER_DONE || SABOTAGED(SABOTAGE_LEASE_NO_KEY)) {
		f->state = FAILOVER_HOLDER;
		f->change_due_ms = 0;
	} else {
		f->unsure = true;
	}
	f->read_due_ms = 0;
}

static void failover_on_renew(struct failover *f, const struct failover_reply *reply, uint64_t now)
{
	if (reply->result == FAILOVER_DONE)
		failover_take_lease(f, reply, now);
	else if (reply->result == FAILOVER_REFUSED)
		failover_lose(f);
	else
		f->call_due_ms = now + FAILOVER_RETRY_MS;
}

static void failover_on_publish(struct failover *f, const struct failover_reply *reply, uint64_t now)
{
	if (f->state != FAILOVER_HOLDER)
		return;
	if (reply->result == FAILOVER_REFUSED) {
		failover_lose(f);
	} else if (reply->result == FAILOVER_DONE) {
		f->state = FAILOVER_LEADER;
		f->failures = 0;
		f->counts.won++;
	} else {
		f->call_due_ms = now + FAILOVER_RETRY_MS;
	}
}

void failover_answered(struct failover *f, const struct failover_reply *reply, uint64_t now)
{
	f->calling = FAILOVER_NO_CALL;
	f->call_due_ms = 0;
	switch (reply->call) {
	case FAILOVER_READ:
		failover_on_read(f, reply, now);
		break;
	case FAILOVER_GRANT:
		failover_on_grant(f, reply, now);
		break;
	case FAILOVER_CREATE:
		failover_on_create(f, reply);
		break;
	case FAILOVER_RENEW:
		failover_on_renew(f, reply, now);
		break;
	case FAILOVER_PUBLISH:
		failover_on_publish(f, reply, now);
		break;
	case FAILOVER_REVOKE:
		if (reply->result == FAILOVER_UNKNOWN)
			f->call_due_ms = now + FAILOVER_RETRY_MS;
		else if (f->state == FAILOVER_LEAVING)
			failover_free(f);
		break;
	default:
		break;
	}
}

/* So that another one can win: who was told of a better one waits longer than that one takes to notice. */
static void failover_back_off(struct failover *f, enum failover_outcome outcome, uint64_t now)
{
	uint64_t base = (f->options.ttl_ms / 4) << f->failures;

	if (outcome == FAILOVER_AHEAD || outcome == FAILOVER_DIVERGED)
		base = f->options.ttl_ms / 2 << f->failures;
	if (f->failures < FAILOVER_FAILURES_MAX)
		f->failures++;
	base += failover_random(f, base);
	if (f->campaign_ms < now + base)
		f->campaign_ms = now + base;
	failover_leave(f);
}

void failover_changed(
	struct failover *f, enum failover_outcome outcome, enum failover_role role, uint64_t now)
{
	enum failover_change change = f->changing;

	f->changing = FAILOVER_NO_CHANGE;
	f->change_due_ms = outcome == FAILOVER_CHANGED ? 0 : now + FAILOVER_RETRY_MS;
	f->role = role;
	if (change != FAILOVER_CLAIM && (change != FAILOVER_FOLLOW || outcome != FAILOVER_CHANGED))
		f->followed[0] = '\0';
	if (change == FAILOVER_ELECT) {
		if (outcome == FAILOVER_FAILED && ++f->tries < FAILOVER_TRIES)
			f->change_due_ms = now + f->options.ttl_ms / 4;
		else if (outcome != FAILOVER_CHANGED)
			failover_back_off(f, outcome, now);
		else if (f->state == FAILOVER_HOLDER)
			f->elected = true;
	}
}
