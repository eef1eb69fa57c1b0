//! Dates and timestamps as text.

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;
/// 0001-01-01, in days since 1970-01-01.
pub(super) const DATE_MIN: i32 = -719_162;
/// 9999-12-31.
pub(super) const DATE_MAX: i32 = 2_932_896;
/// 0001-01-01 00:00:00, in microseconds since 1970-01-01.
pub(super) const TIME_MIN: i64 = DATE_MIN as i64 * DAY_US;
/// 9999-12-31 23:59:59.999999.
pub(super) const TIME_MAX: i64 = (DATE_MAX as i64 + 1) * DAY_US - 1;

/// The day of `YYYY-MM-DD`, since 1970-01-01.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    let (day, rest) = date(text.as_bytes())?;
    rest.is_empty().then_some(day)
}

/// The microsecond of `YYYY-MM-DD[(T| )HH:MM[:SS[.fraction]]][zone]`, digits behind the sixth cut off.
///
/// The zone is `Z`, `UTC`, `+HH`, `+HHMM` or `+HH:MM` (`-` alike), perhaps behind one space; without one the text is UTC.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let (day, rest) = date(text.as_bytes())?;
    let mut micros = i64::from(day) * DAY_US;
    let Some((b'T' | b't' | b' ', mut rest)) = rest.split_first() else {
        return rest.is_empty().then_some(micros);
    };
    let hour = two_digits(&mut rest).filter(|h| *h < 24)?;
    let minute = colon(&mut rest).then(|| two_digits(&mut rest)).flatten().filter(|m| *m < 60)?;
    micros += i64::from(hour * 60 + minute) * 60_000_000;
    if colon(&mut rest) {
        micros += i64::from(two_digits(&mut rest).filter(|s| *s < 60)?) * 1_000_000;
        if let Some((b'.', digits)) = rest.split_first() {
            let length = digits.iter().take_while(|b| b.is_ascii_digit()).count();
            if length == 0 {
                return None;
            }
            let mut unit = 100_000;
            for digit in digits.iter().take(length.min(6)) {
                micros += i64::from(digit - b'0') * unit;
                unit /= 10;
            }
            rest = digits.get(length..)?;
        }
    }
    micros -= i64::from(zone(rest)?) * 60_000_000;
    (TIME_MIN..=TIME_MAX).contains(&micros).then_some(micros)
}

/// The day at the beginning of a text, and what follows it.
fn date(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<10>()?;
    let &[a, b, c, d, b'-', e, f, b'-', g, h] = head else { return None };
    let number = |digits: &[u8]| digits.iter().try_fold(0i32, |n, d| d.is_ascii_digit().then(|| n * 10 + i32::from(d - b'0')));
    let (year, month, day) = (number(&[a, b, c, d])?, number(&[e, f])?, number(&[g, h])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i32::from(leap),
        _ => return None,
    };
    if year < 1 || !(1..=days).contains(&day) {
        return None;
    }
    // Days from the civil calendar, counted in years that begin in March (Howard Hinnant, chrono-compatible date algorithms).
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era - 719_468, rest))
}

/// Minutes east of UTC.
fn zone(rest: &[u8]) -> Option<i32> {
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let (sign, mut rest) = match rest {
        [] | [b'Z' | b'z'] | b"UTC" => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let hours = two_digits(&mut rest).filter(|h| *h < 24)?;
    let minutes = match rest {
        [] => 0,
        _ => {
            colon(&mut rest);
            two_digits(&mut rest).filter(|m| *m < 60)?
        }
    };
    rest.is_empty().then(|| sign * (hours * 60 + minutes) as i32)
}

fn two_digits(rest: &mut &[u8]) -> Option<u32> {
    let [a, b, tail @ ..] = *rest else { return None };
    if !a.is_ascii_digit() || !b.is_ascii_digit() {
        return None;
    }
    *rest = tail;
    Some(u32::from(a - b'0') * 10 + u32::from(b - b'0'))
}

fn colon(rest: &mut &[u8]) -> bool {
    match rest.strip_prefix(b":") {
        Some(tail) => {
            *rest = tail;
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let cases = [
            ("1970-01-01", Some(0)),
            ("1969-12-31", Some(-1)),
            ("2000-02-29", Some(11_016)),
            ("2024-02-29", Some(19_782)),
            ("0001-01-01", Some(DATE_MIN)),
            ("9999-12-31", Some(DATE_MAX)),
            ("1900-02-29", None),
            ("2023-02-29", None),
            ("0000-01-01", None),
            ("2024-00-01", None),
            ("2024-13-01", None),
            ("2024-01-00", None),
            ("2024-04-31", None),
            ("2024-1-1", None),
            ("2024/01/01", None),
            ("2024-01-01 ", None),
            ("10000-01-01", None),
            ("-001-01-01", None),
            ("+024-01-01", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_date(text), expected, "{text}");
        }
    }

    #[test]
    fn timestamps() {
        let noon = 1_704_110_400_000_000;
        let cases = [
            ("2024-01-01T12:00:00Z", Some(noon)),
            ("2024-01-01 12:00:00", Some(noon)),
            ("2024-01-01t12:00z", Some(noon)),
            ("2024-01-01", Some(noon - 12 * 3_600_000_000)),
            ("2024-01-01 12:00:00.5", Some(noon + 500_000)),
            ("2024-01-01 12:00:00.1234567", Some(noon + 123_456)),
            ("2024-01-01 12:00:00.000000999999999999999999", Some(noon)),
            ("1969-12-31 23:59:59.9999999", Some(-1)),
            ("2024-01-01T14:30:00+02:30", Some(noon)),
            ("2024-01-01T14:30:00+0230", Some(noon)),
            ("2024-01-01T10:00:00-02", Some(noon)),
            ("2024-01-01 12:00:00 UTC", Some(noon)),
            ("2024-01-01 12:00:00 +00", Some(noon)),
            ("0001-01-01 00:00:00", Some(TIME_MIN)),
            ("9999-12-31 23:59:59.999999", Some(TIME_MAX)),
            ("0001-01-01 00:00:00+00:01", None),
            ("9999-12-31 23:59:59-01", None),
            ("2024-01-01T", None),
            ("2024-01-01T12", None),
            ("2024-01-01T24:00", None),
            ("2024-01-01T12:60", None),
            ("2024-01-01T12:00:60", None),
            ("2024-01-01T12:00:00.", None),
            ("2024-01-01T12:00:00,5", None),
            ("2024-01-01T12:00:00  Z", None),
            ("2024-01-01T12:00:00+2", None),
            ("2024-01-01T12:00:00+02:", None),
            ("2024-01-01T12:00:00+02:300", None),
            ("2024-01-01T12:00:00 PST", None),
            ("2024-01-01Z", None),
            ("1704110400", None),
            ("", None),
            ("２０２４-01-01", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_timestamp(text), expected, "{text}");
        }
    }
}
