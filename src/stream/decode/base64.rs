//! VARBINARY as text: base64, or hexadecimal behind `\x`.

/// Appends the bytes that a text stands for, or says what is wrong with it.
pub(super) fn append_bytes(text: &str, out: &mut Vec<u8>) -> Result<(), &'static str> {
    match text.strip_prefix("\\x") {
        Some(digits) => append_hex(digits.as_bytes(), out),
        None => append_base64(text.as_bytes(), out),
    }
}

fn append_hex(digits: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("hexadecimal with an odd number of digits");
    }
    for pair in pairs {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
            return Err("hexadecimal with another character");
        };
        out.push((high << 4 | low) as u8);
    }
    Ok(())
}

fn append_base64(text: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    if padding > 2 || (padding > 0 && !text.len().is_multiple_of(4)) {
        return Err("base64 with wrong padding");
    }
    for group in text[..text.len() - padding].chunks(4) {
        let mut bits = 0u32;
        for digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return Err("base64 with another character"),
            };
            bits = bits << 6 | u32::from(value);
        }
        // Digits left over must carry no bits, so that one text stands for one value.
        let bytes = match group.len() {
            4 => 3,
            3 if bits & 0b11 == 0 => 2,
            2 if bits & 0b1111 == 0 => 1,
            _ => return Err("base64 cut short"),
        };
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..=bytes]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::append_bytes;

    #[test]
    fn texts_stand_for_bytes() {
        let cases: &[(&str, Option<&[u8]>)] = &[
            ("", Some(b"")),
            ("Zg==", Some(b"f")),
            ("Zg", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("Zm9vYg==", Some(b"foob")),
            ("+/+/", Some(&[0xfb, 0xff, 0xbf])),
            ("\\x00fFa0", Some(&[0, 0xff, 0xa0])),
            ("\\x", Some(b"")),
            ("\\x0", None),
            ("\\x0g", None),
            ("Z", None),
            ("Zh==", None),
            ("Zg=", None),
            ("=", None),
            ("====", None),
            ("Zm=v", None),
            ("Z m8", None),
            ("Zm-_", None),
        ];
        for (text, expected) in cases {
            let mut out = Vec::new();
            let got = append_bytes(text, &mut out).ok().map(|()| out);
            assert_eq!(got.as_deref(), *expected, "{text}");
        }
    }
}
