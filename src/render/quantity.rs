// SPDX-License-Identifier: Apache-2.0
//! Numbers as people read them: grouped digits, a unit always, one unit per column.
//!
//! Nothing that is not 0 is ever shown as 0, and nothing that is not all is ever shown as 100 %.

/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;
/// Nanoseconds of a microsecond.
const US: u64 = 1_000;

/// How the durations of one column are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Column {
    unit: &'static str,
    unit_ns: u64,
    /// Digits after the point: the largest number of a column has at least three digits.
    decimals: u32,
}

impl Column {
    /// Whole nanoseconds.
    pub(super) const EXACT: Column = Column {
        unit: "ns",
        unit_ns: 1,
        decimals: 0,
    };

    /// Tenths of a millisecond.
    pub(super) const TENTHS_MS: Column = Column {
        unit: "ms",
        unit_ns: MS,
        decimals: 1,
    };

    /// A column whose largest duration is `max_ns`.
    pub(super) fn fitting(max_ns: u64) -> Column {
        let (unit, unit_ns) = match max_ns {
            MS.. => ("ms", MS),
            US.. => ("us", US),
            _ => return Column::EXACT,
        };
        let decimals = match max_ns / unit_ns {
            0..10 => 2,
            10..100 => 1,
            _ => 0,
        };
        Column {
            unit,
            unit_ns,
            decimals,
        }
    }

    /// The duration with its unit; `<1 ms` for what would round to nothing.
    pub(super) fn show(self, ns: u64) -> String {
        match self.steps(ns) {
            0 if ns > 0 => format!("<{} {}", self.number(1), self.unit),
            steps => format!("{} {}", self.number(steps), self.unit),
        }
    }

    /// Whether the duration does not round to nothing.
    pub(super) fn resolves(self, ns: u64) -> bool {
        self.steps(ns) > 0
    }

    /// The duration in steps of the last digit, rounded.
    fn steps(self, ns: u64) -> u64 {
        let step_ns = self.unit_ns / self.scale();
        ns / step_ns + u64::from(ns % step_ns >= step_ns.div_ceil(2))
    }

    /// Steps of a unit.
    fn scale(self) -> u64 {
        10_u64.pow(self.decimals)
    }

    fn number(self, steps: u64) -> String {
        let scale = self.scale();
        match self.decimals as usize {
            0 => grouped(steps),
            width => format!("{}.{:0width$}", grouped(steps / scale), steps % scale),
        }
    }
}

/// One duration by itself, with its unit.
pub(crate) fn duration(ns: u64) -> String {
    Column::fitting(ns).show(ns)
}

/// The number with its digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(' ');
        }
        shown.push(digit);
    }
    shown
}

/// The share of `part` in `whole`, rounded down, with a digit after the point near the ends.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let (part, whole) = (u128::from(part), u128::from(whole));
    let tenths = (part * 1_000).checked_div(whole).unwrap_or(1_000);
    match tenths {
        0 if part > 0 => "<0.1 %".to_owned(),
        1..=9 | 990..=999 => format!("{}.{} %", tenths / 10, tenths % 10),
        _ => format!("{} %", tenths / 10),
    }
}

/// "1 thread", "1 234 threads".
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        grouped(number),
        if number == 1 { one } else { many }
    )
}

/// The instant as a date and time in UTC, to the nanosecond.
///
/// Civil date from days since 1970 as in Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`: eras of 400 years of 146 097 days, years that begin in March.
pub(super) fn instant(unix_ns: u64) -> String {
    let (seconds, ns) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ns:09} UTC")
}
