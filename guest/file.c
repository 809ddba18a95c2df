/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Files of proc and sysfs have no size to ask for: the buffer grows until the end, at most to max.
 */
char *file_read(const char *path, size_t max, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t cap = 0, len = 0;
	char *buf = NULL;
	ssize_t n;

	if (fd < 0)
		return NULL;
	do {
		if (len + 1 >= cap && cap <= max) {
			char *more = realloc(buf, cap + 4096);

			if (!more)
				break;
			buf = more;
			cap += 4096;
		}
		n = read(fd, buf + len, cap - len - 1);
		if (n > 0)
			len += (size_t)n;
	} while (n > 0);
	close(fd);
	if (!buf)
		return NULL;
	buf[len] = 0;
	if (ret_len)
		*ret_len = len;
	return buf;
}

/* The first line of dir/name/leaf. */
bool file_line(const char *dir, const char *name, const char *leaf, char *buf, size_t size)
{
	const char *part[] = {dir, "/", name, "/", leaf};
	char path[300];
	size_t at = 0;
	ssize_t n;
	int fd;

	for (size_t i = 0; i < sizeof(part) / sizeof(part[0]); i++) {
		size_t len = strlen(part[i]);

		if (len >= sizeof(path) - at)
			return false;
		memcpy(path + at, part[i], len);
		at += len;
	}
	path[at] = 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n < 0)
		return false;
	buf[n] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return true;
}

char *number(char buf[24], uint64_t n)
{
	char *p = buf + 23;

	*p = 0;
	do
		*--p = (char)('0' + n % 10);
	while (n /= 10);
	return p;
}
