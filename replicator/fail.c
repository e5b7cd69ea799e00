/* Error texts and events. */
#include "fail.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum bts_err fail_set(struct bts_error *error, enum bts_err code, const char *format, ...)
{
	va_list args;

	if (!error)
		return code;
	error->code = code;
	error->os = 0;
	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
	return code;
}

enum bts_err fail_os(struct bts_error *error, int os, const char *format, ...)
{
	enum bts_err code = os == ENOSPC || os == EDQUOT ? BTS_FULL : os == ENOMEM ? BTS_MEMORY : BTS_IO;
	va_list args;
	size_t used;
	char why[96];

	if (!error)
		return code;
	error->code = code;
	error->os = os;
	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
	used = strlen(error->text);
	snprintf(error->text + used, sizeof(error->text) - used, ": %s", strerror_r(os, why, sizeof(why)));
	return code;
}

void repl_emit(
	const struct repl_events *events, enum repl_level level, const char *name, const char *format, ...)
{
	struct repl_event event = {.level = level, .name = name};
	char text[512];
	va_list args;

	if (!events || !events->fn)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	event.text = text;
	events->fn(events->arg, &event);
}
