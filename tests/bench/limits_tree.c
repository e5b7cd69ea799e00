/*
 * What a B+tree of this shape costs without a store around it: a static tree of slotted nodes of 4 KiB,
 * entries of 16 + 100 bytes, full nodes, no transaction and no check.  Two ways to search a node, both
 * without a branch that depends on the key: comparing whole keys through the slots; or comparing the first
 * four bytes of each key, which lie in the slots, with the child's slots prefetched as soon as the child is
 * known.
 *
 * The same nodes lie in a mapped file, as a store's would, and in anonymous memory of small and of huge
 * pages: what differs is how often the processor walks its page tables.
 */
#include "limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TREE_NODE 4096u
#define TREE_ENTRIES UINT64_C(1000000)
#define TREE_KEY 16u
#define TREE_VALUE 100u

struct tree_slot {
	uint32_t head; /* the first four bytes of the key, as a number that sorts like them */
	uint16_t offset, key_size;
};

/* Slots grow up, entries down: the key, then the value or the child's number. */
struct tree_node {
	uint16_t count, level;
	uint32_t low; /* where the entries begin */
	struct tree_slot slots[];
};

enum tree_place { TREE_FILE, TREE_SMALL, TREE_HUGE, TREE_PLACES };

static struct {
	struct bench_set set;
	uint8_t *memory[TREE_PLACES];
	size_t room, size; /* of TREE_SMALL, and of the others */
	uint32_t nodes, root;
	uint64_t random;
} tree;

static void tree_free(void)
{
	for (int i = 0; i < TREE_PLACES; i++) {
		limits_unmap(tree.memory[i], i == TREE_SMALL ? tree.room : tree.size);
		tree.memory[i] = NULL;
	}
}

static uint64_t tree_get_u64(const uint8_t *from)
{
	uint64_t value;

	memcpy(&value, from, sizeof(value));
	return __builtin_bswap64(value);
}

static uint32_t tree_head(const uint8_t *key)
{
	uint32_t head;

	memcpy(&head, key, sizeof(head));
	return __builtin_bswap32(head);
}

static struct tree_node *tree_at(const uint8_t *memory, uint32_t number)
{
	return (struct tree_node *)(memory + (size_t)number * TREE_NODE);
}

/* Append to the last node, or to a new one of this level when that is full or of another level. */
static int tree_append(unsigned level, const uint8_t *key, const void *value, size_t size)
{
	struct tree_node *node = tree.nodes > 0 ? tree_at(tree.memory[TREE_SMALL], tree.nodes - 1) : NULL;
	size_t need = TREE_KEY + size + sizeof(struct tree_slot);

	if (!node || node->level != level ||
		node->low - sizeof(*node) - node->count * sizeof(struct tree_slot) < need) {
		if ((tree.nodes + 1) * (size_t)TREE_NODE > tree.room)
			return bench_fail("the tree is larger than foreseen");
		node = tree_at(tree.memory[TREE_SMALL], tree.nodes++);
		*node = (struct tree_node){.level = (uint16_t)level, .low = TREE_NODE};
	}
	node->low -= (uint32_t)(TREE_KEY + size);
	memcpy((uint8_t *)node + node->low, key, TREE_KEY);
	memcpy((uint8_t *)node + node->low + TREE_KEY, value, size);
	node->slots[node->count++] = (struct tree_slot){
		.head = tree_head(key), .offset = (uint16_t)node->low, .key_size = TREE_KEY};
	return 0;
}

static int tree_build(void)
{
	uint8_t key[TREE_KEY], value[TREE_VALUE] = {0};
	uint32_t first = 0;

	for (uint64_t i = 0; i < tree.set.entries; i++) {
		bench_key(&tree.set, i, false, key);
		value[0] = (uint8_t)i;
		if (tree_append(0, key, value, TREE_VALUE))
			return -1;
	}
	for (unsigned level = 1; tree.nodes - first > 1; level++) {
		uint32_t end = tree.nodes;

		for (uint32_t child = first; child < end; child++) {
			const struct tree_node *node = tree_at(tree.memory[TREE_SMALL], child);
			uint64_t number = child;

			if (tree_append(level, (const uint8_t *)node + node->slots[0].offset, &number,
				    sizeof(number)))
				return -1;
		}
		first = end;
	}
	tree.root = tree.nodes - 1;
	tree.size = (size_t)tree.nodes * TREE_NODE;
	return 0;
}

