/* Positions as text, and their comparison. */
#include "position.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void position_hex(const uint8_t *bytes, size_t size, char *out)
{
	static const char digits[] = "0123456789abcdef";
	size_t i;

	for (i = 0; i < size; i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
	out[2 * size] = '\0';
}

static int position_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool position_hex_parse(const char *text, uint8_t *out, size_t size)
{
	size_t i;

	if (strlen(text) != 2 * size)
		return false;
	for (i = 0; i < 2 * size; i++) {
		if (position_digit(text[i]) < 0)
			return false;
	}
	for (i = 0; i < size; i++)
		out[i] = (uint8_t)(position_digit(text[2 * i]) << 4 | position_digit(text[2 * i + 1]));
	return true;
}

bool position_number_parse(const char *text, uint64_t max, uint64_t *out)
{
	uint64_t value = 0;
	unsigned digit;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		digit = (unsigned)(*text - '0');
		if (value > (UINT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	if (value > max)
		return false;
	*out = value;
	return true;
}

void position_epoch_text(const struct bts_position *position, char out[POSITION_EPOCH_SIZE])
{
	snprintf(
		out, POSITION_EPOCH_SIZE, "%" PRIu32 "-%016" PRIx64, position->epoch, position->epoch_random);
}

bool position_epoch_parse(const char *text, struct bts_position *position)
{
	const char *dash = strchr(text, '-');
	uint8_t random[8];
	uint64_t number;
	char head[16];
	size_t i;

	if (!dash || (size_t)(dash - text) >= sizeof(head))
		return false;
	memcpy(head, text, (size_t)(dash - text));
	head[dash - text] = '\0';
	if (!position_number_parse(head, UINT32_MAX, &number))
		return false;
	if (!position_hex_parse(dash + 1, random, sizeof(random)))
		return false;
	position->epoch = (uint32_t)number;
	position->epoch_random = 0;
	for (i = 0; i < sizeof(random); i++)
		position->epoch_random = position->epoch_random << 8 | random[i];
	return true;
}

void position_text(const struct bts_position *position, char out[POSITION_TEXT_SIZE])
{
	char epoch[POSITION_EPOCH_SIZE], chain[POSITION_ID_SIZE];

	position_epoch_text(position, epoch);
	position_hex(position->chain, sizeof(position->chain), chain);
	snprintf(out, POSITION_TEXT_SIZE, "%s/%" PRIu64 "/%s", epoch, position->txid, chain);
}

bool position_parse(const char *text, struct bts_position *position)
{
	char copy[POSITION_TEXT_SIZE], *txid, *chain;

	if (strlen(text) >= sizeof(copy))
		return false;
	memcpy(copy, text, strlen(text) + 1);
	txid = strchr(copy, '/');
	chain = txid ? strchr(txid + 1, '/') : NULL;
	if (!chain)
		return false;
	*txid++ = *chain++ = '\0';
	return position_epoch_parse(copy, position) && position_number_parse(txid, POSITION_TXID_MAX, &position->txid) &&
	       position_hex_parse(chain, position->chain, sizeof(position->chain));
}

bool position_same_database(const struct bts_position *a, const struct bts_position *b)
{
	return memcmp(a->database, b->database, sizeof(a->database)) == 0;
}

bool position_equal(const struct bts_position *a, const struct bts_position *b)
{
	if (!position_same_database(a, b) || a->txid != b->txid)
		return false;
	if (a->txid == 0)
		return true;
	return a->epoch == b->epoch && a->epoch_random == b->epoch_random &&
	       memcmp(a->chain, b->chain, sizeof(a->chain)) == 0;
}
