// SPDX-License-Identifier: Apache-2.0
//! Placing a span: whose it is, and where it lies on the kernel's clock.

use std::collections::HashMap;
use std::sync::Arc;

use lacuna_host::clock::Change;
use lacuna_host::clock::ClockError;
use lacuna_host::clock::ClockHistory;
use lacuna_host::clock::Instant;
use lacuna_timeline::event::ProcessId;

use crate::explain::SpanWindow;
use crate::otlp::ResourceIn;
use crate::otlp::SpanIn;
use crate::serve::Connection;

use super::origin::Claim;
use super::origin::Origin;
use super::origin::Origins;
use super::shared::Shared;
use super::spans::Place;
use super::spans::Sighting;
use super::spans::Window;

/// How many service instances are remembered with their processes; at the limit all are forgotten
/// and learned again from their next batches.
const INSTANCES_MAX: usize = 4_096;

/// The process is known, and the probes have not seen any thread of it.
const NOT_OBSERVED: &str = "not-observed";

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
    /// Which process exported the spans of a `service.instance.id`: for questions about spans that
    /// went another way.
    instances: HashMap<Box<str>, ProcessId>,
}

impl Placer {
    /// Knows no process yet.
    pub(super) fn new(origins: Origins, shared: Arc<Shared>) -> Placer {
        Placer {
            origins,
            shared,
            instances: HashMap::new(),
        }
    }

    /// Places a span that came over a connection.
    pub(super) fn place(&mut self, connection: &Connection, span: &SpanIn) -> Place {
        let process = self.process(connection, span);
        if let (Ok(process), Some(instance)) = (process, &span.resource.service_instance_id) {
            if self.instances.len() >= INSTANCES_MAX {
                self.instances.clear();
            }
            self.instances.insert(instance.clone(), process);
        }
        self.at(span, process)
    }

    /// Places a span that somebody asks about; `known` is its process where it was exported to us too.
    pub(super) fn place_asked(
        &mut self,
        connection: &Connection,
        span: &SpanIn,
        known: Option<ProcessId>,
    ) -> Place {
        let instance = span.resource.service_instance_id.as_ref();
        let process = known
            .or_else(|| instance.and_then(|instance| self.instances.get(instance).copied()))
            .map_or_else(|| self.process(connection, span), Ok);
        self.at(span, process)
    }

    /// Its process, or why that is not known (yet).
    fn process(&mut self, connection: &Connection, span: &SpanIn) -> Result<ProcessId, Unplaced> {
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
        let Some(sighting) = place.sighting else {
            return place;
        };
        let process = self.observed(&sighting);
        if process.is_none() {
            self.count_unknown(NOT_OBSERVED);
        }
        Place {
            process,
            why_unknown: process.is_none().then_some(NOT_OBSERVED),
            sighting: None,
            ..place
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

    fn at(&self, span: &SpanIn, process: Result<ProcessId, Unplaced>) -> Place {
        // The newest sample must lie behind the span's end, or its end would seem to be in the future.
        let window = match self.shared.clock.to_monotonic(span.end_unix_ns) {
            Err(error) => nowhere(error),
            Ok(_) => {
                let history = self.shared.clock.history();
                window(&history, span.start_unix_ns, span.end_unix_ns)
            }
        };
        Place {
            process: process.ok(),
            why_unknown: match process {
                Ok(_) => None,
                Err(Unplaced::Unknown(why)) => Some(why),
                Err(Unplaced::Yet(_)) => Some(NOT_OBSERVED),
            },
            sighting: match process {
                Err(Unplaced::Yet(sighting)) => Some(sighting),
                _ => None,
            },
            window,
        }
    }
}

fn claim(resource: &ResourceIn) -> Claim<'_> {
    let identity = resource.service_instance_id.as_deref();
    Claim {
        identity: identity
            .or(resource.service_name.as_deref())
            .unwrap_or_default(),
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
    Window::Stepped(SpanWindow {
        start: start.ns,
        end: start.ns.saturating_add(wall_ns),
        suspended_ns: 0,
        error_ns,
    })
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
        assert!(matches!(marked, Window::Stepped(_)), "{marked:?}");
    }
}
