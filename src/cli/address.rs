// SPDX-License-Identifier: Apache-2.0
//! Where somebody listens: `HOST:PORT` or `unix:PATH`.
//!
//! Listeners take an ADDR, the client a URL; both are this one type. Names of hosts are not looked
//! up here, and nothing is opened.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the agent answers questions unless told otherwise.
pub(super) const API_DEFAULT: &str = "unix:/run/lacuna/api.sock";
/// Longest path that fits a Unix socket's address with its closing zero (`sun_path`), bytes.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// A place to listen at or to connect to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Address {
    /// A TCP port. `host` is a name or an address; IPv6 without its brackets.
    Tcp { host: String, port: u16 },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Parses what a client is given: `http://HOST:PORT` or `unix:PATH`.
    pub(crate) fn parse_url(text: &str) -> Result<Address, String> {
        if text.starts_with("https://") {
            return Err("the agent does not speak TLS; put it behind a proxy that does".to_owned());
        }
        match text.strip_prefix("http://") {
            Some(authority) => parse_tcp(authority.strip_suffix('/').unwrap_or(authority)),
            None if text.starts_with("unix:") => text.parse(),
            None => Err("must be http://HOST:PORT or unix:PATH".to_owned()),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("the path after unix: is missing".to_owned()),
            Some(path) if path.len() > UNIX_PATH_BYTES_MAX => Err(format!(
                "the path of a Unix socket has at most {UNIX_PATH_BYTES_MAX} bytes"
            )),
            Some(path) => Ok(Address::Unix(PathBuf::from(path))),
            None if text.contains("://") => {
                Err("must be HOST:PORT or unix:PATH, no URL".to_owned())
            }
            None => parse_tcp(text),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn parse_tcp(text: &str) -> Result<Address, String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("must be HOST:PORT or unix:PATH; the port is missing".to_owned());
    };
    let port = port
        .parse()
        .map_err(|_| format!("{port:?} is not a port from 0 to 65535"))?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bracketed.unwrap_or(host);
    if host.is_empty() {
        return Err(
            "the host is missing; every address of this host is 0.0.0.0 or [::]".to_owned(),
        );
    }
    let in_brackets = bracketed.is_some();
    let strange = |c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c));
    if in_brackets && host.parse::<std::net::Ipv6Addr>().is_err() {
        return Err(format!("{host:?} is not an IPv6 address"));
    }
    if !in_brackets && host.contains(':') {
        return Err(format!(
            "an IPv6 address is written in brackets: [{host}]:{port}"
        ));
    }
    if !in_brackets && host.contains(strange) {
        return Err(format!("{host:?} is not the name or address of a host"));
    }
    Ok(Address::Tcp {
        host: host.to_owned(),
        port,
    })
}
