// SPDX-License-Identifier: Apache-2.0
//! Reads the ring buffer through its own mapping.
//!
//! libbpf's reader does not say up to which position it has read, and the horizon (rule 10) hangs on
//! that: everything reserved before a producer position was read has been given out. The layout is
//! the kernel's interface (kernel/bpf/ringbuf.c): a page with the consumer position, a page with
//! the producer position, and the data, mapped twice in a row so that no record wraps.

use crate::error::Error;
use rustix::event::epoll;
use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;
use rustix::mm::mmap;
use rustix::mm::munmap;
use std::ffi::c_void;
use std::hint::spin_loop;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::ptr::null_mut;
use std::slice;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Header of a record: its length with two flags, and a page offset that only the kernel needs.
const HEADER_BYTES: u64 = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
/// How often a record that is being written is looked at again before this pass gives up. Its
/// program runs with interrupts off and needs some hundred nanoseconds.
const BUSY_SPINS: u32 = 100_000;
/// The space of what was read is given back in pieces of this many bytes.
const RELEASE_BYTES: u64 = 64 << 10;

/// The mapped ring.
pub(crate) struct Ring {
    consumer: *mut c_void,
    producer: *mut c_void,
    page: usize,
    bytes: usize,
    epoll: OwnedFd,
}

// SAFETY: the pointers are to mappings that this value alone owns; nothing is tied to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring behind `map`, whose size is `bytes`.
    pub(crate) fn map(map: BorrowedFd<'_>, bytes: u32) -> Result<Ring, Error> {
        let page = rustix::param::page_size();
        let bytes = bytes as usize;
        let read_write = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new mappings at addresses of the kernel's choice; both lengths are the ring's own.
        let consumer = unsafe { mmap(null_mut(), page, read_write, MapFlags::SHARED, map, 0) }
            .map_err(failed("mapping the ring"))?;
        // SAFETY: as above; the kernel allows this part for reading only.
        let producer = unsafe {
            mmap(
                null_mut(),
                page + 2 * bytes,
                ProtFlags::READ,
                MapFlags::SHARED,
                map,
                page as u64,
            )
        }
        .map_err(failed("mapping the ring"))?;
        Ok(Ring {
            consumer,
            producer,
            page,
            bytes,
            epoll: edge_triggered(map)?,
        })
    }

    /// Waits for the kernel side to say that the watermark is reached.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        let timeout = rustix::event::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(failed("waiting for the ring")(errno)),
        }
    }

    /// Gives out every record up to the producer position of now. False if one was still being
    /// written and had to be left for the next time.
    pub(crate) fn read(&mut self, on_record: &mut dyn FnMut(&[u8])) -> bool {
        let end = self.producer_position().load(Ordering::Acquire);
        let mut at = self.consumer_position().load(Ordering::Relaxed);
        let mut released = at;
        while at < end {
            let Some(header) = self.committed(at) else {
                break;
            };
            let length = u64::from(header & !(BUSY | DISCARDED));
            if header & DISCARDED == 0 {
                on_record(self.record(at, length));
            }
            at += (length + HEADER_BYTES).next_multiple_of(8);
            if at - released >= RELEASE_BYTES {
                released = at;
                self.consumer_position().store(at, Ordering::Release);
            }
        }
        self.consumer_position().store(at, Ordering::Release);
        at >= end
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the page lives as long as self, starts with this position, and is only ever
        // accessed atomically.
        unsafe { AtomicU64::from_ptr(self.consumer.cast()) }
    }

    fn producer_position(&self) -> &AtomicU64 {
        // SAFETY: as above; loads alone are made, so that a read-only mapping suffices.
        unsafe { AtomicU64::from_ptr(self.producer.cast()) }
    }

    fn data(&self, at: u64) -> *mut u8 {
        let offset = self.page + (at as usize & (self.bytes - 1));
        // SAFETY: the offset is within the first copy of the data, which is mapped.
        unsafe { self.producer.cast::<u8>().add(offset) }
    }

    /// The header at a position, once its record is complete.
    fn committed(&self, at: u64) -> Option<u32> {
        // SAFETY: headers are aligned to 8 bytes and the kernel writes them atomically.
        let header = unsafe { AtomicU32::from_ptr(self.data(at).cast()) };
        for _ in 0..BUSY_SPINS {
            let value = header.load(Ordering::Acquire);
            if value & BUSY == 0 {
                return Some(value);
            }
            spin_loop();
        }
        None
    }

    fn record(&self, at: u64, length: u64) -> &[u8] {
        let length = (length as usize).min(self.bytes - HEADER_BYTES as usize);
        // SAFETY: a record is at most the ring's size and starts in the first copy of the data, so
        // it ends within the second; the kernel does not touch it until its space is released.
        unsafe { slice::from_raw_parts(self.data(at).add(HEADER_BYTES as usize), length) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: both mappings were made by `map` with these lengths, and no reference is left.
        // Failure would mean that they are not mapped, which leaves nothing to do.
        unsafe {
            let _ = munmap(self.consumer, self.page);
            let _ = munmap(self.producer, self.page + 2 * self.bytes);
        }
    }
}

/// Edge-triggered, because a ring is readable as soon as it holds one record, and the reader is to
/// be woken by watermark only.
fn edge_triggered(map: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let epoll =
        epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("making an epoll descriptor"))?;
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&epoll, map, epoll::EventData::new_u64(0), flags)
        .map_err(failed("watching the ring"))?;
    Ok(epoll)
}

fn failed(what: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |errno| Error::Io {
        what,
        source: errno.into(),
    }
}
