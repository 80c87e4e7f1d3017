/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pages of the program's own file that this process has in memory: code and constants.
 * Much of them only a start needs, and the kernel maps 64 KiB around each that is touched
 * (fault-around). They are the page cache's; what is let go of here comes back with a minor
 * fault when it is used again.
 */
#ifndef BASE_PROGRAM_PAGES_H
#define BASE_PROGRAM_PAGES_H

/* Lets go of all of them but what was written to (relocations, data). Any thread, at any
 * time: other threads fault in what they are about to run. */
void program_pages_release(void);

#endif
