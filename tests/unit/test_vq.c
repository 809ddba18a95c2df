/* SPDX-License-Identifier: Apache-2.0 */
/* Split rings: what vq_start and vq_next take and what they refuse. */
#include "tests/unit/vq_fixture.h"

/* ------------------------------------------------------------- starting */

static void vq_new_refuses_sizes_that_are_no_power_of_two(void **state)
{
	struct fixture *f = *state;
	struct vq_owner o = {on_interrupt, on_broken, f, "test"};
	struct vq *q;

	assert_int_equal(vq_new(&q, f->m.gm, 0, 0, &o), -EINVAL);
	assert_int_equal(vq_new(&q, f->m.gm, 0, 3, &o), -EINVAL);
	assert_int_equal(vq_new(&q, f->m.gm, 0, 2048, &o), -EINVAL);
}

static void vq_start_refuses_bad_sizes(void **state)
{
	struct fixture *f = *state;
	struct vq_setup s = fake_setup(&f->r, false, false);

	for (s.size = 0; s.size <= 9; s.size++)
		if (s.size != 1 && s.size != 2 && s.size != 4 && s.size != 8)
			assert_int_equal(vq_start(f->q, &s), -EINVAL);
	s.size = 2048;
	assert_int_equal(vq_start(f->q, &s), -EINVAL);
}

static void vq_start_refuses_misaligned_parts(void **state)
{
	struct fixture *f = *state;
	struct vq_setup s = fake_setup(&f->r, false, false);

	s.desc.v += 8;
	assert_int_equal(vq_start(f->q, &s), -EINVAL);
	s = fake_setup(&f->r, false, false);
	s.avail.v += 1;
	assert_int_equal(vq_start(f->q, &s), -EINVAL);
	s = fake_setup(&f->r, false, false);
	s.used.v += 2;
	assert_int_equal(vq_start(f->q, &s), -EINVAL);
}

static void vq_start_refuses_parts_outside_memory(void **state)
{
	struct fixture *f = *state;
	uint64_t end = FAKE_BASE + f->m.size;
	struct vq_setup s = fake_setup(&f->r, false, false);

	s.desc = gpa(end - 16 * SIZE + 16);
	assert_int_equal(vq_start(f->q, &s), -EFAULT);
	s = fake_setup(&f->r, false, false);
	s.avail = gpa(0xfffffffffffffffeull);
	assert_int_equal(vq_start(f->q, &s), -EFAULT);
	/* The event index at the end counts too. */
	s = fake_setup(&f->r, false, false);
	s.used = gpa(end - (4 + 8 * SIZE));
	assert_int_equal(vq_start(f->q, &s), -EFAULT);
	s.used = gpa(end - (8 + 8 * SIZE));
	assert_int_equal(vq_start(f->q, &s), 0);
}

static void vq_start_that_fails_leaves_the_queue_as_it_was(void **state)
{
	struct fixture *f = *state;
	struct vq_setup s = fake_setup(&f->r, false, false);

	one(f, (struct fake_buf){f->buf, 16, 0});
	s.size = 3;
	assert_int_equal(vq_start(f->q, &s), -EINVAL);
	assert_true(vq_live(f->q));
	vq_return(take(f));
}

static void vq_next_on_a_queue_that_never_started_is_empty(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c;

	vq_reset(f->q);
	assert_false(vq_live(f->q));
	assert_int_equal(vq_next(f->q, &c), VQ_EMPTY);
	assert_false(vq_kicks_on(f->q));
	vq_kicks_off(f->q);
	vq_notify(f->q);
	vq_break(f->q, "2.7", "a reset queue");
	assert_int_equal(f->broken, 0);
}

/* ------------------------------------------------------------- taking */

static void vq_next_on_an_empty_ring_is_empty(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c;

	assert_int_equal(vq_next(f->q, &c), VQ_EMPTY);
	assert_int_equal(f->broken, 0);
}

static void vq_next_counts_both_parts(void **state)
{
	struct fixture *f = *state;
	struct fake_buf b[] = {{f->buf, 16, 0}, {f->buf + 100, 7, 0}, {f->buf + 4096, 512, FAKE_W}};
	uint16_t head = fake_send(&f->r, b, 3);
	struct vq_chain *c = take(f);

	assert_int_equal(c->head, head);
	assert_int_equal(c->readable, 23);
	assert_int_equal(c->writable, 512);
	vq_return(c);
}

