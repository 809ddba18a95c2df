/* SPDX-License-Identifier: Apache-2.0 */
/* What the DSDT says: the name space of the machine, as AML. */
#ifndef BOOT_DSDT_H
#define BOOT_DSDT_H

#include "boot/acpi.h"
#include "boot/aml.h"

void dsdt_body(struct aml *a, const struct acpi_args *args); /* without the table's header */

#endif
