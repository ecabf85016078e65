// SPDX-License-Identifier: Apache-2.0
//! Whether the records bear out what a span says of its thread.
//!
//! A claim only points at a thread of the span's own process; presence decides. `thread.id` is the
//! runtime's own number and no claim unless it is the FS base of a thread, which is glibc's
//! `pthread_self()`. Whether such claims are believed yet is the kind's say, not decided here.

use super::candidates::Window;
use super::candidates::at_all;
use super::facts::Claims;
use super::presence::OnCpu;
use super::presence::Presence;
use super::presence::ThreadFacts;
use crate::event::ProcessId;
use crate::event::ThreadId;

/// Below this a managed id is a counter, never an FS base: the first page is not mapped.
const FS_BASE_MIN: u64 = 4_096;
/// Bytes of a thread's name that the kernel keeps.
const COMM_BYTES: usize = 15;

/// What the records say of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Checked {
    /// Nothing was claimed that can be checked.
    Absent,
    /// No thread of the process that lived then is meant: forged, stale, or not an OS thread id.
    Nobody,
    /// The thread meant was off the CPU at the start or the end.
    False(ThreadId),
    /// The thread meant was on a CPU, or may have been, at both; and whether that is certain.
    Fits(ThreadId, bool),
    /// Several threads are meant and fit: it tells nothing.
    Several,
}

/// Checks the claims of a span whose start and end are `ends`.
pub(super) fn check(
    presence: &dyn Presence,
    process: ProcessId,
    claims: &Claims<'_>,
    ends: &[Window; 2],
) -> Checked {
    let [start, end] = ends;
    let mut strong = Vec::new();
    let mut named = Vec::new();
    presence.threads(process, start.0, end.1.max(start.0), &mut |facts| {
        if means_by_id(claims, facts) {
            strong.push((facts.thread, lives(facts, ends)));
        }
        if claims
            .name
            .is_some_and(|name| comm_of(name) == facts.comm.as_bytes())
        {
            named.push((facts.thread, lives(facts, ends)));
        }
    });
    let fits = |&(thread, lives): &(ThreadId, bool)| {
        let on = at_all(presence, thread, ends);
        (lives && on != OnCpu::No).then_some((thread, on == OnCpu::Yes))
    };
    let judge = |meant: &[(ThreadId, bool)]| {
        let mut fitting = meant.iter().filter_map(fits);
        match (fitting.next(), fitting.next(), meant.iter().find(|m| m.1)) {
            (Some(_), Some(_), _) => Checked::Several,
            (Some((one, sure)), None, _) => Checked::Fits(one, sure),
            (None, _, Some(alive)) => Checked::False(alive.0),
            (None, _, None) => Checked::Nobody,
        }
    };
    if claims.native_tid.is_some() || !strong.is_empty() {
        return judge(&strong);
    }
    // A name is common to many threads in most programs; only one that names a single thread, and
    // a name that no thread bears was never an OS thread's.
    match named.len() {
        0 => Checked::Absent,
        1 => judge(&named),
        _ => Checked::Several,
    }
}

fn lives(facts: &ThreadFacts<'_>, [start, end]: &[Window; 2]) -> bool {
    facts.born <= start.1 && facts.died.is_none_or(|died| died >= end.0)
}

fn means_by_id(claims: &Claims<'_>, facts: &ThreadFacts<'_>) -> bool {
    let native = claims
        .native_tid
        .is_some_and(|tid| tid == u64::from(facts.tid) || tid == u64::from(facts.ns_tid));
    let managed = claims
        .managed_id
        .is_some_and(|id| id >= FS_BASE_MIN && id == facts.fs_base);
    native || managed
}

/// What the kernel keeps of a name.
fn comm_of(name: &str) -> &[u8] {
    let bytes = name.as_bytes();
    &bytes[..bytes.len().min(COMM_BYTES)]
}
