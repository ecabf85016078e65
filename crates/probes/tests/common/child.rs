// SPDX-License-Identifier: Apache-2.0
//! A program that goes step by step as it is told over its standard input.

use std::fmt::Debug;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::str::FromStr;

/// A child that is killed and reaped when dropped.
pub struct Steps {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Steps {
    pub fn start(program: &Path, arguments: &[&str]) -> Steps {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Steps {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it take the next step.
    pub fn step(&mut self) {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// The numbers in the next line that it prints.
    pub fn numbers<N: FromStr<Err: Debug>>(&mut self) -> Vec<N> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let number = |word: &str| word.parse().unwrap();
        line.split_ascii_whitespace().map(number).collect()
    }

    /// Closes its input and waits for its end.
    pub fn finish(&mut self) {
        self.input = None;
        self.child.wait().unwrap();
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
