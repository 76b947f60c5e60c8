//! Compressed streams in every cut, against the libraries' own encoders, and what is corrupt.

use std::io::{Read as _, Write as _};

use bytes::BytesMut;
use nsquorum_protocol::Compression;
use nsquorum_protocol::compression::{Compressor, Corrupt, Decoded, Decompressor};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

const ALL: [Compression; 4] = [
    Compression::Snappy,
    Compression::Deflate { level: 1 },
    Compression::Deflate { level: 6 },
    Compression::Deflate { level: 9 },
];
const IDENTIFIER: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// Feeds `compressed` in pieces and takes the output in pieces.
fn decompress(
    decompressor: &mut Decompressor,
    compressed: &[u8],
    step_in: usize,
    step_out: usize,
) -> Result<Vec<u8>, Corrupt> {
    let mut all = Vec::new();
    let mut input = BytesMut::new();
    let mut out = vec![0; step_out];
    for piece in compressed.chunks(step_in) {
        input.extend_from_slice(piece);
        while let Decoded::Bytes(count) = decompressor.decompress(&mut input, &mut out)? {
            all.extend_from_slice(&out[..count]);
        }
    }
    Ok(all)
}

fn bodies(random: &mut StdRng) -> Vec<Vec<u8>> {
    [0, 1, 13, 200, 8 * 1024, 65_535, 65_536, 65_537, 300_000]
        .into_iter()
        .flat_map(|length| {
            let noise: Vec<u8> = (0..length).map(|_| random.random()).collect();
            let text: Vec<u8> = (0..length).map(|at| b"abcabcd"[at % 7]).collect();
            [noise, text, vec![0; length]]
        })
        .collect()
}

#[test]
fn what_was_flushed_arrives_at_once_in_every_cut() {
    let mut random = StdRng::seed_from_u64(1);
    for compression in ALL {
        for (step_in, step_out) in [(usize::MAX, 1 << 20), (1, 100), (7, 1), (1000, 4096)] {
            let mut compressor = Compressor::new(compression);
            let mut decompressor = Decompressor::new(compression);
            for body in bodies(&mut random) {
                if body.len() > 70_000 && step_in.min(step_out) < 1000 {
                    continue;
                }
                let mut compressed = BytesMut::new();
                // In parts: only the flush has to end at a boundary that the other side can see.
                for part in body.chunks(100_000) {
                    compressor.compress(part, &mut compressed);
                }
                compressor.flush(&mut compressed);
                let arrived = decompress(&mut decompressor, &compressed, step_in, step_out).expect("intact");
                assert!(
                    arrived == body,
                    "{compression:?}: {} bytes in steps of {step_in}/{step_out}",
                    body.len()
                );
                let mut nothing = BytesMut::new();
                compressor.flush(&mut nothing);
                assert!(nothing.is_empty(), "a flush without new bytes writes nothing");
            }
        }
    }
}

#[test]
fn streams_have_the_bytes_that_nsqd_writes() {
    let mut snappy = BytesMut::new();
    let mut compressor = Compressor::new(Compression::Snappy);
    compressor.compress(b"\0\0\0\x06\0\0\0\0OK", &mut snappy);
    assert_eq!(&snappy[..10], IDENTIFIER);
    assert_eq!(&snappy[10..14], b"\x01\x0e\0\0", "too small to gain: stored");
    assert_eq!(&snappy[18..], b"\0\0\0\x06\0\0\0\0OK");
    snappy.clear();
    compressor.compress(b"x", &mut snappy);
    assert!(!snappy.starts_with(IDENTIFIER), "one identifier a stream");

    let mut deflate = BytesMut::new();
    let mut compressor = Compressor::new(Compression::Deflate { level: 6 });
    compressor.compress(b"OK", &mut deflate);
    compressor.flush(&mut deflate);
    assert!(deflate.ends_with(b"\0\0\xff\xff"));
    let mut decoded = Vec::new();
    let mut whole = deflate.to_vec();
    whole.extend_from_slice(b"\x03\0");
    flate2::read::DeflateDecoder::new(&whole[..])
        .read_to_end(&mut decoded)
        .expect("raw deflate, without a header");
    assert_eq!(decoded, b"OK");
}

