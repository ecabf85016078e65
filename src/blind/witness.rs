// SPDX-License-Identifier: Apache-2.0
//! Who was to blame for the gap of each burst: the process of the bursts under observation, by the engine
//! that `lacuna run` uses.
//!
//! Only that process is watched. Its thread is known before the first burst, because it waits for its
//! orders while the probes are attached.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use lacuna_host::Root;
use lacuna_probes::Config;
use lacuna_probes::Watch;
use lacuna_timeline::Ns;
use lacuna_timeline::ThreadId;
use lacuna_timeline::recorder::BUDGET_BYTES;
use lacuna_timeline::recorder::Recorder;

use crate::answer::CauseAnswer;
use crate::engine::Feed;
use crate::engine::Shared;
use crate::engine::Watcher;
use crate::explain::Names;
use crate::explain::causes;

/// How long it may take until everything about the last burst is proved.
const PROVE_WITHIN: Duration = Duration::from_secs(10);

/// Probes on one process.
pub(super) struct Witness {
    feed: Feed,
    shared: Arc<Shared>,
    pid: u32,
}

impl Witness {
    /// Watches a process that sleeps.
    ///
    /// # Errors
    /// The probes cannot be loaded; the message says what is missing.
    pub(super) fn of(pid: u32) -> Result<Witness> {
        let root = Root::host();
        let shared = Arc::new(Shared::new(&root, Recorder::new(BUDGET_BYTES))?);
        let config = Config {
            watch: Watch::Selected,
            ignore_tgid: Some(std::process::id()),
            ..Config::default()
        };
        let mut feed = Feed::load(&config, Watcher::fixed(&root), shared.clone())?;
        feed.probes().watch_process(pid)?;
        feed.confirm(&mut |_| {})?;
        Ok(Witness { feed, shared, pid })
    }

    /// Takes what the kernel has recorded; waits a little where that is nothing.
    ///
    /// # Errors
    /// The kernel can no longer be read.
    pub(super) fn look(&mut self) -> Result<()> {
        self.feed.turn(&mut |_| {})
    }

    /// Waits until everything up to `until` is proved.
    ///
    /// # Errors
    /// The kernel can no longer be read, or the thread never appeared.
    pub(super) fn prove(&mut self, until: Ns) -> Result<ThreadId> {
        let deadline = Instant::now() + PROVE_WITHIN;
        loop {
            self.feed.confirm(&mut |_| {})?;
            let recorder = self.shared.recorder();
            let thread = thread_of(&recorder, self.pid);
            let proved = thread.and_then(|thread| recorder.proved_until(thread));
            let late = Instant::now() > deadline;
            match thread {
                Some(thread) if late || proved.is_some_and(|proved| proved >= until) => {
                    return Ok(thread);
                }
                None if late => bail!("the thread of the bursts was never seen"),
                _ => {}
            }
        }
    }

    /// Where the time of some windows of that thread went, together; adds up to them.
    ///
    /// # Errors
    /// The sums do not hold: a defect of Lacuna.
    pub(super) fn causes(
        &self,
        thread: ThreadId,
        windows: &[Range<Ns>],
    ) -> Result<Vec<CauseAnswer>> {
        let recorder = self.shared.recorder();
        let account = recorder.account(thread, windows);
        account
            .check()
            .map_err(|violation| anyhow::anyhow!("{violation:?}"))
            .context("a sum does not hold, which is a defect of lacuna")?;
        let names = Names {
            recorder: &recorder,
            cgroups: &self.shared.cgroups,
        };
        Ok(causes(&account, &names))
    }

    /// Kernel records that were lost since it watches.
    pub(super) fn lost_records(&self) -> u64 {
        self.shared.lost_records.load(Ordering::Relaxed)
    }
}

fn thread_of(recorder: &Recorder, pid: u32) -> Option<ThreadId> {
    let mut threads = recorder.threads();
    let own = threads.find(|info| info.tid == pid && info.process.tgid == pid);
    own.map(|info| info.thread)
}
