/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/msix.h"

#include <errno.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <cmocka.h>

#define N 34 /* 33 queues and the configuration */
#define ENABLE 0x8000u
#define FUNCTION_MASK 0x4000u

/* What KVM was asked for: this program's ioctl() stands in front of libc's. */
static struct {
	unsigned routings, assigns, deassigns;
	struct kvm_irq_routing_entry last; /* of the last table */
	unsigned msis;
	uint32_t bad; /* it takes no table that holds this address */
} kvm;

int ioctl(int fd, unsigned long req, ...)
{
	const struct kvm_irq_routing *table;
	const struct kvm_irqfd *irqfd;
	va_list ap;
	int ret = 0;

	(void)fd;
	va_start(ap, req);
	if (req == KVM_SET_GSI_ROUTING) {
		table = va_arg(ap, const struct kvm_irq_routing *);
		kvm.routings++;
		kvm.msis = 0;
		for (unsigned i = 0; i < table->nr; i++) {
			if (table->entries[i].type != KVM_IRQ_ROUTING_MSI)
				continue;
			kvm.msis++;
			if (kvm.bad && table->entries[i].u.msi.address_lo == kvm.bad) {
				errno = EINVAL;
				ret = -1;
			}
		}
		if (table->nr)
			kvm.last = table->entries[table->nr - 1];
	} else if (req == KVM_IRQFD) {
		irqfd = va_arg(ap, const struct kvm_irqfd *);
		if (irqfd->flags & KVM_IRQFD_FLAG_DEASSIGN)
			kvm.deassigns++;
		else
			kvm.assigns++;
	}
	va_end(ap);
	return ret;
}

struct fixture {
	struct pci_func f;
	struct msix m;
	struct vm vm;
	struct irqs *irqs;
};

static int setup_with(void **state, bool fake)
{
	static struct fixture x;

	memset(&x, 0, sizeof(x));
	memset(&kvm, 0, sizeof(kvm));
	*state = &x;
	x.vm.fd = -1;
	if (!fake && irqs_new(&x.irqs, &x.vm, NULL))
		return -1;
	return msix_init(&x.m, N, x.irqs, NULL) || msix_cap(&x.m, &x.f, 0, 0x4000, 0x5000);
}

static int setup(void **state)
{
	return setup_with(state, true);
}

static int setup_kvm(void **state)
{
	return setup_with(state, false);
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	msix_fini(&x->m);
	msix_fini(&x->m); /* again: nothing */
	irqs_free(x->irqs);
	return 0;
}

static void control(struct fixture *x, uint32_t val)
{
	unsigned at = x->m.cap + 2;

	pci_cfg_write(&x->f, at, 2, val);
	msix_cfg_written(&x->m, &x->f, at, 2);
}

static void vector(struct fixture *x, unsigned i, uint64_t addr, uint32_t data, uint32_t ctrl)
{
	msix_table_write(&x->m, i * 16, 8, addr);
	msix_table_write(&x->m, i * 16 + 8, 4, data);
	msix_table_write(&x->m, i * 16 + 12, 4, ctrl);
}

static void msix_capability_has_the_standards_bytes(void **state)
{
	struct fixture *x = *state;
	const uint8_t want[12] = {0x11, 0, N - 1, 0, 0, 0x40, 0, 0, 0, 0x50, 0, 0};

	assert_memory_equal(&x->f.cfg[x->m.cap], want, sizeof(want));
	pci_cfg_write(&x->f, x->m.cap, 4, 0xffffffff);
	pci_cfg_write(&x->f, x->m.cap + 4, 4, 0xffffffff);
	assert_int_equal(pci_get(&x->f, x->m.cap, 4), 0xc0000011 | (N - 1) << 16);
	assert_int_equal(pci_get(&x->f, x->m.cap + 4, 4), 0x4000);
}

static void msix_table_starts_masked_and_keeps_what_is_written(void **state)
{
	struct fixture *x = *state;

	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(msix_table_read(&x->m, i * 16, 8), 0);
		assert_int_equal(msix_table_read(&x->m, i * 16 + 8, 8), 1ull << 32);
	}
	vector(x, N - 1, 0x1234fee00007, 0xabcd, 0xfffffffe);
	assert_int_equal(msix_table_read(&x->m, (N - 1) * 16, 8), 0x1234fee00004);
	assert_int_equal(msix_table_read(&x->m, (N - 1) * 16, 4), 0xfee00004);
	assert_int_equal(msix_table_read(&x->m, (N - 1) * 16 + 4, 4), 0x1234);
	assert_int_equal(msix_table_read(&x->m, (N - 1) * 16 + 8, 4), 0xabcd);
	assert_int_equal(msix_table_read(&x->m, (N - 1) * 16 + 12, 4), 0);
	msix_table_write(&x->m, 8, 8, 0x1ffffffff);
	assert_int_equal(msix_table_read(&x->m, 8, 8), 0x1ffffffff);
	msix_table_write(&x->m, 4, 4, 0x77);
	assert_int_equal(msix_table_read(&x->m, 0, 8), 0x7700000000);
}

