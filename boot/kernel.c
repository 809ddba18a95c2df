/* SPDX-License-Identifier: Apache-2.0 */
#include "boot/kernel.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/kernel_priv.h"

/* What people hand over by mistake, by the bytes that give it away. */
static const struct {
	unsigned off, len;
	const char *magic, *what;
} foreign[] = {
	{0x38, 4, "ARM\x64", "an arm64 kernel; this machine is x86-64"},
	{0x38, 4, "RSC\x05", "a RISC-V kernel; this machine is x86-64"},
	{4, 4, "zimg", "an EFI zboot image (arm64, RISC-V or LoongArch); this machine is x86-64"},
	{0, 6,
	 "\xfd"
	 "7zXZ",
	 "compressed with xz: unpack it first, or use the bzImage"},
	{0, 4, "\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first, or use the bzImage"},
	{0, 4, "\x02\x21\x4c\x18", "compressed with lz4: unpack it first, or use the bzImage"},
	{0, 4, "\x04\x22\x4d\x18", "compressed with lz4: unpack it first, or use the bzImage"},
	{0, 3, "BZh", "compressed with bzip2: unpack it first, or use the bzImage"},
	{0, 4, "\x89LZO", "compressed with lzo: unpack it first, or use the bzImage"},
	{0, 3, "\x5d\0\0", "compressed with lzma: unpack it first, or use the bzImage"},
	{0, 6, "070701", "a cpio archive: an initramfs rather than a kernel?"},
	{0, 7, "!<arch>", "an archive, for example a Debian package: unpack it first"},
};

static int identify_other(const struct kernel *k, const uint8_t *head, size_t n, struct err *e)
{
	for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
		if (n >= foreign[i].off + foreign[i].len &&
		    !memcmp(head + foreign[i].off, foreign[i].magic, foreign[i].len))
			return err_msg(e, -ENOEXEC, "%s", foreign[i].what);
	if (n < 0x202 + 4)
		return err_msg(e, -ENOEXEC,
			       "not a Linux kernel, or truncated: it has only %llu bytes",
			       (unsigned long long)k->len);
	if (head[0] == 'M' && head[1] == 'Z')
		return err_msg(e, -ENOEXEC, "an EFI program without the header of a Linux bzImage");
	return err_msg(e, -ENOEXEC, "not a Linux kernel: neither a bzImage nor an ELF file");
}

/* boot.rst: boot_flag at 0x1fe and "HdrS" at 0x202. */
static bool is_bzimage(const uint8_t *head, size_t n)
{
	return n >= 0x206 && head[0x1fe] == 0x55 && head[0x1ff] == 0xaa &&
	       !memcmp(head + 0x202, "HdrS", 4);
}

static int identify(struct kernel *k, struct err *e)
{
	uint8_t head[KERNEL_HEAD];
	size_t n = k->len < sizeof(head) ? k->len : sizeof(head);

	if (!n)
		return err_msg(e, -ENOEXEC, "%s is empty",
			       k->unpacked ? "what it unpacks to" : "it");
	if (kernel_read(k, 0, head, n))
		return err_msg(e, -EIO, "reading its header failed");
	if (n >= 4 && !memcmp(head, "\177ELF", 4))
		return elf_parse(k, head, n, e);
	if (is_bzimage(head, n))
		return bzimage_parse(k, head, n, e);
	if (n >= 2 && head[0] == 0x1f && head[1] == 0x8b) {
		if (k->unpacked)
			return err_msg(e, -ENOEXEC, "compressed with gzip twice");
		int r = gunzip_image(k, KERNEL_MAX, e);
		return r ? r : identify(k, e);
	}
	return identify_other(k, head, n, e);
}

