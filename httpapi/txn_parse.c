/* The bodies of POST /v1/txn and POST /v1/get, checked and taken apart. */
#include "txn_parse.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"
#include "ttl.h"

#define TXN_DEPTH 3    /* the object, its lists, their objects */
#define TXN_COMMAS 12  /* of a list's object and the one before it, at most */
#define TXN_OBJECT 512 /* bytes of memory */
#define TXN_MEMBER 160 /* likewise, its text not counted */

/* Members of the lists' objects.  The first are bytes, each also under its name with _base64. */
enum txn_member {
	MEMBER_BUCKET,
	MEMBER_KEY,
	MEMBER_VALUE,
	MEMBER_PREFIX,
	MEMBER_FROM,
	MEMBER_TO,
	MEMBER_BYTES, /* how many of these */
	MEMBER_OP = MEMBER_BYTES,
	MEMBER_ALL,
	MEMBER_BY,
	MEMBER_CREATE,
	MEMBER_TTL,
	MEMBER_EXISTS,
	MEMBER_VERSION,
	MEMBERS
};
static const char *const txn_members[MEMBERS] = {"bucket", "key", "value", "prefix", "from", "to", "op",
	"all", "by", "create", "ttl", "exists", "version"};

#define BIT(member) (1u << (MEMBER_##member))
#define TXN_NEEDED (BIT(BUCKET) | BIT(KEY))
static const struct {
	const char *name;
	unsigned needed, allowed;
} txn_kinds[TXN_KINDS] = {
	[TXN_GET] = {"get", TXN_NEEDED, 0},
	[TXN_PUT] = {"put", TXN_NEEDED | BIT(VALUE), BIT(TTL)},
	[TXN_DELETE] = {"delete", TXN_NEEDED, 0},
	[TXN_DELETE_RANGE] = {"delete_range", BIT(BUCKET), BIT(PREFIX) | BIT(FROM) | BIT(TO) | BIT(ALL)},
	[TXN_INCR] = {"incr", TXN_NEEDED, BIT(BY) | BIT(CREATE) | BIT(TTL)},
	[TXN_CONDITION] = {"", TXN_NEEDED, BIT(EXISTS) | BIT(VERSION) | BIT(VALUE)},
};

/* One object of a list, before it is known what it is. */
struct txn_object {
	unsigned seen;
	struct bts_slice bytes[MEMBER_BYTES];
	enum txn_kind kind;
	int all, create, exists;
	int64_t by, version;
	uint64_t ttl_ms;
};

