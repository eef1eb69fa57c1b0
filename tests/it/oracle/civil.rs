//! The proleptic Gregorian calendar, by counting: what a month before an instant is, and how an instant is written.

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

pub(crate) fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of January of `year`.
fn year_start(year: i64) -> i64 {
    // Leap years before `year`, counted from year 1.
    let leaps = |y: i64| (y - 1).div_euclid(4) - (y - 1).div_euclid(100) + (y - 1).div_euclid(400);
    (year - 1970) * 365 + leaps(year) - leaps(1970)
}

pub(crate) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    year_start(year) + (1..month).map(|m| month_days(year, m)).sum::<i64>() + day - 1
}

/// Year, month and day of a day since the epoch.
pub(crate) fn date_of(days: i64) -> (i64, i64, i64) {
    let mut year = 1970 + days.div_euclid(366);
    while year_start(year + 1) <= days {
        year += 1;
    }
    while year_start(year) > days {
        year -= 1;
    }
    let mut rest = days - year_start(year);
    let mut month = 1;
    while rest >= month_days(year, month) {
        rest -= month_days(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

/// SQL date arithmetic: the same day and time of day `months` earlier, or that month's last day where it is shorter.
pub(crate) fn months_before(at: i64, months: i32) -> i64 {
    let (days, time) = (at.div_euclid(DAY), at.rem_euclid(DAY));
    let (year, month, day) = date_of(days);
    let index = year * 12 + month - 1 - i64::from(months);
    let (year, month) = (index.div_euclid(12), index.rem_euclid(12) + 1);
    days_of(year, month, day.min(month_days(year, month))) * DAY + time
}

/// `2024-02-29`
pub(crate) fn date_text(days: i64) -> String {
    let (year, month, day) = date_of(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2024-02-29 23:59:59.000001`, with any separator between date and time.
pub(crate) fn timestamp_text(at: i64, separator: char) -> String {
    let (days, time) = (at.div_euclid(DAY), at.rem_euclid(DAY));
    let (hour, minute, second, micro) = (time / HOUR, time / MINUTE % 60, time / SECOND % 60, time % SECOND);
    let date = date_text(days);
    if micro == 0 {
        format!("{date}{separator}{hour:02}:{minute:02}:{second:02}")
    } else {
        format!("{date}{separator}{hour:02}:{minute:02}:{second:02}.{micro:06}")
    }
}
