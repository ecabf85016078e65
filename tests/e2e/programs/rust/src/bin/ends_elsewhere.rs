// SPDX-License-Identifier: Apache-2.0
//! Spans that start on one thread and end on another, beside a helper that is nearly always on a
//! CPU: the helper is the sole candidate for most of them and runs none.
//!
//! The threads have names of their own, so that a `thread.name` on a span, which is that of the thread
//! where it began, looks like an answer. Usage: ends_elsewhere SPANS [bare]

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::thread::JoinHandle;
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
                .map(|number| {
                    named(format!("lane-{number}"), move || {
                        lane(number, spans / LANES)
                    })
                })
                .collect();
            for lane in lanes {
                lane.join().expect("no lane panicked");
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}

/// A thread with a name.
fn named(name: String, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new()
        .name(name)
        .spawn(body)
        .expect("a thread can be made")
}

/// Is on a CPU about 72 % of the time.
fn helper(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        work(Duration::from_micros(3600));
        thread::sleep(Duration::from_micros(1400));
    }
}

/// One thread starts spans, a second one ends them.
fn lane(number: usize, spans: usize) {
    let (sender, receiver) = mpsc::channel::<Span>();
    let finisher = named(format!("finisher-{number}"), move || {
        for span in receiver {
            // The end time is that of the last exit.
            span.in_scope(|| {
                work(Duration::from_micros(200));
                thread::sleep(Duration::from_millis(1));
            });
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
