// SPDX-License-Identifier: Apache-2.0
//! Sockets to listen at: what is said of those that cannot be had, and what is left in the file system.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::Bound;
use super::bind;
use super::bind::BindError;
use super::runtime;
use crate::cli::Address;

fn unix(path: &Path) -> Address {
    Address::Unix(path.to_path_buf())
}

fn tcp(port: u16) -> Address {
    Address::Tcp {
        host: "127.0.0.1".to_string(),
        port,
    }
}

fn port(bound: &Bound) -> u16 {
    match bound.address() {
        Address::Tcp { port, .. } => *port,
        Address::Unix(path) => panic!("bound to {}", path.display()),
    }
}

fn refusal(bound: Result<Bound, BindError>) -> String {
    bound.expect_err("it was bound").to_string()
}

#[test]
fn port_0_is_any_free_one_and_is_told() {
    let (first, second) = (
        bind(&tcp(0), "--api").unwrap(),
        bind(&tcp(0), "--api").unwrap(),
    );
    assert_ne!(port(&first), 0);
    assert_ne!(port(&first), port(&second));
    assert_eq!(
        first.address().to_string(),
        format!("127.0.0.1:{}", port(&first))
    );
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port();
    assert_eq!(
        refusal(bind(&tcp(taken), "--otlp-grpc")),
        format!(
            "cannot listen at 127.0.0.1:{taken} (--otlp-grpc): port {taken} is in use by another \
             process; choose another with --otlp-grpc"
        )
    );
}

#[test]
fn a_host_that_is_not_ours_is_said_to_be_so() {
    let address = Address::Tcp {
        host: "192.0.2.1".to_string(),
        port: 0,
    };
    let refusal = refusal(bind(&address, "--api"));
    assert!(
        refusal.starts_with("cannot listen at 192.0.2.1:0 (--api): "),
        "{refusal}"
    );
}

#[test]
fn a_place_that_is_not_ours_is_said_with_what_to_do() {
    let error = BindError {
        flag: "--api".to_string(),
        address: unix(Path::new("/run/lacuna/api.sock")),
        source: ErrorKind::PermissionDenied.into(),
    };
    assert_eq!(
        error.to_string(),
        "cannot listen at unix:/run/lacuna/api.sock (--api): this user may not make a file there; \
         run as root or choose another place with --api"
    );
}

#[test]
fn a_unix_socket_is_for_its_owner_and_group_and_goes_with_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/lacuna/api.sock");
    let bound = bind(&unix(&path), "--api").unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    UnixStream::connect(&path).unwrap();
    drop(bound);
    assert!(!path.exists());
}

#[test]
fn a_socket_that_nobody_listens_at_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library does not remove it");
    let bound = bind(&unix(&path), "--api").unwrap();
    UnixStream::connect(&path).unwrap();
    drop(bound);
}

#[test]
fn a_socket_that_somebody_listens_at_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let _other = UnixListener::bind(&path).unwrap();
    let refusal = refusal(bind(&unix(&path), "--api"));
    assert!(
        refusal.ends_with("another process listens there; stop it or choose another with --api")
    );
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes");
    fs::write(&path, "mine").unwrap();
    assert!(refusal(bind(&unix(&path), "--api")).contains("is no socket; it was left alone"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn a_socket_that_has_become_another_s_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let bound = bind(&unix(&path), "--api").unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(bound);
    UnixStream::connect(&path).unwrap();
}

thread_local! {
    static STARTED: Cell<bool> = const { Cell::new(false) };
}

#[test]
fn what_is_to_happen_on_each_thread_happens_before_its_tasks() {
    let runtime = runtime(2, || STARTED.set(true)).unwrap();
    let tasks: Vec<_> = (0..50)
        .map(|_| runtime.spawn(async { STARTED.get() }))
        .collect();
    for task in tasks {
        assert!(runtime.block_on(task).unwrap());
    }
    assert!(!STARTED.get(), "this thread is none of them");
}
