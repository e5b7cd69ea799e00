/* What replies say in a word: tokens of commits, and what errors of the engine mean to a client. */
#include <string.h>

#include "reply.h"
#include "request.h"
#include "role.h"
#include "text.h"

void reply_token_encode(const struct reply_token *token, char text[REPLY_TOKEN_MAX])
{
	uint8_t bytes[21] = {1};
	int i;

	for (i = 0; i < 4; i++)
		bytes[1 + i] = (uint8_t)(token->epoch >> 8 * i);
	for (i = 0; i < 8; i++) {
		bytes[5 + i] = (uint8_t)(token->random >> 8 * i);
		bytes[13 + i] = (uint8_t)(token->txid >> 8 * i);
	}
	text[text_base64url_to(text, bytes, sizeof(bytes))] = '\0';
}

int reply_token_decode(struct bts_slice text, struct reply_token *token)
{
	uint8_t bytes[REPLY_TOKEN_MAX];
	int i;

	if (text.size >= REPLY_TOKEN_MAX || text_base64url_decode(text.data, text.size, bytes) != 21 || bytes[0] != 1)
		return -1;
	memset(token, 0, sizeof(*token));
	for (i = 0; i < 4; i++)
		token->epoch |= (uint32_t)bytes[1 + i] << 8 * i;
	for (i = 0; i < 8; i++) {
		token->random |= (uint64_t)bytes[5 + i] << 8 * i;
		token->txid |= (uint64_t)bytes[13 + i] << 8 * i;
	}
	return 0;
}

unsigned reply_meaning(enum bts_err err, const char **code)
{
	static const struct {
		enum bts_err err;
		unsigned status;
		const char *code;
	} meanings[] = {
		{BTS_CONFLICT, 409, "conflict"},
		{BTS_CORRUPT, 500, "corrupt"},
		{BTS_FULL, 507, "storage-full"},
		{BTS_IO, 500, "io-error"},
		{BTS_INVALID, 400, "invalid-argument"},
		{BTS_BUSY, 503, "unavailable"},
		{BTS_POISONED, 500, "poisoned"},
		{BTS_MEMORY, 503, "out-of-memory"},
		{BTS_READ_ONLY, 503, "not-primary"},
		{BTS_TIMEOUT, 503, "unavailable"},
		{BTS_LIMIT, 503, "limit-reached"},
		{BTS_EXPIRED, 410, "snapshot-expired"},
		{BTS_FENCED, 503, "not-primary"},
		{BTS_UNKNOWN, 503, "outcome-unknown"},
	};
	size_t i;

	for (i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
		if (meanings[i].err == err) {
			*code = meanings[i].code;
			return meanings[i].status;
		}
	}
	*code = "internal";
	return 500;
}

void reply_error(struct request *r, enum bts_err err, const struct bts_error *error)
{
	const char *text = error && error->text[0] ? error->text : bts_err_name(err);
	const char *code;
	unsigned status = reply_meaning(err, &code);

	role_met(request_role(r), err, error);
	reply_problem(r, status, code, NULL, "%s", text);
}
