// SPDX-License-Identifier: Apache-2.0
//! Tries each hook for real, for `lacuna doctor`: what a kernel promises in its BTF is not always
//! what it lets one load.

use crate::config::Config;
use crate::config::HookReport;
use crate::error::Error;
use crate::features::Features;
use crate::load::Opened;
use crate::load::prepare;
use crate::load::refused;
use crate::log;
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::skel::Skel;

/// Loads and attaches each program and detaches it again: all together, because reading the kernel's
/// types is what takes long, and by itself where that does not tell. Hooks that the kernel has in another
/// shape only are left out; those that it has not at all are reported as missing.
pub fn try_each_hook() -> Vec<HookReport> {
    let read = || {
        let features = Features::read()?;
        Ok((programs(&features)?, features))
    };
    let (programs, features) = match read() {
        Ok(read) => read,
        Err(error) => {
            let error: Error = error;
            return vec![HookReport {
                hook: "BTF".to_owned(),
                program: String::new(),
                outcome: Err(error.to_string()),
            }];
        }
    };
    let together = try_together().unwrap_or_default();
    programs
        .into_iter()
        .map(|(program, hook)| {
            let outcome = match together.contains(&program) {
                true => Ok(()),
                false => try_one(&program, &features),
            };
            HookReport {
                hook,
                program,
                outcome,
            }
        })
        .collect()
}

/// Names and hooks of the programs that are right for this kernel.
fn programs(features: &Features) -> Result<Vec<(String, String)>, Error> {
    let mut opened = Opened::new()?;
    let stateless = !features.switch_says_state();
    let list = opened.skel.open_object_mut().progs_mut().map(|program| {
        let name = program.name().to_string_lossy().into_owned();
        (name, program.section().to_string_lossy().into_owned())
    });
    Ok(list
        .filter(|(name, _)| match name.as_str() {
            "sched_switch" => !stateless,
            "sched_switch_stateless" => stateless,
            "kfree_skb" => features.says_drop_reason(),
            _ => true,
        })
        .collect())
}

/// Names of the programs that load in one object, as they do for real, and then attach.
fn try_together() -> Result<Vec<String>, Error> {
    log::start();
    let Opened { skel, storage } = prepare(&Config::default())?;
    let mut skel = skel.load().map_err(refused("loading the BPF programs"))?;
    let programs = skel.object_mut().progs_mut();
    let attached = programs
        .filter(|program| program.autoload() && program.attach().is_ok())
        .map(|program| program.name().to_string_lossy().into_owned())
        .collect();
    drop(skel);
    drop(storage);
    Ok(attached)
}

fn try_one(wanted: &str, features: &Features) -> Result<(), String> {
    log::start();
    let said = |error: libbpf_rs::Error| match log::tail() {
        tail if tail.is_empty() => format!("{error:#}"),
        tail => format!("{error:#}\n{tail}"),
    };
    let mut opened = Opened::new().map_err(|error| error.to_string())?;
    for mut program in opened.skel.open_object_mut().progs_mut() {
        let load = program.name() == wanted;
        program.set_autoload(load);
    }
    opened
        .select_maps(features)
        .map_err(|error| error.to_string())?;
    let Opened { skel, storage } = opened;
    let mut skel = skel.load().map_err(said)?;
    for program in skel.object_mut().progs_mut() {
        if program.name() == wanted {
            drop(program.attach().map_err(said)?);
        }
    }
    drop(skel);
    drop(storage);
    Ok(())
}
