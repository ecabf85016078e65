// SPDX-License-Identifier: Apache-2.0
//! A list of sums by key, for few keys as well as for many.

use std::hash::Hash;

use crate::event::Ns;
use crate::recorder::IdMap;

/// From this many keys on they are found by an index.
const INDEXED_FROM: usize = 16;

/// Sums by key, in the order in which the keys came.
#[derive(Clone, Debug)]
pub(crate) struct Sums<K> {
    list: Vec<(K, Ns)>,
    /// Places in the list, once it is long.
    index: Option<Box<IdMap<K, usize>>>,
}

impl<K> Default for Sums<K> {
    fn default() -> Sums<K> {
        Sums {
            list: Vec::new(),
            index: None,
        }
    }
}

impl<K: Copy + Eq + Hash> Sums<K> {
    /// Adds to a key's sum; nothing is no entry.
    pub(crate) fn add(&mut self, key: K, ns: Ns) {
        if ns == 0 {
            return;
        }
        match self.find(key) {
            Some(at) => self.list[at].1 += ns,
            None => self.insert(key, ns),
        }
    }

    fn find(&self, key: K) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(&key).copied(),
            None => self.list.iter().position(|item| item.0 == key),
        }
    }

    fn insert(&mut self, key: K, ns: Ns) {
        self.list.push((key, ns));
        let last = self.list.len() - 1;
        if let Some(index) = &mut self.index {
            index.insert(key, last);
        } else if self.list.len() == INDEXED_FROM {
            let places = self.list.iter().enumerate();
            self.index = Some(Box::new(places.map(|(at, item)| (item.0, at)).collect()));
        }
    }

    /// The sums, in the order in which their keys came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(K, Ns)> {
        self.list.iter()
    }

    /// The sums.
    pub(crate) fn into_list(self) -> Vec<(K, Ns)> {
        self.list
    }

    /// The largest `limit`, largest first.
    pub(crate) fn into_largest(self, limit: usize) -> Vec<(K, Ns)> {
        let mut list = self.list;
        list.sort_by_key(|item| std::cmp::Reverse(item.1));
        list.truncate(limit);
        list
    }
}
