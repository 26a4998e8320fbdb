//! Bytes as text: four digits for three bytes, the last of them filled up.

use super::scan::{Certain, Uncertain};

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What is no digit; its bits are beyond those of a digit.
const OTHER: u8 = 0xff;

const VALUES: [u8; 256] = {
    let mut values = [OTHER; 256];
    let mut digit = 0;
    while digit < 64 {
        values[DIGITS[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

/// Adds bytes as a text with quotes.
pub(super) fn write_base64(bytes: &[u8], to: &mut Vec<u8>) {
    to.push(b'"');
    for group in bytes.chunks(3) {
        let mut bits = 0u32;
        for place in 0..3 {
            bits = bits << 8 | u32::from(group.get(place).copied().unwrap_or(0));
        }
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            to.push(if place <= group.len() { digit } else { b'=' });
        }
    }
    to.push(b'"');
}

/// Adds the bytes that a text stands for, if it is the one that they are written as.
pub(super) fn read_base64(text: &[u8], to: &mut Vec<u8>) -> Certain<()> {
    let (groups, rest) = text.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(Uncertain);
    }
    let Some((last, groups)) = groups.split_last() else {
        return Ok(());
    };
    to.reserve(3 * groups.len() + 3);
    for group in groups {
        to.extend_from_slice(&three_bytes(group)?);
    }
    // A filled place counts as the digit of zero, and so must the bits that it leaves unused.
    let (filled, len) = match *last {
        [a, b, b'=', b'='] => ([a, b, DIGITS[0], DIGITS[0]], 1),
        [a, b, c, b'='] => ([a, b, c, DIGITS[0]], 2),
        whole => (whole, 3),
    };
    let bytes = three_bytes(&filled)?;
    let (used, unused) = bytes.split_at(len);
    if unused.iter().any(|&byte| byte != 0) {
        return Err(Uncertain);
    }
    to.extend_from_slice(used);
    Ok(())
}

#[inline(always)]
fn three_bytes(group: &[u8; 4]) -> Certain<[u8; 3]> {
    let values = group.map(|digit| u32::from(VALUES[usize::from(digit)]));
    if values.iter().fold(0, |all, value| all | value) > 63 {
        return Err(Uncertain);
    }
    let bits = values.iter().fold(0, |bits, value| bits << 6 | value);
    Ok([(bits >> 16) as u8, (bits >> 8) as u8, bits as u8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_every_length_are_read_as_they_are_written() {
        for len in 0..200 {
            let want: Vec<u8> = (0..len).map(|each| (each * 37 + len) as u8).collect();
            let mut text = Vec::new();
            write_base64(&want, &mut text);
            let mut found = Vec::new();
            read_base64(&text[1..text.len() - 1], &mut found).unwrap();
            assert_eq!(found, want);
        }
    }

    #[test]
    fn texts_that_are_left_to_the_reference() {
        for text in [
            "YQ",
            "YQ=",
            "YR==",
            "YWJ=",
            "Y===",
            "====",
            "=YWJ",
            "YQ==YQ==",
            "Y-_j",
            "YW J",
            "YWJj\n",
            "Y=Jj",
            "YW=j",
            "\u{e9}\u{e9}",
        ] {
            assert!(
                read_base64(text.as_bytes(), &mut Vec::new()).is_err(),
                "{text}"
            );
        }
    }
}