static void msix_table_odd_and_outside_accesses_are_nothing(void **state)
{
	static const struct {
		uint64_t off;
		unsigned size;
	} bad[] = {{0, 1},       {0, 2},         {1, 4},         {2, 4},
		   {4, 8},       {N * 16, 4},    {N * 16, 8},    {0xff8, 8},
		   {1 << 20, 4}, {~0ull - 3, 4}, {~0ull - 7, 8}, {0x8000000000000000, 8}};
	struct fixture *x = *state;
	struct msix_vector before[N];

	vector(x, 0, 0x1111111111111110, 0x22222222, 1);
	memcpy(before, x->m.vec, sizeof(before));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		msix_table_write(&x->m, bad[i].off, bad[i].size, 0);
		assert_int_equal(msix_table_read(&x->m, bad[i].off, bad[i].size), 0);
	}
	assert_memory_equal(before, x->m.vec, sizeof(before));
}

static void msix_disabled_raises_nothing(void **state)
{
	struct fixture *x = *state;

	msix_raise(&x->m, 0);
	assert_int_equal(msix_pba_read(&x->m, 0, 8), 0);
	control(x, FUNCTION_MASK);
	msix_raise(&x->m, 0);
	assert_false(msix_on(&x->m));
	assert_int_equal(msix_pba_read(&x->m, 0, 8), 0);
}

static void msix_raise_of_no_vector_is_nothing(void **state)
{
	struct fixture *x = *state;

	control(x, ENABLE);
	msix_raise(&x->m, N);
	msix_raise(&x->m, 0xffff);
	msix_raise(&x->m, ~0u);
	assert_int_equal(msix_pba_read(&x->m, 0, 8), 0);
}

static void msix_pba_shows_what_waits(void **state)
{
	struct fixture *x = *state;

	control(x, ENABLE | FUNCTION_MASK);
	msix_raise(&x->m, 0);
	msix_raise(&x->m, 3);
	msix_raise(&x->m, 33);
	assert_int_equal(msix_pba_read(&x->m, 0, 8), 0x200000009);
	assert_int_equal(msix_pba_read(&x->m, 0, 4), 9);
	assert_int_equal(msix_pba_read(&x->m, 4, 4), 2);
	assert_int_equal(msix_pba_read(&x->m, 8, 8), 0);
	assert_int_equal(msix_pba_read(&x->m, 0xff8, 8), 0);
	assert_int_equal(msix_pba_read(&x->m, 0, 1), 0);
	assert_int_equal(msix_pba_read(&x->m, 4, 8), 0);
	msix_clear(&x->m);
	assert_int_equal(msix_pba_read(&x->m, 0, 8), 0);
}

static bool irq_is_masked(const struct fixture *x, unsigned i)
{
	return x->m.vec[i].masked;
}

static void msix_vector_is_unmasked_only_by_all_three(void **state)
{
	struct fixture *x = *state;

	vector(x, 1, 0xfee00000, 0x41, 0);
	assert_true(irq_is_masked(x, 1));
	control(x, ENABLE | FUNCTION_MASK);
	assert_true(irq_is_masked(x, 1));
	control(x, ENABLE);
	assert_false(irq_is_masked(x, 1));
	assert_true(irq_is_masked(x, 0));
	msix_table_write(&x->m, 16 + 12, 4, 1);
	assert_true(irq_is_masked(x, 1));
	msix_table_write(&x->m, 16 + 8, 8, 0x42);
	assert_false(irq_is_masked(x, 1));
	control(x, 0);
	assert_true(irq_is_masked(x, 1));
}

static void msix_unmask_routes_and_assigns_once(void **state)
{
	struct fixture *x = *state;

	control(x, ENABLE | FUNCTION_MASK);
	for (unsigned i = 0; i < 3; i++)
		vector(x, i, 0xfee00000 + 0x1000ull * i, 0x30 + i, 0);
	assert_int_equal(kvm.routings + kvm.assigns, 0); /* masked: KVM is not bothered */
	msix_raise(&x->m, 2);
	assert_int_equal(msix_pba_read(&x->m, 0, 8), 4);
	control(x, ENABLE);
	assert_int_equal(kvm.assigns, 3);
	assert_int_equal(kvm.msis, 3);
	assert_int_equal(kvm.last.u.msi.address_lo, 0xfee02000);
	assert_int_equal(kvm.last.u.msi.data, 0x32);
	assert_int_equal(msix_pba_read(&x->m, 0, 8), 0); /* now KVM's */
	/* masking and unmasking the same message needs no new route */
	unsigned routings = kvm.routings;

	msix_table_write(&x->m, 12, 4, 1);
	assert_int_equal(kvm.deassigns, 1);
	msix_table_write(&x->m, 12, 4, 0);
	assert_int_equal(kvm.assigns, 4);
	assert_int_equal(kvm.routings, routings);
}

