// SPDX-License-Identifier: Apache-2.0
//! A trace's id as people paste it.

use std::fmt;
use std::str::FromStr;

/// Hexadecimal digits of a trace id.
const DIGITS: usize = 32;

/// A trace id: 32 lower-case hexadecimal digits, not all of them 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TraceId(String);

impl TraceId {
    /// The digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TraceId {
    type Err = String;

    fn from_str(text: &str) -> Result<TraceId, String> {
        let text = text.trim();
        if text.len() != DIGITS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("a trace id has {DIGITS} hexadecimal digits"));
        }
        if text.bytes().all(|byte| byte == b'0') {
            return Err("the trace id of all zeros is no trace's".to_owned());
        }
        Ok(TraceId(text.to_ascii_lowercase()))
    }
}
