//! Zigzag variable-length integers, as records have them.

const MORE: u8 = 0x80;
const BITS: u8 = 0x7F;

/// Reads an integer at `at` of `data` and moves `at` behind it; None if it is cut short or has
/// more than 64 bits.
#[inline(always)]
pub(super) fn read(data: &[u8], at: &mut usize) -> Option<i64> {
    let first = *data.get(*at)?;
    *at += 1;
    if first < MORE {
        return Some(unzigzag(u64::from(first)));
    }
    read_rest(data, at, u64::from(first & BITS))
}

#[inline]
fn read_rest(data: &[u8], at: &mut usize, first: u64) -> Option<i64> {
    let mut found = first;
    for shift in (7..64).step_by(7) {
        let byte = *data.get(*at)?;
        *at += 1;
        found |= u64::from(byte & BITS) << shift;
        if byte < MORE {
            let is_whole = shift < 63 || byte <= 1;
            return is_whole.then(|| unzigzag(found));
        }
    }
    None
}

/// Appends `value` to `data`.
#[inline(always)]
pub(super) fn write(data: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= u64::from(MORE) {
        data.push(rest as u8 | MORE);
        rest >>= 7;
    }
    data.push(rest as u8);
}

/// Returns how many bytes `write` appends.
#[inline(always)]
pub(super) fn size(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_all_sizes_come_back() {
        for shift in 0..64 {
            for value in [
                1i64 << shift,
                (1i64 << shift).wrapping_neg(),
                (1i64 << shift).wrapping_sub(1),
            ] {
                let mut data = vec![7];
                write(&mut data, value);
                assert_eq!(data.len(), 1 + size(value));
                let mut at = 1;
                assert_eq!(read(&data, &mut at), Some(value));
                assert_eq!(at, data.len());
                assert_eq!(read(&data[..data.len() - 1], &mut 1), None);
            }
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        let mut data = [0xFF; 11];
        assert_eq!(read(&data, &mut 0), None);
        data[9] = 1;
        assert_eq!(read(&data, &mut 0), Some(i64::MIN));
        data[9] = 2;
        assert_eq!(read(&data, &mut 0), None);
    }
}
