// SPDX-License-Identifier: Apache-2.0
//! The texts of `--help`: a manual page per command, kept in one place so that they read alike.
//!
//! Lines are at most 80 characters, because help is read on any terminal.

pub(super) const ABOUT: &str = "Finds the missing part of a trace";

pub(super) const LONG_ABOUT: &str = "\
Finds the missing part of a trace.

A span took 4 812 ms and its child spans explain 51 ms of it. Lacuna keeps an
exact account of what the kernel did with every thread and says where the other
4 761 ms went: which cause had how much of it, adding up to the nanosecond, and
whose fault it was. The traced program need not be changed or restarted.

Time that is not proved is shown as \"unknown\" with its reason, never guessed.";

pub(super) const AFTER: &str = "\
Examples:
  lacuna run -- make -j4        where does the time of this command go?
  lacuna agent                  take spans and watch the host, always on
  lacuna explain TRACE_ID       where did the gap of each span of a trace go?
  lacuna blind                  how much of its time does a program not see?
  lacuna events -- make         what did the kernel do meanwhile, in counts?
  lacuna ladder --pid 4123      what ails this process, without agent and eBPF?
  lacuna doctor                 what works on this host, and what does not?
  lacuna lab run --all          are its answers true on this host?

Exit status:
  0  good
  1  it found something
  2  it could not run

`lacuna COMMAND --help` is the manual of that command.";

pub(super) const RUN: &str = "Run a command and say where its time went, per thread and in total";

pub(super) const RUN_LONG: &str = "\
Run a command and say where its time went, per thread and in total: a time(1)
that can see below the wall.

The command runs as it would without Lacuna: its standard streams, terminal and
process group are its own. Children and threads that it starts are followed.
When it has ended, the report goes to standard error, or to the file that
--output names. Needs root, or the capabilities that `lacuna doctor` names.";

pub(super) const RUN_AFTER: &str = "\
Examples:
  lacuna run -- ./build.sh
  lacuna run --format json --output report.json -- psql -c 'SELECT 1'

The causes of a thread add up to its wall time exactly. \"count\" in JSON is the
number of separate stretches. Time spent while records were lost is \"unknown\".

Signals: what the terminal sends reaches the command and Lacuna alike, and
Lacuna stays to write its report. SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGALRM
that are sent to Lacuna are passed on to the command.

Exit status:
  that of the command; where a signal ended it, the same signal ends Lacuna
  125  Lacuna itself failed
  126  the command was found and could not be executed
  127  the command was not found";

pub(super) const AGENT: &str =
    "Take spans over OTLP and keep the account of every thread, always on";

pub(super) const AGENT_LONG: &str = "\
Take spans over OTLP and keep the account of every thread, always on.

Programs that are traced with OpenTelemetry send their spans here: set
OTEL_EXPORTER_OTLP_ENDPOINT to http://127.0.0.1:4317 (gRPC) or
http://127.0.0.1:4318 (HTTP) and change nothing else. `lacuna explain` asks this
agent. It listens on loopback and on a Unix socket unless told otherwise, sends
nothing to anyone, and writes no setting of the host. Needs root, or the
capabilities that `lacuna doctor` names.

ADDR is HOST:PORT or unix:PATH. Port 0 takes a free one; each listener says on
standard error where it listens, for example:
  listening otlp-grpc 127.0.0.1:4317";

pub(super) const AGENT_AFTER: &str = "\
Selectors:
  pid:N           the process with that id
  comm:NAME       processes with a thread of that name (15 bytes at most)
  cgroup:PATH     processes in that cgroup or below it
  container:ID    processes of a container, by 12 to 64 digits of its id
  pod:UID         processes of a Kubernetes pod
  unit:NAME       processes of a systemd unit
  all             every process, whatever it costs
--watch may be given several times, and also takes processes that start later.
Without it everything is watched while the host makes fewer records than
--record-budget; above it, the processes that send spans.

