// SPDX-License-Identifier: Apache-2.0
//! From accounts to answers: ids get names, causes get their evidence, and a span gets its answer.
//!
//! The account has already been decided (`lacuna-timeline`); nothing here moves a nanosecond from
//! one cause to another. What is added is who a number stands for: `comm` and tid of a thread, path
//! of a cgroup, both ends of a connection, functions of a stack.

mod causes;
mod conceal;
mod names;
mod net;
mod others;
mod span;

pub(crate) use causes::causes;
pub(crate) use conceal::conceal_others;
pub(crate) use names::CgroupNames;
pub(crate) use names::Names;
pub(crate) use others::Other;
pub(crate) use span::Facts;
pub(crate) use span::SpanWindow;
pub(crate) use span::answer;
pub(crate) use span::without_thread;
