/* What settings tell of themselves: --help, --version, --check-config, --print-config. */
#include <stdlib.h>
#include <string.h>

#include "settings_private.h"

#define SETTINGS_COLUMN 30 /* where the help of a setting begins */
#define SETTINGS_WIDTH 112

static const struct settings_row settings_own[] = {
	SETTINGS_GROUP("This program"),
	{.name = "config",
		.arg = "FILE",
		.help = "settings from a file: lines 'name = value', names as here without the dashes"},
	{.name = "check-config", .help = "tell whether the settings are right, and exit: 0, or 2"},
	{.name = "print-config",
		.help = "print them with where each comes from, as a file of settings, and exit"},
	{.name = "help", .help = "print this"},
	{.name = "version", .help = "print the version"},
};

int settings_complain(const struct settings *s)
{
	fprintf(stderr, "%s: %s\nTry '%s --help'.\n", s->program, s->why, s->program);
	return 2;
}

/* From column on, words kept whole. */
static void settings_show_wrapped(const char *text, int column)
{
	while (*text) {
		int size = (int)strcspn(text, " ");

		if (column + size > SETTINGS_WIDTH) {
			printf("\n%*s", SETTINGS_COLUMN, "");
			column = SETTINGS_COLUMN;
		} else if (column > SETTINGS_COLUMN) {
			putchar(' ');
		}
		printf("%.*s", size, text);
		column += size + 1;
		text += size;
		text += *text == ' ';
	}
	putchar('\n');
}

static void settings_show_row(const struct settings_row *row)
{
	bool again = row->flags & SETTINGS_RELOAD;
	char *text = NULL;
	int column;

	if (!row->name) {
		printf("\n%s:\n", row->help);
		return;
	}
	column = printf("  --%s%s%s", row->name, row->arg || row->words ? " " : "",
		row->arg     ? row->arg
		: row->words ? row->words
			     : "");
	if (column > SETTINGS_COLUMN - 2) {
		putchar('\n');
		column = 0;
	}
	printf("%*s", SETTINGS_COLUMN - column, "");
	if (asprintf(&text, "%s%s%s%s%s", row->help, row->fallback || again ? " (" : "",
		    row->fallback ? "default " : "", row->fallback ? row->fallback : "",
		    again	    ? row->fallback ? "; SIGHUP reads it again)" : "SIGHUP reads it again)"
		    : row->fallback ? ")"
				    : "") < 0)
		return;
	settings_show_wrapped(text, SETTINGS_COLUMN);
	free(text);
}

int settings_asked(const struct settings *s)
{
	size_t i;

	if (s->tell_version)
		printf("%s %s\n", s->program, s->version);
	if (!s->help)
		return s->tell_version ? 0 : -1;
	fputs(s->usage, stdout);
	for (i = 0; i < s->count; i++)
		settings_show_row(&s->rows[i]);
	for (i = 0; i < sizeof(settings_own) / sizeof(settings_own[0]); i++)
		settings_show_row(&settings_own[i]);
	printf("\nEach may also be given in the environment (BTS_MAX_BODY for --max-body) or in the file of "
	       "--config.\n"
	       "The command line counts more than the environment, that more than the file.\n%s",
		s->trailer);
	return 0;
}

static void settings_print(const struct settings *s)
{
	char variable[SETTINGS_VARIABLE_SIZE];
	size_t i;

	for (i = 0; i < s->count; i++) {
		const struct settings_row *row = &s->rows[i];
		int origin = SETTINGS_ORIGINS - 1;
		const char *text;

		if (!row->name)
			continue;
		while (origin >= 0 && !s->given[i].text[origin])
			origin--;
		if (origin < 0) {
			printf("; %s is not set\n", row->name);
			continue;
		}
		text = row->flags & SETTINGS_SECRET ? "(secret)" : s->given[i].text[origin];
		settings_variable(row->name, variable);
		if (origin == SETTINGS_FILE)
			printf("%s = %s ; %s:%u\n", row->name, text, s->file, s->given[i].line);
		else
			printf("%s = %s ; %s\n", row->name, text,
				origin == SETTINGS_COMMAND	 ? "command line"
				: origin == SETTINGS_ENVIRONMENT ? variable
								 : "default");
	}
}

int settings_checked(const struct settings *s)
{
	if (s->print)
		settings_print(s);
	else if (s->check)
		printf("%s: the settings are right\n", s->program);
	return s->print || s->check ? 0 : -1;
}
