/*
 * The machine of failover.h on three nodes, with a model of etcd, of elections and of replication: calls are slow, get lost, or are done after
 * they were given up; clocks run at rates within the margin; processes stand still, die and come back; links break.
 *
 * At no instant may two nodes be primaries whose deadlines lie ahead, each by its own clock, standing still or not.  A write that was
 * acknowledged (it is on another node, and its primary's deadline lay ahead when the answer went out) must be in the primary's file at the end, and
 * when faults have ended there is a primary within a minute, whom all follow but one whose file has failed.  With rules broken on purpose it has to fail.
 */
#include "cmocka.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "failover.h"
#include "rng.h"
#include "sabotage.h"

#define NODES 3
#define SURVIVE 1
#define TTL_MS 5000
#define TICK_MS 10
#define FAULTY_MS 90000
#define CALM_MS 60000
#define LIMIT_MS 800 /* of a call, by the caller's clock */
#define LOG_MAX 4096

unsigned fault_sabotage;

struct entry {
	uint32_t epoch, id;
};
struct call {
	bool under_way, arrived, answered;
	struct failover_reply reply; /* what it will be told */
	int64_t lease;
	uint64_t arrives, returns, given_up; /* real, real, the caller's clock; 0: never */
};
struct node {
	char name[4], source[16];
	struct failover machine;
	double rate;
	uint64_t offset;
	bool down;
	bool broken;	      /* its file, until it begins anew */
	uint64_t still_until; /* real */
	bool reached_etcd;
	uint64_t deadline; /* own clock */
	struct call call;
	struct call late; /* given up, and on its way yet */
	enum failover_change change;
	struct failover_key whom;
	uint64_t change_due; /* real */
	unsigned asked;
	uint32_t bid, votes;
	bool ahead;
	/* durable */
	enum { PRIMARY, FENCED, FOLLOWER } role;
	uint32_t epoch, promised;
	int follows; /* -1: nobody */
	struct entry log[LOG_MAX];
	unsigned count;
};
struct world {
	struct rng rng;
	uint64_t now;	  /* real */
	bool calm, hasty; /* hasty: clocks at their worst, and nobody takes time to win */
	struct node nodes[NODES];
	bool link[NODES][NODES];
	double etcd_rate;
	int64_t next_lease;
	struct {
		int64_t id;
		uint64_t expires; /* real */
	} leases[64];
	struct failover_key key;
	bool acked[LOG_MAX];
	uint32_t next_id;
	unsigned acks;
	bool two;
};

static uint64_t clock_of(const struct world *w, const struct node *n)
{
	return n->offset + (uint64_t)((double)w->now * n->rate);
}

static bool chance(struct world *w, unsigned of)
{
	return rng_next(&w->rng) % of == 0;
}

static uint64_t between(struct world *w, uint64_t least, uint64_t most)
{
	return least + rng_next(&w->rng) % (most - least + 1);
}

static bool still(const struct world *w, const struct node *n)
{
	return n->down || w->now < n->still_until;
}

static uint32_t newest(const struct node *n)
{
	return n->count ? n->log[n->count - 1].epoch : 0;
}

/* ---- etcd ---- */

static void etcd_lose(struct world *w, size_t i)
{
	if (w->key.there && w->key.lease == w->leases[i].id)
		w->key.there = false;
	w->leases[i].id = 0;
}

static void etcd_tick(struct world *w)
{
	for (size_t i = 0; i < 64; i++)
		if (w->leases[i].id && w->now >= w->leases[i].expires)
			etcd_lose(w, i);
}

static size_t etcd_lease(struct world *w, int64_t id)
{
	size_t i = 0;

	while (i < 64 && w->leases[i].id != id)
		i++;
	return i;
}

