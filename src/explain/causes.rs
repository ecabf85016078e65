// SPDX-License-Identifier: Apache-2.0
//! The shares of an account as the causes of an answer.
//!
//! Every number is copied, none is computed: an answer's sums are the account's sums.

use std::collections::BTreeMap;

use lacuna_timeline::account;
use lacuna_timeline::account::Account;
use lacuna_timeline::account::How;
use lacuna_timeline::account::Link;
use lacuna_timeline::account::Share;
use lacuna_timeline::account::Who;
use lacuna_timeline::event::Asked;
use lacuna_timeline::event::Polled;
use lacuna_timeline::event::Waker;
use serde_json::Value;

use crate::answer::CauseAnswer;
use crate::answer::ChainLink;
use crate::answer::Culprit;
use crate::answer::Evidence;
use crate::answer::LinkHow;
use crate::answer::StateSums;

use super::Names;
use super::net;

/// The causes of an account, in order of precedence.
pub(crate) fn causes(account: &Account, names: &Names<'_>) -> Vec<CauseAnswer> {
    account
        .shares
        .iter()
        .map(|share| cause(share, names))
        .collect()
}

fn cause(share: &Share, names: &Names<'_>) -> CauseAnswer {
    CauseAnswer {
        cause: share.cause,
        ns: share.ns,
        count: share.count,
        state: StateSums {
            running_ns: share.running_ns,
            runnable_ns: share.runnable_ns,
            blocked_ns: share.blocked_ns,
        },
        estimated_ns: share.estimated_ns,
        culprits: culprits(share, names),
        evidence: evidence(share, names),
        chain: share
            .chain
            .iter()
            .map(|link| chained(link, names))
            .collect(),
        reason: share.reason().map(|reason| reason.name().to_owned()),
    }
}

/// Who was to blame, connections with what befell them.
fn culprits(share: &Share, names: &Names<'_>) -> Vec<Culprit> {
    let named = |culprit: &account::Culprit| {
        let named = names.culprit(share.cause, culprit.who, culprit.ns);
        let seen = share.evidence.connections.iter();
        let mut seen = seen.filter(|seen| culprit.who == Who::Object(seen.connection));
        match seen.next() {
            Some(seen) => net::blamed(named, share.cause, seen, names),
            None => named,
        }
    };
    share.culprits.iter().map(named).collect()
}

/// What a share was seen by: of each kind the largest, and how many wakings were of which kind.
fn evidence(share: &Share, names: &Names<'_>) -> Evidence {
    let seen = &share.evidence;
    let mut more = BTreeMap::new();
    if let Some(&(hash, _)) = seen.futexes.first() {
        more.insert("futex".to_owned(), format!("{hash:016x}").into());
    }
    if let Some(&(waker, _)) = seen.wakers.first() {
        more.insert("woken_by".to_owned(), woken_by(waker, names).into());
    }
    // Beside waits of other kinds the largest alone would say nothing.
    if !seen.polled.is_empty() {
        let polled = seen.polled.iter();
        let polled = polled.map(|&(polled, ns)| (how_polled(polled), ns.into()));
        more.insert("polled".to_owned(), Value::Object(polled.collect()));
    }
    if seen.throttled > 0 {
        more.insert("throttled_waits".to_owned(), seen.throttled.into());
    }
    // The field `reason` has place for the largest only.
    if share.reasons.len() > 1 {
        let reasons = share.reasons.iter();
        let reasons = reasons.map(|&(reason, ns)| (reason.name().to_owned(), ns.into()));
        more.insert("reasons".to_owned(), Value::Object(reasons.collect()));
    }
    Evidence {
        call: seen.calls.first().map(|&(call, _)| call.name()),
        object: seen
            .objects
            .first()
            .map(|&(object, _)| names.object(object))
            .filter(|text| !text.is_empty()),
        stack: seen
            .stacks
            .first()
            .and_then(|&(stack, _)| names.recorder.stack(stack))
            .map(|info| info.frames.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        connections: seen
            .connections
            .iter()
            .map(|seen| net::evidence(seen, names))
            .collect(),
        spans: Vec::new(),
        more,
    }
}

/// How the object of a poll-like wait stands to its end, and what it was asked.
fn how_polled(polled: Polled) -> String {
    let (how, asked) = match polled {
        Polled::No => return "not known".to_owned(),
        Polled::Ended(asked) => ("ended by it", asked),
        Polled::Sole(asked) => ("for it alone, or a timeout", asked),
    };
    match asked {
        Asked::Input => format!("{how}: input"),
        Asked::Output => format!("{how}: output"),
        Asked::Either => format!("{how}: input or output"),
        Asked::Connect => format!("{how}: to be connected"),
    }
}

fn woken_by(waker: Waker, names: &Names<'_>) -> String {
    match waker {
        Waker::Thread(thread) => {
            let (tid, _, comm) = names.thread(thread);
            format!("{comm} (tid {tid})")
        }
        Waker::HardIrq => "an interrupt".to_owned(),
        Waker::SoftIrq => "a softirq".to_owned(),
        Waker::Idle => "the idle task".to_owned(),
        Waker::Unknown => "not known".to_owned(),
    }
}

fn chained(link: &Link, names: &Names<'_>) -> ChainLink {
    let (tid, pid, comm) = names.thread(link.thread);
    ChainLink {
        tid,
        pid,
        comm,
        how: match link.how {
            How::Held => LinkHow::Held,
            How::Woke => LinkHow::Woke,
        },
        cause: link.cause,
        ns: link.ns,
        culprits: link
            .culprit
            .map(|culprit| names.culprit(link.cause, culprit.who, culprit.ns))
            .into_iter()
            .collect(),
        span: None,
    }
}
