/* What the files of failover_run share. */
#ifndef FAILOVER_RUN_PRIVATE_H
#define FAILOVER_RUN_PRIVATE_H

#include <pthread.h>

#include "etcd.h"
#include "failover_run.h"

struct failover_run {
	struct failover_run_options options; /* its texts are not used after the start */
	struct etcd_place place;
	struct failover_key own; /* what stands in the key when this node holds it */
	char *members;
	struct etcd *etcd; /* of the thread */
	pthread_t thread, worker;
	int threads; /* that were started */
	pthread_cond_t changed;
	pthread_mutex_t lock; /* of what follows */
	struct failover machine;
	enum failover_change change; /* for the worker */
	uint64_t deadline_ms;	     /* as it was set last */
	uint64_t rounds;	     /* elections that have ended */
	const char *verdict;	     /* of the last: a code, "" = won, or there was none */
	char why[ELECT_WHY_SIZE];
	bool silent; /* etcd */
	bool broken; /* the file */
	uint64_t look_due_ms;
	uint64_t silences;
	bool ended;
};

uint64_t failover_run_clock_ms(void); /* CLOCK_BOOTTIME */

#endif
