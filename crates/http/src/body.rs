//! Reading a request's body up to a limit.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

/// How much of an unread body is read and dropped, and for how long, so that the client gets to see the refusal: closing a socket with
/// unread bytes makes the kernel reset it, which may destroy the answer on its way.
const DRAIN_BYTES_MAX: usize = 4 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// Why a body could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is longer than the limit.
    #[error("the body is longer than the limit")]
    TooLong,
    /// The connection broke or the body was malformed.
    #[error("the body could not be read")]
    Broken,
}

/// Reads the body if it has at most `bytes_max` bytes. A body that arrives in one piece is not copied. A body that announces too great a
/// length is refused before it is read.
pub async fn read_body(body: &mut Incoming, bytes_max: usize) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(BodyError::TooLong);
    }
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
            continue;
        };
        length += data.len();
        if length > bytes_max {
            return Err(BodyError::TooLong);
        }
        pieces.push(data);
    }
    Ok(match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.remove(0),
        _ => {
            let mut whole = BytesMut::with_capacity(length);
            pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
            whole.freeze()
        }
    })
}

/// Reads and drops what is left of a body, within bounds. Whether all of it was read: otherwise the connection cannot go on.
pub(crate) async fn drain(body: &mut Incoming) -> bool {
    let drained = async {
        let mut left = DRAIN_BYTES_MAX;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, Bytes::len);
            if length >= left {
                return false;
            }
            left -= length;
        }
        true
    };
    tokio::time::timeout(DRAIN_TIME_MAX, drained).await.unwrap_or(false)
}
