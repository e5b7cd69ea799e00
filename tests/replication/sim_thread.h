/*
 * Threads of which one runs at a time.  Whoever runs decides who is next: the simulator resumes a thread and goes
 * on when that yields or ends.  Real threads, so that sanitizers and debuggers understand them.
 */
#ifndef SIM_THREAD_H
#define SIM_THREAD_H

#include <pthread.h>
#include <stdbool.h>

struct sim_thread;
/* The thread made by the last sim_thread_create; it has not begun.  Owned by the join. */
struct sim_thread *sim_thread_newest(void);
bool sim_thread_ended(const struct sim_thread *);
/* Let it run until it yields or ends. */
void sim_thread_resume(struct sim_thread *);
/* Called by a thread: the simulator goes on. */
void sim_thread_yield(void);

#endif
