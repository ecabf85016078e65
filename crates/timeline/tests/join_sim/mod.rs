// SPDX-License-Identifier: Apache-2.0
//! A seeded simulator of programs, whose every span's true thread is known.

pub(crate) mod cases;
pub(crate) mod core;
pub(crate) mod host;
pub(crate) mod observe;
pub(crate) mod programs;
pub(crate) mod record;
