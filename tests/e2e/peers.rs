// SPDX-License-Identifier: Apache-2.0
//! Waits for servers of everyday life, unmodified: nginx before a slow upstream, over TLS and with several
//! requests on one connection too, Redis in a script, and Java's pooled HTTP client. The other end is on this host, so the answer must go on into it.
//!
//! Truth is the client's own clock and schedstat, what the servers say of themselves (nginx's access log,
//! the slow log of Redis, the clock of the slow service), and what schedstat says of their threads. A cause
//! is right within 1 % or 1 ms, whichever is larger; a link of a chain is too, or lies between two truths
//! where none covers just its stretch. All other causes together are at most 2 % or 1 ms.

use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::agent::Agent;
use crate::answer::assert_sums;
use crate::answer::cause;
use crate::answer::cause_ns;
use crate::answer::explanation;
use crate::answer::near;
use crate::nginx::Nginx;
use crate::process::Process;
use crate::programs::Program;
use crate::programs::Running;
use crate::programs::Start;
use crate::programs::Transport;
use crate::programs::repository;
use crate::programs::start;
use crate::programs::undisturbed;
use crate::scenario::free_port;
use crate::truth::TrueWait;
use crate::truth::Truth;

/// How often each kind runs with a trifling wait, so that the join learns it.
const WARM_UP: &str = "300";
/// How often each kind then waits for long.
const LONG_WAITS: usize = 5;
/// How long a server may take to come up, or to write a line of its log.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// schedstat may be wrong by as much in one stretch (docs/testing.md).
const TICK_NS: u64 = 4_000_000;
/// nginx's clock has milliseconds, and is read once in each round of its event loop.
const NGINX_CLOCK_NS: u64 = 2_000_000;
/// Causes that are no wait.
const NO_WAIT: [&str; 5] = [
    "cpu",
    "runq.wakeup",
    "runq.preempted",
    "runq.idle",
    "throttle",
];

/// How nginx speaks to its upstream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Upstream {
    /// It keeps its connections.
    Kept,
    /// By its own default: each request has a connection of its own, and is there already as the service
    /// accepts that and reads, so that nobody ever waits for it.
    Anew,
}

/// A client waits for nginx, and that for an upstream that sleeps or computes.
pub(crate) fn check_nginx(upstream: Upstream) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::start(directory.path());
    let service = Service::start();
    let (keep, pass) = match upstream {
        Upstream::Kept => (
            "keepalive 2;",
            "proxy_http_version 1.1; proxy_set_header Connection '';",
        ),
        Upstream::Anew => ("", ""),
    };
    let to = service.port;
    let nginx = Nginx::start(
        directory.path(),
        "",
        &format!("upstream slow {{ server 127.0.0.1:{to}; {keep} }}\n"),
        &format!("location / {{ proxy_pass http://slow; {pass} }}\n"),
    );
    let port = nginx.port.to_string();
    let pid = service.process.pid().to_string();
    let client = start(&Start {
        program: Program::Python("ask_http"),
        arguments: &[&port, &pid, WARM_UP, &LONG_WAITS.to_string()],
        service: "ask-http",
        to: agent.endpoint(Transport::Http),
        directory: directory.path(),
        environment: &[],
    });
    check(&agent, &client, &["sleep", "compute"], |answer, wait| {
        let mut problems = check_wait(answer, wait, &["net.peer"]);
        problems.extend(check_peer(answer, "nginx"));
        let (worker, served_ns) = nginx.served(&wait.span_id);
        let own = service.served(&wait.span_id);
        let chain = chain(answer, "net.peer");
        let least_ns =
            (own.blocked_ns + own.on_cpu_ns + own.queued_ns).saturating_sub(late_ns(wait));
        let at_nginx = least_ns..=served_ns + NGINX_CLOCK_NS;
        problems.extend(check_link(&chain[0], worker, &["net.peer"], at_nginx));
        problems.extend(service.check_link(&chain[1], &own, wait));
        problems
    });
}

