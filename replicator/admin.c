/* Roles and scrubs over HTTP: see admin.h. */
#include "admin.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failover_run.h"
#include "jsontext.h"
#include "position.h"
#include "sources.h"

#define ADMIN_TEXT_MAX 4096
#define ADMIN_SCRUB_LEAST 4096 /* bytes a second */
#define ADMIN_SCRUB_MOST (UINT64_C(1) << 50)

struct admin {
	struct node *node;
	enum admin_kind kind;
	/* asked for */
	char *members, *source, *primary_url, *peers; /* owned, NULL: not given */
	uint64_t survive, rate;
	bool has_expect, has_digest, has_epoch, has_database, force;
	struct bts_position expect;
	uint8_t digest[16], database[16];
	/* became of it */
	struct bts_error error;
	struct bts_role now;
	struct admin_reply reply;
};

struct admin *admin_new(struct node *node, enum admin_kind kind)
{
	struct admin *admin = calloc(1, sizeof(*admin));

	if (!admin)
		return NULL;
	admin->node = node;
	admin->kind = kind;
	admin->reply.code = "";
	return admin;
}

void admin_free(struct admin *admin)
{
	if (!admin)
		return;
	free(admin->members);
	free(admin->source);
	free(admin->primary_url);
	free(admin->peers);
	free(admin->reply.body);
	free(admin);
}

const struct admin_reply *admin_reply(const struct admin *admin)
{
	return &admin->reply;
}

bool admin_slow(enum admin_kind kind)
{
	return kind == ADMIN_PROMOTE || kind == ADMIN_DEMOTE || kind == ADMIN_FOLLOW || kind == ADMIN_PROMISE;
}

