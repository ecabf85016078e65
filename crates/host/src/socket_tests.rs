// SPDX-License-Identifier: Apache-2.0
//! Real connections of this process and its children, tables of made-up hosts, hostile answers.

use super::ConnectionOwners;
use super::OwnerError;
use super::Owners;
use super::SocketId;
use super::diag;
use super::holders_of;
use super::peer_socket;
use super::peer_socket_elsewhere;
use super::table_row;
use crate::mutate::mutations;
use crate::root::Root;
use rustix::io::FdFlags;
use rustix::io::fcntl_setfd;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

/// A connection of this process with itself: the client's end, the accepted end, and the addresses
/// that the accepted end has.
fn connection(listen: &str, connect: &str) -> (TcpStream, TcpStream, SocketAddr, SocketAddr) {
    let listener = TcpListener::bind(listen).unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect((connect, port)).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    let local = accepted.local_addr().unwrap();
    (client, accepted, local, peer)
}

/// The inode of one of our own descriptors, as `/proc` names it.
fn inode_of(stream: &TcpStream) -> u64 {
    use std::os::fd::AsRawFd;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap();
    crate::process::bracketed_inode(link.to_str().unwrap(), "socket").unwrap()
}

fn pids(owners: &Owners) -> Vec<u32> {
    let mut pids: Vec<u32> = owners.holders.iter().map(|holder| holder.tgid).collect();
    pids.sort_unstable();
    pids
}

/// A child that lives until it is dropped.
struct Sleeper(Child);

impl Sleeper {
    /// Started from here, with every descriptor that is not closed on exec; returns when it runs
    /// its own program.
    fn start() -> Self {
        // `cat` waits for its input to end, and echoes the line when it runs.
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"!").unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn the_other_end_is_found_over_ipv4_ipv6_and_mapped_addresses() {
    for (listen, connect) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        ("[::]:0", "127.0.0.1"),
        ("127.0.0.1:0", "::ffff:127.0.0.1"),
    ] {
        let (client, accepted, local, peer) = connection(listen, connect);
        let found = peer_socket(local, peer).unwrap().unwrap();
        assert_eq!(found.inode, inode_of(&client), "{listen}");
        assert_ne!(found.inode, inode_of(&accepted), "{listen}");
        let owners = holders_of(&Root::host(), found).unwrap();
        assert_eq!(pids(&owners), [std::process::id()], "{listen}");
    }
}

#[test]
fn a_listener_is_not_mistaken_for_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    // As if the listener's own address had connected to us.
    assert_eq!(
        peer_socket(nobody, listener.local_addr().unwrap()).unwrap(),
        None
    );
}

#[test]
fn a_closed_connection_has_no_owner() {
    let (client, accepted, local, peer) = connection("127.0.0.1:0", "127.0.0.1");
    drop(client);
    drop(accepted);
    let mut owners = ConnectionOwners::new(Root::host());
    assert!(matches!(
        owners.owners(local, peer),
        Err(OwnerError::NotFound)
    ));
}

#[test]
fn after_a_fork_all_holders_are_found() {
    let (client, _accepted, local, peer) = connection("127.0.0.1:0", "127.0.0.1");
    // Inherited by whatever this process starts from here on.
    fcntl_setfd(&client, FdFlags::empty()).unwrap();
    let child = Sleeper::start();
    let mut owners = ConnectionOwners::new(Root::host());
    let found = owners.owners(local, peer).unwrap();
    let pids = pids(&found);
    assert!(
        pids.contains(&std::process::id()) && pids.contains(&child.0.id()),
        "{pids:?}"
    );
}

#[test]
fn an_answer_is_remembered_for_its_connection_only() {
    let (client, _accepted, local, peer) = connection("127.0.0.1:0", "127.0.0.1");
    let mut owners = ConnectionOwners::new(Root::host());
    let first = owners.owners(local, peer).unwrap();
    assert_eq!(owners.owners(local, peer).unwrap(), first);
    drop(client);
    assert!(
        owners.owners(local, peer).is_err(),
        "the connection is gone"
    );
}

#[test]
fn answers_of_the_kernel_are_not_trusted() {
    let own: SocketAddr = "127.0.0.1:4000".parse().unwrap();
    let remote: SocketAddr = "127.0.0.1:4317".parse().unwrap();
    let request = diag::request(own, remote);
    assert_eq!(request.len(), 72);
    let mut answer = [0; 88];
    answer[..4].copy_from_slice(&88_u32.to_ne_bytes());
    answer[4..6].copy_from_slice(&20_u16.to_ne_bytes());
    answer[16] = request[16]; // the family
    answer[20..56].copy_from_slice(&request[24..60]);
    answer[80..84].copy_from_slice(&33_u32.to_ne_bytes());
    answer[84..88].copy_from_slice(&77_u32.to_ne_bytes());
    let socket = SocketId { inode: 77, uid: 33 };
    assert_eq!(diag::parse(&answer, &request).unwrap(), Some(socket));
    for length in 0..answer.len() {
        assert!(
            diag::parse(&answer[..length], &request).is_err(),
            "{length} bytes"
        );
    }
    let mut other = answer;
    other[21] ^= 1;
    assert_eq!(diag::parse(&other, &request).unwrap(), None, "another port");
    let mut closing = answer;
    closing[84..88].fill(0);
    assert_eq!(diag::parse(&closing, &request).unwrap(), None, "TIME_WAIT");
}

