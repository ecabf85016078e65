// SPDX-License-Identifier: Apache-2.0
//! How fast a guest's time stamp counter runs: as fast as this machine's, which the emulator reads for it.
//!
//! A guest's kernel measures that against an emulated timer, and on a busy machine takes a value that is
//! several times wrong (5.10: "PIT calibration deviates from HPET: 466502 2594910", and uses the
//! former). Its clock then runs several times too fast, and limits and waits in it mean nothing.

use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use lacuna_host::sys::time_stamp;

/// How long is measured; what a reading is off by, some hundred ns, is a millionth of it.
const MEASURED: Duration = Duration::from_millis(200);
/// How many readings are tried for the best one.
const TRIES: usize = 100;

/// Thousands of ticks a second, measured once.
pub(crate) fn khz() -> u64 {
    static KHZ: OnceLock<u64> = OnceLock::new();
    *KHZ.get_or_init(|| {
        let (begin, first) = reading();
        sleep(MEASURED);
        let (end, last) = reading();
        let ticks = u128::from(last.wrapping_sub(first));
        let khz = ticks * 1_000_000 / (end - begin).as_nanos().max(1);
        u64::try_from(khz).unwrap_or(u64::MAX)
    })
}

/// An instant and what the counter showed then: of several readings the one that took least, because
/// between the two of any the machine may have done something else.
fn reading() -> (Instant, u64) {
    let one = || {
        let before = Instant::now();
        let ticks = time_stamp();
        (before.elapsed(), before, ticks)
    };
    let mut best = one();
    for _ in 1..TRIES {
        let next = one();
        if next.0 < best.0 {
            best = next;
        }
    }
    (best.1, best.2)
}

#[cfg(test)]
mod tests {
    use super::khz;
    use super::reading;

    #[test]
    fn the_rate_predicts_the_next_reading() {
        let (begin, first) = reading();
        std::thread::sleep(super::MEASURED / 2);
        let (end, last) = reading();
        let predicted = (end - begin).as_nanos() * u128::from(khz()) / 1_000_000;
        let off = predicted.abs_diff(u128::from(last - first));
        assert!(off < predicted / 1000, "{off} of {predicted}");
    }
}