static bool admin_refuse(struct admin *admin, unsigned status, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* false, always */
static bool admin_refuse(struct admin *admin, unsigned status, const char *code, const char *format, ...)
{
	va_list args;

	admin->reply.status = status;
	admin->reply.code = code;
	va_start(args, format);
	vsnprintf(admin->reply.detail, sizeof(admin->reply.detail), format, args);
	va_end(args);
	return false;
}

static void admin_header(struct admin *admin, const char *name, const char *value)
{
	struct admin_header *header = &admin->reply.headers[admin->reply.header_count++];

	header->name = name;
	snprintf(header->value, sizeof(header->value), "%s", value);
}

/* ---- parameters ---- */

/* Takes text. */
static bool admin_keep(char **place, char *text)
{
	free(*place);
	*place = text;
	return true;
}

/* Nobody named is nobody asked, which only force may say: an empty list is a slip, as of a variable that is not set. */
static bool admin_take_members(struct admin *admin, char *text)
{
	return admin_keep(&admin->members, text) && *text;
}

static bool admin_take_survive(struct admin *admin, char *text)
{
	bool right = position_number_parse(text, ELECT_MEMBERS_MAX, &admin->survive);

	free(text);
	return right;
}

static bool admin_take_expect(struct admin *admin, char *text)
{
	admin->has_expect = position_parse(text, &admin->expect);
	free(text);
	return admin->has_expect;
}

static bool admin_take_digest(struct admin *admin, char *text)
{
	admin->has_digest = position_hex_parse(text, admin->digest, sizeof(admin->digest));
	free(text);
	return admin->has_digest;
}

static bool admin_take_force(struct admin *admin, char *text)
{
	bool right = !strcmp(text, "1") || !strcmp(text, "0") || !strcmp(text, "true") || !strcmp(text, "false");

	admin->force = right && strcmp(text, "0") != 0 && strcmp(text, "false") != 0;
	free(text);
	return right;
}

static bool admin_take_source(struct admin *admin, char *text)
{
	struct sources sources;

	if (!sources_parse(&sources, text, NULL))
		return admin_keep(&admin->source, text);
	free(text);
	return false;
}

/* Clients are sent there, with the target of their request behind it: an address, and no password is given away.  Empty: nobody. */
static bool admin_take_primary(struct admin *admin, char *text)
{
	size_t size = strlen(text);

	if (size > 0 && !sources_is_url(text)) {
		free(text);
		return false;
	}
	while (size > 0 && text[size - 1] == '/')
		text[--size] = '\0';
	return admin_keep(&admin->primary_url, text);
}

static bool admin_take_epoch(struct admin *admin, char *text)
{
	admin->has_epoch = position_epoch_parse(text, &admin->expect) && admin->expect.epoch > 0;
	free(text);
	return admin->has_epoch;
}

static bool admin_take_database(struct admin *admin, char *text)
{
	admin->has_database = position_hex_parse(text, admin->database, sizeof(admin->database));
	free(text);
	return admin->has_database;
}

static bool admin_take_peers(struct admin *admin, char *text)
{
	struct sources sources;

	return admin_keep(&admin->peers, text) && (!*text || !sources_parse(&sources, text, NULL));
}

static bool admin_take_rate(struct admin *admin, char *text)
{
	bool right = position_number_parse(text, ADMIN_SCRUB_MOST, &admin->rate) && admin->rate >= ADMIN_SCRUB_LEAST;

	free(text);
	return right;
}

/* Each takes the text; false: it is malformed. */
static const struct admin_known {
	const char *name;
	bool (*take)(struct admin *, char *text);
} admin_known[] = {
	{"members", admin_take_members},
	{"survive", admin_take_survive},
	{"expect", admin_take_expect},
	{"digest", admin_take_digest},
	{"force", admin_take_force},
	{"upstream", admin_take_source},
	{"url", admin_take_source},
	{"primary_url", admin_take_primary},
	{"epoch", admin_take_epoch},
	{"database", admin_take_database},
	{"from", admin_take_peers},
	{"rate", admin_take_rate},
};

const char *const *admin_params(enum admin_kind kind)
{
	static const char *const names[][6] = {
		[ADMIN_ROLE] = {NULL},
		[ADMIN_PROMOTE] = {"members", "survive", "expect", "digest", "force", NULL},
		[ADMIN_DEMOTE] = {"upstream", "primary_url", NULL},
		[ADMIN_FOLLOW] = {"url", "primary_url", NULL},
		[ADMIN_PROMISE] = {"epoch", "database", NULL},
		[ADMIN_SCRUB] = {"from", "rate", NULL},
		[ADMIN_SCRUB_STATUS] = {NULL},
	};

	return names[kind];
}

bool admin_param(struct admin *admin, const char *name, struct bts_slice value)
{
	const struct admin_known *known = admin_known;
	char *text;

	while (strcmp(known->name, name) != 0)
		known++;
	text = value.size <= ADMIN_TEXT_MAX && !memchr(value.data, 0, value.size) ? malloc(value.size + 1) : NULL;
	if (!text)
		return admin_refuse(admin, 400, "invalid-parameter", "the parameter %s can not be that", name);
	memcpy(text, value.data, value.size);
	text[value.size] = '\0';
	return known->take(admin, text) || admin_refuse(admin, 400, "invalid-parameter", "the parameter %s is malformed", name);
}

static bool admin_check_promote(struct admin *admin)
{
	struct bts_error error = {0};
	struct elect *elect;
	bool right = true;

	if (!node_failover(admin->node) && !admin->members && !(admin->has_expect && admin->has_digest) && !admin->force)
		return admin_refuse(admin, 400, "invalid-parameter",
			"say who is asked (members and survive), or where this node must stand (expect and digest), or force");
	elect = admin->members ? malloc(sizeof(*elect)) : NULL;
	if (admin->members && !elect)
		return admin_refuse(admin, 503, "out-of-memory", "no memory for an election");
	if (elect && elect_init(elect, admin->members, (unsigned)admin->survive, &error))
		right = admin_refuse(admin, 400, "invalid-parameter", "%s", error.text);
	free(elect);
	return right;
}

bool admin_check(struct admin *admin)
{
	if (admin->kind == ADMIN_PROMOTE)
		return admin_check_promote(admin);
	if (admin->kind == ADMIN_FOLLOW && !admin->source)
		return admin_refuse(admin, 400, "invalid-parameter", "the parameter url says whom to follow");
	if (admin->kind == ADMIN_PROMISE && !(admin->has_epoch && admin->has_database))
		return admin_refuse(admin, 400, "invalid-parameter", "the parameters epoch and database are needed");
	return true;
}

/* ---- replies ---- */

static void admin_body(struct admin *admin, unsigned status, void (*write)(FILE *out, const void *what), const void *what)
{
	size_t size;
	FILE *out = open_memstream(&admin->reply.body, &size);

	admin->reply.status = status;
	if (out)
		write(out, what);
	if (out && !fclose(out))
		return;
	free(admin->reply.body);
	admin->reply.body = NULL;
	admin_refuse(admin, 503, "out-of-memory", "no memory for a reply");
}

static void admin_write_role(FILE *out, const void *what)
{
	static const char *const words[] = {"", "primary", "follower", "fenced"};
	const struct bts_role *now = what;
	char text[POSITION_TEXT_SIZE], id[POSITION_ID_SIZE], digest[POSITION_ID_SIZE], chain[POSITION_ID_SIZE], number[24];

	position_text(&now->position, text);
	position_hex(now->position.database, 16, id);
	position_hex(now->position.chain, 16, chain);
	position_hex(now->digest, 16, digest);
	snprintf(number, sizeof(number), "%" PRIu32, now->promised);
	fprintf(out,
		"{\"role\":\"%s\",\"position\":\"%s\",\"root_digest\":\"%s\",\"database_id\":\"%s\",\"epoch\":%" PRIu32
		",\"epoch_random\":\"%016" PRIx64 "\",\"txid\":%" PRIu64 ",\"chain\":\"%s\",\"promised_epoch\":%s}\n",
		words[now->role], text, digest, id, now->position.epoch, now->position.epoch_random,
		(uint64_t)now->position.txid, chain, now->promised ? number : "null");
}

static void admin_tell_role(struct admin *admin)
{
	const struct bts_role *now = &admin->now;
	char text[POSITION_TEXT_SIZE], id[POSITION_ID_SIZE], digest[POSITION_ID_SIZE];

	position_text(&now->position, text);
	position_hex(now->position.database, 16, id);
	position_hex(now->digest, 16, digest);
	admin_header(admin, "BTS-Position", text);
	admin_header(admin, "BTS-Database", id);
	admin_header(admin, "BTS-Digest", digest);
	admin_body(admin, 200, admin_write_role, now);
}

/* What these calls fail with means something else than where keys are read. */
static void admin_fail(struct admin *admin, enum bts_err err)
{
	static const struct {
		enum bts_err err;
		unsigned status;
		const char *code;
	} meanings[] = {
		{BTS_EXISTS, 409, "already-primary"}, {BTS_DIVERGED, 409, "unexpected-position"}, {BTS_FENCED, 409, "promised"},
		{BTS_BUSY, 409, "busy"}, {BTS_INVALID, 409, "wrong-role"}, {BTS_NOT_FOUND, 503, "unavailable"},
		{BTS_TIMEOUT, 503, "stopping"}, {BTS_MEMORY, 503, "out-of-memory"}, {BTS_CORRUPT, 500, "corrupt"},
		{BTS_IO, 500, "io-error"}, {BTS_POISONED, 500, "poisoned"}, {BTS_FULL, 507, "storage-full"},
	};
	char number[24];

	if (err == BTS_FENCED && admin->now.position.epoch) { /* what a candidate has to bid above */
		uint32_t epoch = admin->now.position.epoch, promised = admin->now.promised;

		snprintf(number, sizeof(number), "%" PRIu32, epoch > promised ? epoch : promised);
		admin_header(admin, "BTS-Promised", number);
	}
	admin_refuse(admin, 500, "internal", "%s", admin->error.text);
	for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++)
		if (meanings[i].err == err)
			admin_refuse(admin, meanings[i].status, meanings[i].code, "%s", admin->error.text);
	if (admin->reply.status == 409)
		admin_header(admin, "BTS-Error", admin->reply.code);
}

