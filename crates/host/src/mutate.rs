// SPDX-License-Identifier: Apache-2.0
//! For tests: texts near a good one, to prove that a parser is total. Seeded, so that a failure
//! comes again; a parser that panics, overflows or does not end fails the test that feeds it.

/// How many texts come of one.
const TEXTS: u64 = 2_000;

/// What hostile or broken text is made of: digits, separators of all formats, and what is no ASCII.
const LETTERS: [&str; 20] = [
    "0",
    "9",
    "f",
    "-",
    ":",
    ",",
    "/",
    " ",
    "\t",
    "\n",
    "(",
    ")",
    "[",
    "]",
    "\\",
    "\\8",
    ".",
    "é",
    "\0",
    "99999999999999999999",
];

/// Texts that differ from `good` by a few cuts, insertions and repetitions.
pub(crate) fn mutations(good: &str) -> impl Iterator<Item = String> + '_ {
    (1..=TEXTS).map(move |seed| {
        let mut state = seed;
        let mut letters: Vec<char> = good.chars().collect();
        for _ in 0..1 + below(&mut state, 6) {
            let at = below(&mut state, letters.len() + 1);
            match below(&mut state, 3) {
                0 => letters.truncate(at),
                1 => {
                    let length = below(&mut state, 8).min(letters.len() - at);
                    letters.drain(at..at + length);
                }
                _ => {
                    let letter = LETTERS[below(&mut state, LETTERS.len())];
                    letters.splice(at..at, letter.chars());
                }
            }
        }
        letters.into_iter().collect()
    })
}

/// Bytes that differ from `good` by a few flips and cuts.
pub(crate) fn broken_bytes(good: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (1..=TEXTS).map(move |seed| {
        let mut state = seed;
        let mut bytes = good.to_vec();
        for _ in 0..1 + below(&mut state, 6) {
            let at = below(&mut state, bytes.len() + 1);
            match bytes.get_mut(at) {
                Some(byte) if below(&mut state, 4) > 0 => {
                    *byte = u8::try_from(below(&mut state, 256)).unwrap();
                }
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

/// A number below `limit`, by SplitMix64 (Steele, Lea, Flood: OOPSLA 2014).
fn below(state: &mut u64, limit: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
}
