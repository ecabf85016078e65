// SPDX-License-Identifier: Apache-2.0
//! Spans that start on one thread and end on another, beside a helper that is nearly always on a
//! CPU: the helper is the sole candidate for most of them and runs none.
//!
//! Usage: ends_elsewhere SPANS

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lacuna_e2e_programs::run;
use lacuna_e2e_programs::work;
use tracing::Span;
use tracing::info_span;

const LANES: usize = 3;

fn main() {
    run(|spans| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| helper(&stop));
            let lanes: Vec<_> = (0..LANES)
                .map(|_| scope.spawn(move || lane(spans / LANES)))
                .collect();
            for lane in lanes {
                lane.join().expect("no lane panicked");
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}

/// Is on a CPU about 72 % of the time.
fn helper(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        work(Duration::from_micros(3600));
        thread::sleep(Duration::from_micros(1400));
    }
}

/// One thread starts spans, a second one ends them.
fn lane(spans: usize) {
    let (sender, receiver) = mpsc::channel::<Span>();
    let finisher = thread::spawn(move || {
        for span in receiver {
            work(Duration::from_micros(200));
            thread::sleep(Duration::from_millis(1));
            drop(span);
        }
    });
    for number in 0..spans {
        let span = info_span!("handoff");
        span.in_scope(|| work(Duration::from_micros(200)));
        sender.send(span).expect("the finisher lives");
        thread::sleep(Duration::from_micros(2500 + 500 * (number as u64 % 3)));
    }
    drop(sender);
    finisher.join().expect("the finisher did not panic");
}
