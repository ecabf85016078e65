// SPDX-License-Identifier: Apache-2.0
//! The handle that the engine holds: wait, drain, snapshot, count, and choose who is watched.

use crate::config::Config;
use crate::config::Counters;
use crate::config::Drained;
use crate::config::RunStats;
use crate::config::Watch;
use crate::error::Error;
use crate::load;
use crate::load::Loaded;
use crate::load::refused;
use crate::log;
use crate::record::KIND_NAMES;
use crate::record::decode;
use crate::record::length;
use crate::ring::Ring;
use crate::skel::types::watch_bits;
use crate::stats;
use lacuna_timeline::event::Event;
use lacuna_timeline::event::Ns;
use libbpf_rs::Iter;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use std::io::Read;
use std::os::fd::AsFd;
use std::time::Duration;

/// Turns return addresses into function names, innermost first, one for each address.
pub type Symbolize = Box<dyn FnMut(&[u64]) -> Vec<Box<str>> + Send>;

/// A program takes the time before it reserves its record. It runs with interrupts off and needs
/// some hundred nanoseconds, so the horizon stays this far behind; the kernel side keeps the same
/// distance in the snapshot (`IN_FLIGHT_NS`).
const IN_FLIGHT_NS: Ns = 1_000_000;

/// The loaded kernel side. Dropping it, or the death of the process, detaches everything.
pub struct Probes {
    decoder: Decoder,
    ring: Ring,
    loaded: Loaded,
    config: Config,
    horizon: Ns,
}

/// What turns bytes into events, and counts what it met.
struct Decoder {
    symbolize: Symbolize,
    by_kind: [u64; KIND_NAMES.len()],
    unknown: u64,
}

impl Decoder {
    fn give(&mut self, bytes: &[u8], on_event: &mut dyn FnMut(Event)) {
        match decode(bytes, &mut self.symbolize) {
            Some((kind, event)) => {
                self.by_kind[kind] += 1;
                on_event(event);
            }
            None => self.unknown += 1,
        }
    }
}

impl Probes {
    /// Opens, loads and attaches. `symbolize` turns the addresses of a kernel stack into names; it
    /// is called once a stack.
    ///
    /// # Errors
    ///
    /// Which program, map or right is missing, with the words of the verifier.
    pub fn load(config: &Config, symbolize: Symbolize) -> Result<Probes, Error> {
        log::start();
        let loaded = load::load(config)?;
        let ring = Ring::map(
            loaded.skel.maps.ring.as_fd(),
            load::ring_bytes(config.ring_bytes),
        )?;
        Ok(Probes {
            decoder: Decoder {
                symbolize,
                by_kind: [0; KIND_NAMES.len()],
                unknown: 0,
            },
            ring,
            loaded,
            config: config.clone(),
            horizon: 1,
        })
    }

