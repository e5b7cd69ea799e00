/* Names and texts of an archive: there and back, and what a store may give instead. */
#include "cmocka.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "manifest.h"
#include "rng.h"

static uint64_t seed;
static struct manifest made, parsed;
static char text[MANIFEST_TEXT_MAX], changed[MANIFEST_TEXT_MAX];

static struct bts_position position(uint32_t epoch, bts_txid txid)
{
	struct bts_position p = {
		.epoch = epoch, .epoch_random = UINT64_C(0xfeedfacecafe0000) + epoch, .txid = txid};

	memset(p.database, 0xab, sizeof(p.database));
	memset(p.chain, (int)txid, sizeof(p.chain));
	return p;
}

static void fill(uint64_t sequence)
{
	memset(&made, 0, sizeof(made));
	made.epoch = position(7, 0);
	made.sequence = sequence;
	made.count = sequence % MANIFEST_BLOCK + 1;
	for (size_t i = 0; i < made.count; i++) {
		struct manifest_entry *entry = &made.entries[i];

		entry->to = position(7, 100 + i);
		if (i)
			entry->from = position(i % 2 ? 7 : 6, 99 + i);
		else
			memcpy(entry->from.database, made.epoch.database, sizeof(entry->from.database));
		entry->nonce = (uint32_t)(0x10 + i);
		entry->bytes = 1 + i * MANIFEST_PART_BYTES;
		entry->parts = (uint32_t)i + 1;
		entry->pages = i;
		entry->crc = UINT32_C(0xdeadbeef) ^ (uint32_t)i;
		entry->time_ms = UINT64_C(1700000000000) + i / 2;
	}
}

static enum bts_err parse(const char *bytes, size_t size)
{
	memset(&parsed, 0, sizeof(parsed));
	parsed.epoch = made.epoch;
	parsed.sequence = made.sequence;
	return manifest_parse((struct bts_slice){bytes, size}, &parsed, NULL);
}

static void test_there_and_back(void **state)
{
	static const uint64_t sequences[] = {0, 1, 254, 255, 256, 511, MANIFEST_SEQUENCE_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(sequences) / sizeof(sequences[0]); i++) {
		fill(sequences[i]);
		size_t size = manifest_write(&made, text);

		assert_true(size <= sizeof(text));
		assert_int_equal(parse(text, size), BTS_OK);
		assert_memory_equal(&parsed, &made, sizeof(made));
	}
}

/* As a person, or another program, would see it: fixed, as archives stay. */
static void test_spelling(void **state)
{
	static const char expect[] =
		"btree_store archive manifest 1\n"
		"frame frames/00000007-feedfacecafe0007/000000000064-000000000000-00000010 parts 1 bytes 1 "
		"pages 0 crc deadbeef from - to "
		"7-feedfacecafe0007/100/64646464646464646464646464646464 time 1700000000000\n"
		"sum ";
	char key[MANIFEST_KEY_SIZE];

	(void)state;
	fill(512);
	assert_int_equal(manifest_write(&made, text), sizeof(expect) - 1 + 9);
	assert_memory_equal(text, expect, sizeof(expect) - 1);
	manifest_key(&made.epoch, 512, key);
	assert_string_equal(
		key, "abababababababababababababababab/manifest/00000007-feedfacecafe0007/000000000512");
	manifest_part_key(&made.entries[0], 3, key);
	assert_string_equal(key, "abababababababababababababababab/frames/00000007-feedfacecafe0007/"
				 "000000000064-000000000000-00000010.000003");
}

/* Lines replaced, with the sum made right again. */
static enum bts_err parse_with(const char *was, const char *becomes)
{
	size_t size = manifest_write(&made, text) - 13, head;
	char *at;

	text[size] = '\0';
	at = strstr(text, was);
	assert_non_null(at);
	head = (size_t)(at - text);
	memcpy(changed, text, head);
	size = head + (size_t)sprintf(changed + head, "%s%s", becomes, at + strlen(was));
	size += (size_t)sprintf(changed + size, "sum %08" PRIx32 "\n", bts_crc32c(0, changed, size));
	return parse(changed, size);
}

