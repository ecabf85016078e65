// SPDX-License-Identifier: Apache-2.0
//! A table of facts under a limit of bytes: what ids stand for.
//!
//! At the limit the fact that was not asked for or repeated for longest goes first, by second
//! chance: one that was used since it was last looked at stays for another round.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::Hash;

/// What the table itself costs for each entry, beside the fact: key, queue and hash slot.
const ENTRY_BYTES: usize = 64;

/// Facts by id.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    facts: HashMap<K, Entry<V>>,
    queue: VecDeque<K>,
    bytes: usize,
    bytes_max: usize,
    dropped: u64,
}

#[derive(Debug)]
struct Entry<V> {
    fact: V,
    bytes: usize,
    used: bool,
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    /// An empty table that takes at most that much memory.
    pub(crate) fn new(bytes_max: usize) -> Table<K, V> {
        Table {
            facts: HashMap::new(),
            queue: VecDeque::new(),
            bytes: 0,
            bytes_max,
            dropped: 0,
        }
    }

    /// Adds or replaces a fact that takes `heap_bytes` beyond its own struct.
    pub(crate) fn insert(&mut self, id: K, fact: V, heap_bytes: usize) {
        let bytes = ENTRY_BYTES + size_of::<V>() + heap_bytes;
        let known = self.facts.remove(&id);
        match &known {
            Some(old) => self.bytes -= old.bytes,
            None => self.queue.push_back(id),
        }
        let entry = Entry {
            fact,
            bytes,
            used: known.is_some(),
        };
        self.facts.insert(id, entry);
        self.bytes += bytes;
        while self.bytes > self.bytes_max && !self.queue.is_empty() {
            self.drop_one();
        }
    }

    /// A fact, and that it is still in use.
    pub(crate) fn touch(&mut self, id: K) -> Option<&V> {
        let entry = self.facts.get_mut(&id)?;
        entry.used = true;
        Some(&entry.fact)
    }

    /// A fact.
    pub(crate) fn get(&self, id: K) -> Option<&V> {
        self.facts.get(&id).map(|entry| &entry.fact)
    }

    /// Memory in use.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Facts dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Drops the next fact that was not used since the last round, or gives it one more.
    fn drop_one(&mut self) {
        let Some(id) = self.queue.pop_front() else {
            return;
        };
        match self.facts.get_mut(&id) {
            Some(entry) if entry.used => {
                entry.used = false;
                self.queue.push_back(id);
            }
            Some(entry) => {
                self.bytes -= entry.bytes;
                self.dropped += 1;
                self.facts.remove(&id);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn the_limit_holds_and_facts_in_use_stay() {
        let mut table = Table::new(10 * 1024);
        table.insert(0_u64, "kept", 100);
        for id in 1..1000 {
            table.insert(id, "passing", 100);
            assert!(table.bytes() <= 10 * 1024);
            assert_eq!(table.touch(0), Some(&"kept"));
        }
        assert_eq!(table.get(999), Some(&"passing"));
        assert_eq!(table.get(1), None);
        assert!(table.dropped() > 900);
    }

    #[test]
    fn replacing_a_fact_costs_only_the_difference() {
        let mut table = Table::new(10 * 1024);
        table.insert(1_u64, "a", 10);
        let bytes = table.bytes();
        table.insert(1, "b", 20);
        assert_eq!(table.bytes(), bytes + 10);
        assert_eq!(table.get(1), Some(&"b"));
    }
}