static int tree_write(int fd, const char *path)
{
	for (size_t at = 0; at < tree.size;) {
		ssize_t n = write(fd, tree.memory[TREE_SMALL] + at, tree.size - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return bench_fail("%s: write: %s", path, strerror(errno));
		at += (size_t)n;
	}
	return fdatasync(fd) ? bench_fail("%s: fdatasync: %s", path, strerror(errno)) : 0;
}

/* The nodes in a file, mapped; its name is gone when this returns. */
static int tree_map_file(const char *dir)
{
	char path[4200];
	void *map;
	int fd, err;

	snprintf(path, sizeof(path), "%s/tree", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return bench_fail("%s: %s", path, strerror(errno));
	err = tree_write(fd, path);
	if (!err) {
		map = mmap(NULL, tree.size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
		if (map == MAP_FAILED)
			err = bench_fail("%s: mmap: %s", path, strerror(errno));
		else
			tree.memory[TREE_FILE] = map;
	}
	close(fd);
	unlink(path);
	return err;
}

/* The last slot whose key is not above key, by whole keys. */
static unsigned tree_search_keys(const struct tree_node *node, const uint8_t *key)
{
	const uint64_t high = tree_get_u64(key), low = tree_get_u64(key + 8);
	unsigned at = 0;

	for (unsigned count = node->count; count > 1;) {
		unsigned half = count / 2;
		const uint8_t *probe = (const uint8_t *)node + node->slots[at + half].offset;
		uint64_t there = tree_get_u64(probe);

		at += half &
		      -(unsigned)((there < high) | ((there == high) & (tree_get_u64(probe + 8) <= low)));
		count -= half;
	}
	return at;
}

/* The same by heads; keys of equal heads are told apart by the rest. */
static unsigned tree_search_heads(const struct tree_node *node, const uint8_t *key)
{
	const uint32_t head = tree_head(key);
	unsigned at = 0;

	for (unsigned count = node->count; count > 1;) {
		unsigned half = count / 2;

		at += half & -(unsigned)(node->slots[at + half].head <= head);
		count -= half;
	}
	while (at > 0 && node->slots[at].head == head &&
		memcmp((const uint8_t *)node + node->slots[at].offset, key, TREE_KEY) > 0)
		at--;
	return at;
}

static void tree_prefetch(const struct tree_node *node)
{
	for (unsigned line = 0; line < 5; line++)
		__builtin_prefetch((const uint8_t *)node + line * 64);
}

/* The value under key, or NULL. */
static inline __attribute__((always_inline)) const uint8_t *tree_get(
	const uint8_t *memory, uint32_t root, const uint8_t *key, bool heads)
{
	const struct tree_node *node = tree_at(memory, root);

	for (;;) {
		unsigned at = heads ? tree_search_heads(node, key) : tree_search_keys(node, key);
		const uint8_t *entry = (const uint8_t *)node + node->slots[at].offset;
		uint64_t child;

		if (node->level == 0)
			return memcmp(entry, key, TREE_KEY) == 0 ? entry + TREE_KEY : NULL;
		memcpy(&child, entry + TREE_KEY, sizeof(child));
		node = tree_at(memory, (uint32_t)child);
		if (heads)
			tree_prefetch(node);
	}
}

/* Random gets of keys that are there; the keys are made outside the clock. */
static inline __attribute__((always_inline)) int tree_gets(
	const uint8_t *memory, bool heads, double seconds, double *sample)
{
	enum { KEYS = 4096 };
	static uint8_t keys[KEYS][TREE_KEY];
	uint64_t count = 0, sum = 0, wanted = 0;
	double spent = 0;

	while (spent < seconds) {
		double begin;

		for (int i = 0; i < KEYS; i++) {
			uint64_t entry = bench_random(&tree.random) % tree.set.entries;

			bench_key(&tree.set, entry, false, keys[i]);
			wanted += (uint8_t)entry;
		}
		begin = bench_clock();
		for (int i = 0; i < KEYS; i++) {
			const uint8_t *value = tree_get(memory, tree.root, keys[i], heads);

			if (!value)
				return bench_fail("the slotted tree lost a key");
			sum += value[0];
		}
		spent += bench_clock() - begin;
		count += KEYS;
	}
	*sample = spent / (double)count * 1e6;
	return sum == wanted ? 0 : bench_fail("the slotted tree returned a wrong value");
}

static int tree_slice(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	const uint8_t *memory = tree.memory[work->a];

	(void)lane;
	return work->b ? tree_gets(memory, true, bench->options.seconds, sample)
		       : tree_gets(memory, false, bench->options.seconds, sample);
}

static int tree_make(struct bench *bench)
{
	tree.set = (struct bench_set){
		.entries = TREE_ENTRIES,
		.key_size = TREE_KEY,
		.value_size = TREE_VALUE,
		.stride = UINT64_MAX / TREE_ENTRIES,
	};
	tree.random = bench->options.seed;
	tree.room = (tree.set.entries / 30 + 64) * TREE_NODE;
	tree.memory[TREE_SMALL] = limits_map(tree.room, false);
	if (!tree.memory[TREE_SMALL] || tree_build())
		return -1;
	tree.memory[TREE_HUGE] = limits_map(tree.size, true);
	if (!tree.memory[TREE_HUGE])
		return -1;
	memcpy(tree.memory[TREE_HUGE], tree.memory[TREE_SMALL], tree.size);
	return tree_map_file(bench->dir);
}

#define TREE_WORK(text, place, heads)                                                                        \
	{                                                                                                    \
		.name = "slotted tree, " text, .unit = "us", .slice = tree_slice, .a = (place), .b = (heads) \
	}

static const struct bench_work tree_works[] = {
	TREE_WORK("whole keys, file", TREE_FILE, 0),
	TREE_WORK("whole keys, 4 KiB pages", TREE_SMALL, 0),
	TREE_WORK("whole keys, huge pages", TREE_HUGE, 0),
	TREE_WORK("heads and prefetch, file", TREE_FILE, 1),
	TREE_WORK("heads and prefetch, 4 KiB pages", TREE_SMALL, 1),
	TREE_WORK("heads and prefetch, huge pages", TREE_HUGE, 1),
};

const struct limits_part limits_tree = {tree_make, tree_free, tree_works, BENCH_COUNT(tree_works)};