static void test_misspelled(void **state)
{
	static const char *const cases[][2] = {
		{"btree_store archive", "btree-store archive"},
		{"frame frames", "frame  frames"},
		{"frame frames", "Frame frames"},
		{"frames/00000007", "frames/0000007"},
		{"frames/00000007", "frames/../../07"},
		{"frames/00000007", "frames/00000006"},
		{"-00000010 ", "-00000010.000000 "},
		{"parts 1", "parts 01"},
		{"parts 1", "parts +1"},
		{"parts 1", "parts 0"},
		{"parts 1", "parts 2"},
		{"parts 1", "parts 4294967297"},
		{"bytes 1", "bytes 0"},
		{"bytes 1", "bytes 18446744073709551617"},
		{"bytes 1", "bytes 99999999999999999999"},
		{"bytes 1", "bytes 18446744073709551615"},
		{"pages 0", "pages 68719476737"},
		{"deadbeef", "DEADBEEF"},
		{"from -", "from 7-feedfacecafe0007/0/00000000000000000000000000000000"},
		{"/100/6464", "/101/6464"},
		{"/100/64", "/100/6"},
		{"time 1700000000000\n", "time 1700000000000"},
		{"time 1700000000000\n", "time 1700000000000 \n"},
		{"time 1700000000000\n", "time 1700000000000\n\n"},
		{"time 1700000000000", "time 99999999999999999"},
		{"pages 1", "pages 1\npages 1"},
	};

	(void)state;
	fill(1);
	assert_int_equal(parse_with("parts 1", "parts 1"), BTS_OK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (parse_with(cases[i][0], cases[i][1]) != BTS_CORRUPT)
			fail_msg("taken: %s", cases[i][1]);
	}
	assert_int_equal(parse_with("manifest 1", "manifest 2"), BTS_VERSION);
}

/* Entries that are spelled well and cannot be together. */
static void test_impossible(void **state)
{
	size_t size;

	(void)state;
	for (unsigned kind = 0; kind < 7; kind++) {
		fill(2);
		if (kind == 0)
			made.entries[2].to.epoch = 8;
		if (kind == 1)
			made.entries[2].to.epoch_random++;
		if (kind == 2)
			made.entries[2].from.txid = made.entries[2].to.txid;
		if (kind == 3)
			made.entries[2].from.epoch = 8;
		if (kind == 4)
			made.entries[1].from.epoch_random++;
		if (kind == 5)
			made.entries[2].time_ms = MANIFEST_TIME_MAX + 1;
		if (kind == 6)
			made.entries[2].to.txid = POSITION_TXID_MAX + 1;
		size = manifest_write(&made, text);
		assert_int_equal(parse(text, size), BTS_CORRUPT);
	}
	fill(2);
	size = manifest_write(&made, text);
	made.sequence = 1; /* under another number's key */
	assert_int_equal(parse(text, size), BTS_CORRUPT);
	made.sequence = 3;
	assert_int_equal(parse(text, size), BTS_CORRUPT);
}

