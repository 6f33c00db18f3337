// SPDX-License-Identifier: GPL-2.0

//! Which requests are under way, and how many have been.
//!
//! Every request is counted twice, on the processor that does it: when it begins, in the *epoch* of that
//! moment, and when it ends, in the epoch in which it began and by its kind. The difference is the number of
//! requests under way; the second count is also the statistics. `docs/relocation.md` has the argument why
//! [`Traffic::drain`] waits for every request that it has to wait for.

use crate::sync::percpu::Counters;
use crate::sync::rcu;
use core::sync::atomic::fence;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use kernel::time::delay::fsleep;
use kernel::time::Delta;

/// What a request counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It reads sectors.
    Read = 0,
    /// It writes sectors, or zeroes without data.
    Write = 1,
    /// It does something else: flush, discard, secure erase.
    Other = 2,
}

impl Kind {
    /// A request for the data of sectors, which it writes or reads.
    #[inline(always)]
    pub(crate) const fn of_data(writes: bool) -> Self {
        if writes {
            Self::Write
        } else {
            Self::Read
        }
    }
}

/// What a request counts as that was begun and then put aside, to be begun again later.
const ASIDE: usize = 3;

/// Bits of a ticket: epoch, kind, whether it went to a spare.
const EPOCHS: usize = 2;
const KIND_SHIFT: u32 = 1;
const SPARE_BIT: usize = 1 << 3;
const TICKETS: usize = 16;

/// Places of the counters: requests begun in each epoch, requests ended by ticket, errors by kind, sectors by kind.
const BEGUN: usize = 0;
const ENDED: usize = BEGUN + EPOCHS;
const ERRORS: usize = ENDED + TICKETS;
const KINDS: usize = 3;
const SECTORS: usize = ERRORS + KINDS;
const COUNTERS: usize = SECTORS + KINDS;

/// Proof that a request was counted as begun; it travels with the request until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(usize);

impl Ticket {
    /// The bits of a word that hold a ticket.
    const MASK: usize = TICKETS - 1;

    /// The ticket as a word of less than 16.
    #[inline(always)]
    pub(crate) const fn into_bits(self) -> usize {
        self.0
    }

    /// The ticket in the lowest four bits of a word that [`Self::into_bits`] gave.
    #[inline(always)]
    pub(crate) const fn from_bits(bits: usize) -> Self {
        Self(bits & Self::MASK)
    }

    /// What the request counts as; it was not put aside.
    #[inline]
    pub(crate) const fn kind(self) -> Kind {
        match self.0 >> KIND_SHIFT & 3 {
            0 => Kind::Read,
            1 => Kind::Write,
            _ => Kind::Other,
        }
    }

    /// Whether the request went to a spare.
    pub(crate) const fn is_on_spare(self) -> bool {
        self.0 & SPARE_BIT != 0
    }

    /// The same ticket for a request that goes to a spare.
    #[inline]
    pub(crate) const fn on_spare(self) -> Self {
        Self(self.0 | SPARE_BIT)
    }
}

/// The requests of a device.
pub(crate) struct Traffic {
    counters: Counters<COUNTERS>,
    epoch: AtomicUsize,
}

impl Traffic {
    /// No request yet.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            counters: Counters::new()?,
            epoch: AtomicUsize::new(0),
        })
    }

    /// Counts a request as begun.
    ///
    /// This comes before the caller looks up where the request goes, in the same read-side critical section.
    #[inline(always)]
    pub(crate) fn begin(&self, kind: Kind, _guard: &rcu::Guard) -> Ticket {
        let epoch = self.epoch.load(Ordering::Acquire) & (EPOCHS - 1);
        self.counters.increment::<BEGUN, EPOCHS>(epoch);
        Ticket(epoch | (kind as usize) << KIND_SHIFT)
    }

    /// Counts the sectors of a request, of which none is left to another one any more.
    #[inline(always)]
    pub(crate) fn count_sectors(&self, kind: Kind, sectors: u64) {
        self.counters.add::<SECTORS, KINDS>(kind as usize, sectors);
    }

    /// Counts a request as ended. Nothing of it may be under way any more.
    #[inline(always)]
    pub(crate) fn end(&self, ticket: Ticket) {
        // What the request did comes before the count, for whoever waits in `drain`. No instruction on x86-64.
        fence(Ordering::Release);
        self.counters
            .increment::<ENDED, TICKETS>(ticket.0 & Ticket::MASK);
    }

    /// Counts a request as not begun after all, because it has to wait.
    pub(crate) fn put_aside(&self, ticket: Ticket) {
        self.end(Ticket((ticket.0 & (EPOCHS - 1)) | ASIDE << KIND_SHIFT));
    }

    /// Counts the failure of a request.
    pub(crate) fn fail(&self, kind: Kind) {
        self.counters.increment::<ERRORS, KINDS>(kind as usize);
    }

    /// Waits until every request has ended that was counted in a read-side critical section which may have
    /// begun before this call. Requests that begin later do not hold it up.
    ///
    /// Sleeps. One caller at a time.
    pub(crate) fn drain(&self) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        self.epoch.store(epoch ^ 1, Ordering::Release);
        rcu::grace_period();
        let mut pause = Delta::from_micros(20);
        while self.under_way(epoch) {
            fsleep(pause);
            if pause < Delta::from_millis(2) {
                pause = Delta::from_micros(pause.as_nanos() / 1000 * 2);
            }
        }
        // What the requests did comes before what the caller does now: see `end`.
        fence(Ordering::Acquire);
    }

    /// Whether a request of an epoch in which none begins any more is under way.
    fn under_way(&self, epoch: usize) -> bool {
        let ended = (0..TICKETS)
            .filter(|ticket| ticket & (EPOCHS - 1) == epoch)
            .fold(0u64, |sum, ticket| {
                sum.wrapping_add(self.counters.sum(ENDED + ticket))
            });
        ended != self.counters.sum(BEGUN + epoch)
    }

    /// How many requests have begun.
    pub(crate) fn begun(&self) -> u64 {
        (0..EPOCHS).fold(0u64, |sum, epoch| {
            sum.wrapping_add(self.counters.sum(BEGUN + epoch))
        })
    }

    /// How many requests of this kind have ended, at the spares only or everywhere.
    pub(crate) fn ended(&self, kind: Kind, at_spares_only: bool) -> u64 {
        (0..TICKETS)
            .filter(|ticket| ticket >> KIND_SHIFT & 3 == kind as usize)
            .filter(|ticket| !at_spares_only || ticket & SPARE_BIT != 0)
            .fold(0u64, |sum, ticket| {
                sum.wrapping_add(self.counters.sum(ENDED + ticket))
            })
    }

    /// How many sectors the requests of this kind had.
    pub(crate) fn sectors(&self, kind: Kind) -> u64 {
        self.counters.sum(SECTORS + kind as usize)
    }

    /// How many requests of this kind have failed.
    pub(crate) fn errors(&self, kind: Kind) -> u64 {
        self.counters.sum(ERRORS + kind as usize)
    }
}
