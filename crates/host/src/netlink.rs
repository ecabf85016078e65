// SPDX-License-Identifier: Apache-2.0
//! The frame of netlink: messages in a datagram, attributes in a message.
//!
//! Layouts: `linux/netlink.h`; they are ABI, in the byte order of the host. Total on any bytes: what
//! does not fit ends the walk.

use std::io;

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER_BYTES: usize = 16;
/// The kernel's answer to what it does not do, and its acknowledgement (error 0).
pub(crate) const NLMSG_ERROR: u16 = 2;
/// The end of a list.
pub(crate) const NLMSG_DONE: u16 = 3;
/// Every request has it.
pub(crate) const NLM_F_REQUEST: u16 = 1;
/// The answer is a list.
pub(crate) const NLM_F_DUMP: u16 = 0x300;

/// Messages and attributes are padded to this.
const ALIGN_BYTES: usize = 4;
/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Without the flags for nesting and byte order (`NLA_TYPE_MASK`).
const ATTRIBUTE_KIND_MASK: u16 = 0x3fff;

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Message<'a> {
    /// What it is.
    pub(crate) kind: u16,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let message = Message {
            kind: u16_at(datagram, 4)?,
            payload: datagram.get(HEADER_BYTES..length)?,
        };
        datagram = datagram.get(padded(length)?..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of a message: kind and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & ATTRIBUTE_KIND_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        bytes = bytes.get(padded(length)?..).unwrap_or_default();
        Some((kind, value))
    })
}

/// What an [`NLMSG_ERROR`] says; `None`: it is an acknowledgement.
pub(crate) fn error_in(payload: &[u8]) -> Option<io::Error> {
    let Some(code) = u32_at(payload, 0) else {
        return Some(malformed());
    };
    let errno = (code as i32).wrapping_neg();
    (errno != 0).then(|| io::Error::from_raw_os_error(errno))
}

/// An answer that this reader does not understand.
pub(crate) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer in an unknown form")
}

fn padded(length: usize) -> Option<usize> {
    length.checked_next_multiple_of(ALIGN_BYTES)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(field.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(field.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::Message;
    use super::attributes;
    use super::error_in;
    use super::messages;
    use crate::mutate::broken_bytes;

    /// Two messages, the first of 18 bytes and so padded by 2.
    fn two() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (length, kind, payload) in [(18_u32, 20_u16, &[7, 8, 0, 0][..]), (16, 3, &[])] {
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(payload);
        }
        bytes
    }

    #[test]
    fn messages_and_attributes_are_walked_over_their_padding() {
        let bytes = two();
        let read: Vec<Message<'_>> = messages(&bytes).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].payload), (20, &[7, 8][..]));
        assert_eq!((read[1].kind, read[1].payload), (3, &[][..]));
        let mut bytes = Vec::new();
        bytes.extend([5_u16, 0x8002].map(u16::to_ne_bytes).concat());
        bytes.extend([9, 0, 0, 0]);
        bytes.extend([4_u16, 7].map(u16::to_ne_bytes).concat());
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read, [(2, &[9][..]), (7, &[][..])]);
    }

    #[test]
    fn errors_are_told_from_acknowledgements() {
        assert!(error_in(&0_i32.to_ne_bytes()).is_none());
        let error = error_in(&(-13_i32).to_ne_bytes()).unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        assert!(error_in(&[]).is_some());
        assert!(error_in(&i32::MIN.to_ne_bytes()).is_some());
    }

    #[test]
    fn no_bytes_make_the_walks_fail_or_go_on_for_ever() {
        let good = two();
        for bytes in broken_bytes(&good) {
            assert!(messages(&bytes).count() <= bytes.len());
            assert!(attributes(&bytes).count() <= bytes.len());
        }
        // A length of 0 moves nothing: it must end the walk.
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }
}
