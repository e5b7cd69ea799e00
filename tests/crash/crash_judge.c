/* Judging one image, and making the images of a moment. */
#include "crash.h"

#include <ensure.h>
#include <stdarg.h>

#define CRASH_SEEN (1u << 22)
#define CRASH_UNITS 4096u
#define CRASH_EXHAUSTIVE 1024u /* at most so many subsets are all tried */

void crash_init(struct crash *crash)
{
	memset(crash, 0, sizeof(*crash));
	crash->seen_cap = CRASH_SEEN;
	crash->seen = calloc(crash->seen_cap, sizeof(*crash->seen));
	crash->known = calloc(crash->seen_cap, sizeof(*crash->known));
	ENSURE(crash->seen && crash->known);
}

void crash_fini(struct crash *crash)
{
	free(crash->seen);
	free(crash->known);
}

void crash_report(struct crash *crash, const char *format, ...)
{
	va_list args;

	if (crash->bad++)
		return;
	va_start(args, format);
	vsnprintf(crash->first, sizeof(crash->first), format, args);
	va_end(args);
	if (!crash->stop) {
		printf("seed %" PRIu64 ": %s\n", crash->seed, crash->first);
		fflush(stdout);
	}
}

void crash_report_at(const struct crash_watch *watch, const char *format, ...)
{
	static const char *const names[ENV_MEM_OPS + 1] = {
		[ENV_MEM_ANY] = "nothing",
		[ENV_MEM_WRITE] = "write",
		[ENV_MEM_SYNC] = "flush",
		[ENV_MEM_TRUNCATE] = "truncate",
		[ENV_MEM_RESERVE] = "reserve",
		[ENV_MEM_LINK] = "link",
		[ENV_MEM_UNLINK] = "unlink",
		[ENV_MEM_SYNC_DIR] = "flush of the directory",
		[ENV_MEM_CREATE] = "create",
	};
	struct crash *crash = watch->crash;
	char text[400];
	va_list args;
	size_t at;

	va_start(args, format);
	at = (size_t)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	for (; watch && at < sizeof(text); watch = watch->above)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "; depth %u before %s at %" PRIu64,
			watch->depth, names[watch->op] ? names[watch->op] : "nothing", watch->offset);
	crash_report(crash, "%s", text);
}

struct bts_options crash_options(struct env_mem *mem, unsigned flags)
{
	struct bts_options options;

	bts_options_init(&options);
	options.env = env_mem_env(mem);
	options.flags = flags;
	options.map_bytes = 64 << 20;
	return options;
}

/* Was it there?  It is afterwards.  A full table says yes: then less is counted, never more. */
static bool crash_noted(uint64_t *table, size_t cap, uint64_t hash)
{
	hash += !hash;
	for (size_t i = 0; i < 64; i++) {
		uint64_t *place = &table[(hash * UINT64_C(0x9e3779b97f4a7c15) + i) & (cap - 1)];

		if (*place == hash)
			return true;
		if (!*place) {
			*place = hash;
			return false;
		}
	}
	return true;
}

static void crash_finding(void *arg, bts_pgno page, const char *text)
{
	struct crash *crash = arg;

	crash_report(crash, "check: page %" PRIu64 ": %s", page, text);
}

/* The contents of an open database, or 0 with a report. */
static uint64_t crash_look(struct crash_watch *watch, struct bts *db, const char *when)
{
	struct bts_error error = {BTS_OK, 0, ""};
	uint64_t digest = 0;
	struct bts_txn *txn;
	const char *wrong;

	if (bts_begin(db, BTS_READ, &txn, &error)) {
		crash_report_at(watch, "%s: begin: %s", when, error.text);
		return 0;
	}
	wrong = crash_digest_all(db, txn, &digest);
	if (wrong)
		crash_report_at(watch, "%s: reading: %s", when, wrong);
	bts_abort(txn);
	return wrong ? 0 : digest;
}

static struct bts *crash_open(
	struct crash_watch *watch, struct env_mem *mem, unsigned flags, const char *when)
{
	struct bts_options options = crash_options(mem, flags);
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts *db = NULL;
	enum bts_err err = bts_open(CRASH_PATH, &options, &db, &error);

