/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Rust cannot reach because it is a macro or an inline function: one
 * exported-looking function for each. None of them is on the healthy path of
 * a request, except on architectures without an own version in src/sync/.
 */
#ifndef DM_REMAP_HELPERS_H
#define DM_REMAP_HELPERS_H

#include <linux/blkdev.h>
#include <linux/mutex.h>
#include <linux/workqueue.h>

void __percpu *dm_remap_alloc_percpu(size_t size, size_t align);
void dm_remap_percpu_inc(u64 __percpu *counter);
void dm_remap_percpu_add(u64 __percpu *counter, u64 value);
u64 dm_remap_percpu_dec(u64 __percpu *counter);
void dm_remap_percpu_set(u64 __percpu *counter, u64 value);
u64 dm_remap_percpu_sum(const u64 __percpu *counter);

void dm_remap_preempt_disable(void);
void dm_remap_preempt_enable(void);

void dm_remap_might_lock(struct mutex *lock);

unsigned int dm_remap_memalloc_noio_save(void);
void dm_remap_memalloc_noio_restore(unsigned int flags);

void dm_remap_init_work(struct delayed_work *work, work_func_t func);
struct workqueue_struct *dm_remap_alloc_workqueue(const char *device);
struct workqueue_struct *dm_remap_alloc_background_workqueue(const char *device);

bool dm_remap_bdev_read_only(struct block_device *bdev);
bool dm_remap_bdev_is_zoned(struct block_device *bdev);
bool dm_remap_bdev_overlap(struct block_device *a, struct block_device *b);
sector_t dm_remap_bdev_sectors(struct block_device *bdev);
unsigned int dm_remap_bdev_logical_block_size(struct block_device *bdev);
unsigned int dm_remap_bdev_physical_block_size(struct block_device *bdev);
unsigned int dm_remap_bdev_max_sectors(struct block_device *bdev);

int dm_remap_read_idle(struct block_device *bdev, sector_t sector, void *data,
		       size_t len);

bool dm_remap_log_allowed(void);

/* The bio must have len bytes of data from offset on. */
void dm_remap_bio_to_buffer(struct bio *bio, unsigned int offset, char *buffer,
			    size_t len);
void dm_remap_buffer_to_bio(const char *buffer, size_t len, struct bio *bio,
			    unsigned int offset);

#endif
