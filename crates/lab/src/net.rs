// SPDX-License-Identifier: Apache-2.0
//! Two hosts on this one: network namespaces, and the way between them.
//!
//! The namespaces have no names: each is that of a process of the scenario, and goes with it, and with
//! it the devices in it. Devices, addresses and queues are made with the commands `ip` and `tc`; where
//! one is missing, or the kernel has no such thing, the scenario is not run.

use std::fs::File;
use std::hash::BuildHasher;
use std::hash::Hasher;
use std::hash::RandomState;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use lacuna_host::Root;
use lacuna_host::sys::enter_new_network;
use lacuna_host::tcp::TcpInfo;
use lacuna_host::tcp::TcpSockets;
use rustix::thread::LinkNameSpaceType;
use rustix::thread::move_into_link_name_space;
use serde_json::Value;

use crate::part::Part;
use crate::stage::Stop;

/// The device of each end.
pub(crate) const DEVICE: &str = "uplink";
/// The end that asks, as both see it where nothing translates addresses. (RFC 5737: for examples.)
pub(crate) const ASKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The end that answers, as the other sees it.
pub(crate) const ANSWERER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Runs something in the network namespace of a process.
///
/// # Errors
/// It has ended, or what is run fails.
pub(crate) fn within<T: Send>(pid: u32, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    // A thread of its own: the others stay where they are.
    let ran = thread::scope(|scope| {
        let run = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter {path}"))?;
            what()
        };
        scope.spawn(run).join()
    });
    ran.map_err(|_| anyhow!("what ran in {path} panicked"))?
}

