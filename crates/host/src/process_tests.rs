// SPDX-License-Identifier: Apache-2.0
//! Parsers on hostile text, facts of a made-up host, and facts of this very process.

use super::PeerCredentials;
use super::ProcessError;
use super::ProcessFacts;
use super::StartTime;
use super::Stat;
use super::Status;
use super::bracketed_inode;
use super::is_alive;
use super::is_forked_worker_of;
use super::processes;
use super::threads;
use crate::mutate::mutations;
use crate::root::Root;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// A process of a made-up host.
struct Fake<'a> {
    tgid: u32,
    parent: u32,
    ticks: u64,
    uid: u32,
    exe: &'a str,
    cgroup: &'a str,
}

impl Fake<'_> {
    fn write(&self, base: &Path) {
        let directory = base.join(format!("proc/{}", self.tgid));
        std::fs::create_dir_all(directory.join("ns")).unwrap();
        let (tgid, parent, ticks, uid) = (self.tgid, self.parent, self.ticks, self.uid);
        let zeros = "0 ".repeat(17);
        let stat = format!("{tgid} (a) R 1) S {parent} {zeros}{ticks} 0\n");
        std::fs::write(directory.join("stat"), stat).unwrap();
        let status = format!(
            "Tgid:\t{tgid}\nPid:\t{tgid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t{tgid}\t7\n"
        );
        std::fs::write(directory.join("status"), status).unwrap();
        std::fs::write(directory.join("cgroup"), format!("0::{}\n", self.cgroup)).unwrap();
        let exe = base.join(self.exe);
        std::fs::write(&exe, "").unwrap();
        symlink(exe, directory.join("exe")).unwrap();
        symlink("pid:[4026531836]", directory.join("ns/pid")).unwrap();
        symlink("net:[4026531833]", directory.join("ns/net")).unwrap();
    }
}

const CONTAINER: &str = "8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f";

fn plain(tgid: u32, parent: u32) -> Fake<'static> {
    Fake {
        tgid,
        parent,
        ticks: u64::from(tgid),
        uid: 33,
        exe: "python",
        cgroup: "/system.slice/web.service",
    }
}

#[test]
fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
    let zeros = "0 ".repeat(17);
    let stat = Stat::parse(&format!("12 (x) S 99 (y) R 4 {zeros}791 3133440\n")).unwrap();
    assert_eq!(&*stat.comm, "x) S 99 (y");
    assert_eq!((stat.parent, stat.start), (4, StartTime::from_ticks(791)));
}

#[test]
fn a_broken_stat_or_status_is_none() {
    let zeros = "0 ".repeat(17);
    for text in [
        "",
        "12",
        "12 (",
        "12 )(",
        "12 (x)",
        "12 (x) S",
        "12 (x) S 4 0 0",
        &format!("1 (x) S -1 {zeros}7"),
    ] {
        assert_eq!(Stat::parse(text), None, "{text:?}");
    }
    let good = "Tgid:\t4\nPid:\t4\nUid:\t1\t2\t3\t4\n";
    assert_eq!(Status::parse(good).unwrap().uids, [1, 2, 3]);
    assert_eq!(
        Status::parse(good).unwrap().ns_pids,
        [4],
        "no namespaces: the pid itself"
    );
    for text in [
        "",
        "Tgid:\t4\n",
        "Tgid:\t4\nPid:\t4\n",
        "Tgid:\t4\nPid:\t4\nUid:\t1\t2\n",
        "Tgid:\tx\nPid:\t4\nUid:\t1\t2\t3\t4\n",
        "Tgid:\t99999999999\nPid:\t4\nUid:\t1\t2\t3\t4",
    ] {
        assert_eq!(Status::parse(text), None, "{text:?}");
    }
}

#[test]
fn links_to_inodes_are_told_apart() {
    assert_eq!(bracketed_inode("socket:[123]", "socket"), Some(123));
    for link in [
        "socket:[]",
        "socket:[1",
        "socket:[x]",
        "pipe:[123]",
        "/socket:[1]",
        "socket:123",
    ] {
        assert_eq!(bracketed_inode(link, "socket"), None, "{link:?}");
    }
}

