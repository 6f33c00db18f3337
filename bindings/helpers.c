// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of the kernel, as functions for Rust.
 */
#include <linux/bio.h>
#include <linux/highmem.h>
#include <linux/ioprio.h>
#include <linux/lockdep.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/ratelimit.h>
#include <linux/sched/mm.h>

#include "helpers.h"

void __percpu *dm_remap_alloc_percpu(size_t size, size_t align)
{
	return __alloc_percpu(size, align);
}

void dm_remap_percpu_inc(u64 __percpu *counter)
{
	this_cpu_inc(*counter);
}

void dm_remap_percpu_add(u64 __percpu *counter, u64 value)
{
	this_cpu_add(*counter, value);
}

u64 dm_remap_percpu_dec(u64 __percpu *counter)
{
	return this_cpu_dec_return(*counter);
}

void dm_remap_percpu_set(u64 __percpu *counter, u64 value)
{
	this_cpu_write(*counter, value);
}

u64 dm_remap_percpu_sum(const u64 __percpu *counter)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(counter, cpu));
	return sum;
}

void dm_remap_preempt_disable(void)
{
	preempt_disable();
}

void dm_remap_preempt_enable(void)
{
	preempt_enable();
}

void dm_remap_might_lock(struct mutex *lock)
{
	might_sleep();
	might_lock(lock);
}

unsigned int dm_remap_memalloc_noio_save(void)
{
	return memalloc_noio_save();
}

void dm_remap_memalloc_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

void dm_remap_init_work(struct delayed_work *work, work_func_t func)
{
	INIT_DELAYED_WORK(work, func);
}

/*
 * WQ_MEM_RECLAIM: requests of a filesystem that writes back to free memory
 * wait for this queue.
 */
struct workqueue_struct *dm_remap_alloc_workqueue(const char *device)
{
	return alloc_ordered_workqueue("dm-remap/%s", WQ_MEM_RECLAIM, device);
}

/*
 * No request waits for this queue.  It stands still while the machine hibernates: what it would relocate
 * or write after the image was taken would be unknown to the memory that comes back.
 */
struct workqueue_struct *dm_remap_alloc_background_workqueue(const char *device)
{
	return alloc_ordered_workqueue("dm-remap-scan/%s", WQ_FREEZABLE, device);
}

bool dm_remap_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

bool dm_remap_bdev_is_zoned(struct block_device *bdev)
{
	return bdev_is_zoned(bdev);
}

/* Whether the two share a sector, as a partition does with its disk. */
bool dm_remap_bdev_overlap(struct block_device *a, struct block_device *b)
{
	sector_t a_start = get_start_sect(a), b_start = get_start_sect(b);

	return a->bd_disk == b->bd_disk &&
	       a_start < b_start + bdev_nr_sectors(b) &&
	       b_start < a_start + bdev_nr_sectors(a);
}

sector_t dm_remap_bdev_sectors(struct block_device *bdev)
{
	return bdev_nr_sectors(bdev);
}

unsigned int dm_remap_bdev_logical_block_size(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

unsigned int dm_remap_bdev_physical_block_size(struct block_device *bdev)
{
	return bdev_physical_block_size(bdev);
}

unsigned int dm_remap_bdev_max_sectors(struct block_device *bdev)
{
	return queue_max_sectors(bdev_get_queue(bdev));
}

/*
 * bdev_rw_virt() for a read, in the priority class that schedulers serve when
 * there is nothing else to do.
 */
int dm_remap_read_idle(struct block_device *bdev, sector_t sector, void *data,
		       size_t len)
{
	struct bio_vec bv;
	struct bio bio;
	int error;

	bio_init(&bio, bdev, &bv, 1, REQ_OP_READ);
	bio.bi_ioprio = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0);
	bio.bi_iter.bi_sector = sector;
	bio_add_virt_nofail(&bio, data, len);
	error = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return error;
}

bool dm_remap_log_allowed(void)
{
	static DEFINE_RATELIMIT_STATE(limit, DEFAULT_RATELIMIT_INTERVAL,
				      DEFAULT_RATELIMIT_BURST);

	return __ratelimit(&limit);
}

/*
 * Calls f for each piece of len bytes of data from offset on; the bio must have
 * as many.
 */
#define for_each_piece(bv, bio, offset, len, f) do {			\
	struct bvec_iter iter = (bio)->bi_iter;				\
	struct bio_vec bv;						\
									\
	bio_advance_iter(bio, &iter, offset);				\
	iter.bi_size = len;						\
	__bio_for_each_segment(bv, bio, iter, iter)			\
		f;							\
} while (0)

void dm_remap_bio_to_buffer(struct bio *bio, unsigned int offset, char *buffer,
			    size_t len)
{
	for_each_piece(bv, bio, offset, len, {
		memcpy_from_bvec(buffer, &bv);
		buffer += bv.bv_len;
	});
}

void dm_remap_buffer_to_bio(const char *buffer, size_t len, struct bio *bio,
			    unsigned int offset)
{
	for_each_piece(bv, bio, offset, len, {
		memcpy_to_bvec(&bv, buffer);
		buffer += bv.bv_len;
	});
}
