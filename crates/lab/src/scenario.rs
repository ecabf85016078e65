// SPDX-License-Identifier: Apache-2.0
//! The scenarios, a file each. Each begins with its story and with where its truth comes from.

pub(crate) mod cpu_contention;
pub(crate) mod cpu_throttle;
pub(crate) mod event_loop;
pub(crate) mod lock_owner_preempted;
pub(crate) mod nagle;
pub(crate) mod netem_delay;
pub(crate) mod netem_loss;
pub(crate) mod peer_slow;
pub(crate) mod syn_drop;
pub(crate) mod tcp_rto;
pub(crate) mod tcp_rto_response;
pub(crate) mod veth_drop;
