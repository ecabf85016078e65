// SPDX-License-Identifier: Apache-2.0
//! The feed: from the kernel's ring into the recorder, and the horizon with it.
//!
//! One thread owns the probes. It drains when the ring asks for it, reads the loss counters each
//! second, keeps the record budget (rule 16), and, when somebody waits for an answer, proves how far
//! the records reach (rule 10): an instant is taken, the ring is drained past it, every silent
//! thread is looked at, and the counters are read once more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use lacuna_host::Root;
use lacuna_host::clock::monotonic_ns;
use lacuna_host::symbols::KernelSymbols;
use lacuna_probes::Config;
use lacuna_probes::Counters;
use lacuna_probes::Probes;
use lacuna_timeline::Event;
use lacuna_timeline::Ns;
use lacuna_timeline::event::Doubt;
use lacuna_timeline::event::DoubtReason;
use lacuna_timeline::recorder::Recorder;

use crate::doctor::obstacle;
use crate::patience::Patience;

use super::shared::Shared;
use super::watch::Watcher;

/// How long the feed sleeps at most: then it looks whether somebody waits for the horizon.
const TURN: Duration = Duration::from_millis(50);

/// How often the horizon may be moved: a look at every thread of the host costs about a
/// microsecond a thread.
const CONFIRM_EVERY: Duration = Duration::from_millis(250);

/// How often the loss counters are read when nobody waits.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Owns the probes and fills the recorder.
pub(crate) struct Feed {
    probes: Probes,
    shared: Arc<Shared>,
    watcher: Watcher,
    counted: Counters,
    counted_at: Instant,
    confirmed_at: Instant,
}

impl Feed {
    /// Loads and attaches the probes.
    ///
    /// # Errors
    /// The kernel refused them; the message says what is missing.
    pub(crate) fn load(config: &Config, watcher: Watcher, shared: Arc<Shared>) -> Result<Feed> {
        // Some of these the kernel would not refuse, and then every answer were wrong or empty; of the
        // others it says less than is known.
        if let Some(obstacle) = obstacle(&Root::host()) {
            bail!("cannot load the probes: {obstacle}");
        }
        let patience = Patience::with("loading the probes into the kernel");
        let mut symbols = KernelSymbols::new(Root::host());
        let symbolize = Box::new(move |addresses: &[u64]| symbols.symbolize(addresses));
        let mut probes = Probes::load(config, symbolize).context("cannot load the probes")?;
        let counted = probes.counters()?;
        drop(patience);
        shared.recorder().begin(counted.at);
        Ok(Feed {
            probes,
            shared,
            watcher,
            counted,
            counted_at: Instant::now(),
            confirmed_at: Instant::now(),
        })
    }

    /// The probes, for what only `run` does with them.
    pub(crate) fn probes(&mut self) -> &mut Probes {
        &mut self.probes
    }

    /// One turn: wait for records, take them, and do what is due. `tap` sees each event first.
    ///
    /// # Errors
    /// The kernel can no longer be read; nothing can be answered then.
    pub(crate) fn turn(&mut self, tap: &mut dyn FnMut(&Event)) -> Result<()> {
        self.probes.wait(TURN)?;
        let records = self.drain(tap)?.0;
        self.watcher
            .drained(records, &mut self.probes, &self.shared)?;
        if self.counted_at.elapsed() >= COUNT_EVERY {
            self.count()?;
        }
        if self.confirmed_at.elapsed() >= CONFIRM_EVERY && self.shared.horizon_is_wanted() {
            self.confirm(tap)?;
        }
        Ok(())
    }

    /// Moves the horizon to now, and says where it is.
    ///
    /// # Errors
    /// As for [`Feed::turn`].
    pub(crate) fn confirm(&mut self, tap: &mut dyn FnMut(&Event)) -> Result<Ns> {
        let at = monotonic_ns();
        let (_, drained) = self.drain(tap)?;
        let shared = self.shared.clone();
        {
            let mut recorder = shared.recorder();
            let watcher = &mut self.watcher;
            self.probes.snapshot(&mut |event| {
                take(event, &shared, watcher, &mut recorder, tap);
            })?;
        }
        // A record that was written while the iterator looked may contradict what it saw.
        self.drain(tap)?;
        self.count()?;
        let horizon = at.min(drained);
        shared.recorder().confirm(horizon);
        shared.move_horizon(horizon);
        self.confirmed_at = Instant::now();
        Ok(horizon)
    }

    /// Takes what is in the ring; says how many records, and up to where it is complete.
    fn drain(&mut self, tap: &mut dyn FnMut(&Event)) -> Result<(u64, Ns)> {
        let shared = self.shared.clone();
        let mut recorder = shared.recorder();
        let watcher = &mut self.watcher;
        let drained = self.probes.drain(&mut |event| {
            take(event, &shared, watcher, &mut recorder, tap);
        })?;
        Ok((drained.records, drained.horizon))
    }

    /// Reads the loss counters; what moved since the last time puts that stretch in doubt (rule 9).
    fn count(&mut self) -> Result<()> {
        let now = self.probes.counters()?;
        let was = std::mem::replace(&mut self.counted, now);
        let now = &self.counted;
        let moved = [
            (DoubtReason::RingFull, now.ring_drops, was.ring_drops),
            (
                DoubtReason::StorageFailed,
                now.storage_failures,
                was.storage_failures,
            ),
            (
                DoubtReason::ProgramSkipped,
                now.programs_skipped,
                was.programs_skipped,
            ),
        ];
        let mut recorder = self.shared.recorder();
        for (reason, now_count, was_count) in moved {
            if now_count != was_count {
                let (from, to) = (was.at, now.at);
                recorder.push(Event::Doubt(Doubt { from, to, reason }));
            }
        }
        self.shared
            .lost_records
            .store(now.ring_drops, Ordering::Relaxed);
        self.shared.counters().clone_from(&self.counted);
        self.counted_at = Instant::now();
        Ok(())
    }
}

/// Gives an event to all who want it.
fn take(
    event: Event,
    shared: &Shared,
    watcher: &mut Watcher,
    recorder: &mut Recorder,
    tap: &mut dyn FnMut(&Event),
) {
    if let Event::Thread(info) = &event {
        shared.note(info);
        watcher.seen(info);
    }
    tap(&event);
    recorder.push(event);
}
