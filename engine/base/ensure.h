/*
 * Assertions that stay on in every build.  They guard our own bugs only, never bytes from a disk, a peer or a
 * client, and their conditions have no side effects.
 */
#ifndef ENSURE_H
#define ENSURE_H

#include <stdio.h>
#include <stdlib.h>

__attribute__((noreturn, cold, noinline, unused)) static void ensure_fail(
	const char *file, int line, const char *text)
{
	fprintf(stderr, "%s:%d: ensure failed: %s\n", file, line, text);
	abort();
}

/* Abort, naming file, line and condition, unless cond holds. */
#define ENSURE(cond)                                                                                         \
	do {                                                                                                 \
		if (__builtin_expect(!(cond), 0))                                                            \
			ensure_fail(__FILE__, __LINE__, #cond);                                              \
	} while (0)

/* The same at compile time. */
#define ENSURE_STATIC(cond) _Static_assert(cond, #cond)

#endif
