// SPDX-License-Identifier: Apache-2.0
//! Placing a span: whose it is, and where it lies on the kernel's clock.

use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

use lacuna_host::clock::Change;
use lacuna_host::clock::ClockError;
use lacuna_host::clock::ClockHistory;
use lacuna_host::clock::Instant;
use lacuna_timeline::Ns;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::join::Presence;
use lacuna_timeline::join::Readers;
use lacuna_timeline::join::Reading;
use lacuna_timeline::join::Source;
use lacuna_timeline::join::SpanFacts;

use crate::explain::SpanWindow;
use crate::otlp::Exporter;
use crate::otlp::ResourceIn;
use crate::otlp::SpanIn;
use crate::serve::Connection;
use crate::serve::Peer;

use super::origin::Claim;
use super::origin::Origin;
use super::origin::Origins;
use super::shared::Shared;
use super::spans::Place;
use super::spans::Sender;
use super::spans::Sighting;
use super::spans::Window;

/// How many service instances are remembered with their processes; at the limit all are forgotten
/// and learned again from their next batches.
const INSTANCES_MAX: usize = 4_096;

/// The process is known, and the probes have not seen any thread of it.
const NOT_OBSERVED: &str = "not-observed";

/// The sender is not named as the exporter of the span's SDK, and nothing shows yet that its process
/// took the timestamps.
const UNPROVED: &str = "unproved-owner";

/// The sender's process did not take the timestamps: it is a collector, or a proxy.
const FOREIGN: &str = "foreign-clock";

/// Why a span has no process.
#[derive(Clone, Copy)]
enum Unplaced {
    /// A fixed word.
    Unknown(&'static str),
    /// This one, but no record has told of it yet.
    Yet(Sighting),
}

/// Finds processes and windows of spans.
pub(super) struct Placer {
    origins: Origins,
    shared: Arc<Shared>,
    /// Whether the owners of connections took the timestamps of what came over them.
    readers: Readers,
    /// Which process exported the spans of a `service.instance.id`, and what came with them: for
    /// questions about spans that went another way.
    instances: HashMap<Box<str>, (ProcessId, Option<Sender>)>,
}

impl Placer {
    /// Knows no process yet.
    pub(super) fn new(origins: Origins, shared: Arc<Shared>) -> Placer {
        Placer {
            origins,
            shared,
            readers: Readers::default(),
            instances: HashMap::new(),
        }
    }

    /// Places a span that came over a connection. Whether its owner made it is settled later.
    pub(super) fn place(
        &mut self,
        connection: &Connection,
        exporter: &Exporter,
        span: &SpanIn,
    ) -> Place {
        let owner = self.owner(connection, span);
        let sender = matches!(connection.peer, Peer::Tcp { .. }).then(|| sender(exporter, span));
        if let (Ok(owner), Some(instance)) = (owner, &span.resource.service_instance_id) {
            if self.instances.len() >= INSTANCES_MAX {
                self.instances.clear();
            }
            self.instances.insert(instance.clone(), (owner, sender));
        }
        self.at(span, owner, sender)
    }

    /// Places a span that somebody asks about; `known` is its place where it was exported to us too.
    pub(super) fn place_asked(
        &mut self,
        connection: &Connection,
        span: &SpanIn,
        known: Option<Place>,
    ) -> Place {
        let instance = span.resource.service_instance_id.as_ref();
        let known = known
            .and_then(|place| Some((place.owner?, place.sender)))
            .or_else(|| instance.and_then(|instance| self.instances.get(instance).copied()));
        match known {
            Some((owner, sender)) => self.at(span, Ok(owner), sender),
            None => {
                let owner = self.owner(connection, span);
                self.at(span, owner, None)
            }
        }
    }

    /// Learns from a span whether its owner took its timestamps; once, behind the horizon.
    pub(super) fn learn(&mut self, place: &Place, span: &SpanFacts<'_>, presence: &dyn Presence) {
        if let Some(source) = source(place) {
            self.readers.observe(source, span, presence);
        }
    }

    /// Judges anew whose spans are whose, by the records up to the horizon; returns the sources for
    /// which that has changed.
    pub(super) fn judge(&mut self, horizon: Ns, presence: &dyn Presence) -> Vec<Source> {
        let changed = self.readers.judge(horizon, presence);
        if let Some(at) = self.readers.awaits() {
            self.shared.want(at);
        }
        changed
    }

