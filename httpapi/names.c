/* Listings of what has a name. */
#include "names.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "handle.h"
#include "reply.h"
#include "request.h"
#include "role.h"

#define NAMES_LIMIT_DEFAULT 1000
#define NAMES_LIMIT_MAX 10000
#define NAMES_TURN 1024 /* that are passed over before others have their turn */

struct names {
	const struct names_kind *kind;
	const struct request *request; /* whose end is that of the reply */
	struct bts_txn *txn;
	uint64_t limit, count, hidden;
	char after[BTS_KEY_MAX], shown[BTS_KEY_MAX]; /* the last one looked at, and the last that may be told */
	size_t after_size, shown_size;
	enum bts_err broken;
	int begun;
};

static int names_fill(void *arg, struct buf *b)
{
	struct names *s = arg;
	struct bts_slice after = {s->after, s->after_size}, name;
	union names_info info;
	enum bts_err err;

	if (!s->begun)
		buf_str(b, "{\"items\":[");
	s->begun = 1;
	err = s->kind->next(s->txn, after, &info, &name);
	if (err && err != BTS_NOT_FOUND) {
		s->broken = err;
		return -1;
	}
	if (err || s->count == s->limit) {
		buf_printf(b, "],\"txid\":%" PRIu64 ",\"next\":%s", (uint64_t)bts_txn_id(s->txn), err ? "null" : "\"");
		if (!err)
			handle_cursor(b, (struct bts_slice){s->shown, s->shown_size});
		buf_str(b, err ? "}\n" : "\"}\n");
		return 0;
	}
	s->after_size = name.size;
	memcpy(s->after, name.data, name.size);
	if (s->kind->visible && !s->kind->visible(s->request, &info))
		return ++s->hidden % NAMES_TURN ? 1 : REPLY_REST;
	s->shown_size = name.size;
	memcpy(s->shown, name.data, name.size);
	if (s->count++)
		buf_str(b, ",\n");
	s->kind->json(b, &info);
	return 1;
}

static void names_release(void *arg)
{
	struct names *s = arg;

	bts_abort(s->txn);
	free(s);
}

/* Where the page begins.  0, or -1 after a reply that refuses it. */
static int names_begin(struct request *r, struct names *s)
{
	const struct bts_slice *after = request_param(r, "after");
	const struct names_kind *kind = s->kind;

	if (after && after->size) {
		s->after_size = handle_cursor_key(*after, s->after);
		if (!s->after_size || s->after_size > kind->name_max) {
			reply_problem(r, 400, "invalid-parameter", NULL, "after is neither a cursor nor a %s name", kind->what);
			return -1;
		}
	}
	if (kind->skip.size && (!s->after_size || handle_reserved((struct bts_slice){s->after, s->after_size}))) {
		s->after_size = kind->skip.size;
		memcpy(s->after, kind->skip.data, kind->skip.size);
	}
	return 0;
}

static void names_cut(struct request *r, void *arg)
{
	struct names *s = arg;

	role_met(request_role(r), s->broken, bts_txn_error(s->txn));
}

void names_reply(struct request *r, const struct names_kind *kind)
{
	struct names *s = calloc(1, sizeof(*s));
	struct reply_stream stream = {.fill = names_fill, .release = names_release, .arg = s, .cut = names_cut};
	const struct bts_slice *limit;

	if (!s) {
		reply_error(r, BTS_MEMORY, NULL);
		return;
	}
	s->kind = kind;
	s->request = r;
	s->limit = NAMES_LIMIT_DEFAULT;
	limit = request_param(r, "limit");
	if ((limit && limit->size && request_param_u64(r, "limit", 1, NAMES_LIMIT_MAX, &s->limit)) || names_begin(r, s))
		goto fail;
	s->txn = handle_begin(r);
	if (!s->txn)
		goto fail;
	if (!reply_stream(r, 200, "application/json", &stream))
		return;
	reply_error(r, s->broken ? s->broken : BTS_MEMORY, bts_txn_error(s->txn));
fail:
	names_release(s);
}