static void msix_affinity_change_takes_one_new_route(void **state)
{
	struct fixture *x = *state;

	vector(x, 0, 0xfee00000, 0x30, 0);
	control(x, ENABLE);
	unsigned routings = kvm.routings;

	msix_table_write(&x->m, 12, 4, 1); /* as Linux does it */
	msix_table_write(&x->m, 0, 4, 0xfee01000);
	msix_table_write(&x->m, 4, 4, 0);
	msix_table_write(&x->m, 8, 4, 0x31);
	msix_raise(&x->m, 0); /* in between: waits */
	assert_int_equal(msix_pba_read(&x->m, 0, 8), 1);
	msix_table_write(&x->m, 12, 4, 0);
	assert_int_equal(kvm.routings, routings + 1);
	assert_int_equal(kvm.last.u.msi.address_lo, 0xfee01000);
	assert_int_equal(kvm.last.u.msi.data, 0x31);
}

static void msix_qword_that_unmasks_delivers_its_own_data(void **state)
{
	struct fixture *x = *state;

	control(x, ENABLE);
	msix_table_write(&x->m, 0, 8, 0xfee00000);
	msix_table_write(&x->m, 8, 8, 0x55);
	assert_int_equal(kvm.routings, 1);
	assert_int_equal(kvm.last.u.msi.data, 0x55);
	assert_int_equal(kvm.assigns, 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
static void msix_address_that_kvm_refuses_disturbs_no_other_vector(void **state)
{
	struct fixture *x = *state;

	kvm.bad = 0xfee66000;
	control(x, ENABLE);
	vector(x, 0, kvm.bad, 0x31, 0);
	vector(x, 1, 0xfee02000, 0x32, 0);
	assert_int_equal(kvm.msis, 1);
	assert_int_equal(kvm.last.u.msi.data, 0x32);
	assert_int_equal(kvm.assigns, 1);
	/* One that worked before: what it raises from now on is pending. */
	vector(x, 2, 0xfee03000, 0x33, 0);
	assert_int_equal(kvm.assigns, 2);
	vector(x, 2, kvm.bad, 0x33, 0);
	assert_int_equal(kvm.deassigns, 1);
	msix_raise(&x->m, 2);
	assert_int_equal(msix_pba_read(&x->m, 0, 8), 4);
	vector(x, 2, 0xfee04000, 0x34, 0);
	assert_int_equal(kvm.assigns, 3);
	assert_int_equal(kvm.msis, 2);
}

#define K(f) cmocka_unit_test_setup_teardown(f, setup_kvm, teardown)

static void msix_fd_is_there_where_raising_would_do_something(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(msix_fd(&x->m, 0), -1);
	control(x, ENABLE | FUNCTION_MASK);
	for (unsigned i = 0; i < N; i++)
		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(msix_fd(&x->m, i), msix_fd(&x->m, j));
	assert_int_equal(msix_fd(&x->m, N), -1);
	assert_int_equal(msix_fd(&x->m, 0xffff), -1);
	assert_int_equal(msix_fd(&x->m, UINT32_MAX), -1);
	/* Masked: what somebody else writes there waits like what is raised here. */
	assert_int_equal(eventfd_write(msix_fd(&x->m, 3), 1), 0);
	assert_int_equal(msix_pba_read(&x->m, 0, 8), 8);
	control(x, 0);
	assert_int_equal(msix_fd(&x->m, 3), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		K(msix_address_that_kvm_refuses_disturbs_no_other_vector),
		T(msix_capability_has_the_standards_bytes),
		T(msix_table_starts_masked_and_keeps_what_is_written),
		T(msix_table_odd_and_outside_accesses_are_nothing),
		T(msix_disabled_raises_nothing),
		T(msix_raise_of_no_vector_is_nothing),
		T(msix_pba_shows_what_waits),
		T(msix_fd_is_there_where_raising_would_do_something),
		T(msix_vector_is_unmasked_only_by_all_three),
		K(msix_unmask_routes_and_assigns_once),
		K(msix_affinity_change_takes_one_new_route),
		K(msix_qword_that_unmasks_delivers_its_own_data),
	};

	return cmocka_run_group_tests_name("msix", tests, NULL, NULL);
}