    /// Waits until a quarter of the ring is filled (true) or the timeout is over (false). Below that
    /// mark nobody is woken, so the timeout is how stale what is drained may be.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to wait.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        self.ring.wait(timeout)
    }

    /// Gives out every record that is in the ring now, in the order of reservation.
    ///
    /// # Errors
    ///
    /// None at present; reading memory does not fail.
    pub fn drain(&mut self, on_event: &mut dyn FnMut(Event)) -> Result<Drained, Error> {
        let before = stats::now();
        let mut records = 0;
        let whole = self.ring.read(&mut |bytes| {
            records += 1;
            self.decoder.give(bytes, on_event);
        });
        if whole {
            self.horizon = self.horizon.max(before.saturating_sub(IN_FLIGHT_NS));
        }
        Ok(Drained {
            records,
            horizon: self.horizon,
        })
    }

    /// Looks at every thread of the host: `Event::Thread` for those never told before, and
    /// `Event::Snapshot` for those whose switches are recorded and that were silent just then.
    ///
    /// # Errors
    ///
    /// If the iterator cannot be read.
    pub fn snapshot(&mut self, on_event: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let mut iterator =
            Iter::new(&self.loaded.iterator).map_err(refused("starting the task iterator"))?;
        let mut bytes = Vec::new();
        iterator
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Io {
                what: "reading the task iterator",
                source,
            })?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let Some((record, after)) = length(rest).and_then(|n| rest.split_at_checked(n)) else {
                self.decoder.unknown += 1;
                break;
            };
            self.decoder.give(record, on_event);
            rest = after;
        }
        Ok(())
    }

    /// Reads every counter.
    ///
    /// # Errors
    ///
    /// If the kernel does not let them be read.
    pub fn counters(&mut self) -> Result<Counters, Error> {
        let mut counters = Counters {
            unknown_records: self.decoder.unknown,
            records_by_kind: KIND_NAMES
                .into_iter()
                .zip(self.decoder.by_kind)
                .skip(1)
                .collect(),
            ..Counters::default()
        };
        stats::read(&self.loaded.skel, &mut counters)?;
        Ok(counters)
    }

    /// Watches a process from its threads' next switches on. To be undone when it has ended: the
    /// number may be given to another.
    ///
    /// # Errors
    ///
    /// If too many are selected.
    pub fn watch_process(&mut self, tgid: u32) -> Result<(), Error> {
        self.watch_as(tgid, watch_bits::WATCH_PROCESS)
    }

    /// Watches a process and everything that it starts from now on, and what that starts.
    ///
    /// # Errors
    ///
    /// If too many are selected.
    pub fn watch_descendants(&mut self, tgid: u32) -> Result<(), Error> {
        self.watch_as(tgid, watch_bits::WATCH_DESCENDANTS)
    }

    fn watch_as(&mut self, tgid: u32, bits: watch_bits) -> Result<(), Error> {
        let processes = &self.loaded.skel.maps.watched_processes;
        processes
            .update(&tgid.to_ne_bytes(), &bits.0.to_ne_bytes(), MapFlags::ANY)
            .map_err(refused(format!("watching process {tgid}")))?;
        load::reconsider(&mut self.loaded.skel)
    }

    /// Takes a process out of the selection. What `watch_descendants` made it start stays watched.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; a process that was not selected is none.
    pub fn unwatch_process(&mut self, tgid: u32) -> Result<(), Error> {
        let processes = &self.loaded.skel.maps.watched_processes;
        match processes.delete(&tgid.to_ne_bytes()) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => {
                Err(refused(format!("unwatching process {tgid}"))(error))
            }
            _ => load::reconsider(&mut self.loaded.skel),
        }
    }

    /// Which processes are selected now, also those that were because they connected to a port.
    pub fn watched_processes(&self) -> Vec<u32> {
        let processes = &self.loaded.skel.maps.watched_processes;
        processes
            .keys()
            .filter_map(|key| Some(u32::from_ne_bytes(key.try_into().ok()?)))
            .collect()
    }

    /// Changes whose switches are recorded, from each thread's next switch on.
    ///
    /// # Errors
    ///
    /// If the programs' shared data is missing.
    pub fn set_watch(&mut self, watch: Watch) -> Result<(), Error> {
        self.config.watch = watch;
        load::apply(&mut self.loaded.skel, watch, self.config.merge_short)
    }

    /// Merges short cycles from now on, or no longer (rule 11).
    ///
    /// # Errors
    ///
    /// If the programs' shared data is missing.
    pub fn set_merge_short(&mut self, on: bool) -> Result<(), Error> {
        self.config.merge_short = on;
        load::apply(&mut self.loaded.skel, self.config.watch, on)
    }

    /// Changes the ports that make a connecting process watched.
    ///
    /// # Errors
    ///
    /// If there are more than `OTLP_PORTS_MAX`.
    pub fn set_ports(&mut self, ports: &[u16]) -> Result<(), Error> {
        load::set_ports(&mut self.loaded.skel, ports)
    }

    /// Has objects and stacks sent again when they are next met, for a reader that forgot them.
    ///
    /// # Errors
    ///
    /// If the programs' shared data is missing.
    pub fn resend(&mut self) -> Result<(), Error> {
        let control = load::control(&mut self.loaded.skel)?;
        control.sent_generation = control.sent_generation.wrapping_add(1);
        Ok(())
    }

    /// Measures the programs for that long; the kernel's statistics are on only meanwhile (rule 23).
    ///
    /// # Errors
    ///
    /// If the kernel does not let them be switched on.
    pub fn run_stats(&mut self, window: Duration) -> Result<RunStats, Error> {
        stats::measure(&self.loaded.skel, window)
    }

    /// How many programs are attached, the iterator not counted.
    pub fn attached(&self) -> usize {
        self.loaded.links.len()
    }
}
