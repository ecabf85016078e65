// SPDX-License-Identifier: Apache-2.0
//! What an answer hides from a reader who is not this host's root: the names of other processes.
//!
//! Several tenants share a host, and "behind backup (pid 4123)" tells one of them about another. The
//! numbers stay: how long somebody else had the CPU is the reader's own business, who it was is not.
//! A name that is not hidden is the span's own process's, or nobody's.

use crate::answer::CauseAnswer;
use crate::answer::ChainLink;
use crate::answer::Culprit;
use crate::answer::CulpritKind;
use crate::answer::Peer;
use crate::answer::SpanAnswer;

/// What stands in the place of a name.
const SOMEBODY: &str = "another process";

/// Takes the names of all processes but the span's own out of an answer.
pub(crate) fn conceal_others(answer: &mut SpanAnswer) {
    let own = answer.head.join.pid;
    let of_process = answer.process.iter_mut().flat_map(|view| &mut view.causes);
    let causes = answer.causes.iter_mut().chain(&mut answer.span_causes);
    for cause in causes.chain(of_process) {
        conceal_in(cause, own);
    }
    for culprit in answer
        .episodes
        .iter_mut()
        .flat_map(|episode| &mut episode.culprit)
    {
        conceal_culprit(culprit, own);
    }
}

fn conceal_in(cause: &mut CauseAnswer, own: u32) {
    for culprit in &mut cause.culprits {
        conceal_culprit(culprit, own);
    }
    for link in &mut cause.chain {
        conceal_link(link, own);
    }
    // A waker is named in text; it may be anybody's.
    cause.evidence.more.remove("woken_by");
    for connection in &mut cause.evidence.connections {
        let is_other = |peer: &mut Peer| peer.pid != own || own == 0;
        connection.peer.take_if(is_other);
    }
}

fn conceal_link(link: &mut ChainLink, own: u32) {
    for culprit in &mut link.culprits {
        conceal_culprit(culprit, own);
    }
    if link.pid != own || own == 0 {
        (link.tid, link.pid) = (0, 0);
        SOMEBODY.clone_into(&mut link.comm);
        link.span = None;
    }
}

fn conceal_culprit(culprit: &mut Culprit, own: u32) {
    let is_process = matches!(culprit.kind, CulpritKind::Thread | CulpritKind::Process);
    if is_process && (culprit.pid != own || own == 0) {
        (culprit.tid, culprit.pid) = (0, 0);
        SOMEBODY.clone_into(&mut culprit.name);
        culprit.detail.clear();
    }
    // The connection is the reader's own; who is at its other end is not.
    if culprit.kind == CulpritKind::Connection && (culprit.pid != own || own == 0) {
        (culprit.tid, culprit.pid) = (0, 0);
        culprit.process.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::CulpritKind;
    use super::SOMEBODY;
    use super::conceal_in;
    use super::conceal_others;
    use crate::answer::CauseAnswer;
    use crate::answer::Explanation;
    use crate::answer::RunReport;
    use crate::answer::SpanAnswer;

    /// The product's own example: one span, with culprits and chains.
    fn example() -> SpanAnswer {
        let json = include_str!("../render/snapshots/upi-gap.json");
        let explanation: Explanation = serde_json::from_str(json).unwrap();
        let mut spans = explanation.spans;
        spans.remove(0)
    }

    /// Each thread of the example waited for a connection; redis-server is at the other end of some.
    #[test]
    fn who_is_at_the_other_end_is_hidden_and_the_connection_is_not() {
        let json = include_str!("../render/snapshots/net.json");
        let report: RunReport = serde_json::from_str(json).unwrap();
        let causes = || {
            report
                .threads
                .iter()
                .flat_map(|thread| thread.causes.clone())
        };
        let shown = |own| {
            let mut causes: Vec<CauseAnswer> = causes().collect();
            causes.iter_mut().for_each(|cause| conceal_in(cause, own));
            serde_json::to_string(&causes).unwrap()
        };
        let text = shown(900);
        assert!(
            !text.contains("redis") && !text.contains(r#""pid":4000"#),
            "{text}"
        );
        let addresses = |text: &str| text.matches("10.0.4.17:6379").count();
        let whole = serde_json::to_string(&causes().collect::<Vec<_>>()).unwrap();
        assert_eq!(addresses(&text), addresses(&whole));
        // Its own threads at the other end are the reader's business.
        assert!(shown(4_000).contains("redis"));
    }

    #[test]
    fn names_of_others_go_and_numbers_stay() {
        let whole = example();
        let mut shown = whole.clone();
        conceal_others(&mut shown);
        let own = whole.head.join.pid;
        let mut hidden = 0;
        for (before, after) in whole.causes.iter().zip(&shown.causes) {
            assert_eq!(before.ns, after.ns);
            for (before, after) in before.culprits.iter().zip(&after.culprits) {
                assert_eq!(before.ns, after.ns);
                let is_other = before.kind == CulpritKind::Thread && before.pid != own;
                assert_eq!(after.name == SOMEBODY, is_other, "{before:?}");
                hidden += u32::from(is_other);
            }
            for (before, after) in before.chain.iter().zip(&after.chain) {
                let is_other = before.pid != own;
                assert_eq!(after.comm == SOMEBODY, is_other, "{before:?}");
                let culprits = after.culprits.iter().filter(|one| one.pid != own);
                assert!(culprits.clone().all(|one| one.pid == 0), "{after:?}");
                hidden += u32::from(is_other) + culprits.count() as u32;
            }
        }
        assert!(
            hidden > 0,
            "the example names others, or this proves nothing"
        );
        let text = serde_json::to_string(&shown).unwrap();
        assert!(!text.contains("backup"), "{text}");
    }
}
