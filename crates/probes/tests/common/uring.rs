// SPDX-License-Identifier: Apache-2.0
//! A ring of io_uring by its system calls alone, for one thread: what is asked of it, and waits for what it
//! completes, as the waiting thread sees them.

use super::now;
use super::polling::Wait;
use super::polling::timespec;
use rustix::event::Timespec;
use rustix::fd::AsFd;
use rustix::fd::AsRawFd;
use rustix::fd::BorrowedFd;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::io_uring::IoringEnterFlags;
use rustix::io_uring::IoringOp;
use rustix::io_uring::IoringPollFlags;
use rustix::io_uring::IoringRegisterOp;
use rustix::io_uring::IoringSetupFlags;
use rustix::io_uring::io_uring_cqe;
use rustix::io_uring::io_uring_enter;
use rustix::io_uring::io_uring_enter_arg;
use rustix::io_uring::io_uring_getevents_arg;
use rustix::io_uring::io_uring_params;
use rustix::io_uring::io_uring_ptr;
use rustix::io_uring::io_uring_register;
use rustix::io_uring::io_uring_rsrc_update;
use rustix::io_uring::io_uring_setup;
use rustix::io_uring::io_uring_sqe;
use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;
use rustix::mm::mmap;
use rustix::mm::munmap;
use std::ffi::c_void;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Requests that can be asked before they are taken.
const ENTRIES: u32 = 16;
/// include/uapi/linux/io_uring.h: what of a ring is mapped.
const OFF_RINGS: u64 = 0;
const OFF_REQUESTS: u64 = 0x1000_0000;
/// Of the mapped rings: all of them fit.
const RINGS_BYTES: usize = 4096;
const REQUESTS_BYTES: usize = ENTRIES as usize * size_of::<io_uring_sqe>();
/// How long the queue's own thread looks for requests before it sleeps.
const POLLS_MS: u32 = 1;
/// Asks for the first free place in the table of rings.
const ANY_PLACE: u32 = u32::MAX;

/// What a request reads to or writes from, as direct I/O wants it.
#[derive(Clone, Copy)]
#[repr(align(4096))]
struct Page([u8; 4096]);

/// What has been completed.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub place: usize,
    pub result: i32,
    /// More of the same request will come.
    pub more: bool,
}

pub struct Ring {
    fd: OwnedFd,
    params: io_uring_params,
    rings: *mut c_void,
    requests: *mut io_uring_sqe,
    asked: u32,
    registered: Option<u32>,
    pages: Box<[Page; ENTRIES as usize]>,
    time: Box<Timespec>,
}

/// Ways to set up a ring in which work of a request is done by the thread itself: whenever it is in the
/// kernel, without being interrupted for it, and only where it waits. Those that the kernel has.
pub fn setups() -> Vec<IoringSetupFlags> {
    let deferred = IoringSetupFlags::SINGLE_ISSUER | IoringSetupFlags::DEFER_TASKRUN;
    let all = [
        IoringSetupFlags::empty(),
        IoringSetupFlags::COOP_TASKRUN,
        deferred,
    ];
    let has = |setup: &IoringSetupFlags| Ring::try_new(*setup).is_some();
    let setups: Vec<IoringSetupFlags> = all.into_iter().filter(has).collect();
    assert!(setups.contains(&IoringSetupFlags::empty()));
    setups
}

/// A request on a file; `place` is what its completion is known by.
fn request(op: IoringOp, fd: impl AsFd, place: usize) -> io_uring_sqe {
    let mut sqe = io_uring_sqe {
        opcode: op,
        fd: fd.as_fd().as_raw_fd(),
        ..io_uring_sqe::default()
    };
    sqe.user_data.u64_ = place as u64;
    sqe
}

impl Ring {
    #[track_caller]
    pub fn new(setup: IoringSetupFlags) -> Ring {
        Ring::try_new(setup).expect("the kernel has such rings")
    }

