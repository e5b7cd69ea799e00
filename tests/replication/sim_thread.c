/* Threads of which one runs at a time: a semaphore each, and one for the simulator. */
#define SIM_SYSTEM_PLAIN
#include "sim_thread.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>

#include <ensure.h>

#include "sim_system.h"

struct sim_thread {
	struct sim_thread *next;
	pthread_t id;
	sem_t go;
	bool ended;
	void *(*run)(void *);
	void *arg;
};

static struct sim_thread *thread_list;
static sem_t thread_simulator;
static bool thread_ready;
static __thread struct sim_thread *thread_self;

static void thread_take(sem_t *sem)
{
	while (sem_wait(sem))
		ENSURE(errno == EINTR);
}

static void *thread_main(void *arg)
{
	struct sim_thread *thread = arg;
	void *result;

	thread_self = thread;
	thread_take(&thread->go);
	result = thread->run(thread->arg);
	thread->ended = true;
	sem_post(&thread_simulator);
	return result;
}

int sim_thread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *), void *arg)
{
	struct sim_thread *thread = calloc(1, sizeof(*thread));
	int err;

	ENSURE(thread);
	if (!thread_ready)
		sem_init(&thread_simulator, 0, 0);
	thread_ready = true;
	sem_init(&thread->go, 0, 0);
	thread->run = run;
	thread->arg = arg;
	err = pthread_create(&thread->id, attributes, thread_main, thread);
	ENSURE(!err);
	thread->next = thread_list;
	thread_list = thread;
	*id = thread->id;
	return 0;
}

int sim_thread_join(pthread_t id, void **result)
{
	struct sim_thread **at = &thread_list, *thread;

	while (*at && !pthread_equal((*at)->id, id))
		at = &(*at)->next;
	ENSURE(*at);
	thread = *at;
	while (!thread->ended)
		sim_thread_resume(thread);
	*at = thread->next;
	pthread_join(id, result);
	sem_destroy(&thread->go);
	free(thread);
	return 0;
}

struct sim_thread *sim_thread_newest(void)
{
	return thread_list;
}

bool sim_thread_ended(const struct sim_thread *thread)
{
	return thread->ended;
}

void sim_thread_resume(struct sim_thread *thread)
{
	ENSURE(!thread_self && !thread->ended);
	sem_post(&thread->go);
	thread_take(&thread_simulator);
}

void sim_thread_yield(void)
{
	struct sim_thread *self = thread_self;

	ENSURE(self);
	sem_post(&thread_simulator);
	thread_take(&self->go);
}
