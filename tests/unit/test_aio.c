/* SPDX-License-Identifier: Apache-2.0 */
/* libaio's engine alone: batches, refusals, cancellation, more than the kernel has room for. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/disk_file.h"
#include "tests/unit/turns.h"
#include "virtio/aio.h"

#define OPS 40
#define DEPTH 4

struct fixture {
	struct disk_file file;
	struct loop *loop;
	struct aio *a;
	struct aio_op op[OPS];
	struct iovec iov[OPS];
	uint8_t mem[OPS][512];
	long res[OPS];
	unsigned done, batches, again;
};

static struct fixture f;

static void on_done(struct aio_op *op, long res)
{
	f.res[op - f.op] = res;
	f.done++;
	if (f.again) {
		f.again--;
		aio_add(f.a, op);
	}
}

static void on_batch(void *arg)
{
	(void)arg;
	f.batches++;
}

static void begin(void)
{
	memset(&f, 0, sizeof(f));
	disk_file_init(&f.file, 1 << 20);
	assert_int_equal(loop_new(&f.loop, "test", NULL), 0);
	assert_int_equal(aio_new(&f.a, DEPTH, f.loop, on_batch, NULL), 0);
	for (unsigned i = 0; i < OPS; i++) {
		f.iov[i] = (struct iovec){f.mem[i], 512};
		io_prep_preadv(&f.op[i].iocb, f.file.fd, &f.iov[i], 1, i * 512);
		f.op[i].done = on_done;
		f.res[i] = 1;
	}
}

static void end(void)
{
	aio_free(f.a);
	loop_free(f.loop);
	disk_file_fini(&f.file);
}

static void run(unsigned n)
{
	while (f.done < n)
		turn(f.loop);
}

static void more_than_the_kernel_has_room_for_all_complete(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < OPS; i++)
		aio_add(f.a, &f.op[i]);
	assert_int_equal(f.done, 0);
	assert_false(aio_kick(f.a));
	assert_int_equal(f.done, 0);
	run(OPS);
	assert_int_equal(f.done, OPS);
	assert_in_range(f.batches, OPS / DEPTH, OPS);
	for (unsigned i = 0; i < OPS; i++) {
		assert_int_equal(f.res[i], 512);
		for (unsigned k = 0; k < 512; k++)
			assert_int_equal(f.mem[i][k], disk_byte(i * 512 + k));
	}
	end();
}

static void an_operation_added_by_done_goes_with_the_batch(void **state)
{
	(void)state;
	begin();
	f.again = 10;
	aio_add(f.a, &f.op[0]);
	aio_kick(f.a);
	run(11);
	assert_int_equal(f.done, 11);
	assert_int_equal(f.batches, 11);
	end();
}

static void a_refused_operation_ends_alone(void **state)
{
	(void)state;
	begin();
	io_prep_preadv(&f.op[1].iocb, -1, &f.iov[1], 1, 0);
	io_prep_preadv(&f.op[3].iocb, -1, &f.iov[3], 1, 0);
	for (unsigned i = 0; i < 4; i++)
		aio_add(f.a, &f.op[i]);
	assert_true(aio_kick(f.a));
	assert_int_equal(f.done, 2);
	while (aio_wait(f.a))
		;
	assert_int_equal(f.res[0], 512);
	assert_int_equal(f.res[1], -EBADF);
	assert_int_equal(f.res[2], 512);
	assert_int_equal(f.res[3], -EBADF);
	assert_false(aio_kick(f.a));
	end();
}

static void cancelled_operations_never_reach_the_kernel(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < OPS; i++)
		aio_add(f.a, &f.op[i]);
	aio_kick(f.a);
	for (unsigned i = DEPTH; i < OPS; i += 2)
		f.op[i].cancelled = true;
	while (aio_wait(f.a))
		;
	assert_int_equal(f.done, OPS);
	for (unsigned i = 0; i < OPS; i++)
		assert_int_equal(f.res[i], i < DEPTH || i % 2 ? 512 : -ECANCELED);
	end();
}

static void wait_without_anything_in_flight_returns(void **state)
{
	(void)state;
	begin();
	assert_false(aio_wait(f.a));
	aio_add(f.a, &f.op[0]);
	aio_kick(f.a);
	assert_true(aio_wait(f.a));
	assert_false(aio_wait(f.a));
	/* The event that is left over does no harm. */
	aio_add(f.a, &f.op[1]);
	aio_kick(f.a);
	run(2);
	end();
}

static void completions_can_be_taken_without_a_wake_up(void **state)
{
	(void)state;
	begin();
	assert_false(aio_ready(f.a));
	aio_add(f.a, &f.op[0]);
	aio_kick(f.a);
	while (!aio_ready(f.a))
		usleep(100);
	assert_int_equal(f.done, 0);
	aio_take(f.a);
	assert_int_equal(f.done, 1);
	assert_int_equal(f.batches, 1);
	assert_false(aio_ready(f.a));
	turn(f.loop); /* no wake-up is left over */
	assert_int_equal(f.batches, 1);
	end();
}

/* Another kernel may have another ring: then wake-ups are all there is. */
static void a_ring_of_another_layout_is_not_looked_at(void **state)
{
	struct {
		uint32_t id, nr, head, tail, magic;
	} * *ring;

	(void)state;
	begin();
	ring = (void *)f.a; /* its first member is the context, the ring's address */
	(*ring)->magic ^= 1;
	aio_add(f.a, &f.op[0]);
	aio_kick(f.a);
	usleep(10000);
	assert_false(aio_ready(f.a));
	run(1);
	(*ring)->magic ^= 1;
	end();
}

static void an_impossible_depth_is_an_error(void **state)
{
	struct aio *a;

	(void)state;
	begin();
	assert_true(aio_new(&a, 1u << 30, f.loop, on_batch, NULL) < 0);
	aio_free(NULL);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(more_than_the_kernel_has_room_for_all_complete),
		cmocka_unit_test(an_operation_added_by_done_goes_with_the_batch),
		cmocka_unit_test(a_refused_operation_ends_alone),
		cmocka_unit_test(cancelled_operations_never_reach_the_kernel),
		cmocka_unit_test(wait_without_anything_in_flight_returns),
		cmocka_unit_test(completions_can_be_taken_without_a_wake_up),
		cmocka_unit_test(a_ring_of_another_layout_is_not_looked_at),
		cmocka_unit_test(an_impossible_depth_is_an_error),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
