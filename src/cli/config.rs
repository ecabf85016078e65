// SPDX-License-Identifier: Apache-2.0
//! The agent's settings: the command line over the configuration file over what is built in.
//!
//! The file is TOML; its keys are the names of the long options with `_` for `-`. A key that is not
//! known is refused: a setting that is silently not in force is worse than an agent that does not
//! start. Every error says the file and the line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde::Deserialize;
use serde::Deserializer;

use super::Address;
use super::AgentArgs;
use super::Selector;
use super::Watch;
use super::address::API_DEFAULT;

const OTLP_GRPC_DEFAULT: &str = "127.0.0.1:4317";
const OTLP_HTTP_DEFAULT: &str = "127.0.0.1:4318";
/// Records a second (rule 16).
const RECORD_BUDGET_DEFAULT: u32 = 50_000;
/// A larger configuration is surely another file, bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What the agent does, all questions settled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AgentSettings {
    /// Where OTLP over gRPC is taken.
    pub(crate) otlp_grpc: Address,
    /// Where OTLP over HTTP is taken.
    pub(crate) otlp_http: Address,
    /// Where questions are answered.
    pub(crate) api: Address,
    /// What is recorded.
    pub(crate) watch: Watch,
    /// Kernel records a second above which [`Watch::Auto`] narrows.
    pub(crate) record_budget: u32,
}

/// The file, as written.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
struct FileSettings {
    #[serde(default, deserialize_with = "address")]
    otlp_grpc: Option<Address>,
    #[serde(default, deserialize_with = "address")]
    otlp_http: Option<Address>,
    #[serde(default, deserialize_with = "address")]
    api: Option<Address>,
    #[serde(default, deserialize_with = "watch")]
    watch: Option<Watch>,
    record_budget: Option<std::num::NonZeroU32>,
}

impl AgentArgs {
    /// Reads the configuration file, where one was named, and settles every question.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or says something that is not understood.
    pub(crate) fn settings(self) -> Result<AgentSettings> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => FileSettings::default(),
        };
        let watch = match self.watch.is_empty() {
            true => file.watch.unwrap_or_default(),
            false => Watch::Selected(self.watch),
        };
        let budget = file.record_budget.map(std::num::NonZeroU32::get);
        Ok(AgentSettings {
            otlp_grpc: settle(self.otlp_grpc, file.otlp_grpc, OTLP_GRPC_DEFAULT)?,
            otlp_http: settle(self.otlp_http, file.otlp_http, OTLP_HTTP_DEFAULT)?,
            api: settle(self.api, file.api, API_DEFAULT)?,
            watch,
            record_budget: self
                .record_budget
                .or(budget)
                .unwrap_or(RECORD_BUDGET_DEFAULT),
        })
    }
}

fn settle(given: Option<Address>, filed: Option<Address>, built_in: &str) -> Result<Address> {
    match given.or(filed) {
        Some(address) => Ok(address),
        None => built_in.parse().map_err(anyhow::Error::msg),
    }
}

fn read(path: &Path) -> Result<FileSettings> {
    let name = path.display();
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .with_context(|| format!("cannot read the configuration {name}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("the configuration {name} is larger than {FILE_BYTES_MAX} bytes");
    }
    toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(&text, span.start));
        anyhow::anyhow!("{name}:{line}: {}", error.message())
    })
}

/// The line of that byte, counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// `"auto"`, or a list of selectors.
fn watch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Watch>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Word(String),
        List(Vec<String>),
    }
    let selectors = match Written::deserialize(deserializer) {
        Ok(Written::Word(word)) if word == "auto" => return Ok(Some(Watch::Auto)),
        Ok(Written::List(selectors)) if !selectors.is_empty() => selectors,
        _ => {
            return Err(serde::de::Error::custom(
                "watch is \"auto\" or a list of selectors",
            ));
        }
    };
    let parsed = selectors.iter().map(|text| {
        let selector = text.parse::<Selector>();
        selector.map_err(|error| serde::de::Error::custom(format_args!("{text:?}: {error}")))
    });
    Ok(Some(Watch::Selected(parsed.collect::<Result<_, _>>()?)))
}
