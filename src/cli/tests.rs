// SPDX-License-Identifier: Apache-2.0
//! Values on the command line and in the configuration: what is taken, what is refused and how.

use std::io::Write;
use std::time::Duration;

use clap::CommandFactory;
use clap::Parser;

use super::Address;
use super::AgentArgs;
use super::AgentSettings;
use super::CommandLine;
use super::Inject;
use super::Question;
use super::Selector;
use super::Task;
use super::TraceId;
use super::Watch;

fn task(line: &str) -> Task {
    parse_line(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn parse_line(line: &str) -> Result<Task, clap::Error> {
    let words = std::iter::once("lacuna").chain(line.split_whitespace());
    CommandLine::try_parse_from(words).map(|line| line.task)
}

fn agent(line: &str) -> AgentArgs {
    match task(line) {
        Task::Agent(arguments) => arguments,
        other => panic!("{other:?}"),
    }
}

fn configured(text: &str) -> anyhow::Result<AgentSettings> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    agent(&format!("agent --config {}", file.path().display())).settings()
}

#[track_caller]
fn refused<T: std::str::FromStr<Err = String>>(text: &str, why: &str) {
    match text.parse::<T>() {
        Ok(_) => panic!("{text} must be refused"),
        Err(error) => assert!(error.contains(why), "{text}: {error}"),
    }
}

#[test]
fn the_command_line_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn selectors() {
    let uid = "6d1b8a3e-0c5f-4a55-9d3e-2f6f0a4b1c2d";
    let cases = [
        ("all", Selector::All),
        ("pid:1", Selector::Pid(std::num::NonZeroU32::MIN)),
        ("comm:kworker/3:1", Selector::Comm("kworker/3:1".to_owned())),
        ("cgroup:/a/b/", Selector::Cgroup("/a/b".into())),
        ("cgroup:/", Selector::Cgroup("/".into())),
        (
            "container:0123456789AB",
            Selector::Container("0123456789ab".to_owned()),
        ),
        (
            "unit:payments",
            Selector::Unit("payments.service".to_owned()),
        ),
        ("unit:user.slice", Selector::Unit("user.slice".to_owned())),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    assert_eq!(
        format!("pod:{uid}").parse(),
        Ok(Selector::Pod(uid.to_owned()))
    );
}

#[test]
fn strange_selectors_say_what_is_wrong() {
    refused::<Selector>("", "a selector is one of pid:N, comm:NAME");
    refused::<Selector>("payments", "a selector is one of pid:N, comm:NAME");
    refused::<Selector>("user:root", "there is no selector user:");
    refused::<Selector>("pid:", "nothing follows pid:");
    refused::<Selector>("pid:0", "not a process id");
    refused::<Selector>("pid:4294967295", "larger than any");
    refused::<Selector>("comm:a-name-of-16-byt", "try comm:a-name-of-16-by");
    refused::<Selector>("comm:aaaaaaaaaaaaaaé", "try comm:aaaaaaaaaaaaaa");
    refused::<Selector>("cgroup:payments", "begins with /");
    refused::<Selector>("container:web", "hexadecimal digits");
    refused::<Selector>("pod:payments-0", "by its uid");
}

#[test]
fn addresses() {
    for text in [
        "127.0.0.1:4317",
        "localhost:0",
        "[::1]:4318",
        "unix:/run/a b.sock",
        "unix:@x",
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
    }
    let socket = Address::parse_url("unix:/run/lacuna/api.sock").unwrap();
    assert_eq!(socket, Address::Unix("/run/lacuna/api.sock".into()));
    let port = Address::parse_url("http://[::1]:80/").unwrap();
    assert_eq!(
        port,
        Address::Tcp {
            host: "::1".to_owned(),
            port: 80
        }
    );
    refused::<Address>("4317", "port is missing");
    refused::<Address>(":4317", "host is missing");
    refused::<Address>("localhost:65536", "not a port");
    refused::<Address>("::1:4317", "in brackets");
    refused::<Address>("[x]:1", "not an IPv6 address");
    refused::<Address>("a/b:1", "not the name or address");
    refused::<Address>("http://localhost:1", "no URL");
    refused::<Address>("unix:", "path after unix:");
    refused::<Address>(&format!("unix:/{}", "a".repeat(107)), "at most 107 bytes");
    assert!(
        Address::parse_url("https://localhost:1")
            .unwrap_err()
            .contains("TLS")
    );
    assert!(
        Address::parse_url("localhost:1")
            .unwrap_err()
            .contains("http://HOST:PORT")
    );
}

#[test]
fn trace_ids() {
    let id: TraceId = " 0AF7651916CD43DD8448EB211C80319C ".parse().unwrap();
    assert_eq!(id.as_str(), "0af7651916cd43dd8448eb211c80319c");
    refused::<TraceId>("0af7651916cd43dd8448eb211c80319", "32 hexadecimal digits");
    refused::<TraceId>("0af7651916cd43dd8448eb211c80319g", "32 hexadecimal digits");
    refused::<TraceId>(&"0".repeat(32), "all zeros");
}

#[test]
fn faults_to_inject() {
    let inject: Inject = "drop-every=7,drop-exit,skip-wakings=3".parse().unwrap();
    assert_eq!(inject.drop_every.unwrap().get(), 7);
    assert_eq!(inject.skip_wakings.unwrap().get(), 3);
    assert!(inject.drop_exit);
    assert_eq!("".parse(), Ok(Inject::default()));
    refused::<Inject>("drop-every=0", "not a whole number above 0");
    refused::<Inject>("drop-some", "is none of");
}

#[test]
fn a_command_keeps_its_own_options() {
    let Task::Run(arguments) = task("run --verbose -- ls --format -l --") else {
        panic!("not a run");
    };
    assert!(arguments.verbose.verbose);
    assert_eq!(arguments.command, ["ls", "--format", "-l", "--"]);
    let Task::Run(arguments) = task("run ls --verbose") else {
        panic!("not a run");
    };
    assert!(
        !arguments.verbose.verbose,
        "from the command on, options are the command's"
    );
}

#[test]
fn explain_takes_one_question() {
    let Task::Explain(arguments) = task("explain --spans - --wait 0.5") else {
        panic!("not an explain");
    };
    assert_eq!(arguments.question(), Some(Question::Spans("-".into())));
    assert_eq!(arguments.wait, Duration::from_millis(500));
    assert!(parse_line("explain").is_err());
    assert!(parse_line("explain 0af7651916cd43dd8448eb211c80319c --spans -").is_err());
    for wait in ["-1", "nan", "inf", "3601", "soon"] {
        let line = format!("explain --spans - --wait={wait}");
        assert!(parse_line(&line).is_err(), "{line}");
    }
}

#[test]
fn settings_are_built_in_then_file_then_command_line() {
    let settings = agent("agent").settings().unwrap();
    assert_eq!(settings.otlp_grpc.to_string(), "127.0.0.1:4317");
    assert_eq!(settings.otlp_http.to_string(), "127.0.0.1:4318");
    assert_eq!(settings.api.to_string(), "unix:/run/lacuna/api.sock");
    assert_eq!(settings.watch, Watch::Auto);
    assert_eq!(settings.record_budget, 50_000);

    let settings = configured("otlp_grpc = 'localhost:1'\nwatch = ['all']\nrecord_budget = 7\n");
    let settings = settings.unwrap();
    assert_eq!(settings.otlp_grpc.to_string(), "localhost:1");
    assert_eq!(settings.watch, Watch::Selected(vec![Selector::All]));
    assert_eq!(settings.record_budget, 7);

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"api = 'unix:/a'\notlp_http = 'localhost:2'\nwatch = 'auto'\n")
        .unwrap();
    let line = format!(
        "agent --config {} --api unix:/b --record-budget 9 --watch pid:1 --watch comm:b",
        file.path().display()
    );
    let settings = agent(&line).settings().unwrap();
    assert_eq!(settings.api.to_string(), "unix:/b");
    assert_eq!(settings.otlp_http.to_string(), "localhost:2");
    let pid = Selector::Pid(std::num::NonZeroU32::MIN);
    assert_eq!(
        settings.watch,
        Watch::Selected(vec![pid, Selector::Comm("b".to_owned())])
    );
    assert_eq!(settings.record_budget, 9);
}

#[test]
fn a_strange_configuration_says_where() {
    let cases = [
        ("# fine\nupstream = 'x'\n", 2, "unknown field `upstream`"),
        (
            "\n\notlp-grpc = 'localhost:1'\n",
            3,
            "unknown field `otlp-grpc`",
        ),
        ("api = 'localhost'\n", 1, "the port is missing"),
        ("api = 7\n", 1, "invalid type"),
        ("record_budget = 0\n", 1, "nonzero"),
        ("record_budget = -1\n", 1, "invalid value"),
        (
            "watch = 'all'\n",
            1,
            "expected \"auto\" or a list of selectors",
        ),
        (
            "watch = ['pid:1',\n 'user:x']\n",
            2,
            "\"user:x\": there is no selector user:",
        ),
        (
            "watch = []\n",
            1,
            "expected \"auto\" or a list of selectors",
        ),
        ("api = 'unix:/a'\napi = 'unix:/b'\n", 2, "duplicate key"),
        ("x = [\n", 1, ""),
    ];
    for (text, line, why) in cases {
        let error = format!("{:#}", configured(text).unwrap_err());
        assert!(error.contains(&format!(":{line}: ")), "{text:?}: {error}");
        assert!(error.contains(why), "{text:?}: {error}");
    }
}

#[test]
fn an_unreadable_configuration_is_named() {
    let error = agent("agent --config /nowhere/lacuna.toml")
        .settings()
        .unwrap_err();
    let error = format!("{error:#}");
    assert_eq!(
        error,
        "cannot read the configuration /nowhere/lacuna.toml: No such file or directory (os error 2)"
    );
}
