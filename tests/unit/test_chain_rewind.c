/* SPDX-License-Identifier: Apache-2.0 */
/* chain_rewind: a chain that was offered to a system call and not used is as it was taken. */
#include "tests/unit/vq_fixture.h"

static struct vq_chain *four(struct fixture *f)
{
	fake_send(&f->r,
		  (struct fake_buf[]){{f->buf, 10, 0},
				      {f->buf + 100, 20, 0},
				      {f->buf + 200, 30, FAKE_W},
				      {f->buf + 300, 40, FAKE_W}},
		  4);
	return take(f);
}

static void everything_can_be_pulled_and_pushed_again(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c = four(f);
	struct iovec iov[4];
	uint8_t buf[30];
	uint32_t id, len;

	memset(fake_at(&f->m, f->buf), 1, 10);
	memset(fake_at(&f->m, f->buf + 100), 2, 20);
	assert_int_equal(chain_pull(c, buf, 15), 0);
	assert_int_equal(chain_push(c, buf, 5), 0);
	assert_int_equal(chain_push_iov(c, 60, iov, 4), 2);
	chain_rewind(c);
	assert_int_equal(c->readable, 30);
	assert_int_equal(c->writable, 70);
	assert_int_equal(chain_pull(c, buf, 30), 0);
	assert_int_equal(buf[9], 1);
	assert_int_equal(buf[10], 2);
	assert_int_equal(chain_pull(c, buf, 1), -EINVAL);
	assert_int_equal(chain_push_iov(c, 70, iov, 4), 2);
	assert_int_equal(iov[0].iov_len, 30);
	assert_int_equal(chain_push(c, buf, 1), -EINVAL);
	vq_return(c);
	assert_true(fake_used(&f->r, &id, &len));
	assert_int_equal(len, 70);
}

static void nothing_counts_as_written(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c = four(f);
	struct iovec iov[4];
	uint32_t id, len;

	assert_int_equal(chain_push_gap(c, 5), 0);
	assert_int_equal(chain_push_iov(c, 20, iov, 4), 1);
	chain_rewind(c);
	assert_int_equal(chain_push(c, "abc", 3), 0); /* and the gap is none any more */
	vq_return(c);
	assert_true(fake_used(&f->r, &id, &len));
	assert_int_equal(len, 3);
}

static void an_orphan_still_moves_nothing(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c = four(f);

	vq_reset(f->q);
	chain_rewind(c);
	assert_int_equal(chain_push(c, "a", 1), -EINVAL);
	vq_return(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(everything_can_be_pulled_and_pushed_again),
		T(nothing_counts_as_written),
		T(an_orphan_still_moves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
