/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver that changes what it has made available while the device takes it,
 * at the worst moment: right after each load. So that the moment is sure, vq.c
 * is built into this program with its loads replaced.
 */
#include "vmm/gmem.h"

static uint16_t changing_load16(const struct gwin *w, uint32_t off);
static uint64_t changing_load64(const struct gwin *w, uint32_t off);
#define gwin_load16 changing_load16
#define gwin_load64 changing_load64
#include "virtio/vq.c"
#undef gwin_load16
#undef gwin_load64

#include "tests/unit/vq_fixture.h"

/* Of the running test: what the driver makes of the words that were read. */
static uint16_t then16;
static uint64_t then64;

static uint16_t changing_load16(const struct gwin *w, uint32_t off)
{
	uint16_t v = gwin_load16(w, off);

	gwin_store16(w, off, then16);
	return v;
}

static uint64_t changing_load64(const struct gwin *w, uint32_t off)
{
	uint64_t v = gwin_load64(w, off);

	/* In halves: rings hold nothing of 64 bits that a device writes. */
	gwin_store32(w, off, (uint32_t)then64);
	gwin_store32(w, off + 4, (uint32_t)(then64 >> 32));
	return v;
}

/* Each chain is what it was before the first load, and nothing of it breaks the queue. */
static void assert_taken(struct fixture *f, uint32_t readable, uint32_t writable)
{
	struct vq_chain *c = take(f);
	uint8_t byte;

	assert_int_equal(f->broken, 0);
	assert_int_equal(c->head, 0);
	assert_int_equal(c->readable, readable);
	assert_int_equal(c->writable, writable);
	assert_int_equal(chain_pull(c, &byte, 1), 0);
	assert_int_equal(byte, 0x42);
	vq_return(c);
}

/* A table of two buffers, which is the first buffer's content too. */
static void begin(struct fixture *f)
{
	fake_desc_at(&f->m, f->buf + 16, (struct fake_buf){f->buf, 256, FAKE_NEXT}, 1);
	fake_desc_at(&f->m, f->buf + 32, (struct fake_buf){f->buf, 512, FAKE_W}, 0);
	*(uint8_t *)fake_at(&f->m, f->buf) = 0x42;
}

static void direct(struct fixture *f)
{
	fake_desc(&f->r, 0, (struct fake_buf){f->buf, 64, FAKE_NEXT}, 1);
	fake_desc(&f->r, 1, (struct fake_buf){f->buf, 128, FAKE_W}, 0);
	fake_avail(&f->r, 0);
	assert_taken(f, 64, 128);
}

static void indirect(struct fixture *f)
{
	fake_desc(&f->r, 0, (struct fake_buf){f->buf + 16, 32, FAKE_INDIRECT}, 0);
	fake_avail(&f->r, 0);
	assert_taken(f, 256, 512);
}

static void vq_next_reads_each_descriptor_once(void **state)
{
	struct fixture *f = *state;
	/* Other lengths, other flags, other nexts, a table where none was, an address beyond
	 * memory. */
	static const uint64_t then[] = {
		16,
		16 | 1ull << 32 | 1ull << 48,
		16 | 2ull << 32,
		32 | 4ull << 32,
		16 | 1ull << 32 | 0xffffull << 48,
		UINT64_MAX,
	};

	begin(f);
	for (unsigned i = 0; i < sizeof(then) / sizeof(then[0]); i++) {
		then64 = then[i];
		then16 = 0;
		direct(f);
		indirect(f);
	}
}

static void vq_next_reads_a_head_once(void **state)
{
	struct fixture *f = *state;

	begin(f);
	then64 = 16;
	for (unsigned i = 0; i < 4; i++) {
		then16 = (uint16_t)(i % 2 ? 0xffff : SIZE - 1);
		direct(f);
		indirect(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(vq_next_reads_each_descriptor_once, setup,
						teardown),
		cmocka_unit_test_setup_teardown(vq_next_reads_a_head_once, setup, teardown),
	};

	return cmocka_run_group_tests_name("vq_once", tests, NULL, NULL);
}