	if (err == BTS_OK)
		return db;
	crash_report_at(watch, "%s: open: %s: %s", when, bts_err_name(err), error.text);
	return NULL;
}

static bool crash_expected(const struct crash_watch *watch, uint64_t digest)
{
	for (unsigned i = 0; i < watch->count; i++) {
		if (watch->states[i] == digest)
			return true;
	}
	return false;
}

/* I4: numbers of a commit that was never acknowledged and is not there are not used again after an unclean
 * exit. */
static void crash_check_numbers(struct crash_watch *watch, struct bts *db, uint64_t digest)
{
	struct bts_stat stat = {.size = sizeof(stat)};

	if (!watch->in_flight || watch->count < 2 || digest != watch->states[0])
		return;
	for (unsigned i = 1; i < watch->count; i++)
		if (digest == watch->states[i])
			return;
	if (bts_stat(db, &stat, NULL))
		crash_report_at(watch, "stat fails");
	else if (!stat.clean_open && stat.txid <= watch->in_flight)
		crash_report_at(watch, "I4: opened at %" PRIu64 " though %" PRIu64 " was given out",
			stat.txid, watch->in_flight);
}

/* The next write: what it adds is expected from then on. */
static void crash_write(struct crash_watch *watch, struct bts *db, uint32_t number)
{
	uint64_t before = watch->states[0];
	struct bts_error error = {BTS_OK, 0, ""};
	bts_txid txid;
	enum bts_err err;

	watch->states[1] = before + crash_probe_digest(number);
	watch->count = 2;
	err = crash_probe_put(db, number, &txid, &error);
	if (err)
		crash_report_at(watch, "the next write: %s: %s", bts_err_name(err), error.text);
	else
		watch->states[0] = watch->states[1];
	watch->count = 1;
}

static bool crash_check(struct crash_watch *watch, struct bts *db)
{
	struct bts_check_options options = {crash_finding, NULL, watch->crash};
	struct bts_error error = {BTS_OK, 0, ""};
	enum bts_err err = bts_check(db, &options, &error);

	if (err)
		crash_report_at(watch, "check: %s: %s", bts_err_name(err), error.text);
	return !err;
}

void crash_judge(struct crash_watch *above, struct env_mem *image)
{
	struct crash *crash = above->crash;
	struct crash_watch watch = *above;
	struct bts *db;
	uint64_t digest;

	watch.depth++;
	watch.above = above;
	watch.op = ENV_MEM_ANY;
	watch.effort = 6;
	if (above->depth + 1 < CRASH_DEPTH_MAX && rng_one_in(&crash->rng, 24))
		env_mem_set_hook(image, crash_hook, &watch);
	db = crash_open(&watch, image, watch.exists ? BTS_OPEN_EXISTING : 0, "image");
	if (!db)
		return;
	digest = crash_look(&watch, db, "image");
	if (!crash_expected(&watch, digest))
		crash_report_at(&watch, "contents are neither those acknowledged nor those in flight");
	crash_check_numbers(&watch, db, digest);
	watch.states[0] = digest;
	watch.count = 1;
	watch.in_flight = 0;
	watch.exists = true;
	if (crash_check(&watch, db)) {
		crash_write(&watch, db, watch.depth);
		if (crash_look(&watch, db, "written image") != watch.states[0])
			crash_report_at(&watch, "the next write is not there");
	}
	bts_close(db);
	env_mem_set_hook(image, NULL, NULL);
	db = crash_open(&watch, image, BTS_OPEN_EXISTING, "reopened image");
	if (!db)
		return;
	if (crash_look(&watch, db, "reopened image") != watch.states[0])
		crash_report_at(&watch, "another content after reopening");
	bts_close(db);
}

/* One decision about every unit. */
struct crash_fate {
	struct env_mem_choice choices[CRASH_UNITS];
};

static struct env_mem_choice crash_choose(void *arg, size_t index, const struct env_mem_unit *unit)
{
	const struct crash_fate *fate = arg;

	if (index >= CRASH_UNITS)
		return (struct env_mem_choice){.version = unit->versions - 1};
	return fate->choices[index];
}