static void etcd_take(struct world *w, struct node *n, struct call *c)
{
	struct failover_reply *reply = &c->reply;
	enum failover_call call = reply->call;
	size_t at = call == FAILOVER_GRANT ? etcd_lease(w, 0) : etcd_lease(w, c->lease);
	bool put = (call == FAILOVER_CREATE && !w->key.there) ||
		   (call == FAILOVER_PUBLISH && w->key.there && w->key.lease == c->lease);

	c->arrived = true;
	reply->result = FAILOVER_DONE;
	reply->ttl_ms = TTL_MS;
	if (call == FAILOVER_READ) {
		reply->key = w->key;
		return;
	}
	if (call == FAILOVER_GRANT) {
		assert_true(at < 64);
		w->leases[at].id = reply->lease = ++w->next_lease;
	}
	if (at == 64 || ((call == FAILOVER_CREATE || call == FAILOVER_PUBLISH) && !put)) {
		reply->result = FAILOVER_REFUSED;
		return;
	}
	if (call == FAILOVER_GRANT || call == FAILOVER_RENEW)
		w->leases[at].expires = w->now + (uint64_t)(TTL_MS / w->etcd_rate);
	if (call == FAILOVER_REVOKE)
		etcd_lose(w, at);
	if (put) {
		w->key = (struct failover_key){
			.there = true, .lease = c->lease, .elected = call == FAILOVER_PUBLISH};
		strcpy(w->key.name, n->name);
		strcpy(w->key.source, n->source);
	}
}

static void call_begin(struct world *w, struct node *n, enum failover_call call)
{
	struct call *c = &n->call;
	unsigned worst = w->calm ? 20 : 1200;

	if (c->under_way && !c->arrived)
		n->late = *c;
	memset(c, 0, sizeof(*c));
	c->under_way = true;
	c->reply.call = call;
	c->reply.sent_ms = clock_of(w, n);
	c->lease = n->machine.lease;
	c->given_up = clock_of(w, n) + LIMIT_MS;
	if (!n->reached_etcd || (!w->calm && chance(w, 20)))
		return;
	c->arrives = w->now + between(w, 1, chance(w, 10) ? worst : 20);
	if (w->calm || !chance(w, 20))
		c->returns = c->arrives + between(w, 1, chance(w, 10) ? worst : 20);
}

/* The network's part; who called may stand still. */
static void call_tick(struct world *w, struct node *n, struct call *c)
{
	if (c->arrives && !c->arrived && w->now >= c->arrives)
		etcd_take(w, n, c);
	if (c->arrived && c->returns && w->now >= c->returns)
		c->answered = true;
}

static void call_end(struct world *w, struct node *n)
{
	struct call *c = &n->call;

	if (!c->under_way || (!c->answered && clock_of(w, n) < c->given_up))
		return;
	if (!c->answered) {
		struct failover_reply reply = {
			.call = c->reply.call, .result = FAILOVER_UNKNOWN, .sent_ms = c->reply.sent_ms};

		if (!c->arrived && c->arrives)
			n->late = *c;
		c->under_way = false;
		failover_answered(&n->machine, &reply, clock_of(w, n));
		return;
	}
	c->under_way = false;
	failover_answered(&n->machine, &c->reply, clock_of(w, n));
}

/* ---- roles ---- */

static enum failover_role role_of(const struct node *n)
{
	return n->broken		 ? FAILOVER_BROKEN
	       : n->role == PRIMARY	 ? FAILOVER_PRIMARY
	       : n->count == 0		 ? FAILOVER_EMPTY
	       : n->promised > newest(n) ? FAILOVER_PROMISED
					 : FAILOVER_FOLLOWER;
}

static bool reaches(const struct world *w, const struct node *a, const struct node *b)
{
	return w->link[a - w->nodes][b - w->nodes] && !still(w, b);
}

static void election_begin(struct node *n)
{
	n->asked = 0;
	n->bid = (n->epoch > n->promised ? n->epoch : n->promised) + 1;
	n->promised = n->bid;
	n->votes = 1;
	n->ahead = false;
}

