// SPDX-License-Identifier: Apache-2.0
//! Where a server listens and a client connects: `HOST:PORT` or `unix:PATH`.
//!
//! Only the text is judged here: whether a host exists, or a path, shows when it is used.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest path that fits a Unix socket's address, in bytes: `sun_path` is 108 with its final zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// An address to listen at or to connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    /// A TCP port.
    Tcp {
        /// A name or an IP address; IPv6 without its brackets.
        host: String,
        /// The port; for a listener 0 means any free one.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a text is no address; says what was expected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AddressError {
    text: String,
    why: &'static str,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no address ({}): expected HOST:PORT or unix:PATH",
            self.text, self.why
        )
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).map_err(|why| AddressError {
            text: text.to_string(),
            why,
        })
    }
}

fn parse(text: &str) -> Result<Address, &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        // `unix:///run/x` is how gRPC writes the absolute path that we write `unix:/run/x`.
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path.len() {
            0 => Err("the path is empty"),
            length if length > UNIX_PATH_BYTES_MAX => Err("the path is longer than 107 bytes"),
            _ if path.contains('\0') => Err("the path contains a zero byte"),
            _ => Ok(Address::Unix(PathBuf::from(path))),
        };
    }
    if text.contains("://") {
        return Err("a URL is not wanted here");
    }
    let (host, port) = text.rsplit_once(':').ok_or("no port")?;
    let port = port
        .parse()
        .map_err(|_| "the port is no number from 0 to 65535")?;
    let host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(inside) => inside,
        None if host.contains(':') => return Err("an IPv6 address needs brackets, as in [::1]:80"),
        None => host,
    };
    if host.is_empty() {
        return Err("no host");
    }
    if host.contains(|c: char| c.is_whitespace() || c == '/' || c == '[' || c == ']') {
        return Err("the host is malformed");
    }
    Ok(Address::Tcp {
        host: host.to_string(),
        port,
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Self::Tcp {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn reads_back_what_it_shows() {
        for text in [
            "127.0.0.1:4317",
            "localhost:0",
            "[::1]:80",
            "unix:/run/lacuna/api.sock",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        assert_eq!(
            "unix:///a/b".parse::<Address>().unwrap().to_string(),
            "unix:/a/b"
        );
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, why) in [
            ("", "no port"),
            ("localhost", "no port"),
            (":80", "no host"),
            ("host:", "the port is no number"),
            ("host:65536", "the port is no number"),
            ("::1:80", "needs brackets"),
            ("[::1:80", "needs brackets"),
            ("http://host:80", "a URL is not wanted"),
            ("a b:80", "malformed"),
            ("unix:", "the path is empty"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
            assert!(error.contains("expected HOST:PORT or unix:PATH"), "{error}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(
            long.parse::<Address>()
                .unwrap_err()
                .to_string()
                .contains("longer than 107")
        );
    }
}