static int txn_refuse(struct txn_problem *problem, const char *code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int txn_refuse(struct txn_problem *problem, const char *code, const char *format, ...)
{
	va_list args;

	problem->status = 400;
	problem->code = code;
	va_start(args, format);
	vsnprintf(problem->why, sizeof(problem->why), format, args);
	va_end(args);
	return -1;
}

size_t txn_weigh(struct bts_slice body, size_t max_ops, struct txn_problem *problem)
{
	size_t i, depth = 0, objects = 0, commas = 0;
	const char *at = body.data;
	int quoted = 0;

	memset(problem, 0, sizeof(*problem));
	for (i = 0; i < body.size; i++) {
		if (at[i] == '"')
			quoted = !quoted;
		else if (quoted)
			i += at[i] == '\\';
		else if (at[i] == ',')
			commas++;
		else if (at[i] == '{' || at[i] == '[') {
			depth++;
			objects += at[i] == '{';
		} else if (at[i] == '}' || at[i] == ']')
			depth -= depth > 0;
		if (depth > TXN_DEPTH) {
			(void)txn_refuse(problem, "malformed-json",
				"malformed JSON at byte %zu: nested deeper than it can be", i);
			return 0;
		}
	}
	if (objects > max_ops + 1) {
		(void)txn_refuse(problem, "too-many-operations",
			"more than the %zu conditions and operations that are allowed", max_ops);
		problem->status = 413;
		return 0;
	}
	if (commas > TXN_COMMAS * (objects + 1)) {
		(void)txn_refuse(problem, "malformed-json", "malformed JSON: more members than it can have");
		return 0;
	}
	return 2 * body.size + objects * (TXN_OBJECT + sizeof(struct txn_op)) + commas * TXN_MEMBER + 1;
}

/* ---- members ---- */

/* Which member a name is, or -1; *base64 tells of the second form. */
static int txn_member(const char *name, int *base64)
{
	size_t n = strlen(name);
	int i;

	*base64 = n > 7 && !strcmp(name + n - 7, "_base64");
	n -= *base64 ? 7 : 0;
	for (i = 0; i < (*base64 ? MEMBER_BYTES : MEMBERS); i++)
		if (strlen(txn_members[i]) == n && !memcmp(txn_members[i], name, n))
			return i;
	return -1;
}

static int txn_take_bytes(struct txn *txn, const char *name, const json_t *it, int base64,
	struct bts_slice *out, struct txn_problem *problem)
{
	long n;

	if (!json_is_string(it))
		return txn_refuse(problem, "invalid-body", "\"%.40s\" must be a string", name);
	*out = (struct bts_slice){json_string_value(it), json_string_length(it)};
	if (!base64)
		return 0;
	/* Not longer than its text, all of which together is not longer than the body. */
	n = text_base64_decode(out->data, out->size, txn->bytes + txn->used);
	if (n < 0)
		return txn_refuse(problem, "invalid-body", "\"%.40s\" is not base64", name);
	*out = (struct bts_slice){txn->bytes + txn->used, (size_t)n};
	txn->used += (size_t)n;
	return 0;
}

static int txn_take_flag(const char *name, const json_t *it, int *out, struct txn_problem *problem)
{
	if (!json_is_boolean(it))
		return txn_refuse(problem, "invalid-body", "\"%s\" must be true or false", name);
	*out = json_is_true(it);
	return 0;
}

static int txn_take_integer(const char *name, const json_t *it, int64_t *out, struct txn_problem *problem)
{
	if (!json_is_integer(it))
		return txn_refuse(problem, "invalid-body", "\"%s\" must be an integer", name);
	*out = json_integer_value(it);
	return 0;
}

static int txn_take_op(const json_t *it, enum txn_kind *out, struct txn_problem *problem)
{
	const char *word = json_string_value(it);
	int i;

	for (i = 0; word && i < TXN_CONDITION; i++) {
		if (!strcmp(word, txn_kinds[i].name)) {
			*out = (enum txn_kind)i;
			return 0;
		}
	}
	return txn_refuse(problem, "invalid-body", "\"op\" is put, delete, delete_range, get or incr");
}

static int txn_take_ttl(const json_t *it, uint64_t *ms, struct txn_problem *problem)
{
	if (json_is_string(it) && !text_duration_ms(json_string_value(it), json_string_length(it), ms) &&
		*ms && *ms <= TTL_MAX_MS)
		return 0;
	return txn_refuse(problem, "invalid-body",
		"\"ttl\" is a duration above 0 and at most 36600d, as \"30s\", \"8h\"");
}

static int txn_take(struct txn *txn, struct txn_object *o, const char *name, const json_t *it,
	struct txn_problem *problem)
{
	int base64, member = txn_member(name, &base64);

	if (member < 0)
		return txn_refuse(problem, "invalid-body", "unknown member \"%.60s\"", name);
	if (o->seen & 1u << member)
		return txn_refuse(problem, "invalid-body", "\"%s\" is given twice, plain and as base64",
			txn_members[member]);
	o->seen |= 1u << member;
	switch (member) {
	case MEMBER_OP:
		return txn_take_op(it, &o->kind, problem);
	case MEMBER_ALL:
		return txn_take_flag(name, it, &o->all, problem);
	case MEMBER_CREATE:
		return txn_take_flag(name, it, &o->create, problem);
	case MEMBER_EXISTS:
		return txn_take_flag(name, it, &o->exists, problem);
	case MEMBER_BY:
		return txn_take_integer(name, it, &o->by, problem);
	case MEMBER_VERSION:
		return txn_take_integer(name, it, &o->version, problem);
	case MEMBER_TTL:
		return txn_take_ttl(it, &o->ttl_ms, problem);
	default:
		return txn_take_bytes(txn, name, it, base64, &o->bytes[member], problem);
	}
}

/* ---- objects ---- */

static int txn_check_name(struct bts_slice bucket, struct txn_problem *problem)
{
	if (!bucket.size)
		return txn_refuse(problem, "bucket-name-empty", "the bucket name is empty");
	if (bucket.size > BTS_BUCKET_NAME_MAX)
		return txn_refuse(problem, "bucket-name-too-long",
			"the bucket name has %zu bytes, at most %d are allowed", bucket.size,
			BTS_BUCKET_NAME_MAX);
	if (!*(const char *)bucket.data)
		return txn_refuse(problem, "bucket-name-reserved",
			"bucket names that begin with a zero byte are the server's own");
	return 0;
}

static int txn_check_key(const struct txn_object *o, int member, struct txn_problem *problem)
{
	if ((o->seen & 1u << member) && member == MEMBER_KEY && !o->bytes[member].size)
		return txn_refuse(problem, "key-empty", "the key is empty");
	if (o->bytes[member].size > BTS_KEY_MAX)
		return txn_refuse(problem, "key-too-long", "\"%s\" has %zu bytes, at most %d are allowed",
			txn_members[member], o->bytes[member].size, BTS_KEY_MAX);
	return 0;
}

/* That it has what its kind needs, and nothing else. */
static int txn_check_members(
	const struct txn_object *o, enum txn_kind kind, unsigned op, struct txn_problem *problem)
{
	unsigned needed = txn_kinds[kind].needed | op, allowed = needed | txn_kinds[kind].allowed;
	int i;

	for (i = 0; i < MEMBERS; i++) {
		if (needed & ~o->seen & 1u << i)
			return txn_refuse(problem, "invalid-body", "\"%s\" is missing", txn_members[i]);
		if (o->seen & ~allowed & 1u << i)
			return txn_refuse(
				problem, "invalid-body", "\"%s\" has no meaning here", txn_members[i]);
	}
	return 0;
}

static int txn_check_range(const struct txn_object *o, struct txn_problem *problem)
{
	int bounded = o->bytes[MEMBER_PREFIX].size || o->bytes[MEMBER_FROM].size || o->bytes[MEMBER_TO].size;

	if (bounded && o->all)
		return txn_refuse(
			problem, "invalid-body", "\"all\" is for all keys: without prefix, from and to");
	if (!bounded && !o->all)
		return txn_refuse(
			problem, "invalid-body", "say what to delete: prefix, from, to, or \"all\":true");
	return 0;
}

static int txn_check_condition(struct txn_op *op, const struct txn_object *o, struct txn_problem *problem)
{
	unsigned tests = o->seen & (BIT(EXISTS) | BIT(VERSION) | BIT(VALUE));

	if (!tests || tests & (tests - 1))
		return txn_refuse(
			problem, "invalid-body", "a condition has one of exists, version and value");
	if (o->version < 0)
		return txn_refuse(problem, "invalid-body", "\"version\" is a transaction number, or 0");
	op->test = tests == BIT(EXISTS) ? TXN_EXISTS : tests == BIT(VERSION) ? TXN_VERSION : TXN_VALUE;
	op->exists = o->exists;
	op->version = (bts_txid)o->version;
	return 0;
}

static int txn_fill(struct txn_op *op, const struct txn_object *o, struct txn_problem *problem)
{
	int i;

	if (txn_check_name(o->bytes[MEMBER_BUCKET], problem))
		return -1;
	for (i = MEMBER_KEY; i < MEMBER_BYTES; i++)
		if (i != MEMBER_VALUE && txn_check_key(o, i, problem))
			return -1;
	op->bucket = o->bytes[MEMBER_BUCKET];
	op->key = o->bytes[MEMBER_KEY];
	op->value = o->bytes[MEMBER_VALUE];
	op->prefix = o->bytes[MEMBER_PREFIX];
	op->from = o->bytes[MEMBER_FROM];
	op->to = o->bytes[MEMBER_TO];
	op->ttl_ms = o->ttl_ms;
	op->by = o->by;
	op->create = o->create;
	if (op->kind == TXN_DELETE_RANGE)
		return txn_check_range(o, problem);
	return op->kind == TXN_CONDITION ? txn_check_condition(op, o, problem) : 0;
}

/* fixed: what each object is; TXN_KINDS: it says so itself. */
static int txn_parse_object(
	struct txn *txn, struct txn_op *op, json_t *it, enum txn_kind fixed, struct txn_problem *problem)
{
	struct txn_object o = {.by = 1, .create = 1};
	unsigned says = fixed == TXN_KINDS ? BIT(OP) : 0;
	const char *name;
	json_t *member;

	if (!json_is_object(it))
		return txn_refuse(problem, "invalid-body", "an object is expected");
	json_object_foreach(it, name, member)
	{
		if (txn_take(txn, &o, name, member, problem))
			return -1;
	}
	if (says & ~o.seen)
		return txn_refuse(problem, "invalid-body", "\"op\" is missing");
	op->kind = says ? o.kind : fixed;
	if (txn_check_members(&o, op->kind, says, problem))
		return -1;
	txn->writes |= op->kind != TXN_GET && op->kind != TXN_CONDITION;
	return txn_fill(op, &o, problem);
}

/* ---- the body ---- */

static int txn_parse_list(struct txn *txn, struct txn_list *list, json_t *array, enum txn_kind fixed,
	struct txn_problem *problem)
{
	size_t i, count = json_array_size(array);

	list->given = 1;
	if (!json_is_array(array))
		return txn_refuse(problem, "invalid-body", "\"%s\" must be a list", list->name);
	if (!count)
		return 0;
	list->ops = calloc(count, sizeof(*list->ops));
	if (!list->ops) {
		(void)txn_refuse(problem, "out-of-memory", "out of memory");
		problem->status = 503;
		return -1;
	}
	list->count = count;
	problem->list = list->name;
	for (i = 0; i < count; i++) {
		problem->index = i;
		if (txn_parse_object(txn, &list->ops[i], json_array_get(array, i), fixed, problem))
			return -1;
	}
	problem->list = NULL;
	return 0;
}

/* The body as an object, and room for what is base64 in it.  0 or -1. */
static int txn_load(struct txn *txn, struct bts_slice body, struct txn_problem *problem)
{
	json_error_t error;
	json_t *tree;

	memset(txn, 0, sizeof(*txn));
	memset(problem, 0, sizeof(*problem));
	txn->conditions.name = "if";
	txn->then.name = "then";
	txn->otherwise.name = "else";
	txn->tree = tree = json_loadb(body.size ? body.data : "", body.size, JSON_REJECT_DUPLICATES, &error);
	if (!tree)
		return txn_refuse(problem, "malformed-json", "malformed JSON at byte %d: %.110s",
			error.position, error.text);
	if (!json_is_object(tree))
		return txn_refuse(problem, "malformed-json", "a JSON object is expected");
	txn->bytes = malloc(body.size + 3);
	if (!txn->bytes) {
		(void)txn_refuse(problem, "out-of-memory", "out of memory");
		problem->status = 503;
		return -1;
	}
	return 0;
}

int txn_parse(struct txn *txn, struct bts_slice body, struct txn_problem *problem)
{
	const char *name;
	json_t *member;
	int bad;

	if (txn_load(txn, body, problem))
		return -1;
	json_object_foreach((json_t *)txn->tree, name, member)
	{
		if (!strcmp(name, "if"))
			bad = txn_parse_list(txn, &txn->conditions, member, TXN_CONDITION, problem);
		else if (!strcmp(name, "then"))
			bad = txn_parse_list(txn, &txn->then, member, TXN_KINDS, problem);
		else if (!strcmp(name, "else"))
			bad = txn_parse_list(txn, &txn->otherwise, member, TXN_KINDS, problem);
		else
			bad = txn_refuse(problem, "invalid-body", "unknown member \"%.60s\"", name);
		if (bad)
			return -1;
	}
	if (!txn->conditions.given && !txn->then.given)
		return txn_refuse(problem, "invalid-body", "\"then\" is missing");
	return 0;
}

int txn_parse_get(struct txn *txn, struct bts_slice body, struct txn_problem *problem)
{
	const char *name;
	json_t *member;

	if (txn_load(txn, body, problem))
		return -1;
	txn->then.name = "get";
	json_object_foreach((json_t *)txn->tree, name, member)
	{
		if (strcmp(name, "get"))
			return txn_refuse(problem, "invalid-body", "unknown member \"%.60s\"", name);
		if (txn_parse_list(txn, &txn->then, member, TXN_GET, problem))
			return -1;
	}
	return txn->then.given ? 0 : txn_refuse(problem, "invalid-body", "\"get\" is missing");
}

void txn_fini(struct txn *txn)
{
	json_decref(txn->tree);
	free(txn->bytes);
	free(txn->conditions.ops);
	free(txn->then.ops);
	free(txn->otherwise.ops);
	memset(txn, 0, sizeof(*txn));
}

int txn_number(struct bts_slice text, int64_t *number)
{
	const char *at = text.data;
	int minus = text.size && *at == '-', digits = 0;
	int64_t value = 0;
	size_t i;

	for (i = minus || (text.size && *at == '+'); i < text.size; i++, digits++)
		if (at[i] < '0' || at[i] > '9')
			return -1;
	if (!digits)
		return -1;
	for (i = text.size - (size_t)digits; i < text.size; i++) {
		int digit = at[i] - '0';

		if (__builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, minus ? -digit : digit, &value))
			return 1;
	}
	*number = value;
	return 0;
}
