/* Filling a caller's struct bts_error from the replicator, and the events it emits instead of logging. */
#ifndef FAIL_H
#define FAIL_H

#include <btree_store.h>

/* Sets code and text (printf-like) when error is not NULL; returns code, so `return fail_set(...)`. */
enum bts_err fail_set(struct bts_error *error, enum bts_err code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The same for an errno value: BTS_IO (BTS_FULL, BTS_MEMORY where it means that), strerror appended. */
enum bts_err fail_os(struct bts_error *error, int os, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

enum repl_level { REPL_INFO, REPL_WARN, REPL_ERROR };

/* Something a person may want to read of.  All borrowed for the length of the callback. */
struct repl_event {
	enum repl_level level;
	const char *name; /* stable, kebab-case: "frame-applied" */
	const char *text; /* one line */
};
/* Called from the thread that met it: must not block and must not call back. */
typedef void repl_event_fn(void *arg, const struct repl_event *event);

struct repl_events {
	repl_event_fn *fn; /* NULL: nobody listens */
	void *arg;
};
void repl_emit(const struct repl_events *events, enum repl_level level, const char *name, const char *format,
	...) __attribute__((format(printf, 4, 5)));

#endif