static void vq_next_takes_chains_in_the_drivers_order(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c[SIZE];

	for (unsigned i = 0; i < SIZE; i++)
		fake_desc(&f->r, (uint16_t)i, (struct fake_buf){f->buf, 1 + i, 0}, 0);
	for (unsigned i = 0; i < SIZE; i++)
		fake_avail(&f->r, (uint16_t)(SIZE - 1 - i));
	for (unsigned i = 0; i < SIZE; i++) {
		c[i] = take(f);
		assert_int_equal(c[i]->readable, SIZE - i);
	}
	assert_int_equal(vq_next(f->q, &c[0]), VQ_EMPTY);
	for (unsigned i = 0; i < SIZE; i++)
		vq_return(c[i]);
}

static void vq_next_takes_a_chain_as_long_as_the_queue(void **state)
{
	struct fixture *f = *state;
	struct fake_buf b[SIZE];

	for (unsigned i = 0; i < SIZE; i++)
		b[i] = (struct fake_buf){f->buf + i, 1, 0};
	fake_send(&f->r, b, SIZE);
	struct vq_chain *c = take(f);
	assert_int_equal(c->readable, SIZE);
	vq_return(c);
}

static void vq_next_skips_empty_buffers(void **state)
{
	struct fixture *f = *state;
	struct fake_buf b[] = {{0, 0, 0}, {f->buf, 5, 0}, {~0ull, 0, FAKE_W}, {f->buf, 3, FAKE_W}};

	fake_send(&f->r, b, 4);
	struct vq_chain *c = take(f);
	assert_int_equal(c->readable, 5);
	assert_int_equal(c->writable, 3);
	vq_return(c);
}

static void vq_next_takes_a_chain_of_nothing(void **state)
{
	struct fixture *f = *state;
	uint8_t x;

	one(f, (struct fake_buf){0, 0, 0});
	struct vq_chain *c = take(f);
	assert_int_equal(c->readable + c->writable, 0);
	assert_int_equal(chain_pull(c, &x, 1), -EINVAL);
	assert_int_equal(chain_push(c, &x, 1), -EINVAL);
	vq_return(c);
}

static void vq_next_on_loop_is_broken(void **state)
{
	struct fixture *f = *state;

	fake_desc(&f->r, 0, (struct fake_buf){f->buf, 1, FAKE_NEXT}, 1);
	fake_desc(&f->r, 1, (struct fake_buf){f->buf, 1, FAKE_NEXT}, 0);
	fake_avail(&f->r, 0);
	assert_breaks(f);
}

static void vq_next_on_a_loop_of_empty_buffers_is_broken(void **state)
{
	struct fixture *f = *state;

	fake_desc(&f->r, 0, (struct fake_buf){0, 0, FAKE_NEXT}, 0);
	fake_avail(&f->r, 0);
	assert_breaks(f);
}

static void vq_next_on_head_out_of_range_is_broken(void **state)
{
	struct fixture *f = *state;

	fake_avail(&f->r, SIZE);
	assert_breaks(f);
}

static void vq_next_on_next_out_of_range_is_broken(void **state)
{
	struct fixture *f = *state;

	fake_desc(&f->r, 0, (struct fake_buf){f->buf, 1, FAKE_NEXT}, SIZE);
	fake_avail(&f->r, 0);
	assert_breaks(f);
}

static void vq_next_on_readable_after_writable_is_broken(void **state)
{
	struct fixture *f = *state;
	struct fake_buf b[] = {{f->buf, 4, FAKE_W}, {f->buf, 4, 0}};

	fake_send(&f->r, b, 2);
	assert_breaks(f);
}

static void vq_next_on_address_outside_memory_is_broken(void **state)
{
	static const struct fake_buf bad[] = {
		{0, 1, 0},
		{FAKE_BASE - 1, 2, FAKE_W},
		{FAKE_BASE + FAKE_RAM, 1, 0},
		{FAKE_BASE + FAKE_RAM - 1, 2, FAKE_W},
		{0xffffffffffffffffull, 2, 0},
		{0xffffffffffff0000ull, 0xffffffff, 0},
		{FAKE_BASE, 0xffffffff, FAKE_W},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		fake_ring_zero(&f->r);
		start(f, false, false);
		f->broken = 0;
		one(f, bad[i]);
		assert_breaks(f);
	}
}

