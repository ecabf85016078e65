// SPDX-License-Identifier: Apache-2.0
//! What the whole agent costs, and how fast it explains: prints figures, asserts none.
//!
//! Run as root on a machine that does nothing else (`make bench`). It starts the release binary as a
//! user would. Throughput is measured in interleaved rounds, so that a machine whose speed drifts
//! slows all states alike; medians are printed. Budgets are in docs/overhead.md. What to measure may be
//! named: `cargo bench --bench agent -- spans`.
#![allow(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// Rounds of the throughput measurement; the median of each state is printed.
const ROUNDS: usize = 7;
/// Round trips of one `perf bench sched pipe`: some seconds' worth of switches.
const PIPE_LOOPS: &str = "200000";
/// Pairs of transfers by iperf3; more than [`ROUNDS`], because loopback is noisier than a pipe.
const TRANSFERS: usize = 24;
/// Seconds of one transfer.
const TRANSFER_SECONDS: &str = "1";
/// The port that iperf3 serves.
const TRANSFER_PORT: &str = "5399";
/// Where the kernel is told to count what programs cost (proc_sys_kernel(5)).
const COUNT_COSTS: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// Spans that are sent to be explained.
const SPANS: usize = 100_000;
/// Spans of one request: the SDKs' default.
const BATCH: usize = 512;
/// How long the agent's own cost is watched.
const COST_WINDOW: Duration = Duration::from_secs(10);
/// Switches a second while that is measured.
const SWITCHES_PER_SECOND: u64 = 20_000;
/// The longest that any one thing may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("not run: the agent loads programs into the kernel and needs root");
        return;
    }
    if is_wanted("pipe") {
        match ["perf", "taskset", "chrt"].into_iter().all(is_installed) {
            true => pipe_throughput(),
            false => println!("throughput not measured: it needs perf, taskset and chrt"),
        }
    }
    if is_wanted("iperf") {
        match ["iperf3", "taskset", "chrt"].into_iter().all(is_installed) {
            true => transfer_throughput(),
            false => println!("transfers not measured: they need iperf3, taskset and chrt"),
        }
    }
    if is_wanted("cost") {
        cost_at_rate();
    }
    if is_wanted("spans") {
        spans_per_second();
    }
}

/// Whether a part is to be measured; without any name all are.
fn is_wanted(part: &str) -> bool {
    let mut names = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'));
    let first = names.next();
    first.is_none_or(|first| first == part || names.any(|name| name == part))
}

/// A running agent; ended when it is dropped.
struct Agent {
    child: Child,
    http_port: u16,
    directory: PathBuf,
}

