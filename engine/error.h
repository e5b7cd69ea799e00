/* Filling a caller's struct bts_error: one line, what and where. */
#ifndef ERROR_H
#define ERROR_H

#include <btree_store.h>

#include <string.h>

/* Sets code, os and text (printf-like) when error is not NULL; returns code, so `return error_set(...)`. */
enum bts_err error_set(struct bts_error *error, enum bts_err code, int os, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* The same of a key that is not there, which is told more often than anything else: without a call. */
static inline enum bts_err error_no_key(struct bts_error *error)
{
	static const char text[] = "no such key";

	error->code = BTS_NOT_FOUND;
	error->os = 0;
	memcpy(error->text, text, sizeof(text));
	return BTS_NOT_FOUND;
}

/* An errno value as the code it means to a caller: ENOSPC, EDQUOT, EFBIG: BTS_FULL; ENOMEM: BTS_MEMORY; else BTS_IO. */
enum bts_err error_from_os(int os);

/* error_set with the code of os and its strerror text appended. */
enum bts_err error_os(struct bts_error *error, int os, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
