// SPDX-License-Identifier: Apache-2.0
//! The numbers of a step: names and values in a fixed order, one form for JSON and for text.
//!
//! A name's last part says the unit (`_ns`, `_bytes`, `_share`), as everywhere; what has none is a
//! count. What the kernel does not tell is left out, not 0.

use serde::Serialize;
use serde::Serializer;
use serde::ser::SerializeMap;

/// One value.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    /// A count, or an amount of the unit in its name.
    Number(u64),
    /// A share or a ratio; never infinite or not a number.
    Ratio(f64),
    /// A name.
    Text(String),
    /// Yes or no.
    Is(bool),
    /// Things of one kind, each with values of its own.
    List(Vec<Values>),
}

/// Names with their values.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Values(Vec<(&'static str, Value)>);

impl Values {
    pub(crate) fn number(self, name: &'static str, number: u64) -> Self {
        self.with(name, Value::Number(number))
    }

    /// Left out where it is not told.
    pub(crate) fn maybe(self, name: &'static str, number: Option<u64>) -> Self {
        match number {
            Some(number) => self.number(name, number),
            None => self,
        }
    }

    /// `part` of `whole`; left out where there is nothing to divide by.
    pub(crate) fn ratio(self, name: &'static str, part: u64, whole: u64) -> Self {
        if whole == 0 {
            return self;
        }
        // Counters of a window are far below 2^53, so nothing is rounded that anybody could see.
        self.with(name, Value::Ratio(part as f64 / whole as f64))
    }

    pub(crate) fn exact(self, name: &'static str, ratio: f64) -> Self {
        self.with(name, Value::Ratio(ratio))
    }

    pub(crate) fn text(self, name: &'static str, text: impl Into<String>) -> Self {
        self.with(name, Value::Text(text.into()))
    }

    pub(crate) fn is(self, name: &'static str, is: bool) -> Self {
        self.with(name, Value::Is(is))
    }

    pub(crate) fn list(self, name: &'static str, list: impl IntoIterator<Item = Values>) -> Self {
        self.with(name, Value::List(list.into_iter().collect()))
    }

    /// In their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    fn with(mut self, name: &'static str, value: Value) -> Self {
        self.0.push((name, value));
        self
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
