// SPDX-License-Identifier: Apache-2.0
//! What depends on the processor architecture in user space: the meaning of system call numbers.
//! The kernel side's part is `src/bpf/arch.bpf.h`. x86-64 is what is built and proved.

mod x86_64;

pub(crate) use x86_64::CALL_FUTEX;
pub(crate) use x86_64::CALL_POLL;
pub(crate) use x86_64::CALL_SLEEP;
pub(crate) use x86_64::class;
pub(crate) use x86_64::meaning;
