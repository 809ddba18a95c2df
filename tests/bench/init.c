/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The init that both VMMs boot when they are compared: says on the port that it
 * runs, stays long enough to be looked at, and powers off.
 */
#include <sys/io.h>
#include <sys/reboot.h>
#include <unistd.h>

#define MARK_PORT 0x5f0
#define MARK_INIT 1

int main(void)
{
	if (iopl(3) == 0)
		outb(MARK_INIT, MARK_PORT);
	usleep(1500000);
	reboot(RB_POWER_OFF);
	return 1;
}
