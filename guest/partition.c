/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PARTUUID= the way the kernel gives it (block/partitions/): a GPT entry's
 * unique GUID (UEFI 2.10, 5.3.3), or the MBR's disk signature and the number.
 */
#include "guest/init.h"

#include <endian.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static char *hex(char *to, const uint8_t *p, size_t n)
{
	static const char digit[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		*to++ = digit[p[i] >> 4];
		*to++ = digit[p[i] & 15];
	}
	return to;
}

void uuid_text(char text[37], const uint8_t raw[16])
{
	static const uint8_t group[] = {4, 2, 2, 2, 6};
	char *to = text;

	for (size_t i = 0; i < sizeof(group); i++) {
		to = hex(to, raw, group[i]);
		raw += group[i];
		*to++ = '-';
	}
	to[-1] = 0;
}

/* A GUID's first three fields are little-endian. */
static void guid_text(char text[37], const uint8_t g[16])
{
	const uint8_t raw[16] = {g[3], g[2], g[1],  g[0],  g[5],  g[4],  g[7],  g[6],
				 g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]};

	uuid_text(text, raw);
}

static bool gpt_uuid(int fd, unsigned n, unsigned sector, char text[37])
{
	uint8_t header[92], guid[16];
	uint64_t lba;
	uint32_t count, size;

	if (pread(fd, header, sizeof(header), sector) != (ssize_t)sizeof(header) ||
	    memcmp(header, "EFI PART", 8))
		return false;
	memcpy(&lba, header + 72, sizeof(lba));
	memcpy(&count, header + 80, sizeof(count));
	memcpy(&size, header + 84, sizeof(size));
	lba = le64toh(lba);
	count = le32toh(count);
	size = le32toh(size);
	/* The bounds keep the offset below from overflowing. */
	if (n > count || size < 128 || size > 4096 || lba >= 1ull << 40)
		return false;
	if (pread(fd, guid, sizeof(guid), (off_t)(lba * sector + (n - 1) * (uint64_t)size + 16)) !=
	    (ssize_t)sizeof(guid))
		return false;
	guid_text(text, guid);
	return true;
}

static bool mbr_uuid(int fd, unsigned n, char text[37])
{
	uint8_t mbr[512], raw[5];

	if (pread(fd, mbr, sizeof(mbr), 0) != (ssize_t)sizeof(mbr) || mbr[510] != 0x55 ||
	    mbr[511] != 0xaa)
		return false;
	for (int i = 0; i < 4; i++)
		raw[i] = mbr[443 - i];
	raw[4] = (uint8_t)n;
	text = hex(text, raw, 4);
	*text++ = '-';
	*hex(text, raw + 4, 1) = 0;
	return true;
}

bool partition_uuid(const char *disk, unsigned n, unsigned sector, char text[37])
{
	int fd = open(disk, O_RDONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = gpt_uuid(fd, n, sector, text) || mbr_uuid(fd, n, text);
	close(fd);
	return ok;
}
