/*
 * A writing process dies in the middle of a commit while a reading one lives on, and another writer inherits
 * (M2, G5).
 *
 * Death is a jump out of the n-th write, flush, lock or unlock of a commit, after which the dead process's files are
 * closed, so that its locks are gone.  What must hold: the heir opens with the acknowledged commit or the one
 * in flight; the reader's snapshot never changes, however much the heir writes; power loss after the heir has
 * shown a state keeps it.
 *
 * Usage: test_crash__heir [seed [rounds]].
 */
#include "crash.h"

#include <db.h>
#include <ensure.h>
#include <setjmp.h>
#include <shared_map.h>

#define ROUNDS 600u

static struct {
	jmp_buf out;
	uint64_t left; /* operations until death; 0 = immortal */
} heir_death;

struct heir_bed {
	struct crash *crash;
	struct env_mem *mem;
	struct crash_watch watch;
	struct bts *writer, *reader;
	struct bts_txn *pinned;
	uint64_t pinned_digest, digest;
	uint32_t probes;
};

static void heir_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	(void)arg;
	(void)mem;
	if (event->op != ENV_MEM_FAULT && heir_death.left && !--heir_death.left)
		longjmp(heir_death.out, 1);
}

static void heir_open(struct heir_bed *bed, unsigned flags, struct bts **db)
{
	struct bts_options options = crash_options(bed->mem, flags);
	struct bts_error error = {BTS_OK, 0, ""};
	enum bts_err err = bts_open(CRASH_PATH, &options, db, &error);

	if (err) {
		crash_report(bed->crash, "open: %s: %s", bts_err_name(err), error.text);
		*db = NULL;
	}
}

static uint64_t heir_look(struct heir_bed *bed, struct bts *db)
{
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_txn *txn;
	uint64_t digest = 0;
	const char *wrong;

	if (bts_begin(db, BTS_READ, &txn, &error)) {
		crash_report(bed->crash, "begin: %s", error.text);
		return 0;
	}
	wrong = crash_digest(txn, &digest);
	if (wrong)
		crash_report(bed->crash, "reading: %s", wrong);
	bts_abort(txn);
	return digest;
}

static void heir_write(struct heir_bed *bed)
{
	uint64_t next = bed->digest + crash_probe_digest(++bed->probes);
	struct bts_error error = {BTS_OK, 0, ""};
	bts_txid txid;

	bed->watch.states[0] = bed->digest;
	bed->watch.states[1] = next;
	bed->watch.count = 2;
	if (crash_probe_put(bed->writer, bed->probes, &txid, &error))
		crash_report(bed->crash, "write: %s", error.text);
	bed->digest = bed->watch.states[0] = next;
	bed->watch.count = 1;
}

/* What the kernel does for a dead process. */
static void heir_bury(struct bts *db)
{
	struct bts_file *data = db->file, *lock = db->shared->lock;

	lock->env->ops->file_close(lock);
	data->env->ops->file_close(data);
}

static void heir_pinned(struct heir_bed *bed)
{
	uint64_t digest = 0;
	const char *wrong = crash_digest(bed->pinned, &digest);

	if (wrong || digest != bed->pinned_digest)
		crash_report(bed->crash, "a snapshot from before the heir has changed: %s",
			wrong ? wrong : "other contents");
}

/* The heir's first look decides which of the two states it is; from then on it is that one. */
static void heir_inherit(struct heir_bed *bed)
{
	uint64_t digest;

	heir_open(bed, BTS_OPEN_EXISTING, &bed->writer);
	if (!bed->writer)
		return;
	digest = heir_look(bed, bed->writer);
	if (digest != bed->watch.states[0] && (bed->watch.count < 2 || digest != bed->watch.states[1]))
		crash_report(bed->crash, "the heir has neither what was acknowledged nor what was in flight");
	bed->digest = bed->watch.states[0] = digest;
	bed->watch.count = 1;
	if (heir_look(bed, bed->reader) != digest)
		crash_report(bed->crash, "the living reader sees another head than the heir");
	heir_pinned(bed);
	crash_images(&bed->watch, bed->mem);
}

static void heir_after(struct heir_bed *bed, unsigned writes)
{
	struct bts_error error = {BTS_OK, 0, ""};

	for (unsigned i = 0; i < writes && !bed->crash->bad; i++) {
		heir_write(bed);
		heir_pinned(bed);
	}
	if (bts_check(bed->writer, NULL, &error))
		crash_report(bed->crash, "check of the heir: %s", error.text);
	crash_images(&bed->watch, bed->mem);
}

static void heir_round(struct crash *crash, uint64_t seed)
{
	struct heir_bed *bed = calloc(1, sizeof(*bed));

	ENSURE(bed);
	crash->seed = seed;
	rng_init(&crash->rng, seed);
	memset(crash->known, 0, crash->seen_cap * sizeof(*crash->known));
	bed->crash = crash;
	bed->probes = 1000; /* judges use the low numbers */
	bed->mem = env_mem_new((size_t)64 << 20);
	env_mem_tell_locks(bed->mem);
	bed->watch = (struct crash_watch){.crash = crash, .count = 1, .effort = 12, .exists = true};
	heir_open(bed, 0, &bed->writer);
	heir_open(bed, BTS_OPEN_READ_ONLY, &bed->reader);
	if (!bed->writer || !bed->reader)
		return;
	for (uint64_t n = rng_below(&crash->rng, 6); n > 0; n--)
		heir_write(bed);
	if (bts_begin(bed->reader, BTS_READ, &bed->pinned, NULL))
		return;
	bed->pinned_digest = bed->digest;
	for (int deaths = 0; deaths < 3 && !crash->bad; deaths++) {
		env_mem_set_hook(bed->mem, heir_hook, NULL);
		heir_death.left = 1 + rng_below(&crash->rng, 16);
		if (!setjmp(heir_death.out)) {
			while (!crash->bad)
				heir_write(bed);
		}
		env_mem_set_hook(bed->mem, NULL, NULL);
		heir_bury(bed->writer);
		crash->counts.kills++;
		heir_inherit(bed);
		if (bed->writer)
			heir_after(bed, 1 + (unsigned)rng_below(&crash->rng, 6));
	}
	if (!crash->bad) {
		bts_abort(bed->pinned);
		bts_close(bed->reader);
		bts_close(bed->writer);
		env_mem_free(bed->mem);
	}
	free(bed);
}

int main(int argc, char **argv)
{
	uint64_t seed = rng_seed_from(argc, argv, 1);
	unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : ROUNDS;
	struct crash crash;

	crash_init(&crash);
	for (unsigned i = 0; i < rounds && !crash.bad; i++)
		heir_round(&crash, seed + i);
	printf("heir: %" PRIu64 " deaths, %" PRIu64 " distinct images of %" PRIu64 ", %" PRIu64 " bad\n",
		crash.counts.kills, crash.counts.distinct, crash.counts.images, crash.bad);
	crash_fini(&crash);
	return crash.bad != 0;
}
