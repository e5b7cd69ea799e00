/* GET /v1/status: where the file stands, who takes from it, and where it gets its commits from, as btsd tells it. */
#include "serve_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "acks.h"
#include "failover_run.h"
#include "jsontext.h"
#include "position.h"

static void status_hex(FILE *out, const char *name, const uint8_t bytes[16])
{
	char text[POSITION_ID_SIZE];

	position_hex(bytes, 16, text);
	fprintf(out, ",\"%s\":\"%s\"", name, text);
}

static void status_follower(FILE *out, struct serve *serve, const struct bts_ack *ack, const struct bts_position *head)
{
	int64_t bytes = serve_lag_bytes(serve, ack, head);
	uint64_t now = serve_realtime_ms();

	fputs("{\"name\":", out);
	jsontext_string(out, ack->node);
	fputs(",\"url\":", out);
	jsontext_string(out, ack->url);
	fprintf(out, ",\"txid\":%" PRIu64 ",\"lag_txids\":%" PRIu64 ",\"lag_ms\":%" PRIu64 ",\"lag_bytes\":", (uint64_t)ack->txid,
		(uint64_t)(head->txid > ack->txid ? head->txid - ack->txid : 0), serve_lag_ms(serve, ack, head));
	if (bytes < 0)
		fputs("null", out);
	else
		fprintf(out, "%" PRId64, bytes);
	fprintf(out, ",\"seen_ms\":%" PRIu64 ",\"alarms\":%" PRIu32 ",\"twins\":%" PRIu32 "}", now > ack->seen_ms ? now - ack->seen_ms : 0,
		ack->alarms, ack->twins);
}

static void status_followers(FILE *out, struct serve *serve, const struct bts_position *head)
{
	struct bts_ack acks[SERVE_ACKS_MAX];
	size_t count = acks_followers(serve->db, acks, SERVE_ACKS_MAX), i;

	fputs(",\"followers\":[", out);
	for (i = 0; i < count; i++) {
		if (i)
			fputc(',', out);
		status_follower(out, serve, &acks[i], head);
	}
	fputc(']', out);
}

static void status_write(FILE *out, struct serve *serve, const struct bts_position *head)
{
	const struct source *source = &serve->source;
	struct bts_role role = {.size = sizeof(role)};
	struct failover_run *run = serve->node ? node_failover(serve->node) : NULL;
	char *failover = run ? failover_run_status(run) : NULL;
	char *upstream = serve->node ? node_status(serve->node) : NULL, *archive = archive_json(serve->archive, serve->db);

	fprintf(out, "{\"role\":\"%s\",\"name\":", serve_role(serve));
	jsontext_string(out, source->name);
	fprintf(out, ",\"version\":\"%s\"", bts_version());
	status_hex(out, "database_id", head->database);
	fprintf(out, ",\"epoch\":%" PRIu32 ",\"txid\":%" PRIu64, head->epoch, (uint64_t)head->txid);
	status_hex(out, "chain", head->chain);
	if (!bts_role(serve->db, &role, NULL) && role.position.txid == head->txid)
		status_hex(out, "root_digest", role.digest);
	fprintf(out, ",\"page_size\":%" PRIu32, source->page_size);
	fprintf(out,
		",\"sent\":{\"frames\":%" PRIu64 ",\"broken\":%" PRIu64 ",\"resumed\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"bytes\":%" PRIu64
		",\"paused\":%" PRIu64 "}",
		source->frames, source->broken, source->resumed, source->pages, source->bytes, serve->paused);
	if (upstream)
		fputs(upstream, out);
	free(upstream);
	if (failover)
		fprintf(out, ",\"failover\":%s", failover);
	free(failover);
	if (archive)
		fputs(archive, out);
	free(archive);
	status_followers(out, serve, head);
	fputs("}\n", out);
}

char *serve_status(struct serve *serve, const struct bts_position *head)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	status_write(out, serve, head);
	if (!fclose(out))
		return text;
	free(text);
	return NULL;
}
