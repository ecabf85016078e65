// SPDX-License-Identifier: Apache-2.0
//! A wire that loses what it is told to lose, and has its own notes of all that came by.
//!
//! It lies between two network namespaces: what either sends comes here as IP packets (a `tun` device
//! in each), and goes on to the other after a while. What is lost here is lost for both ends alike: no
//! counter and no hook of either kernel side says so, as on a real network. It may translate addresses on
//! the way, as a router between two networks does; then neither end can be told from the other's addresses.
//!
//! Only TCP over IPv4 passes.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use lacuna_host::sys::open_tun;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::io::Errno;
use rustix::io::read;
use rustix::io::write;
use rustix::process::setpriority_process;
use serde::Deserialize;
use serde::Serialize;

use crate::meter::monotonic_ns;
use crate::net::ANSWERER;
use crate::net::ASKER;
use crate::net::DEVICE;
use crate::net::plug_in;
use crate::net::within;
use crate::part::Part;

/// More than a `tun` device sends at once, bytes: its MTU is 1,500.
const PACKET_BYTES_MAX: usize = 2_048;
/// Segments that are noted; a scenario has some hundreds.
const NOTES_MAX: usize = 100_000;
/// The network of both ends.
const NETWORK: [u8; 3] = [192, 0, 2];
/// The network that the answering end is in, where addresses are translated. (RFC 5737: for examples.)
const BEHIND: [u8; 3] = [198, 51, 100];

/// One of the two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum End {
    /// It called `connect`.
    Asker,
    /// It accepted.
    Answerer,
}

/// What a wire is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Lose the next segments with bytes in them from one end: of a segment that is sent again and again
    /// so many copies. Notes begin anew.
    Lose {
        /// Which.
        from: End,
        /// How many.
        copies: u32,
    },
    /// Tell what came by since.
    Tell,
}

/// A segment that came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Segment {
    /// Who sent it.
    pub(crate) from: End,
    /// When it came, `CLOCK_MONOTONIC`.
    pub(crate) at_ns: u64,
    /// When it was handed to the other end; `None`: it was lost, or is still under way.
    pub(crate) passed_ns: Option<u64>,
    /// Its first byte.
    pub(crate) first: u32,
    /// How many bytes it has.
    pub(crate) bytes: u32,
    /// The byte that its sender waits for next.
    pub(crate) awaited: u32,
}

/// What the two threads of a wire share.
#[derive(Debug, Default)]
struct Notes {
    /// From whom how many more segments are lost.
    to_lose: Option<(End, u32)>,
    segments: Vec<Segment>,
    /// Where the notes that are told begin.
    begin: usize,
    /// Why nothing passes any more.
    broken: Option<String>,
}

/// A packet on its way.
struct UnderWay {
    due_ns: u64,
    note: usize,
    packet: Vec<u8>,
}

/// `wire ASKER ANSWERER DELAY_US HIDDEN`: lies between the namespaces of two processes; says whether it
/// could be laid, and then answers orders.
pub(crate) fn lie(part: &mut Part) -> Result<()> {
    let (asker, answerer): (u32, u32) = (part.argument()?, part.argument()?);
    let delay_ns = part.argument::<u64>()? * 1_000;
    let is_hidden: bool = part.argument()?;
    let behind = |address: std::net::Ipv4Addr| match is_hidden {
        true => translated(address.octets(), BEHIND).into(),
        false => address,
    };
    let laid = within(asker, || end(ASKER, ANSWERER)).and_then(|near| {
        Ok([
            near,
            within(answerer, || end(behind(ANSWERER), behind(ASKER)))?,
        ])
    });
    let ends = match laid {
        Ok(ends) => ends,
        Err(why) => return part.say(&Err::<(), String>(format!("{why:#}"))),
    };
    part.say(&Ok::<(), String>(()))?;
    // It is no part of what is told: others on its CPU must not make it slow.
    setpriority_process(None, -20).context("cannot raise the own priority")?;
    let notes = Arc::new(Mutex::new(Notes::default()));
    let wire = Wire {
        ends,
        delay_ns,
        is_hidden,
        notes: notes.clone(),
    };
    thread::Builder::new()
        .name("wire".to_owned())
        .spawn(move || {
            let Err(why) = wire.pass();
            locked(&wire.notes).broken = Some(format!("{why:#}"));
        })?;
    loop {
        let order = part.hear()?;
        part.say(&obey(&order, &mut locked(&notes)))?;
    }
}

