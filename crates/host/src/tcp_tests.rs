// SPDX-License-Identifier: Apache-2.0
//! Answers of kernels old and new, answers that are none, and this process's own connections.

use super::TcpInfo;
use super::TcpSocket;
use super::TcpSockets;
use crate::diag;
use crate::mutate::broken_bytes;
use crate::root::Root;
use crate::socket::inodes_of;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;

/// A `tcp_info` of that length in which every byte says where it is.
fn info(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

/// An answer for an established IPv4 connection, with a `tcp_info` of that length.
fn answer(length: usize) -> Vec<u8> {
    let mut bytes = vec![2, 1, 0, 0];
    bytes.extend([0x1f, 0x90, 0x9c, 0x40]);
    bytes.extend([127, 0, 0, 1].iter().chain(&[0; 12]));
    bytes.extend([127, 0, 0, 2].iter().chain(&[0; 12]));
    bytes.extend([0; 4]);
    bytes.extend(77_u64.to_ne_bytes());
    for word in [0_u32, 5, 6, 1000, 4242] {
        bytes.extend(word.to_ne_bytes());
    }
    let payload = info(length);
    bytes.extend(u16::try_from(payload.len() + 4).unwrap().to_ne_bytes());
    bytes.extend(2_u16.to_ne_bytes());
    bytes.extend(&payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend([40_u16, 7].map(u16::to_ne_bytes).concat());
    bytes.extend((0..9_u32).flat_map(u32::to_ne_bytes));
    bytes
}

#[test]
fn an_answer_is_read_whatever_the_age_of_the_kernel() {
    // 2.6, 4.10, 5.4, 6.7.
    for length in [104, 192, 232, 248] {
        let socket = diag::socket(&answer(length)).unwrap();
        assert_eq!(socket.local.to_string(), "127.0.0.1:8080");
        assert_eq!(socket.peer.to_string(), "127.0.0.2:40000");
        assert_eq!((socket.cookie, socket.inode, socket.uid), (77, 4242, 1000));
        assert_eq!((socket.receive_queue, socket.send_queue), (5, 6));
        assert_eq!(socket.drops, Some(8));
        let info = socket.info.unwrap();
        assert_eq!((info.congestion_state, info.backoff), (1, 4));
        assert_eq!(
            info.total_retransmits,
            u32::from_ne_bytes([100, 101, 102, 103])
        );
        assert_eq!(info.busy_us.is_some(), length >= 192);
        assert_eq!(info.peer_window_bytes.is_some(), length >= 232);
        assert_eq!(info.timeout_recovery_ms.is_some(), length >= 248);
    }
    assert_eq!(TcpInfo::parse(&info(103)), None);
    assert_eq!(diag::socket(&answer(100)).unwrap().info, None);
}

#[test]
fn a_connection_of_our_own_is_found_with_what_is_in_flight() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"12345").unwrap();
    // Answered when the peer has it: then the 5 bytes are in its queue.
    let mut peeked = [0; 5];
    while server.peek(&mut peeked).unwrap() < 5 {}
    let own = std::process::id();
    let inodes = inodes_of(&Root::host(), own).unwrap();
    let mut found: Vec<TcpSocket> = Vec::new();
    let whole = TcpSockets::of(&Root::host(), own)
        .unwrap()
        .each(|socket| found.push(socket))
        .unwrap();
    assert!(whole);
    found.retain(|socket| inodes.contains(&socket.inode));
    let server_address = server.local_addr().unwrap();
    let at = |listens| {
        let same = |s: &&TcpSocket| s.local == server_address && s.listens() == listens;
        found.iter().find(same).unwrap()
    };
    assert!(at(true).info.is_some());
    assert_eq!(at(false).receive_queue, 5);
    assert_eq!(at(false).peer, client.local_addr().unwrap());
    assert!(at(false).info.unwrap().rto_us > 0);
    server.read_exact(&mut peeked).unwrap();
}

#[test]
fn sockets_of_nobody_are_not_listed() {
    assert!(TcpSockets::of(&Root::host(), u32::MAX).is_err());
    assert!(inodes_of(&Root::host(), u32::MAX).is_err());
}

#[test]
fn no_bytes_make_the_parsers_fail() {
    let good = answer(248);
    let known = broken_bytes(&good).filter_map(|bytes| diag::socket(&bytes));
    assert!(known.count() > 100, "some are still good");
    let known = broken_bytes(&good).filter_map(|bytes| TcpInfo::parse(&bytes));
    assert!(known.count() > 100);
}
