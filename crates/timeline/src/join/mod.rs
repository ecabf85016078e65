// SPDX-License-Identifier: Apache-2.0
//! The join: which thread ran this span.
//!
//! A span's timestamps were taken by threads that were on a CPU at those instants. With every
//! switch of the process recorded, few threads are possible; this module learns, per process and
//! kind of span, when that may be believed (docs/design/0002-join.md). It does not know OTLP,
//! sockets or switch records: [`SpanFacts`] come in, [`Presence`] answers questions, a [`Joined`]
//! goes out. A wrong thread is worse than no thread: whatever is not shown is refused, with why.

mod facts;
mod presence;

pub use facts::ChildFacts;
pub use facts::Claim;
pub use facts::Claims;
pub use facts::GRAIN_NS_MAX;
pub use facts::How;
pub use facts::Joined;
pub use facts::KindId;
pub use facts::SpanFacts;
pub use facts::SpanKey;
pub use facts::Why;
pub use facts::grain_ns;
pub use presence::OnCpu;
pub use presence::Presence;
pub use presence::Running;
pub use presence::ThreadFacts;