/* ---- what is done ---- */

/* Where the request says?  false: admin->error. */
static bool admin_stands(struct admin *admin)
{
	const struct bts_position *expect = &admin->expect;
	struct bts_role now;

	if (node_info(admin->node, &now, &admin->error))
		return false;
	if ((!admin->has_expect || !(memcmp(&now.position.chain, expect->chain, sizeof(expect->chain)) ||
					   now.position.txid != expect->txid || now.position.epoch != expect->epoch ||
					   now.position.epoch_random != expect->epoch_random)) &&
		(!admin->has_digest || !memcmp(now.digest, admin->digest, sizeof(now.digest))))
		return true;
	fail_set(&admin->error, BTS_DIVERGED, "this node stands elsewhere");
	return false;
}

static enum bts_err admin_promote(struct admin *admin)
{
	struct failover_run *run = node_failover(admin->node);
	struct node_promotion wanted = {.members = admin->members, .survive = (unsigned)admin->survive};
	char why[ELECT_WHY_SIZE] = "";
	const char *code = "";
	enum bts_err err;

	if (admin->has_expect) {
		struct bts_role now;

		err = node_info(admin->node, &now, &admin->error);
		if (err)
			return err;
		memcpy(admin->expect.database, now.position.database, 16);
		wanted.expect = &admin->expect;
	}
	if (admin->has_digest)
		wanted.expect_digest = admin->digest;
	if (run)
		err = admin_stands(admin) ? failover_run_promote(run, &admin->now, &code, why, &admin->error) : BTS_DIVERGED;
	else
		err = node_promote(admin->node, &wanted, &admin->now, &code, why, &admin->error);
	if (!err && *code) {
		admin_refuse(admin, 409, code, "%s", why);
		admin_header(admin, "BTS-Error", code);
	}
	return err;
}