/// A client waits for nginx over TLS; another request on the same connection is answered meanwhile. Whose the
/// bytes on it are nobody can see, so all of it is a wait for the peer, and next to nothing anything else.
pub(crate) fn check_http2() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::start(directory.path());
    let services = [Service::start(), Service::start()];
    let [slow, other] = [services[0].port, services[1].port];
    let (certificate, key) = certificate(directory.path());
    let nginx = Nginx::start(
        directory.path(),
        "ssl http2",
        &format!("ssl_certificate {certificate};\nssl_certificate_key {key};\n"),
        &format!(
            "location / {{ proxy_pass http://127.0.0.1:{slow}; }}\n\
             location /other/ {{ proxy_pass http://127.0.0.1:{other}/; }}\n"
        ),
    );
    let port = nginx.port.to_string();
    let pids = services
        .each_ref()
        .map(|service| service.process.pid().to_string());
    let client = start(&Start {
        program: Program::Python("ask_http2"),
        arguments: &[
            &port,
            &certificate,
            &pids.join(","),
            WARM_UP,
            &LONG_WAITS.to_string(),
        ],
        service: "ask-http2",
        to: agent.endpoint(Transport::Http),
        directory: directory.path(),
        environment: &[],
    });
    check(&agent, &client, &["alone", "shared"], |answer, wait| {
        let mut problems = check_wait(answer, wait, &["net.peer"]);
        problems.extend(check_peer(answer, "nginx"));
        let (worker, served_ns) = nginx.served(&wait.span_id);
        let own = services[0].served(&wait.span_id);
        // A wait of its own began with the other request's answer; the chain is that of the longer one.
        let waits = if wait.kind == "shared" { 2 } else { 1 };
        let least_ns = own.blocked_ns.saturating_sub(late_ns(wait)) / waits;
        let at_nginx = least_ns..=served_ns + NGINX_CLOCK_NS;
        problems.extend(check_link(
            &chain(answer, "net.peer")[0],
            worker,
            &["net.peer"],
            at_nginx,
        ));
        let connections = cause(answer, "net.peer").map(|peer| &peer["evidence"]["connections"]);
        let aspects = connections.map(|connections| connections[0]["aspects"].clone());
        let spoke_ns = aspects
            .as_ref()
            .and_then(|aspects| aspects["peer-spoke-last"].as_u64());
        if spoke_ns.is_some() != (wait.kind == "shared") {
            problems.push(format!("{}, and the peer spoke: {aspects:?}", wait.kind));
        }
        problems
    });
}

/// A certificate for this host and its key, made for one run: their files.
fn certificate(directory: &Path) -> (String, String) {
    let [certificate, key] =
        ["certificate.pem", "key.pem"].map(|name| directory.join(name).display().to_string());
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-out", &certificate, "-keyout", &key])
        .output()
        .expect("openssl is installed");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    (certificate, key)
}

/// A client reads a key while the server runs the script of another client.
pub(crate) fn check_redis() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::start(directory.path());
    let (redis, port) = start_redis(directory.path());
    let pid = redis.pid();
    let client = start(&Start {
        program: Program::Python("ask_redis"),
        arguments: &[&port, &pid.to_string(), WARM_UP, &LONG_WAITS.to_string()],
        service: "ask-redis",
        to: agent.endpoint(Transport::Grpc),
        directory: directory.path(),
        environment: &[],
    });
    check(&agent, &client, &["get"], |answer, wait| {
        let mut problems = check_wait(answer, wait, &["net.peer"]);
        problems.extend(check_peer(answer, "redis-server"));
        let [script_ns] = numbers(&client.process, "script", &wait.span_id);
        // The read began after the script and ended with it: none of this is the read's own work.
        if cause_ns(answer, "net.peer") > script_ns + slack_ns(script_ns) {
            problems.push(format!("the script took {script_ns} ns: {answer}"));
        }
        let ran_ns = wait.rivals_ns;
        let on_cpu = ran_ns.saturating_sub(late_ns(wait) + TICK_NS)..=ran_ns;
        let link = &chain(answer, "net.peer")[0];
        problems.extend(check_link(link, pid, &["cpu"], on_cpu));
        problems
    });
}

