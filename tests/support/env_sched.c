/*
 * Which process runs next: coroutines, choices and the walk over all schedules.
 *
 * A schedule is the list of its choices, one for each point that offered more than one thing to do.  The first run takes
 * the first of each; the next schedule is the one before with its last choice that has more to offer moved on, and all
 * that came after it forgotten.
 */
#include "env_sched_private.h"

#include <ensure.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SCHED_STACK ((size_t)512 << 10)
#define SCHED_GUARD ((size_t)64 << 10)
#define SCHED_STREAM                                                                                         \
	5u /* the word of a sequence of neighbours before which there is a point, besides the first */

struct sched *sched_now;

bool sched_possible(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
	return false;
#endif
#endif
	return true;
}

struct sched *sched_new(uint64_t seed, uint64_t limit)
{
	struct sched *s = calloc(1, sizeof(*s));

	ENSURE(s && !sched_now);
	s->env.ops = &env_sched_ops;
	s->seed = seed;
	s->limit = limit;
	for (unsigned i = 0; i <= SCHED_PROCS; i++) {
		struct sched_process *p = &s->processes[i];

		p->blocks.next = p->blocks.before = &p->blocks;
		p->stack =
			mmap(NULL, SCHED_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ENSURE(p->stack != MAP_FAILED);
		ENSURE(mprotect(p->stack, SCHED_GUARD, PROT_NONE) == 0);
	}
	sched_now = s;
	return s;
}

void sched_free(struct sched *s)
{
	for (unsigned i = 0; i <= SCHED_PROCS; i++)
		munmap(s->processes[i].stack, SCHED_STACK);
	sched_now = NULL;
	free(s);
}

struct bts_env *sched_env(struct sched *s)
{
	return &s->env;
}

bool sched_failed(const struct sched *s)
{
	return s->failed;
}

bool sched_lost(const struct sched *s)
{
	return s->was_cut || (s->scenario->mortal && !s->death_left);
}

void sched_use(struct sched *s, struct env_mem *mem)
{
	s->mem = mem;
	s->inner = env_mem_env(mem);
}

void sched_act_as(struct sched *s, unsigned process)
{
	ENSURE(!s->scheduling && process <= SCHED_PROCS);
	s->current = process;
}

void sched_blocks(
	struct sched *s, unsigned process, size_t size, void (*see)(void *arg, void *block), void *arg)
{
	struct sched_block *ring = &s->processes[process].blocks;

