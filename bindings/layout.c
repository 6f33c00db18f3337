// SPDX-License-Identifier: GPL-2.0
/*
 * Does not compile when a structure that Rust reaches into is not laid out as
 * in the kernel that the module is for.
 */
#include "dm_bindings.h"
#include "layout_generated.h"