static void vq_next_on_buffer_across_two_regions_is_broken(void **state)
{
	struct fixture *f = *state;
	uint8_t *more = calloc(1, 4096);
	uint64_t end = FAKE_BASE + f->m.size;

	assert_int_equal(gmem_add_fixed(f->m.gm, gpa(end), 4096, more, NULL), 0);
	one(f, (struct fake_buf){end - 8, 16, FAKE_W});
	assert_breaks(f);
	vq_reset(f->q);
	free(more);
}

static void vq_next_on_four_gib_in_total_is_broken(void **state)
{
	struct fixture *f = *state;
	struct fake_buf b[5];

	/* 1 GiB that no page stands behind: nothing may touch it. */
	assert_int_equal(gmem_add(f->m.gm, gpa(1ull << 32), 1ull << 30, NULL), 0);
	for (unsigned i = 0; i < 4; i++)
		b[i] = (struct fake_buf){1ull << 32, 1u << 30, 0};
	b[3].len--;
	fake_send(&f->r, b, 4);
	struct vq_chain *c = take(f);
	assert_int_equal(c->readable, UINT32_MAX);
	vq_return(c);

	fake_ring_zero(&f->r);
	start(f, false, false);
	b[4] = (struct fake_buf){f->buf, 1, FAKE_W};
	fake_send(&f->r, b, 5);
	assert_breaks(f);
}

static void vq_next_on_index_jump_is_broken(void **state)
{
	struct fixture *f = *state;

	fake_put16(&f->m, f->r.avail + 2, SIZE + 1);
	assert_breaks(f);
}

static void vq_next_on_index_going_back_is_broken(void **state)
{
	struct fixture *f = *state;

	fake_put16(&f->m, f->r.avail + 2, 0xffff);
	assert_breaks(f);
}

static void vq_next_on_head_in_flight_is_broken(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c, *d;

	fake_desc(&f->r, 2, (struct fake_buf){f->buf, 4, 0}, 0);
	fake_avail(&f->r, 2);
	c = take(f);
	fake_avail(&f->r, 2);
	assert_int_equal(vq_next(f->q, &d), VQ_BROKEN);
	assert_int_equal(f->broken, 1);
	/* The first is still whole. */
	assert_int_equal(c->readable, 4);
	vq_return(c);
}

static void vq_next_on_head_that_came_back_is_fine(void **state)
{
	struct fixture *f = *state;

	fake_desc(&f->r, 2, (struct fake_buf){f->buf, 4, 0}, 0);
	for (unsigned i = 0; i < 3 * SIZE; i++) {
		fake_avail(&f->r, 2);
		vq_return(take(f));
	}
	assert_int_equal(f->broken, 0);
}

static void vq_next_does_not_look_again_at_what_it_checked(void **state)
{
	struct fixture *f = *state;
	char got[4] = "";

	memcpy(fake_at(&f->m, f->buf), "good", 4);
	one(f, (struct fake_buf){f->buf, 4, 0});
	struct vq_chain *c = take(f);
	fake_desc(&f->r, 0, (struct fake_buf){0xdead0000beef, 0xffffffff, FAKE_W | FAKE_NEXT}, 99);
	assert_int_equal(chain_pull(c, got, 4), 0);
	assert_memory_equal(got, "good", 4);
	vq_return(c);
	assert_int_equal(fake_get32(&f->m, f->r.used + 4), 0);
}

static void vq_next_takes_a_long_chain_into_grown_segments(void **state)
{
	struct fixture *f = *state;
	struct fake_ring big;
	struct fake_buf b[1024];

	fake_ring_init(&big, &f->m, 1024);
	struct vq_setup s = fake_setup(&big, false, false);
	assert_int_equal(vq_start(f->q, &s), 0);
	for (unsigned i = 0; i < 1024; i++)
		b[i] = (struct fake_buf){f->buf + i, 1, i < 500 ? 0 : FAKE_W};
	for (unsigned round = 0; round < 3; round++) {
		fake_send(&big, b, 1024);
		struct vq_chain *c = take(f);
		assert_int_equal(c->readable, 500);
		assert_int_equal(c->writable, 524);
		vq_return(c);
	}
}