static int open_file(struct kernel *k, struct err *e)
{
	struct stat st;

	/* O_NONBLOCK: a FIFO is refused below, it must not hold us up here. */
	k->fd = open(k->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (k->fd < 0 || fstat(k->fd, &st))
		return err_msg(e, -errno, "%s", strerror(errno));
	if (S_ISDIR(st.st_mode))
		return err_msg(e, -EISDIR, "it is a directory");
	if (!S_ISREG(st.st_mode))
		return err_msg(e, -EINVAL, "it is not a regular file");
	k->len = (uint64_t)st.st_size;
	return identify(k, e);
}

static struct kernel *kernel_alloc(void)
{
	struct kernel *k = calloc(1, sizeof(*k));

	if (k)
		k->fd = -1;
	return k;
}

int kernel_open(struct kernel **ret, const char *path, struct err *e)
{
	struct kernel *k = kernel_alloc();
	int r = -ENOMEM;

	if (!k || !(k->path = strdup(path)))
		err_msg(e, r, "out of memory");
	else
		r = open_file(k, e);
	if (r) {
		err_ctx(e, "kernel %s", path);
		kernel_free(k);
		return r;
	}
	*ret = k;
	return 0;
}

int kernel_open_mem(struct kernel **ret, const void *data, size_t len, struct err *e)
{
	struct kernel *k = kernel_alloc();

	if (!k)
		return err_msg(e, -ENOMEM, "kernel: out of memory");
	k->mem = data;
	k->len = len;

	int r = identify(k, e);
	if (r) {
		err_ctx(e, "kernel");
		kernel_free(k);
		return r;
	}
	*ret = k;
	return 0;
}

void kernel_free(struct kernel *k)
{
	if (!k)
		return;
	if (k->fd >= 0)
		close(k->fd);
	if (k->unpacked)
		munmap(k->unpacked, k->unpacked_len);
	free(k->path);
	free(k);
}

enum kernel_kind kernel_kind(const struct kernel *k)
{
	return k->kind;
}

const char *kernel_version(struct kernel *k)
{
	if (!k->version_known) {
		k->version_known = true;
		if (k->kind == KERNEL_BZIMAGE)
			bzimage_version(k);
		else
			elf_version(k);
	}
	return k->version[0] ? k->version : NULL;
}

bool kernel_take_version(struct kernel *k, const char *s, size_t n)
{
	size_t i = 0;

	while (i < n && (isalnum((unsigned char)s[i]) || (s[i] && strchr("._+~-", s[i]))))
		i++;
	if (i == n || i > KERNEL_VERSION_MAX || (s[i] != ' ' && s[i] != '\0'))
		return false;
	if (!i || !isdigit((unsigned char)s[0]))
		return false;
	memcpy(k->version, s, i);
	k->version[i] = '\0';
	return true;
}

int kernel_load(const struct kernel *k, struct gmem *gm, const struct kernel_args *a,
		struct vcpu_entry *ret, struct err *e)
{
	if (k->kind == KERNEL_BZIMAGE)
		return bzimage_load(k, gm, a, ret, e);
	return elf_load(k, gm, a, ret, e);
}

int kernel_read(const struct kernel *k, uint64_t off, void *buf, size_t len)
{
	if (off > k->len || len > k->len - off)
		return -EIO;
	if (k->fd < 0) {
		memcpy(buf, k->mem + off, len);
		return 0;
	}
	/* pread and no mapping: a file that is cut short meanwhile is an error, not a SIGBUS. */
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(k->fd, (uint8_t *)buf + done, len - done, (off_t)(off + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

int kernel_put(const struct kernel *k, struct gmem *gm, uint64_t at, const struct span *file,
	       struct err *e)
{
	uint64_t len = file->end - file->base;
	int r;

	if (k->fd >= 0) {
		const struct gmem_file f = {k->fd, file->base, len};

		r = gmem_load_file(gm, gpa(at), &f, e);
		if (r)
			err_ctx(e, "kernel %s", k->path);
		return r;
	}
	r = gmem_write(gm, gpa(at), k->mem + file->base, len);
	return r ? err_msg(e, r, "kernel: no memory at 0x%llx", (unsigned long long)at) : 0;
}
