// SPDX-License-Identifier: Apache-2.0
//! A thread pool that keeps both CPUs more than half busy: 8 threads, none above half of one CPU.
//! `THREADS` makes it another number, so that the same spans take longer.
//!
//! Each root span has two children, all on the thread that runs the job. Usage: thread_pool SPANS [bare]

use std::env;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use lacuna_e2e_programs::run;
use lacuna_e2e_programs::work;
use tracing::info_span;

const THREADS: usize = 8;
const SPANS_PER_JOB: usize = 3;

fn main() {
    let threads = env::var("THREADS").map_or(THREADS, |text| text.parse().expect("a number"));
    run(|spans| {
        let jobs = AtomicUsize::new(spans / SPANS_PER_JOB);
        let take = || {
            let taken =
                jobs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            taken.ok()
        };
        thread::scope(|scope| {
            for number in 0..threads {
                let worker = move || {
                    while let Some(job) = take() {
                        handle(job);
                    }
                };
                let builder = thread::Builder::new().name(format!("worker-{number}"));
                builder
                    .spawn_scoped(scope, worker)
                    .expect("a thread can be made");
            }
        });
    });
}

/// One job: 0.9 ms on the CPU in about 5 ms, so a thread is on a CPU about a fifth of the time.
fn handle(job: usize) {
    {
        let _root = info_span!("job").entered();
        work(Duration::from_micros(200));
        {
            let _child = info_span!("job.read").entered();
            work(Duration::from_micros(200));
            thread::sleep(Duration::from_micros(500 + 300 * (job as u64 % 7)));
        }
        let _child = info_span!("job.write").entered();
        work(Duration::from_micros(500));
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(1));
}
