// SPDX-License-Identifier: Apache-2.0
//! What is left to do when the runner is told to end: its guests end with it in any case, but not
//! the folders that it made for them.
//!
//! A runner that is killed outright leaves its folder behind.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// How the name of each folder begins that this process makes for a guest.
pub(crate) fn prefix() -> String {
    format!("lacuna-vm-{}-", std::process::id())
}

/// From here on a signal that ends this process removes its folders first.
///
/// # Errors
/// When signals cannot be handled or no thread can be started.
pub(crate) fn clean_up_at_signals() -> Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot handle signals")?;
    let end = move || {
        for signal in signals.forever() {
            remove(&std::env::temp_dir(), &prefix());
            // Ends this process as if there were no handler.
            let _ = emulate_default_handler(signal);
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(end).context("cannot start a thread")?;
    Ok(())
}

/// Removes the folders whose names begin so.
fn remove(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            // Whatever is in the way, the process is about to end.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn only_folders_of_this_process_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let own = parent.path().join(format!("{}x", super::prefix()));
        let other = parent.path().join("lacuna-vm-1-x");
        for folder in [&own, &other] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("console"), "").unwrap();
        }
        super::remove(parent.path(), &super::prefix());
        assert!(!own.exists() && other.join("console").exists());
    }
}
