/* Judging the history of a schedule, and the images that a power loss leaves of it. */
#include "interleave.h"

#include <ensure.h>
#include <fault.h>
#include <rng.h>
#include <shared_map.h>
#include <string.h>

#define IL_KNOWN (1u << 21)
#define IL_RANDOM_IMAGES 3u
#define IL_LIVE_EVERY 16u

#ifdef BTS_SABOTAGE
unsigned fault_sabotage;
#endif

void il_init(struct il *il, struct sched *sched)
{
	memset(il, 0, sizeof(*il));
	il->sched = sched;
	il->known = calloc(IL_KNOWN, sizeof(*il->known));
	ENSURE(il->known);
	il_make_base(il);
}

void il_fini(struct il *il)
{
	for (unsigned i = 0; i < IL_BEGINNINGS; i++)
		env_mem_free(il->bases[i]);
	free(il->known);
	sched_free(il->sched);
}

void il_prepare(void *arg)
{
	struct il *il = arg;

	il->mem = env_mem_clone(il->bases[il->beginning]);
	sched_use(il->sched, il->mem);
	memset(il->ops, 0, sizeof(il->ops));
	il->op_count = 1;
	il->read_count = 0;
	memset(il->db, 0, sizeof(il->db));
	for (unsigned i = 0; i < il->procs; i++) {
		if (il->open_flags[i] == IL_NOT_OPEN)
			continue;
		sched_act_as(il->sched, i);
		il_open(il, i, il->open_flags[i]);
		ENSURE(il->db[i]);
	}
}

void il_finish(void *arg)
{
	struct il *il = arg;

	env_mem_free(il->mem);
}

/* The engine's list of handles, for fork, must not keep one whose memory goes. */
static void il_unlink(void *arg, void *block)
{
	struct il *il = arg;
	struct shared *s = block;

	if (s->env != sched_env(il->sched) || !s->link || *s->link != s)
		return;
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
}

void il_died(void *arg, unsigned process)
{
	struct il *il = arg;

	sched_blocks(il->sched, process, sizeof(struct shared), il_unlink, il);
}

static bool il_writes(const struct il *il, unsigned op, unsigned key)
{
	return il->ops[op].process == key || (key == IL_SHARED && il->ops[op].shared);
}

/* The operation with the highest number below limit of those that wrote the key; 0: the base. */
static unsigned il_last_before(const struct il *il, unsigned key, bts_txid limit)
{
	unsigned last = 0;

	for (unsigned i = 1; i < il->op_count; i++)
		if (il->ops[i].txid && il->ops[i].txid < limit && il_writes(il, i, key) &&
			il->ops[i].txid > il->ops[last].txid)
			last = i;
	return last;
}

static void il_settle_read(struct il *il, const struct il_read *read)
{
	for (unsigned key = 0; key < IL_KEYS; key++) {
		unsigned want = il_last_before(il, key, read->snapshot + 1);

		if (want != read->op[key])
			sched_fail(il->sched,
				"process %u: at %" PRIu64
				" key %u shows operation %u, not %u of transaction %" PRIu64,
				read->process, read->snapshot, key, read->op[key], want, il->ops[want].txid);
	}
}

/* One that happened unseen, in flight when its process died, links through. */
static void il_settle_link(struct il *il, unsigned op)
{
	unsigned before = il->ops[op].previous, want = il_last_before(il, IL_SHARED, il->ops[op].txid);

	for (unsigned i = 0;
		i < IL_OPS && before && il->ops[before].fate == IL_FLYING && !il->ops[before].txid; i++)
		before = il->ops[before].previous;
	if (before != want)
		sched_fail(il->sched,
			"operation %u (transaction %" PRIu64
			") was written on operation %u, but %u (transaction %" PRIu64
			") came before it: a lost update",
			op, il->ops[op].txid, before, want, il->ops[want].txid);
}

/* Somebody wrote the shared key after the snapshot, or was about to when he died. */
static void il_settle_refused(struct il *il, unsigned op)
{
	for (unsigned i = 1; i < il->op_count; i++) {
		const struct il_op *o = &il->ops[i];

		if (i != op && o->shared && o->fate != IL_REFUSED &&
			(!o->txid || o->txid > il->ops[op].snapshot))
			return;
	}
	sched_fail(il->sched, "operation %u was refused at %" PRIu64 ", and nobody had written after that",
		op, il->ops[op].snapshot);
}

