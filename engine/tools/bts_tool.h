/* What the commands of bts share: the command line, opening, output, errors, progress. */
#ifndef BTS_TOOL_H
#define BTS_TOOL_H

#include "bts_json.h"
#include <stdio.h>

/* Exit statuses, the same for every program of the project. */
enum bts_exit { BTS_EXIT_OK, BTS_EXIT_FAILURE, BTS_EXIT_USAGE, BTS_EXIT_NOT_FOUND, BTS_EXIT_CONFLICT };

struct bts_args {
	const char *command;
	const char *file;
	char **words; /* what follows FILE */
	int word_count;
	bool json, base64, reverse, only_new, only_existing, same_id, no_lmdb, buckets;
	const char *bucket, *snapshot, *prefix, *from, *to; /* NULL: not given */
	uint64_t limit, batch, page_size;	 /* 0: not given */
	uint64_t count, key_size, value_size, puts, rounds, seconds, seed;
};

/* One command; returns its exit status. */
typedef int bts_command(const struct bts_args *args);
bts_command bts_cmd_get, bts_cmd_put, bts_cmd_del, bts_cmd_scan, bts_cmd_stat, bts_cmd_check, bts_cmd_scrub, bts_cmd_diff, bts_cmd_dump,
	bts_cmd_snapshot, bts_cmd_load, bts_cmd_compact, bts_cmd_backup, bts_cmd_restore, bts_cmd_promote,
	bts_cmd_demote, bts_bench;

enum bts_tool_access {
	BTS_TOOL_READ,	/* joins beside a writer; recovers the file when nobody did after a crash */
	BTS_TOOL_WRITE, /* an existing file */
	BTS_TOOL_CREATE /* made when absent */
};
/* NULL: the reason was printed and *status is the exit status.  Else owned: bts_close. */
struct bts *bts_tool_open(const struct bts_args *args, enum bts_tool_access access, int *status);

/* A read transaction (owned: bts_abort) on the newest commit, or on the snapshot asked for. */
enum bts_err bts_tool_begin(const struct bts_args *args, struct bts *db, struct bts_txn **txn, struct bts_error *error);

/* Print "bts COMMAND: FILE: " and the message (JSON with --json) to stderr; returns the exit status for code.
 */
int bts_tool_fail(const struct bts_args *args, enum bts_err code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int bts_tool_fail_error(const struct bts_args *args, const struct bts_error *error);
int bts_tool_fail_txn(const struct bts_args *args, enum bts_err code, const struct bts_txn *txn);
/* Flush stdout; BTS_EXIT_FAILURE with a message when it could not take everything, else status. */
int bts_tool_finish(const struct bts_args *args, int status);

struct bts_slice bts_tool_slice(const char *chars); /* NULL: an empty one */
/* An argument as bytes, decoded in place with --base64.  False: it was refused and a message printed. */
bool bts_tool_argument(const struct bts_args *args, char *word, struct bts_slice *bytes);
/* Bytes for people: escapes for what is not printable text, and for tab, newline and backslash. */
void bts_tool_print(FILE *to, struct bts_slice bytes);
/* As _print, but shortened, for messages; to is NUL-terminated. */
void bts_tool_shorten(char *to, size_t cap, struct bts_slice bytes);
/* Write the text and a newline, then make it empty.  False when it had failed (too long, no memory). */
bool bts_tool_put_line(struct bts_json_text *text);

/* Long work says how far it is on stderr: one updating line on a terminal, else a line now and then; with
 * --json none. */
struct bts_progress {
	const char *what, *unit;
	bool off, terminal, shown;
	double start, next; /* seconds */
};
void bts_progress_begin(struct bts_progress *progress, const struct bts_args *args, const char *unit);
/* done units; part of whole is done (whole 0: not known). */
void bts_progress_step(struct bts_progress *progress, uint64_t done, uint64_t part, uint64_t whole);
void bts_progress_end(struct bts_progress *progress); /* clears the updating line */
double bts_progress_clock(void);		      /* monotonic seconds */

#endif
