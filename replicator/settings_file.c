/* The file of settings, through libinih. */
#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

#include "settings_private.h"

struct settings_reader {
	struct settings *settings;
	FILE *file;
	unsigned line, wrong; /* the line read last; the first one with an error, 0 = none */
	bool ours;	      /* and why tells of it */
};

/* The library's lines are counted here, since it does not tell its caller where it is, and cuts what is too long. */
static char *settings_reader_line(char *out, int size, void *stream)
{
	struct settings_reader *r = stream;
	int c, n = 0;
	bool bad = false, comment;

	c = getc(r->file);
	if (c == EOF)
		return NULL;
	r->line++;
	comment = c == ';' || c == '#';
	for (; c != EOF && c != '\n'; c = getc(r->file)) {
		if (n < size - 2 && c)
			out[n++] = (char)c;
		else
			bad = !comment;
	}
	out[n++] = '\n';
	out[n] = '\0';
	if (bad && !r->wrong) {
		r->wrong = r->line;
		r->ours = true;
		settings_refuse(r->settings, "%s:%u: the line has more than %d bytes, or a zero byte",
			r->settings->file, r->line, size - 2);
	}
	return out;
}

static bool settings_is_ours(const struct settings_reader *r, const char *section)
{
	return !*section || !strcmp(section, r->settings->program);
}

static bool settings_is_others(const char *section)
{
	return !strcmp(section, "btsd") || !strcmp(section, "bts-replicator");
}

static int settings_reader_pair(
	struct settings_reader *r, const char *section, const char *name, const char *value)
{
	struct settings *s = r->settings;
	const struct settings_row *row = settings_find(s, name, strlen(name));
	struct settings_given *given;
	const char *before;
	char *joined;

	if (!settings_is_ours(r, section)) {
		if (settings_is_others(section))
			return 0;
		return settings_refuse(s, "%s:%u: unknown section [%s]", s->file, r->line, section);
	}
	if (!row)
		return settings_refuse(s, "%s:%u: unknown setting '%s'", s->file, r->line, name);
	given = &s->given[row - s->rows];
	if (given->text[SETTINGS_FILE] && row->kind != SETTINGS_KIND_LIST)
		return settings_refuse(s, "%s:%u: %s is given a second time, first in line %u", s->file,
			r->line, name, given->line);
	before = given->text[SETTINGS_FILE];
	if (!before) {
		given->line = r->line;
		given->text[SETTINGS_FILE] = settings_keep(s, value);
	} else {
		if (asprintf(&joined, "%s%s%s", before,
			    *before && before[strlen(before) - 1] == ',' ? "" : ",", value) < 0)
			return settings_refuse(s, "no memory");
		given->text[SETTINGS_FILE] = settings_keep(s, joined);
		free(joined);
	}
	return given->text[SETTINGS_FILE] ? 0 : settings_refuse(s, "no memory");
}

/* The library goes on after an error: the first is told. */
static int settings_reader_handle(void *user, const char *section, const char *name, const char *value)
{
	struct settings_reader *r = user;

	if (r->wrong)
		return 1;
	if (!settings_reader_pair(r, section, name, value))
		return 1;
	r->wrong = r->line;
	r->ours = true;
	return 0;
}

int settings_file_read(struct settings *s)
{
	struct settings_reader r = {s, fopen(s->file, "re"), 0, 0, false};
	int line, os;

	if (!r.file)
		return settings_refuse(s, "cannot read %s: %s", s->file, strerror(errno));
	line = ini_parse_stream(settings_reader_line, &r, settings_reader_handle, &r);
	os = ferror(r.file) ? errno : 0;
	fclose(r.file);
	if (os)
		return settings_refuse(s, "cannot read %s: %s", s->file, strerror(os));
	if (line < 0)
		return settings_refuse(s, "cannot read %s: no memory", s->file);
	if (line && (!r.ours || (unsigned)line < r.wrong))
		return settings_refuse(s, "%s:%d: neither 'name = value' nor '[section]'", s->file, line);
	return r.wrong ? -1 : 0;
}
