// SPDX-License-Identifier: Apache-2.0
//! A process of a scenario, from its own side: its arguments, and lines of JSON with the lab.
//!
//! `lacuna __lab -- PARENT SCENARIO PART ARGUMENTS…` is such a process. It ends with the lab.

use std::ffi::CString;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::io::Write;
use std::io::stdin;
use std::str::FromStr;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use rustix::process::Pid;
use rustix::process::setpriority_process;
use rustix::process::setsid;
use rustix::thread::CpuSet;
use rustix::thread::sched_setaffinity;
use rustix::thread::set_name;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::PartBody;
use crate::actor::die_with_parent;
use crate::scenario;

/// The hidden subcommand of such a process.
pub const PART: &str = "__lab";

/// The part that every scenario has: it uses a CPU for nothing.
pub(crate) const HOG: &str = "hog";

/// What such a process knows.
#[derive(Debug)]
pub struct Part {
    arguments: std::vec::IntoIter<String>,
}

/// Runs one process of a scenario; `arguments` are those after the subcommand.
///
/// # Errors
/// There is no such part, or what it does failed.
pub fn part(arguments: &[OsString]) -> Result<()> {
    let words: Option<Vec<String>> = arguments
        .iter()
        .map(|word| word.to_str().map(str::to_owned))
        .collect();
    let mut part = Part {
        arguments: words.context("not text")?.into_iter(),
    };
    die_with_parent(part.argument()?)?;
    let (of, name): (String, String) = (part.argument()?, part.argument()?);
    let body = find(&of, &name).with_context(|| format!("{of} has no part {name}"))?;
    call_this_thread(&name)?;
    body(&mut part)
}

fn find(of: &str, name: &str) -> Option<PartBody> {
    if name == HOG {
        return Some(hog);
    }
    let parts = scenario(of)?.parts.iter();
    parts
        .copied()
        .find(|part| part.0 == name)
        .map(|part| part.1)
}

impl Part {
    /// The next argument.
    ///
    /// # Errors
    /// There is none, or it is not one of these.
    pub fn argument<T: FromStr>(&mut self) -> Result<T> {
        let word = self.arguments.next().context("an argument is missing")?;
        word.parse()
            .map_err(|_| anyhow!("{word:?} is not an argument of this kind"))
    }

    /// Says something to the lab.
    ///
    /// # Errors
    /// It has gone.
    pub fn say(&self, what: &impl Serialize) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", serde_json::to_string(what)?)?;
        Ok(stdout.flush()?)
    }

    /// Waits for what the lab says next.
    ///
    /// # Errors
    /// It has gone, or said something else.
    pub fn hear<T: DeserializeOwned>(&self) -> Result<T> {
        let mut line = String::new();
        if stdin().read_line(&mut line)? == 0 {
            bail!("the lab has gone");
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// Gives this thread a name in the kernel (15 bytes are kept); a process is called as its first thread.
///
/// # Errors
/// The name has a zero in it.
pub(crate) fn call_this_thread(name: &str) -> Result<()> {
    Ok(set_name(&CString::new(name)?)?)
}

/// Lets this thread run on that CPU only.
///
/// # Errors
/// It may not run there.
pub(crate) fn pin_this_thread(cpu: usize) -> Result<()> {
    pin(None, cpu)
}

/// The same for the only thread of another process.
///
/// # Errors
/// It may not run there, or has ended.
pub(crate) fn pin_process(pid: u32, cpu: usize) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pin(Some(pid.context("not a process id")?), cpu)
}

fn pin(pid: Option<Pid>, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(pid, &set).with_context(|| format!("cannot run on CPU {cpu}"))
}

/// `hog NAME CPU NICE`: says that it is there, then uses that CPU until it is killed.
fn hog(part: &mut Part) -> Result<()> {
    call_this_thread(&part.argument::<String>()?)?;
    pin_this_thread(part.argument()?)?;
    take_priority(part.argument()?)?;
    part.say(&())?;
    loop {
        std::hint::spin_loop();
    }
}

/// Priority holds between the processes of a session only where each session is scheduled as a whole
/// (`CONFIG_SCHED_AUTOGROUP`); so this is a session of its own, with that priority too.
fn take_priority(nice: i32) -> Result<()> {
    setpriority_process(None, nice).context("cannot change the own priority")?;
    setsid().context("cannot make a session")?;
    match fs::write("/proc/self/autogroup", nice.to_string()) {
        // A kernel that knows no such thing has but the one priority.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        written => written.context("cannot change the session's priority"),
    }
}
