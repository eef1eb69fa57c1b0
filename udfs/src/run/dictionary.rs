//! The strings and binaries of one column of one run, each once, numbered in the order they came.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Up to this many entries a look-up compares them all.
const SCAN_MAX: usize = 12;

/// Distinct byte strings with their codes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dictionary {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Codes by the hash of their bytes; empty while all entries are compared.
    index: HashTable<u32>,
}

impl Dictionary {
    /// Byte strings that are all different, one behind the other, and where each ends.
    pub(crate) fn of(bytes: Vec<u8>, ends: Vec<usize>) -> Dictionary {
        Dictionary { bytes, ends, index: HashTable::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a code.
    #[inline]
    pub(crate) fn get(&self, code: u32) -> &[u8] {
        get(&self.bytes, &self.ends, code)
    }

    /// The code of these bytes, new if they are.
    pub(crate) fn code(&mut self, bytes: &[u8]) -> u32 {
        let (heap, ends) = (&self.bytes, &self.ends);
        let fresh = ends.len() as u32;
        // A dictionary that was cleared keeps its index and uses it from the start.
        if ends.len() < SCAN_MAX && self.index.capacity() == 0 {
            if let Some(code) = (0..fresh).find(|code| get(heap, ends, *code) == bytes) {
                return code;
            }
        } else {
            if self.index.is_empty() && fresh > 0 {
                for code in 0..fresh {
                    let hash = xxh3_64(get(heap, ends, code));
                    self.index.insert_unique(hash, code, |code| xxh3_64(get(heap, ends, *code)));
                }
            }
            let hash = xxh3_64(bytes);
            let rehash = |code: &u32| xxh3_64(get(heap, ends, *code));
            match self.index.entry(hash, |code| get(heap, ends, *code) == bytes, rehash) {
                hashbrown::hash_table::Entry::Occupied(entry) => return *entry.get(),
                hashbrown::hash_table::Entry::Vacant(entry) => entry.insert(fresh),
            };
        }
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        fresh
    }

    /// Forgets all entries, keeping allocations that are not out of proportion.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        if self.index.capacity() > 4096 {
            self.index = HashTable::new();
        } else {
            self.index.clear();
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * 8 + self.index.allocation_size()
    }
}

#[inline]
fn get<'a>(bytes: &'a [u8], ends: &[usize], code: u32) -> &'a [u8] {
    let code = code as usize;
    let start = if code == 0 { 0 } else { ends[code - 1] };
    &bytes[start..ends[code]]
}
