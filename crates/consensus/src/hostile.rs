//! What holds for any bytes that a peer may send; asked by tests, and by the fuzzer (`fuzz/`), for which alone it is public.

use bytes::Bytes;
use nsquorum_links::Frame;
use nsquorum_topic::GroupId;

use crate::peers::NodeFrame;
use crate::raft::{Answer, Request, call_of, is_answer};

/// The group whose requests are read.
const GROUP: GroupId = GroupId::new(7);

/// A frame between nodes. Whatever is accepted has one meaning only: it encodes to the same bytes.
pub fn node_frame(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Some(frame) = NodeFrame::decode(bytes.clone()) {
        assert_eq!(bytes_of(&frame.encode()), bytes, "{frame:?} encodes to other bytes");
    }
}

/// A frame between two replicas of a group. As [`node_frame`]; but ids of a snapshot's membership are put in order.
pub fn raft_frame(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if is_answer(&bytes) {
        if let Ok((call, answer)) = Answer::decode(&bytes) {
            assert_eq!(call_of(&bytes), Some(call));
            assert_eq!(
                bytes_of(&answer.encode(call)),
                bytes,
                "{answer:?} encodes to other bytes"
            );
        }
    } else if let Ok(request) = Request::decode(&bytes, GROUP) {
        let call = call_of(&bytes).expect("it stands in front of what was read");
        let is_snapshot = matches!(request, Request::Snapshot(_));
        let encoded = bytes_of(&request.encode(call, GROUP));
        assert!(is_snapshot || encoded == bytes, "a request encodes to other bytes");
        let again = Request::decode(&encoded, GROUP).expect("an own encoding");
        assert_eq!(
            bytes_of(&again.encode(call, GROUP)),
            encoded,
            "the second encoding is not the first"
        );
    }
}

fn bytes_of(frame: &Frame) -> Bytes {
    frame.slice(0, usize::MAX)
}

#[cfg(test)]
mod tests {
    fn found(corpus: &str) -> Vec<Vec<u8>> {
        let path = format!("{}/../../fuzz/corpus/{corpus}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(path).expect("the corpus is there");
        let inputs = files.map(|file| std::fs::read(file.expect("listed").path()).expect("readable"));
        inputs.collect()
    }

    #[test]
    fn what_the_fuzzer_found_is_read_or_refused() {
        let (node, raft) = (found("node_frame"), found("raft_frame"));
        assert!(node.len() > 10 && raft.len() > 10, "the corpus is missing");
        node.iter().for_each(|bytes| super::node_frame(bytes));
        raft.iter().for_each(|bytes| super::raft_frame(bytes));
    }
}
