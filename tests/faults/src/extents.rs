//! Bytes of a file that exist only in memory, by offset.
//!
//! Extents never overlap. Appends to the end of an extent extend it in place, so a file that is written sequentially
//! costs one extent however small its writes are.

use std::collections::BTreeMap;

/// An extent is not extended beyond this many bytes: a `Vec` that doubles near its end would copy all of it.
const EXTENT_BYTES_MAX: usize = 1 << 20;

/// A sparse map from offset to bytes.
#[derive(Debug, Default)]
pub(crate) struct ExtentMap {
    extents: BTreeMap<u64, Vec<u8>>,
    bytes: u64,
}

impl ExtentMap {
    /// Total bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The offset after the last byte, 0 if there is none.
    pub(crate) fn end(&self) -> u64 {
        self.extents
            .last_key_value()
            .map_or(0, |(start, data)| start + data.len() as u64)
    }

    /// Puts `data` at `offset`, replacing what was there.
    pub(crate) fn insert(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.remove(offset, offset + data.len() as u64);
        self.bytes += data.len() as u64;
        if let Some((start, previous)) = self.extents.range_mut(..offset).next_back() {
            let adjacent = start + previous.len() as u64 == offset;
            if adjacent && previous.len() + data.len() <= EXTENT_BYTES_MAX {
                previous.extend_from_slice(data);
                return;
            }
        }
        self.extents.insert(offset, data.to_vec());
    }

    /// Drops every byte at or after `length`.
    pub(crate) fn cut(&mut self, length: u64) {
        self.remove(length, u64::MAX);
    }

    /// Drops the bytes of `from..to`, splitting an extent that reaches over an edge.
    pub(crate) fn remove(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let mut touched: Vec<u64> = self.extents.range(from..to).map(|(start, _)| *start).collect();
        if let Some((start, data)) = self.extents.range(..from).next_back()
            && start + data.len() as u64 > from
        {
            touched.push(*start);
        }
        for start in touched {
            let mut data = self.extents.remove(&start).expect("the key was listed just above");
            let end = start + data.len() as u64;
            self.bytes -= data.len() as u64;
            if end > to {
                let tail = data.split_off((to - start) as usize);
                self.bytes += tail.len() as u64;
                self.extents.insert(to, tail);
            }
            if start < from {
                data.truncate((from - start) as usize);
                self.bytes += data.len() as u64;
                self.extents.insert(start, data);
            }
        }
    }

    /// Copies what lies in `offset..offset + buffer.len()` over `buffer`.
    pub(crate) fn copy_over(&self, offset: u64, buffer: &mut [u8]) {
        let end = offset + buffer.len() as u64;
        let first = self
            .extents
            .range(..=offset)
            .next_back()
            .map_or(offset, |(start, _)| *start);
        for (start, data) in self.extents.range(first..end) {
            let from = offset.max(*start);
            let to = end.min(start + data.len() as u64);
            if from < to {
                buffer[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&data[(from - start) as usize..(to - start) as usize]);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.extents.iter().map(|(start, data)| (*start, data.as_slice()))
    }

    pub(crate) fn clear(&mut self) {
        self.extents.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    /// The naive model: a plain array with a flag per byte.
    #[test]
    fn random_histories_agree_with_an_array() {
        const SIZE: usize = 300;
        for seed in 0..200 {
            let mut seed = Seed::new(seed);
            let mut map = ExtentMap::default();
            let mut model: Vec<Option<u8>> = vec![None; SIZE];
            for step in 0..60u8 {
                let from = seed.below(SIZE as u64) as usize;
                let to = from + seed.below((SIZE - from) as u64 + 1) as usize;
                match seed.below(4) {
                    0 => {
                        map.remove(from as u64, to as u64);
                        model[from..to].fill(None);
                    }
                    1 if step % 7 == 0 => {
                        map.cut(from as u64);
                        model[from..].fill(None);
                    }
                    _ => {
                        map.insert(from as u64, &vec![step; to - from]);
                        model[from..to].fill(Some(step));
                    }
                }
                let mut seen = vec![255u8; SIZE];
                map.copy_over(0, &mut seen);
                let expected: Vec<u8> = model.iter().map(|byte| byte.unwrap_or(255)).collect();
                assert_eq!(seen, expected);
                assert_eq!(map.bytes(), model.iter().flatten().count() as u64);
                assert_eq!(
                    map.end(),
                    model.iter().rposition(Option::is_some).map_or(0, |at| at as u64 + 1)
                );
                let mut part = vec![255u8; to - from];
                map.copy_over(from as u64, &mut part);
                assert_eq!(part, expected[from..to]);
            }
        }
    }
}
