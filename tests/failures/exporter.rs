// SPDX-License-Identifier: Apache-2.0
//! A program that exports one span of its own and may die of it: a shell, so that nothing has to be
//! built, and so that it has one thread, which is the right answer.
//!
//! It says `ready`, begins its span, waits for a line, ends its span, exports it and says `sent`.

use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::program::Program;
use crate::report::ns;

/// Waits at least so long, in its span, for the line.
const WAIT: Duration = Duration::from_millis(150);

static NEXT: AtomicU64 = AtomicU64::new(1);

/// What the shell does. `$1`: the port; `$2`: the trace; `$3`: the pid that it claims, or nothing for
/// its own; `$4`: what it does in the end.
pub(crate) const SCRIPT: &str = r#"
export LC_ALL=C
exec 3<>"/dev/tcp/127.0.0.1/$1"
pid=$BASHPID
echo "ready $pid"
start=${EPOCHREALTIME/./}000
read -r line
end=${EPOCHREALTIME/./}000
attribute() { printf '{"key":"%s","value":{"%s":"%s"}}' "$@"; }
printf -v body '{"resourceSpans":[{"resource":{"attributes":[%s,%s]},"scopeSpans":[{"spans":[%s]}]}]}' \
    "$(attribute service.name stringValue exporter)" \
    "$(attribute process.pid intValue "${3:-$pid}")" \
    '{"traceId":"'"$2"'","spanId":"00f067aa0ba902b7","name":"blocked","kind":1,"startTimeUnixNano":"'$start'","endTimeUnixNano":"'$end'"}'
printf 'POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s' \
    ${#body} "$body" >&3
eval "$4"
"#;

/// In the end it hears the answer, says so, and stays until it is told to end.
pub(crate) const STAY: &str = r#"read -r answer <&3; echo "sent $answer"; read -r line"#;
/// In the end it hears the answer, says so, and ends.
pub(crate) const LEAVE: &str = r#"read -r answer <&3; echo "sent $answer""#;
/// It dies at once, without hearing what became of its span.
pub(crate) const DIE: &str = "kill -KILL $BASHPID";

/// A trace id that nobody else has.
pub(crate) fn new_trace() -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("e{:015x}{number:016x}", std::process::id())
}

/// A shell that exports.
pub(crate) struct Exporter {
    pub(crate) program: Program,
    pub(crate) trace: String,
}

/// The arguments of [`SCRIPT`] after the shell's own.
pub(crate) fn arguments(port: u16, trace: &str, claimed: Option<u32>, then: &str) -> [String; 5] {
    let claimed = claimed.map_or(String::new(), |pid| pid.to_string());
    [
        "exporter".into(),
        port.to_string(),
        trace.into(),
        claimed,
        then.into(),
    ]
}

/// A shell that is to export to that port, claiming that pid or its own, and does that in the end.
pub(crate) fn command(port: u16, trace: &str, claimed: Option<u32>, then: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", SCRIPT]);
    command.args(arguments(port, trace, claimed, then));
    command
}

impl Exporter {
    /// Starts one that claims itself.
    pub(crate) fn start(port: u16, then: &str) -> Exporter {
        let trace = new_trace();
        let command = command(port, &trace, None, then);
        Exporter::start_as(command, trace)
    }

    /// Starts that command and waits until its span has begun.
    pub(crate) fn start_as(command: Command, trace: String) -> Exporter {
        let program = Program::start(command);
        program.line("ready ");
        Exporter { program, trace }
    }

    /// Has it end its span, not before it has waited long enough.
    pub(crate) fn export(&mut self) {
        let begun = Instant::now();
        // The wait itself is what the span is about.
        thread::sleep(WAIT);
        self.program.say("go");
        assert!(begun.elapsed() >= WAIT);
    }

    /// The answer is this program, and where its time went is right.
    pub(crate) fn assert_explained(&self, answer: &Value) {
        assert_eq!(answer["join"]["pid"], self.program.pid(), "{answer:#}");
        assert_waited_for_a_line(answer);
    }
}

/// The span of an exporter is explained: it waited for its line, and hardly anything is unknown.
pub(crate) fn assert_waited_for_a_line(answer: &Value) {
    assert_eq!(answer["status"], "complete", "{answer:#}");
    assert_eq!(answer["join"]["how"], "single-thread", "{answer:#}");
    let gap_ns = ns(&answer["gap_ns"]);
    let causes = answer["causes"].as_array().expect("causes");
    let of = |name: &str| {
        let cause = causes.iter().filter(|cause| cause["cause"] == name);
        cause.map(|cause| ns(&cause["ns"])).sum::<u64>()
    };
    let sum: u64 = causes.iter().map(|cause| ns(&cause["ns"])).sum();
    assert_eq!(sum, gap_ns, "{answer:#}");
    assert_eq!(of("unknown"), 0, "{answer:#}");
    let wait_ns = u64::try_from(WAIT.as_nanos()).expect("a short time");
    // It said `ready` before its span began, so a little of the wait may have been before it.
    assert!(of("wait.pipe") >= wait_ns * 9 / 10, "{answer:#}");
}
