// SPDX-License-Identifier: Apache-2.0
//! Names of kernel functions, for the stacks of waits.
//!
//! The table is our own reading of `/proc/kallsyms`, not a symbolizer crate: all that is wanted is
//! the function that an address lies in, without lines or inlined frames, and the table must not
//! stay in memory. Measured on 6.18 (122,000 symbols, 64,000 functions): read in 0.1 s, 2.1 MB while
//! loaded; blazesym 0.2.7 took as long, half as much again in memory, and is the heaviest crate of
//! all to build. It is read when an address is asked for that was not seen before, and let go by
//! [`KernelSymbols::trim`]; what stays is a bounded cache of the addresses that occur in waits,
//! which are few (stacks are de-duplicated in the kernel).
//!
//! Where the kernel hides its addresses (`kptr_restrict`, no `CAP_SYSLOG`) all are zero, and every
//! name is empty: never a wrong one.

use crate::root::Root;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::time::Duration;
use std::time::Instant;

/// The most addresses that the cache holds (about 60 bytes each); at the limit it starts anew.
pub const ADDRESSES_MAX: usize = 16_384;

/// The most symbols that are read; what lies beyond has no name. A distribution's kernel with all
/// of its modules has about 200,000, of which 100,000 are functions.
pub const SYMBOLS_MAX: usize = 1 << 20;

/// No kernel function is longer than this: beyond it an address belongs to code that has no symbol.
const FUNCTION_BYTES_MAX: u64 = 1 << 18;

/// How long the table stays after it was last needed.
const TABLE_LIFETIME: Duration = Duration::from_secs(5);

/// The table is not read again within this because an address is not in it.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Functions by address: two sorted columns and one text, 12 bytes a symbol and its name.
#[derive(Debug, Default)]
struct Table {
    addresses: Vec<u64>,
    /// Where each name starts in `names`; it ends where the next one starts.
    starts: Vec<u32>,
    names: String,
}

impl Table {
    /// Reads lines of `ADDRESS TYPE NAME [MODULE]`.
    fn read(mut file: impl BufRead) -> io::Result<Self> {
        let mut symbols: Vec<(u64, u8, u32, u32)> = Vec::new();
        let mut text = String::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            if file.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let parsed = std::str::from_utf8(&line).ok().and_then(parse);
            let Some((address, rank, name)) = parsed else {
                continue;
            };
            if symbols.len() == SYMBOLS_MAX {
                break;
            }
            let (Ok(start), Ok(length)) = (u32::try_from(text.len()), u32::try_from(name.len()))
            else {
                break;
            };
            symbols.push((address, rank, start, length));
            text.push_str(name);
        }
        // Of several names for one address the global one wins, then the one that came first.
        symbols.sort_unstable();
        symbols.dedup_by_key(|symbol| symbol.0);
        Ok(Self::pack(&symbols, &text))
    }

    /// Copies what is kept into columns without spare room.
    fn pack(symbols: &[(u64, u8, u32, u32)], text: &str) -> Self {
        let name = |start: u32, length: u32| {
            text.get(start as usize..start as usize + length as usize)
                .unwrap_or_default()
        };
        let bytes = symbols.iter().map(|symbol| symbol.3 as usize).sum();
        let mut table = Self {
            addresses: symbols.iter().map(|symbol| symbol.0).collect(),
            starts: Vec::with_capacity(symbols.len() + 1),
            names: String::with_capacity(bytes),
        };
        for &(_, _, start, length) in symbols {
            // It fits: the names were found within a text that is addressed by 32 bits.
            table.starts.push(table.names.len() as u32);
            table.names.push_str(name(start, length));
        }
        table.starts.push(table.names.len() as u32);
        table
    }

    /// The function that an address lies in.
    fn name(&self, address: u64) -> Option<&str> {
        let at = self
            .addresses
            .partition_point(|&start| start <= address)
            .checked_sub(1)?;
        if address - self.addresses.get(at)? >= FUNCTION_BYTES_MAX {
            return None;
        }
        let (start, end) = (*self.starts.get(at)?, *self.starts.get(at + 1)?);
        self.names.get(start as usize..end as usize)
    }
}