/// Runs a command, its words parted by blanks; what it printed.
///
/// # Errors
/// It is not there, or it fails.
pub(crate) fn command(line: &str) -> Result<String> {
    let mut words = line.split_ascii_whitespace();
    let program = words.next().context("no command")?;
    let output = match Command::new(program).args(words).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no command {program}"),
        output => output.with_context(|| format!("cannot run {program}"))?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}`: {}", said.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A cable between the namespaces of two processes: a `veth` pair, whose ends both are [`DEVICE`].
///
/// # Errors
/// This host cannot make one.
pub(crate) fn lay_cable(asker: u32, answerer: u32) -> Result<(), Stop> {
    let lay = || -> Result<()> {
        let add = format!("ip link add {DEVICE} type veth peer name {DEVICE} netns {answerer}");
        within(asker, || command(&add))?;
        within(asker, || plug_in(&format!("{ASKER}/24")))?;
        within(answerer, || plug_in(&format!("{ANSWERER}/24")))
    };
    lay().map_err(|why| Stop::NotHere(format!("no veth pair can be made: {why:#}")))
}

/// The port of a switch that leads to the end that asks, and the one that leads to the end that answers.
pub(crate) const PORTS: [&str; 2] = ["asker", "answerer"];
/// Packets that a way may have under way: never the reason of a loss here.
const UNDER_WAY_MAX: u32 = 10_000;

/// How often something is asked before that is an error: a machine that stands still meanwhile makes ways
/// longer than they are, and timers run out.
pub(crate) const ATTEMPTS: u32 = 5;
/// What ways took too long together is at most one of so many parts of what the scenario is about. Part of it
/// is how long whoever was woken had no CPU that ran, of which no clock of theirs knows.
pub(crate) const LATE_PARTS: u64 = 4;
/// What is said after so many attempts.
pub(crate) const STANDS_STILL: &str = "this machine stands still too often";

/// Two cables and a switch between them, in the namespace of a third process: what is lost or late at one of
/// its [`PORTS`] is so on the way, where neither end has a queue of its own. Nothing is at first.
///
/// # Errors
/// This host cannot make one, or its kernel has no `netem`.
pub(crate) fn lay_switched(asker: u32, answerer: u32, switch: u32) -> Result<(), Stop> {
    let lay = || -> Result<()> {
        command("ip link add switch type bridge")?;
        command("ip link set switch addrgenmode none up")?;
        for (port, end) in PORTS.into_iter().zip([asker, answerer]) {
            command(&format!(
                "ip link add {port} type veth peer name {DEVICE} netns {end}"
            ))?;
            command(&format!("ip link set {port} addrgenmode none"))?;
            command(&format!("ip link set {port} master switch up"))?;
        }
        Ok(())
    };
    within(switch, || {
        // First, as it is what a kernel lacks most likely.
        command("tc qdisc add dev lo root netem")?;
        command("tc qdisc del dev lo root")
    })
    .map_err(|why| Stop::NotHere(format!("this kernel has no netem: {why:#}")))?;
    within(switch, lay)
        .and_then(|()| within(asker, || plug_in(&format!("{ASKER}/24"))))
        .and_then(|()| within(answerer, || plug_in(&format!("{ANSWERER}/24"))))
        .map_err(|why| Stop::NotHere(format!("no switch can be made: {why:#}")))
}

/// Has the queue of a device in the namespace of a process lose, delay, reorder or double packets: `how`, as
/// `tc` takes it after `netem`.
///
/// # Errors
/// The kernel takes no such queue.
pub(crate) fn disturb(pid: u32, device: &str, how: &str) -> Result<()> {
    let line = format!("tc qdisc replace dev {device} root netem limit {UNDER_WAY_MAX} {how}");
    within(pid, || command(&line))?;
    Ok(())
}

/// How many packets the queue of a device in the namespace of a process has dropped (`tc -s qdisc`).
///
/// # Errors
/// There is no such device, or `tc` says something else.
pub(crate) fn drops_of(pid: u32, device: &str) -> Result<u64> {
    let text = within(pid, || {
        command(&format!("tc -s -j qdisc show dev {device}"))
    })?;
    let queues: Value = serde_json::from_str(&text)?;
    let drops = &queues[0]["drops"];
    drops.as_u64().with_context(|| format!("tc says {text}"))
}

/// Gives the device of this thread's namespace an address, as `ip address add` takes it, and has it up.
///
/// # Errors
/// A command fails.
pub(crate) fn plug_in(address: &str) -> Result<()> {
    // No packets but those of the scenario.
    command(&format!("ip link set {DEVICE} addrgenmode none"))?;
    command(&format!("ip address add {address} dev {DEVICE}"))?;
    command(&format!("ip link set {DEVICE} up"))?;
    Ok(())
}

/// `switch`: what is between two cables; a network of its own, for as long as it lives.
///
/// # Errors
/// It gets none, or the lab has gone.
pub(crate) fn stand_between(part: &mut Part) -> Result<()> {
    enter_new_network()?;
    part.say(&())?;
    part.hear()
}

/// What TCP knows of the one connection in the network of a process.
///
/// # Errors
/// The kernel does not tell, or there is none.
pub(crate) fn tcp_info(pid: u32) -> Result<TcpInfo> {
    let mut found = None;
    TcpSockets::of(&Root::host(), pid)?.each(|socket| {
        if !socket.listens() {
            found = socket.info;
        }
    })?;
    found.context("the kernel has no such connection")
}

/// A number that nobody knows beforehand: where it lies, no answer may depend on it.
pub(crate) fn any_of(range: RangeInclusive<u64>) -> u64 {
    let random = RandomState::new().build_hasher().finish();
    let width = range.end() - range.start() + 1;
    range.start() + random % width
}

#[cfg(test)]
mod tests {
    use super::any_of;
    use super::command;

    #[test]
    fn commands_say_what_is_wrong_with_them() {
        let said = |line| command(line).expect_err("it fails").to_string();
        assert_eq!(
            said("lacuna-no-such-command x"),
            "there is no command lacuna-no-such-command"
        );
        assert!(said("ls /no/such/file").starts_with("`ls /no/such/file`: "));
        assert_eq!(command("echo a  b").expect("it is there"), "a b\n");
    }

    #[test]
    fn numbers_stay_within_their_range() {
        let seen: Vec<u64> = (0..1_000).map(|_| any_of(3..=5)).collect();
        assert!((3..=5).all(|number| seen.contains(&number)));
        assert!(seen.iter().all(|number| (3..=5).contains(number)));
    }
}