/* The next member; false: all were asked. */
static bool election_ask(struct world *w, struct node *n)
{
	struct node *member = &w->nodes[n->asked];

	if (n->asked == NODES)
		return false;
	n->asked++;
	if (member == n || !reaches(w, n, member) || member->count == 0 || member->broken)
		return true;
	if (n->bid <= member->promised || n->bid <= member->epoch) {
		if (member->promised > n->promised) /* it is told, and bids above next time */
			n->promised = n->bid =
				member->promised > member->epoch ? member->promised : member->epoch;
		n->votes = 0;
		return false;
	}
	member->promised = n->bid;
	if (member->role == PRIMARY)
		member->role = FENCED;
	n->votes += n->votes > 0;
	n->ahead |= newest(member) > newest(n) || (newest(member) == newest(n) && member->count > n->count);
	return true;
}

static enum failover_outcome election_end(struct world *w, struct node *n)
{
	if (n->broken)
		return FAILOVER_FAILED;
	if (n->ahead)
		return FAILOVER_AHEAD;
	if (n->votes < NODES - SURVIVE || n->promised != n->bid || clock_of(w, n) >= n->deadline)
		return FAILOVER_FAILED;
	n->role = PRIMARY;
	n->epoch = n->bid;
	n->follows = -1;
	n->log[n->count++] = (struct entry){n->epoch, 0}; /* the epoch's first commit */
	assert_true(n->count < LOG_MAX);
	return FAILOVER_CHANGED;
}

static void claim(struct world *w, struct node *n)
{
	for (struct node *m = w->nodes; m < w->nodes + NODES; m++) {
		if (m == n || m->broken || m->count == 0 || !reaches(w, n, m) || n->promised <= m->promised ||
			n->promised <= m->epoch)
			continue;
		m->promised = n->promised;
		if (m->role == PRIMARY)
			m->role = FENCED;
	}
}

static void change_tick(struct world *w, struct node *n)
{
	enum failover_outcome outcome = FAILOVER_CHANGED;

	if (!n->change || w->now < n->change_due)
		return;
	if (n->change == FAILOVER_ELECT && election_ask(w, n)) {
		n->change_due = w->now + between(w, 1, w->calm || w->hasty ? 20 : 300);
		return;
	}
	if (n->change == FAILOVER_DEMOTE && n->broken)
		outcome = FAILOVER_FAILED;
	else if (n->change == FAILOVER_DEMOTE && n->role == PRIMARY)
		n->role = FENCED;
	if (n->change == FAILOVER_ELECT)
		outcome = election_end(w, n);
	if (n->change == FAILOVER_CLAIM)
		claim(w, n);
	if (n->change == FAILOVER_FOLLOW) {
		n->follows = n->whom.source[6] - '0';
		n->role = FOLLOWER;
	}
	n->change = FAILOVER_NO_CHANGE;
	failover_changed(&n->machine, outcome, role_of(n), clock_of(w, n));
}

/* ---- writes ---- */

static void replicate(struct world *w, struct node *n)
{
	struct node *from = n->follows >= 0 ? &w->nodes[n->follows] : NULL;
	unsigned same = 0;

	if (!from || from == n || n->role == PRIMARY || n->broken || still(w, n) || !reaches(w, n, from) ||
		from->epoch < n->promised || from->epoch < n->epoch)
		return;
	while (same < n->count && same < from->count &&
		!memcmp(&n->log[same], &from->log[same], sizeof(n->log[0])))
		same++;
	if (from->epoch == n->epoch && same < n->count) /* behind what is here already */
		return;
	memcpy(n->log, from->log, from->count * sizeof(n->log[0]));
	n->count = from->count;
	n->epoch = from->epoch;
}

static bool writes(const struct world *w, const struct node *n)
{
	return n->role == PRIMARY && !n->down && !n->broken && clock_of(w, n) < n->deadline;
}

static void write_tick(struct world *w, struct node *n)
{
	if (!writes(w, n) || still(w, n))
		return;
	if (chance(w, 12) && n->count < LOG_MAX - 200 && w->next_id < LOG_MAX - 1)
		n->log[n->count++] = (struct entry){n->epoch, ++w->next_id};
	for (unsigned i = n->count > 8 ? n->count - 8 : 0; i < n->count; i++) {
		for (struct node *m = w->nodes; m < w->nodes + NODES; m++) {
			bool has =
				m != n && i < m->count && !memcmp(&m->log[i], &n->log[i], sizeof(n->log[0]));

			if (has && reaches(w, n, m) && !w->acked[n->log[i].id]) {
				w->acked[n->log[i].id] = true;
				w->acks++;
			}
		}
	}
}