/// A `tun` device of this thread's namespace, for packets between its address and the other's.
fn end(own: std::net::Ipv4Addr, other: std::net::Ipv4Addr) -> Result<OwnedFd> {
    let tun = open_tun(DEVICE).context("no tun device can be made")?;
    plug_in(&format!("{own} peer {other}"))?;
    Ok(tun)
}

fn obey(order: &Order, notes: &mut Notes) -> Result<Vec<Segment>, String> {
    if let Some(why) = &notes.broken {
        return Err(why.clone());
    }
    match *order {
        Order::Lose { from, copies } => {
            notes.to_lose = (copies > 0).then_some((from, copies));
            notes.begin = notes.segments.len();
            Ok(Vec::new())
        }
        Order::Tell => Ok(notes.segments[notes.begin..].to_vec()),
    }
}

fn locked(notes: &Mutex<Notes>) -> std::sync::MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that passes packets on.
struct Wire {
    /// The asking end's, and the answering end's.
    ends: [OwnedFd; 2],
    delay_ns: u64,
    is_hidden: bool,
    notes: Arc<Mutex<Notes>>,
}

impl Wire {
    /// Passes packets on until that fails.
    fn pass(&self) -> Result<std::convert::Infallible> {
        let mut under_way = [VecDeque::new(), VecDeque::new()];
        loop {
            for (place, queue) in under_way.iter_mut().enumerate() {
                self.deliver(queue, &self.ends[1 - place])?;
            }
            let next = under_way.iter().filter_map(VecDeque::front);
            let next_ns = next.map(|one| one.due_ns).min();
            self.await_packets(next_ns)?;
            for (place, queue) in under_way.iter_mut().enumerate() {
                self.take(place, queue)?;
            }
        }
    }

    /// Hands over what is due.
    fn deliver(&self, queue: &mut VecDeque<UnderWay>, to: &OwnedFd) -> Result<()> {
        while let Some(one) = queue.front() {
            let passed_ns = monotonic_ns();
            if passed_ns < one.due_ns {
                break;
            }
            // Before: whom the packet wakes may ask for the notes at once.
            locked(&self.notes).segments[one.note].passed_ns = Some(passed_ns);
            write(to, &one.packet).context("the device takes no packet")?;
            queue.pop_front();
        }
        Ok(())
    }

    /// Waits until one comes, or one is due.
    fn await_packets(&self, next_ns: Option<u64>) -> Result<()> {
        let left_ns = next_ns.map(|next_ns| next_ns.saturating_sub(monotonic_ns()));
        let timeout = left_ns.map(|left_ns| Timespec {
            tv_sec: (left_ns / 1_000_000_000).cast_signed(),
            tv_nsec: (left_ns % 1_000_000_000).cast_signed(),
        });
        let mut ready = [0, 1].map(|place| PollFd::new(&self.ends[place], PollFlags::IN));
        poll(&mut ready, timeout.as_ref()).context("cannot wait for packets")?;
        Ok(())
    }

    /// Takes what one end has sent.
    fn take(&self, place: usize, queue: &mut VecDeque<UnderWay>) -> Result<()> {
        let from = [End::Asker, End::Answerer][place];
        loop {
            let mut packet = vec![0; PACKET_BYTES_MAX];
            let length = match read(&self.ends[place], &mut packet) {
                Err(Errno::AGAIN) => return Ok(()),
                length => length.context("the device gives no packet")?,
            };
            packet.truncate(length);
            let at_ns = monotonic_ns();
            let Some(segment) = parse(&packet, from, at_ns) else {
                continue;
            };
            if self.is_hidden {
                translate(&mut packet, from);
            }
            if let Some(note) = note(&mut locked(&self.notes), segment)? {
                queue.push_back(UnderWay {
                    due_ns: at_ns + self.delay_ns,
                    note,
                    packet,
                });
            }
        }
    }
}

/// Notes a segment; its place in the notes, unless it is lost.
fn note(notes: &mut Notes, segment: Segment) -> Result<Option<usize>> {
    let place = notes.segments.len();
    if place == NOTES_MAX {
        bail!("more than {NOTES_MAX} segments came by");
    }
    notes.segments.push(segment);
    match &mut notes.to_lose {
        Some((from, left)) if *from == segment.from && segment.bytes > 0 && *left > 0 => {
            *left -= 1;
            Ok(None)
        }
        _ => Ok(Some(place)),
    }
}

