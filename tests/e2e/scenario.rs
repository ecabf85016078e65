// SPDX-License-Identifier: Apache-2.0
//! The scenarios of the join: which programs are run, and what must be found of each.
//!
//! A scenario is data; `run` is the same for all of them, whoever receives the spans.

use std::net::TcpListener;
use std::path::Path;
use std::thread;

use crate::http::Address;
use crate::http::request;
use crate::process::Process;
use crate::programs::Endpoint;
use crate::programs::Program;
use crate::programs::Running;
use crate::programs::Start;
use crate::programs::Transport;
use crate::programs::start;
use crate::programs::start_collector;
use crate::programs::start_relay;

/// How many requests a Flask service gets at once.
const CLIENTS: usize = 4;
/// What they ask for, in turn; little work each.
const REQUESTS: [(&str, &str); 4] = [
    ("POST", "/payments?work=1"),
    ("GET", "/statements/acme?work=2"),
    ("POST", "/settlements?work=1"),
    ("POST", "/transfers?work=1"),
];

/// What must be found of a program's spans.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Expected {
    /// At least this share of the root spans is joined to its thread, once the kind is learned.
    Joined(f64),
    /// Every span is refused: `process`.
    Refused,
    /// Not even the process is known: `none`.
    Nobody,
}

/// What stands between a program and the receiver, and owns the connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behind {
    /// Nothing.
    Nothing,
    /// A collector.
    Collector,
    /// A proxy that passes on what it gets as it is.
    Relay,
}

/// One program, run once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// What it calls itself.
    pub(crate) service: &'static str,
    program: Program,
    /// About how many spans it makes.
    spans: usize,
    /// Without the thread attributes that its SDK puts on spans.
    bare: bool,
    /// How many threads a thread pool has, where not its own number.
    threads: Option<&'static str>,
    transport: Transport,
    /// What stands between it and the receiver.
    behind: Behind,
    /// Its resource says `process.pid`.
    claims_pid: bool,
    /// What must be found.
    pub(crate) expected: Expected,
}

const DIRECT: Scenario = Scenario {
    service: "",
    program: Program::Flask,
    spans: 0,
    bare: false,
    threads: None,
    transport: Transport::Http,
    behind: Behind::Nothing,
    claims_pid: false,
    expected: Expected::Nobody,
};

/// Every scenario; together well over 20,000 spans.
pub(crate) const SCENARIOS: [Scenario; 15] = [
    Scenario {
        service: "flask",
        spans: 4_000,
        transport: Transport::Grpc,
        expected: Expected::Joined(0.99),
        ..DIRECT
    },
    Scenario {
        service: "flask-http",
        spans: 1_600,
        expected: Expected::Joined(0.99),
        ..DIRECT
    },
    Scenario {
        service: "thread-pool",
        program: Program::Rust("thread_pool"),
        spans: 9_000,
        bare: true,
        expected: Expected::Joined(0.99),
        ..DIRECT
    },
    Scenario {
        service: "thread-pool-named",
        program: Program::Rust("thread_pool"),
        spans: 3_000,
        expected: Expected::Joined(0.99),
        ..DIRECT
    },
    Scenario {
        service: "asyncio",
        program: Program::Python("asyncio_service"),
        spans: 4_000,
        transport: Transport::Grpc,
        expected: Expected::Joined(0.99),
        ..DIRECT
    },
    Scenario {
        service: "helper",
        program: Program::Python("helper_service"),
        spans: 2_500,
        expected: Expected::Joined(0.95),
        ..DIRECT
    },
    Scenario {
        // Its spans name their peers' ports: that this is borne out takes the first 4,000.
        service: "keep-alive",
        program: Program::Python("keep_alive"),
        spans: 8_000,
        expected: Expected::Joined(0.99),
        ..DIRECT
    },
    Scenario {
        service: "tokio",
        program: Program::Rust("tokio_service"),
        spans: 4_000,
        expected: Expected::Refused,
        ..DIRECT
    },
    Scenario {
        service: "ends-elsewhere",
        program: Program::Rust("ends_elsewhere"),
        spans: 2_000,
        bare: true,
        expected: Expected::Refused,
        ..DIRECT
    },
    Scenario {
        service: "ends-elsewhere-named",
        program: Program::Rust("ends_elsewhere"),
        spans: 2_000,
        expected: Expected::Refused,
        ..DIRECT
    },
    Scenario {
        service: "biased-clock",
        program: Program::Python("biased_clock"),
        spans: 1_500,
        transport: Transport::Grpc,
        expected: Expected::Refused,
        ..DIRECT
    },
    Scenario {
        service: "collected",
        spans: 800,
        transport: Transport::Grpc,
        behind: Behind::Collector,
        expected: Expected::Nobody,
        ..DIRECT
    },
    Scenario {
        // The collector is a native program too: nothing in the resource contradicts that it made them.
        service: "collected-native",
        program: Program::Rust("thread_pool"),
        spans: 1_500,
        behind: Behind::Collector,
        expected: Expected::Nobody,
        ..DIRECT
    },
    Scenario {
        // The requests are its exporter's own: only that the proxy was on no CPU when these spans
        // started and ended tells that it did not make them. That takes 200 looks, each 10 ms
        // after the last, and two seconds: few threads, so that the program lives long enough.
        service: "relayed-native",
        program: Program::Rust("thread_pool"),
        spans: 8_000,
        threads: Some("2"),
        behind: Behind::Relay,
        expected: Expected::Nobody,
        ..DIRECT
    },
    Scenario {
        service: "collected-with-pid",
        spans: 1_600,
        transport: Transport::Grpc,
        behind: Behind::Collector,
        claims_pid: true,
        expected: Expected::Joined(0.99),
        ..DIRECT
    },
];

