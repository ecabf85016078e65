// SPDX-License-Identifier: Apache-2.0
//! Answers as text: short enough to read in a difference, and everything that can be wrong.

use std::fmt::Write;

use lacuna_timeline::Account;
use lacuna_timeline::Ns;
use lacuna_timeline::Recorder;
use lacuna_timeline::ThreadId;
use lacuna_timeline::account::Counts;
use lacuna_timeline::account::Episode;
use lacuna_timeline::account::NetEvidence;
use lacuna_timeline::account::Share;
use lacuna_timeline::account::Who;
use lacuna_timeline::event::Dropped;
use lacuna_timeline::join::Presence;

/// An account.
pub(crate) fn account(account: &Account) -> String {
    let mut text = format!(
        "  wall {}, explained {}",
        account.wall_ns,
        account.explained_ns()
    );
    for (name, value) in [
        ("estimated", account.estimated_ns()),
        ("blur", account.blur_ns),
        ("lost records", account.lost_records),
    ] {
        if value > 0 {
            let _ = write!(text, ", {name} {value}");
        }
    }
    text.push('\n');
    for each in &account.shares {
        share(&mut text, each);
    }
    for each in &account.episodes {
        episode(&mut text, each);
    }
    let counts = account.counts;
    if counts != Counts::default() {
        let _ = writeln!(
            text,
            "  voluntary {}, involuntary {}, migrations {}, faults {}+{}",
            counts.voluntary,
            counts.involuntary,
            counts.migrations,
            counts.faults.minor,
            counts.faults.major
        );
    }
    text
}

fn share(text: &mut String, share: &Share) {
    let _ = write!(
        text,
        "  {:15} {:>9} in {}",
        share.cause.name(),
        share.ns,
        share.count
    );
    for (name, ns) in [
        ("running", share.running_ns),
        ("runnable", share.runnable_ns),
        ("blocked", share.blocked_ns),
        ("estimated", share.estimated_ns),
    ] {
        if ns > 0 {
            let _ = write!(text, " {name} {ns}");
        }
    }
    for (reason, ns) in &share.reasons {
        let _ = write!(text, " {} {ns}", reason.name());
    }
    for culprit in &share.culprits {
        let _ = write!(text, "; {} {}", who(culprit.who), culprit.ns);
    }
    for net in &share.evidence.connections {
        connection(text, net);
    }
    for link in &share.chain {
        let _ = write!(
            text,
            " <- {} {} {} {}",
            link.thread.0,
            link.how.name(),
            link.cause.name(),
            link.ns
        );
        if let Some(culprit) = link.culprit {
            let _ = write!(text, " ({} {})", who(culprit.who), culprit.ns);
        }
    }
    text.push('\n');
}

/// What was told of a connection.
fn connection(text: &mut String, net: &NetEvidence) {
    for (aspect, ns) in &net.aspects {
        let _ = write!(text, "; {} {ns}", aspect.name());
    }
    for (name, value) in [
        ("timeouts", net.timeouts),
        ("probes", net.probes),
        ("fast", net.fast),
        ("srtt", net.srtt_ns),
        ("rto", net.rto_ns),
    ] {
        if value > 0 {
            let _ = write!(text, ", {name} {value}");
        }
    }
    if net.shared {
        text.push_str(", shared");
    }
    let ours = net.drops.iter().map(|dropped| ("", dropped));
    let peers = net.peer_drops.iter().map(|dropped| ("peer's ", dropped));
    for (whose, dropped) in ours.chain(peers) {
        let Dropped {
            count,
            reason,
            ifindex,
            netns,
            ..
        } = dropped;
        let _ = write!(
            text,
            ", {count} {whose}dropped: {} device {ifindex} in {netns}",
            reason.name()
        );
    }
}

fn episode(text: &mut String, episode: &Episode) {
    let end = episode.start + episode.ns;
    let _ = write!(
        text,
        "  {}..{} {}",
        episode.start,
        end,
        episode.cause.name()
    );
    if let Some(culprit) = episode.culprit {
        let _ = write!(text, " {}", who(culprit));
    }
    if let Some(reason) = episode.reason {
        let _ = write!(text, " {}", reason.name());
    }
    text.push('\n');
}

fn who(who: Who) -> String {
    match who {
        Who::Thread(thread) => format!("thread {}", thread.0),
        Who::Object(object) => format!("object {}", object.0),
        Who::Cgroup(cgroup) => format!("cgroup {cgroup}"),
        Who::Idle => "idle".to_owned(),
        Who::Rest => "rest".to_owned(),
        Who::Uncovered => "uncovered".to_owned(),
    }
}

/// Whether a thread was on a CPU.
pub(crate) fn on_cpu(recorder: &Recorder, thread: ThreadId, from: Ns, to: Ns) -> String {
    let running = recorder.running(thread, from, to);
    format!(
        "  {:?}: on {} unknown {}\n",
        recorder.on_cpu(thread, from, to),
        running.on_ns,
        running.unknown_ns
    )
}