#[test]
fn facts_of_a_process_in_a_container() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::at(base.path());
    let cgroup = format!("/system.slice/docker-{CONTAINER}.scope");
    Fake {
        cgroup: &cgroup,
        ..plain(500, 1)
    }
    .write(base.path());
    let facts = ProcessFacts::read(&root, 500).unwrap();
    assert_eq!((facts.tgid, facts.parent, &*facts.comm), (500, 1, "a) R 1"));
    assert_eq!((facts.uids, facts.own_pid()), ([33; 3], 7));
    assert_eq!(facts.container(), Some(CONTAINER));
    assert_eq!(facts.pid_namespace, Some(4_026_531_836));
    assert_eq!(facts.net_namespace, Some(4_026_531_833));
    assert!(facts.exe.is_some());
    assert!(matches!(
        ProcessFacts::read(&root, 501),
        Err(ProcessError::Gone)
    ));
}

#[test]
fn a_reused_pid_is_not_the_same_process() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::at(base.path());
    plain(500, 1).write(base.path());
    assert!(is_alive(&root, 500, StartTime::from_ticks(500)));
    assert!(!is_alive(&root, 500, StartTime::from_ticks(501)));
    assert!(!is_alive(&root, 501, StartTime::from_ticks(501)));
}

#[test]
fn a_start_matches_within_its_tick_and_what_suspends_may_have_added() {
    let start = StartTime::from_ticks(1_000);
    assert!(start.matches(10_000_000_000, 0));
    assert!(start.matches(10_009_999_999, 0));
    assert!(!start.matches(10_010_000_000, 0));
    assert!(!start.matches(9_999_999_999, 0));
    assert!(start.matches(9_999_999_999, 5_000_000_000));
    assert!(start.matches(5_000_000_000, 5_000_000_000));
    assert!(!start.matches(4_999_999_999, 5_000_000_000));
    assert!(!StartTime::from_ticks(u64::MAX).matches(0, 0));
}

#[test]
fn one_may_speak_for_another_of_the_same_user_and_container() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::at(base.path());
    let inside = format!("/docker/{CONTAINER}");
    plain(10, 1).write(base.path());
    plain(11, 1).write(base.path());
    Fake {
        uid: 34,
        ..plain(12, 1)
    }
    .write(base.path());
    Fake {
        cgroup: &inside,
        ..plain(13, 1)
    }
    .write(base.path());
    let facts = [10, 11, 12, 13].map(|tgid| ProcessFacts::read(&root, tgid).unwrap());
    let [owner, same_user, other_user, contained] = &facts;
    assert!(owner.may_speak_for(owner) && owner.may_speak_for(same_user));
    assert!(!owner.may_speak_for(other_user) && !owner.may_speak_for(contained));
    assert!(!contained.may_speak_for(owner));
    // A container that no known runtime made still has a pid namespace of its own.
    let mut unnamed = same_user.clone();
    unnamed.pid_namespace = Some(4_026_532_999);
    assert!(!unnamed.may_speak_for(owner) && !owner.may_speak_for(&unnamed));
}

#[test]
fn a_peer_may_ask_about_what_it_could_trace() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::at(base.path());
    plain(10, 1).write(base.path());
    plain(11, 1).write(base.path());
    Fake {
        uid: 34,
        ..plain(12, 1)
    }
    .write(base.path());
    let [target, others] = [11, 12].map(|tgid| ProcessFacts::read(&root, tgid).unwrap());
    let peer = |uid, pid| PeerCredentials { uid, pid };
    assert!(peer(33, Some(10)).may_ask_about(&root, &target));
    assert!(!peer(33, Some(10)).may_ask_about(&root, &others));
    assert!(peer(0, None).may_ask_about(&root, &others));
    assert!(
        !peer(33, None).may_ask_about(&root, &target),
        "nobody we can see"
    );
    assert!(!peer(33, Some(99)).may_ask_about(&root, &target), "ended");
    assert!(
        !peer(33, Some(12)).may_ask_about(&root, &target),
        "its pid is another user's now"
    );
}

