//! Lines packed into datagrams.

/// Packs lines, each behind the prefix and with a newline, into packets of at most `bytes_max` bytes. A line that is longer goes alone.
pub(super) fn pack(prefix: &str, lines: &[String], bytes_max: usize) -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for line in lines {
        let length = prefix.len() + line.len() + 1;
        let packet = match packets.last_mut().filter(|packet| packet.len() + length <= bytes_max) {
            Some(packet) => packet,
            None => {
                packets.push(Vec::with_capacity(length));
                packets.last_mut().expect("one was just pushed")
            }
        };
        packet.extend_from_slice(prefix.as_bytes());
        packet.extend_from_slice(line.as_bytes());
        packet.push(b'\n');
    }
    packets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_never_cut() {
        let lines = ["aaa", "bb", "a line that is longer than a packet", "c"].map(str::to_owned);
        let packets = pack("p.", &lines, 11);
        let texts: Vec<_> = packets.iter().map(|packet| String::from_utf8_lossy(packet)).collect();
        assert_eq!(
            texts,
            ["p.aaa\np.bb\n", "p.a line that is longer than a packet\n", "p.c\n"]
        );
        assert!(pack("p.", &[], 11).is_empty());
    }
}