/// A scenario whose program has done its work and still lives.
pub(crate) struct Done {
    /// The program.
    pub(crate) running: Running,
    _between: Option<Process>,
}

impl Scenario {
    /// Whoever receives its spans must listen there.
    pub(crate) fn receiver_transport(&self) -> Transport {
        // The collector forwards over gRPC, whatever it was given.
        match self.behind {
            Behind::Collector => Transport::Grpc,
            Behind::Nothing | Behind::Relay => self.transport,
        }
    }

    /// Runs the program to its end; at most `spans_max` spans, which go to `receiver`.
    pub(crate) fn run(&self, receiver: Endpoint, directory: &Path, spans_max: usize) -> Done {
        let spans = self.spans.min(spans_max);
        let at = Endpoint {
            transport: self.transport,
            port: free_port(),
        };
        let (between, to) = match self.behind {
            Behind::Nothing => (None, receiver),
            Behind::Collector => {
                let log = directory.join(format!("{}.log", self.service));
                let collector = start_collector(at, free_port(), receiver, &log);
                (Some(collector), at)
            }
            Behind::Relay => (Some(start_relay(at.port, receiver.port)), at),
        };
        let detectors = if self.claims_pid {
            "otel,process"
        } else {
            "otel"
        };
        let spans_text = spans.to_string();
        let mut arguments = vec![spans_text.as_str()];
        arguments.extend(self.bare.then_some("bare"));
        let mut environment = vec![("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", detectors)];
        environment.extend(self.threads.map(|threads| ("THREADS", threads)));
        let running = start(&Start {
            program: self.program,
            arguments: &arguments,
            service: self.service,
            to,
            directory,
            environment: &environment,
        });
        if self.program == Program::Flask {
            let port = running.wait_for_port();
            send_requests(port, spans);
        } else {
            running.wait_until_done();
        }
        Done {
            running,
            _between: between,
        }
    }
}

/// Sends so many requests to a Flask service, [`CLIENTS`] at once.
fn send_requests(port: u16, requests: usize) {
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for number in 0..requests / CLIENTS {
                    let (method, path) = REQUESTS[(client + number) % REQUESTS.len()];
                    let (status, _) = request(&Address::Local(port), method, path, "")
                        .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
                    assert_eq!(status, 200, "{method} {path}");
                }
            });
        }
    });
}

/// A port that was free a moment ago; not every server can choose one itself.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
