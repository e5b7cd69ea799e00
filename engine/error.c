/* Filling a caller's struct bts_error, and the stable words for error codes. */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const error_names[] = {
	[BTS_OK] = "ok",
	[BTS_NOT_FOUND] = "not-found",
	[BTS_EXISTS] = "exists",
	[BTS_CONFLICT] = "conflict",
	[BTS_CORRUPT] = "corrupt",
	[BTS_FULL] = "full",
	[BTS_IO] = "io-error",
	[BTS_INVALID] = "invalid",
	[BTS_BUSY] = "busy",
	[BTS_POISONED] = "poisoned",
	[BTS_MEMORY] = "out-of-memory",
	[BTS_VERSION] = "version",
	[BTS_READ_ONLY] = "read-only",
	[BTS_TIMEOUT] = "timeout",
	[BTS_DIVERGED] = "diverged",
	[BTS_LIMIT] = "limit",
	[BTS_NEEDS_RECOVERY] = "needs-recovery",
	[BTS_EXPIRED] = "snapshot-expired",
	[BTS_FENCED] = "fenced",
	[BTS_UNKNOWN] = "outcome-unknown",
};

const char *bts_err_name(enum bts_err code)
{
	if ((unsigned)code >= sizeof(error_names) / sizeof(error_names[0]))
		return "unknown";
	return error_names[code];
}

const char *bts_version(void)
{
	return BTS_VERSION_STRING;
}

enum bts_err error_set(struct bts_error *error, enum bts_err code, int os, const char *format, ...)
{
	va_list args;
	size_t size;

	if (error == NULL)
		return code;
	error->code = code;
	error->os = os;
	size = strlen(format);
	if (size < sizeof(error->text) && memchr(format, '%', size) == NULL) { /* what is not found is told often, and needs no formatting */
		memcpy(error->text, format, size + 1);
		return code;
	}
	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
	return code;
}

enum bts_err error_from_os(int os)
{
	switch (os) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return BTS_FULL;
	case ENOMEM:
		return BTS_MEMORY;
	default:
		return BTS_IO;
	}
}

enum bts_err error_os(struct bts_error *error, int os, const char *format, ...)
{
	char what[200], why[100];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	return error_set(error, error_from_os(os), os, "%s: %s", what, strerror_r(os, why, sizeof(why)));
}