/* ---- the world ---- */

static void node_begin(struct world *w, struct node *n)
{
	struct failover_options options = {
		.name = n->name, .source = n->source, .ttl_ms = TTL_MS, .seed = rng_next(&w->rng)};

	n->deadline = 0;
	n->change = FAILOVER_NO_CHANGE;
	n->call.under_way = false;
	n->follows = -1;
	n->down = n->broken = false;
	failover_init(&n->machine, &options, clock_of(w, n));
}

static void fault_tick(struct world *w, struct node *n)
{
	if (n->down ? chance(w, 300) : chance(w, 3000)) {
		if (n->down)
			node_begin(w, n);
		else
			n->down = true;
	}
	n->broken |= n->role == PRIMARY && w->acks && chance(w, 4000);
	if (!n->down && chance(w, 1000))
		n->still_until = w->now + between(w, 100, 12000);
	if (chance(w, 500))
		n->reached_etcd = !chance(w, 4);
	if (chance(w, 200))
		w->link[n - w->nodes][rng_next(&w->rng) % NODES] = !chance(w, 4);
	if (!still(w, n) && chance(w, 3000))
		failover_pause(&n->machine, clock_of(w, n) + 2 * TTL_MS);
}

static void node_tick(struct world *w, struct node *n)
{
	struct failover_do todo;

	call_tick(w, n, &n->call);
	call_tick(w, n, &n->late);
	if (still(w, n))
		return;
	call_end(w, n);
	change_tick(w, n);
	failover_step(&n->machine, role_of(n), clock_of(w, n), &todo);
	if (todo.deadline_ms == 0 || todo.deadline_ms > n->deadline)
		n->deadline = todo.deadline_ms;
	if (todo.change) {
		n->change = todo.change;
		n->whom = n->machine.key;
		n->change_due = w->now + between(w, 1,
						 w->calm			  ? 20
						 : todo.change == FAILOVER_DEMOTE ? 3000
						 : w->hasty			  ? 20
										  : 500);
		if (todo.change == FAILOVER_ELECT)
			election_begin(n);
	}
	if (todo.call)
		call_begin(w, n, todo.call);
}

static unsigned writers(const struct world *w)
{
	unsigned count = 0;

	for (const struct node *n = w->nodes; n < w->nodes + NODES; n++)
		count += writes(w, n);
	return count;
}

static void world_tick(struct world *w)
{
	w->now += TICK_MS;
	etcd_tick(w);
	for (struct node *n = w->nodes; n < w->nodes + NODES; n++) {
		if (!w->calm)
			fault_tick(w, n);
		node_tick(w, n);
		w->two |= writers(w) > 1;
	}
	for (struct node *n = w->nodes; n < w->nodes + NODES; n++) {
		write_tick(w, n);
		replicate(w, n);
	}
}

static void world_calm(struct world *w)
{
	bool broken = false;

	w->calm = true;
	memset(w->link, true, sizeof(w->link));
	for (struct node *n = w->nodes; n < w->nodes + NODES; n++) {
		n->still_until = 0;
		n->reached_etcd = true;
		if (n->down || (n->broken && broken))
			node_begin(w, n);
		broken |= n->broken;
	}
}

static struct world *world_new(uint64_t seed)
{
	struct world *w = calloc(1, sizeof(*w));