Configuration (TOML; keys are the long options with _ for -):
  otlp_grpc = \"127.0.0.1:4317\"
  otlp_http = \"127.0.0.1:4318\"
  api = \"unix:/run/lacuna/api.sock\"
  watch = [\"unit:payments\", \"comm:backup\"]     # or \"auto\"
  record_budget = 50000

Examples:
  lacuna agent
  lacuna agent --watch unit:payments --watch comm:backup
  lacuna agent --otlp-grpc 0.0.0.0:4317 --config /etc/lacuna.toml

Exit status:
  0  it was asked to end (SIGTERM or SIGINT)
  2  it could not run";

pub(super) const EXPLAIN: &str = "Ask the agent where the gap of each span of a trace went";

pub(super) const EXPLAIN_LONG: &str = "\
Ask the agent where the gap of each span of a trace went.

The gap is the part of a span's time that no child span covers. It is shown by
cause, largest first, with who is to blame; the causes add up to it exactly.
Each span says which thread ran it and how that was found out. Where no thread
could be named for certain, none is: then the process is shown beside the span,
and nothing is claimed.

The trace is one that the running agent has received, or the spans of an
OTLP/JSON file that ran on this host while the agent was watching.";

pub(super) const EXPLAIN_AFTER: &str = "\
Examples:
  lacuna explain 0af7651916cd43dd8448eb211c80319c
  lacuna explain --spans spans.json --wait 0
  lacuna explain --agent http://127.0.0.1:9411 --format json TRACE_ID

Status of a span:
  pending     not everything up to its end has been read yet; ask again
  expired     the agent's memory no longer reaches back to its start
  unobserved  nothing of its process was watched then

Exit status:
  0  it was answered
  2  it could not be: no agent, no such trace, or a file that is no OTLP/JSON";

pub(super) const BLIND: &str = "Measure how much of the time of its work a program cannot see";

pub(super) const BLIND_LONG: &str = "\
Measure how much of the time of its work a program cannot see.

Bursts of a fixed amount of work, which takes 100 ms of CPU time, are made
alone and then beside processes that use the CPUs for nothing. The wall time of
a burst is what a span around it would record. What its thread's own CPU clock
(CLOCK_THREAD_CPUTIME_ID) says is how much of that it ran. The rest is the gap,
and the program has no way to see it.

With the privilege that `lacuna run` needs, the gap is also told by cause, and
the causes of each burst add up to its gap exactly. Without, it is said what is
missing, and the rest is measured all the same.";

pub(super) const BLIND_AFTER: &str = "\
Examples:
  lacuna blind
  lacuna blind --only contended --hogs 16 --svg blind.svg
  lacuna blind --bursts 20 --format json | jq '.runs[].gap_share'

p50 and p99 are by nearest rank: of fewer than 100 bursts, p99 is the largest.
The share is the median gap by the median wall time. With the defaults it takes
about half a minute on two CPUs; all CPUs are busy meanwhile.

Exit status:
  0  it was measured
  2  it could not be
A signal (Ctrl-C) ends it at once, and all that it started.";

pub(super) const EVENTS: &str = "Count what the kernel did inside one span of work";

pub(super) const EVENTS_LONG: &str = "\
Count what the kernel did inside one span of work: context switches, page
faults, read and write calls, bytes from and to storage, moves between CPUs,
TCP segments. A span around that work would record none of it.

The work is a command, from its start to its end, or a process that runs
already, for a while. It is counted from /proc and wait4(2) alone: no eBPF, and
no privilege, except that the reads and writes of another user's process are
for root only. A counter that cannot be had is left out, and why is said.";

pub(super) const EVENTS_AFTER: &str = "\
Examples:
  lacuna events -- ./build.sh
  lacuna events --pid 4123 --for 30s
  lacuna events --format json --output events.json -- psql -c 'SELECT 1'

Whose events they are stands above each group of counters:
  a command    with every thread, and every descendant that its parent waited
               for; moves between CPUs are of its first thread alone
  a process    faults with its ended threads; reads and writes also with each
               child that it waited for meanwhile (all that the child ever
               did); switches and moves as its threads were seen, each second
TCP is of the whole network namespace: of everybody who uses it.

A command's streams are its own, and its report goes to standard error when it
has ended. Signals are passed on as `lacuna run` does.

Exit status:
  of a command  that of the command, or 125, 126 and 127 as `lacuna run`
  of a process  0 it was counted, also where it ended early, which is said
                2 it could not be: no such process, or a mistake in what is asked";

pub(super) const DOCTOR: &str =
    "Say what works on this host, what does not, and what to do about it";

pub(super) const DOCTOR_LONG: &str = "\
Say what works on this host, what does not, and what to do about it.

Every hook is tried for real. Each thing that is missing is shown with the
causes that it costs and with what would bring them back.";

pub(super) const DOCTOR_AFTER: &str = "\
Examples:
  lacuna doctor
  lacuna doctor --format json | jq '.checks[] | select(.status != \"ok\")'

Exit status:
  0  nothing is missing
  1  something is missing that costs a cause
  2  it could not run";

pub(super) const LAB: &str = "Make trouble on purpose, and hold the answers against the truth";

pub(super) const LAB_LONG: &str = "\
Make trouble on purpose, and hold Lacuna's answers against the truth.

Each scenario is a war story made to happen on this machine: a backup that takes
the CPU, a limit that denies it, a lock whose owner has no CPU. A small traced
service runs in it, an agent started for it explains the service's spans, and
what it says is compared with the kernel's own counters and with clocks of the
scenario's own. What is made for it is removed again, also after Ctrl-C.";

pub(super) const LAB_AFTER: &str = "\
Examples:
  lacuna lab list
  lacuna lab run --all";

pub(super) const LAB_LIST: &str = "List the scenarios";

pub(super) const LAB_RUN: &str = "Run scenarios, and say what was true and what was answered";

pub(super) const LAB_RUN_LONG: &str = "\
Run scenarios, and say what was true and what was answered.

An answer must be within 1 % or 1 ms of the truth, whichever is larger, name
whom it must, and have at most 2 % for all other causes. On an emulated machine:
within 5 % or 20 ms, and the largest. Needs root. It keeps one CPU busy, for
some seconds each.";

pub(super) const LAB_RUN_AFTER: &str = "\
Examples:
  lacuna lab run cpu-contention
  lacuna lab run --all --format json

A scenario that this host cannot make is not run, and says why; it has not passed.

Exit status:
  0  what ran has passed
  1  a scenario failed
  2  nothing could be run";

pub(super) const LADDER: &str =
    "Say what ails a process, step by step, without eBPF and without root";

pub(super) const LADDER_LONG: &str = "\
Say what ails a process, step by step, without eBPF and without root.

Reads twice what the kernel counts for a process anyway, a window apart, and
judges what has grown: context switches, CPU limits, TCP losses, perf counters;
then run-queue delay, pressure, delay accounting, block I/O, memory limits and
stuck threads. Each step says what it found, what that means and what to do.

A source that this host does not fill, or that may not be read, is named with
what would open it, and is never taken for good news. Nothing is written: no
sysctl, no file. Another user's process can be looked at; what needs root then
says so.";

pub(super) const LADDER_AFTER: &str = "\
Verdicts:
  ok             nothing that is worth a look
  suspect        1 % of the window, or a hint
  cause          10 % of the window, or proof
  not-available  the source says nothing here, and why

The last line has the most likely cause in the words of `lacuna explain`, how
sure that is, and the command that would prove it.

Examples:
  lacuna ladder --pid 4123
  lacuna ladder --unit payments --window 10s
  lacuna ladder --port 8080 --format json | jq '.processes[].conclusion'

Exit status:
  0  nothing was found
  1  something was found
  2  it could not run: no such process, a kernel thread, one that ended";
