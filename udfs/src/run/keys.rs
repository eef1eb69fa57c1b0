//! The order keys of a run: bytes on one heap, each behind its length, found by the place that its row keeps.

/// Order keys, appended as they come; those of rows that are gone are dead until the heap is packed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    bytes: Vec<u8>,
    dead: usize,
}

impl Keys {
    /// Appends a key and gives its place.
    pub(crate) fn push(&mut self, key: &[u8]) -> u64 {
        let place = self.bytes.len() as u64;
        let mut length = key.len();
        while length >= 0x80 {
            self.bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        self.bytes.push(length as u8);
        self.bytes.extend_from_slice(key);
        place
    }

    /// The key at a place.
    pub(crate) fn get(&self, place: u64) -> &[u8] {
        let mut at = place as usize;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.bytes[at];
            at += 1;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return &self.bytes[at..at + length];
            }
        }
    }

    /// Counts the key at a place as dead.
    pub(crate) fn forget(&mut self, place: u64) {
        self.dead += self.get(place).len() + 1;
    }

    /// Whether more than half of the heap is dead.
    pub(crate) fn is_sparse(&self) -> bool {
        self.dead > 256 && self.dead * 2 > self.bytes.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.dead = 0;
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}
