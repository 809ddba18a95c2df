/* SPDX-License-Identifier: Apache-2.0 */
/* A chain's bytes: pulling, pushing, iovecs, and the used length that comes out. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
#include "virtio/vq.h"
#include "vmm/log.h"

struct fixture {
	struct fake_ram m;
	struct fake_ring r;
	struct vq *q;
	struct vq_chain *c; /* 10 + 20 readable at buf, 30 + 1 + 1 writable at buf + 4096 */
	uint64_t in, out;
};

static void ignore(void *arg, unsigned index)
{
	(void)arg;
	(void)index;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct vq_owner o = {ignore, ignore, f, "test"};
	uint8_t *in;

	log_set_level(LOG_ERROR);
	fake_ram_init(&f->m, FAKE_RAM);
	fake_ring_init(&f->r, &f->m, 16);
	f->in = fake_alloc(&f->m, 4096, 4096);
	f->out = fake_alloc(&f->m, 4096, 4096);
	/* Bytes in chain order: 0..9 at in + 100, 10..29 at in. */
	in = fake_at(&f->m, f->in);
	for (uint8_t i = 0; i < 30; i++)
		in[i < 10 ? 100 + i : i - 10] = i;
	memset(fake_at(&f->m, f->out), 0xee, 4096);
	assert_int_equal(vq_new(&f->q, f->m.gm, 0, 16, &o), 0);
	struct vq_setup s = fake_setup(&f->r, false, false);
	assert_int_equal(vq_start(f->q, &s), 0);
	struct fake_buf b[] = {{f->in + 100, 10, 0},
			       {f->in, 20, 0},
			       {f->out + 100, 30, FAKE_W},
			       {f->out, 1, FAKE_W},
			       {f->out + 200, 1, FAKE_W}};
	fake_send(&f->r, b, 5);
	assert_int_equal(vq_next(f->q, &f->c), VQ_CHAIN);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->c)
		vq_return(f->c);
	vq_free(f->q);
	fake_ram_fini(&f->m);
	free(f);
	return 0;
}

static uint8_t out_at(struct fixture *f, unsigned i)
{
	return ((uint8_t *)fake_at(&f->m, f->out))[i];
}

static uint32_t used_len(struct fixture *f)
{
	uint32_t id, len = 0;

	vq_return(f->c);
	f->c = NULL;
	assert_true(fake_used(&f->r, &id, &len));
	return len;
}

static void chain_pull_crosses_segments(void **state)
{
	struct fixture *f = *state;
	uint8_t got[30];

	assert_int_equal(chain_pull(f->c, got, 3), 0);
	assert_int_equal(chain_pull(f->c, got + 3, 27), 0);
	for (uint8_t i = 0; i < 30; i++)
		assert_int_equal(got[i], i);
	assert_int_equal(f->c->readable, 0);
	assert_int_equal(f->c->writable, 32);
}

static void chain_pull_beyond_the_end_moves_nothing(void **state)
{
	struct fixture *f = *state;
	uint8_t got[31] = {0x55};

	assert_int_equal(chain_pull(f->c, got, 31), -EINVAL);
	assert_int_equal(got[0], 0x55);
	assert_int_equal(f->c->readable, 30);
	assert_int_equal(chain_pull(f->c, got, UINT32_MAX), -EINVAL);
	assert_int_equal(chain_pull(f->c, got, 30), 0);
	assert_int_equal(chain_pull(f->c, got, 1), -EINVAL);
	assert_int_equal(chain_pull(f->c, got, 0), 0);
}

static void chain_push_crosses_segments_and_counts(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[32];

	for (uint8_t i = 0; i < 32; i++)
		bytes[i] = i;
	assert_int_equal(chain_push(f->c, bytes, 29), 0);
	assert_int_equal(chain_push(f->c, bytes + 29, 3), 0);
	assert_int_equal(out_at(f, 100), 0);
	assert_int_equal(out_at(f, 129), 29);
	assert_int_equal(out_at(f, 0), 30);
	assert_int_equal(out_at(f, 200), 31);
	assert_int_equal(out_at(f, 130), 0xee);
	assert_int_equal(used_len(f), 32);
}

static void chain_push_beyond_the_end_writes_nothing(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[33] = {1};

	assert_int_equal(chain_push(f->c, bytes, 33), -EINVAL);
	assert_int_equal(out_at(f, 100), 0xee);
	assert_int_equal(used_len(f), 0);
}

