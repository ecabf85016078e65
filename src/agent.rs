// SPDX-License-Identifier: Apache-2.0
//! `lacuna agent`: the always-on service.
//!
//! Everything that can fail at the start fails there, with a message that says what is missing:
//! settings, listeners, probes. Then each thread gives up the privilege that it does not need, and
//! from there on what goes wrong is counted. A thread that ends or panics ends the agent: each of
//! them carries the whole.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use lacuna_host::Root;
use lacuna_host::caps::Capabilities;
use lacuna_host::caps::Capability;
use lacuna_host::caps::keep_only;
use lacuna_probes::Config;
use lacuna_timeline::recorder::BUDGET_BYTES;
use lacuna_timeline::recorder::Recorder;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::api;
use crate::cli::Address;
use crate::cli::AgentArgs;
use crate::cli::AgentSettings;
use crate::cli::EXIT_GOOD;
use crate::engine::Door;
use crate::engine::Explainer;
use crate::engine::Feed;
use crate::engine::Shared;
use crate::engine::Watcher;
use crate::otlp;
use crate::serve;
use crate::serve::Bound;
use crate::serve::Limits;
use crate::serve::Protocol;

/// Threads that decode requests: OTLP of the budget's 50,000 spans a second takes part of one.
const SERVE_THREADS: usize = 2;

/// How often the clocks are read; a clock that is set wakes the reader at once.
const CLOCK_EVERY: Duration = Duration::from_secs(1);

/// Questions that wait for the explainer; one more waits at its connection.
const ASKS_MAX: usize = 64;

/// What the feed needs after the probes are loaded: to read programs' counters and the iterator,
/// and other users' `/proc` for selectors.
const FEED_CAPABILITIES: [Capability; 5] = [
    Capability::Bpf,
    Capability::Perfmon,
    Capability::SysPtrace,
    Capability::DacReadSearch,
    Capability::Syslog,
];

/// The same where the first two are not there, as doctor allows: before 5.19 the kernel lets nobody
/// else near BPF at all who has neither them nor this.
const FEED_CAPABILITIES_OF_ADMIN: [Capability; 4] = [
    Capability::SysAdmin,
    Capability::SysPtrace,
    Capability::DacReadSearch,
    Capability::Syslog,
];

/// What the explainer needs: to find the owner of a connection among other users' processes.
const EXPLAINER_CAPABILITIES: [Capability; 2] = [Capability::SysPtrace, Capability::DacReadSearch];

/// The listeners, open and not yet served.
struct Listeners {
    grpc: Bound,
    http: Bound,
    api: Bound,
}

/// Runs the agent until it is told to end.
///
/// # Errors
/// It cannot start, or one of its threads failed.
pub(crate) fn run(args: AgentArgs) -> Result<ExitCode> {
    let settings = args.settings()?;
    let listeners = Listeners {
        grpc: serve::bind(&settings.otlp_grpc, "--otlp-grpc")?,
        http: serve::bind(&settings.otlp_http, "--otlp-http")?,
        api: serve::bind(&settings.api, "--api")?,
    };
    let root = Root::host();
    let shared = Arc::new(Shared::new(&root, Recorder::new(BUDGET_BYTES))?);
    let watcher = Watcher::new(&root, settings.watch.clone(), settings.record_budget.into());
    let config = Config {
        watch: watcher.scope(),
        ignore_tgid: Some(std::process::id()),
        otlp_ports: ports(&listeners),
        ..Config::default()
    };
    let mut feed = Feed::load(&config, watcher, shared.clone())?;
    feed.confirm(&mut |_| {})?;
    serve_until_told(&settings, listeners, feed, &root, shared)
}

fn ports(listeners: &Listeners) -> Vec<u16> {
    [&listeners.grpc, &listeners.http]
        .into_iter()
        .filter_map(|bound| match bound.address() {
            Address::Tcp { port, .. } => Some(*port),
            Address::Unix(_) => None,
        })
        .collect()
}