struct crash_moment {
	struct crash_watch *watch;
	struct env_mem *mem;
	struct env_mem_unit units[CRASH_UNITS];
	size_t count;
	struct crash_fate fate;
};

/* Make the image that fate decides and judge it, unless it has been judged under the same expectation. */
static void crash_take(struct crash_moment *moment)
{
	struct crash_watch *watch = moment->watch;
	struct crash *crash = watch->crash;
	struct env_mem *image;
	uint64_t hash, expectation = watch->states[0] + watch->count * 31 + watch->depth * 7;

	if (crash->stop && crash->bad)
		return;
	image = env_mem_crash(moment->mem, crash_choose, &moment->fate);
	hash = env_mem_hash(image);
	for (unsigned i = 1; i < watch->count; i++)
		expectation += watch->states[i] * (2 * i + 1);
	crash->counts.images++;
	if (!crash_noted(crash->seen, crash->seen_cap, hash)) {
		crash->counts.distinct++;
		crash->counts.second += watch->depth > 0;
	}
	if (!crash_noted(crash->known, crash->seen_cap, hash ^ expectation * UINT64_C(0xff51afd7ed558ccd)))
		crash_judge(watch, image);
	env_mem_free(image);
}

static void crash_set_all(struct crash_moment *moment, bool newest)
{
	for (size_t i = 0; i < moment->count; i++)
		moment->fate.choices[i] =
			(struct env_mem_choice){.version = newest ? moment->units[i].versions - 1 : 0};
}

static void crash_all_subsets(struct crash_moment *moment)
{
	crash_set_all(moment, false);
	for (;;) {
		size_t i;

		crash_take(moment);
		for (i = 0; i < moment->count; i++) {
			if (++moment->fate.choices[i].version < moment->units[i].versions)
				break;
			moment->fate.choices[i].version = 0;
		}
		if (i == moment->count)
			return;
	}
}

/* Prefixes in order of writing; all but one; only one. */
static void crash_lines(struct crash_moment *moment, size_t stride)
{
	for (size_t i = 0; i <= moment->count; i += stride) {
		for (size_t k = 0; k < moment->count; k++)
			moment->fate.choices[k] =
				(struct env_mem_choice){.version = k < i ? moment->units[k].versions - 1 : 0};
		crash_take(moment);
	}
	for (size_t i = 0; i < moment->count; i += stride) {
		crash_set_all(moment, true);
		moment->fate.choices[i].version = 0;
		crash_take(moment);
		crash_set_all(moment, false);
		moment->fate.choices[i].version = moment->units[i].versions - 1;
		crash_take(moment);
	}
}

/* A slot whose words have arrived up to somewhere in one of its sectors, everything else in or out. */
static void crash_tears(struct crash_moment *moment, unsigned stride)
{
	for (size_t i = 0; i < moment->count; i++) {
		unsigned newest = moment->units[i].versions - 1;

		if (!moment->units[i].tearable)
			continue;
		for (unsigned word = 1; word < 64; word += stride) {
			crash_set_all(moment, word % 4 != 3);
			moment->fate.choices[i] = (struct env_mem_choice){newest, 0, ~UINT64_C(0) << word};
			crash_take(moment);
		}
	}
}

static void crash_random(struct crash_moment *moment, unsigned images)
{
	struct rng *rng = &moment->watch->crash->rng;

	for (unsigned n = 0; n < images; n++) {
		uint64_t bias = 1 + rng_below(rng, 9);

		for (size_t i = 0; i < moment->count; i++) {
			const struct env_mem_unit *unit = &moment->units[i];
			struct env_mem_choice *choice = &moment->fate.choices[i];

			*choice = (struct env_mem_choice){.version = 0};
			if (rng_below(rng, 10) < bias)
				choice->version =
					unit->versions - 1 -
					(unsigned)(rng_one_in(rng, 3) ? rng_below(rng, unit->versions) : 0);
			if (unit->tearable && rng_one_in(rng, 8)) {
				choice->other = (unsigned)rng_below(rng, unit->versions);
				choice->words = rng_next(rng);
			}
		}
		crash_take(moment);
	}
}

