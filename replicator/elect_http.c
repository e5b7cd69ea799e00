/*
 * Asking the members for their promises, over HTTP.  A member answers in headers: BTS-Position and BTS-Database when it has
 * promised, BTS-Promised and BTS-Error when not.
 */
#include "elect.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "position.h"
#include "transport.h"

#define ELECT_TARGET_SIZE 200

struct elect_reply {
	long status;
	struct bts_position position;
	bool has_position, has_database;
	uint64_t promised;
	char code[40];
};

static void elect_on_header(void *arg, const char *name, const char *value)
{
	struct elect_reply *reply = arg;

	if (strcasecmp(name, "BTS-Position") == 0)
		reply->has_position = position_parse(value, &reply->position);
	else if (strcasecmp(name, "BTS-Database") == 0)
		reply->has_database =
			position_hex_parse(value, reply->position.database, sizeof(reply->position.database));
	else if (strcasecmp(name, "BTS-Promised") == 0 && !position_number_parse(value, UINT32_MAX, &reply->promised))
		reply->promised = 0;
	else if (strcasecmp(name, "BTS-Error") == 0)
		snprintf(reply->code, sizeof(reply->code), "%s", value);
}

static enum bts_err elect_on_begin(void *arg, long status)
{
	struct elect_reply *reply = arg;

	reply->status = status;
	return BTS_OK;
}

static enum bts_err elect_on_body(void *arg, const void *data, size_t size)
{
	(void)arg;
	(void)data;
	(void)size;
	return BTS_OK;
}

static void elect_take(struct elect_member *member, const struct elect_reply *reply)
{
	if (reply->status == 200 && reply->has_position && reply->has_database) {
		member->answer = ELECT_PROMISED;
		member->position = reply->position;
		member->why[0] = '\0';
	} else if (reply->status == 409) {
		member->answer = ELECT_REFUSED;
		member->promised = (uint32_t)reply->promised;
		snprintf(member->why, sizeof(member->why), "refused: %s", reply->code[0] ? reply->code : "409");
	} else {
		snprintf(member->why, sizeof(member->why), "answered %ld %s", reply->status, reply->code);
	}
}

void elect_ask(struct elect *elect, struct transport *transport)
{
	char id[POSITION_ID_SIZE], url[ELECT_URL_MAX + ELECT_TARGET_SIZE];

	position_hex(elect->own.database, sizeof(elect->own.database), id);
	for (unsigned i = 0; i < elect->count; i++) {
		struct elect_member *member = &elect->members[i];
		struct elect_reply reply = {0};
		const struct transport_handler handler = {elect_on_header, elect_on_begin, elect_on_body, &reply};
		struct bts_error why = {0};

		snprintf(url, sizeof(url), "%s%s?epoch=%" PRIu32 "-%016" PRIx64 "&database=%s", member->url, ELECT_PROMISE_PATH,
			elect->epoch, elect->epoch_random, id);
		member->answer = ELECT_SILENT;
		if (transport_post(transport, url, (struct bts_slice){"", 0}, 0, &handler, &why))
			snprintf(member->why, sizeof(member->why), "%.150s", why.text);
		else
			elect_take(member, &reply);
	}
}
