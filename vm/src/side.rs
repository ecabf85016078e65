// SPDX-License-Identifier: Apache-2.0
//! Does things side by side: as many at once as is said, in the order in which they come.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

/// Does each of these, `at_once` of them at a time, and returns what came of them, in their order.
///
/// # Panics
/// When one of them panics, once the others are done.
pub(crate) fn by_side<T: Send, R: Send>(
    tasks: Vec<T>,
    at_once: usize,
    perform: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let waiting = Mutex::new(tasks.into_iter().enumerate());
    let next = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    };
    let work = || {
        let mut done = Vec::new();
        while let Some((place, task)) = next() {
            done.push((place, perform(task)));
        }
        done
    };
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once.max(1)).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined
            .flat_map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::by_side;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    #[test]
    fn all_are_done_in_their_order_and_no_more_at_once_than_was_said() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let tripled = by_side((0..100).collect(), 3, |number: usize| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
            number * 3
        });
        assert_eq!(tripled, (0..100).map(|n| n * 3).collect::<Vec<usize>>());
        assert!(most.into_inner() <= 3);
        assert_eq!(by_side(vec![1], 0, |number| number), [1]);
    }

    /// Each waits for the other: one after the other they would never end.
    #[test]
    fn two_are_done_at_the_same_time() {
        let both = Barrier::new(2);
        let leaders = by_side(vec![(), ()], 2, |()| both.wait().is_leader());
        assert_eq!(leaders.iter().filter(|leader| **leader).count(), 1);
    }
}
