/*
 * Lean frames, whose commit record comes as what differs from the one that the frame before brought: it comes out whole in any split; what is
 * not built on what is at hand, or is not what it says, is refused, and then nothing is known to build on.  And the records that a source keeps.
 */
#include "cmocka.h"

#include <stdlib.h>

#include "frame_build.h"
#include "frame_layout.h"
#include "records.h"
#include "rng.h"
#include "wire.h"

#define RECORD 1500u

static uint64_t seed;

struct lean {
	struct bts_position first, second;
	uint8_t before[RECORD], after[RECORD];
	uint8_t full[FRAME_HEADER_SIZE + FRAME_TRAILER_MAX], lean[FRAME_HEADER_SIZE + FRAME_TRAILER_MAX];
	size_t full_size, lean_size;
};

/* From its target to the next number. */
static struct frame_header next_header(const struct bts_position *base)
{
	struct frame_header header;

	frame_build_header(&header);
	if (base)
		header.base = *base;
	header.target = header.base;
	header.target.txid++;
	header.target.chain[0]++;
	return header;
}

/* A record that differs in a few places, and has something put in. */
static void build(struct lean *lean, struct rng *rng)
{
	struct frame_header header = next_header(NULL);
	struct records *records = records_new();
	struct frame_encoder encoder;
	struct bts_slice record = {lean->before, RECORD}, stored;
	uint8_t packed[BTS_RECORD_MAX];
	size_t at;

	for (size_t i = 0; i < RECORD; i++)
		lean->before[i] = (uint8_t)rng_next(rng);
	lean->full_size = frame_encode_header(&encoder, &header, lean->full);
	lean->full_size += frame_encode_trailer(&encoder, record, lean->full + lean->full_size);
	lean->first = header.target;
	header = next_header(&lean->first);
	header.lean = true;
	lean->second = header.target;
	at = rng_below(rng, RECORD - 100);
	memcpy(lean->after, lean->before, at);
	memcpy(lean->after + at + 22, lean->before + at, RECORD - 22 - at);
	for (size_t i = 0; i < 22; i++)
		lean->after[at + i] = (uint8_t)rng_next(rng);
	for (size_t i = 0; i < 10; i++)
		lean->after[rng_below(rng, RECORD)]++;
	record.data = lean->after;
	stored = (struct bts_slice){packed, records_pack(records, (struct bts_slice){lean->before, RECORD}, record, packed)};
	assert_true(stored.size > 0 && stored.size < 250);
	lean->lean_size = frame_encode_header(&encoder, &header, lean->lean);
	lean->lean_size += frame_encode_trailer_lean(&encoder, record, stored, lean->lean + lean->lean_size);
	records_free(records);
}

/* record: what must come of it, NULL: an error. */
static enum bts_err take(struct frame_decoder *decoder, const uint8_t *bytes, size_t size, size_t step, const uint8_t *record,
	struct bts_error *error)
{
	enum bts_err err = BTS_OK;
	struct frame_event event;
	struct bts_slice input;
	unsigned ends = 0;

	frame_decoder_reset(decoder);
	for (size_t at = 0; !err && at < size; at += step) {
		input = (struct bts_slice){bytes + at, size - at < step ? size - at : step};
		do {
			err = frame_decode(decoder, &input, &event, error);
			if (!err && event.kind == FRAME_END) {
				ends++;
				assert_int_equal(event.record.size, RECORD);
				assert_memory_equal(event.record.data, record, RECORD);
			}
		} while (!err && event.kind != FRAME_MORE);
	}
	if (!err)
		err = frame_decode_finish(decoder, error);
	assert_int_equal(ends, err ? 0 : 1);
	return err;
}

static void round_trip(void **state)
{
	struct frame_decoder *decoder = frame_decoder_new();
	struct bts_error error;
	struct lean lean;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	for (unsigned round = 0; round < 300; round++) {
		size_t step = 1 + rng_below(&rng, 300);

		build(&lean, &rng);
		assert_int_equal(take(decoder, lean.full, lean.full_size, step, lean.before, &error), BTS_OK);
		assert_true(frame_decoder_knows(decoder, &lean.first));
		assert_false(frame_decoder_knows(decoder, &lean.second));
		assert_int_equal(take(decoder, lean.lean, lean.lean_size, step, lean.after, &error), BTS_OK);
		assert_true(frame_decoder_knows(decoder, &lean.second));
		assert_true(lean.lean_size + 1000 < lean.full_size);
	}
	frame_decoder_free(decoder);
}

