// SPDX-License-Identifier: Apache-2.0
//! What a step comes to, and what all steps of a process come to together.
//!
//! `rule.rs` makes the findings; here they are only weighed against each other, by how much of the window
//! each took. Pure, too.

use lacuna_timeline::Cause;
use serde::Serialize;
use serde::Serializer;

use super::facts::Void;

/// What a step comes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// The source says nothing.
    NotAvailable,
    /// Nothing that is worth a look.
    Ok,
    /// Worth a look.
    Suspect,
    /// This is where time went.
    Cause,
}

/// How sure a conclusion is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sure {
    /// The kernel counted it on this process's own threads, and nothing else comes near it.
    Certain,
    /// It fits best.
    Likely,
    /// Only hints, or too many void sources.
    Unclear,
}

/// What a step found.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    pub(crate) cause: Option<Cause>,
    /// What it means.
    pub(crate) why: String,
    /// What to do; empty where there is nothing to do.
    pub(crate) next: String,
    /// How much of the window the most affected thread or connection lost at most, as far as it is
    /// known.
    pub(crate) lost_ns: u64,
}

impl Finding {
    pub(super) fn ok(why: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Ok,
            cause: None,
            why: why.into(),
            next: String::new(),
            lost_ns: 0,
        }
    }

    pub(super) fn void(void: &Void) -> Self {
        Self {
            verdict: Verdict::NotAvailable,
            next: void.fix.clone(),
            ..Self::ok(format!("not known: {}", void.why))
        }
    }

    pub(super) fn found(
        verdict: Verdict,
        cause: Cause,
        lost_ns: u64,
        why: String,
        next: &str,
    ) -> Self {
        Self {
            verdict,
            cause: Some(cause),
            why,
            next: next.to_owned(),
            lost_ns,
        }
    }
}

/// The last line: the most likely cause, how sure, and what would prove it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Conclusion {
    /// `None`: nothing was found.
    #[serde(serialize_with = "public_name")]
    pub(crate) cause: Option<Cause>,
    pub(crate) sure: Sure,
    pub(crate) next: String,
}

fn public_name<S: Serializer>(cause: &Option<Cause>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cause.map_or("none", Cause::name))
}

/// Weighs the findings of all steps of a process against each other.
pub(crate) fn conclude(pid: u32, findings: &[&Finding], window_ns: u64) -> Conclusion {
    let agent = format!("sudo lacuna agent --watch pid:{pid}");
    let ranked = |finding: &&&Finding| (finding.verdict, finding.lost_ns);
    let found = findings.iter().filter(|finding| finding.cause.is_some());
    let Some(best) = found.clone().max_by_key(ranked) else {
        let void = findings.iter().any(|f| f.verdict == Verdict::NotAvailable);
        return Conclusion {
            cause: None,
            sure: if void { Sure::Unclear } else { Sure::Likely },
            // Locks, slow peers and single waits are in no counter.
            next: agent,
        };
    };
    let same = |other: &Finding| {
        other.cause == best.cause
            || (other.cause.is_some_and(Cause::is_runq) && best.cause.is_some_and(Cause::is_runq))
    };
    let rival_ns = found
        .filter(|other| !same(other))
        .map(|other| other.lost_ns);
    let rival_ns = rival_ns.max().unwrap_or(0);
    let sure = match best.verdict {
        Verdict::Cause if best.lost_ns > window_ns / 10 && rival_ns < best.lost_ns / 2 => {
            Sure::Certain
        }
        Verdict::Cause => Sure::Likely,
        _ => Sure::Unclear,
    };
    Conclusion {
        cause: best.cause,
        sure,
        next: format!("{agent}    # or: lacuna run -- CMD"),
    }
}