	for (struct sched_block *b = ring->next; b != ring; b = b->next)
		if (b->size == size)
			see(arg, b + 1);
}

/* Out of a body, to whom is next; comes back when it is this process's turn. */
static void sched_leave(struct sched *s)
{
	struct sched_process *p = &s->processes[s->current];

	ENSURE(swapcontext(&p->context, &s->main) == 0);
}

static void sched_stop(struct sched *s)
{
	s->going = false;
	sched_leave(s);
}

void sched_fail(struct sched *s, const char *format, ...)
{
	va_list args;

	if (!s->failed) {
		va_start(args, format);
		vsnprintf(s->text, sizeof(s->text), format, args);
		va_end(args);
		s->failed = true;
	}
	if (s->scheduling)
		sched_stop(s);
}

/* The choice made here, of so many. */
static unsigned sched_choose(struct sched *s, unsigned options, bool costly)
{
	if (options == 1)
		return 0;
	if (s->at == s->count) {
		ENSURE(s->count < SCHED_CHOICES);
		s->choices[s->count++] = (struct sched_choice){0, (uint16_t)options, costly};
	}
	ENSURE(s->choices[s->at].options == options); /* else the run is not repeatable */
	s->steps[s->step_count - 1].choice = (uint32_t)s->at + 1;
	return s->choices[s->at++].taken;
}

static void sched_record(struct sched *s, const char *what, bool is_lock, uint64_t where)
{
	if (s->step_count == SCHED_STEPS)
		sched_fail(s, "the schedule does not end");
	s->steps[s->step_count++] = (struct sched_step){(uint8_t)s->current, is_lock, what, where, 0};
}

static bool sched_can_time_out(const struct sched_process *p)
{
	return p->state == SCHED_WAITING && !p->woken;
}

static void sched_time_out(struct sched *s, struct sched_process *p)
{
	uint64_t now = s->inner->ops->clock_ms(s->inner);

	p->timed_out = true;
	p->state = SCHED_READY;
	if (now < p->deadline)
		env_mem_advance(s->mem, p->deadline - now);
}

/* The current process has ended in another way than by returning. */
static void sched_bury(struct sched *s, unsigned process)
{
	if (s->scenario->died)
		s->scenario->died(s->arg, process);
	env_sched_close(s, process);
	env_sched_forget(s, process);
	s->processes[process].state = SCHED_DEAD;
}

/* The current process cannot go on: somebody else, or the end. */
static void sched_yield_on(struct sched *s)
{
	unsigned able[SCHED_PROCS], count = 0, first = SCHED_PROCS, alive = 0;

	for (unsigned i = 0; i < s->scenario->procs; i++) {
		struct sched_process *p = &s->processes[i];

		alive += p->state != SCHED_DONE && p->state != SCHED_DEAD;
		if (env_sched_enabled(s, p))
			able[count++] = i;
		else if (sched_can_time_out(p) &&
			 (first == SCHED_PROCS || p->deadline < s->processes[first].deadline))
			first = i;
	}
	if (!alive) {
		s->going = false;
	} else if (count) {
		s->next = able[sched_choose(s, count, false)];
	} else if (first < SCHED_PROCS) {
		sched_time_out(s, &s->processes[first]);
		s->next = first;
	} else {
		sched_fail(s, "deadlock: every process waits");
	}
	sched_leave(s);
}

void sched_block(struct sched *s)
{
	if (!s->scheduling) {
		sched_fail(s, "something blocks where nothing else runs");
		ENSURE(!"cannot go on");
	}
	sched_record(s, "waits", true, 0);
	sched_yield_on(s);
	s->processes[s->current].state = SCHED_READY;
}

static void sched_kill(struct sched *s)
{
	s->death_left = false;
	s->counts.deaths++;
	sched_record(s, "DIES", false, 0);
	sched_bury(s, s->current);
	sched_yield_on(s);
}

static void sched_cut(struct sched *s)
{
	s->was_cut = true;
	s->counts.cuts++;
	sched_record(s, "POWER CUT", false, 0);
	sched_stop(s);
}

void sched_step(struct sched *s, const char *what, bool is_lock, uint64_t where)
{
	unsigned others[SCHED_PROCS], count = 0, options, choice;
	bool mortal;

	if (!s->scheduling)
		return;
	sched_record(s, what, is_lock, where);
	s->processes[s->current].stream = 0;
	for (unsigned i = 0; i < s->scenario->procs && s->preemptions_left; i++) {
		const struct sched_process *p = &s->processes[i];

		if (i != s->current && (env_sched_enabled(s, p) || sched_can_time_out(p)))
			others[count++] = i;
	}
	mortal = s->death_left && (s->scenario->mortal >> s->current & 1);
	options = 1 + count + mortal + s->cut_left;
	choice = sched_choose(s, options, true);
	if (!choice)
		return;
	if (choice <= count) {
		s->next = others[choice - 1];
		s->preemptions_left--;
		if (!env_sched_enabled(s, &s->processes[s->next]))
			sched_time_out(s, &s->processes[s->next]);
		sched_leave(s);
	} else if (mortal && choice == count + 1) {
		sched_kill(s);
	} else {
		sched_cut(s);
	}
}

void sched_point(struct sched *s, const char *what)
{
	sched_step(s, what, false, 0);
}

void sched_atomic(const volatile void *word, const char *name)
{
	struct sched *s = sched_now;
	const volatile char *at = word;
	struct sched_process *p;
	unsigned i = 0, stream;

	if (!s || !s->scheduling)
		return;
	while (i < s->map_count && (at < s->maps[i].base || at >= s->maps[i].base + s->maps[i].size))
		i++;
	if (i == s->map_count)
		return;
	p = &s->processes[s->current];
	stream = p->last_word && p->stream && at == p->last_word + 8 ? p->stream + 1 : 1;
	p->last_word = at;
	if (stream == 1 || stream == SCHED_STREAM)
		sched_step(s, name, true, (uint64_t)(at - s->maps[i].base));
	p->stream = stream;
}

static void sched_entry(void)
{
	struct sched *s = sched_now;

	s->scenario->body(s->arg, s->current);
	sched_record(s, "ends", false, 0);
	s->processes[s->current].state = SCHED_DONE;
	sched_yield_on(s);
}

static void sched_ready(struct sched *s)
{
	s->step_count = s->at = 0;
	s->map_count = 0;
	s->failed = s->was_cut = false;
	s->preemptions_left = s->scenario->preemptions;
	s->death_left = s->scenario->mortal != 0;
	s->cut_left = s->scenario->cut;
	for (unsigned i = 0; i <= SCHED_PROCS; i++) {
		struct sched_process *p = &s->processes[i];

		p->state = SCHED_READY;
		p->last_word = NULL;
		p->stream = 0;
		p->refused = 0;
		ENSURE(getcontext(&p->context) == 0);
		p->context.uc_stack.ss_sp = (char *)p->stack + SCHED_GUARD;
		p->context.uc_stack.ss_size = SCHED_STACK - SCHED_GUARD;
		p->context.uc_link = NULL;
		makecontext(&p->context, sched_entry, 0);
	}
}

static void sched_bodies(struct sched *s)
{
	s->going = true;
	s->current = 0;
	sched_record(s, "begin", false, 0);
	s->next = sched_choose(s, s->scenario->procs, false);
	s->scheduling = true;
	while (s->going) {
		s->switches += s->current != s->next;
		s->current = s->next;
		ENSURE(swapcontext(&s->main, &s->processes[s->current].context) == 0);
	}
	s->scheduling = false;
	for (unsigned i = 0; i < s->scenario->procs; i++) {
		struct sched_process *p = &s->processes[i];

		if (p->state == SCHED_DONE && (p->file_count || p->blocks.next != &p->blocks))
			sched_fail(s, "process %u ends with %u open files%s", i, p->file_count,
				p->blocks.next != &p->blocks ? " and memory" : "");
	}
}

/* One schedule, as choices[] says; what is beyond them is the first of each. */
static void sched_run(struct sched *s)
{
	sched_ready(s);
	s->current = SCHED_PROCS;
	s->scenario->prepare(s->arg);
	sched_bodies(s);
	s->current = SCHED_PROCS;
	if (s->was_cut || s->failed)
		for (unsigned i = 0; i < s->scenario->procs; i++)
			if (s->processes[i].state != SCHED_DEAD)
				sched_bury(s, i);
	if (!s->failed)
		s->scenario->judge(s->arg, s->was_cut);
	if (s->failed)
		sched_bury(s, SCHED_PROCS);
	else if (s->processes[SCHED_PROCS].file_count ||
		 s->processes[SCHED_PROCS].blocks.next != &s->processes[SCHED_PROCS].blocks)
		sched_fail(s, "the judge ends with open files or memory");
	s->scenario->finish(s->arg);
	s->counts.schedules++;
	s->counts.points += s->step_count;
	if (s->counts.longest < s->step_count)
		s->counts.longest = s->step_count;
}

static unsigned sched_bound(const struct sched *s)
{
	return s->scenario->preemptions + (s->scenario->mortal != 0) + s->scenario->cut;
}

static uint64_t sched_mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 29;
}

