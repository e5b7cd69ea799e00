/* One line an event on standard error. */
#include "log.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "jsonout.h"

static atomic_int log_as_json;
static atomic_int log_least;

void log_init(int json, enum log_level least)
{
	log_as_json = json;
	log_least = (int)least;
}

static enum log_level log_level(const char *word)
{
	return *word == 'i' ? LOG_LEVEL_INFO : *word == 'w' ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR;
}

/* Quoted when a reader that splits at spaces would be misled. */
static void log_text_value(struct buf *b, const char *text)
{
	const char *c;

	for (c = text; *c; c++)
		if (*c <= ' ' || *c == '"' || *c == '\\' || *c == '=' || *c == 0x7f)
			break;
	if (*c || !*text)
		jsonout_string(b, text);
	else
		buf_str(b, text);
}

static void log_pair(struct buf *b, int json, const char *name, const char *text, uint64_t number)
{
	if (json)
		buf_printf(b, "%s\"%s\":", b->size > 1 ? "," : "", name);
	else
		buf_printf(b, "%s%s=", b->size ? " " : "", name);
	if (!text)
		buf_printf(b, "%" PRIu64, number);
	else if (json)
		jsonout_string(b, text);
	else
		log_text_value(b, text);
}

int log_is_json(void)
{
	return log_as_json;
}

void log_line(struct buf *b, const char *level, const char *event, const struct log_field *fields)
{
	struct timespec now;
	struct tm tm;
	char seconds[32], stamp[48];
	int json = log_as_json;

	if ((int)log_level(level) < log_least)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(stamp, sizeof(stamp), "%s.%03ldZ", seconds, now.tv_nsec / 1000000);
	if (json)
		buf_str(b, "{");
	log_pair(b, json, "time", stamp, 0);
	log_pair(b, json, "level", level, 0);
	log_pair(b, json, "event", event, 0);
	for (; fields && fields->name; fields++)
		log_pair(b, json, fields->name, fields->text, fields->number);
	buf_str(b, json ? "}\n" : "\n");
}

void log_event(const char *level, const char *event, const struct log_field *fields)
{
	struct buf b = {0};

	log_line(&b, level, event, fields);
	/* One write, so that lines of several threads do not mix; a log that cannot be written stops nothing. */
	if (!b.failed && b.size)
		(void)!write(STDERR_FILENO, b.data, b.size);
	buf_fini(&b);
}