    /// Whether a verdict waits for records that are there now.
    pub(super) fn is_due(&self, horizon: Ns) -> bool {
        self.readers.awaits().is_some_and(|at| at <= horizon)
    }

    /// Who exported it, or why that is not known (yet).
    fn owner(&mut self, connection: &Connection, span: &SpanIn) -> Result<ProcessId, Unplaced> {
        match self.origins.of(connection, &claim(&span.resource)) {
            Origin::Process(facts) => {
                self.shared.watch(facts.tgid);
                let sighting = Sighting {
                    tgid: facts.tgid,
                    start: facts.start,
                };
                self.observed(&sighting).ok_or(Unplaced::Yet(sighting))
            }
            Origin::Unknown(why) => {
                self.count_unknown(why.name());
                Err(Unplaced::Unknown(why.name()))
            }
        }
    }

    /// A place again, once the records behind its span's end are all there: what they do not tell of
    /// its process now, they never will.
    pub(super) fn settled(&self, place: Place) -> Place {
        let mut place = place;
        if let Some(sighting) = place.sighting.take() {
            place.owner = self.observed(&sighting);
            if place.owner.is_none() {
                self.count_unknown(NOT_OBSERVED);
            }
            place.why_unknown = place.owner.is_none().then_some(NOT_OBSERVED);
        }
        if place.owner.is_some() {
            place.why_unknown = self.doubt(&place);
            place.process = place.owner.filter(|_| place.why_unknown.is_none());
        }
        place
    }

    /// Why its owner is not held to have made a span.
    fn doubt(&self, place: &Place) -> Option<&'static str> {
        let named = place.sender.is_none_or(|sender| sender.named);
        match self.readers.reading(source(place)?) {
            Reading::Contradicted => Some(FOREIGN),
            Reading::Open if !named => Some(UNPROVED),
            Reading::Open | Reading::Shown => None,
        }
    }

    fn count_unknown(&self, why: &'static str) {
        let mut tally = self.shared.tally();
        *tally.unknown_processes.entry(why).or_default() += 1;
    }

    /// The process as the probes know it. A pid that was reused is another process.
    fn observed(&self, sighting: &Sighting) -> Option<ProcessId> {
        let process = self.shared.process(sighting.tgid)?;
        let suspended_ns = self.shared.clock.history().suspended_ns();
        let is_it = sighting.start.matches(process.start_ns, suspended_ns);
        is_it.then_some(process)
    }

    fn at(
        &self,
        span: &SpanIn,
        owner: Result<ProcessId, Unplaced>,
        sender: Option<Sender>,
    ) -> Place {
        // The newest sample must lie behind the span's end, or its end would seem to be in the future.
        let window = match self.shared.clock.to_monotonic(span.end_unix_ns) {
            Err(error) => nowhere(error),
            Ok(_) => {
                let history = self.shared.clock.history();
                window(&history, span.start_unix_ns, span.end_unix_ns)
            }
        };
        Place {
            process: None,
            owner: owner.ok(),
            sender,
            why_unknown: match owner {
                Ok(_) => None,
                Err(Unplaced::Unknown(why)) => Some(why),
                Err(Unplaced::Yet(_)) => Some(NOT_OBSERVED),
            },
            sighting: match owner {
                Err(Unplaced::Yet(sighting)) => Some(sighting),
                _ => None,
            },
            window,
        }
    }
}

/// Which service's spans came by which process.
fn source(place: &Place) -> Option<Source> {
    Some(Source {
        process: place.owner?,
        service: place.sender?.service,
    })
}

/// A resource of an SDK that comes by something else than that SDK's exporter is in doubt: it may
/// have come by a collector. One that names no SDK says nothing that could be contradicted.
fn sender(exporter: &Exporter, span: &SpanIn) -> Sender {
    let resource = &span.resource;
    let mut service = DefaultHasher::new();
    identity(resource).hash(&mut service);
    let language = resource.sdk_language.as_deref().unwrap_or_default();
    Sender {
        service: service.finish(),
        named: language.is_empty() || resource.process_pid.is_some() || exporter.is_of(language),
    }
}

fn identity(resource: &ResourceIn) -> &str {
    let instance = resource.service_instance_id.as_deref();
    instance
        .or(resource.service_name.as_deref())
        .unwrap_or_default()
}

