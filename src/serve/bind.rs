// SPDX-License-Identifier: Apache-2.0
//! Opening sockets to listen at, before anything is served.
//!
//! All listeners of the agent are bound first, in its main thread and with its privilege, so that a
//! port in use is said at once and by the name of the flag that asked for it. A Unix socket is made
//! with its final mode before anybody can connect, takes the place of one that nobody listens at,
//! and is removed when its owner goes.

use std::fmt;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;

use rustix::net::AddressFamily;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;

use crate::cli::Address;

/// The mode of a Unix socket: its owner and group may ask, others may not.
const UNIX_SOCKET_MODE: u32 = 0o660;

/// Connections that the kernel holds before we accept them; beyond it a client's connect waits.
const BACKLOG: i32 = 128;

/// A socket that is listening, not yet served.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(super) listener: Listener,
    address: Address,
}

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Bound {
    /// Where it listens: the port is the real one also where any was asked for.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }
}

/// Why nothing listens at an address.
#[derive(Debug)]
pub(crate) struct BindError {
    pub(super) flag: String,
    pub(super) address: Address,
    pub(super) source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            flag,
            address,
            source,
        } = self;
        write!(f, "cannot listen at {address} ({flag}): ")?;
        match (source.kind(), address) {
            (io::ErrorKind::AddrInUse, Address::Tcp { port, .. }) => {
                write!(
                    f,
                    "port {port} is in use by another process; choose another with {flag}"
                )
            }
            (io::ErrorKind::AddrInUse, Address::Unix(_)) => {
                write!(
                    f,
                    "another process listens there; stop it or choose another with {flag}"
                )
            }
            (io::ErrorKind::PermissionDenied, Address::Unix(_)) => {
                write!(
                    f,
                    "this user may not make a file there; run as root or choose another place with {flag}"
                )
            }
            _ => write!(f, "{source}"),
        }
    }
}

/// Without a source: what it is has been said.
impl std::error::Error for BindError {}

/// Opens a socket that listens at `address`; `flag` is what the user gave it with.
///
/// # Errors
/// When the port or the socket is in use, may not be opened, or does not exist.
pub(crate) fn bind(address: &Address, flag: &str) -> Result<Bound, BindError> {
    let bound = match address {
        Address::Tcp { host, port } => bind_tcp(host, *port),
        Address::Unix(path) => bind_unix(path).map(|(listener, file)| Bound {
            listener: Listener::Unix(listener, file),
            address: address.clone(),
        }),
    };
    bound.map_err(|source| BindError {
        flag: flag.to_string(),
        address: address.clone(),
        source,
    })
}

fn bind_tcp(host: &str, port: u16) -> io::Result<Bound> {
    let listener = TcpListener::bind((host, port))?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let address = Address::Tcp {
        host: bound.ip().to_string(),
        port: bound.port(),
    };
    Ok(Bound {
        listener: Listener::Tcp(listener),
        address,
    })
}

fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        fs::create_dir_all(parent).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::ErrorKind::NotADirectory.into(),
            _ => error,
        })?;
    }
    remove_stale(path)?;
    // Mode before `listen`: until then every connect is refused, so nobody can come in between.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile::of(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(UNIX_SOCKET_MODE))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((UnixListener::from(socket), file))
}

/// Makes room for a socket where an earlier process left its own and listens no more.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other(
            "the path exists and is no socket; it was left alone",
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Connected, or busy, or not ours to try: somebody may be listening.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// The name of our socket in the file system; removed with this, unless it has become another's.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        // Absolute, because the process may change its directory before it ends.
        let path = std::path::absolute(path)?;
        Ok(Self {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|now| now.dev() == self.device && now.ino() == self.inode);
        if ours {
            // There is nobody left to tell: a socket that stays is taken over by the next agent.
            let _ = fs::remove_file(&self.path);
        }
    }
}
