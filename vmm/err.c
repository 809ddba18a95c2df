/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_sys(struct err *e, const char *fmt, ...)
{
	int code = errno ? -errno : -EIO;
	char what[384];
	va_list ap;

	if (!e)
		return code;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_msg(e, code, "%s: %s", what, strerror(-code));
}

int err_msg(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	e->code = code;
	return code;
}

int err_ctx(struct err *e, const char *fmt, ...)
{
	char inner[sizeof(e->text)], ctx[256];
	va_list ap;

	if (!e)
		return -EIO;
	memcpy(inner, e->text, sizeof(inner));
	va_start(ap, fmt);
	vsnprintf(ctx, sizeof(ctx), fmt, ap);
	va_end(ap);
	/* A chain too long loses its root's tail, never its head. */
	if (snprintf(e->text, sizeof(e->text), "%s: %s", ctx, inner) < 0)
		e->text[0] = 0;
	return e->code;
}