static enum bts_err admin_demote(struct admin *admin)
{
	struct failover_run *run = node_failover(admin->node);
	enum bts_err err;

	if (run)
		failover_run_demoted(run);
	err = node_demote(admin->node, &admin->now, &admin->error);
	if (!err && admin->source)
		err = node_follow(admin->node, admin->source, admin->primary_url, &admin->error);
	else if (!err && admin->primary_url)
		node_set_primary_url(admin->node, admin->primary_url);
	return err;
}

static enum bts_err admin_follow(struct admin *admin)
{
	enum bts_err err = node_follow(admin->node, admin->source, admin->primary_url, &admin->error);

	if (!err && node_info(admin->node, &admin->now, NULL))
		admin->now.role = BTS_ROLE_FOLLOWER; /* nothing came yet */
	return err;
}

static enum bts_err admin_promise(struct admin *admin)
{
	return node_promise(admin->node, admin->expect.epoch, admin->expect.epoch_random, admin->database, &admin->now,
		&admin->error);
}

static void admin_write_scrub(FILE *out, const void *what)
{
	const struct repair_status *now = what;

	fprintf(out,
		"{\"running\":%s,\"ended\":%s,\"pages_read\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"damaged\":%" PRIu64
		",\"repaired\":%" PRIu64 ",\"lost\":%zu,\"snapshots_hidden\":%s,\"lost_pages\":[",
		now->running ? "true" : "false", now->ended ? "true" : "false", now->scrub.done, now->scrub.total,
		now->scrub.damaged, now->scrub.repaired, now->lost, now->scrub.hidden ? "true" : "false");
	for (size_t i = 0; i < now->lost && i < REPAIR_LISTED; i++)
		fprintf(out, "%s{\"page\":%" PRIu64 ",\"pages\":%" PRIu32 ",\"birth\":%" PRIu64 "}", i ? "," : "",
			(uint64_t)now->listed[i].pgno, now->listed[i].count, (uint64_t)now->listed[i].birth);
	fputs("],\"error\":", out);
	jsontext_string(out, now->error.code ? now->error.text : "");
	fputs("}\n", out);
}

static void admin_scrub_status(struct admin *admin, unsigned status)
{
	struct repair_status *now = calloc(1, sizeof(*now));

	if (!now)
		admin_refuse(admin, 503, "out-of-memory", "no memory for a reply");
	else if (!node_scrub_status(admin->node, now))
		admin_refuse(admin, 404, "not-found", "nothing was scrubbed since this process began");
	else
		admin_body(admin, status, admin_write_scrub, now);
	free(now);
}

static void admin_scrub(struct admin *admin)
{
	const char *peers = admin->peers ? admin->peers : node_source_url(admin->node);
	enum bts_err err = node_scrub(admin->node, peers, admin->rate, &admin->error);

	if (err == BTS_BUSY)
		admin_refuse(admin, 409, "busy", "%s", admin->error.text);
	else if (err)
		admin_refuse(admin, 503, "unavailable", "%s", admin->error.text);
	else
		admin_scrub_status(admin, 202);
}

void admin_run(struct admin *admin)
{
	enum bts_err err;

	switch (admin->kind) {
	case ADMIN_SCRUB:
		admin_scrub(admin);
		return;
	case ADMIN_SCRUB_STATUS:
		admin_scrub_status(admin, 200);
		return;
	case ADMIN_ROLE:
		err = node_info(admin->node, &admin->now, &admin->error) ? BTS_NOT_FOUND : BTS_OK;
		break;
	case ADMIN_PROMOTE:
		err = admin_promote(admin);
		break;
	case ADMIN_DEMOTE:
		err = admin_demote(admin);
		break;
	case ADMIN_FOLLOW:
		err = admin_follow(admin);
		break;
	default:
		err = admin_promise(admin);
		break;
	}
	if (err)
		admin_fail(admin, err);
	else if (!admin->reply.status)
		admin_tell_role(admin);
}
