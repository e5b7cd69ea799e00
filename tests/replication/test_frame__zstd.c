/*
 * Compressed chunks: what was packed comes out the same in any split; a peer that seals lies about them is refused, and never makes
 * the decoder write or take more than a chunk.
 */
#include "cmocka.h"

#include <stdlib.h>

#include "frame_build.h"
#include "frame_layout.h"
#include "frame_zstd.h"
#include "rng.h"
#include "wire.h"

#define PAGE 4096u
#define PAGES 256u
#define CAP (2u << 20)

static uint64_t seed;

/* One chunk of PAGES nodes: so many random bytes at the beginning of each, the rest zero. */
struct packed {
	uint8_t *data;
	size_t size, index_size, stored_at, stored;
};

static void build(struct packed *frame, size_t noise, struct rng *rng)
{
	uint8_t *plain = calloc(PAGES, PAGE), *small = malloc((size_t)PAGES * PAGE);
	struct frame_piece *pieces = calloc(PAGES, sizeof(*pieces));
	struct frame_zstd *zstd = frame_zstd_new(true);
	struct frame_encoder encoder;
	struct frame_header header;
	struct bts_slice in = {plain, (size_t)PAGES * PAGE}, out;

	for (uint32_t i = 0; i < PAGES; i++) {
		pieces[i] = (struct frame_piece){
			.id = {.pgno = 100 + i, .birth = 15, .crc = i, .count = 1, .kind = BTS_KIND_NODE}, .pages = 1};
		for (size_t k = 0; k < noise; k++)
			plain[i * PAGE + k] = (uint8_t)rng_next(rng);
	}
	out = (struct bts_slice){small, frame_zstd_pack(zstd, in, small)};
	if (!out.size)
		out = in;
	frame_build_header(&header);
	header.zstd = true;
	frame->data = malloc(CAP);
	frame->size = frame_encode_header(&encoder, &header, frame->data);
	frame->index_size =
		frame_encode_index_packed(&encoder, pieces, PAGES, (uint32_t)out.size, frame->data + frame->size);
	frame->stored_at = frame->size + frame->index_size;
	frame->stored = out.size;
	frame_encode_packed(&encoder, in, out);
	memcpy(frame->data + frame->stored_at, out.data, out.size);
	frame->size = frame->stored_at + out.size;
	frame->size += frame_encode_chunk_end(&encoder, frame->data + frame->size);
	frame->size += frame_encode_trailer(&encoder, (struct bts_slice){"record", 6}, frame->data + frame->size);
	frame_zstd_free(zstd);
	free(pieces);
	free(plain);
	free(small);
}

static void round_trip(void **state)
{
	static const size_t noises[] = {0, 100, 1000, PAGE};
	struct frame_result whole, parts;
	struct packed frame;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	for (size_t i = 0; i < 4; i++) {
		build(&frame, noises[i], &rng);
		assert_int_equal(frame.stored < PAGES * PAGE, noises[i] < PAGE);
		assert_int_equal(frame_take_apart(frame.data, frame.size, frame.size, frame.size, &whole), BTS_OK);
		assert_int_equal(whole.pages, PAGES);
		for (size_t step = 1; step < 5000; step = step * 3 + 1) {
			assert_int_equal(frame_take_apart(frame.data, frame.size, 7, step, &parts), BTS_OK);
			assert_true(whole.sum == parts.sum && parts.ends == 1);
		}
		free(frame.data);
	}
}

static void reseal(struct packed *frame)
{
	struct frame_bytes bytes = {.data = frame->data, .size = frame->size};

	frame_reseal(&bytes, FRAME_HEADER_SIZE, frame->index_size);
	frame_reseal(&bytes, frame->stored_at, frame->stored + FRAME_SUM_SIZE);
}