#[test]
fn other_encoders_are_understood() {
    let body: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
    let mut snappy = snap::write::FrameEncoder::new(Vec::new());
    snappy.write_all(&body).expect("memory");
    let snappy = snappy.into_inner().expect("memory");
    // pynsq's encoder has no state: every write begins with an identifier. Padding and chunks of unknown kinds are skipped.
    let repeated = [
        &snappy[..],
        b"\xfe\x03\0\0abc",
        &snappy[..],
        IDENTIFIER,
        b"\x80\0\0\0",
        IDENTIFIER,
        &snappy[..],
    ]
    .concat();
    for step in [1, 3, 1000, usize::MAX] {
        let mut decompressor = Decompressor::new(Compression::Snappy);
        let arrived = decompress(&mut decompressor, &repeated, step, 10_000).expect("intact");
        assert!(arrived == body.repeat(3), "in steps of {step}");
    }

    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    deflate.write_all(&body).expect("memory");
    let deflate = deflate.finish().expect("memory");
    let mut decompressor = Decompressor::new(Compression::Deflate { level: 1 });
    assert!(decompress(&mut decompressor, &deflate, 7, 1000).expect("intact") == body);
    let mut rest = BytesMut::from(&b"after the end"[..]);
    assert_eq!(decompressor.decompress(&mut rest, &mut [0; 8]), Ok(Decoded::End));
}

#[test]
fn a_small_input_for_a_huge_output_is_handed_out_in_pieces() {
    let mut compressor = Compressor::new(Compression::Deflate { level: 9 });
    let mut compressed = BytesMut::new();
    for _ in 0..16 {
        compressor.compress(&vec![0; 1 << 20], &mut compressed);
    }
    compressor.flush(&mut compressed);
    assert!(compressed.len() < 100_000);
    let mut decompressor = Decompressor::new(Compression::Deflate { level: 1 });
    let mut out = [0; 1000];
    let mut sum = 0;
    while let Decoded::Bytes(count) = decompressor.decompress(&mut compressed, &mut out).expect("intact") {
        assert!(count <= out.len());
        sum += count;
    }
    assert_eq!(sum, 16 << 20);
}

#[test]
fn corrupt_streams_are_refused_before_anything_is_kept() {
    let large = [IDENTIFIER, b"\x00\xff\xff\xff"].concat();
    let long = [IDENTIFIER, b"\x01\x05\x00\x01"].concat();
    let bomb = [IDENTIFIER, b"\x00\x0a\0\0", &[0; 4], b"\xff\xff\xff\xff\x0f\0"].concat();
    let bad_checksum = [IDENTIFIER, b"\x01\x05\0\0", b"\0\0\0\0", b"x"].concat();
    let unknown = [IDENTIFIER, b"\x02\0\0\0"].concat();
    let table: [(&[u8], &str); 9] = [
        (b"\x01\x05\0\0", "it does not begin with snappy's stream identifier"),
        (b"PUB t\n", "it does not begin with snappy's stream identifier"),
        (b"\xff\x07\0\0", "a snappy stream identifier has an impossible length"),
        (b"\xff\x06\0\0sNaPpy", "a snappy stream identifier is not sNaPpY"),
        (&large, "a snappy chunk has an impossible length"),
        (&long, "a snappy chunk has an impossible length"),
        (&bomb, "a snappy chunk stands for more than 64 KiB"),
        (&bad_checksum, "a snappy chunk does not match its checksum"),
        (&unknown, "a snappy chunk is of a kind that must not be skipped"),
    ];
    for (bytes, text) in table {
        let mut decompressor = Decompressor::new(Compression::Snappy);
        let error = decompress(&mut decompressor, bytes, usize::MAX, 100).expect_err(text);
        assert_eq!(error.to_string(), format!("the compressed stream is corrupt: {text}"));
    }
    let mut decompressor = Decompressor::new(Compression::Deflate { level: 6 });
    let error = decompress(&mut decompressor, b"\xff\xff\xff\xff", usize::MAX, 100).expect_err("reserved block type");
    assert_eq!(error.to_string(), "the compressed stream is corrupt: it is not deflate");
}

#[test]
fn no_bytes_make_it_panic_or_hang() {
    let mut random = StdRng::seed_from_u64(2);
    for round in 0..2000 {
        let compression = ALL[round % ALL.len()];
        let mut compressor = Compressor::new(compression);
        let mut bytes = BytesMut::new();
        let length = random.random_range(0..3000);
        let body: Vec<u8> = (0..length).map(|_| random.random_range(0..8)).collect();
        compressor.compress(&body, &mut bytes);
        compressor.flush(&mut bytes);
        for _ in 0..random.random_range(1..8) {
            if !bytes.is_empty() {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
        }
        let step = random.random_range(1..200);
        // Corrupt or not: it comes to an end.
        drop(decompress(&mut Decompressor::new(compression), &bytes, step, 64));
    }
}
