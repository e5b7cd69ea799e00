/*
 * The settings of a program.  One table tells the name, kind, limits, default and help of each; the command line, the
 * environment, the file, --help, --check-config, --print-config and what a reload takes over all come from it.
 *
 * The setting max-body is --max-body on the command line, BTS_MAX_BODY in the environment (empty: not set) and
 * "max-body = 64M" in the file that --config or BTS_CONFIG names; the first of them counts, then the default.  Every
 * text given is checked, also one that another overrides, and what is unknown anywhere is an error.
 *
 * The file: lines "name = value", comments after ; or # at the begin of a line or after " ;", a list going on in
 * indented lines.  A section [program] holds settings of that program alone; those of others are passed over.
 *
 * A new setting is a field of the program's struct and a row:
 *	{"max-body", SETTINGS_BYTES(struct config, max_body), .arg = "BYTES", .fallback = "64M", .least = 1024,
 *		.most = 1 << 30, .flags = SETTINGS_RELOAD, .help = "largest request body"},
 */
#ifndef SETTINGS_H
#define SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#define SETTINGS_MAX 96	      /* rows of a table */
#define SETTINGS_WHY_SIZE 512 /* of a reason */

enum settings_kind {
	SETTINGS_KIND_GROUP, /* no setting: a heading of --help */
	SETTINGS_KIND_TEXT,
	SETTINGS_KIND_PATH, /* a text that is not empty */
	SETTINGS_KIND_LIST, /* a text with commas; lines of the file that belong together are joined with them */
	SETTINGS_KIND_ADDRESS,
	SETTINGS_KIND_BYTES,	/* K, M, G, T are powers of 1024 */
	SETTINGS_KIND_DURATION, /* ms, s, m, h, d; the field has milliseconds */
	SETTINGS_KIND_NUMBER,
	SETTINGS_KIND_ENUM, /* the field has the index of the word, counted from least */
	SETTINGS_KIND_FLAG, /* true, yes, on, 1 and their opposites; --name alone is true */
};

struct settings_address {
	const char *text; /* as given; NULL: not given */
	struct sockaddr_storage addr;
	socklen_t size; /* 0: not given */
};

/* Kind and place of a row: the field must have the kind's type. */
#define SETTINGS_AT(type, field, of) offsetof(type, field) + 0 * sizeof(&((type *)0)->field == (of *)0)
#define SETTINGS_GROUP(text)                                                                                 \
	{                                                                                                    \
		NULL, SETTINGS_KIND_GROUP, 0, .help = (text)                                                 \
	}
#define SETTINGS_TEXT(type, field) SETTINGS_KIND_TEXT, SETTINGS_AT(type, field, const char *)
#define SETTINGS_PATH(type, field) SETTINGS_KIND_PATH, SETTINGS_AT(type, field, const char *)
#define SETTINGS_LIST(type, field) SETTINGS_KIND_LIST, SETTINGS_AT(type, field, const char *)
#define SETTINGS_ADDRESS(type, field) SETTINGS_KIND_ADDRESS, SETTINGS_AT(type, field, struct settings_address)
#define SETTINGS_BYTES(type, field) SETTINGS_KIND_BYTES, SETTINGS_AT(type, field, uint64_t)
#define SETTINGS_DURATION(type, field) SETTINGS_KIND_DURATION, SETTINGS_AT(type, field, uint64_t)
#define SETTINGS_NUMBER(type, field) SETTINGS_KIND_NUMBER, SETTINGS_AT(type, field, uint64_t)
#define SETTINGS_ENUM(type, field) SETTINGS_KIND_ENUM, SETTINGS_AT(type, field, unsigned)
#define SETTINGS_FLAG(type, field) SETTINGS_KIND_FLAG, SETTINGS_AT(type, field, int)

enum settings_flags {
	SETTINGS_RELOAD = 1, /* a reload takes the new value over; the others need a new start */
	SETTINGS_SECRET = 2, /* never printed */
	SETTINGS_WORD = 4,   /* given on the command line as a plain word, too */
};

struct settings_row {
	const char *name; /* lower case, dashes */
	enum settings_kind kind;
	size_t offset;				/* of the field in the program's struct */
	const char *arg;			/* what --help calls the value */
	const char *fallback;			/* the default, as text; NULL: the field stays zero */
	uint64_t least, most;			/* BYTES, DURATION (ms), NUMBER */
	const char *words;			/* ENUM: "text|json" */
	const char *(*check)(const char *text); /* of texts: NULL, or what is wrong with it */
	unsigned flags;
	const char *help;
};

enum settings_origin {
	SETTINGS_DEFAULT,
	SETTINGS_FILE,
	SETTINGS_ENVIRONMENT,
	SETTINGS_COMMAND,
	SETTINGS_ORIGINS
};

/* What was given for a row, by origin. */
struct settings_given {
	const char *text[SETTINGS_ORIGINS]; /* NULL: not there; of the file owned, else borrowed */
	unsigned line;			    /* in the file */
};

/* A copied text that fields may point into. */
struct settings_kept {
	struct settings_kept *next;
	char text[];
};

struct settings {
	/* the program's, before settings_read */
	const char *program, *version;
	const char *usage, *trailer; /* first and last of --help */
	const struct settings_row *rows;
	size_t count;
	/* found */
	const char *file; /* NULL: none */
	struct settings_given given[SETTINGS_MAX];
	bool help, tell_version, check, print;
	struct settings_kept *kept;
	char why[SETTINGS_WHY_SIZE];
};

/*
 * Fills target, which the caller has zeroed, from all origins.  0, or -1 with the reason in why.  Texts in target are
 * borrowed: from argv, environ and the settings until settings_fini.  --help and --version end it early: 0, and only
 * settings_asked is of use then.
 */
int settings_read(struct settings *, void *target, int argc, char **argv, char **environment);
void settings_fini(struct settings *);
/* A copy that lives as long as the settings; NULL: no memory. */
char *settings_keep(struct settings *, const char *text);

/* What a program finds wrong beyond single settings: into why.  Returns -1. */
int settings_refuse(struct settings *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints why on standard error; the exit status of a wrong usage, 2. */
int settings_complain(const struct settings *);
/* After settings_read: -1, or the exit status after --help or --version was answered. */
int settings_asked(const struct settings *);
/* When all is found right: -1, or the exit status after --check-config or --print-config was answered. */
int settings_checked(const struct settings *);

/*
 * fresh, read into fresh_target, is right: take its reloadable settings over into live's target, each with one atomic
 * store, so that other threads may read numbers meanwhile (SETTINGS_NOW); texts are for the thread that reloads.  What
 * else differs is named in needs_restart, with commas.  Texts stay valid until settings_fini(live).  Returns how many changed.
 */
unsigned settings_adopt(struct settings *live, void *target, struct settings *fresh, const void *fresh_target,
	char *needs_restart, size_t size);
#define SETTINGS_NOW(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

/* "HOST:PORT" with a numeric host, [..] around IPv6, or localhost.  NULL, or what is wrong. */
const char *settings_address_parse(const char *text, struct settings_address *out);
bool settings_address_loopback(const struct settings_address *);

#endif
