/*
 * Writers held to a deadline that passes, is moved on, given up and set anew at any call of the environment: what they are told,
 * held against the rule (engine/DESIGN.md, The deadline).  Two handles on one file, one opened with BTS_OPEN_DEADLINE.
 */
#ifndef DEADLINE_RUN_H
#define DEADLINE_RUN_H

#include <stdint.h>

struct deadline_counts {
	unsigned findings; /* rules that were broken, each told on standard error where told */
	unsigned done, refused, unknown;
};

/* Some hundred commits.  tell: findings go to standard error. */
void deadline_run(uint64_t seed, int tell, struct deadline_counts *counts);

#endif
