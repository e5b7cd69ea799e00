/* What an archiver tells of itself, and what can be told of one in another process. */
#include "archive_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "acks.h"
#include "jsontext.h"

void archive_status(struct archive *a, struct archive_status *status)
{
	uint64_t now = archive_now_ms();

	pthread_mutex_lock(&a->lock);
	*status = a->status;
	status->lag_ms = a->behind_ms && now > a->behind_ms ? now - a->behind_ms : 0;
	pthread_mutex_unlock(&a->lock);
}

static const char *archive_word(enum archive_state state)
{
	static const char *const words[] = {"starting", "full", "going", "behind", "failing"};

	return words[state];
}

static void archive_json_other(struct bts *db, FILE *out)
{
	struct bts_ack ack;

	if (db && acks_archive(db, &ack))
		fprintf(out,
			",\"archive\":{\"state\":\"elsewhere\",\"txid\":%" PRIu64 ",\"epoch\":%" PRIu32 "}",
			(uint64_t)ack.txid, ack.epoch);
}

static void archive_json_to(struct archive *a, struct bts *db, FILE *out)
{
	struct archive_status status;

	if (!a) {
		archive_json_other(db, out);
		return;
	}
	archive_status(a, &status);
	fprintf(out, ",\"archive\":{\"state\":\"%s\",\"url\":", archive_word(status.state));
	jsontext_string(out, store_name(a->options.store));
	fprintf(out,
		",\"txid\":%" PRIu64 ",\"epoch\":%" PRIu32 ",\"lag_ms\":%" PRIu64 ",\"frames\":%" PRIu64
		",\"fulls\":%" PRIu64 ",\"parts\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"failures\":%" PRIu64
		",\"last_error\":",
		(uint64_t)status.position.txid, status.position.epoch, status.lag_ms, status.frames,
		status.fulls, status.parts, status.bytes, status.failures);
	jsontext_string(out, status.last_error);
	fputc('}', out);
}

static void archive_number(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n", name, help, name, type, name, value);
}

static void archive_metrics_to(struct archive *a, struct bts *db, FILE *out)
{
	struct archive_status status = {.state = ARCHIVE_STARTING};
	struct bts_ack ack;

	if (!a) {
		if (db && acks_archive(db, &ack))
			archive_number(
				out, "bts_archive_txid", "gauge", "newest commit that is archived", ack.txid);
		return;
	}
	archive_status(a, &status);
	archive_number(
		out, "bts_archive_txid", "gauge", "newest commit that is archived", status.position.txid);
	fprintf(out,
		"# HELP bts_archive_lag_seconds age of the first commit that is not archived\n"
		"# TYPE bts_archive_lag_seconds gauge\nbts_archive_lag_seconds %.3f\n",
		(double)status.lag_ms / 1e3);
	archive_number(out, "bts_archive_frames_total", "counter", "frames archived", status.frames);
	archive_number(
		out, "bts_archive_full_frames_total", "counter", "of them those of everything", status.fulls);
	archive_number(out, "bts_archive_parts_total", "counter", "objects of frames stored", status.parts);
	archive_number(out, "bts_archive_bytes_total", "counter", "bytes of frames stored", status.bytes);
	archive_number(out, "bts_archive_failures_total", "counter", "attempts that failed", status.failures);
	archive_number(out, "bts_archive_failing", "gauge", "1: the last attempt failed",
		status.state == ARCHIVE_FAILING);
}

static char *archive_text(
	void (*write)(struct archive *, struct bts *, FILE *), struct archive *a, struct bts *db)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	write(a, db, out);
	if (!fclose(out))
		return text;
	free(text);
	return NULL;
}

char *archive_json(struct archive *a, struct bts *db)
{
	return archive_text(archive_json_to, a, db);
}

char *archive_metrics(struct archive *a, struct bts *db)
{
	return archive_text(archive_metrics_to, a, db);
}