/* Pages arrive whole or not at all: every subset of them when they are few. */
static void crash_page_subsets(struct crash_moment *moment, unsigned most)
{
	uint64_t pages[16];
	size_t count = 0;

	for (size_t i = 0; i < moment->count; i++) {
		uint64_t page =
			moment->units[i].kind == ENV_MEM_UNIT_SECTOR ? moment->units[i].offset / 4096 : ~i;

		if (count && pages[count - 1] == page)
			continue;
		if (count == 10)
			return;
		pages[count++] = page;
	}
	for (unsigned bits = 0; bits < 1u << count && bits < most; bits++) {
		size_t at = 0;

		for (size_t i = 0; i < moment->count; i++) {
			uint64_t page = moment->units[i].kind == ENV_MEM_UNIT_SECTOR
						? moment->units[i].offset / 4096
						: ~i;

			if (i && pages[at] != page)
				at++;
			moment->fate.choices[i] = (struct env_mem_choice){
				.version = bits >> at & 1 ? moment->units[i].versions - 1 : 0};
		}
		crash_take(moment);
	}
}

void crash_images(struct crash_watch *watch, struct env_mem *mem)
{
	struct crash_moment *moment = malloc(sizeof(*moment));
	uint64_t subsets = 1;

	ENSURE(moment);
	moment->watch = watch;
	moment->mem = mem;
	moment->count = env_mem_units(mem, moment->units, CRASH_UNITS);
	if (moment->count > CRASH_UNITS)
		moment->count = CRASH_UNITS;
	for (size_t i = 0; i < moment->count && subsets <= CRASH_EXHAUSTIVE; i++)
		subsets *= moment->units[i].versions;
	watch->crash->counts.moments++;
	if (subsets <= (watch->effort < 10 ? 64 : CRASH_EXHAUSTIVE) && watch->depth == 0) {
		crash_all_subsets(moment);
	} else {
		size_t stride = 1 + moment->count * 3 / (watch->effort + 1);

		crash_lines(moment, stride);
		if (watch->depth == 0)
			crash_page_subsets(moment, watch->effort);
		crash_random(moment, watch->effort / 2);
	}
	if (moment->count > 0)
		crash_tears(moment, watch->depth ? 29 : 1 + 200 / (watch->effort + 1));
	free(moment);
}

/* kill -9: the page cache lives on.  What a new process was shown must survive the power loss after that
 * (I6). */
static void crash_kill(struct crash_watch *above, struct env_mem *mem)
{
	struct crash *crash = above->crash;
	struct env_mem *after = env_mem_clone(mem);
	struct crash_watch watch = *above;
	unsigned flags = rng_one_in(&crash->rng, 2) ? BTS_OPEN_READ_ONLY : 0;
	struct bts *db;
	uint64_t size;

	crash->counts.kills++;
	watch.depth++;
	watch.above = above;
	watch.op = ENV_MEM_ANY;
	watch.effort = 8;
	env_mem_set_hook(after, crash_hook, &watch);
	if (!env_mem_bytes(after, CRASH_PATH, &size))
		flags = 0;
	db = crash_open(&watch, after, flags, "after kill -9");
	if (db) {
		uint64_t digest = crash_look(&watch, db, "after kill -9");

		if (!crash_expected(&watch, digest))
			crash_report(
				crash, "after kill -9: neither what was acknowledged nor what was in flight");
		if (!flags)
			crash_check_numbers(&watch, db, digest);
		watch.states[0] = digest;
		watch.count = 1;
		watch.in_flight = 0;
		watch.exists = true;
		crash_images(&watch, after);
		if (!flags)
			crash_write(&watch, db, watch.depth);
		bts_close(db);
		crash_images(&watch, after);
	}
	env_mem_free(after);
}

void crash_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	struct crash_watch *watch = arg;

	if (event->op == ENV_MEM_FAULT || event->op == ENV_MEM_LOCK ||
		(watch->crash->stop && watch->crash->bad))
		return;
	if (watch->crash->sparse && !watch->depth && !rng_one_in(&watch->crash->rng, watch->crash->sparse))
		return;
	watch->op = event->op;
	watch->offset = event->offset;
	crash_images(watch, mem);
	if (watch->depth == 0 && rng_one_in(&watch->crash->rng, 3))
		crash_kill(watch, mem);
}