/* Of the schedules that use up the bound, or leave one of it, those of this seed. */
static bool sched_chosen(const struct sched *s)
{
	unsigned used = 0;
	uint64_t hash = s->seed;

	if (!s->choices[s->count - 1].costly)
		return true;
	for (size_t i = 0; i < s->count; i++) {
		if (!s->choices[i].taken || !s->choices[i].costly)
			continue;
		used++;
		hash = sched_mix(sched_mix(hash, i), s->choices[i].taken);
	}
	return (hash >> 8) % s->shards[sched_bound(s) - used] == 0;
}

static bool sched_advance(struct sched *s)
{
	while (s->count) {
		struct sched_choice *last = &s->choices[s->count - 1];

		if (last->taken + 1u < last->options) {
			last->taken++;
			if (sched_chosen(s))
				return true;
		} else {
			s->count--;
		}
	}
	return false;
}

/* About how many schedules use up so much of the bound, by the length of the first; the factor was measured. */
static double sched_estimate(const struct sched *s, unsigned used)
{
	double others = s->scenario->procs - 1, points = (double)s->step_count, all = others + 1;

	for (unsigned i = 0; i < used; i++)
		all *= points * (i < s->scenario->preemptions ? 0.4 * others * others : 0.9);
	return all;
}

static void sched_thin(struct sched *s)
{
	unsigned bound = sched_bound(s);
	double left = 1;

	for (unsigned k = bound > 1 ? bound - 1 : 1; k <= bound && s->limit; k++) {
		double wanted = (double)s->limit / (k < bound ? 4 : 1);
		double all = sched_estimate(s, k) * left;

		if (all <= wanted)
			continue;
		s->shards[bound - k] = (uint64_t)(all / wanted) + 1;
		left /= (double)s->shards[bound - k];
		s->counts.thinned = true;
	}
}

