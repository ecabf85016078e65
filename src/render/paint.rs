// SPDX-License-Identifier: Apache-2.0
//! Colours and bars: on a terminal only, and never the only carrier of a meaning.

use std::io::IsTerminal;

use lacuna_timeline::Cause;

use super::quantity::Column;

/// Cells of a bar.
const BAR_CELLS: u64 = 12;
/// Eighths of a cell, from one to seven.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// How text is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Style {
    /// Escape sequences that colour.
    pub(crate) colour: bool,
    /// Bars beside the causes.
    pub(crate) bars: bool,
    /// Public names, exact nanoseconds, all evidence, nothing shortened.
    pub(crate) verbose: bool,
}

impl Style {
    /// The style for what is written to `stream`: plain unless it is a terminal. `NO_COLOR` (set and
    /// not empty, as no-color.org has it) forbids colours; `TERM=dumb` everything.
    pub(crate) fn of(stream: &impl IsTerminal, verbose: bool) -> Style {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let people = stream.is_terminal() && !dumb;
        Style {
            colour: people && !set("NO_COLOR"),
            bars: people,
            verbose,
        }
    }

    /// The column for durations of up to `max_ns`.
    pub(super) fn column(self, max_ns: u64) -> Column {
        if self.verbose {
            Column::EXACT
        } else {
            Column::fitting(max_ns)
        }
    }

    /// What the text says a cause is.
    pub(super) fn cause(self, cause: Cause) -> &'static str {
        if self.verbose {
            cause.name()
        } else {
            cause.phrase()
        }
    }

    /// What a line is about.
    pub(super) fn strong(self, text: &str) -> String {
        self.painted("1", text)
    }

    /// What stands beside it.
    pub(super) fn faint(self, text: &str) -> String {
        self.painted("2", text)
    }

    /// A cause, in the colour of its group.
    pub(super) fn tinted(self, cause: Cause, text: &str) -> String {
        self.painted(colour(cause), text)
    }

    /// A bar for `part` of `whole`, with a space before it; nothing where bars are not wanted.
    pub(super) fn bar(self, cause: Cause, part: u64, whole: u64) -> String {
        if !self.bars {
            return String::new();
        }
        let wanted = u128::from(part) * u128::from(BAR_CELLS * 8);
        let eighths = wanted.checked_div(u128::from(whole)).unwrap_or(0);
        let eighths = usize::try_from(eighths.min(u128::from(BAR_CELLS * 8))).unwrap_or(0);
        let mut bar = "█".repeat(eighths / 8);
        bar.extend(
            (eighths % 8)
                .checked_sub(1)
                .and_then(|last| EIGHTHS.get(last)),
        );
        let blank = " ".repeat((BAR_CELLS as usize).saturating_sub(bar.chars().count()));
        format!("  {}{blank}", self.tinted(cause, &bar))
    }

    fn painted(self, code: &str, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// SGR colours that are readable on light and dark: one for each group of causes.
fn colour(cause: Cause) -> &'static str {
    match cause {
        Cause::Unknown => "90",
        Cause::Throttle | Cause::RunqPreempted | Cause::RunqWakeup | Cause::RunqIdle => "33",
        Cause::MemCompaction
        | Cause::MemLimit
        | Cause::MemReclaim
        | Cause::MemOom
        | Cause::MemSwap
        | Cause::MemFault => "35",
        Cause::DiskDirty
        | Cause::DiskLimit
        | Cause::FsRemote
        | Cause::DiskFlush
        | Cause::DiskRead
        | Cause::DiskWrite => "34",
        Cause::NetRetransmit
        | Cause::NetNagle
        | Cause::NetConnect
        | Cause::NetSend
        | Cause::NetAck
        | Cause::NetPeer
        | Cause::NetDatagram
        | Cause::NetIdle => "36",
        Cause::LockFutex | Cause::LockKernel => "31",
        Cause::WaitNotify
        | Cause::WaitSleep
        | Cause::WaitPipe
        | Cause::WaitChild
        | Cause::WaitPoll
        | Cause::WaitStopped
        | Cause::WaitOther => "37",
        Cause::Cpu => "32",
    }
}