/// One line: address, rank among names of one address (0 is best), and bare name; functions only.
fn parse(line: &str) -> Option<(u64, u8, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let address = u64::from_str_radix(fields.next()?, 16).ok()?;
    let rank = match fields.next()? {
        "T" => 0,
        "t" => 1,
        "W" | "w" => 2,
        _ => return None,
    };
    let name = fields.next()?;
    // Hidden addresses are zero. `__pfx_` names the padding before a function.
    if address == 0 || name.starts_with("__pfx_") {
        return None;
    }
    Some((address, rank, bare(name)))
}

/// A name without what the compiler appended to a copy of a function (`.isra.0`, `.cold`, ...).
fn bare(name: &str) -> &str {
    match name.find('.') {
        Some(at) if at > 0 => name.get(..at).unwrap_or(name),
        _ => name,
    }
}

/// Names of kernel functions; see the top of this file.
#[derive(Debug)]
pub struct KernelSymbols {
    root: Root,
    table: Option<Table>,
    /// When the table was last read (successfully or not), and last needed.
    read_at: Option<Instant>,
    used_at: Option<Instant>,
    cache: HashMap<u64, Box<str>>,
}

impl KernelSymbols {
    /// Reads nothing yet.
    pub fn new(root: Root) -> Self {
        Self {
            root,
            table: None,
            read_at: None,
            used_at: None,
            cache: HashMap::new(),
        }
    }

    /// The functions that these return addresses lie in, without offsets; empty where unknown.
    ///
    /// A return address points behind its call, and where a function ends with a call that is
    /// already the next function: so the byte before it is looked up.
    pub fn symbolize(&mut self, addresses: &[u64]) -> Vec<Box<str>> {
        addresses
            .iter()
            .map(|&address| self.name(address))
            .collect()
    }

    /// Lets the table go if it was not needed for some seconds. Call it now and then.
    pub fn trim(&mut self) {
        if self
            .used_at
            .is_none_or(|used| used.elapsed() >= TABLE_LIFETIME)
        {
            self.table = None;
        }
    }

    /// Bytes that the table takes now; 0 when it is not loaded.
    pub fn table_bytes(&self) -> usize {
        self.table.as_ref().map_or(0, |table| {
            table.addresses.capacity() * 8 + table.starts.capacity() * 4 + table.names.capacity()
        })
    }

    fn name(&mut self, address: u64) -> Box<str> {
        if let Some(name) = self.cache.get(&address) {
            return name.clone();
        }
        self.used_at = Some(Instant::now());
        if self.table.is_none() {
            self.load();
        }
        let mut name = self.look_up(address);
        let rested = self
            .read_at
            .is_none_or(|read| read.elapsed() >= RELOAD_INTERVAL);
        if name.is_empty() && rested && self.table.as_ref().is_some_and(|t| !t.addresses.is_empty())
        {
            // A module or BPF program that came since.
            self.load();
            name = self.look_up(address);
        }
        // What is unknown today may be known after the next reload.
        if !name.is_empty() {
            if self.cache.len() >= ADDRESSES_MAX {
                self.cache.clear();
            }
            self.cache.insert(address, name.clone());
        }
        name
    }

    fn look_up(&self, address: u64) -> Box<str> {
        let name = self
            .table
            .as_ref()
            .and_then(|table| table.name(address.checked_sub(1)?));
        name.unwrap_or_default().into()
    }

    fn load(&mut self) {
        self.read_at = Some(Instant::now());
        let file = File::open(self.root.path("/proc/kallsyms"));
        let table = file.and_then(|file| Table::read(BufReader::with_capacity(1 << 16, file)));
        // A kernel without kallsyms has no names; that is `doctor`'s to say, not an error here.
        self.table = Some(table.unwrap_or_default());
    }
}

/// What `/proc/kallsyms` is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kallsyms {
    /// It tells addresses.
    Readable,
    /// It is there, and all addresses are zero.
    Hidden,
    /// It cannot be read.
    Missing,
}

/// Whether kernel functions can be named on this host.
pub fn kallsyms(root: &Root) -> Kallsyms {
    let Ok(file) = File::open(root.path("/proc/kallsyms")) else {
        return Kallsyms::Missing;
    };
    // The first symbols of x86-64 may be per-CPU offsets that start at 0, so one line is no proof.
    let mut lines = BufReader::new(file).lines().map_while(Result::ok);
    let told = lines
        .by_ref()
        .take(SYMBOLS_MAX)
        .any(|line| parse(&line).is_some());
    if told {
        Kallsyms::Readable
    } else {
        Kallsyms::Hidden
    }
}

#[cfg(test)]
#[path = "symbols_tests.rs"]
mod tests;