impl Agent {
    fn start(watch: &str) -> Agent {
        let name = format!(
            "lacuna-bench-{}-{}",
            std::process::id(),
            watch.replace(':', "-")
        );
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a directory for the socket");
        let mut child = Command::new(env!("CARGO_BIN_EXE_lacuna"))
            .args([
                "agent",
                "--otlp-grpc",
                "127.0.0.1:0",
                "--otlp-http",
                "127.0.0.1:0",
            ])
            .args(["--watch", watch, "--api"])
            .arg(format!("unix:{}/api.sock", directory.display()))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let mut http_port = 0;
        let mut lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("listening otlp-http 127.0.0.1:") {
                http_port = address.parse().expect("a port");
            }
            if line.starts_with("listening api") {
                break;
            }
        }
        assert_ne!(http_port, 0, "the agent listens");
        std::thread::spawn(move || lines.for_each(drop));
        Agent {
            child,
            http_port,
            directory,
        }
    }

    /// A number of `/healthz`, by its path.
    fn health(&self, pointer: &str) -> u64 {
        let mut stream = UnixStream::connect(self.directory.join("api.sock")).expect("its API");
        let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("a question");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        body.pointer(pointer)
            .and_then(serde_json::Value::as_u64)
            // A word that has not been counted yet is not there.
            .unwrap_or(0)
    }

    /// CPU time so far, and resident memory.
    fn cost(&self) -> (Duration, u64) {
        let pid = self.child.id();
        let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("/proc");
        let schedstats = std::fs::read_dir(format!("/proc/{pid}/task")).expect("/proc");
        let on_cpu_ns: u64 = schedstats
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum();
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        (Duration::from_nanos(on_cpu_ns), kib.unwrap_or(0))
    }

    /// Runs of its programs in the kernel and what they took, by the kernel's own count, which counts
    /// its two readings of the clock too.
    fn programs(&self) -> (u64, Duration) {
        let directory = format!("/proc/{}/fdinfo", self.child.id());
        // One program may have several descriptors.
        let mut costs = std::collections::BTreeMap::new();
        for file in std::fs::read_dir(directory).expect("/proc").flatten() {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            let field = |name: &str| -> Option<u64> {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                line.trim_start_matches(':').trim().parse().ok()
            };
            if let (Some(id), Some(ns)) = (field("prog_id"), field("run_time_ns")) {
                costs.insert(id, (field("run_cnt").unwrap_or(0), ns));
            }
        }
        let runs = costs.values().map(|(runs, _)| runs).sum();
        let ns = costs.values().map(|(_, ns)| ns).sum();
        (runs, Duration::from_nanos(ns))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn is_installed(program: &str) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// `perf bench sched pipe` on one CPU, with real-time priority, so that other work does not take that
/// CPU from it: round trips a second.
fn pipe() -> f64 {
    let output = Command::new("taskset")
        .args(["-c", "0", "chrt", "--fifo", "1"])
        .args(["perf", "bench", "sched", "pipe", "-l", PIPE_LOOPS])
        .output()
        .expect("perf, taskset and chrt are installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("ops/sec"));
    let number = line.and_then(|line| line.trim().split(' ').next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("perf bench says no rate: {text}"))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Round trips of a pipe with nothing, beside an agent that does not watch them, and watched.
fn pipe_throughput() {
    let states = [
        ("nothing", None),
        ("agent, not watched", Some("comm:nobody")),
        ("agent, watched", Some("all")),
    ];
    let mut rates = vec![Vec::new(); states.len()];
    for _ in 0..ROUNDS {
        for (state, rates) in states.iter().zip(&mut rates) {
            let _agent = state.1.map(Agent::start);
            rates.push(pipe());
        }
    }
    let medians: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
    println!("perf bench sched pipe, one CPU, medians of {ROUNDS} interleaved rounds");
    for ((name, _), rate) in states.iter().zip(&medians) {
        let each_ns = 1e9 / rate / 2.0;
        let added_ns = each_ns - 1e9 / medians[0] / 2.0;
        println!(
            "  {name:20} {rate:9.0} round trips/s   {:5.3} of nothing   {added_ns:6.0} ns more a switch",
            rate / medians[0]
        );
    }
}

/// A transfer by iperf3 over loopback, each end with a CPU and real-time priority: bytes a second.
fn transfer() -> f64 {
    let on = |cpu| {
        let mut command = Command::new("taskset");
        command.args(["-c", cpu, "chrt", "--fifo", "1", "iperf3"]);
        command.args(["-p", TRANSFER_PORT]);
        command
    };
    let mut server = on("1")
        .args(["-s", "-1", "-B", "127.0.0.1", "--forceflush"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("iperf3 is installed");
    let mut lines = BufReader::new(server.stdout.take().expect("its output")).lines();
    lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening")));
    let output = on("0")
        .args(["-c", "127.0.0.1", "-t", TRANSFER_SECONDS, "-J"])
        .output()
        .expect("iperf3 is installed");
    lines.for_each(drop);
    server.wait().expect("iperf3 ends");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    report
        .pointer("/end/sum_received/bits_per_second")
        .and_then(serde_json::Value::as_f64)
        .unwrap_or_else(|| panic!("iperf3 says no rate: {report}"))
        / 8.0
}

/// Transfers beside nothing and beside an agent with everything on that watches somebody else, in
/// turns; then what the programs took meanwhile: if all of it had been on one CPU, that transfers
/// would be slower by at most this, whatever the noise of the machine.
fn transfer_throughput() {
    let mut ratios = Vec::new();
    for round in 0..TRANSFERS {
        let beside = || {
            let _agent = Agent::start("comm:nobody");
            transfer()
        };
        // Neither is always the first, so that a drift of the machine is nobody's.
        ratios.push(match round % 2 {
            0 => 1.0 / transfer() * beside(),
            _ => beside() / transfer(),
        });
    }
    let middle = median(&mut ratios);
    println!(
        "iperf3 over loopback beside an agent that does not watch it, {TRANSFERS} pairs: {middle:.3} of nothing, quartiles {:.3} and {:.3}",
        ratios[TRANSFERS / 4],
        ratios[TRANSFERS * 3 / 4],
    );
    let agent = Agent::start("comm:nobody");
    let was = std::fs::read(COUNT_COSTS).expect("/proc");
    std::fs::write(COUNT_COSTS, "1").expect("root may");
    let (runs_before, before) = agent.programs();
    let began = Instant::now();
    let rate = transfer();
    let took = began.elapsed();
    let (runs, after) = agent.programs();
    std::fs::write(COUNT_COSTS, was).expect("root may");
    let spent = after - before;
    println!(
        "  {} runs of programs in a transfer of {:.0} MB a second: {spent:.1?} of {took:.1?}, {:.2} % of one CPU",
        runs - runs_before,
        rate / 1e6,
        100.0 * spent.as_secs_f64() / took.as_secs_f64(),
    );
}

/// Two threads that pass a byte to and fro, so often a second; returns when told by the clock.
fn ping_pong(switches_per_second: u64, window: Duration) -> u64 {
    let (mut a_in, mut a_out) = std::io::pipe().expect("a pipe");
    let (mut b_in, mut b_out) = std::io::pipe().expect("a pipe");
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while a_in.read_exact(&mut byte).is_ok() && b_out.write_all(&byte).is_ok() {}
    });
    let began = Instant::now();
    let mut trips = 0;
    while began.elapsed() < window {
        // Two waits a trip, each one switch out and one in.
        let due = began.elapsed().as_micros() as u64 * switches_per_second / 2_000_000;
        if trips >= due {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let mut byte = [1];
        a_out.write_all(&byte).expect("a pipe");
        b_in.read_exact(&mut byte).expect("a pipe");
        trips += 1;
    }
    drop(a_out);
    echo.join().expect("the echo ends");
    trips
}

/// The agent's own CPU time and memory while it watches so many switches a second.
fn cost_at_rate() {
    let agent = Agent::start("all");
    ping_pong(SWITCHES_PER_SECOND, Duration::from_secs(2));
    let (before, _) = agent.cost();
    let records_before = agent.health("/recorder/records_in");
    let began = Instant::now();
    ping_pong(SWITCHES_PER_SECOND, COST_WINDOW);
    let window = began.elapsed();
    let (after, kib) = agent.cost();
    let records = agent.health("/recorder/records_in") - records_before;
    println!(
        "agent at {:.0} records a second",
        records as f64 / window.as_secs_f64()
    );
    println!(
        "  {:.2} % of one CPU, {:.0} MiB resident, {} records lost",
        100.0 * (after - before).as_secs_f64() / window.as_secs_f64(),
        kib as f64 / 1024.0,
        agent.health("/lost_records"),
    );
}

fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock behind 1970").as_nanos() as u64
}

/// Requests with real spans of this thread: each waits a little.
fn requests() -> Vec<Vec<u8>> {
    let mut next = 1_u64;
    let mut requests = Vec::new();
    while requests.len() * BATCH < SPANS {
        let spans = (0..BATCH)
            .map(|_| {
                next += 1;
                let start_time_unix_nano = unix_ns();
                std::thread::sleep(Duration::from_nanos(1));
                Span {
                    trace_id: u128::from(next).to_be_bytes().to_vec(),
                    span_id: next.to_be_bytes().to_vec(),
                    name: "bench".to_owned(),
                    start_time_unix_nano,
                    end_time_unix_nano: unix_ns(),
                    ..Span::default()
                }
            })
            .collect();
        let scope_spans = vec![ScopeSpans {
            spans,
            ..ScopeSpans::default()
        }];
        let resource_spans = vec![ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        }];
        requests.push(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
    }
    requests
}

/// From the first request to the last answer.
fn spans_per_second() {
    let agent = Agent::start("all");
    let requests = requests();
    let wanted = (requests.len() * BATCH) as u64;
    let mut stream = TcpStream::connect(("127.0.0.1", agent.http_port)).expect("its OTLP port");
    // As every exporter has it: else each request waits 40 ms for the receiver's delayed acknowledgement.
    stream.set_nodelay(true).expect("an option of TCP");
    let (cpu_before, _) = agent.cost();
    let began = Instant::now();
    for body in &requests {
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("a request");
        stream.write_all(body).expect("a request");
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).expect("an answer");
        assert!(
            answer[..length].starts_with(b"HTTP/1.1 200"),
            "the spans are taken"
        );
    }
    while agent.health("/spans/answered") < wanted && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = began.elapsed();
    let answered = agent.health("/spans/answered");
    let cpu = agent.cost().0 - cpu_before;
    println!("{answered} of {wanted} spans explained in {took:.2?}");
    println!(
        "  {:.0} spans a second; {:.1} microseconds of the agent's CPU a span, so {:.0} a second on one core",
        answered as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / answered as f64,
        answered as f64 / cpu.as_secs_f64(),
    );
    println!(
        "  joins: {} to a thread, violations: {}",
        agent.health("/joins/single-thread") + agent.health("/joins/timestamps"),
        agent.health("/violations"),
    );
}
