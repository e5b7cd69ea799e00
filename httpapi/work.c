/* Threads for what would hold up a loop. */
#include "work.h"

#include <pthread.h>
#include <stdlib.h>

#include "server.h"

struct work {
	pthread_t threads[WORK_THREADS_MAX];
	unsigned started;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t queued;
	struct work_job *first, **last;
	int stopping;
};

/* With the lock. */
static void work_append(struct work *w, struct work_job *job)
{
	job->next = NULL;
	*w->last = job;
	w->last = &job->next;
	pthread_cond_signal(&w->queued);
}

static void *work_main(void *arg)
{
	struct work *w = arg;
	struct work_job *job;
	int again;

	pthread_setname_np(pthread_self(), "work");
	pthread_mutex_lock(&w->lock);
	while (w->first || !w->stopping) {
		job = w->first;
		if (!job) {
			pthread_cond_wait(&w->queued, &w->lock);
			continue;
		}
		w->first = job->next;
		if (!w->first)
			w->last = &w->first;
		pthread_mutex_unlock(&w->lock);
		again = job->step(job);
		if (!again)
			server_resume(&job->owner, 1);
		pthread_mutex_lock(&w->lock);
		if (again)
			work_append(w, job);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int work_start(unsigned threads, struct work **out)
{
	struct work *w = calloc(1, sizeof(*w));

	if (!w)
		return -1;
	w->last = &w->first;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->queued, NULL);
	for (; w->started < threads && w->started < WORK_THREADS_MAX; w->started++) {
		if (pthread_create(&w->threads[w->started], NULL, work_main, w)) {
			work_stop(w);
			return -1;
		}
	}
	*out = w;
	return 0;
}

void work_stop(struct work *w)
{
	unsigned i;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stopping = 1;
	pthread_cond_broadcast(&w->queued);
	pthread_mutex_unlock(&w->lock);
	for (i = 0; i < w->started; i++)
		pthread_join(w->threads[i], NULL);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->queued);
	free(w);
}

void work_queue(struct work *w, struct work_job *job)
{
	pthread_mutex_lock(&w->lock);
	work_append(w, job);
	pthread_mutex_unlock(&w->lock);
}
