// SPDX-License-Identifier: Apache-2.0
//! What the agent is to watch: selectors, on the command line and in the configuration alike.
//!
//! A selector is only parsed here. Which processes it selects, also those that start later, is
//! found out where processes are known.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest name of a thread that the kernel keeps (`TASK_COMM_LEN` less its closing zero), bytes.
const COMM_BYTES_MAX: usize = 15;
/// Fewest digits of a container's id that may stand for it.
const CONTAINER_DIGITS_MIN: usize = 12;
/// Digits of a whole container id.
const CONTAINER_DIGITS_MAX: usize = 64;

const FORMS: &str = "pid:N, comm:NAME, cgroup:PATH, container:ID, pod:UID, unit:NAME or all";

/// One selector.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Selector {
    /// The process of that id in this agent's pid namespace, and what it starts.
    Pid(NonZeroU32),
    /// Processes with a thread of that name.
    Comm(String),
    /// Processes in that cgroup or below it; absolute, from the root of the hierarchy.
    Cgroup(PathBuf),
    /// Processes of the container whose id begins so; lower-case hexadecimal.
    Container(String),
    /// Processes of the Kubernetes pod with that uid; lower case.
    Pod(String),
    /// Processes of that systemd unit.
    Unit(String),
    /// Every process.
    All,
}

/// What is watched.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Watch {
    /// Everything while the host's record rate is under the budget; over it, the processes that
    /// send spans.
    #[default]
    Auto,
    /// What any of these selects, and nothing else.
    Selected(Vec<Selector>),
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Selector, String> {
        if text == "all" {
            return Ok(Selector::All);
        }
        let Some((kind, value)) = text.split_once(':') else {
            return Err(format!("a selector is one of {FORMS}"));
        };
        if value.is_empty() {
            return Err(format!("nothing follows {kind}:"));
        }
        match kind {
            "pid" => parse_pid(value),
            "comm" => parse_comm(value),
            "cgroup" => parse_cgroup(value),
            "container" => parse_container(value),
            "pod" => parse_pod(value),
            "unit" => Ok(Selector::Unit(with_unit_suffix(value))),
            _ => Err(format!("there is no selector {kind}:, only {FORMS}")),
        }
    }
}

fn parse_pid(value: &str) -> Result<Selector, String> {
    let pid: NonZeroU32 = value
        .parse()
        .map_err(|_| format!("{value:?} is not a process id"))?;
    if i32::try_from(pid.get()).is_err() {
        return Err(format!("{value} is larger than any process id"));
    }
    Ok(Selector::Pid(pid))
}

fn parse_comm(value: &str) -> Result<Selector, String> {
    if value.len() > COMM_BYTES_MAX {
        let mut end = COMM_BYTES_MAX;
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        return Err(format!(
            "the kernel keeps only {COMM_BYTES_MAX} bytes of a name: try comm:{}",
            &value[..end]
        ));
    }
    Ok(Selector::Comm(value.to_owned()))
}

fn parse_cgroup(value: &str) -> Result<Selector, String> {
    if !value.starts_with('/') {
        return Err(format!(
            "a cgroup's path begins with /, as in /proc/PID/cgroup: cgroup:/{value}"
        ));
    }
    let trimmed = value.trim_end_matches('/');
    Ok(Selector::Cgroup(PathBuf::from(if trimmed.is_empty() {
        "/"
    } else {
        trimmed
    })))
}

fn parse_container(value: &str) -> Result<Selector, String> {
    let hexadecimal = value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hexadecimal || !(CONTAINER_DIGITS_MIN..=CONTAINER_DIGITS_MAX).contains(&value.len()) {
        return Err(format!(
            "a container is given by {CONTAINER_DIGITS_MIN} to {CONTAINER_DIGITS_MAX} hexadecimal digits of its id"
        ));
    }
    Ok(Selector::Container(value.to_ascii_lowercase()))
}

fn parse_pod(value: &str) -> Result<Selector, String> {
    let groups: Vec<&str> = value.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hexadecimal = groups
        .iter()
        .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if !hexadecimal || lengths != [8, 4, 4, 4, 12] {
        return Err(
            "a pod is given by its uid, as in kubectl get pod -o jsonpath={.metadata.uid}"
                .to_owned(),
        );
    }
    Ok(Selector::Pod(value.to_ascii_lowercase()))
}

/// systemd's own rule: a name without a suffix is a service.
fn with_unit_suffix(value: &str) -> String {
    if value.contains('.') {
        value.to_owned()
    } else {
        format!("{value}.service")
    }
}
