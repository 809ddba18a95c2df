/* SPDX-License-Identifier: Apache-2.0 */
/* Eventfds whose other holders make reading and writing wait, and fill them: nobody here waits. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/evfd.h"
#include "vmm/irq.h"

#define FULL (UINT64_MAX - 1)

struct fixture {
	int fd;
	bool over;
	unsigned added;
};

static int setup(void **state)
{
	static struct fixture f;

	f = (struct fixture){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	alarm(60); /* who waits waits for ever */
	*state = &f;
	return evfd_prepare(NULL);
}

static int teardown(void **state)
{
	close(((struct fixture *)*state)->fd);
	return 0;
}

static void make_it_wait(int fd)
{
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
}

static uint64_t count(int fd)
{
	uint64_t n;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void what_is_added_is_there_until_it_is_cleared(void **state)
{
	struct fixture *f = *state;

	evfd_add(f->fd);
	evfd_add(f->fd);
	assert_int_equal(count(f->fd), 2);
	evfd_add(f->fd);
	evfd_clear(f->fd);
	assert_int_equal(count(f->fd), 0);
}

static void an_empty_one_is_cleared_at_once(void **state)
{
	struct fixture *f = *state;

	make_it_wait(f->fd);
	evfd_clear(f->fd);
	assert_int_equal(count(f->fd), 0);
}

static void a_full_one_is_added_to_at_once(void **state)
{
	struct fixture *f = *state;

	make_it_wait(f->fd);
	assert_int_equal(eventfd_write(f->fd, FULL), 0);
	for (unsigned i = 0; i < 1000; i++)
		evfd_add(f->fd);
	evfd_clear(f->fd);
	assert_int_equal(count(f->fd), 0);
	evfd_add(f->fd);
	assert_int_equal(count(f->fd), 1);
}

/* Fills it as soon as it is empty, and leaves it so until the other has got on. */
static void *spoiler(void *arg)
{
	struct fixture *f = arg;

	while (!__atomic_load_n(&f->over, __ATOMIC_RELAXED)) {
		unsigned seen = __atomic_load_n(&f->added, __ATOMIC_RELAXED);

		eventfd_write(f->fd, FULL);
		while (__atomic_load_n(&f->added, __ATOMIC_RELAXED) == seen)
			sched_yield();
	}
	return NULL;
}

static void whoever_fills_it_in_between_holds_nobody_up(void **state)
{
	struct fixture *f = *state;
	pthread_t t;

	make_it_wait(f->fd);
	assert_int_equal(pthread_create(&t, NULL, spoiler, f), 0);
	for (unsigned i = 0; i < 100000; i++) {
		evfd_add(f->fd);
		__atomic_add_fetch(&f->added, 1, __ATOMIC_RELAXED);
		evfd_clear(f->fd);
	}
	__atomic_store_n(&f->over, true, __ATOMIC_RELAXED);
	while (pthread_tryjoin_np(t, NULL)) {
		__atomic_add_fetch(&f->added, 1, __ATOMIC_RELAXED);
		evfd_clear(f->fd);
	}
}

static void *adder(void *arg)
{
	for (unsigned i = 0; i < 20000; i++)
		evfd_add(((struct fixture *)arg)->fd);
	return NULL;
}

static void all_that_several_threads_add_is_there(void **state)
{
	struct fixture *f = *state;
	pthread_t t[4];

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, adder, f), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(count(f->fd), 80000);
}

static void an_interrupt_that_others_have_is_raised_and_cleared_at_once(void **state)
{
	struct irq *irq;

	(void)state;
	assert_int_equal(irq_fake_new(&irq, NULL), 0);
	make_it_wait(irq_fd(irq));
	irq_clear(irq);
	assert_int_equal(eventfd_write(irq_fd(irq), FULL), 0);
	irq_raise(irq);
	assert_true(irq_pending(irq));
	irq_clear(irq);
	assert_false(irq_pending(irq));
	irq_free(irq);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_added_is_there_until_it_is_cleared),
		T(an_empty_one_is_cleared_at_once),
		T(a_full_one_is_added_to_at_once),
		T(whoever_fills_it_in_between_holds_nobody_up),
		T(all_that_several_threads_add_is_there),
		T(an_interrupt_that_others_have_is_raised_and_cleared_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