/* All that was read and acknowledged fits one order. */
static void il_settle(struct il *il)
{
	for (unsigned i = 0; i < il->read_count; i++)
		il_settle_read(il, &il->reads[i]);
	for (unsigned i = 1; i < il->op_count; i++) {
		if (il->ops[i].fate == IL_REFUSED)
			il_settle_refused(il, i);
		if (!il->ops[i].txid)
			continue;
		if (il->ops[i].shared)
			il_settle_link(il, i);
		for (unsigned k = 1; k < i; k++)
			if (il->ops[k].txid == il->ops[i].txid)
				sched_fail(il->sched, "operations %u and %u are both transaction %" PRIu64, k,
					i, il->ops[i].txid);
	}
}

static void il_finding(void *arg, bts_pgno page, const char *text)
{
	struct il *il = arg;

	sched_fail(il->sched, "check: page %" PRIu64 ": %s", page, text);
}

static void il_check(struct il *il, const char *when)
{
	struct bts_check_options options = {il_finding, NULL, il};
	struct bts_error error = {BTS_OK, 0, ""};
	enum bts_err err = sched_failed(il->sched) ? BTS_OK : bts_check(il->db[IL_JUDGE], &options, &error);

	if (err)
		sched_fail(il->sched, "check %s: %s: %s", when, bts_err_name(err), error.text);
}

/*
 * I10: all have closed in order, so the last of them sealed.  Not asked where processes come meanwhile: one that looks
 * whether somebody is there is there itself for a moment, and whoever closes then takes it for another.
 */
static void il_check_sealed(struct il *il)
{
	struct bts_stat stat = {.size = sizeof(stat)};

	if (sched_lost(il->sched) || il->beginning != IL_CLOSED || sched_failed(il->sched))
		return;
	for (unsigned i = 0; i < il->procs; i++)
		if (il->open_flags[i] == IL_NOT_OPEN)
			return;
	if (bts_stat(il->db[IL_JUDGE], &stat, NULL))
		sched_fail(il->sched, "stat fails");
	else if (!stat.clean_open)
		sched_fail(il->sched, "everybody closed, and nobody sealed");
}

/* What is there now: history, structure, the next writes, the next openings. */
static void il_look(struct il *il, unsigned openings)
{
	for (unsigned i = 0; i < openings && !sched_failed(il->sched); i++) {
		il_open(il, IL_JUDGE, 0);
		if (sched_failed(il->sched))
			return;
		il_check_sealed(il);
		il_read(il, IL_JUDGE);
		il_settle(il);
		il_check(il, "at the end");
		for (int k = 0; k < 2 && i == 0 && !sched_failed(il->sched); k++)
			il_write(il, IL_JUDGE, true);
		il_check(il, "after writing");
		il_close(il, IL_JUDGE);
	}
}

static uint64_t il_hash(uint64_t h, uint64_t v)
{
	h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 31;
}

static bool il_noted(struct il *il, uint64_t hash)
{
	hash += !hash;
	for (unsigned i = 0; i < 64; i++) {
		uint64_t *place = &il->known[(hash + i) & (IL_KNOWN - 1)];

		if (*place == hash)
			return true;
		if (!*place) {
			*place = hash;
			return false;
		}
	}
	return true;
}

static uint64_t il_expectation(const struct il *il)
{
	uint64_t hash = il->op_count;

	for (unsigned i = 1; i < il->op_count; i++) {
		const struct il_op *o = &il->ops[i];

		hash = il_hash(
			hash, o->process | o->shared << 3 | o->fate << 4 | o->seen << 6 | o->previous << 7);
		hash = il_hash(hash, o->txid);
	}
	return hash;
}