static void sched_tell_choices(const struct sched *s)
{
	bool any = false;

	for (size_t i = 0; i < s->count; i++)
		if (s->choices[i].taken) {
			fprintf(stderr, "%s%zu:%u", any ? "," : "", i, s->choices[i].taken);
			any = true;
		}
	fprintf(stderr, "%s\n", any ? "" : "0:0");
}

static void sched_tell_step(const struct sched *s, const struct sched_step *step)
{
	(void)s;
	fprintf(stderr, "\t%u  %s", step->process, step->what);
	if (step->where || step->is_lock)
		fprintf(stderr, "  %s%" PRIu64, step->is_lock ? "lock+" : "", step->where);
	fprintf(stderr, "\n");
}

/* All steps, or those around each change of process. */
static void sched_tell(const struct sched *s, bool all)
{
	const size_t around = 3;
	bool quiet = false;

	for (size_t i = 0; i < s->step_count; i++) {
		bool near = all || i + 12 > s->step_count;

		for (size_t k = i > around ? i - around : 0; !near && k < i + around && k + 1 < s->step_count;
			k++)
			near = s->steps[k].process != s->steps[k + 1].process;
		if (near)
			sched_tell_step(s, &s->steps[i]);
		else if (!quiet)
			fprintf(stderr, "\t   ...\n");
		quiet = !near;
	}
}

static void sched_on_signal(int number)
{
	fprintf(stderr, "signal %d in scenario \"%s\"%s%s, schedule ", number, sched_now->scenario->name,
		sched_now->failed ? ": " : "", sched_now->text);
	sched_tell_choices(sched_now);
	sched_tell(sched_now, false);
	signal(number, SIG_DFL);
	raise(number);
}

static void sched_watch_signals(void)
{
	static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE};

	for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
		signal(fatal[i], sched_on_signal);
}

static void sched_begin(struct sched *s, const struct sched_scenario *scenario, void *arg)
{
	ENSURE(scenario->procs <= SCHED_PROCS);
	s->scenario = scenario;
	s->arg = arg;
	s->count = 0;
	memset(&s->counts, 0, sizeof(s->counts));
	for (unsigned i = 0; i < SCHED_BOUND; i++)
		s->shards[i] = 1;
	ENSURE(sched_bound(s) < SCHED_BOUND);
	sched_watch_signals();
}

bool sched_explore(
	struct sched *s, const struct sched_scenario *scenario, void *arg, struct sched_counts *counts)
{
	sched_begin(s, scenario, arg);
	do {
		sched_run(s);
		if (s->counts.schedules == 1)
			sched_thin(s);
	} while (!s->failed && sched_advance(s));
	*counts = s->counts;
	if (!s->failed)
		return true;
	fprintf(stderr, "%s: %s\nschedule ", scenario->name, s->text);
	sched_tell_choices(s);
	sched_tell(s, false);
	return false;
}

bool sched_replay(struct sched *s, const struct sched_scenario *scenario, void *arg, const char *choices)
{
	sched_begin(s, scenario, arg);
	/* What the choices before them offer is learned run by run. */
	while (*choices) {
		char *end;
		size_t at = strtoul(choices, &end, 10);
		unsigned taken = *end == ':' ? (unsigned)strtoul(end + 1, &end, 10) : 0;

		sched_run(s);
		if (at >= s->count || taken >= s->choices[at].options)
			break;
		s->choices[at].taken = (uint16_t)taken;
		s->count = at + 1;
		choices = *end == ',' ? end + 1 : end;
	}
	sched_run(s);
	sched_tell(s, true);
	fprintf(stderr, "%s\n", s->failed ? s->text : "nothing wrong");
	return !s->failed;
}
