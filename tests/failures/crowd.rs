// SPDX-License-Identifier: Apache-2.0
//! Many: more processes than can be watched one by one, and more records than are kept.

use std::io::Read;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::agent::Agent;
use crate::exporter::Exporter;
use crate::exporter::STAY;
use crate::program::Program;
use crate::report::ns;

/// More processes than the kernel's table of watched ones has room for.
const CROWD: u32 = 4_200;
/// How long records are made as fast as can be.
const LOAD: Duration = Duration::from_secs(2);
/// Resident memory of the whole agent with its defaults (docs/overhead.md): 160 MiB.
const RESIDENT_BYTES_MAX: u64 = 160 << 20;

#[test]
fn root_a_crowd_of_short_lived_senders_is_survived() {
    let agent = Agent::start();
    let script = format!(
        "for ((i = 0; i < {CROWD}; i++)); do
             (exec 3<>/dev/tcp/127.0.0.1/{}) || exit 1
         done",
        agent.http_port
    );
    let mut crowd = Command::new("bash");
    crowd.args(["-c", &script]);
    let (status, said) = Program::start(crowd).end();
    assert!(status.success(), "{said}");

    let mut one_more = Exporter::start(agent.http_port, STAY);
    one_more.export();
    one_more.assert_explained(&agent.explained(&one_more.trace));
    // It is noticed one turn later that a process could not be watched.
    let mut another = Exporter::start(agent.http_port, STAY);
    another.export();
    another.assert_explained(&agent.explained(&another.trace));
    agent.assert_well();
}

#[test]
fn root_many_records_take_bounded_memory_and_too_many_are_unknown() {
    let agent = Agent::start();
    many_records_take_bounded_memory(&agent);
    a_full_ring_is_counted_and_unknown(&agent);
    agent.assert_well();
}

fn many_records_take_bounded_memory(agent: &Agent) {
    let before = agent.count("/recorder/records_in");
    let switches = ping_pong(LOAD);
    let health = agent.health();
    let resident = agent.resident_bytes();
    let recorded = agent.count("/recorder/records_in") - before;
    eprintln!("{switches} exchanges, {recorded} records, {resident} bytes resident");
    eprintln!("{:#}", health["recorder"]);
    assert!(recorded > 20_000, "{health:#}");
    assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes");

    let mut after = Exporter::start(agent.http_port, STAY);
    after.export();
    after.assert_explained(&agent.explained(&after.trace));
}

/// The reader of the ring is stopped, so that it really runs full.
fn a_full_ring_is_counted_and_unknown(agent: &Agent) {
    agent.signal(Signal::STOP);
    ping_pong(LOAD);
    let mut unseen = Exporter::start(agent.http_port, &format!("echo written; {STAY}"));
    unseen.export();
    // Not before its wait has ended: there would be room for the record of it.
    unseen.program.line("written");
    agent.signal(Signal::CONT);

    let answer = agent.explained(&unseen.trace);
    let lost = agent.count("/lost_records");
    eprintln!("{lost} records lost");
    assert!(lost > 0 && ns(&answer["lost_records"]) > 0, "{answer:#}");
    assert_eq!(answer["status"], "complete", "{answer:#}");
    let gap_ns = ns(&answer["gap_ns"]);
    let causes = answer["causes"].as_array().expect("causes");
    let sum: u64 = causes.iter().map(|cause| ns(&cause["ns"])).sum();
    assert_eq!(sum, gap_ns, "{answer:#}");
    let unknown = causes.iter().filter(|cause| cause["cause"] == "unknown");
    let unknown_ns: u64 = unknown.map(|cause| ns(&cause["ns"])).sum();
    assert!(unknown_ns > gap_ns * 9 / 10, "{answer:#}");

    let mut after = Exporter::start(agent.http_port, STAY);
    after.export();
    after.assert_explained(&agent.explained(&after.trace));
}

/// Two threads of this process that give a byte to each other for that long; how often they did.
fn ping_pong(how_long: Duration) -> u64 {
    let (mut here, mut there) = std::os::unix::net::UnixStream::pair().expect("sockets");
    let other = thread::spawn(move || {
        let mut byte = [0];
        while there.read(&mut byte).is_ok_and(|length| length == 1) {
            there.write_all(&byte).expect("it reads");
        }
    });
    let deadline = Instant::now() + how_long;
    let mut exchanges = 0;
    while Instant::now() < deadline {
        here.write_all(&[0]).expect("it reads");
        here.read_exact(&mut [0]).expect("it answers");
        exchanges += 1;
    }
    drop(here);
    other.join().expect("it answered");
    exchanges
}