/// A Java program's thread waits for its HTTP client's threads, and these for the connection.
pub(crate) fn check_java() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::start(directory.path());
    let service = Service::start();
    let client = start(&Start {
        program: Program::Java("AskHttp"),
        arguments: &[&service.port.to_string(), WARM_UP, &LONG_WAITS.to_string()],
        service: "ask-java",
        to: agent.endpoint(Transport::Http),
        directory: directory.path(),
        environment: &[],
    });
    check(&agent, &client, &["ask"], |answer, wait| {
        // Beside the condition there is a mutex of glibc's in each park of the machine.
        let mut problems = check_wait(answer, wait, &["wait.notify", "lock.futex"]);
        let own = service.served(&wait.span_id);
        let chain = chain(answer, "wait.notify");
        let of_client = chain
            .iter()
            .take_while(|link| link["pid"] == client.process.pid());
        let of_client: Vec<&Value> = of_client.collect();
        let (last, first) = of_client
            .split_last()
            .expect("the chain leads into the client");
        let handed_on = first.iter().all(|link| link["cause"] == "wait.notify");
        let of_http = of_client.iter().all(|link| {
            let comm = link["comm"].as_str().unwrap_or("");
            comm.starts_with("HttpClient-")
        });
        if !handed_on || !of_http {
            problems.push(format!("not through the client's threads: {chain:?}"));
        }
        let tid = last["tid"].as_u64().unwrap_or(0) as u32;
        let at_selector = own.blocked_ns.saturating_sub(late_ns(wait))..=wait.wall_ns;
        problems.extend(check_link(last, tid, &["net.peer"], at_selector));
        problems.extend(service.check_link(&chain[of_client.len()], &own, wait));
        problems
    });
}

/// Waits for a client's end and judges each of its long waits.
fn check(
    agent: &Agent,
    client: &Running,
    kinds: &[&str],
    judge: impl Fn(&Value, &TrueWait) -> Vec<String>,
) {
    client.wait_until_done();
    let truth = Truth::read(&client.truth);
    eprintln!("\nkind      truth ms  answer ms  cause");
    let mut problems = Vec::new();
    for kind in kinds {
        // The long ones are the last.
        let waits = truth.waits.iter().rev().filter(|wait| wait.kind == *kind);
        for wait in waits.take(LONG_WAITS) {
            let answer = explanation(agent, wait);
            assert_sums(&answer);
            let tids = &truth.spans[&wait.span_id].tids;
            if answer["join"]["tid"] == tids[0] {
                problems.extend(judge(&answer, wait));
            } else {
                problems.push(format!("ran on {tids:?}, answer {}", answer["join"]));
            }
        }
    }
    let (problems, said) = (problems.join("\n"), agent.tail());
    let counted = agent.get("/healthz").1;
    assert!(
        problems.is_empty(),
        "{problems}\nthe agent counted: {counted}\nand said:\n{said}"
    );
}

/// The wait itself: that much of these causes, and next to nothing of any other.
fn check_wait(answer: &Value, wait: &TrueWait, causes: &[&str]) -> Vec<String> {
    let blocked_ns = wait.wall_ns.saturating_sub(wait.on_cpu_ns + wait.queued_ns);
    let wall_ns = answer["wall_ns"].as_u64().unwrap_or(0);
    // schedstat has called a thread queued for 300 ms whose answer the server was still computing.
    let outside_ns = wall_ns.saturating_sub(wait.wall_ns) + wait.queued_ns;
    let answer_ns: u64 = causes.iter().map(|name| cause_ns(answer, name)).sum();
    let no_wait_ns: u64 = NO_WAIT.iter().map(|name| cause_ns(answer, name)).sum();
    let other_ns = wall_ns.saturating_sub(answer_ns + no_wait_ns);
    let (truth_ms, answer_ms) = (blocked_ns as f64 / 1e6, answer_ns as f64 / 1e6);
    eprintln!(
        "{:<8}{truth_ms:>10.3}{answer_ms:>11.3}  {}",
        wait.kind,
        causes.join(" + ")
    );

    let mut problems = Vec::new();
    if !near(answer_ns, blocked_ns, outside_ns) {
        problems.push(format!(
            "{causes:?} {answer_ms} ms, not {truth_ms} ms: {answer}"
        ));
    }
    if other_ns > (wall_ns / 50).max(1_000_000) {
        problems.push(format!("{other_ns} ns of other causes: {answer}"));
    }
    if cause(answer, "net.retransmit").is_some() {
        problems.push(format!("nothing was lost: {answer}"));
    }
    problems
}

/// The connection that was waited for, and who is at its other end.
fn check_peer(answer: &Value, comm: &str) -> Option<String> {
    let peer = cause(answer, "net.peer")?;
    let culprit = &peer["culprits"][0];
    let right = culprit["kind"] == "connection" && culprit["process"] == comm;
    let is_here = peer["evidence"]["connections"][0]["peer"]["comm"] == comm;
    let right = right && is_here && culprit["tid"] == peer["chain"][0]["tid"];
    (!right).then(|| format!("the peer is not {comm}: {peer}"))
}

