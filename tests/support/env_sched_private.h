/* The inside of env_sched, shared by its files. */
#ifndef SUPPORT_ENV_SCHED_PRIVATE_H
#define SUPPORT_ENV_SCHED_PRIVATE_H

#include "env_sched.h"

#include <ucontext.h>

#define SCHED_FILES 32
#define SCHED_MAPS 8
#define SCHED_BOUND 8u	     /* preemptions, death and cut together, at most */
#define SCHED_STEPS 20000u   /* a schedule that is longer does not end */
#define SCHED_CHOICES 20000u /* points of one schedule where there was a choice */

enum sched_state { SCHED_READY, SCHED_LOCKING, SCHED_WAITING, SCHED_DONE, SCHED_DEAD };

struct sched_file {
	struct bts_file *file;
	bool is_lock;
};

struct sched_block {
	struct sched_block *next, *before;
	size_t size;
	uint64_t pad; /* what follows is aligned as malloc's */
};

struct sched_process {
	enum sched_state state;
	ucontext_t context;
	void *stack;
	struct sched_file files[SCHED_FILES];
	unsigned file_count;
	struct sched_block blocks; /* head of a ring */
	/* LOCKING */
	struct bts_file *file;
	uint64_t offset, size;
	enum bts_lock_kind kind;
	/* WAITING */
	const uint32_t *word;
	uint32_t expected;
	uint64_t deadline;
	bool woken, timed_out;
	/* the lock that was refused last, how often since the last switch */
	uint64_t refused_since, refused_at;
	unsigned refused;
	/* the stream of neighbouring words it is in */
	const volatile char *last_word;
	unsigned stream;
};

struct sched_choice {
	uint16_t taken, options;
	bool costly; /* taking another than the first uses the bound up */
};

struct sched_step {
	uint8_t process;
	bool is_lock;
	const char *what;
	uint64_t where;
	uint32_t choice; /* + 1; 0: there was none */
};

struct sched {
	struct bts_env env; /* first */
	const struct sched_scenario *scenario;
	void *arg;
	struct env_mem *mem;
	struct bts_env *inner;
	uint64_t seed, limit;
	struct sched_process processes[SCHED_PROCS + 1];
	unsigned current, next;
	uint64_t switches;	/* from process to process */
	bool scheduling, going; /* a body runs; there is a next one */
	ucontext_t main;
	unsigned preemptions_left;
	bool death_left, cut_left, was_cut;
	struct {
		const volatile char *base;
		size_t size;
	} maps[SCHED_MAPS];
	unsigned map_count;
	struct sched_choice choices[SCHED_CHOICES];
	size_t at, count;
	struct sched_step steps[SCHED_STEPS];
	size_t step_count;
	uint64_t shards[SCHED_BOUND]; /* one in so many, by what is left of the bound */
	bool failed;
	char text[512];
	struct sched_counts counts;
};

extern const struct bts_env_ops env_sched_ops;
extern struct sched *sched_now; /* files and atomic words do not know theirs: there is one at a time */

/* A scheduling point. */
void sched_step(struct sched *, const char *what, bool is_lock, uint64_t where);
/* The current process's state says for what it waits; returns when it may go on. */
void sched_block(struct sched *);
/* Close the files of a process. */
void env_sched_close(struct sched *, unsigned process);
void env_sched_forget(struct sched *, unsigned process); /* its memory */
/* Whether what process waits for has come. */
bool env_sched_enabled(const struct sched *, const struct sched_process *);

#endif
