/*
 * GET /v1/backup: the database file as of one commit, while others write.
 *
 * The image stays for a while under an id, which is its ETag: a download that broke off goes on where it was, with Range and
 * If-Range, or from the address in Content-Location, byte for byte the same image.  A Range that does not say of which image it is
 * gets the whole of a new one, as parts of two would make a file of neither.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backups.h"
#include "byterange.h"
#include "config.h"
#include "handle.h"
#include "position.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "text.h"

#define BACKUP_KEEP_MS 300000

struct backup_reply {
	struct backup *backup;
	uint64_t from;
};

static ssize_t backup_fetch(void *arg, uint64_t at, void *out, size_t size)
{
	struct backup_reply *reply = arg;

	return backups_read(reply->backup, reply->from + at, out, size) ? -1 : (ssize_t)size;
}

static void backup_release(void *arg)
{
	struct backup_reply *reply = arg;

	backups_leave(reply->backup);
	free(reply);
}

static void backup_headers(struct request *r, const struct backup *backup)
{
	const struct bts_position *position = backups_position(backup);
	char text[POSITION_TEXT_SIZE], digest[POSITION_ID_SIZE], place[80], tag[BACKUPS_ID_TEXT + 2];
	uint8_t bytes[16];

	snprintf(tag, sizeof(tag), "\"%s\"", backups_id(backup));
	snprintf(place, sizeof(place), "/v1/backup?image=%s", backups_id(backup));
	position_text(position, text);
	backups_digest(backup, bytes);
	position_hex(bytes, sizeof(bytes), digest);
	request_set_header(r, "ETag", tag);
	request_set_header(r, "Accept-Ranges", "bytes");
	request_set_header(r, "Content-Location", place);
	request_set_header(r, "Cache-Control", "no-store");
	request_set_header(r, "BTS-Position", text);
	request_set_header(r, "BTS-Digest", digest);
	r->txid = position->txid;
}

/* Takes one use of the image.  ranged: whether a Range counts. */
static void backup_reply(struct request *r, struct backup *backup, int ranged)
{
	uint64_t size = backups_size(backup), from = 0, count = size;
	struct backup_reply *reply = calloc(1, sizeof(*reply));
	struct reply_fetch fetch = {backup_fetch, backup_release, reply};
	enum byterange range = byterange_parse(ranged && !r->head ? request_get_header(r, "Range") : NULL, size, &from, &count);
	char text[80];

	if (!reply || range == BYTERANGE_NONE) {
		snprintf(text, sizeof(text), "bytes */%" PRIu64, size);
		if (reply) {
			request_set_header(r, "Content-Range", text);
			reply_problem(r, 416, "range-not-satisfiable", NULL, "the image has %" PRIu64 " bytes", size);
		} else {
			reply_error(r, BTS_MEMORY, NULL);
		}
		backups_leave(backup);
		free(reply);
		return;
	}
	*reply = (struct backup_reply){backup, range == BYTERANGE_PART ? from : 0};
	backup_headers(r, backup);
	if (range == BYTERANGE_PART) {
		snprintf(text, sizeof(text), "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, from, from + count - 1, size);
		request_set_header(r, "Content-Range", text);
	}
	reply_fetched(r, range == BYTERANGE_PART ? 206 : 200, "application/octet-stream",
		range == BYTERANGE_PART ? count : size, &fetch);
}

static void backup_drop(void *state)
{
	backups_leave(state);
}

static void backup_opened(struct request *r)
{
	struct backup *backup = r->state;
	struct bts_error error;
	enum bts_err err = backups_error(backup, &error);

	r->state = NULL;
	r->state_free = NULL;
	if (!err) {
		r->token = 1; /* not of its parts: like a snapshot's it would take a reader back, perhaps into an epoch that has ended */
		backup_reply(r, backup, 0);
		return;
	}
	backups_leave(backup);
	if (err == BTS_TIMEOUT)
		reply_problem(r, 503, "stopping", NULL, "this node is stopping");
	else
		reply_error(r, err, &error);
}

/* The image that If-Range names, if it is still there. */
static struct backup *backup_named(struct request *r)
{
	struct bts_slice tag = request_get_value(r, "If-Range");
	const char *text = tag.data;

	if (tag.size != BACKUPS_ID_TEXT + 1 || text[0] != '"' || text[tag.size - 1] != '"' || !request_get_header(r, "Range"))
		return NULL;
	return backups_find(request_server(r)->backups, (struct bts_slice){text + 1, tag.size - 2});
}

/* An If-Range that names another image than the one of the address makes a Range count for nothing. */
static int backup_ranged(const struct request *r, const struct backup *backup)
{
	struct bts_slice only = request_get_value(r, "If-Range");
	char tag[BACKUPS_ID_TEXT + 2];
	int size = snprintf(tag, sizeof(tag), "\"%s\"", backups_id(backup));

	return !only.data || (only.size == (size_t)size && !memcmp(only.data, tag, only.size));
}

static void backup_gone(struct request *r)
{
	reply_problem(r, 410, "snapshot-expired", NULL, "there is no such image any more");
}

void handle_backup_get(struct request *r)
{
	const struct bts_slice *image = request_param(r, "image"), *keep = request_param(r, "ttl");
	struct server *server = request_server(r);
	struct backup *backup;
	uint64_t keep_ms = BACKUP_KEEP_MS;

	if (request_param(r, "since")) {
		handle_backup_since(r);
		return;
	}
	backup = image ? backups_find(server->backups, *image) : backup_named(r);
	if (backup) {
		backup_reply(r, backup, backup_ranged(r, backup));
		return;
	}
	if (image) {
		backup_gone(r);
		return;
	}
	if (keep && (text_duration_ms(keep->data, keep->size, &keep_ms) || keep_ms > server->config->snapshot_ttl_max_ms)) {
		reply_problem(r, 400, "invalid-parameter", NULL, "the parameter ttl is a duration up to %" PRIu64 " ms",
			server->config->snapshot_ttl_max_ms);
		return;
	}
	backup = backups_new(server->backups, r, keep_ms);
	if (!backup) {
		reply_problem(r, 503, "too-many-backups", NULL, "there are as many backups as may be; end one, or wait");
		return;
	}
	r->state = backup;
	r->state_free = backup_drop; /* its connection may end before it is asked to go on */
	request_suspend(r, backup_opened);
}

void handle_backup_delete(struct request *r)
{
	const struct bts_slice *image = request_param(r, "image");

	if (!image)
		reply_problem(r, 400, "invalid-parameter", NULL, "the parameter image says which");
	else if (backups_end(request_server(r)->backups, *image))
		backup_gone(r);
	else
		reply_empty(r, 204);
}