	rng_init(&w->rng, seed);
	w->now = 1000000;
	/* Within the margin: in a lease's time the clocks part by less than that. */
	w->hasty = chance(w, 2);
	w->etcd_rate = 1.0 + (double)between(w, w->hasty ? 45 : 0, 45) / 1000;
	memset(w->link, true, sizeof(w->link));
	for (int i = 0; i < NODES; i++) {
		struct node *n = &w->nodes[i];

		snprintf(n->name, sizeof(n->name), "n%c", '0' + i);
		snprintf(n->source, sizeof(n->source), "http:/%c", '0' + i);
		n->rate = 1.0 - (double)between(w, w->hasty ? 40 : 0, 45) / 1000;
		n->offset = rng_next(&w->rng) % 1000000;
		n->reached_etcd = true;
		n->role = i ? FOLLOWER : PRIMARY;
		n->epoch = i ? 0 : 1;
		n->count = i ? 0 : 1;
		n->log[0] = (struct entry){1, 0};
		node_begin(w, n);
	}
	return w;
}

static const struct node *world_end(struct world *w)
{
	for (uint64_t end = w->now + CALM_MS; w->now < end;)
		world_tick(w);
	for (const struct node *n = w->nodes; n < w->nodes + NODES; n++)
		if (writes(w, n))
			return n;
	return NULL;
}

/* "", or what went wrong. */
static const char *run(uint64_t seed, unsigned *acks, uint64_t *elections)
{
	struct world *w = world_new(seed);
	bool have[LOG_MAX] = {false};
	const char *wrong = "";
	const struct node *last;

	for (uint64_t end = w->now + FAULTY_MS; w->now < end;)
		world_tick(w);
	world_calm(w);
	last = world_end(w);
	if (!last)
		wrong = "no primary though all is well";
	for (unsigned i = 0; last && i < last->count; i++)
		have[last->log[i].id] = true;
	for (uint32_t id = 1; last && id <= w->next_id; id++)
		if (w->acked[id] && !have[id])
			wrong = "an acknowledged write is lost";
	for (const struct node *n = w->nodes; last && n < w->nodes + NODES; n++)
		if (!n->broken && (n->epoch != last->epoch || n->count + 8 < last->count))
			wrong = "a node does not follow though all is well";
	if (w->two)
		wrong = "two primaries at one instant";
	*acks += w->acks;
	for (int i = 0; i < NODES; i++)
		*elections += w->nodes[i].machine.counts.elections;
	free(w);
	return wrong;
}

static void test_no_two_primaries(void **state)
{
	uint64_t seed = getenv("BTS_SEED") ? strtoull(getenv("BTS_SEED"), NULL, 0) : 1;
	unsigned rounds = getenv("BTS_ROUNDS") ? (unsigned)atoi(getenv("BTS_ROUNDS")) : 30, acks = 0;
	uint64_t elections = 0;

	(void)state;
	fault_sabotage = 0;
	for (unsigned i = 0; i < rounds; i++) {
		const char *wrong = run(seed + i, &acks, &elections);

		if (*wrong)
			fail_msg("BTS_SEED=%" PRIu64 ": %s", seed + i, wrong);
	}
	printf("%u worlds from BTS_SEED=%" PRIu64 ": %u acknowledged writes, %" PRIu64 " elections\n", rounds,
		seed, acks, elections);
	assert_true(acks > 100 * rounds);
}

static void test_broken_rules_are_noticed(void **state)
{
	/* from: a little before the first world that notices, to be short */
	static const struct {
		unsigned rule, from;
	} rules[] = {{SABOTAGE_LEASE_FROM_ANSWER, 120}, {SABOTAGE_LEASE_NO_MARGIN, 245},
		{SABOTAGE_LEASE_NO_FENCE, 3320}, {SABOTAGE_LEASE_NO_KEY, 75}};

	(void)state;
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		const char *wrong = "";
		unsigned acks = 0, seed = rules[i].from;
		uint64_t elections = 0;

		fault_sabotage = rules[i].rule;
		while (!*wrong && seed < rules[i].from + 400)
			wrong = run(seed++, &acks, &elections);
		fault_sabotage = 0;
		printf("rule %u broken: %s (seed %u)\n", rules[i].rule, wrong, seed - 1);
		assert_string_not_equal(wrong, "");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_two_primaries),
		cmocka_unit_test(test_broken_rules_are_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
