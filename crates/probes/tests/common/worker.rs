// SPDX-License-Identifier: Apache-2.0
//! Threads that do as they are told and are joined when dropped, unless the test has failed.

use rustix::thread::CpuSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// A running thread.
pub struct Worker<T: Send + 'static> {
    pub tid: u32,
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<T>>,
}

/// Says whether to go on.
pub type GoOn<'a> = &'a dyn Fn() -> bool;

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

/// Moves any thread to one CPU.
pub fn pin_thread(tid: u32, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    let tid = rustix::thread::Pid::from_raw(tid as i32);
    rustix::thread::sched_setaffinity(tid, &set).unwrap();
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread with this name, pinned if a CPU is given, and waits until it has a tid.
    pub fn start(
        name: &str,
        cpu: Option<usize>,
        work: impl FnOnce(GoOn<'_>) -> T + Send + 'static,
    ) -> Worker<T> {
        let stop = Arc::new(AtomicBool::new(false));
        let tid = Arc::new(AtomicU32::new(0));
        let (asked, told) = (stop.clone(), tid.clone());
        let run = move || {
            if let Some(cpu) = cpu {
                pin(cpu);
            }
            told.store(
                rustix::thread::gettid().as_raw_nonzero().get() as u32,
                Ordering::Release,
            );
            work(&|| !asked.load(Ordering::Acquire))
        };
        let handle = std::thread::Builder::new()
            .name(name.into())
            .spawn(run)
            .unwrap();
        super::until("the thread to start", || tid.load(Ordering::Acquire) != 0);
        Worker {
            tid: tid.load(Ordering::Acquire),
            stop,
            handle: Some(handle),
        }
    }

    /// Tells it to stop and takes what it made.
    pub fn finish(mut self) -> T {
        self.stop.store(true, Ordering::Release);
        self.handle.take().unwrap().join().unwrap()
    }

    /// Waits for its own end.
    pub fn join(mut self) -> T {
        self.handle.take().unwrap().join().unwrap()
    }
}

impl<T: Send + 'static> Drop for Worker<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // What a failed test's thread sleeps for may never come: the failure must be told all the same.
        if std::thread::panicking() {
            return;
        }
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

/// A thread that does nothing but use its CPU.
pub fn hog(name: &str, cpu: usize) -> Worker<()> {
    Worker::start(name, Some(cpu), |go_on| {
        while go_on() {
            std::hint::spin_loop();
        }
    })
}

/// Uses the CPU for about that long.
pub fn burn(ns: u64) {
    let end = super::now() + ns;
    while super::now() < end {
        std::hint::spin_loop();
    }
}
