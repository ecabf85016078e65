// SPDX-License-Identifier: Apache-2.0
//! The sample programs: how each is started, and where it writes its truth.
//!
//! They are ordinary users of the stock OpenTelemetry SDKs and know nothing of Lacuna but the
//! standard environment. `scripts/programs` builds them.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::process::Process;

/// How long a program may take to come up or to end its work.
const PATIENCE: Duration = Duration::from_secs(90);

/// Which OTLP transport a program exports over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Transport {
    /// gRPC.
    Grpc,
    /// HTTP with protobuf.
    Http,
}

/// Where a program sends its spans.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    /// How.
    pub(crate) transport: Transport,
    /// A port on this host.
    pub(crate) port: u16,
}

/// A sample program, by how it is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Program {
    /// `programs/python/NAME.py`, auto-instrumented.
    Python(&'static str),
    /// `programs/rust/src/bin/NAME.rs`.
    Rust(&'static str),
    /// `programs/java/NAME.java`, which exports its spans itself.
    Java(&'static str),
    /// The service of the demo, auto-instrumented.
    Flask,
}

/// A running sample program.
pub(crate) struct Running {
    /// The process itself.
    pub(crate) process: Process,
    /// The file that it writes its truth to.
    pub(crate) truth: PathBuf,
}

/// How to start a program.
pub(crate) struct Start<'a> {
    /// Which.
    pub(crate) program: Program,
    /// What its command line says after its name.
    pub(crate) arguments: &'a [&'a str],
    /// What it calls itself.
    pub(crate) service: &'a str,
    /// Where its spans go.
    pub(crate) to: Endpoint,
    /// Where its truth goes.
    pub(crate) directory: &'a Path,
    /// More of its environment.
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

/// Starts a program.
pub(crate) fn start(how: &Start<'_>) -> Running {
    let Start {
        program,
        service,
        to,
        ..
    } = *how;
    let truth = how.directory.join(format!("{service}.truth"));
    let mut command = command(program);
    command
        .args(how.arguments)
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://127.0.0.1:{}", to.port),
        )
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol(to.transport))
        .env("OTEL_SERVICE_NAME", service)
        // Only traces are looked at, soon, and every one of them.
        .env("OTEL_METRICS_EXPORTER", "none")
        .env("OTEL_LOGS_EXPORTER", "none")
        .env("OTEL_BSP_SCHEDULE_DELAY", "1000")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "65536")
        .env("PYTHONUNBUFFERED", "1")
        .env("TRUTH_FILE", &truth)
        .envs(how.environment.iter().copied());
    Running {
        process: Process::start(service, command),
        truth,
    }
}

impl Running {
    /// Waits until it has ended its work and flushed its spans.
    pub(crate) fn wait_until_done(&self) {
        self.process.wait_for_line("done", PATIENCE);
    }

    /// The port that a Flask service has chosen.
    pub(crate) fn wait_for_port(&self) -> u16 {
        let line = self
            .process
            .wait_for_line("Running on http://127.0.0.1:", PATIENCE);
        let port = line.rsplit(':').next().unwrap_or_default().trim();
        port.parse()
            .unwrap_or_else(|_| panic!("no port in: {line}"))
    }
}

/// A path in the repository, which must exist.
pub(crate) fn repository(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(
        path.exists(),
        "{} is missing: run scripts/programs",
        path.display()
    );
    path
}

/// The collector from PyPI; it forwards over gRPC to `to` what it gets at `at`.
pub(crate) fn start_collector(at: Endpoint, spare_port: u16, to: Endpoint, log: &Path) -> Process {
    let (grpc_port, http_port) = match at.transport {
        Transport::Grpc => (at.port, spare_port),
        Transport::Http => (spare_port, at.port),
    };
    let script = "import rotel, os, sys; \
        path = os.path.join(os.path.dirname(rotel.__file__), 'rotel-agent'); \
        os.execv(path, [path] + sys.argv[1:])";
    let mut command = Command::new(repository(".cache/venv/bin/python"));
    command
        .args(["-c", script, "start", "--exporter", "otlp"])
        .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc_port}")])
        .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http_port}")])
        .args([
            "--otlp-exporter-endpoint",
            &format!("http://127.0.0.1:{}", to.port),
        ])
        .args(["--otlp-exporter-protocol", "grpc"])
        .args(["--pid-file".as_ref(), log.with_extension("pid").as_os_str()])
        .args(["--log-file".as_ref(), log.as_os_str()]);
    let collector = Process::start("collector", command);
    collector.wait_for_listener(at.port);
    collector
}

/// A proxy from one port of this host to another.
pub(crate) fn start_relay(from_port: u16, to_port: u16) -> Process {
    let mut command = command(Program::Rust("relay"));
    command.args([from_port, to_port].map(|port| port.to_string()));
    let relay = Process::start("relay", command);
    relay.wait_for_listener(from_port);
    relay
}

/// One of the CPU hogs of the demo; its name in the kernel is `backup`.
pub(crate) fn start_hog() -> Process {
    Process::start("backup", Command::new(repository("demo/backup")))
}

/// A program with a real-time priority: its neighbours keep no CPU from it, else they would be the answer;
/// and when it is woken, it lets another such program finish what that is at.
pub(crate) fn undisturbed(program: &Path) -> Command {
    let mut command = Command::new("chrt");
    command.args(["--fifo", "1"]).arg(program);
    command
}

fn command(program: Program) -> Command {
    match program {
        Program::Rust(name) => Command::new(repository("target/programs/release").join(name)),
        Program::Python(name) => python(&format!("tests/e2e/programs/python/{name}.py")),
        Program::Java(name) => {
            // Its threads wait for each other: one that waits for a CPU would be one more link.
            let mut command = undisturbed(Path::new("java"));
            command.arg("-cp").arg(repository("target/programs/java"));
            command.arg(name);
            command
        }
        Program::Flask => python("demo/app.py"),
    }
}

fn python(script: &str) -> Command {
    let mut command = Command::new(repository(".cache/venv/bin/opentelemetry-instrument"));
    command
        .arg(repository(".cache/venv/bin/python"))
        .arg(repository("tests/e2e/programs/python/with_truth.py"))
        .arg(repository(script));
    command
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Grpc => "grpc",
        Transport::Http => "http/protobuf",
    }
}
