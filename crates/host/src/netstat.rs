// SPDX-License-Identifier: Apache-2.0
//! What went wrong with TCP in a whole network namespace: `TcpExt` of `/proc/PID/net/netstat`.
//!
//! These are sums over the sockets of every process there: they bound what one process can have
//! lost, and tell of nobody. Any user may read them. A counter that a kernel does not have is `None`.

use crate::process::ProcessError;
use crate::root::Root;

/// Counters since the namespace was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpTrouble {
    /// Retransmission timers that ran out.
    pub timeouts: Option<u64>,
    /// Connections that found the accept queue of a listening socket full.
    pub listen_overflows: Option<u64>,
    /// Connections that a listening socket dropped, for that or another reason.
    pub listen_drops: Option<u64>,
}

impl TcpTrouble {
    /// Of the network namespace that a process is in.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if it ended.
    pub fn read(root: &Root, tgid: u32) -> Result<Self, ProcessError> {
        let text = root.read(format!("/proc/{tgid}/net/netstat"))?;
        Ok(Self::parse(&text))
    }

    /// Two lines `TcpExt:`, names and values. Which place a name has differs between kernels.
    pub fn parse(netstat: &str) -> Self {
        let mut lines = netstat.lines().filter_map(|l| l.strip_prefix("TcpExt:"));
        let names = lines.next().unwrap_or_default();
        let values = lines.next().unwrap_or_default();
        let value = |wanted| {
            let mut names = names.split_ascii_whitespace();
            let at = names.position(|name| name == wanted)?;
            values.split_ascii_whitespace().nth(at)?.parse().ok()
        };
        Self {
            timeouts: value("TCPTimeouts"),
            listen_overflows: value("ListenOverflows"),
            listen_drops: value("ListenDrops"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TcpTrouble;
    use crate::mutate::mutations;
    use crate::root::Root;

    const NETSTAT: &str = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPTimeouts\n\
        TcpExt: 0 3 4 18446744073709551615\nIpExt: InNoRoutes ListenOverflows\nIpExt: 8 9\n";

    #[test]
    fn counters_are_found_by_their_names() {
        let trouble = TcpTrouble::parse(NETSTAT);
        assert_eq!(trouble.timeouts, Some(u64::MAX));
        let listen = (trouble.listen_overflows, trouble.listen_drops);
        assert_eq!(listen, (Some(3), Some(4)));
        assert_eq!(TcpTrouble::parse("TcpExt: A\n"), TcpTrouble::default());
    }

    #[test]
    fn this_namespace_has_them() {
        let trouble = TcpTrouble::read(&Root::host(), std::process::id()).unwrap();
        assert!(trouble.timeouts.is_some() && trouble.listen_overflows.is_some());
    }

    #[test]
    fn no_text_makes_the_parser_fail() {
        let known = mutations(NETSTAT).filter(|text| TcpTrouble::parse(text).timeouts.is_some());
        assert!(known.count() > 100, "some are still good");
    }
}