/// The links from a cause on, at least two: what is not there is null.
fn chain(answer: &Value, name: &str) -> Vec<Value> {
    let chain = cause(answer, name).and_then(|cause| cause["chain"].as_array());
    let mut links = chain.cloned().unwrap_or_default();
    links.extend([Value::Null, Value::Null]);
    links
}

/// A thread that ended the wait before it, and one of some causes for as long as the truth says.
fn check_link(
    link: &Value,
    tid: u32,
    causes: &[&str],
    truth_ns: RangeInclusive<u64>,
) -> Option<String> {
    let ns = link["ns"].as_u64().unwrap_or(0);
    let (least, most) = truth_ns.into_inner();
    let right = link["tid"] == tid
        && link["how"] == "woke"
        && causes.iter().any(|cause| link["cause"] == *cause)
        && ns + slack_ns(least) >= least
        && ns <= most + slack_ns(most);
    let what = format!("link {causes:?} of {tid}, {least} to {most} ns");
    eprintln!("        {what}: {link}");
    (!right).then(|| format!("{what}, answer {link}"))
}

/// The chain looks at the wait only, and a client that has sent its request may run on, or be kept from its
/// CPU, before it waits.
fn late_ns(wait: &TrueWait) -> u64 {
    wait.on_cpu_ns + wait.queued_ns
}

/// 1 % or 1 ms, whichever is larger.
fn slack_ns(truth_ns: u64) -> u64 {
    (truth_ns / 100).max(1_000_000)
}

/// The numbers of a line `WHAT ID NUMBER...` that a program printed.
fn numbers<const N: usize>(process: &Process, what: &str, id: &str) -> [u64; N] {
    let line = process.wait_for_line(&format!("{what} {id} "), PATIENCE);
    let numbers = line.split(' ').skip(2).filter_map(|word| word.parse().ok());
    let numbers: Vec<u64> = numbers.collect();
    <[u64; N]>::try_from(numbers).unwrap_or_else(|_| panic!("not a line of {what}: {line}"))
}

/// `programs/python/slow_server.py`.
struct Service {
    process: Process,
    port: u16,
}

/// What it did in a request by its own clock and by schedstat.
struct Served {
    blocked_ns: u64,
    on_cpu_ns: u64,
    queued_ns: u64,
}

impl Service {
    fn start() -> Service {
        let mut command = undisturbed(&repository(".cache/venv/bin/python"));
        command.arg(repository("tests/e2e/programs/python/slow_server.py"));
        let process = Process::start("slow-server", command);
        let line = process.wait_for_line("port ", PATIENCE);
        let port = line.rsplit(' ').next().and_then(|port| port.parse().ok());
        Service {
            port: port.expect("it says its port"),
            process,
        }
    }

    fn served(&self, id: &str) -> Served {
        let [blocked_ns, on_cpu_ns, queued_ns] = numbers(&self.process, "served", id);
        Served {
            blocked_ns,
            on_cpu_ns,
            queued_ns,
        }
    }

    /// The last link: what it was asked to do. Of its time on a CPU the truth of the request knows the
    /// least, and that of the client's whole wait the most.
    fn check_link(&self, link: &Value, own: &Served, wait: &TrueWait) -> Option<String> {
        let tid = self.process.pid();
        if wait.kind == "compute" {
            let most_ns = wait.rivals_ns.max(own.on_cpu_ns);
            let least_ns = own.on_cpu_ns.saturating_sub(late_ns(wait));
            return check_link(link, tid, &["cpu"], least_ns..=most_ns);
        }
        let least_ns = own.blocked_ns.saturating_sub(late_ns(wait));
        check_link(link, tid, &["wait.sleep"], least_ns..=own.blocked_ns)
    }
}

/// Redis that keeps nothing; its process, and its port.
fn start_redis(directory: &Path) -> (Process, String) {
    let port = free_port().to_string();
    let mut command = undisturbed(Path::new("redis-server"));
    command
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir"])
        .arg(directory);
    let redis = Process::start("redis-server", command);
    redis.wait_for_line("Ready to accept connections", PATIENCE);
    (redis, port)
}