    fn try_new(setup: IoringSetupFlags) -> Option<Ring> {
        let mut params = io_uring_params::default();
        params.flags = setup;
        params.sq_thread_idle = POLLS_MS;
        // SAFETY: the parameters are valid, and no memory of ours is given.
        let fd = match unsafe { io_uring_setup(ENTRIES, &mut params) } {
            Err(Errno::INVAL) => return None,
            made => made.unwrap(),
        };
        let map = |bytes, offset| {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping at a place that the kernel chooses.
            let made = unsafe {
                mmap(
                    std::ptr::null_mut(),
                    bytes,
                    access,
                    MapFlags::SHARED,
                    &fd,
                    offset,
                )
            };
            made.unwrap()
        };
        Some(Ring {
            rings: map(RINGS_BYTES, OFF_RINGS),
            requests: map(REQUESTS_BYTES, OFF_REQUESTS).cast(),
            fd,
            params,
            asked: 0,
            registered: None,
            pages: Box::new([Page([0; 4096]); ENTRIES as usize]),
            time: Box::new(timespec(Duration::ZERO)),
        })
    }

    /// Has the thread name the ring by a number of its own instead of its descriptor. Whether it can: the kernel
    /// may not know of that.
    pub fn register(&mut self) -> bool {
        let mut asked = io_uring_rsrc_update::default();
        asked.offset = ANY_PLACE;
        asked.data = io_uring_ptr::new(self.fd.as_raw_fd() as *mut c_void);
        let at: *mut io_uring_rsrc_update = &mut asked;
        // SAFETY: one valid entry, which the kernel reads and writes during the call.
        let done = unsafe {
            io_uring_register(
                &self.fd,
                IoringRegisterOp::RegisterRingFds,
                at.cast_const().cast(),
                1,
            )
        };
        if done == Err(Errno::INVAL) {
            return false;
        }
        assert_eq!(done.unwrap(), 1);
        self.registered = Some(asked.offset);
        true
    }

    /// A word of the mapped rings.
    fn word(&self, offset: u32) -> &AtomicU32 {
        assert!((offset as usize) < RINGS_BYTES);
        // SAFETY: an aligned word of a mapping that lives as long as the ring.
        unsafe { AtomicU32::from_ptr(self.rings.byte_add(offset as usize).cast()) }
    }

    fn ask(&mut self, request: io_uring_sqe) {
        let off = self.params.sq_off;
        let tail = self.word(off.tail).load(Ordering::Relaxed);
        let place = tail & self.word(off.ring_mask).load(Ordering::Relaxed);
        // SAFETY: within the mapping, and the kernel does not read it before the tail is moved.
        unsafe { self.requests.add(place as usize).write(request) };
        self.word(off.array + place * 4)
            .store(place, Ordering::Relaxed);
        self.word(off.tail).store(tail + 1, Ordering::Release);
        self.asked += 1;
    }

    fn page(&mut self, place: usize) -> io_uring_ptr {
        io_uring_ptr::new(self.pages[place].0.as_mut_ptr().cast())
    }

    /// Asks for readiness, once or again and again.
    pub fn poll(&mut self, place: usize, fd: impl AsFd, events: u16, again: bool) {
        let mut sqe = request(IoringOp::PollAdd, fd, place);
        sqe.op_flags.poll32_events = events.into();
        if again {
            sqe.len.poll_flags = IoringPollFlags::ADD_MULTI;
        }
        self.ask(sqe);
    }

    /// Asks for some of these bytes to be moved: to read, to receive, to write, to send.
    pub fn transfer(&mut self, op: IoringOp, place: usize, fd: impl AsFd, bytes: u32) {
        let mut sqe = request(op, fd, place);
        sqe.addr_or_splice_off_in.addr = self.page(place);
        sqe.len.len = bytes;
        self.ask(sqe);
    }

    /// Asks for bytes at this place of a file.
    pub fn read_at(&mut self, place: usize, fd: impl AsFd, bytes: u32, offset: u64) {
        let mut sqe = request(IoringOp::Read, fd, place);
        sqe.addr_or_splice_off_in.addr = self.page(place);
        sqe.len.len = bytes;
        sqe.off_or_addr2.off = offset;
        self.ask(sqe);
    }

    /// Asks for what takes nothing but the file: to accept, to flush.
    pub fn plain(&mut self, op: IoringOp, place: usize, fd: impl AsFd) {
        self.ask(request(op, fd, place));
    }

    /// Asks for a socket to be connected with what `address` encodes.
    pub fn connect(&mut self, place: usize, fd: impl AsFd, address: &[u8]) {
        let mut sqe = request(IoringOp::Connect, fd, place);
        self.pages[place].0[..address.len()].copy_from_slice(address);
        sqe.addr_or_splice_off_in.addr = self.page(place);
        sqe.off_or_addr2.off = address.len() as u64;
        self.ask(sqe);
    }

