/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel so large that the host borrows its file instead of copying it. It
 * works in that memory, with the processor and through a disk, while somebody
 * rewrites the file (test_borrow.py), and stops at a key. With "off" it powers off at once.
 */
#include "tests/native/payload/virtio.h"

#define PAGE 4096u
#define PAGES 256u
#define PAGE_WORDS (PAGE / 4)

/* Word i is i * 2654435761 + 1. */
extern volatile uint32_t bulk[PAGES * PAGE_WORDS];
__asm__(".pushsection .data\n"
	".balign 4096\n"
	".globl bulk\n"
	"bulk:\n"
	".set i, 0\n"
	".rept 256 * 1024\n"
	".long (i * 2654435761 + 1) & 0xffffffff\n"
	".set i, i + 1\n"
	".endr\n"
	".popsection");

static struct dev disk;
static struct ring ring;

/* Which pages hold what: the rest is left alone until the end. */
enum { FROM_DISK = 0, WRITTEN = 1, READ = 2 };
#define KIND(page) ((page) % 4)

static uint32_t original(unsigned word)
{
	return word * 2654435761u + 1;
}

static void *page_at(unsigned page)
{
	return (void *)(uintptr_t)&bulk[page * PAGE_WORDS];
}

static bool read_disk(unsigned page)
{
	struct blk_req q = {.type = BLK_IN, .sector = page * 8 % 8192};

	return blk_do(&disk, &ring, &q, page_at(page), PAGE) && q.status == BLK_OK;
}

static bool key_pressed(void)
{
	return inb(LAYOUT_PORT_SERIAL + 5) & 1;
}

TEST(works_while_its_file_is_rewritten)
{
	unsigned page = 0;

	CHECK(dev_find(&disk, ID_BLK, 0));
	CHECK(dev_start(&disk, &ring, 0));
	for (; page < PAGES / 2 || !key_pressed(); page++) {
		unsigned at = page % PAGES, word = at * PAGE_WORDS;

		if (page == PAGES / 2)
			put("ready\n");
		if (KIND(at) == FROM_DISK)
			CHECK(read_disk(at));
		else if (KIND(at) == WRITTEN)
			bulk[word] = ~original(word);
		else if (KIND(at) == READ)
			CHECK_EQ(bulk[word], original(word));
	}
	/* Each page of the second half was visited, before the file changed or after it. */
	for (unsigned i = 0; i < PAGES; i++, page++) {
		unsigned at = page % PAGES;

		if (KIND(at) == FROM_DISK)
			CHECK(read_disk(at));
		else if (KIND(at) == WRITTEN)
			bulk[at * PAGE_WORDS] = ~original(at * PAGE_WORDS);
	}
}

TEST(what_the_disk_put_there_is_there)
{
	for (unsigned p = FROM_DISK; p < PAGES; p += 4)
		CHECK(disk_holds(page_at(p), p * 8 % 8192, 8));
}

TEST(all_else_is_as_it_was)
{
	for (unsigned i = 0; i < PAGES * PAGE_WORDS; i++) {
		unsigned kind = KIND(i / PAGE_WORDS);

		if (kind == WRITTEN && i % PAGE_WORDS == 0)
			CHECK_EQ(bulk[i], ~original(i));
		else if (kind != FROM_DISK)
			CHECK_EQ(bulk[i], original(i));
	}
}

void guest_main(void)
{
	static const struct test tests[] = {
		T(works_while_its_file_is_rewritten),
		T(what_the_disk_put_there_is_there),
		T(all_else_is_as_it_was),
	};

	if (!cmdline_has("off"))
		run_tests(tests, sizeof(tests) / sizeof(tests[0]));
}
