// SPDX-License-Identifier: Apache-2.0
//! The protobuf wire format, read in place: a message is a walk over its fields.
//!
//! Not a protobuf library. Nothing is allocated, so a message of many tiny parts costs no more
//! memory than its bytes, which a decoder that builds the whole message cannot promise (an empty
//! span is 2 bytes sent and some 300 decoded). The walk is total: any bytes give fields or
//! [`Malformed`].

use std::fmt;

/// Why bytes are no protobuf message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Malformed {
    /// They end in the middle of a field.
    Truncated,
    /// A number is longer than ten bytes, or does not fit 64 bits.
    Varint,
    /// A field number of 0, or above 2^29 - 1.
    FieldNumber,
    /// A wire type that does not exist, or a group, which the language gave up before OTLP existed.
    WireType(u8),
    /// A known field does not have its type.
    FieldType(u32),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "it ends in the middle of a field"),
            Self::Varint => write!(f, "a number is too long"),
            Self::FieldNumber => write!(f, "a field has an impossible number"),
            Self::WireType(wire_type) => write!(f, "a field has the unknown wire type {wire_type}"),
            Self::FieldType(number) => write!(f, "field {number} has the wrong type"),
        }
    }
}

/// A field's value by wire type, with the field's number for the message when it is the wrong one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    value: Wire<'a>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Field<'a> {
    /// The value of a `string`, `bytes` or message field.
    pub(super) fn bytes(&self) -> Result<&'a [u8], Malformed> {
        match self.value {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed::FieldType(self.number)),
        }
    }

    /// The value of a `fixed64` field.
    pub(super) fn fixed64(&self) -> Result<u64, Malformed> {
        match self.value {
            Wire::Fixed64(value) => Ok(value),
            _ => Err(Malformed::FieldType(self.number)),
        }
    }

    /// The value of an enumeration field: of a longer number the format keeps the low 32 bits.
    pub(super) fn int32(&self) -> Result<i32, Malformed> {
        self.int64().map(|value| value as i32)
    }

    /// The value of an `int64` field.
    pub(super) fn int64(&self) -> Result<i64, Malformed> {
        match self.value {
            // Two's complement is what the format says.
            Wire::Varint(value) => Ok(value.cast_signed()),
            _ => Err(Malformed::FieldType(self.number)),
        }
    }
}

/// The fields of a message, in the order of its bytes; ends after the first that is malformed.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte holds bit 63 and nothing else.
            if index == 9 && byte > 1 {
                return Err(Malformed::Varint);
            }
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 {
            Malformed::Truncated
        } else {
            Malformed::Varint
        })
    }

    fn fixed64(&mut self) -> Result<u64, Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    fn field(&mut self) -> Result<Field<'a>, Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed::FieldNumber)?;
        let number = key >> 3;
        if number == 0 {
            return Err(Malformed::FieldNumber);
        }
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.fixed64()?),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed32)?,
            wire_type => return Err(Malformed::WireType(wire_type as u8)),
        };
        Ok(Field { number, value })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::Fields;
    use super::Malformed;

    fn first_error(bytes: &[u8]) -> Option<Malformed> {
        Fields::of(bytes).find_map(Result::err)
    }

    #[test]
    fn reads_each_wire_type() {
        let message = [
            0x08, 0x96, 0x01, // 1: varint 150
            0x11, 1, 0, 0, 0, 0, 0, 0, 0, // 2: fixed64 1
            0x1A, 2, b'h', b'i', // 3: bytes
            0x25, 0, 0, 0, 0, // 4: fixed32
            0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, // 1: varint -1
        ];
        let fields: Vec<_> = Fields::of(&message).collect::<Result<_, _>>().unwrap();
        assert_eq!(fields.len(), 5);
        assert_eq!(fields[0].int64(), Ok(150));
        assert_eq!(fields[1].fixed64(), Ok(1));
        assert_eq!(fields[2].bytes(), Ok(&b"hi"[..]));
        assert_eq!(fields[3].bytes(), Err(Malformed::FieldType(4)));
        assert_eq!(fields[4].int64(), Ok(-1));
    }

    #[test]
    fn refuses_what_is_no_message() {
        assert_eq!(first_error(&[]), None);
        assert_eq!(first_error(&[0x08]), Some(Malformed::Truncated));
        assert_eq!(first_error(&[0x08, 0x80]), Some(Malformed::Truncated));
        assert_eq!(first_error(&[0x11, 0, 0]), Some(Malformed::Truncated));
        assert_eq!(first_error(&[0x1A, 5, 0]), Some(Malformed::Truncated));
        assert_eq!(first_error(&[0x25, 0]), Some(Malformed::Truncated));
        assert_eq!(first_error(&[0x00, 0]), Some(Malformed::FieldNumber));
        assert_eq!(first_error(&[0x0B]), Some(Malformed::WireType(3)));
        assert_eq!(first_error(&[0x0F]), Some(Malformed::WireType(7)));
        let too_long = [
            0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2,
        ];
        assert_eq!(first_error(&too_long), Some(Malformed::Varint));
        let endless = [0xFF; 20];
        assert_eq!(first_error(&endless), Some(Malformed::Varint));
        let huge = [
            0x1A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1,
        ];
        assert_eq!(first_error(&huge), Some(Malformed::Truncated));
    }
}
