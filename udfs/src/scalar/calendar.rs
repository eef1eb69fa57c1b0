//! The proleptic Gregorian calendar in UTC, on days and microseconds. Every day has 24 hours.

use crate::time::{DAY_US, minus_months};

/// Days since 1970-01-01 of a civil date. Source: Hinnant, "chrono-compatible low-level date algorithms".
pub(super) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of days since 1970-01-01. Source: as [`days_from_civil`].
pub(super) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// 0 is Monday.
pub(super) fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7)
}

/// Year and week of ISO 8601: the week belongs to the year of its Thursday.
pub(super) fn iso_week(days: i64) -> (i64, i64) {
    let thursday = days - weekday(days) + 3;
    let (year, ..) = civil_from_days(thursday);
    (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
}

/// The days of a civil date, or `None` for a date that does not exist.
pub(super) fn date(year: i64, month: i64, day: i64) -> Option<i64> {
    // Five million years reach beyond DATE; further out the arithmetic would overflow.
    if !(-6_000_000..=6_000_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// `at` plus months, then microseconds: the day is clamped to the month's end.
pub(super) fn plus(at: i64, months: i32, micros: i64) -> Option<i64> {
    minus_months(at, months.checked_neg()?)?.checked_add(micros)
}

/// The day that holds an instant.
pub(super) fn day_of(at: i64) -> i64 {
    at.div_euclid(DAY_US)
}
