/* Who may become the primary: see elect.h. */
#include "elect.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "fail.h"
#include "position.h"

static bool elect_url_valid(const char *url, size_t size)
{
	size_t scheme = strncasecmp(url, "http://", 7) == 0 ? 7 : strncasecmp(url, "https://", 8) == 0 ? 8 : 0;

	return scheme && size > scheme && size <= ELECT_URL_MAX && strcspn(url, "?# \t\r\n@\"<>\\") >= size;
}

enum bts_err elect_init(struct elect *elect, const char *members, unsigned survive, struct bts_error *error)
{
	memset(elect, 0, sizeof(*elect));
	while (*members) {
		struct elect_member *member = &elect->members[elect->count];
		size_t size = strcspn(members, ","), end = size;

		while (end > 0 && members[end - 1] == '/')
			end--;
		if (!elect_url_valid(members, end))
			return fail_set(error, BTS_INVALID, "member '%.*s': must be http://HOST:PORT", (int)(size < 80 ? size : 80),
				members);
		if (elect->count == ELECT_MEMBERS_MAX)
			return fail_set(error, BTS_INVALID, "at most %d members", ELECT_MEMBERS_MAX);
		memcpy(member->url, members, end);
		for (unsigned i = 0; i < elect->count; i++)
			if (strcmp(elect->members[i].url, member->url) == 0)
				return fail_set(error, BTS_INVALID, "member %s is named twice", member->url);
		elect->count++;
		members += size + (members[size] == ',');
	}
	if (survive > elect->count)
		return fail_set(error, BTS_INVALID, "no write can be on %u others where there are %u", survive, elect->count);
	elect->survive = survive;
	return BTS_OK;
}

uint32_t elect_number(const struct elect *elect, const struct bts_role *own)
{
	uint32_t number = own->position.epoch > own->promised ? own->position.epoch : own->promised;

	for (unsigned i = 0; i < elect->count; i++) {
		if (elect->members[i].promised > number)
			number = elect->members[i].promised;
		if (elect->members[i].position.epoch > number)
			number = elect->members[i].position.epoch;
	}
	return number < UINT32_MAX ? number + 1 : 0;
}

unsigned elect_needed(const struct elect *elect)
{
	return elect->count + 1 - elect->survive;
}

unsigned elect_promised(const struct elect *elect)
{
	unsigned promised = 1;

	for (unsigned i = 0; i < elect->count; i++)
		promised += elect->members[i].answer == ELECT_PROMISED;
	return promised;
}

bool elect_is_outbid(const struct elect *elect)
{
	for (unsigned i = 0; i < elect->count; i++)
		if (elect->members[i].answer == ELECT_REFUSED && elect->members[i].promised >= elect->epoch)
			return true;
	return false;
}

bool elect_is_tied(const struct elect *elect)
{
	for (unsigned i = 0; i < elect->count; i++)
		if (elect->members[i].answer == ELECT_REFUSED && elect->members[i].promised == elect->epoch)
			return true;
	return false;
}

const char *elect_code(enum elect_verdict verdict)
{
	static const char *const codes[] = {"", "no-quorum", "outbid", "ahead", "diverged"};

	return codes[verdict];
}

int elect_compare(const struct bts_position *a, const struct bts_position *b, bool *diverged)
{
	*diverged = !position_same_database(a, b);
	if (a->txid == 0 || b->txid == 0)
		return (a->txid > b->txid) - (a->txid < b->txid);
	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	if (a->epoch_random != b->epoch_random || (a->txid == b->txid && memcmp(a->chain, b->chain, sizeof(a->chain))))
		*diverged = true;
	return (a->txid > b->txid) - (a->txid < b->txid);
}

static enum elect_verdict elect_short(const struct elect *elect, char why[ELECT_WHY_SIZE])
{
	enum elect_verdict verdict = ELECT_NO_QUORUM;
	size_t at = (size_t)snprintf(why, ELECT_WHY_SIZE, "%u of %u members promised, %u are needed", elect_promised(elect),
		elect->count + 1, elect_needed(elect));

	for (unsigned i = 0; i < elect->count; i++) {
		const struct elect_member *member = &elect->members[i];

		if (member->answer == ELECT_REFUSED && member->promised >= elect->epoch)
			verdict = ELECT_OUTBID;
		if (member->answer != ELECT_PROMISED && at < ELECT_WHY_SIZE - 150)
			at += (size_t)snprintf(why + at, ELECT_WHY_SIZE - at, "; %.60s: %.60s", member->url,
				member->why[0] ? member->why : "no answer");
	}
	return verdict;
}

enum elect_verdict elect_judge(const struct elect *elect, char why[ELECT_WHY_SIZE])
{
	const struct elect_member *ahead = NULL;
	bool diverged;

	why[0] = '\0';
	for (unsigned i = 0; i < elect->count; i++) {
		const struct elect_member *member = &elect->members[i];

		if (member->answer != ELECT_PROMISED)
			continue;
		if (elect_compare(&member->position, &elect->own, &diverged) > 0 &&
			(!ahead || elect_compare(&member->position, &ahead->position, &(bool){false}) > 0))
			ahead = member;
		if (diverged) {
			snprintf(why, ELECT_WHY_SIZE, "%s stands in another history, at %" PRIu64 " of epoch %" PRIu32 "-%016" PRIx64,
				member->url, member->position.txid, member->position.epoch, member->position.epoch_random);
			return ELECT_DIVERGED;
		}
	}
	if (elect_promised(elect) < elect_needed(elect))
		return elect_short(elect, why);
	if (!ahead)
		return ELECT_PROMOTE;
	snprintf(why, ELECT_WHY_SIZE, "%s is ahead, at %" PRIu64 " of epoch %" PRIu32 ", and this one at %" PRIu64 " of epoch %" PRIu32,
		ahead->url, ahead->position.txid, ahead->position.epoch, elect->own.txid, elect->own.epoch);
	return ELECT_AHEAD;
}
