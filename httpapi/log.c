/* One line an event on standard error. */
#include "log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "jsonout.h"

static int log_as_json;

void log_init(int json)
{
	log_as_json = json;
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

static void log_pair(struct buf *b, const char *name, const char *text, uint64_t number)
{
	if (log_as_json)
		buf_printf(b, "%s\"%s\":", b->size > 1 ? "," : "", name);
	else
		buf_printf(b, "%s%s=", b->size ? " " : "", name);
	if (!text)
		buf_printf(b, "%" PRIu64, number);
	else if (log_as_json)
		jsonout_string(b, text);
	else
		log_text_value(b, text);
}

void log_event(const char *level, const char *event, const struct log_field *fields)
{
	struct buf b = {0};
	struct timespec now;
	struct tm tm;
	char seconds[32], stamp[48];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(stamp, sizeof(stamp), "%s.%03ldZ", seconds, now.tv_nsec / 1000000);
	if (log_as_json)
		buf_str(&b, "{");
	log_pair(&b, "time", stamp, 0);
	log_pair(&b, "level", level, 0);
	log_pair(&b, "event", event, 0);
	for (; fields && fields->name; fields++)
		log_pair(&b, fields->name, fields->text, fields->number);
	buf_str(&b, log_as_json ? "}\n" : "\n");
	/* One write, so that lines of several threads do not mix; a log that cannot be written stops nothing.
	 */
	if (!b.failed)
		(void)!write(STDERR_FILENO, b.data, b.size);
	buf_fini(&b);
}
