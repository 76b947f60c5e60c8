//! Bytes as a network delivers them.

/// Cuts `bytes` into pieces; `cuts` decides where. 0 is one byte at a time; otherwise the pieces are irregular, and the larger the last digit of
/// `cuts`, the longer. No piece is empty.
pub fn pieces(bytes: &[u8], cuts: u8) -> impl Iterator<Item = &[u8]> {
    let mut state = u32::from(cuts) + 1;
    let length_max = if cuts == 0 { 1 } else { 2 << (cuts % 10) };
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // Xorshift: any irregular sequence that is the same each time.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let (piece, left) = rest.split_at(rest.len().min(1 + (state % length_max) as usize));
        rest = left;
        Some(piece)
    })
}