/// What there is to note of a TCP segment in an IPv4 packet (RFC 791, RFC 9293).
fn parse(packet: &[u8], from: End, at_ns: u64) -> Option<Segment> {
    let number = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    let tcp = tcp_offset(packet)?;
    let header = usize::from(packet.get(tcp + 12)? >> 4) * 4;
    Some(Segment {
        from,
        at_ns,
        passed_ns: None,
        first: number(tcp + 4)?,
        bytes: u32::try_from(packet.len().checked_sub(tcp + header)?).ok()?,
        awaited: number(tcp + 8)?,
    })
}

/// Where the TCP header begins, if there is one.
fn tcp_offset(packet: &[u8]) -> Option<usize> {
    /// `IPPROTO_TCP`.
    const TCP: u8 = 6;
    let is_tcp = packet.first()? >> 4 == 4 && *packet.get(9)? == TCP;
    let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    (is_tcp && length == packet.len()).then_some(usize::from(packet[0] & 15) * 4)
}

/// Translates both addresses of a TCP segment to those of the network that it goes to.
fn translate(packet: &mut [u8], from: End) {
    let Some(tcp) = tcp_offset(packet).filter(|tcp| packet.len() >= tcp + 20) else {
        return;
    };
    let network = match from {
        End::Asker => BEHIND,
        End::Answerer => NETWORK,
    };
    for at in [12, 16] {
        packet[at..at + 3].copy_from_slice(&network);
    }
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..tcp]]);
    packet[10..12].copy_from_slice(&sum);
    packet[tcp + 16..tcp + 18].fill(0);
    let length = u16::try_from(packet.len() - tcp)
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let pseudo = [&packet[12..20], &[0, packet[9]], &length].concat();
    let sum = checksum(&[&pseudo, &packet[tcp..]]);
    packet[tcp + 16..tcp + 18].copy_from_slice(&sum);
}

/// The same host in another network.
fn translated(address: [u8; 4], network: [u8; 3]) -> [u8; 4] {
    [network[0], network[1], network[2], address[3]]
}

/// The Internet's checksum (RFC 1071) of several parts, of which only the last may have an odd length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let words = pairs.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// What became of a segment of which copies were lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Loss {
    /// How often it was sent.
    pub(crate) copies: u32,
    /// When the first copy that was not lost was handed to the other end.
    pub(crate) arrived_ns: u64,
    /// The byte after its last.
    pub(crate) end: u32,
}

/// The newest segment with bytes from one end, of which so many copies were lost; `None` where it was not
/// so, or it did not arrive. (Of an older one a copy may come by, where only its acknowledgement was lost.)
pub(crate) fn loss(notes: &[Segment], from: End, lost: u32) -> Option<Loss> {
    let sent = notes.iter().filter(|one| one.from == from && one.bytes > 0);
    let newest = sent
        .clone()
        .reduce(|newest, one| match is_ahead(one.first, newest.first) {
            true => one,
            false => newest,
        })?;
    let copies = sent.filter(|copy| copy.first == newest.first);
    let mut first_copies = copies.clone().take(lost as usize);
    let all_lost = first_copies.all(|copy| copy.passed_ns.is_none());
    let arrived = copies.clone().nth(lost as usize)?;
    Some(Loss {
        copies: u32::try_from(copies.count()).ok()?,
        arrived_ns: arrived.passed_ns.filter(|_| all_lost)?,
        end: newest.first.wrapping_add(newest.bytes),
    })
}

/// When one end was first handed an acknowledgement of all its bytes before that one.
pub(crate) fn acknowledged_ns(notes: &[Segment], of: End, byte: u32) -> Option<u64> {
    let heard = notes.iter().filter(|one| one.from != of);
    let covers = heard.filter(|one| is_ahead(one.awaited, byte));
    covers.filter_map(|one| one.passed_ns).min()
}

