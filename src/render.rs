// SPDX-License-Identifier: Apache-2.0
//! Text for people, and JSON for programs, from the types of `answer.rs` alone.
//!
//! Every function here is pure: an answer and a [`Style`] in, a string out, with a newline at its
//! end. Nothing is decided and nothing is looked up, so that text can say nothing that JSON does not.
//!
//! Names in an answer come from observed programs and are hostile: everything goes through
//! `plain.rs` before it reaches a terminal.

mod blame;
mod blind;
mod causes;
mod chart;
mod events;
mod lab;
mod paint;
mod plain;
mod quantity;
mod run;
mod spans;
#[cfg(test)]
mod tests;
mod tree;

use serde::Serialize;

pub(crate) use blind::blind;
pub(crate) use chart::chart;
pub(crate) use events::events;
pub(crate) use lab::lab;
pub(crate) use lab::scenarios;
pub(crate) use paint::Style;
pub(crate) use plain::plain_up_to;
pub(crate) use quantity::count;
pub(crate) use quantity::duration;
pub(crate) use quantity::grouped;
pub(crate) use quantity::percent;
pub(crate) use run::run;
pub(crate) use spans::explanation;

/// Any answer as one line of JSON.
///
/// # Errors
///
/// None of the types of `answer.rs` has any; `serde_json`'s own are passed on.
pub(crate) fn json(answer: &impl Serialize) -> Result<String, serde_json::Error> {
    let raw = serde_json::to_string(answer)?;
    let mut line = String::with_capacity(raw.len() + 1);
    for c in raw.chars() {
        match plain::is_hostile(c) {
            // JSON's own escape: such characters are only ever inside its strings.
            true => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    line.push_str(&format!("\\u{unit:04x}"));
                }
            }
            false => line.push(c),
        }
    }
    line.push('\n');
    Ok(line)
}
