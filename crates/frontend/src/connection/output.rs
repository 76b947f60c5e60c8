//! Bytes that wait to be written to a client.
//!
//! Small frames are copied one behind the other into one buffer, so that a burst of them is one system call. Large bodies are kept as they
//! are and written from where they lie: their 26-byte header goes into the buffer, the body becomes a piece of its own, and the pieces
//! leave together in one vectored write. Nothing is kept while nothing waits.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf as _, Bytes, BytesMut};

/// From this size on a body is not copied.
const BODY_COPY_BYTES_MAX: usize = 16 * 1024;
/// Pieces per vectored write.
pub(crate) const SLICES_MAX: usize = 32;
/// An empty buffer larger than this is given back at once.
const KEEP_BYTES_MAX: usize = 64 * 1024;

/// The output of one connection.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    waiting_bytes: usize,
    written_bytes: u64,
}

impl Output {
    /// Appends whatever `encode` writes.
    pub(crate) fn append(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        encode(&mut self.tail);
        self.waiting_bytes += self.tail.len() - before;
    }

    /// Appends a body, without a copy if it is large.
    pub(crate) fn append_body(&mut self, body: &Bytes) {
        if body.len() < BODY_COPY_BYTES_MAX {
            self.append(|tail| tail.extend_from_slice(body));
            return;
        }
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
        self.pieces.push_back(body.clone());
        self.waiting_bytes += body.len();
    }

    /// Bytes that wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting_bytes == 0
    }

    /// Where the next appended byte will stand in everything that the connection ever writes.
    pub(crate) fn end_position(&self) -> u64 {
        self.written_bytes + self.waiting_bytes as u64
    }

    /// How many bytes have been written since the connection began.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The bytes to write next, for one vectored write; returns how many slices were filled.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let waiting = self.pieces.iter().map(|piece| &piece[..]).chain(tail);
        let mut count = 0;
        for (slot, piece) in slices.iter_mut().zip(waiting) {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// The first `count` bytes were written.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(
            count <= self.waiting_bytes,
            "a socket took more bytes than it was given"
        );
        self.waiting_bytes -= count;
        self.written_bytes += count as u64;
        let mut left = count;
        while let Some(first) = self.pieces.front_mut() {
            if left < first.len() {
                first.advance(left);
                return;
            }
            left -= first.len();
            self.pieces.pop_front();
        }
        self.tail.advance(left);
        if self.waiting_bytes == 0 && self.tail.capacity() > KEEP_BYTES_MAX {
            self.release();
        }
    }

    /// Gives the memory back if nothing waits.
    pub(crate) fn release(&mut self) {
        if self.waiting_bytes == 0 {
            self.tail = BytesMut::new();
            self.pieces = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(output: &mut Output, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = output.slices(&mut slices);
            let taken: Vec<u8> = slices[..count]
                .iter()
                .flat_map(|s| s.iter().copied())
                .take(step)
                .collect();
            output.consume(taken.len());
            all.extend(taken);
        }
        all
    }

    #[test]
    fn order_is_kept_over_copied_and_uncopied_pieces_at_every_write_size() {
        let large = Bytes::from(vec![7; BODY_COPY_BYTES_MAX]);
        let mut expected = Vec::new();
        expected.extend_from_slice(b"head");
        expected.extend_from_slice(&large);
        expected.extend_from_slice(b"tail");
        for step in [1, 3, 4, 5, 1000, BODY_COPY_BYTES_MAX + 4, usize::MAX] {
            let mut output = Output::default();
            output.append(|tail| tail.extend_from_slice(b"head"));
            output.append_body(&large);
            output.append_body(&Bytes::from_static(b"tail"));
            assert_eq!(output.end_position(), expected.len() as u64);
            assert_eq!(drain(&mut output, step), expected, "step {step}");
            assert_eq!(output.written_bytes(), expected.len() as u64);
        }
    }

    #[test]
    fn more_pieces_than_one_write_takes() {
        let large = Bytes::from(vec![1; BODY_COPY_BYTES_MAX]);
        let mut output = Output::default();
        for _ in 0..3 * SLICES_MAX {
            output.append_body(&large);
        }
        assert_eq!(
            drain(&mut output, usize::MAX).len(),
            3 * SLICES_MAX * BODY_COPY_BYTES_MAX
        );
    }
}