/// Sequence numbers go round: what lies less than half the circle ahead is later (RFC 9293, 3.4).
fn is_ahead(number: u32, of: u32) -> bool {
    number.wrapping_sub(of) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::BEHIND;
    use super::End;
    use super::Notes;
    use super::Segment;
    use super::acknowledged_ns;
    use super::checksum;
    use super::loss;
    use super::note;
    use super::parse;
    use super::translate;

    /// An IPv4 packet with a TCP segment of three bytes, whose checksums are right.
    fn packet() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 43, 0, 1, 0x40, 0, 64, 6, 0, 0];
        packet.extend([192, 0, 2, 1, 192, 0, 2, 2]);
        packet.extend([0x9c, 0x40, 0x1f, 0x90, 0, 0, 1, 0, 0, 0, 2, 0]);
        packet.extend([0x50, 0x18, 1, 0, 0, 0, 0, 0, b'a', b'b', b'c']);
        let before = packet.clone();
        // Where nothing is translated, only the checksums are written.
        translate(&mut packet, End::Answerer);
        assert_eq!(packet[12..20], before[12..20]);
        packet
    }

    fn is_right(packet: &[u8]) -> bool {
        let pseudo = [&packet[12..20], &[0, 6, 0, 23]].concat();
        checksum(&[&packet[..20]]) == [0, 0] && checksum(&[&pseudo, &packet[20..]]) == [0, 0]
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        // RFC 1071, section 3: the sum is 0xddf2.
        let sum = checksum(&[&[0, 1, 0xf2, 3], &[0xf4, 0xf5, 0xf6, 0xf7]]);
        assert_eq!(sum, (!0xddf2_u16).to_be_bytes());
    }

    #[test]
    fn translated_packets_are_sound() {
        let mut packet = packet();
        assert!(is_right(&packet));
        let seen = parse(&packet, End::Asker, 7).unwrap();
        assert_eq!((seen.first, seen.bytes, seen.awaited), (256, 3, 512));
        translate(&mut packet, End::Asker);
        assert!(is_right(&packet));
        assert_eq!((&packet[12..15], packet[15]), (&BEHIND[..], 1));
        assert_eq!((&packet[16..19], packet[19]), (&BEHIND[..], 2));
    }

    #[test]
    fn what_is_no_segment_is_not_noted() {
        let whole = packet();
        for length in 0..whole.len() {
            let mut cut = whole[..length].to_vec();
            assert_eq!(parse(&cut, End::Asker, 0), None);
            translate(&mut cut, End::Asker);
            assert_eq!(cut, whole[..length]);
        }
        for (at, byte) in [(0, 0x65), (9, 17), (32, 0xf0)] {
            let mut other = whole.clone();
            other[at] = byte;
            assert_eq!(parse(&other, End::Asker, 0), None, "byte {at}");
        }
    }

    fn segment(from: End, at_ns: u64, first: u32, bytes: u32, awaited: u32) -> Segment {
        Segment {
            from,
            at_ns,
            passed_ns: Some(at_ns + 1),
            first,
            bytes,
            awaited,
        }
    }

    #[test]
    fn only_segments_with_bytes_of_that_end_are_lost() {
        let mut notes = Notes {
            to_lose: Some((End::Asker, 2)),
            ..Notes::default()
        };
        let mut passes = |from, bytes| {
            let segment = segment(from, 0, 0, bytes, 0);
            note(&mut notes, segment).unwrap().is_some()
        };
        assert!(passes(End::Asker, 0) && passes(End::Answerer, 9));
        assert!(!passes(End::Asker, 9) && !passes(End::Asker, 9));
        assert!(passes(End::Asker, 9));
        assert_eq!(notes.segments.len(), 5);
    }

    #[test]
    fn notes_tell_a_loss_and_its_end() {
        let near_the_end = u32::MAX - 4;
        let lost = |at_ns| Segment {
            passed_ns: None,
            ..segment(End::Asker, at_ns, near_the_end, 10, 77)
        };
        let mut notes = vec![
            segment(End::Answerer, 1, 70, 0, near_the_end),
            lost(10),
            lost(20),
            segment(End::Asker, 25, near_the_end - 100, 100, 77),
            segment(End::Asker, 40, near_the_end, 10, 77),
            segment(End::Answerer, 45, 77, 0, near_the_end),
            segment(End::Answerer, 50, 77, 0, 5),
        ];
        let found = loss(&notes, End::Asker, 2).unwrap();
        assert_eq!((found.copies, found.arrived_ns, found.end), (3, 41, 5));
        assert_eq!(acknowledged_ns(&notes, End::Asker, found.end), Some(51));
        assert_eq!(acknowledged_ns(&notes, End::Asker, 6), None);
        assert_eq!(acknowledged_ns(&notes, End::Answerer, 77), Some(26));
        assert_eq!(
            loss(&notes, End::Asker, 3),
            None,
            "nothing was lost three times"
        );
        notes.truncate(4);
        assert_eq!(loss(&notes, End::Asker, 2), None, "it did not arrive");
    }
}
