/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define KVM_PATH "/dev/kvm"

static int kvm_open(struct err *e)
{
	int fd = open(KVM_PATH, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	int why = errno;
	if (why == ENOENT)
		return err_msg(e, -why,
			       KVM_PATH ": not there: load kvm_intel or kvm_amd, or turn "
					"virtualization on in the firmware");
	if (why == EACCES || why == EPERM)
		return err_msg(e, -why,
			       KVM_PATH ": permission denied: join the group that owns it "
					"(usually kvm) or run as root");
	if (why == ENODEV || why == ENXIO)
		return err_msg(e, -why,
			       KVM_PATH ": no driver behind it: this CPU's virtualization is off "
					"or another hypervisor has it");
	return err_sys(e, KVM_PATH);
}

/* Hardware virtualization is named in the flags line: vmx or svm as a whole word. */
static bool kvm_cpu_has_virt(void)
{
	char *line = NULL;
	size_t cap = 0;
	bool has = false;
	FILE *f = fopen("/proc/cpuinfo", "re");

	if (!f)
		return false;
	while (!has && getline(&line, &cap, f) > 0) {
		if (strncmp(line, "flags", 5) != 0)
			continue;
		for (char *save, *w = strtok_r(line, " \t\n", &save); w && !has;
		     w = strtok_r(NULL, " \t\n", &save))
			has = !strcmp(w, "vmx") || !strcmp(w, "svm");
		break;
	}
	free(line);
	fclose(f);
	return has;
}

enum kvm_kind kvm_kind(struct err *e)
{
	int fd = kvm_open(e);

	if (fd < 0)
		return KVM_KIND_NONE;
	close(fd);
	return kvm_cpu_has_virt() ? KVM_KIND_HARDWARE : KVM_KIND_SOFTWARE;
}

const struct kvm_cap kvm_caps[] = {
	{KVM_CAP_USER_MEMORY, true, "user memory", "a newer kernel is needed"},
	{KVM_CAP_IRQCHIP, true, "in-kernel interrupt controller", "a newer kernel is needed"},
	{KVM_CAP_IRQ_ROUTING, true, "GSI routing", "a newer kernel is needed"},
	{KVM_CAP_IRQFD, true, "irqfd", "a newer kernel is needed"},
	{KVM_CAP_IOEVENTFD, true, "ioeventfd", "a newer kernel is needed"},
	{KVM_CAP_IMMEDIATE_EXIT, true, "immediate exit", "Linux 4.13 or newer is needed"},
	{KVM_CAP_IOEVENTFD_ANY_LENGTH, false, "ioeventfd of any length",
	 "a kick over PCI goes through user space"},
	{KVM_CAP_MP_STATE, false, "MP state", "application processors may not start"},
	{KVM_CAP_TSC_CONTROL, false, "TSC control", "guests run at the host's TSC frequency"},
	{KVM_CAP_TSC_DEADLINE_TIMER, false, "TSC deadline timer", "guests use a slower timer"},
	{KVM_CAP_BINARY_STATS_FD, false, "binary statistics",
	 "the timeline shows no exits; Linux 5.14 or newer has them"},
	{0, false, NULL, NULL},
};

static int vm_check(struct vm *vm, struct err *e)
{
	int api = ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0);

	if (api != KVM_API_VERSION)
		return err_msg(e, -EPROTO, KVM_PATH ": API version %d, %d is needed", api,
			       KVM_API_VERSION);
	for (const struct kvm_cap *c = kvm_caps; c->name; c++)
		if (c->required && ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, c->cap) <= 0)
			return err_msg(e, -ENOTSUP, KVM_PATH ": this host's KVM lacks %s: %s",
				       c->name, c->without);
	int size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return err_msg(e, -EPROTO, KVM_PATH ": vCPU mapping of %d bytes", size);
	vm->run_size = (uint32_t)size;
	int max = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	vm->max_vcpus = max > 0 ? (unsigned)max : 4;
	return 0;
}

int vm_open(struct vm *vm, struct err *e)
{
	*vm = (struct vm){.kvm_fd = -1, .fd = -1};
	vm->kvm_fd = kvm_open(e);
	if (vm->kvm_fd < 0)
		return e ? e->code : -ENODEV;
	int r = vm_check(vm, e);
	if (r == 0) {
		do
			vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
		while (vm->fd < 0 && errno == EINTR);
		if (vm->fd < 0 && errno == EBUSY)
			r = err_msg(e, -EBUSY,
				    KVM_PATH ": in use: another hypervisor holds the CPU's "
					     "virtualization");
		else if (vm->fd < 0)
			r = err_sys(e, KVM_PATH ": create a VM");
	}
	if (r < 0)
		vm_close(vm);
	return r;
}

void vm_close(struct vm *vm)
{
	if (vm->fd >= 0)
		close(vm->fd);
	if (vm->kvm_fd >= 0)
		close(vm->kvm_fd);
	vm->fd = vm->kvm_fd = -1;
	free(vm->arch);
	vm->arch = NULL;
}

int vm_has(const struct vm *vm, unsigned cap)
{
	int r = ioctl(vm->fd, KVM_CHECK_EXTENSION, cap);

	return r > 0 ? r : 0;
}

void vm_halt_poll(struct vm *vm, uint64_t ns)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_HALT_POLL, .args = {ns}};
	FILE *f = fopen("/sys/module/kvm/parameters/halt_poll_ns", "re");
	char line[32] = "";

	if (!f)
		return;
	if (!fgets(line, sizeof(line), f))
		*line = '\0';
	fclose(f);
	uint64_t host = strtoull(line, NULL, 10);

	/* A guest runs without it as well. */
	if (host && ns > host && vm_has(vm, KVM_CAP_HALT_POLL))
		ioctl(vm->fd, KVM_ENABLE_CAP, &cap);
}

int vm_map(struct vm *vm, const struct gmem *gm, struct err *e)
{
	size_t n;
	const struct gmem_region *r = gmem_regions(gm, &n);

	for (size_t i = 0; i < n; i++) {
		struct kvm_userspace_memory_region m = {
			.slot = (uint32_t)i,
			.guest_phys_addr = r[i].base.v,
			.memory_size = r[i].size,
			.userspace_addr = (uintptr_t)r[i].host,
		};
		if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &m) < 0)
			return err_sys(e, "map %llu MiB of guest memory at %#llx",
				       (unsigned long long)(r[i].size >> 20),
				       (unsigned long long)r[i].base.v);
	}
	return 0;
}

int vm_ioeventfd(struct vm *vm, const struct vm_ioeventfd *io, bool add)
{
	struct kvm_ioeventfd a = {
		.addr = io->addr,
		.len = io->len,
		.fd = io->fd,
		.datamatch = io->match ? *io->match : 0,
		.flags = (io->match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0u) |
			 (io->pio ? KVM_IOEVENTFD_FLAG_PIO : 0u) |
			 (add ? 0u : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	return ioctl(vm->fd, KVM_IOEVENTFD, &a) < 0 ? -errno : 0;
}
