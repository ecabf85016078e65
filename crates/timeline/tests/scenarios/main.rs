// SPDX-License-Identifier: Apache-2.0
//! Scenarios: each `*.txt` here is a script of events and questions with their expected answers.
//!
//! `UPDATE=1 cargo test -p lacuna-timeline --test scenarios` writes the answers anew; read the
//! difference before it is committed. The words of a script are explained in `script.rs`.

mod print;
mod script;

use std::path::Path;
use std::path::PathBuf;

use lacuna_timeline::Recorder;
use script::Line;
use script::Script;

/// The files of this folder.
fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

/// The script with its answers as they are.
fn answered(text: &str) -> String {
    let mut script = Script::default();
    let mut recorder = Recorder::default();
    let mut answered = String::new();
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        answered.push_str(line);
        answered.push('\n');
        match script.line(line) {
            Line::Nothing => {}
            Line::Event(event) => recorder.push(*event),
            Line::Confirm(at) => recorder.confirm(at),
            Line::Account(thread, windows) => {
                let account = recorder.account(thread, &windows);
                account.check().expect("the identities hold");
                answered.push_str(&print::account(&account));
            }
            Line::OnCpu(thread, from, to) => {
                answered.push_str(&print::on_cpu(&recorder, thread, from, to));
            }
            Line::Proved(thread) => {
                let proved = recorder.proved_until(thread);
                answered.push_str(&format!("  {proved:?}\n"));
            }
        }
    }
    answered
}

#[test]
fn every_scenario_has_its_answer() {
    let files = files();
    assert!(files.len() >= 10, "scenarios are missing");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let answered = answered(&text);
        if answered == text {
            continue;
        }
        if std::env::var("UPDATE").is_ok() {
            std::fs::write(&file, &answered).expect("it can be written");
            continue;
        }
        wrong.push(format!("{}:\n{answered}", file.display()));
    }
    assert!(
        wrong.is_empty(),
        "UPDATE=1 writes these:\n{}",
        wrong.join("\n")
    );
}
