/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What guest/init tells the VMM on its way: one byte a stage, written to a port
 * that only mvm answers. Elsewhere the writes go nowhere.
 */
#ifndef GUEST_MARKS_H
#define GUEST_MARKS_H

#define MARK_PORT 0x5f0

#define MARK_INIT_STARTED 1 /* the first thing it does */
#define MARK_ROOT_MOUNTED 2
#define MARK_ROOT_INIT 3  /* about to run the root's init, or a shell */
#define MARK_NO_INIT 0xfe /* the root is there, but no init on it runs; else like MARK_FAILED */
#define MARK_FAILED 0xff  /* it could not; the reason is on the console, a power-off follows */

#endif
