// SPDX-License-Identifier: Apache-2.0
//! A service with a few threads (`pool.py`): each span is served by one of them, which it notes and
//! tells the test alone.

use std::process::Command;

use serde_json::Value;

use crate::agent::Agent;
use crate::machine::script;
use crate::program::Program;
use crate::until;

/// The service, and the agent that it exports to.
pub(crate) struct Pool<'a> {
    agent: &'a Agent,
    program: Program,
    /// How often it was told to do something.
    told: usize,
    /// How many of its lines were read.
    read: usize,
}

/// The program, under way and without anybody to send to.
pub(crate) fn start() -> Program {
    let mut command = Command::new("python3");
    command.arg(script("pool.py"));
    let program = Program::start(command);
    program.line("ready");
    program
}

impl<'a> Pool<'a> {
    /// Has the program send to that agent.
    pub(crate) fn of(mut program: Program, agent: &'a Agent) -> Pool<'a> {
        program.say(&agent.http_port.to_string());
        Pool {
            agent,
            program,
            told: 0,
            read: 0,
        }
    }

    /// Has it serve and send; every span of it, with its thread.
    pub(crate) fn tell(&mut self, what: &str) -> Vec<Value> {
        self.program.say(what);
        self.told += 1;
        let said = until("it has sent", || {
            let said = self.program.said();
            (said.matches("sent 200").count() >= self.told).then_some(said)
        });
        let lines = said.lines().skip(self.read);
        let spans = lines.filter(|line| line.starts_with('{'));
        let spans = spans.map(|line| serde_json::from_str(line).expect("JSON"));
        let spans = spans.collect();
        self.read = said.lines().count();
        spans
    }

    /// The answer to each of these spans. Whoever is named must have been it.
    pub(crate) fn answers(&self, spans: &[Value]) -> Vec<Value> {
        let answers = spans.iter().map(|span| {
            let trace = span["trace"].as_str().expect("a trace");
            let answer = self.agent.explained(trace);
            let named = &answer["join"]["tid"];
            assert!(*named == 0 || *named == span["tid"], "{span}: {answer:#}");
            answer
        });
        answers.collect()
    }

    /// Has it serve until most spans of a turn are joined to their threads by their time stamps: where
    /// several threads were on CPUs at once, a span may rightly stay without.
    #[track_caller]
    pub(crate) fn serve_until_joined(&mut self) {
        until(
            "the spans of a turn are joined by their time stamps",
            || {
                let spans = self.tell("turn");
                let answers = self.answers(&spans);
                let is_joined = |answer: &&Value| answer["join"]["how"] == "timestamps";
                let joined = answers.iter().filter(is_joined).count();
                if let Some(other) = answers.iter().find(|answer| !is_joined(answer)) {
                    eprintln!("{joined} of {} joined, not {}", spans.len(), other["join"]);
                }
                (joined * 10 >= spans.len() * 9).then_some(())
            },
        );
    }
}
