// SPDX-License-Identifier: GPL-2.0
/*
 * Does not compile when a structure that Rust reaches into is not laid out as
 * in the kernel that the module is for, or a macro that bindgen cannot evaluate
 * is not what it is for Rust.
 */
#include "dm_bindings.h"
#include "layout_generated.h"

#define SAME(macro, rust) \
	static_assert((__force u64)(macro) == (rust), #macro " is another one in Rust")

/* src/block/bio.rs */
SAME(REQ_OP_MASK, BIT(REQ_OP_BITS) - 1);
SAME(REQ_PREFLUSH, BIT(__REQ_PREFLUSH));
SAME(REQ_POLLED, BIT(__REQ_POLLED));
SAME(REQ_DRV, BIT(__REQ_DRV));
SAME(REQ_RAHEAD, BIT(__REQ_RAHEAD));
SAME(REQ_FUA, BIT(__REQ_FUA));
SAME(REQ_ATOMIC, BIT(__REQ_ATOMIC));

/* src/block/status.rs */
SAME(BLK_STS_OK, 0);
SAME(BLK_STS_NOTSUPP, 1);
SAME(BLK_STS_MEDIUM, 7);
SAME(BLK_STS_IOERR, 10);
SAME(BLK_STS_AGAIN, 12);

/* src/dm/target.rs */
SAME(BLK_OPEN_WRITE, BIT(1));