#[test]
fn errors_of_the_kernel_are_told_from_no_such_socket() {
    let any: SocketAddr = "[::1]:1".parse().unwrap();
    let request = diag::request(any, any);
    let mut answer = [0; 36];
    answer[..4].copy_from_slice(&36_u32.to_ne_bytes());
    answer[4..6].copy_from_slice(&2_u16.to_ne_bytes());
    let with = |error: i32| {
        let mut answer = answer;
        answer[16..20].copy_from_slice(&error.to_ne_bytes());
        diag::parse(&answer, &request)
    };
    assert_eq!(with(-2).unwrap(), None);
    assert_eq!(
        with(-1).unwrap_err().kind(),
        std::io::ErrorKind::PermissionDenied
    );
    assert!(with(0).is_err() && with(i32::MIN).is_err() && with(i32::MAX).is_err());
}

const ROW: &str = "   3: 0200000A:9C40 0100000A:10DD 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0000000000000000 20 4 30 10 -1";
const ROW6: &str = "   3: 0000000000000000FFFF00000200000A:9C40 0000000000000000FFFF00000100000A:10DD 01 00000000:00000000 00:00000000 00000000  1000        0 4343 1 0000000000000000 20 4 30 10 -1";

#[test]
fn rows_of_the_tables_are_matched_by_both_addresses() {
    let own = "10.0.0.2:40000".parse().unwrap();
    let remote = "10.0.0.1:4317".parse().unwrap();
    assert_eq!(
        table_row(ROW, own, remote),
        Some(SocketId {
            inode: 4242,
            uid: 1000
        })
    );
    assert_eq!(
        table_row(ROW6, own, remote),
        Some(SocketId {
            inode: 4343,
            uid: 1000
        })
    );
    assert_eq!(table_row(ROW, remote, own), None);
    assert_eq!(
        table_row(&ROW.replace("4242", "0"), own, remote),
        None,
        "TIME_WAIT"
    );
    for row in [
        "",
        "sl local_address",
        "1: x:y z",
        "1: 0200000A:9C40",
        "1: é000000A:9C40 0100000A:10DD 01",
        &ROW[..60],
    ] {
        assert_eq!(table_row(row, own, remote), None, "{row:?}");
    }
}

fn namespace(base: &Path, tgid: u32, inode: u64, row: &str) {
    let directory = base.join(format!("proc/{tgid}"));
    std::fs::create_dir_all(directory.join("ns")).unwrap();
    std::fs::create_dir_all(directory.join("net")).unwrap();
    symlink(format!("net:[{inode}]"), directory.join("ns/net")).unwrap();
    std::fs::write(
        directory.join("net/tcp"),
        format!("  sl  local_address\n{row}\n"),
    )
    .unwrap();
}

#[test]
fn a_peer_in_one_other_network_namespace_is_found_and_in_two_is_not() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::at(base.path());
    let (peer, local) = (
        "10.0.0.2:40000".parse().unwrap(),
        "10.0.0.1:4317".parse().unwrap(),
    );
    namespace(base.path(), 10, 1, "");
    assert!(matches!(
        peer_socket_elsewhere(&root, local, peer),
        Err(OwnerError::NotFound)
    ));
    namespace(base.path(), 11, 2, ROW);
    namespace(base.path(), 12, 2, ROW);
    let found = peer_socket_elsewhere(&root, local, peer).unwrap();
    assert_eq!(found.inode, 4242, "two processes of one namespace");
    namespace(base.path(), 13, 3, ROW);
    assert!(matches!(
        peer_socket_elsewhere(&root, local, peer),
        Err(OwnerError::Ambiguous)
    ));
}

#[test]
fn a_loopback_peer_is_never_looked_for_in_other_namespaces() {
    let base = tempfile::tempdir().unwrap();
    let row = ROW
        .replace("0200000A", "0100007F")
        .replace("0100000A", "0100007F");
    namespace(base.path(), 10, 2, &row);
    let (peer, local) = (
        "127.0.0.1:40000".parse().unwrap(),
        "127.0.0.1:4317".parse().unwrap(),
    );
    assert!(table_row(&row, peer, local).is_some());
    let found = peer_socket_elsewhere(&Root::at(base.path()), local, peer);
    assert!(matches!(found, Err(OwnerError::NotFound)));
}

#[test]
fn no_table_makes_the_parser_fail() {
    let own = "10.0.0.2:40000".parse().unwrap();
    let remote = "10.0.0.1:4317".parse().unwrap();
    for row in [ROW, ROW6] {
        let found = mutations(row).filter_map(|row| table_row(&row, own, remote));
        assert!(found.count() > 100, "some are still good");
    }
}
