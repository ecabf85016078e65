// SPDX-License-Identifier: Apache-2.0
//! Ids as hexadecimal text, as OTLP/JSON, the API and people write them.

/// The bytes that `text` stands for, in either case; nothing where it is not exactly that long.
pub(crate) fn decode<const LENGTH: usize>(text: &[u8]) -> Option<[u8; LENGTH]> {
    if text.len() != 2 * LENGTH {
        return None;
    }
    let mut bytes = [0; LENGTH];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(character: u8) -> Option<u8> {
    char::from(character)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Two lower-case digits for each byte.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    halves
        .filter_map(|half| char::from_digit(half.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::decode;
    use super::encode;

    #[test]
    fn reads_either_case_and_nothing_else() {
        assert_eq!(decode(b"00fFA9"), Some([0x00, 0xFF, 0xA9]));
        assert_eq!(encode(&[0x00, 0xFF, 0xA9]), "00ffa9");
        for bad in [&b"00fF"[..], b"00fFA9a", b"0x00ff", b"00ffg9", b""] {
            assert_eq!(decode::<3>(bad), None);
        }
    }
}
