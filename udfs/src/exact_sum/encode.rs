//! The bytes of an [`ExactSum`]: canonical, so that equal sums are equal bytes.
//!
//! Layout: one byte of flags (which special counters follow), the first limb's position and the number of limbs, one
//! byte each, then the counters and the limbs, eight bytes little-endian each.

use super::{ExactSum, FIRST_MIN, LAST_MAX};

impl ExactSum {
    /// Appends the sum's bytes.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let counters = [self.nan, self.positive_infinities, self.negative_infinities];
        let flags = counters.iter().enumerate().fold(0u8, |flags, (bit, counter)| flags | u8::from(*counter != 0) << bit);
        into.extend([flags, (self.first - FIRST_MIN) as u8, self.limbs.len() as u8]);
        for counter in counters.into_iter().filter(|counter| *counter != 0) {
            into.extend(counter.to_le_bytes());
        }
        for limb in &self.limbs {
            into.extend(limb.to_le_bytes());
        }
    }

    /// Reads a sum from the front of `bytes`, and gives what follows it; `None` for bytes that no sum encodes to.
    pub fn decode(bytes: &[u8]) -> Option<(ExactSum, &[u8])> {
        let ([flags, first, count], mut rest) = bytes.split_first_chunk::<3>()?;
        if *flags > 0b111 {
            return None;
        }
        let mut word = || {
            let (word, behind) = rest.split_first_chunk::<8>()?;
            rest = behind;
            Some(u64::from_le_bytes(*word))
        };
        let mut counters = [0i64; 3];
        for (bit, counter) in counters.iter_mut().enumerate() {
            if flags >> bit & 1 == 1 {
                *counter = word()? as i64;
                if *counter == 0 {
                    return None;
                }
            }
        }
        let limbs = (0..*count).map(|_| word()).collect::<Option<Vec<u64>>>()?;
        let [nan, positive_infinities, negative_infinities] = counters;
        let first = FIRST_MIN + i32::from(*first);
        let sum = ExactSum { first, limbs, nan, positive_infinities, negative_infinities };
        sum.is_canonical().then_some((sum, rest))
    }

    fn is_canonical(&self) -> bool {
        let last = self.first + self.limbs.len() as i32 - 1;
        let mut trimmed = self.clone();
        trimmed.trim();
        trimmed == *self && last <= LAST_MAX
    }
}
