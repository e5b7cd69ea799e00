/*
 * Put before each source of the replicator when it is compiled for the simulation: its clock is the simulated one,
 * its randomness comes from the seed, and its threads run one at a time, in the order that the seed gives.
 */
#ifndef SIM_SYSTEM_H
#define SIM_SYSTEM_H

#include <pthread.h>
#include <sys/random.h>
#include <sys/types.h>
#include <time.h>

int sim_clock_gettime(clockid_t clock, struct timespec *now);
ssize_t sim_getrandom(void *data, size_t size, unsigned flags);
int sim_thread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *), void *arg);
int sim_thread_join(pthread_t id, void **result);

#ifndef SIM_SYSTEM_PLAIN
#define clock_gettime sim_clock_gettime
#define getrandom sim_getrandom
#define pthread_create sim_thread_create
#define pthread_join sim_thread_join
#endif

#endif
