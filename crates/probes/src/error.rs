// SPDX-License-Identifier: Apache-2.0
//! What can go wrong in loading and reading; each says what to do about it.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process may not load BPF programs.
    #[error(
        "{what}: not permitted; run as root or with CAP_BPF and CAP_PERFMON (before 5.8: CAP_SYS_ADMIN)"
    )]
    NotPermitted {
        /// What was being done.
        what: String,
    },
    /// The kernel carries no type information.
    #[error(
        "no BTF at /sys/kernel/btf/vmlinux: this kernel was built without CONFIG_DEBUG_INFO_BTF; use a distribution kernel of 5.10 or later"
    )]
    NoBtf,
    /// The kernel refused a program or a map.
    #[error("{what}: {why}")]
    Refused {
        /// What was being done, with the program's name.
        what: String,
        /// The text of the verifier or the operating system.
        why: String,
    },
    /// Reading from the kernel failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A value of the configuration is out of its range.
    #[error("{0}")]
    Config(String),
}
