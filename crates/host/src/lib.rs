// SPDX-License-Identifier: Apache-2.0
//! Facts about the host, without eBPF.
