//! Texts of a document: where they end, whether they are text, and their escapes.

use super::scan::{Certain, Cursor, Uncertain};

/// A text between its quotes.
pub struct Text {
    pub start: usize,
    pub end: usize,
    pub is_escaped: bool,
}

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

impl Cursor<'_> {
    /// Reads a text, which is UTF-8 then; of its escapes only their ends are known.
    #[inline(always)]
    pub fn text(&mut self) -> Certain<Text> {
        self.expect(b'"')?;
        let start = self.pos;
        let mut at = start;
        loop {
            let found = stops(self.word(at)) | (self.word(at) & HIGH_BITS);
            if found == 0 {
                at += 8;
                continue;
            }
            at += found.trailing_zeros() as usize / 8;
            if self.text.get(at) != Some(&b'"') {
                return self.odd_text(start, at);
            }
            self.pos = at + 1;
            return Ok(Text {
                start,
                end: at,
                is_escaped: false,
            });
        }
    }

    /// Reads on in a text that is not plain ASCII.
    #[inline(never)]
    fn odd_text(&mut self, start: usize, from: usize) -> Certain<Text> {
        let mut at = from;
        let mut is_escaped = false;
        loop {
            let found = stops(self.word(at));
            if found == 0 {
                at += 8;
                continue;
            }
            at += found.trailing_zeros() as usize / 8;
            match self.text.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    is_escaped = true;
                    at += 2;
                }
                _ => return Err(Uncertain),
            }
        }
        let bytes = self.text.get(start..at).ok_or(Uncertain)?;
        if std::str::from_utf8(bytes).is_err() {
            return Err(Uncertain);
        }
        self.pos = at + 1;
        Ok(Text {
            start,
            end: at,
            is_escaped,
        })
    }

    /// Reads a text for `read`, which is given what its escapes stand for.
    #[inline(always)]
    pub(super) fn plain_text<T>(
        &mut self,
        mut read: impl FnMut(&[u8]) -> Certain<T>,
    ) -> Certain<T> {
        let text = self.text()?;
        if text.is_escaped {
            let mut plain = Vec::new();
            self.unescape(&text, &mut plain)?;
            return read(&plain);
        }
        read(self.text.get(text.start..text.end).ok_or(Uncertain)?)
    }

    /// Adds a text to `to`, with what its escapes stand for.
    pub(super) fn unescape(&self, text: &Text, to: &mut Vec<u8>) -> Certain<()> {
        let mut rest = self.text.get(text.start..text.end).ok_or(Uncertain)?;
        while let Some(at) = memchr::memchr(b'\\', rest) {
            to.extend_from_slice(&rest[..at]);
            let (&kind, behind) = rest[at + 1..].split_first().ok_or(Uncertain)?;
            rest = behind;
            let byte = match kind {
                b'"' | b'\\' | b'/' => kind,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let (found, behind) = escaped_char(rest)?;
                    to.extend_from_slice(found.encode_utf8(&mut [0; 4]).as_bytes());
                    rest = behind;
                    continue;
                }
                _ => return Err(Uncertain),
            };
            to.push(byte);
        }
        to.extend_from_slice(rest);
        Ok(())
    }
}

/// Reads what is behind `\u`: a character, or the first of two surrogates and then the second.
fn escaped_char(text: &[u8]) -> Certain<(char, &[u8])> {
    let (first, rest) = hex(text)?;
    if let Some(found) = char::from_u32(first) {
        return Ok((found, rest));
    }
    let rest = rest.strip_prefix(b"\\u").ok_or(Uncertain)?;
    let (second, rest) = hex(rest)?;
    if !(0xd800..0xdc00).contains(&first) || !(0xdc00..0xe000).contains(&second) {
        return Err(Uncertain);
    }
    let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    Ok((char::from_u32(code).ok_or(Uncertain)?, rest))
}

fn hex(text: &[u8]) -> Certain<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(4).ok_or(Uncertain)?;
    let mut value = 0;
    for &digit in digits {
        value = value * 16 + char::from(digit).to_digit(16).ok_or(Uncertain)?;
    }
    Ok((value, rest))
}

/// Returns a word whose lowest bit that is set tells the first quote, backslash or control
/// character of eight bytes; bits above that one mean nothing.
#[inline(always)]
pub(super) fn stops(word: u64) -> u64 {
    let controls = word.wrapping_sub(0x20 * LOW_BITS) & !word;
    let quotes = zeros(word ^ (u64::from(b'"') * LOW_BITS));
    let slashes = zeros(word ^ (u64::from(b'\\') * LOW_BITS));
    (controls | quotes | slashes) & HIGH_BITS
}

#[inline(always)]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(LOW_BITS) & !word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Certain<String> {
        let mut cursor = Cursor::new(text, text.len());
        let found = cursor.text()?;
        cursor.finish()?;
        let mut bytes = Vec::new();
        cursor.unescape(&found, &mut bytes)?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn texts_of_every_length() {
        for len in 0..70 {
            for filler in ["a", "\u{e9}", "\u{1f600}"] {
                let want = filler.repeat(len);
                assert_eq!(read(format!("\"{want}\"").as_bytes()).unwrap(), want);
            }
        }
    }

    #[test]
    fn escapes() {
        let text = br#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\u0000 x""#;
        let want = "\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1f600}\0 x";
        assert_eq!(read(text).unwrap(), want);
    }

    #[test]
    fn texts_that_are_left_to_the_reference() {
        for text in [
            &b"\""[..],
            b"\"\\\"",
            b"\"\\q\"",
            b"\"\\ud83d\"",
            b"\"\\ude00\"",
            b"\"\\ud83dx\"",
            b"\"\\ud83d\\u0041\"",
            b"\"\\u12\"",
            b"\"\n\"",
            b"\"\xff\"",
            b"\"\xed\xa0\x80\"",
            b"\"\\u+123\"",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