static void chain_push_never_reaches_the_readable_part(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[32] = {0};

	assert_int_equal(chain_push(f->c, bytes, 32), 0);
	assert_int_equal(((uint8_t *)fake_at(&f->m, f->in))[105], 5);
	assert_int_equal(((uint8_t *)fake_at(&f->m, f->in))[5], 15);
}

static void used_length_ends_where_a_gap_begins(void **state)
{
	struct fixture *f = *state;
	uint8_t status = 7;

	assert_int_equal(chain_push(f->c, &status, 1), 0);
	assert_int_equal(chain_push_gap(f->c, 30), 0);
	assert_int_equal(chain_push(f->c, &status, 1), 0);
	assert_int_equal(out_at(f, 200), 7);
	assert_int_equal(out_at(f, 101), 0xee);
	assert_int_equal(used_len(f), 1);
}

static void a_gap_of_nothing_is_no_gap(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[2] = {0};

	assert_int_equal(chain_push_gap(f->c, 0), 0);
	assert_int_equal(chain_push_gap(f->c, 33), -EINVAL);
	assert_int_equal(chain_push(f->c, bytes, 2), 0);
	assert_int_equal(used_len(f), 2);
}

static void chain_pull_iov_gives_the_pieces(void **state)
{
	struct fixture *f = *state;
	struct iovec iov[2];
	uint8_t *in = fake_at(&f->m, f->in), got[4];

	assert_int_equal(chain_pull(f->c, got, 4), 0);
	assert_int_equal(chain_pull_iov(f->c, 10, iov, 2), 2);
	assert_ptr_equal(iov[0].iov_base, in + 104);
	assert_int_equal(iov[0].iov_len, 6);
	assert_ptr_equal(iov[1].iov_base, in);
	assert_int_equal(iov[1].iov_len, 4);
	assert_int_equal(f->c->readable, 16);
	assert_int_equal(chain_pull_iov(f->c, 16, iov, 1), 1);
	assert_ptr_equal(iov[0].iov_base, in + 4);
	assert_int_equal(chain_pull_iov(f->c, 0, iov, 0), 0);
	assert_int_equal(chain_pull_iov(f->c, 1, iov, 1), -EINVAL);
}

static void iovs_that_do_not_fit_move_nothing(void **state)
{
	struct fixture *f = *state;
	struct iovec iov[3];
	uint8_t got;

	assert_int_equal(chain_pull_iov(f->c, 11, iov, 1), -E2BIG);
	assert_int_equal(f->c->readable, 30);
	assert_int_equal(chain_pull(f->c, &got, 1), 0);
	assert_int_equal(got, 0);
	assert_int_equal(chain_push_iov(f->c, 32, iov, 2), -E2BIG);
	assert_int_equal(f->c->writable, 32);
	assert_int_equal(chain_push_iov(f->c, 32, iov, 3), 3);
	assert_int_equal(used_len(f), 32);
}

static void chain_push_iov_counts_as_written(void **state)
{
	struct fixture *f = *state;
	struct iovec iov[3];
	uint8_t status = 0;

	assert_int_equal(chain_push_iov(f->c, 31, iov, 3), 2);
	assert_int_equal(chain_push(f->c, &status, 1), 0);
	assert_int_equal(out_at(f, 200), 0);
	assert_int_equal(used_len(f), 32);
}

static void chain_unwritten_takes_the_iovs_back(void **state)
{
	struct fixture *f = *state;
	struct iovec iov[3];
	uint8_t status = 1;

	assert_int_equal(chain_push(f->c, &status, 1), 0);
	assert_int_equal(chain_push_iov(f->c, 10, iov, 3), 1);
	assert_int_equal(chain_push_iov(f->c, 20, iov, 3), 2);
	chain_unwritten(f->c);
	assert_int_equal(chain_push(f->c, &status, 1), 0);
	assert_int_equal(out_at(f, 200), 1);
	assert_int_equal(used_len(f), 1);
}

static void chain_unwritten_without_iovs_changes_nothing(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[3] = {0};

	assert_int_equal(chain_push(f->c, bytes, 3), 0);
	chain_unwritten(f->c);
	assert_int_equal(used_len(f), 3);
}

static void chain_written_shortens_what_was_counted(void **state)
{
	struct fixture *f = *state;
	struct iovec iov[3];
	uint8_t status = 3;

	assert_int_equal(chain_push_iov(f->c, 31, iov, 3), 2);
	chain_written(f->c, 12);
	/* The bytes behind it are not all there: nothing that follows is counted. */
	assert_int_equal(chain_push(f->c, &status, 1), 0);
	assert_int_equal(out_at(f, 200), 3);
	assert_int_equal(used_len(f), 12);
}

