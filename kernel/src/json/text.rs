//! Short texts behind each other: numbers, names and strings of documents.

use super::string::stops;

const ZEROS: u64 = 0x3030_3030_3030_3030;

/// Adds the first `len` bytes of a word. All are copied at once, which is quicker than to count.
#[inline(always)]
pub(super) fn push_word(word: u128, len: usize, to: &mut Vec<u8>) {
    let end = to.len() + len;
    to.extend_from_slice(&word.to_le_bytes());
    to.truncate(end);
}

/// Adds an integer below ten to the power of sixteen, others by itoa.
#[inline(always)]
pub(super) fn push_integer(value: u64, to: &mut Vec<u8>) {
    const EIGHT: u64 = 100_000_000;
    if value < EIGHT {
        let digits = eight_digits(value);
        // Zeros at the front are bytes of nothing; the last digit stays.
        let zeros = (digits.trailing_zeros() as usize / 8).min(7);
        let text = (digits | ZEROS) >> (8 * zeros);
        push_word(text.into(), 8 - zeros, to);
    } else if value < EIGHT * EIGHT {
        let (high, low) = (eight_digits(value / EIGHT), eight_digits(value % EIGHT));
        let zeros = high.trailing_zeros() as usize / 8;
        let text = u128::from(low | ZEROS) << 64 | u128::from(high | ZEROS);
        push_word(text >> (8 * zeros), 16 - zeros, to);
    } else {
        to.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

/// Returns eight digits as bytes of 0 to 9, the first of them lowest, all at once.
#[inline(always)]
fn eight_digits(value: u64) -> u64 {
    // Each step halves numbers side by side: times 10486 >> 20 is a division by 100, and times
    // 103 >> 10 is one by 10, for numbers as small as these.
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = ((fours - 100 * hundreds) << 16) | hundreds;
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    ((pairs - 10 * tens) << 8) | tens
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Adds a text with quotes and escapes.
#[inline(always)]
pub(super) fn push_text(text: &[u8], to: &mut Vec<u8>) {
    to.push(b'"');
    let mut rest = text;
    while let Some((chunk, behind)) = rest.split_first_chunk::<8>() {
        if stops(u64::from_le_bytes(*chunk)) != 0 {
            push_escaped(rest, to);
            to.push(b'"');
            return;
        }
        to.extend_from_slice(chunk);
        rest = behind;
    }
    push_escaped(rest, to);
    to.push(b'"');
}

#[inline(always)]
fn push_escaped(text: &[u8], to: &mut Vec<u8>) {
    for &byte in text {
        if byte < b' ' || byte == b'"' || byte == b'\\' {
            push_escape(byte, to);
        } else {
            to.push(byte);
        }
    }
}

/// Adds a text of at most twelve bytes, which `word` begins with.
#[inline(always)]
pub(super) fn push_short_text(word: u128, len: usize, to: &mut Vec<u8>) {
    let behind = !0 << (8 * len);
    let word = word & !behind;
    // What is behind the text must not look like a control character.
    let filled = word | behind;
    if (stops(filled as u64) | stops((filled >> 64) as u64)) == 0 {
        let quoted = word << 8 | u128::from(b'"') | u128::from(b'"') << (8 * len + 8);
        push_word(quoted, len + 2, to);
    } else {
        push_text(&word.to_le_bytes()[..len], to);
    }
}

#[cold]
fn push_escape(byte: u8, to: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        8 => b'b',
        12 => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            to.extend_from_slice(b"\\u00");
            to.push(HEX[usize::from(byte >> 4)]);
            to.push(HEX[usize::from(byte & 15)]);
            return;
        }
    };
    to.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_length() {
        for power in 0..20 {
            for offset in [0, 1, 7] {
                let value = 10u64.pow(power).wrapping_sub(1) + offset;
                let mut text = Vec::new();
                push_integer(value, &mut text);
                assert_eq!(text, value.to_string().into_bytes());
            }
        }
        for value in 0..100_000 {
            let mut text = Vec::new();
            push_integer(value * 997, &mut text);
            assert_eq!(text, (value * 997).to_string().into_bytes());
        }
    }

    #[test]
    fn texts_of_every_length() {
        for len in 0..40 {
            for special in ["", "\"", "\n", "\u{1}"] {
                for at in 0..=len {
                    let text = format!("{}{special}{}", "a".repeat(at), "b".repeat(len - at));
                    let want = serde(&text);
                    let mut long = Vec::new();
                    push_text(text.as_bytes(), &mut long);
                    assert_eq!(long, want);
                    if text.len() <= 12 {
                        let mut short = Vec::new();
                        let word = super::super::scan::padded(text.as_bytes());
                        push_short_text(word, text.len(), &mut short);
                        assert_eq!(short, want);
                    }
                }
            }
        }
    }

    fn serde(text: &str) -> Vec<u8> {
        let escaped = text.replace('"', "\\\"").replace('\n', "\\n");
        format!("\"{}\"", escaped.replace('\u{1}', "\\u0001")).into_bytes()
    }
}
