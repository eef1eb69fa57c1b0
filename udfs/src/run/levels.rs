//! Least or greatest keys of blocks, of sixteen blocks, of sixteen times sixteen, and so on.

use super::grow;

const FAN: usize = 16;

/// A tree of winners over blocks; level 0 has one key per block, a higher level only full groups.
#[derive(Debug, Clone)]
pub(crate) struct Levels<K> {
    levels: Vec<Vec<K>>,
}

impl<K> Default for Levels<K> {
    fn default() -> Self {
        Levels { levels: Vec::new() }
    }
}

impl<K: Copy> Levels<K> {
    /// Adds a block's key.
    pub(crate) fn push(&mut self, key: K, pick: impl Fn(K, K) -> K) {
        let mut key = key;
        let mut level = 0;
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let keys = &mut self.levels[level];
            grow(keys, 1);
            keys.push(key);
            if !keys.len().is_multiple_of(FAN) {
                return;
            }
            let group = &keys[keys.len() - FAN..];
            key = group[1..].iter().fold(group[0], |best, key| pick(best, *key));
            level += 1;
        }
    }

    /// How many blocks there are.
    pub(crate) fn len(&self) -> usize {
        self.levels.first().map_or(0, Vec::len)
    }

    /// The keys of the blocks, without those of groups.
    pub(crate) fn keys(&self) -> &[K] {
        self.levels.first().map_or(&[], |keys| keys)
    }

    /// Keeps the first `blocks` blocks.
    pub(crate) fn truncate(&mut self, blocks: usize) {
        let mut count = blocks;
        for keys in &mut self.levels {
            keys.truncate(count);
            count /= FAN;
        }
    }

    /// Drops the first `blocks` blocks.
    pub(crate) fn drop_front(&mut self, blocks: usize, pick: impl Fn(K, K) -> K) {
        let Some(keys) = self.levels.first_mut().map(std::mem::take) else { return };
        self.levels.clear();
        keys[blocks.min(keys.len())..].iter().for_each(|key| self.push(*key, &pick));
    }

    /// The winner of the blocks `low..high` and `best`.
    pub(crate) fn query(&self, low: usize, high: usize, best: K, pick: impl Fn(K, K) -> K) -> K {
        let (mut low, mut high, mut best) = (low, high, best);
        for keys in &self.levels {
            if low >= high {
                break;
            }
            let (first, last) = (low.next_multiple_of(FAN), high / FAN * FAN);
            if first >= last {
                return keys[low..high].iter().fold(best, |best, key| pick(best, *key));
            }
            best = keys[low..first].iter().chain(&keys[last..high]).fold(best, |best, key| pick(best, *key));
            (low, high) = (first / FAN, last / FAN);
        }
        best
    }

    pub(crate) fn clear(&mut self) {
        self.levels.iter_mut().for_each(Vec::clear);
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.levels.iter().map(|keys| keys.capacity() * size_of::<K>() + 24).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_agree_with_a_scan() {
        let keys: Vec<i128> = (0..5000i128).map(|i| (i * 7919 + 13) % 10_007).collect();
        let mut levels = Levels::default();
        keys.iter().for_each(|key| levels.push(*key, i128::min));
        levels.truncate(4321);
        for drop in [0, 16, 100] {
            let mut levels = levels.clone();
            levels.drop_front(drop, i128::min);
            let keys = &keys[drop..4321];
            for low in (0..keys.len()).step_by(97) {
                for high in (low..keys.len()).step_by(89).chain([keys.len()]) {
                    let expected = keys[low..high].iter().copied().min().unwrap_or(i128::MAX);
                    assert_eq!(levels.query(low, high, i128::MAX, i128::min), expected, "{drop}: {low}..{high}");
                }
            }
        }
    }
}