    /// Asks for a completion after some time.
    pub fn timeout(&mut self, place: usize, time: Duration) {
        let mut sqe = io_uring_sqe {
            opcode: IoringOp::Timeout,
            fd: -1,
            ..io_uring_sqe::default()
        };
        sqe.user_data.u64_ = place as u64;
        *self.time = timespec(time);
        let at: *mut Timespec = &mut *self.time;
        sqe.addr_or_splice_off_in.addr = io_uring_ptr::new(at.cast());
        sqe.len.len = 1;
        self.ask(sqe);
    }

    /// Hands in what was asked, and sleeps until as many are completed, or the time is over.
    fn enter(&mut self, wanted: u32, time: Option<Duration>) {
        let mut flags = IoringEnterFlags::GETEVENTS;
        if self.params.flags.contains(IoringSetupFlags::SQPOLL) {
            flags |= IoringEnterFlags::SQ_WAKEUP;
        }
        let fd = match self.registered {
            Some(place) => {
                flags |= IoringEnterFlags::REGISTERED_RING;
                // SAFETY: with this flag it is no descriptor, and nothing is done to it but this call.
                unsafe { BorrowedFd::borrow_raw(place as i32) }
            }
            None => self.fd.as_fd(),
        };
        let asked = std::mem::take(&mut self.asked);
        let mut time = time.map(timespec);
        let done = match &mut time {
            Some(time) => {
                let at: *mut Timespec = time;
                let argument = io_uring_getevents_arg {
                    ts: io_uring_ptr::new(at.cast()),
                    ..io_uring_getevents_arg::default()
                };
                let flags = flags | IoringEnterFlags::EXT_ARG;
                // SAFETY: what is asked points to memory of the ring, which outlives it.
                unsafe { io_uring_enter_arg(fd, asked, wanted, flags, Some(&argument)) }
            }
            // SAFETY: the same.
            None => unsafe { io_uring_enter(fd, asked, wanted, flags) },
        };
        assert!(
            matches!(done, Ok(_) | Err(Errno::TIME | Errno::INTR)),
            "{done:?}"
        );
    }

    /// Takes what is completed.
    pub fn completions(&mut self) -> Vec<Completion> {
        const MORE: u32 = 1 << 1;
        let off = self.params.cq_off;
        let mask = self.word(off.ring_mask).load(Ordering::Relaxed);
        let tail = self.word(off.tail).load(Ordering::Acquire);
        let head = self.word(off.head).load(Ordering::Relaxed);
        let one = |at: u32| {
            let offset = off.cqes as usize + (at & mask) as usize * size_of::<io_uring_cqe>();
            // SAFETY: within the mapping, and written whole before the tail was moved past it.
            let entry = unsafe { &*self.rings.byte_add(offset).cast::<io_uring_cqe>() };
            Completion {
                place: entry.user_data.u64_() as usize,
                result: entry.res,
                more: entry.flags.bits() & MORE != 0,
            }
        };
        let mut taken = Vec::new();
        let mut at = head;
        while at != tail {
            taken.push(one(at));
            at = at.wrapping_add(1);
        }
        self.word(off.head).store(tail, Ordering::Release);
        taken
    }

    /// Waits until one is completed, or the time is over: the wait, and what was.
    pub fn wait_for(&mut self, wanted: u32, time: Option<Duration>) -> (Wait, Vec<Completion>) {
        let begun = now();
        let mut taken = Vec::new();
        loop {
            self.enter(wanted - taken.len() as u32, time);
            taken.append(&mut self.completions());
            if taken.len() >= wanted as usize || time.is_some() {
                break;
            }
        }
        let wait = Wait {
            begun,
            ended: now(),
            ready: taken.first().map(|completion| completion.place),
        };
        (wait, taken)
    }

    /// The same for one.
    pub fn wait(&mut self) -> (Wait, Completion) {
        let (wait, taken) = self.wait_for(1, None);
        (wait, taken[0])
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: both were mapped by `try_new`, and nothing borrows them any more.
        unsafe {
            munmap(self.rings, RINGS_BYTES).unwrap();
            munmap(self.requests.cast(), REQUESTS_BYTES).unwrap();
        }
    }
}