static void refused(struct packed *frame, const char *text)
{
	struct frame_result result;

	reseal(frame);
	assert_int_equal(frame_take_apart(frame->data, frame->size, frame->size, frame->size, &result), BTS_CORRUPT);
	assert_int_equal(result.ends, 0);
	if (!strstr(result.error.text, text))
		fail_msg("'%s' does not say '%s'", result.error.text, text);
	free(frame->data);
}

static void lies(void **state)
{
	static const uint32_t sizes[] = {0, PAGES * PAGE + 1, UINT32_MAX};
	struct packed frame;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	for (size_t i = 0; i < 3; i++) {
		build(&frame, 100, &rng);
		wire_put_u32(frame.data + FRAME_HEADER_SIZE + FRAME_AT_STORED, sizes[i]);
		refused(&frame, "bytes for");
	}
	/* Not of zstd at all. */
	build(&frame, 100, &rng);
	memset(frame.data + frame.stored_at, 'x', frame.stored);
	refused(&frame, "does not decompress");
	/* Uncompressed bytes under right sums that the digest does not know. */
	build(&frame, PAGE, &rng);
	frame.data[frame.stored_at + 9] ^= 1;
	refused(&frame, "digest");
	/* Without the bit the field is zero. */
	build(&frame, 100, &rng);
	wire_put_u32(frame.data + FRAME_AT_NEED, 0);
	frame_reseal(&(struct frame_bytes){.data = frame.data}, 0, FRAME_HEADER_SIZE);
	refused(&frame, "reserved");
}

static void random_changes(void **state)
{
	struct frame_result right, result;
	struct packed frame, copy;
	unsigned refusals = 0;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	build(&frame, 60, &rng);
	assert_int_equal(frame_take_apart(frame.data, frame.size, frame.size, frame.size, &right), BTS_OK);
	copy = frame;
	copy.data = malloc(CAP);
	for (unsigned round = 0; round < 2000; round++) {
		memcpy(copy.data, frame.data, frame.size);
		for (uint64_t n = 1 + rng_below(&rng, 6); n > 0; n--)
			copy.data[copy.stored_at + rng_below(&rng, rng_one_in(&rng, 2) ? 20 : copy.stored)] ^=
				(uint8_t)(1u << rng_below(&rng, 8));
		reseal(&copy);
		if (frame_take_apart(copy.data, copy.size, copy.size, copy.size, &result))
			refusals++;
		else
			assert_true(result.sum == right.sum); /* a bit that means nothing to who has all in one piece */
	}
	printf("%u of 2000 refused\n", refusals);
	free(copy.data);
	free(frame.data);
}

/* libzstd alone, under a sanitizer: nothing is written beyond the room. */
static void random_bytes(void **state)
{
	struct frame_zstd *pack = frame_zstd_new(true), *unpack = frame_zstd_new(false);
	size_t size = 3000, packed;
	uint8_t *in = malloc(size), *out = malloc(size), *back = malloc(size);
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	for (unsigned round = 0; round < 5000; round++) {
		for (size_t i = 0; i < size; i++)
			in[i] = (uint8_t)(i % 50 < 30 ? round : rng_next(&rng));
		packed = frame_zstd_pack(pack, (struct bts_slice){in, size}, out);
		assert_true(packed > 0 && packed < size);
		assert_true(frame_zstd_unpack(unpack, (struct bts_slice){out, packed}, back, size));
		assert_memory_equal(in, back, size);
		assert_false(frame_zstd_unpack(unpack, (struct bts_slice){out, packed - 1}, back, size));
		assert_false(frame_zstd_unpack(unpack, (struct bts_slice){out, packed}, back, size - 1));
		out[rng_below(&rng, packed)] ^= (uint8_t)(1u << rng_below(&rng, 8));
		(void)frame_zstd_unpack(unpack, (struct bts_slice){out, packed}, back, size);
	}
	free(in);
	free(out);
	free(back);
	frame_zstd_free(pack);
	frame_zstd_free(unpack);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(lies),
		cmocka_unit_test(random_changes),
		cmocka_unit_test(random_bytes),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
