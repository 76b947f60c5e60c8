//! A set of message numbers with one encoding per content.

use bytes::BufMut;
use roaring::RoaringTreemap;

use crate::format::{FormatError, Reader};
use crate::{Seq, SeqRange};

/// Numbers of one block share all bits but the lowest 16.
const BLOCK_BITS: u32 = 16;
const BITMAP_BYTES: usize = 8192;
const RANGE_BYTES: usize = 4;
/// With more ranges than this the bitmap is the shorter form.
const RANGES_MAX: usize = BITMAP_BYTES / RANGE_BYTES;
const KIND_RANGES: u8 = 0;
const KIND_BITMAP: u8 = 1;

/// A set of numbers: roaring containers in memory, an own form when encoded.
///
/// Roaring's portable form is not used for encoding: which container a block has there (array, bitmap, runs) depends on
/// the order of insertions, and a digest needs equal bytes for equal sets. Here a block holds its maximal ranges, or, if
/// those are more than [`RANGES_MAX`], a bitmap; the content alone decides.
///
/// ```text
/// u32  blocks, ascending; each:
///   u64  number >> 16
///   u8   kind
///   kind 0: u16 ranges, then per range u16 first, u16 last (inclusive; maximal, ascending)
///   kind 1: 8192 bytes, bit i of byte i / 8 (lowest first) = number with low bits i
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SeqSet {
    numbers: RoaringTreemap,
}

impl SeqSet {
    pub(crate) fn contains(&self, seq: Seq) -> bool {
        self.numbers.contains(seq.get())
    }

    pub(crate) fn len(&self) -> u64 {
        self.numbers.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Seq> + '_ {
        self.numbers.iter().map(Seq::new)
    }

    pub(crate) fn first(&self) -> Option<Seq> {
        self.numbers.min().map(Seq::new)
    }

    pub(crate) fn last(&self) -> Option<Seq> {
        self.numbers.max().map(Seq::new)
    }

    pub(crate) fn count_in(&self, range: SeqRange) -> u64 {
        self.numbers.range_cardinality(range.first().get()..=range.last().get())
    }

    /// Adds a range; returns how many of its numbers are new.
    pub(crate) fn insert(&mut self, range: SeqRange) -> u64 {
        self.numbers.insert_range(range.first().get()..=range.last().get())
    }

    pub(crate) fn remove_below(&mut self, end: Seq) {
        self.numbers.remove_range(..end.get());
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let count_at = out.len();
        out.put_u32_le(0);
        let mut blocks = 0_u32;
        let mut block = Block::default();
        for (high, bitmap) in self.numbers.bitmaps() {
            let mut ranges = bitmap.iter();
            while let Some(range) = ranges.next_range() {
                for key in range.start() >> BLOCK_BITS..=range.end() >> BLOCK_BITS {
                    let base = u64::from(high) << (u32::BITS - BLOCK_BITS) | u64::from(key);
                    if base != block.base {
                        blocks += u32::from(block.write(out));
                        block = Block {
                            base,
                            ranges: Vec::new(),
                        };
                    }
                    let first = key << BLOCK_BITS;
                    let last = first | u32::from(u16::MAX);
                    block
                        .ranges
                        .push((first.max(*range.start()) as u16, last.min(*range.end()) as u16));
                }
            }
        }
        blocks += u32::from(block.write(out));
        out[count_at..count_at + 4].copy_from_slice(&blocks.to_le_bytes());
    }

    /// Reads a set. Accepts encodings that are not canonical; whoever decodes a state compares the whole of it.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let mut set = Self::default();
        for _ in 0..reader.u32("number set")? {
            let base = reader.u64("number set block")?;
            if base > u64::MAX >> BLOCK_BITS {
                return Err(FormatError::Value {
                    what: "number set block",
                });
            }
            let base = base << BLOCK_BITS;
            match reader.u8("number set block")? {
                KIND_RANGES => set.read_ranges(base, reader)?,
                KIND_BITMAP => set.read_bitmap(base, reader)?,
                _ => {
                    return Err(FormatError::Value {
                        what: "number set block",
                    });
                }
            }
        }
        Ok(set)
    }

    fn read_ranges(&mut self, base: u64, reader: &mut Reader<'_>) -> Result<(), FormatError> {
        for _ in 0..reader.u16("number set block")? {
            let first = base | u64::from(reader.u16("number set range")?);
            let last = base | u64::from(reader.u16("number set range")?);
            self.numbers.insert_range(first..=last);
        }
        Ok(())
    }

    fn read_bitmap(&mut self, base: u64, reader: &mut Reader<'_>) -> Result<(), FormatError> {
        let bitmap = reader.take(BITMAP_BYTES, "number set bitmap")?;
        for (at, byte) in bitmap.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                self.numbers.insert(base | (at as u64 * 8 + bit));
            }
        }
        Ok(())
    }
}

