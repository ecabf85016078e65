// SPDX-License-Identifier: Apache-2.0
//! A multi-threaded Tokio service: tasks move between four workers at every await.
//!
//! No thread runs such a span, so no thread may be named for it. Usage: tokio_service SPANS [bare]

use std::time::Duration;

use lacuna_e2e_programs::run;
use lacuna_e2e_programs::work;
use tracing::Instrument;
use tracing::info_span;

const WORKERS: usize = 4;
const CONCURRENT_REQUESTS: usize = 16;
const SPANS_PER_REQUEST: usize = 2;

fn main() {
    run(|spans| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_time()
            .build()
            .expect("the runtime can be made");
        runtime.block_on(async {
            let clients: Vec<_> = (0..CONCURRENT_REQUESTS)
                .map(|_| tokio::spawn(client(spans / SPANS_PER_REQUEST / CONCURRENT_REQUESTS)))
                .collect();
            for client in clients {
                client.await.expect("no task panicked");
            }
        });
    });
}

/// Sends one request after the other.
async fn client(requests: usize) {
    for number in 0..requests {
        handle(number).instrument(info_span!("request")).await;
    }
}

/// One request: work, a wait, a child with the same, some more work.
async fn handle(number: usize) {
    work(Duration::from_micros(200));
    tokio::time::sleep(Duration::from_millis(1 + number as u64 % 5)).await;
    let query = async {
        work(Duration::from_micros(300));
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    query.instrument(info_span!("request.query")).await;
    tokio::task::yield_now().await;
    work(Duration::from_micros(100));
}
