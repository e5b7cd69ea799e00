/*
 * Included before everything else of an engine that env_sched is to interleave: every access to an atomic word
 * tells the scheduler first, which makes a scheduling point of those that lie in shared memory.
 *
 * The memory model of the runs is sequential consistency: what a weaker order would allow is not explored.
 */
#ifndef SUPPORT_SCHED_ATOMIC_H
#define SUPPORT_SCHED_ATOMIC_H

#include <stdatomic.h>

/* name: the word as the source calls it, static. */
void sched_atomic(const volatile void *word, const char *name);

#define SCHED_TOLD(p) (sched_atomic((p), #p), (p))

#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_fetch_add
#undef atomic_fetch_sub
#undef atomic_fetch_or
#undef atomic_fetch_and
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak

#ifdef __clang__
#define SCHED_OP(op, ...) __c11_atomic_##op(__VA_ARGS__)
#define atomic_load_explicit(p, order) __c11_atomic_load(SCHED_TOLD(p), order)
#define atomic_store_explicit(p, v, order) __c11_atomic_store(SCHED_TOLD(p), v, order)
#define atomic_exchange(p, v) __c11_atomic_exchange(SCHED_TOLD(p), v, __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_strong(p, old, v)                                                            \
	__c11_atomic_compare_exchange_strong(SCHED_TOLD(p), old, v, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#else
#define SCHED_OP(op, ...) __atomic_##op(__VA_ARGS__)
#define atomic_load_explicit(p, order) __atomic_load_n(SCHED_TOLD(p), order)
#define atomic_store_explicit(p, v, order) __atomic_store_n(SCHED_TOLD(p), v, order)
#define atomic_exchange(p, v) __atomic_exchange_n(SCHED_TOLD(p), v, __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_strong(p, old, v)                                                            \
	__atomic_compare_exchange_n(SCHED_TOLD(p), old, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#endif

#define atomic_load(p) atomic_load_explicit(p, __ATOMIC_SEQ_CST)
#define atomic_store(p, v) atomic_store_explicit(p, v, __ATOMIC_SEQ_CST)
#define atomic_fetch_add(p, v) SCHED_OP(fetch_add, SCHED_TOLD(p), v, __ATOMIC_SEQ_CST)
#define atomic_fetch_sub(p, v) SCHED_OP(fetch_sub, SCHED_TOLD(p), v, __ATOMIC_SEQ_CST)
#define atomic_fetch_or(p, v) SCHED_OP(fetch_or, SCHED_TOLD(p), v, __ATOMIC_SEQ_CST)
#define atomic_fetch_and(p, v) SCHED_OP(fetch_and, SCHED_TOLD(p), v, __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_weak(p, old, v) atomic_compare_exchange_strong(p, old, v)

#endif
