// SPDX-License-Identifier: Apache-2.0
//! The agent's settings: the command line over the configuration file over what is built in.
//!
//! The file is TOML; its keys are the names of the long options with `_` for `-`. A key that is not
//! known is refused: a setting that is silently not in force is worse than an agent that does not
//! start. Every error says the file and the line.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use serde::de::SeqAccess;
use serde::de::Unexpected;
use serde::de::Visitor;

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
    record_budget: Option<NonZeroU32>,
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
        let budget = file.record_budget.map(NonZeroU32::get);
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
    parsed(deserializer).map(Some)
}

/// `"auto"`, or a list of selectors.
fn watch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Watch>, D::Error> {
    deserializer.deserialize_any(WatchVisitor).map(Some)
}

struct WatchVisitor;

impl<'de> Visitor<'de> for WatchVisitor {
    type Value = Watch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"auto\" or a list of selectors")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Watch, E> {
        match word {
            "auto" => Ok(Watch::Auto),
            _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Watch, A::Error> {
        let mut selectors = Vec::new();
        while let Some(Item(selector)) = list.next_element()? {
            selectors.push(selector);
        }
        match selectors.is_empty() {
            true => Err(A::Error::invalid_length(0, &self)),
            false => Ok(Watch::Selected(selectors)),
        }
    }
}

/// A selector of a list; read one by one, so that an error has the line of its own selector.
struct Item(Selector);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Item, D::Error> {
        parsed(deserializer).map(Item)
    }
}

/// A string in the grammar of the command line. Parsed while it is visited, because only there does
/// an error get the place of the string itself.
fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    deserializer.deserialize_str(ParsedVisitor(PhantomData))
}

struct ParsedVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for ParsedVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse()
            .map_err(|error| E::custom(format_args!("{text:?}: {error}")))
    }
}