static void test_keys(void **state)
{
	static const char *const bad[] = {"", "/", "abababababababababababababababab",
		"abababababababababababababababab/",
		"abababababababababababababababab/manifest/00000007-feedfacecafe0007/51",
		"ABABABABABABABABABABABABABABABAB/manifest/00000007-feedfacecafe0007/000000000512",
		"abababababababababababababababab/manifest/00000007-feedfacecafe0007/000000000512x",
		"abababababababababababababababab/manifest/00000007-feedfacecafe0007/+00000000512",
		"abababababababababababababababab/manifest/7-feedfacecafe0007/000000000512",
		"abababababababababababababababab/frames/00000007-feedfacecafe0007/"
		"000000000064-000000000064-00000010.000003",
		"abababababababababababababababab/frames/00000007-feedfacecafe0007/"
		"000000000064-000000000000-00000010",
		"abababababababababababababababab/frames/00000007-feedfacecafe0007/"
		"ffffffffffff-000000000000-00000010.000000",
		"abababababababababababababababab/frames/00000007-feedfacecafe0007/"
		"000000000064-000000000000-00000010.000003/x"};
	struct manifest_part part = {.part = 99};
	struct bts_position epoch = {.txid = 99};
	char key[MANIFEST_KEY_SIZE], root[MANIFEST_KEY_SIZE];
	uint64_t sequence = 99;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(manifest_key_parse(bad[i], &epoch, &sequence));
		assert_false(manifest_part_key_parse(bad[i], &part));
	}
	assert_true(sequence == 99 && epoch.txid == 99 && part.part == 99);
	fill(5);
	manifest_key(&made.epoch, MANIFEST_SEQUENCE_MAX, key);
	assert_true(manifest_key_parse(key, &epoch, &sequence));
	assert_true(sequence == MANIFEST_SEQUENCE_MAX && epoch.epoch == 7 &&
		    epoch.epoch_random == made.epoch.epoch_random);
	manifest_epoch_root(&made.epoch, root);
	assert_int_equal(strncmp(key, root, strlen(root)), 0);
	manifest_part_key(&made.entries[5], 4, key);
	assert_true(manifest_part_key_parse(key, &part));
	assert_true(manifest_part_of(&part, &made.entries[5]));
	assert_false(manifest_part_of(&part, &made.entries[4]));
	part.part = made.entries[5].parts;
	assert_false(manifest_part_of(&part, &made.entries[5]));
}

static void test_parts(void **state)
{
	(void)state;
	assert_int_equal(manifest_parts(0), 0);
	assert_int_equal(manifest_parts(1), 1);
	assert_int_equal(manifest_parts(MANIFEST_PART_BYTES), 1);
	assert_int_equal(manifest_parts(MANIFEST_PART_BYTES + UINT64_C(1)), 2);
	assert_int_equal(
		manifest_parts((uint64_t)MANIFEST_PART_BYTES * MANIFEST_PARTS_MAX), MANIFEST_PARTS_MAX);
	assert_int_equal(manifest_parts((uint64_t)MANIFEST_PART_BYTES * MANIFEST_PARTS_MAX + 1), 0);
	assert_int_equal(manifest_parts(UINT64_MAX), 0);
}

/* Bytes changed, cut, and doubled, in an allocation of their own length; half of them with a sum that is right. */
static void test_random(void **state)
{
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	for (unsigned round = 0; round < 20000; round++) {
		size_t size, at, cut;
		char *copy;

		fill(rng_below(&rng, 4));
		size = manifest_write(&made, text);
		cut = rng_below(&rng, 3) ? size : rng_below(&rng, size + 1);
		copy = malloc(cut ? cut : 1);
		assert_non_null(copy);
		memcpy(copy, text, cut);
		for (unsigned n = (unsigned)rng_below(&rng, 4); n && cut; n--) {
			at = rng_below(&rng, cut);
			copy[at] = (char)(rng_below(&rng, 2) ? rng_below(&rng, 256)
							     : (uint64_t)copy[rng_below(&rng, cut)]);
		}
		if (cut > 13 && rng_below(&rng, 2)) {
			char sum[16];

			sprintf(sum, "sum %08" PRIx32 "\n", bts_crc32c(0, copy, cut - 13));
			memcpy(copy + cut - 13, sum, 13);
		}
		if (!parse(copy, cut)) {
			char again[MANIFEST_TEXT_MAX];

			assert_int_equal(manifest_write(&parsed, again), cut);
			assert_memory_equal(again, copy, cut); /* one spelling of each */
		}
		free(copy);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_spelling),
		cmocka_unit_test(test_misspelled),
		cmocka_unit_test(test_impossible),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_random),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