#[test]
fn a_worker_is_known_by_its_ancestor_and_executable() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::at(base.path());
    plain(10, 1).write(base.path());
    plain(11, 10).write(base.path());
    plain(12, 11).write(base.path());
    Fake {
        exe: "collector",
        ..plain(13, 10)
    }
    .write(base.path());
    Fake {
        ticks: 3,
        ..plain(14, 10)
    }
    .write(base.path());
    let facts = |tgid| ProcessFacts::read(&root, tgid).unwrap();
    assert!(is_forked_worker_of(&root, &facts(11), &facts(10)));
    assert!(
        is_forked_worker_of(&root, &facts(12), &facts(10)),
        "a grandchild"
    );
    assert!(
        !is_forked_worker_of(&root, &facts(10), &facts(11)),
        "the wrong way round"
    );
    assert!(
        !is_forked_worker_of(&root, &facts(13), &facts(10)),
        "another executable"
    );
    assert!(
        !is_forked_worker_of(&root, &facts(14), &facts(10)),
        "older than its parent"
    );
}

#[test]
fn a_ring_of_parents_ends() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::at(base.path());
    plain(10, 11).write(base.path());
    plain(11, 10).write(base.path());
    plain(12, 1).write(base.path());
    let facts = |tgid| ProcessFacts::read(&root, tgid).unwrap();
    assert!(!is_forked_worker_of(&root, &facts(10), &facts(12)));
}

#[test]
fn this_process_is_itself() {
    let root = Root::host();
    let own = std::process::id();
    let facts = ProcessFacts::read(&root, own).unwrap();
    assert_eq!(facts.tgid, own);
    assert!(is_alive(&root, own, facts.start));
    assert!(processes(&root).unwrap().contains(&own));
    let threads = threads(&root, own).unwrap();
    assert!(threads.contains(&own));
    let thread = rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs();
    assert!(threads.contains(&thread));
    let of_thread = ProcessFacts::read(&root, thread).unwrap();
    assert_eq!((of_thread.tgid, of_thread.start), (own, facts.start));
}

#[test]
fn the_start_of_a_child_lies_between_two_readings_of_the_clock() {
    let before = crate::clock::monotonic_ns();
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let facts = ProcessFacts::read(&Root::host(), child.id());
    let after = crate::clock::monotonic_ns();
    child.kill().unwrap();
    child.wait().unwrap();
    let facts = facts.unwrap();
    assert_eq!(facts.parent, std::process::id());
    let suspended = crate::clock::Clock::new().unwrap().history().suspended_ns();
    let possible = (before..=after)
        .step_by(10_000)
        .any(|ns| facts.start.matches(ns, suspended));
    assert!(
        possible,
        "{:?} is not between {before} and {after}",
        facts.start
    );
    assert!(
        !is_alive(&Root::host(), child.id(), facts.start),
        "it has been waited for"
    );
}

#[test]
fn no_text_makes_the_parsers_fail() {
    let stat = format!("12 (x) S 4 {}791 3133440\n", "0 ".repeat(17));
    let known = mutations(&stat).filter_map(|text| Stat::parse(&text));
    assert!(known.count() > 100, "some are still good");
    let status = "Name:\tx\nTgid:\t4\nPid:\t4\nUid:\t1\t2\t3\t4\nNSpid:\t4\t1\n";
    let known = mutations(status).filter_map(|text| Status::parse(&text));
    assert!(known.count() > 100, "some are still good");
    for text in mutations("socket:[123456]") {
        let inode = bracketed_inode(&text, "socket");
        assert!(inode.is_none() || text.starts_with("socket:["), "{text:?}");
    }
}