static void refused(struct lean *lean, const uint8_t *bytes, size_t size, const char *text)
{
	struct frame_decoder *decoder = frame_decoder_new();
	struct bts_error error = {0};

	assert_int_equal(take(decoder, lean->full, lean->full_size, lean->full_size, lean->before, &error), BTS_OK);
	assert_int_equal(take(decoder, bytes, size, size, NULL, &error), BTS_CORRUPT);
	if (!strstr(error.text, text))
		fail_msg("'%s' does not say '%s'", error.text, text);
	/* So the next one is asked for whole, and comes. */
	assert_false(frame_decoder_knows(decoder, &lean->first));
	assert_int_equal(take(decoder, lean->lean, lean->lean_size, 100, NULL, &error), BTS_CORRUPT);
	assert_int_equal(take(decoder, lean->full, lean->full_size, 100, lean->before, &error), BTS_OK);
	frame_decoder_free(decoder);
}

static void reseal(uint8_t *bytes, size_t size)
{
	frame_reseal(&(struct frame_bytes){.data = bytes}, FRAME_HEADER_SIZE, size - FRAME_HEADER_SIZE);
}

static void lies(void **state)
{
	static const uint32_t sizes[] = {0, RECORD + 1, UINT32_MAX};
	uint8_t *trailer, bytes[sizeof(((struct lean *)0)->lean)];
	struct bts_error error;
	struct frame_decoder *decoder = frame_decoder_new();
	struct lean lean, other;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	build(&lean, &rng);
	build(&other, &rng);
	trailer = bytes + FRAME_HEADER_SIZE;
	/* Nothing is at hand, and what is at hand is of another commit. */
	assert_int_equal(take(decoder, lean.lean, lean.lean_size, 50, NULL, &error), BTS_CORRUPT);
	assert_non_null(strstr(error.text, "not at hand"));
	frame_decoder_free(decoder);
	for (size_t i = 0; i < 3; i++) {
		memcpy(bytes, lean.lean, lean.lean_size);
		wire_put_u32(trailer + FRAME_AT_RECORD_STORED, sizes[i]);
		refused(&lean, bytes, lean.lean_size, "bytes for a commit record");
	}
	/* Built on other bytes than those at hand, a record of the same number notwithstanding. */
	refused(&lean, other.lean, other.lean_size, "");
	memcpy(bytes, lean.lean, lean.lean_size);
	memset(trailer + FRAME_END_SIZE + FRAME_STORED_SIZE, 'x', 20);
	reseal(bytes, lean.lean_size);
	refused(&lean, bytes, lean.lean_size, "comes of it");
	memcpy(bytes, lean.lean, lean.lean_size);
	wire_put_u32(trailer + FRAME_AT_RECORD_SIZE, RECORD - 1);
	reseal(bytes, lean.lean_size);
	refused(&lean, bytes, lean.lean_size, "comes of it");
}

static void random_changes(void **state)
{
	struct frame_decoder *decoder = frame_decoder_new();
	uint8_t bytes[sizeof(((struct lean *)0)->lean)];
	unsigned refusals = 0;
	struct bts_error error;
	struct lean lean;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	build(&lean, &rng);
	for (unsigned round = 0; round < 5000; round++) {
		size_t from = FRAME_HEADER_SIZE + FRAME_AT_RECORD_STORED;

		memcpy(bytes, lean.lean, lean.lean_size);
		for (uint64_t n = 1 + rng_below(&rng, 4); n > 0; n--)
			bytes[from + rng_below(&rng, lean.lean_size - from - FRAME_SUM_SIZE)] ^= (uint8_t)(1u << rng_below(&rng, 8));
		reseal(bytes, lean.lean_size);
		assert_int_equal(take(decoder, lean.full, lean.full_size, lean.full_size, lean.before, &error), BTS_OK);
		/* What is not refused is the very record, which `take` has seen to. */
		refusals += take(decoder, bytes, lean.lean_size, lean.lean_size, lean.after, &error) != BTS_OK;
	}
	assert_true(refusals > 4500);
	frame_decoder_free(decoder);
}

/* The newest are there, each once, as they were given. */
static void kept(void **state)
{
	struct records *records = records_new();
	struct frame_header header = next_header(NULL);
	struct bts_position at = header.target, first = at;
	uint8_t bytes[300];

	(void)state;
	assert_int_equal(records_find(records, &at).size, 0);
	for (unsigned i = 0; i < 3 * RECORDS_MAX; i++) {
		memset(bytes, (int)i, sizeof(bytes));
		at.txid = first.txid + i;
		for (unsigned twice = 0; twice < 2; twice++)
			records_keep(records, &at, (struct bts_slice){bytes, 100 + i % 200});
	}
	for (unsigned i = 0; i < 3 * RECORDS_MAX; i++) {
		struct bts_slice found;

		at.txid = first.txid + i;
		found = records_find(records, &at);
		assert_int_equal(found.size, i < 2 * RECORDS_MAX ? 0 : 100 + i % 200);
		assert_true(!found.size || *(const uint8_t *)found.data == (uint8_t)i);
		at.chain[3] ^= 1;
		assert_int_equal(records_find(records, &at).size, 0);
		at.chain[3] ^= 1;
	}
	records_free(records);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(lies),
		cmocka_unit_test(random_changes),
		cmocka_unit_test(kept),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