/* Open what a power loss left; the world's history is as before afterwards. */
static void il_image(struct il *il, struct env_mem *image)
{
	unsigned op_count = il->op_count, read_count = il->read_count;
	struct il_op *ops;

	il->images++;
	if (il_noted(il, il_hash(env_mem_hash(image), il_expectation(il)))) {
		env_mem_free(image);
		return;
	}
	il->distinct++;
	ops = malloc(sizeof(il->ops));
	ENSURE(ops);
	memcpy(ops, il->ops, sizeof(il->ops));
	sched_use(il->sched, image);
	il_look(il, 2);
	sched_use(il->sched, il->mem);
	memcpy(il->ops, ops, sizeof(il->ops));
	il->op_count = op_count;
	il->read_count = read_count;
	free(ops);
	if (!sched_failed(il->sched)) /* else handles on it are open */
		env_mem_free(image);
}

static struct env_mem_choice il_choose(void *arg, size_t index, const struct env_mem_unit *unit)
{
	struct rng *rng = arg;

	(void)index;
	return (struct env_mem_choice){.version = (unsigned)rng_below(rng, unit->versions)};
}

static void il_images(struct il *il)
{
	struct rng rng;

	rng_init(&rng, il->op_count);
	il_image(il, env_mem_crash(il->mem, env_mem_choose_durable, NULL));
	if (!env_mem_unflushed(il->mem) || sched_failed(il->sched))
		return;
	il_image(il, env_mem_crash(il->mem, env_mem_choose_newest, NULL));
	for (unsigned i = 0; i < IL_RANDOM_IMAGES && !sched_failed(il->sched); i++)
		il_image(il, env_mem_crash(il->mem, il_choose, &rng));
}

/*
 * Images are judged once each.  The file as it stands, with the lock file that the processes left behind, is opened only
 * after some of the schedules: nobody is there any more, so it should not matter what that one holds.
 */
void il_judge(void *arg, bool cut)
{
	struct il *il = arg;

	il_settle(il);
	if (!sched_failed(il->sched))
		il_images(il);
	if (cut || sched_failed(il->sched) || il->schedules++ % il->live_every)
		return;
	il_look(il, 1);
	if (!sched_failed(il->sched))
		il_images(il);
}

bool il_run(struct il *il, const struct il_scenario *scenario, const char *choices)
{
	struct sched_scenario sched = scenario->sched;
	struct sched_counts counts = {0};
	bool fine;

	sched.prepare = il_prepare;
	sched.judge = il_judge;
	sched.died = il_died;
	sched.finish = il_finish;
	il->procs = sched.procs;
	il->beginning = scenario->beginning;
	memcpy(il->open_flags, scenario->open_flags, sizeof(il->open_flags));
	il->live_every = choices ? 1 : IL_LIVE_EVERY;
	il->images = il->distinct = il->conflicts = 0;
	fine = choices ? sched_replay(il->sched, &sched, il, choices)
		       : sched_explore(il->sched, &sched, il, &counts);
	if (!choices)
		printf("%-44s %7" PRIu64 " schedules%s, %" PRIu64 " points at most, %" PRIu64
		       " deaths, %" PRIu64 " cuts, %" PRIu64 " images (%" PRIu64 " distinct), %" PRIu64
		       " conflicts\n",
			sched.name, counts.schedules, counts.thinned ? " of more" : "", counts.longest,
			counts.deaths, counts.cuts, il->images, il->distinct, il->conflicts);
	fflush(stdout);
	il->total += counts.schedules;
	return fine;
}

int il_main(int argc, char **argv, const struct il_scenario *scenarios, unsigned count, uint64_t schedules)
{
	uint64_t seed = rng_seed_from(argc, argv, 1);
	unsigned only = count, bad = 0;
	uint64_t total = 0;

	if (!sched_possible()) {
		printf("SKIP: this sanitizer must know every stack\n");
		return 0;
	}
	if (argc > 2)
		schedules = strtoull(argv[2], NULL, 0);
	if (argc > 3)
		only = (unsigned)strtoul(argv[3], NULL, 0);
	for (unsigned i = 0; i < count && !bad; i++) {
		struct il il;

		if (only < count && i != only)
			continue;
		il_init(&il,
			sched_new(seed, only < count ? schedules : schedules * scenarios[i].weight / 100));
		bad += !il_run(&il, &scenarios[i], argc > 4 ? argv[4] : NULL);
		total += il.total;
		il_fini(&il);
	}
	printf("%" PRIu64 " schedules, %u bad\n", total, bad);
	return bad != 0;
}
