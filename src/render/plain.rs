// SPDX-License-Identifier: Apache-2.0
//! Hostile text made harmless: what an observed program calls itself may not move a cursor, colour a
//! line, ring a bell, or make text read as something else.
//!
//! Such characters are shown as escapes rather than dropped, because they are evidence. Columns are
//! counted in characters: wide scripts may be off by some, never unsafe.

/// Longest text of a program's own that is shown in one place, characters.
pub(super) const TEXT_CHARS_MAX: usize = 120;

/// Whether a terminal could act on this character, or a reader be misled by it: control characters
/// (C0, DEL, C1) and the invisible and direction-changing ones of Unicode.
pub(super) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with every hostile character escaped, cut to [`TEXT_CHARS_MAX`].
pub(super) fn plain(text: &str) -> String {
    plain_up_to(text, TEXT_CHARS_MAX)
}

/// The text with every hostile character escaped, cut to `chars_max` with an ellipsis.
pub(crate) fn plain_up_to(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    let mut chars = 0;
    for c in text.chars() {
        let piece = match c {
            '\n' => "\\n".to_owned(),
            '\t' => "\\t".to_owned(),
            c if !is_hostile(c) => c.to_string(),
            c if (c as u32) < 0x100 => format!("\\x{:02x}", c as u32),
            c => format!("\\u{{{:x}}}", c as u32),
        };
        chars += width(&piece);
        if chars > chars_max {
            while width(&shown) >= chars_max.max(1) {
                shown.pop();
            }
            shown.push('…');
            return shown;
        }
        shown.push_str(&piece);
    }
    shown
}

/// How many columns a text takes, as far as it can be told without tables.
pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text with spaces after it, `columns` wide.
pub(super) fn left(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// The text with spaces before it, `columns` wide.
pub(super) fn right(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}
