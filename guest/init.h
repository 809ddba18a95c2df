/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of guest/init, PID 1 of the initramfs. One process, one thread, no
 * stdio: it is unpacked at every boot, so its size is boot time.
 */
#ifndef GUEST_INIT_H
#define GUEST_INIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest/marks.h"

/* init.c: what the kernel's command line says. Pointers into it, NULL when absent. */
struct options {
	const char *root;
	const char *fstype; /* rootfstype=, a comma-separated list */
	const char *flags;  /* rootflags= */
	const char *init;
	bool rw;
	bool overlay; /* mvm.overlay: what is written goes to memory, the root stays as it is */
	bool shell;   /* mvm.shell: a shell even though the root has an init */
};

/* mark_ARCH.c */
void mark(uint8_t stage);

/*
 * say.c. A line made of the strings given, after "guest init: ". Until say_console()
 * the kernel's log takes them, which shows them on a console that comes up
 * later too.
 */
#define say(...) say_parts((const char *const[]){__VA_ARGS__, NULL})
#define die(...) die_parts(MARK_FAILED, (const char *const[]){__VA_ARGS__, NULL})
#define die_rooted(...) die_parts(MARK_NO_INIT, (const char *const[]){__VA_ARGS__, NULL})
void say_parts(const char *const *part);
_Noreturn void die_parts(uint8_t stage, const char *const *part); /* says why, powers off */
void say_console(void);
void say_drain(void); /* waits, at most a second, until the console has taken all */

/* file.c */
char *file_read(const char *path, size_t max,
		size_t *ret_len); /* NUL-terminated, malloc'd; NULL and errno */
bool file_line(const char *dir, const char *name, const char *leaf, char *buf, size_t size);
char *number(char buf[24], uint64_t n); /* decimal */

/*
 * modules.c. Loads what /modules.list names in the section of this file system,
 * or with NULL what stands before the first section.
 */
void modules_load(const char *section);

/* disk.c. Waits for the device that root= names and gives its path; false after ten seconds. */
#define DISK_WAIT_S "10"
bool disk_wait(const char *root, char *path, size_t size);
void disk_names(char *buf, size_t size); /* the disks there are, sorted, for a message */

/* partition.c. The UUID of partition n of the disk at this path, from its GPT or MBR. */
bool partition_uuid(const char *disk, unsigned n, unsigned sector, char text[37]);
void uuid_text(char text[37], const uint8_t raw[16]);

/* share.c. The tag that root= names when it means a share, else NULL; mounts it on /root or dies.
 */
const char *share_tag(const struct options *o);
void share_mount(const char *tag, const struct options *o);

/* root.c */
void root_mount(const struct options *o); /* on /root; dies when it cannot */
void root_switch(void);                   /* makes it / and frees the initramfs */

/* session.c. A shell on the console, as a child of this process; ends in a power-off.
 * @shared: the root is a share, and its /tmp not this machine's. */
_Noreturn void session_run(bool shared);

/* initctl.c. A descriptor to poll for what System V's init would be asked, or -1. */
enum initctl { INITCTL_NOTHING, INITCTL_OFF, INITCTL_RESTART };
int initctl_open(void);
enum initctl initctl_read(int fd); /* it is readable */

/* links.c. Network interfaces. */
void links_up_loopback(void);
void links_down(void); /* all: see power_end */

/* button.c. Descriptors to poll for the power button. */
#define BUTTON_MAX 8
size_t button_open(int fds[BUTTON_MAX]);
bool button_pressed(int fd); /* fd is readable: was it the power button? */

/* power.c. Ends every process, unmounts, and powers off or restarts. */
_Noreturn void power_end(bool restart);
_Noreturn void power_off_now(void);

#endif