/// A block while it is gathered: its maximal ranges of low halves, ascending.
#[derive(Default)]
struct Block {
    base: u64,
    ranges: Vec<(u16, u16)>,
}

impl Block {
    /// Writes the block unless it is empty; returns whether it did.
    fn write(&self, out: &mut Vec<u8>) -> bool {
        if self.ranges.is_empty() {
            return false;
        }
        out.put_u64_le(self.base);
        if self.ranges.len() <= RANGES_MAX {
            out.put_u8(KIND_RANGES);
            out.put_u16_le(self.ranges.len() as u16);
            for (first, last) in &self.ranges {
                out.put_u16_le(*first);
                out.put_u16_le(*last);
            }
        } else {
            out.put_u8(KIND_BITMAP);
            let at = out.len();
            out.put_bytes(0, BITMAP_BYTES);
            for low in self.ranges.iter().flat_map(|(first, last)| *first..=*last) {
                out[at + usize::from(low / 8)] |= 1 << (low % 8);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(set: &SeqSet) -> Vec<u8> {
        let mut out = Vec::new();
        set.encode(&mut out);
        out
    }

    fn single(seq: u64) -> SeqRange {
        SeqRange::single(Seq::new(seq))
    }

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq::new(first), Seq::new(last)).unwrap()
    }

    fn assert_round_trip(set: &SeqSet) {
        let bytes = encoded(set);
        let mut reader = Reader::new(&bytes);
        let decoded = SeqSet::decode(&mut reader).unwrap();
        assert_eq!(reader.remaining(), 0);
        assert_eq!(decoded.iter().collect::<Vec<_>>(), set.iter().collect::<Vec<_>>());
        assert_eq!(encoded(&decoded), bytes);
    }

    #[test]
    fn equal_sets_have_equal_bytes_however_they_were_filled() {
        // Runs across container and 32-bit borders, lone numbers, a block with more ranges than a bitmap is worth.
        let mut numbers: Vec<u64> = (65_000..140_000).chain([7, 9, 11]).collect();
        numbers.extend(u64::from(u32::MAX) - 5..u64::from(u32::MAX) + 70_000);
        numbers.extend((0..6_000).map(|i| (1 << 40) + 2 * i));
        numbers.push(u64::MAX);
        let mut ascending = SeqSet::default();
        for seq in &numbers {
            assert_eq!(ascending.insert(single(*seq)), 1);
        }
        let mut descending = SeqSet::default();
        for seq in numbers.iter().rev() {
            descending.insert(single(*seq));
        }
        // Filled by ranges, with neighbours that are removed again.
        let mut ranges = SeqSet::default();
        ranges.insert(range(0, 80_000));
        ranges.remove_below(Seq::new(65_000));
        ranges.insert(range(70_000, 139_999));
        ranges.insert(range(u64::from(u32::MAX) - 5, u64::from(u32::MAX) + 69_999));
        for seq in [7, 9, 11, u64::MAX]
            .into_iter()
            .chain((0..6_000).map(|i| (1 << 40) + 2 * i))
        {
            ranges.insert(single(seq));
        }

        assert_eq!(encoded(&ascending), encoded(&descending));
        assert_eq!(encoded(&ascending), encoded(&ranges));
        assert_round_trip(&ascending);
    }

    #[test]
    fn a_block_is_the_shorter_of_ranges_and_bitmap() {
        let mut set = SeqSet::default();
        for i in 0..RANGES_MAX as u64 {
            set.insert(single(2 * i));
        }
        assert_eq!(encoded(&set).len(), 4 + 8 + 1 + 2 + RANGES_MAX * RANGE_BYTES);
        assert_round_trip(&set);
        set.insert(single(2 * RANGES_MAX as u64));
        assert_eq!(encoded(&set).len(), 4 + 8 + 1 + BITMAP_BYTES);
        assert_round_trip(&set);
        set.insert(range(0, 65_535));
        assert_eq!(encoded(&set).len(), 4 + 8 + 1 + 2 + RANGE_BYTES);
        assert_round_trip(&set);
    }

    #[test]
    fn insert_counts_only_new_numbers() {
        let mut set = SeqSet::default();
        assert_eq!(set.insert(range(10, 19)), 10);
        assert_eq!(set.insert(range(5, 24)), 10);
        assert_eq!(set.count_in(range(8, 30)), 17);
        set.remove_below(Seq::new(20));
        assert_eq!(
            (set.first(), set.last(), set.len()),
            (Some(Seq::new(20)), Some(Seq::new(24)), 5)
        );
    }
}
