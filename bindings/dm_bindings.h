/* SPDX-License-Identifier: GPL-2.0 */
/* What bindgen reads; see Kbuild for which of it becomes Rust. */
#include <linux/device-mapper.h>
#include <linux/dm-ioctl.h>
#include <linux/crc32.h>

#include "helpers.h"