fn serve_until_told(
    settings: &AgentSettings,
    listeners: Listeners,
    mut feed: Feed,
    root: &Root,
    shared: Arc<Shared>,
) -> Result<ExitCode> {
    let (sink, batches) = otlp::queue();
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let (changed, changes) = watch::channel(0);
    let spans = Arc::new(Mutex::new(crate::engine::Spans::default()));
    let ready = Arc::new(AtomicBool::new(false));
    let counters = Arc::new(otlp::OtlpCounters::default());
    let door = Arc::new(Door::new(
        shared.clone(),
        counters.clone(),
        spans.clone(),
        asks,
        changes,
        ready.clone(),
    ));
    let explainer = Explainer::new(root, shared.clone(), spans, changed);
    let stop = Arc::new(AtomicBool::new(false));
    let (ended, mut endings) = mpsc::channel(8);
    let threads = Threads { ended };

    let feed_stops = stop.clone();
    threads.start("lacuna-feed", feed_capabilities()?, move || {
        while !feed_stops.load(Ordering::Relaxed) {
            feed.turn(&mut |_| {})?;
        }
        Ok(())
    })?;
    threads.start("lacuna-explain", &EXPLAINER_CAPABILITIES, move || {
        explainer.run(batches, asked)
    })?;
    let (clock_shared, clock_stops) = (shared, stop.clone());
    threads.start("lacuna-clock", &[], move || {
        while !clock_stops.load(Ordering::Relaxed) {
            clock_shared.clock.wait(CLOCK_EVERY)?;
        }
        Ok(())
    })?;

    let runtime = serve::runtime(SERVE_THREADS, give_up_privilege)?;
    let told = runtime.block_on(async {
        start_servers(settings, listeners, sink, counters, door)?;
        ready.store(true, Ordering::Release);
        wait_for_end(&mut endings).await
    });
    stop.store(true, Ordering::Relaxed);
    // Ends the servers, and with them the API's socket file.
    runtime.shutdown_timeout(Duration::from_secs(1));
    told.map(|()| ExitCode::from(EXIT_GOOD))
}

/// Those of the feed that this process has.
fn feed_capabilities() -> Result<&'static [Capability]> {
    let has = Capabilities::of_this_thread().context("cannot read the own capabilities")?;
    let missing = has.missing(&[Capability::Bpf, Capability::Perfmon]);
    Ok(match missing.as_slice() {
        [] => &FEED_CAPABILITIES,
        _ => &FEED_CAPABILITIES_OF_ADMIN,
    })
}

/// Starts threads, and hears of their ends.
struct Threads {
    ended: mpsc::Sender<Result<()>>,
}

impl Threads {
    fn start(
        &self,
        name: &'static str,
        kept: &'static [Capability],
        body: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let ended = self.ended.clone();
        let whole = move || {
            let work = std::panic::AssertUnwindSafe(|| {
                keep_only(kept).context("cannot give up privilege")?;
                body()
            });
            let result = std::panic::catch_unwind(work)
                .unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")));
            // Nobody listens any more only when the agent ends anyway.
            let _ = ended.blocking_send(result.with_context(|| format!("thread {name}")));
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(whole)
            .with_context(|| format!("cannot start thread {name}"))?;
        Ok(())
    }
}

/// On each thread that reads what strangers send.
fn give_up_privilege() {
    if let Err(error) = keep_only(&[]) {
        eprintln!("lacuna: cannot give up privilege: {error}");
        std::process::abort();
    }
}

fn start_servers(
    settings: &AgentSettings,
    listeners: Listeners,
    sink: otlp::Sink,
    counters: Arc<otlp::OtlpCounters>,
    door: Arc<Door>,
) -> Result<()> {
    let receiver = otlp::Receiver::new(sink, counters.clone());
    let api_counters = Arc::default();
    let servers = [
        (
            "otlp-grpc",
            listeners.grpc,
            receiver.grpc(),
            Protocol::Http2,
            Limits::default(),
            counters.connections(otlp::Transport::Grpc).clone(),
        ),
        (
            "otlp-http",
            listeners.http,
            receiver.http(),
            Protocol::Http1,
            Limits::default(),
            counters.connections(otlp::Transport::Http).clone(),
        ),
        (
            "api",
            listeners.api,
            api::router(door, &settings.api),
            Protocol::Http1,
            api::LIMITS,
            api_counters,
        ),
    ];
    for (name, bound, router, protocol, limits, counters) in servers {
        eprintln!("listening {name} {}", bound.address());
        tokio::spawn(async move {
            let Err(error) = serve::serve(bound, router, protocol, limits, counters).await;
            eprintln!("lacuna: cannot serve {name}: {error}");
            std::process::abort();
        });
    }
    Ok(())
}

/// Until a signal asks for the end, or a thread has ended.
async fn wait_for_end(endings: &mut mpsc::Receiver<Result<()>>) -> Result<()> {
    use tokio::signal::unix::SignalKind;
    use tokio::signal::unix::signal;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        ended = endings.recv() => match ended {
            Some(Err(error)) => Err(error),
            Some(Ok(())) | None => Err(anyhow::anyhow!("a thread of the agent ended")),
        },
    }
}
