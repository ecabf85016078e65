// SPDX-License-Identifier: Apache-2.0
//! The load of the benchmarks: two threads on one CPU that do nothing but switch, waiting for each other in
//! a read or in an epoll wait.

use rustix::event::epoll;
use rustix::event::epoll::EventFlags;
use rustix::thread::CpuSet;
use std::error::Error;
use std::io::PipeReader;
use std::io::PipeWriter;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Puts this thread on the first CPU, where nothing else gets in between: with real-time priority,
/// other work takes neither its time nor much of its caches.
fn pin() -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(0);
    rustix::thread::sched_setaffinity(None, &set)?;
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let status = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &thread])
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err("chrt (package util-linux) gave no real-time priority".into()),
    }
}

/// Two threads on one CPU that hand a byte to and fro until told to stop.
pub(crate) struct PingPong {
    stop: Arc<AtomicBool>,
    ask: JoinHandle<Result<f64, Failure>>,
    answer: JoinHandle<Result<(), Failure>>,
}

impl PingPong {
    /// Starts it; `polls`: each side asks epoll before it reads.
    pub(crate) fn start(polls: bool) -> Result<PingPong, Failure> {
        let (from_ask, to_answer) = std::io::pipe()?;
        let (from_answer, to_ask) = std::io::pipe()?;
        let (from_ask, from_answer) = (
            Input::new(from_ask, polls)?,
            Input::new(from_answer, polls)?,
        );
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        Ok(PingPong {
            stop,
            ask: std::thread::spawn(move || ask(from_answer, to_answer, &asked)),
            answer: std::thread::spawn(move || answer(from_ask, to_ask)),
        })
    }

    /// Round trips a second.
    pub(crate) fn finish(self) -> Result<f64, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let rate = self.ask.join().map_err(|_| "the asking thread died")??;
        self.answer
            .join()
            .map_err(|_| "the answering thread died")??;
        Ok(rate)
    }
}

/// What a side reads from, and where it waits for it.
struct Input {
    pipe: PipeReader,
    set: Option<OwnedFd>,
}

impl Input {
    fn new(pipe: PipeReader, polls: bool) -> Result<Input, Failure> {
        if !polls {
            return Ok(Input { pipe, set: None });
        }
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&set, &pipe, epoll::EventData::new_u64(0), EventFlags::IN)?;
        Ok(Input {
            pipe,
            set: Some(set),
        })
    }

    /// The next byte; `false`: there are no more.
    fn next(&mut self) -> Result<bool, Failure> {
        if let Some(set) = &self.set {
            let mut events = [epoll::Event {
                flags: EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }];
            epoll::wait(set, &mut events, None)?;
        }
        Ok(self.pipe.read(&mut [0])? == 1)
    }
}

fn ask(mut from: Input, mut to: PipeWriter, stop: &AtomicBool) -> Result<f64, Failure> {
    pin()?;
    let (begun, mut count) = (Instant::now(), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        to.write_all(b"x")?;
        from.next()?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

fn answer(mut from: Input, mut to: PipeWriter) -> Result<(), Failure> {
    pin()?;
    while from.next()? {
        if to.write_all(b"x").is_err() {
            break;
        }
    }
    Ok(())
}
