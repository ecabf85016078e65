// SPDX-License-Identifier: Apache-2.0
//! What the Rust sample programs share: the stock OpenTelemetry pipeline, and the test's own truth.
//!
//! The truth is which kernel threads touched a span: where it was created, entered and exited (the
//! layer takes the end time at the last exit, not when the span is closed). It goes to the file that `TRUTH_FILE` names and nowhere else; no attribute is added and
//! nothing that is sent changes. Lines are the same as those of `python/with_truth.py`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::fs::File;
use std::io::BufWriter;
use std::io::Read;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use opentelemetry::Context;
use opentelemetry::trace::SpanId;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::Span;
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::SpanProcessor;
use tracing::Subscriber;
use tracing::span::Attributes;
use tracing::span::Id;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

thread_local! {
    /// The threads of the span that this thread is closing: from the layer to the processor.
    static CLOSING: RefCell<BTreeSet<i32>> = const { RefCell::new(BTreeSet::new()) };
}

/// Sends the program's spans over OTLP (to where the standard environment says), writes the truth,
/// runs `program` with the number that the first argument says, and flushes.
///
/// The layer puts `thread.id` (a counter of Rust's own) and `thread.name` on each span unless the
/// second argument is `bare`.
///
/// The process then stays until its standard input closes, so that the test decides how long it
/// lives.
///
/// # Panics
///
/// When the environment or the arguments are not what the test gives: it then shows in the test.
pub fn run(program: impl FnOnce(usize)) {
    let spans = env::args().nth(1).expect("usage: PROGRAM SPANS [bare]");
    let spans = spans.parse().expect("SPANS is a number");
    let bare = env::args()
        .nth(2)
        .is_some_and(|argument| argument == "bare");
    let truth = File::create(env::var("TRUTH_FILE").expect("TRUTH_FILE is set"));
    let truth = Arc::new(Mutex::new(BufWriter::new(
        truth.expect("the file can be made"),
    )));
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .build();
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().build())
        .with_span_processor(TruthProcessor(truth.clone()))
        .with_batch_exporter(exporter.expect("the exporter can be made"))
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("programs"))
        .with_threads(!bare);
    tracing_subscriber::registry()
        .with(TruthLayer)
        .with(layer)
        .init();

    program(spans);

    provider.force_flush().expect("the spans can be sent");
    truth
        .lock()
        .expect("no thread panicked")
        .flush()
        .expect("the truth can be written");
    println!("done");
    let _ended = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Runs on the CPU for about that long.
pub fn work(length: Duration) {
    let until = std::time::Instant::now() + length;
    while std::time::Instant::now() < until {
        std::hint::black_box(0);
    }
}

fn gettid() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Notes every thread that a span is created, entered or exited on.
struct TruthLayer;

impl TruthLayer {
    fn visit<S>(id: &Id, context: &LayerContext<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let span = context.span(id).expect("the registry knows its spans");
        let mut extensions = span.extensions_mut();
        match extensions.get_mut::<BTreeSet<i32>>() {
            Some(tids) => drop(tids.insert(gettid())),
            None => extensions.insert(BTreeSet::from([gettid()])),
        }
    }
}

impl<S> Layer<S> for TruthLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        Self::visit(id, &context);
    }

    fn on_enter(&self, id: &Id, context: LayerContext<'_, S>) {
        Self::visit(id, &context);
    }

    fn on_exit(&self, id: &Id, context: LayerContext<'_, S>) {
        Self::visit(id, &context);
    }

    // This layer is below the OpenTelemetry layer, so it hears of the end first; the processor is
    // then called on this thread, by the other layer.
    fn on_close(&self, id: Id, context: LayerContext<'_, S>) {
        let span = context.span(&id).expect("the registry knows its spans");
        let tids = span
            .extensions_mut()
            .remove::<BTreeSet<i32>>()
            .unwrap_or_default();
        CLOSING.set(tids);
    }
}

/// Writes a line for each span that ends.
#[derive(Debug)]
struct TruthProcessor(Arc<Mutex<BufWriter<File>>>);

impl SpanProcessor for TruthProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let tids = CLOSING.take();
        let tids: Vec<String> = tids.iter().map(i32::to_string).collect();
        let written = writeln!(
            self.0.lock().expect("no thread panicked"),
            "span {} {} {} {} {} {} {}",
            span.span_context.trace_id(),
            span.span_context.span_id(),
            u8::from(span.parent_span_id == SpanId::INVALID),
            unix_ns(span.start_time),
            unix_ns(span.end_time),
            tids.join(","),
            span.name,
        );
        written.expect("the truth can be written");
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn unix_ns(instant: SystemTime) -> u128 {
    instant
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos()
}
