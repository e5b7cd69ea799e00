/* One line an event on standard error: key=value text, or JSON.  Any thread. */
#ifndef HTTPAPI_LOG_H
#define HTTPAPI_LOG_H

#include <stdint.h>

struct log_field {
	const char *name;
	const char *text; /* or NULL: the number counts */
	uint64_t number;
};

/* A list of fields for log_event, as LOG_FIELDS(LOG_TEXT("listen", at), LOG_U64("pid", pid)). */
#define LOG_TEXT(name, value)                                                                                \
	{                                                                                                    \
		name, value, 0                                                                               \
	}
#define LOG_U64(name, value)                                                                                 \
	{                                                                                                    \
		name, NULL, (uint64_t)(value)                                                                \
	}
#define LOG_FIELDS(...) ((const struct log_field[]){__VA_ARGS__, {0, 0, 0}})

enum log_level { LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* What is below the level is left out.  Again at any time. */
void log_init(int json, enum log_level least);
int log_is_json(void);
struct buf;
/* The line as log_event would write it, into b; nothing when its level is left out. */
void log_line(struct buf *b, const char *level, const char *event, const struct log_field *fields);
/* level: "info", "warn" or "error". */
void log_event(const char *level, const char *event, const struct log_field *fields);
#endif