fn claim(resource: &ResourceIn) -> Claim<'_> {
    Claim {
        identity: identity(resource),
        pid: resource.process_pid,
        executable: resource.executable_name.as_deref().unwrap_or_default(),
        language: resource.sdk_language.as_deref().unwrap_or_default(),
    }
}

fn nowhere(error: ClockError) -> Window {
    match error {
        ClockError::BeforeHistory => Window::TooOld,
        ClockError::InFuture | ClockError::AtStep => Window::Nowhere,
    }
}

/// The window of a span by the history of the clocks.
fn window(history: &ClockHistory, start_unix_ns: u64, end_unix_ns: u64) -> Window {
    let ends = history
        .to_monotonic(start_unix_ns)
        .and_then(|start| Ok((start, history.to_monotonic(end_unix_ns)?)));
    let (start, end): (Instant, Instant) = match ends {
        Ok(ends) => ends,
        Err(error) => return nowhere(error),
    };
    let wall_ns = end_unix_ns - start_unix_ns;
    let error_ns = start.error_ns.max(end.error_ns);
    let suspends_only = history
        .changes(start.ns, end.ns)
        .all(|change| matches!(change.change, Change::Suspend { .. }));
    let on_clock_ns = end.ns.saturating_sub(start.ns);
    if suspends_only && on_clock_ns <= wall_ns {
        return Window::At(SpanWindow {
            start: start.ns,
            end: start.ns + on_clock_ns,
            suspended_ns: wall_ns - on_clock_ns,
            error_ns,
        });
    }
    let window = SpanWindow {
        start: start.ns,
        end: start.ns.saturating_add(wall_ns),
        suspended_ns: 0,
        error_ns,
    };
    Window::Stepped(window, end.ns)
}

#[cfg(test)]
mod tests {
    use super::window;
    use crate::engine::spans::Window;
    use lacuna_host::clock::ClockHistory;
    use lacuna_host::clock::Sample;

    const SECOND: u64 = 1_000_000_000;

    fn history(samples: &[(u64, i64, u64)]) -> ClockHistory {
        let mut history = ClockHistory::new();
        for &(monotonic_ns, offset_ns, suspended_ns) in samples {
            history.push(&Sample {
                monotonic_ns,
                offset_ns,
                half_width_ns: 10,
                suspended_ns,
            });
        }
        history
    }

    #[test]
    fn a_span_keeps_its_length() {
        let offset = 1_000 * 1_000_000_000;
        let history = history(&[(SECOND, offset, 0), (9 * SECOND, offset, 0)]);
        let start = 1_002 * SECOND;
        let Window::At(at) = window(&history, start, start + 12_345) else {
            panic!("no window");
        };
        assert_eq!(
            (at.start, at.end - at.start, at.suspended_ns),
            (2 * SECOND, 12_345, 0)
        );
    }

    #[test]
    fn a_suspend_is_part_of_the_span_and_not_of_the_clock() {
        let offset = 1_000 * 1_000_000_000;
        let slept = offset + 5 * 1_000_000_000;
        let history = history(&[
            (SECOND, offset, 0),
            (2 * SECOND, offset, 0),
            (3 * SECOND, slept, 5 * SECOND),
            (9 * SECOND, slept, 5 * SECOND),
        ]);
        // From 1.5 s to 4 s on the clock that stood still: 2.5 s there, 7.5 s for the application.
        let start = 1_001 * SECOND + SECOND / 2;
        let Window::At(at) = window(&history, start, start + 7_500_000_000) else {
            panic!("no window");
        };
        assert_eq!(
            (at.end - at.start, at.suspended_ns),
            (2_500_000_000, 5 * SECOND)
        );
    }

    #[test]
    fn a_span_across_a_step_is_marked() {
        let offset = 1_000 * 1_000_000_000;
        let history = history(&[
            (SECOND, offset, 0),
            (2 * SECOND, offset, 0),
            (3 * SECOND, offset + 7_000_000_000, 0),
            (9 * SECOND, offset + 7_000_000_000, 0),
        ]);
        let start = 1_001 * SECOND + SECOND / 2;
        let marked = window(&history, start, start + 10 * SECOND);
        assert!(matches!(marked, Window::Stepped(..)), "{marked:?}");
        // It says that it took 10 s, and was over after 3.
        assert_eq!(marked.due(), 4 * SECOND + SECOND / 2);
    }
}
