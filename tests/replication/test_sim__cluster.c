/*
 * Simulated clusters (T6): each seed is one, with a primary, two to four followers, cascades among them, and 10 to 30
 * virtual seconds of faults; sim.h says what is real in it.
 *
 * SIM_SEEDS=from:to chooses the seeds (1:501), SIM_VERBOSE=1 tells what happens, SIM_WORKERS the processes (2).
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ensure.h>

#define WORKERS_MAX 64u

/* Shared by the processes. */
struct cluster {
	uint64_t seeds[WORKERS_MAX]; /* being run */
	struct sim totals[WORKERS_MAX];
};

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static void cluster_print(const struct sim *t)
{
	printf("%" PRIu64 " commits, %" PRIu64 " frames applied, %" PRIu64 " crashes (%" PRIu64
	       " of power), %" PRIu64 " failed requests, %" PRIu64 " forged, %" PRIu64 " stale and %" PRIu64
	       " damaged replies, %" PRIu64 " states compared, %" PRIu64 " long reads, %" PRIu64
	       " promotions, %" PRIu64 " rewinds, %" PRIu64 " begun anew, %" PRIu64
	       " states acknowledged by enough\n",
		t->commits, t->frames, t->crashes, t->power_losses, t->refused, t->forged, t->stale,
		t->damaged, t->checks, t->reads, t->promotions, t->grafts, t->wiped, t->safe_states);
}

static void cluster_add(struct sim *to, const struct sim *t)
{
	to->commits += t->commits;
	to->frames += t->frames;
	to->crashes += t->crashes;
	to->power_losses += t->power_losses;
	to->refused += t->refused;
	to->forged += t->forged;
	to->stale += t->stale;
	to->damaged += t->damaged;
	to->checks += t->checks;
	to->reads += t->reads;
	to->promotions += t->promotions;
	to->grafts += t->grafts;
	to->wiped += t->wiped;
	to->safe_states += t->safe_states;
}

static void worker_run(struct cluster *cluster, unsigned worker, unsigned workers, uint64_t from, uint64_t to)
{
	bool verbose = number_of("SIM_VERBOSE", 0) != 0;

	for (uint64_t seed = from + worker; seed < to; seed += workers) {
		cluster->seeds[worker] = seed;
		sim_run(seed, verbose, &cluster->totals[worker]);
	}
	fflush(stdout);
	_exit(0);
}

static int cluster_wait(struct cluster *cluster, const pid_t *children, unsigned workers)
{
	int failed = 0, status;

	for (unsigned i = 0; i < workers; i++) {
		if (waitpid(children[i], &status, 0) != children[i])
			return 1;
		if (WIFSIGNALED(status))
			printf("FAILED seed %" PRIu64 ": %s (again: SIM_SEEDS=%" PRIu64 ":%" PRIu64 ")\n",
				cluster->seeds[i], strsignal(WTERMSIG(status)), cluster->seeds[i],
				cluster->seeds[i] + 1);
		failed |= !WIFEXITED(status) || WEXITSTATUS(status);
		cluster_add(&cluster->totals[0], i ? &cluster->totals[i] : &(struct sim){0});
	}
	return failed;
}

int main(void)
{
	const char *seeds = getenv("SIM_SEEDS");
	unsigned workers = (unsigned)number_of("SIM_WORKERS", 2);
	uint64_t from = 1, to = 501;
	pid_t children[WORKERS_MAX];
	struct cluster *cluster;
	int failed;

	if (seeds && sscanf(seeds, "%" SCNu64 ":%" SCNu64, &from, &to) != 2)
		return 2;
	workers = workers < 1 ? 1 : workers > WORKERS_MAX ? WORKERS_MAX : workers;
	cluster = mmap(NULL, sizeof(*cluster), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ENSURE(cluster != MAP_FAILED);
	printf("seeds %" PRIu64 " to %" PRIu64 "\n", from, to);
	fflush(stdout);
	for (unsigned i = 0; i < workers; i++) {
		children[i] = fork();
		if (children[i] == 0)
			worker_run(cluster, i, workers, from, to);
		ENSURE(children[i] > 0);
	}
	failed = cluster_wait(cluster, children, workers);
	cluster_print(&cluster->totals[0]);
	return failed;
}