/* ------------------------------------------------------------- indirect tables */

static void vq_next_takes_an_indirect_table(void **state)
{
	struct fixture *f = *state;
	struct fake_buf b[] = {{f->buf, 16, 0}, {f->buf + 64, 100, FAKE_W}, {f->buf, 1, FAKE_W}};

	/* An odd address: nothing in the standard aligns a table. */
	fake_avail(&f->r, fake_indirect(&f->r, f->buf + 4097, b, 3));
	struct vq_chain *c = take(f);
	assert_int_equal(c->readable, 16);
	assert_int_equal(c->writable, 101);
	vq_return(c);
}

static void vq_next_ignores_write_on_the_indirect_descriptor(void **state)
{
	struct fixture *f = *state;
	struct fake_buf b[] = {{f->buf, 16, 0}};
	uint16_t head = fake_indirect(&f->r, f->buf + 4096, b, 1);

	fake_desc(&f->r, head, (struct fake_buf){f->buf + 4096, 16, FAKE_INDIRECT | FAKE_W}, 0);
	fake_avail(&f->r, head);
	struct vq_chain *c = take(f);
	assert_int_equal(c->readable, 16);
	vq_return(c);
}

static void vq_next_takes_buffers_and_then_a_table(void **state)
{
	struct fixture *f = *state;
	struct fake_buf in[] = {{f->buf, 3, 0}, {f->buf, 9, FAKE_W}};
	struct fake_buf out[] = {{f->buf, 5, 0}, {f->buf + 4096, 32, FAKE_INDIRECT}};

	fake_indirect(&f->r, f->buf + 4096, in, 2);
	fake_send(&f->r, out, 2);
	struct vq_chain *c = take(f);
	assert_int_equal(c->readable, 8);
	assert_int_equal(c->writable, 9);
	vq_return(c);
}

static void vq_next_on_table_that_was_not_negotiated_is_broken(void **state)
{
	struct fixture *f = *state;
	struct fake_buf b[] = {{f->buf, 16, 0}};

	start(f, false, false);
	fake_avail(&f->r, fake_indirect(&f->r, f->buf + 4096, b, 1));
	assert_breaks(f);
}

static void vq_next_on_table_in_a_table_is_broken(void **state)
{
	struct fixture *f = *state;
	struct fake_buf in[] = {{f->buf, 16, 0}};
	struct fake_buf b[] = {{f->buf, 16, 0}, {f->buf + 8192, 16, FAKE_INDIRECT}};

	fake_indirect(&f->r, f->buf + 8192, in, 1);
	fake_avail(&f->r, fake_indirect(&f->r, f->buf + 4096, b, 2));
	assert_breaks(f);
}

static void vq_next_on_indirect_descriptor_with_next_is_broken(void **state)
{
	struct fixture *f = *state;
	struct fake_buf b[] = {{f->buf, 16, FAKE_INDIRECT}, {f->buf, 16, 0}};

	fake_send(&f->r, b, 2);
	assert_breaks(f);
}

/* A good table that stays out, so that its copy lies where the next one goes. */
static struct vq_chain *take_table(struct fixture *f, unsigned n)
{
	struct fake_buf b[4];

	for (unsigned i = 0; i < n; i++)
		b[i] = (struct fake_buf){f->buf, 16, 0};
	fake_avail(&f->r, fake_indirect(&f->r, f->buf + 4096, b, n));
	return take(f);
}

static void vq_next_on_bad_table_lengths_is_broken(void **state)
{
	static const uint32_t bad[] = {0, 1, 15, 17, 16 * SIZE + 16, 0xfffffff0, 0xffffffff};
	struct fixture *f = *state;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		fake_ring_zero(&f->r);
		start(f, false, true);
		f->broken = 0;
		struct vq_chain *c = take_table(f, 1);
		one(f, (struct fake_buf){f->buf + 4096, bad[i], FAKE_INDIRECT});
		assert_breaks(f);
		vq_return(c);
	}
}

