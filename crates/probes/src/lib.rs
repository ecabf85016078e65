// SPDX-License-Identifier: Apache-2.0
//! The kernel side and its loader.
