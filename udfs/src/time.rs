//! Event time: microseconds since the Unix epoch, UTC, and the calendar arithmetic that windows need.
//!
//! Pure integer code over the proleptic Gregorian calendar. Not here: the wall clock, time zones, parsing.

/// A duration in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub i64);

/// When it happened, by its source's word: microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventTime(pub i64);

impl EventTime {
    /// The instant `months` calendar months earlier: the day is clamped to the month's end, the time of day is kept.
    ///
    /// `None` where the result is no representable instant.
    pub fn minus_months(self, months: i32) -> Option<EventTime> {
        minus_months(self.0, months).map(EventTime)
    }
}

/// Microseconds of a day; every day has 24 hours.
pub const DAY_US: i64 = 86_400_000_000;

/// `at` minus `months` calendar months, as SQL subtracts an interval of months from a timestamp.
pub(crate) fn minus_months(at: i64, months: i32) -> Option<i64> {
    if months == 0 {
        return Some(at);
    }
    let (days, of_day) = (at.div_euclid(DAY_US), at.rem_euclid(DAY_US));
    let (year, month, day) = civil_from_days(days);
    let month_index = year * 12 + (month - 1) - i64::from(months);
    let (year, month) = (month_index.div_euclid(12), month_index.rem_euclid(12) + 1);
    let day = day.min(days_in_month(year, month));
    days_from_civil(year, month, day).checked_mul(DAY_US)?.checked_add(of_day)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a civil date. Source: Hinnant, "chrono-compatible low-level date algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The civil date (year, month, day) of days since 1970-01-01. Source: as [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(year: i64, month: i64, day: i64, micros: i64) -> i64 {
        days_from_civil(year, month, day) * DAY_US + micros
    }

    #[test]
    fn civil_dates_round_trip() {
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        assert_eq!(days_from_civil(2000, 3, 1), 11_017);
        for days in (-1_000_000..1_000_000).step_by(37).chain([-106_751_991, 106_751_991]) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
            assert!((1..=days_in_month(year, month)).contains(&day));
        }
    }

    #[test]
    fn months_clamp_to_the_end_of_the_month() {
        for (from, months, to) in [
            (at(2024, 3, 31, 5), 1, at(2024, 2, 29, 5)),
            (at(2023, 3, 31, 5), 1, at(2023, 2, 28, 5)),
            (at(2023, 3, 30, 7), 1, at(2023, 2, 28, 7)),
            (at(2024, 2, 29, 0), 12, at(2023, 2, 28, 0)),
            (at(2024, 1, 15, 0), 13, at(2022, 12, 15, 0)),
            (at(1900, 3, 29, 0), 1, at(1900, 2, 28, 0)),
            (at(1969, 12, 31, 1), 1, at(1969, 11, 30, 1)),
        ] {
            assert_eq!(minus_months(from, months), Some(to));
        }
        assert_eq!(minus_months(i64::MIN, 1), None);
        assert_eq!(minus_months(i64::MAX, i32::MAX), None);
        assert_eq!(minus_months(i64::MIN, 0), Some(i64::MIN));
    }
}