static void vq_next_on_table_outside_memory_is_broken(void **state)
{
	struct fixture *f = *state;

	one(f, (struct fake_buf){FAKE_BASE + f->m.size - 16, 32, FAKE_INDIRECT});
	assert_breaks(f);
}

static void vq_next_on_next_beyond_the_table_is_broken(void **state)
{
	struct fixture *f = *state;
	struct fake_buf b[] = {{f->buf, 16, 0}, {f->buf, 16, 0}};
	struct vq_chain *c = take_table(f, 4);

	/* 2 is in range of the queue and of the table before, not of this one. */
	fake_avail(&f->r, fake_indirect(&f->r, f->buf + 4096, b, 2));
	fake_desc_at(&f->m, f->buf + 4096 + 16, (struct fake_buf){f->buf, 16, FAKE_NEXT}, 2);
	assert_breaks(f);
	vq_return(c);
}

static void vq_next_on_loop_in_a_table_is_broken(void **state)
{
	struct fixture *f = *state;
	struct fake_buf b[] = {{f->buf, 16, FAKE_NEXT}};

	fake_avail(&f->r, fake_indirect(&f->r, f->buf + 4096, b, 1));
	fake_desc_at(&f->m, f->buf + 4096, (struct fake_buf){f->buf, 16, FAKE_NEXT}, 0);
	assert_breaks(f);
}

static void vq_next_on_buffers_and_table_longer_than_the_queue_is_broken(void **state)
{
	struct fixture *f = *state;
	struct fake_buf in[SIZE];
	struct fake_buf out[] = {{f->buf, 5, 0}, {f->buf + 4096, 16 * SIZE, FAKE_INDIRECT}};

	for (unsigned i = 0; i < SIZE; i++)
		in[i] = (struct fake_buf){f->buf, 1, 0};
	fake_indirect(&f->r, f->buf + 4096, in, SIZE);
	fake_send(&f->r, out, 2);
	assert_breaks(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(vq_new_refuses_sizes_that_are_no_power_of_two),
		T(vq_start_refuses_bad_sizes),
		T(vq_start_refuses_misaligned_parts),
		T(vq_start_refuses_parts_outside_memory),
		T(vq_start_that_fails_leaves_the_queue_as_it_was),
		T(vq_next_on_a_queue_that_never_started_is_empty),
		T(vq_next_on_an_empty_ring_is_empty),
		T(vq_next_counts_both_parts),
		T(vq_next_takes_chains_in_the_drivers_order),
		T(vq_next_takes_a_chain_as_long_as_the_queue),
		T(vq_next_skips_empty_buffers),
		T(vq_next_takes_a_chain_of_nothing),
		T(vq_next_on_loop_is_broken),
		T(vq_next_on_a_loop_of_empty_buffers_is_broken),
		T(vq_next_on_head_out_of_range_is_broken),
		T(vq_next_on_next_out_of_range_is_broken),
		T(vq_next_on_readable_after_writable_is_broken),
		T(vq_next_on_address_outside_memory_is_broken),
		T(vq_next_on_buffer_across_two_regions_is_broken),
		T(vq_next_on_four_gib_in_total_is_broken),
		T(vq_next_on_index_jump_is_broken),
		T(vq_next_on_index_going_back_is_broken),
		T(vq_next_on_head_in_flight_is_broken),
		T(vq_next_on_head_that_came_back_is_fine),
		T(vq_next_does_not_look_again_at_what_it_checked),
		T(vq_next_takes_a_long_chain_into_grown_segments),
		T(vq_next_takes_an_indirect_table),
		T(vq_next_ignores_write_on_the_indirect_descriptor),
		T(vq_next_takes_buffers_and_then_a_table),
		T(vq_next_on_table_that_was_not_negotiated_is_broken),
		T(vq_next_on_table_in_a_table_is_broken),
		T(vq_next_on_indirect_descriptor_with_next_is_broken),
		T(vq_next_on_bad_table_lengths_is_broken),
		T(vq_next_on_table_outside_memory_is_broken),
		T(vq_next_on_next_beyond_the_table_is_broken),
		T(vq_next_on_loop_in_a_table_is_broken),
		T(vq_next_on_buffers_and_table_longer_than_the_queue_is_broken),
	};

	return cmocka_run_group_tests_name("vq", tests, NULL, NULL);
}