static void chain_written_never_adds(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[3] = {0};

	assert_int_equal(chain_push(f->c, bytes, 3), 0);
	chain_written(f->c, 3);
	chain_written(f->c, 32);
	chain_written(f->c, UINT32_MAX);
	assert_int_equal(chain_push(f->c, bytes, 1), 0);
	assert_int_equal(used_len(f), 4);
}

static void chain_written_of_nothing_is_an_empty_answer(void **state)
{
	struct fixture *f = *state;
	struct iovec iov[3];

	assert_int_equal(chain_push_iov(f->c, 32, iov, 3), 3);
	chain_written(f->c, 0);
	assert_int_equal(used_len(f), 0);
}

static void chain_poke_changes_bytes_that_were_pushed(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[32];

	memset(bytes, 1, sizeof(bytes));
	assert_int_equal(chain_push(f->c, bytes, 31), 0);
	/* Across the boundary of two segments. */
	assert_int_equal(chain_poke(f->c, 29, "\x22\x33", 2), 0);
	assert_int_equal(chain_poke(f->c, 0, "\x44", 1), 0);
	assert_int_equal(chain_poke(f->c, 31, "", 0), 0);
	assert_int_equal(out_at(f, 100), 0x44);
	assert_int_equal(out_at(f, 101), 1);
	assert_int_equal(out_at(f, 128), 1);
	assert_int_equal(out_at(f, 129), 0x22);
	assert_int_equal(out_at(f, 0), 0x33);
	/* The cursor stands where it stood. */
	assert_int_equal(f->c->writable, 1);
	bytes[0] = 0x55;
	assert_int_equal(chain_push(f->c, bytes, 1), 0);
	assert_int_equal(out_at(f, 200), 0x55);
	assert_int_equal(used_len(f), 32);
}

static void chain_poke_beyond_what_was_pushed_writes_nothing(void **state)
{
	static const struct {
		uint32_t off, len;
	} bad[] = {{10, 1},         {0, 11},         {9, 2},  {UINT32_MAX, 1},
		   {1, UINT32_MAX}, {UINT32_MAX, 2}, {11, 0}, {UINT32_MAX, UINT32_MAX}};
	struct fixture *f = *state;
	uint8_t bytes[32];

	memset(bytes, 1, sizeof(bytes));
	assert_int_equal(chain_push(f->c, bytes, 10), 0);
	memset(bytes, 2, sizeof(bytes));
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(chain_poke(f->c, bad[i].off, bytes, bad[i].len), -EINVAL);
	assert_int_equal(out_at(f, 100), 1);
	assert_int_equal(out_at(f, 109), 1);
	assert_int_equal(out_at(f, 110), 0xee);
	vq_reset(f->q);
	assert_int_equal(chain_poke(f->c, 0, bytes, 1), -EINVAL);
	assert_int_equal(out_at(f, 100), 1);
}

static void an_orphan_moves_no_bytes(void **state)
{
	struct fixture *f = *state;
	struct iovec iov[3];
	uint8_t x = 0;

	vq_reset(f->q);
	assert_int_equal(chain_pull(f->c, &x, 1), -EINVAL);
	assert_int_equal(chain_push(f->c, &x, 1), -EINVAL);
	assert_int_equal(chain_push_gap(f->c, 1), -EINVAL);
	assert_int_equal(chain_pull_iov(f->c, 1, iov, 3), -EINVAL);
	assert_int_equal(chain_push_iov(f->c, 1, iov, 3), -EINVAL);
	assert_int_equal(out_at(f, 100), 0xee);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(chain_pull_crosses_segments),
		T(chain_pull_beyond_the_end_moves_nothing),
		T(chain_push_crosses_segments_and_counts),
		T(chain_push_beyond_the_end_writes_nothing),
		T(chain_push_never_reaches_the_readable_part),
		T(used_length_ends_where_a_gap_begins),
		T(a_gap_of_nothing_is_no_gap),
		T(chain_pull_iov_gives_the_pieces),
		T(iovs_that_do_not_fit_move_nothing),
		T(chain_push_iov_counts_as_written),
		T(chain_unwritten_takes_the_iovs_back),
		T(chain_unwritten_without_iovs_changes_nothing),
		T(chain_written_shortens_what_was_counted),
		T(chain_written_never_adds),
		T(chain_written_of_nothing_is_an_empty_answer),
		T(chain_poke_changes_bytes_that_were_pushed),
		T(chain_poke_beyond_what_was_pushed_writes_nothing),
		T(an_orphan_moves_no_bytes),
	};

	return cmocka_run_group_tests_name("chain", tests, NULL, NULL);
}
